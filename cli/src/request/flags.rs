//! The flags that describe a run, shared by `exec`, `bulk` and `rerun`.

use std::path::PathBuf;

use clap::Args;
use domain::request::{MAX_PARALLEL_MAX, PRIORITY_MAX, RETRIES_MAX, SubmitRequest};

use crate::commands::completions::values;
use crate::config::machine::MachineFlags;
use crate::request::{
    env_file::{self, EnvFileError, Variable},
    number::whole,
};

/// Each is a key of the request; what is not given is left to `.mycli.yaml` and the stack.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RunFlags {
    /// Repository to clone: https://…, ssh://…, git@host:path; with --local also a directory
    #[arg(long, value_name = "URL", conflicts_with = "no_repo")]
    pub(crate) repo: Option<String>,
    /// Branch, tag or commit to check out [default: the current branch if the remote has it, else
    /// the remote's default]
    #[arg(long, value_name = "REF", conflicts_with = "no_repo")]
    pub(crate) branch: Option<String>,
    /// Commits of the history to fetch, or `full` with all branches and tags
    /// [default: 1]
    #[arg(long, value_name = "N|full", conflicts_with = "no_repo")]
    pub(crate) depth: Option<String>,
    /// Fetch the submodules too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "no_repo")]
    pub(crate) submodules: Option<bool>,
    /// Fetch the large files (Git LFS) too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "no_repo")]
    pub(crate) lfs: Option<bool>,
    /// Run without a repository
    #[arg(long)]
    pub(crate) no_repo: bool,
    /// Image to run in [default: the stack's; with --local this machine's own shell]
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Set a variable; a name alone takes its value from the environment
    #[arg(short, long = "env", value_name = "K=V|K")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file, one K=V or K a line; quotes are part of the value, as for docker
    /// run
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Give the command a secret of the stack as a variable
    #[arg(long = "secret", value_name = "NAME")]
    pub(crate) secrets: Vec<String>,
    /// Stop the command after this time: 90s, 30m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
    /// CPU units; 1024 are one vCPU
    #[arg(long, value_name = "UNITS")]
    pub(crate) cpu: Option<String>,
    /// Memory in MB
    #[arg(long, value_name = "MB")]
    pub(crate) memory: Option<String>,
    /// Disk in GB, 20 to 200 [default: 20]
    #[arg(long, value_name = "GB")]
    pub(crate) storage: Option<String>,
    /// Processor: arm64 or x86_64
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Run on Fargate Spot, which is cheaper, but AWS may take the capacity back
    #[arg(long, conflicts_with = "on_demand")]
    pub(crate) spot: bool,
    /// Run on Fargate on demand, whose capacity AWS does not take back
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// IAM role to run with, by name or ARN
    #[arg(long, value_name = "ROLE")]
    pub(crate) task_role: Option<String>,
    /// Secret with a private registry's credentials, by name or ARN
    #[arg(long, value_name = "SECRET")]
    pub(crate) registry_secret: Option<String>,
    /// Run only one at a time of all runs with this lock
    #[arg(long, value_name = "NAME")]
    pub(crate) lock: Option<String>,
    /// Make the run a member of a group
    #[arg(long, value_name = "NAME", add = values::groups())]
    pub(crate) group: Option<String>,
    /// Run at most N of the group at a time
    #[arg(long, value_name = "N", value_parser = whole(1..=i64::from(MAX_PARALLEL_MAX)))]
    pub(crate) max_parallel: Option<i64>,
    /// -100 to 100; of your waiting runs, the one with the higher priority goes first
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(-i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX)))]
    pub(crate) priority: Option<i64>,
    /// Try again up to N times when it fails
    #[arg(long, value_name = "N", value_parser = whole(0..=i64::from(RETRIES_MAX)))]
    pub(crate) retries: Option<i64>,
    /// Try again only if it failed for these causes: spot, host, failure
    #[arg(long, value_name = "CAUSE,…", value_delimiter = ',')]
    pub(crate) retry_on: Vec<String>,
    /// Keep the files that a pattern names, such as 'dist/**'; may be repeated, and !PATTERN leaves
    /// files out
    #[arg(long = "artifact", value_name = "GLOB")]
    pub(crate) artifacts: Vec<String>,
    /// After which end to keep them: always, success, failure [default: always]
    #[arg(long, value_name = "WHEN")]
    pub(crate) artifacts_on: Option<String>,
    /// A key of your choice; sent again within 24 hours, it gives the same run, not a new one
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// A short name, for people
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// How a run is submitted and followed.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LaunchFlags {
    /// Print the run's id and return at once
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Check the request and print it; run nothing
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    /// Get the files that the run keeps into this folder, once it is over
    #[arg(long, value_name = "DIR", conflicts_with_all = ["detach", "dry_run"])]
    pub(crate) artifacts_to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
}

impl RunFlags {
    /// Puts the given flags into `request`. Single values replace the request's; variables and
    /// secrets are merged by name. `absent` is called with a note for each variable that the
    /// environment does not have.
    ///
    /// # Errors
    /// [`EnvFileError`].
    pub(crate) fn apply(
        &self,
        request: &mut SubmitRequest,
        absent: impl FnMut(&str),
    ) -> Result<(), EnvFileError> {
        self.apply_source(request);
        self.apply_values(request);
        self.apply_env(request, absent)
    }

    /// Sets the repository, and how to clone it. The file's own values belong to the
    /// file's repository, so giving another repository drops them.
    fn apply_source(&self, request: &mut SubmitRequest) {
        if self.no_repo || self.repo.is_some() {
            (request.repo, request.branch) = (None, None);
            (request.depth, request.submodules, request.lfs) = (None, None, None);
        }
        replace(&mut request.repo, self.repo.as_ref());
        replace(&mut request.branch, self.branch.as_ref());
        replace(&mut request.depth, self.depth.as_ref());
        replace(&mut request.submodules, self.submodules.as_ref());
        replace(&mut request.lfs, self.lfs.as_ref());
    }

    fn apply_values(&self, request: &mut SubmitRequest) {
        replace(&mut request.image, self.image.as_ref());
        replace(&mut request.timeout, self.timeout.as_ref());
        // CPU and memory belong together: giving only one lets the other be chosen anew.
        if self.cpu.is_some() || self.memory.is_some() {
            (request.cpu, request.memory) = (None, None);
        }
        replace(&mut request.cpu, self.cpu.as_ref());
        replace(&mut request.memory, self.memory.as_ref());
        replace(&mut request.storage, self.storage.as_ref());
        replace(&mut request.arch, self.arch.as_ref());
        let capacity = if self.spot {
            Some("spot")
        } else {
            self.on_demand.then_some("on-demand")
        };
        replace(&mut request.capacity, capacity.as_ref());
        replace(&mut request.task_role, self.task_role.as_ref());
        replace(&mut request.registry_secret, self.registry_secret.as_ref());
        replace(&mut request.lock, self.lock.as_ref());
        replace(&mut request.group, self.group.as_ref());
        replace(&mut request.max_parallel, self.max_parallel.as_ref());
        replace(&mut request.priority, self.priority.as_ref());
        replace(&mut request.retries, self.retries.as_ref());
        replace(&mut request.idempotency_key, self.idempotency_key.as_ref());
        replace(&mut request.name, self.name.as_ref());
        if !self.artifacts.is_empty() {
            request.artifacts.clone_from(&self.artifacts);
        }
        replace(&mut request.artifacts_on, self.artifacts_on.as_ref());
        if !self.retry_on.is_empty() {
            request.retry_on.clone_from(&self.retry_on);
        }
        let new = self
            .secrets
            .iter()
            .filter(|name| !request.secrets.contains(name))
            .cloned()
            .collect::<Vec<_>>();
        request.secrets.extend(new);
    }

    fn apply_env(
        &self,
        request: &mut SubmitRequest,
        mut absent: impl FnMut(&str),
    ) -> Result<(), EnvFileError> {
        let mut given = Vec::new();
        for path in &self.env_file {
            given.extend(env_file::read(path)?);
        }
        for text in &self.env {
            given.push(env_file::flag(text)?);
        }
        for variable in given {
            match variable {
                Variable::Set(name, value) => drop(request.env.insert(name, value)),
                Variable::Absent(words) => absent(&words),
            }
        }
        Ok(())
    }
}

fn replace<T, U: Clone + Into<T>>(value: &mut Option<T>, given: Option<&U>) {
    if let Some(given) = given {
        *value = Some(given.clone().into());
    }
}
