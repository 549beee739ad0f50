//! Validation: turns a request as a user wrote it into one that can be run. Every fault is
//! reported, not just the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use super::text::shown;
use super::{
    ARTIFACT_GLOBS_MAX, ArtifactGlob, Artifacts, CommandLine, Defaults, Depth, Env, EnvName,
    FieldError, GitRef, ImageRef, LaunchRequest, MAX_PARALLEL_MAX, PRIORITY_MAX, Place,
    RETRIES_MAX, RepoUrl, RetryOn, Scalar, SecretName, SizeError, Source, SubmitRequest, TaskSize,
    TaskStorage, Timeout, env,
};

impl SubmitRequest {
    /// Turns the request into one that can be run, with `defaults` for what it leaves out.
    ///
    /// If only one of `cpu` and `memory` is given, the default of the other is taken if the two
    /// match, else the least that does. `retry_on` without `retries` asks for one retry.
    ///
    /// # Errors
    /// All faults, in the order of the request's keys. The total size is checked only if nothing
    /// else is wrong.
    pub fn validate(self, defaults: &Defaults) -> Result<LaunchRequest, Vec<FieldError>> {
        let mut faults = Faults::default();
        faults.action(self.action.as_deref());
        let launch = LaunchRequest {
            command: faults.command(self.command),
            source: faults.source(
                AskedSource {
                    repo: self.repo.as_deref(),
                    branch: self.branch,
                    depth: self.depth,
                    submodules: self.submodules.unwrap_or_default(),
                    lfs: self.lfs.unwrap_or_default(),
                },
                defaults.place,
            ),
            image: faults.image(self.image, defaults),
            env: faults.env(&self.env),
            secrets: faults.secrets(&self.secrets, &self.env),
            timeout: faults.timeout(self.timeout.as_ref(), defaults),
            size: faults.size(self.cpu.as_ref(), self.memory.as_ref(), defaults.size),
            storage: faults.storage(self.storage.as_ref()),
            arch: faults.parsed("arch", self.arch).unwrap_or(defaults.arch),
            capacity: faults
                .parsed("capacity", self.capacity)
                .unwrap_or(defaults.capacity),
            lock: faults.parsed("lock", self.lock),
            max_parallel: faults.max_parallel(self.max_parallel, self.group.is_some()),
            group: faults.parsed("group", self.group),
            priority: faults.priority(self.priority),
            retries: faults.retries(self.retries, &self.retry_on),
            retry_on: faults.retry_on(&self.retry_on),
            name: faults.parsed("name", self.name),
            artifacts: faults.artifacts(&self.artifacts, self.artifacts_on),
            idempotency_key: faults.parsed("idempotency_key", self.idempotency_key),
            task_role: faults.parsed("task_role", self.task_role),
            registry_secret: faults.parsed("registry_secret", self.registry_secret),
        };
        faults.none_in(launch)
    }
}

/// The fault of a text that no process can be given.
const NUL: &str = "holds a NUL byte, which no command can take: remove it";

/// The keys of a request that make up its source.
struct AskedSource<'a> {
    repo: Option<&'a str>,
    branch: Option<String>,
    depth: Option<Scalar>,
    submodules: bool,
    lfs: bool,
}

/// Collects the faults. A wrong part is replaced by a stand-in, which nobody sees because the whole
/// request is then refused.
#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn none_in(mut self, launch: LaunchRequest) -> Result<LaunchRequest, Vec<FieldError>> {
        if self.0.is_empty() {
            self.0.extend(super::bytes::faults(&launch));
        }
        if self.0.is_empty() {
            Ok(launch)
        } else {
            Err(self.0)
        }
    }

    fn add(&mut self, field: impl Into<String>, message: impl Display) {
        self.0.push(FieldError {
            field: field.into(),
            message: message.to_string(),
        });
    }

    fn keep<T, E: Display>(&mut self, field: impl Into<String>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, field: &str, text: Option<String>) -> Option<T> {
        self.keep(field, text?.parse())
    }

    fn action(&mut self, action: Option<&str>) {
        if action.is_some_and(|action| action != "exec") {
            self.add(
                "action",
                "is not known: use `exec`, the only action there is",
            );
        }
    }

    fn command(&mut self, command: Option<CommandLine>) -> CommandLine {
        match &command {
            None => self.add(
                "command",
                "is missing: say what to run, as in `terraform plan`",
            ),
            Some(CommandLine::Text(text)) => self.command_text("command", text),
            Some(CommandLine::Words(words)) => match words.split_first() {
                None => self.add(
                    "command",
                    "is an empty list: say what to run, as in `[\"terraform\", \"plan\"]`",
                ),
                Some((program, arguments)) => {
                    self.command_text("command[0]", program);
                    let with_nul = arguments.iter().position(|word| word.contains('\0'));
                    if let Some(at) = with_nul {
                        self.add(format!("command[{}]", at + 1), NUL);
                    }
                }
            },
        }
        command.unwrap_or_default()
    }

    fn command_text(&mut self, field: &str, text: &str) {
        if text.trim().is_empty() {
            self.add(field, "is blank: say what to run, as in `terraform plan`");
        } else if text.contains('\0') {
            self.add(field, NUL);
        }
    }

    fn source(&mut self, asked: AskedSource<'_>, place: Place) -> Option<Source> {
        let is_given = [
            ("branch", asked.branch.is_some()),
            ("depth", asked.depth.is_some()),
            ("submodules", asked.submodules),
            ("lfs", asked.lfs),
        ];
        let without_repo = is_given
            .iter()
            .filter(|(_, is_given)| *is_given && asked.repo.is_none());
        for (field, _) in without_repo {
            let words =
                format!("is given without a repository: add `repo`, or leave `{field}` out");
            self.add(*field, words);
        }
        let repo = asked.repo;
        let repo = repo.and_then(|text| self.keep("repo", RepoUrl::parse(text, place)));
        let reference = self.parsed::<GitRef>("branch", asked.branch);
        let depth = asked.depth.map(|depth| depth.as_str().to_owned());
        let depth = self.parsed::<Depth>("depth", depth).unwrap_or_default();
        repo.map(|repo| Source {
            repo,
            reference,
            depth,
            submodules: asked.submodules,
            lfs: asked.lfs,
        })
    }

    fn image(&mut self, image: Option<String>, defaults: &Defaults) -> Option<ImageRef> {
        if image.is_none() && defaults.image.is_none() && defaults.place == Place::Aws {
            self.add(
                "image",
                "is missing, and the stack has no default: name one, as in `alpine:3.20`",
            );
        }
        let given = image.is_some();
        let image = self.parsed("image", image);
        if given { image } else { defaults.image.clone() }
    }

    fn env(&mut self, variables: &BTreeMap<String, String>) -> Env {
        let checked = variables.iter().filter_map(|(name, value)| {
            let field = format!("env.{}", env::without_value(name).escape_debug());
            let value = self.keep(&field, env::check_value(value).map(|()| value.clone()));
            let name = self.keep(&field, name.parse::<EnvName>());
            name.zip(value)
        });
        let checked: BTreeMap<_, _> = checked.collect();
        self.keep("env", Env::try_from(checked)).unwrap_or_default()
    }

    fn secrets(
        &mut self,
        names: &[String],
        variables: &BTreeMap<String, String>,
    ) -> Vec<SecretName> {
        let mut seen = BTreeSet::new();
        let checked = names.iter().enumerate().filter_map(|(index, name)| {
            let field = format!("secrets[{index}]");
            let secret = self.keep(&field, name.parse::<SecretName>())?;
            if variables.contains_key(name) {
                self.add(
                    &field,
                    format!("`{name}` is in `env` too: give it in one of the two"),
                );
            }
            if !seen.insert(name) {
                self.add(&field, format!("`{name}` is named twice: name it once"));
            }
            Some(secret)
        });
        checked.collect()
    }

    fn timeout(&mut self, timeout: Option<&Scalar>, defaults: &Defaults) -> Timeout {
        let parsed = timeout.map(|text| Timeout::parse(text.as_str(), defaults.max_timeout));
        parsed
            .and_then(|result| self.keep("timeout", result))
            .unwrap_or(defaults.timeout)
    }

    fn size(
        &mut self,
        cpu: Option<&Scalar>,
        memory: Option<&Scalar>,
        default: TaskSize,
    ) -> TaskSize {
        let numbers = (
            self.number("cpu", "CPU units", cpu),
            self.number("memory", "MB", memory),
        );
        let size = match numbers {
            (Some(cpu), Some(memory)) => self.pair(cpu, memory, default),
            (Some(cpu), None) => self.keep("cpu", default.with_cpu(cpu)),
            (None, Some(memory)) => self.keep("memory", default.with_memory(memory)),
            (None, None) => None,
        };
        size.unwrap_or(default)
    }

    fn storage(&mut self, storage: Option<&Scalar>) -> Option<TaskStorage> {
        let gb = self.number("storage", "GB", storage)?;
        // Each task has so much. The number takes back what a file or an earlier run asked for.
        if gb == u64::from(TaskStorage::FREE) {
            return None;
        }
        self.keep("storage", TaskStorage::new(gb))
    }

    fn pair(&mut self, cpu: u64, memory: u64, default: TaskSize) -> Option<TaskSize> {
        let size = TaskSize::new(cpu, memory);
        if !matches!(size, Err(SizeError::Cpu(_))) {
            return self.keep("memory", size);
        }
        // The CPU size is wrong, so there is no pair to check, but the memory may be wrong too.
        self.keep("cpu", size)
            .or(self.keep("memory", default.with_memory(memory)))
    }

    fn number(&mut self, field: &str, unit: &str, text: Option<&Scalar>) -> Option<u64> {
        let text = text?.as_str();
        let message = |_| {
            format!(
                "{} is not a whole number: write {unit} as digits alone, as in `1024`",
                shown(text)
            )
        };
        self.keep(field, text.parse().map_err(message))
    }

    fn priority(&mut self, priority: Option<i64>) -> i32 {
        let range = -PRIORITY_MAX..=PRIORITY_MAX;
        let wanted = priority.unwrap_or_default();
        let fitting = i32::try_from(wanted)
            .ok()
            .filter(|priority| range.contains(priority));
        let message =
            format!("is {wanted}: use -{PRIORITY_MAX} to {PRIORITY_MAX}; a higher one goes first");
        self.keep("priority", fitting.ok_or(message))
            .unwrap_or_default()
    }

    fn max_parallel(&mut self, wanted: Option<i64>, has_group: bool) -> Option<u32> {
        let wanted = wanted?;
        if !has_group {
            self.add(
                "max_parallel",
                "is given without a group, and it limits the executions of a group: add `group`, or leave it out",
            );
        }
        let fitting = u32::try_from(wanted)
            .ok()
            .filter(|most| (1..=MAX_PARALLEL_MAX).contains(most));
        self.keep(
            "max_parallel",
            fitting.ok_or(format!("is {wanted}: use 1 to {MAX_PARALLEL_MAX}")),
        )
    }

    fn artifacts(&mut self, globs: &[String], on: Option<String>) -> Option<Artifacts> {
        let is_asked = on.is_some();
        let on = self.parsed("artifacts_on", on).unwrap_or_default();
        if globs.is_empty() {
            if is_asked {
                self.add(
                    "artifacts_on",
                    "is given without files to keep: add `artifacts`, or leave it out",
                );
            }
            return None;
        }
        if globs.len() > ARTIFACT_GLOBS_MAX {
            let words = format!(
                "has {} patterns, the limit is {ARTIFACT_GLOBS_MAX}: name folders instead of files",
                globs.len()
            );
            self.add("artifacts", words);
        }
        let mut seen = BTreeSet::new();
        let mut checked = Vec::new();
        for (index, glob) in globs.iter().enumerate() {
            let field = format!("artifacts[{index}]");
            let read = self.keep(&field, glob.parse::<ArtifactGlob>());
            if !seen.insert(glob) {
                self.add(
                    &field,
                    format!("{} is given twice: give it once", shown(glob)),
                );
            }
            checked.extend(read);
        }
        if checked.len() == globs.len() && checked.iter().all(ArtifactGlob::is_exception) {
            self.add(
                "artifacts",
                "only leaves files out: add a pattern that takes some, as in `**`",
            );
        }
        Some(Artifacts { globs: checked, on })
    }

    fn retries(&mut self, retries: Option<i64>, retry_on: &[String]) -> u8 {
        let wanted = retries.unwrap_or(i64::from(!retry_on.is_empty()));
        let fitting = u8::try_from(wanted)
            .ok()
            .filter(|retries| *retries <= RETRIES_MAX);
        self.keep(
            "retries",
            fitting.ok_or(format!("is {wanted}: use 0 to {RETRIES_MAX}")),
        )
        .unwrap_or_default()
    }

    fn retry_on(&mut self, causes: &[String]) -> BTreeSet<RetryOn> {
        let mut seen = BTreeSet::new();
        for (index, cause) in causes.iter().enumerate() {
            let field = format!("retry_on[{index}]");
            let Some(cause) = self.keep(&field, cause.parse::<RetryOn>()) else {
                continue;
            };
            if !seen.insert(cause) {
                self.add(&field, format!("`{cause}` is named twice: name it once"));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests;
