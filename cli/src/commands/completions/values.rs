//! The values that a shell completes. They are asked for at a TAB, so nothing here prints, changes
//! anything, or keeps a person waiting. A failure means no candidates.

use std::{collections::BTreeMap, env, ffi::OsString, sync::mpsc, thread, time::Duration};

use clap::{Arg, Args as _, Command, FromArgMatches as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use domain::{
    api::{ExecutionView, KeyView},
    execution::{Execution, ExecutionStatus},
};

use crate::{
    client::Client,
    config::{
        context::{Context, Global},
        machine::MachineFlags,
    },
    local,
    terminal::{log::LogForm, screen::one_line},
};

/// How long a person at a terminal waits for a TAB without thinking that it hangs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many of the latest runs are offered.
const RUNS: u32 = 50;
/// The width of a command beside its run.
const WIDTH: usize = 40;

/// A run that may be meant.
struct LatestRun {
    id: String,
    status: ExecutionStatus,
    /// Its name, or else its command.
    title: String,
    group: Option<String>,
}

impl From<ExecutionView> for LatestRun {
    fn from(run: ExecutionView) -> Self {
        Self {
            id: run.execution_id.to_string(),
            status: run.status,
            title: run
                .request
                .name
                .unwrap_or_else(|| run.request.command.to_string()),
            group: run.request.group,
        }
    }
}

impl From<Execution> for LatestRun {
    fn from(run: Execution) -> Self {
        let title = run.request.name.as_ref().map(ToString::to_string);
        Self {
            id: run.id.to_string(),
            status: run.status(),
            title: title.unwrap_or_else(|| run.request.command.to_string()),
            group: run.request.group.as_ref().map(ToString::to_string),
        }
    }
}

/// The ids of the latest runs, with status and command.
pub(crate) fn runs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| latest().into_iter().map(candidate).collect())
}

/// The ids of the latest runs that are not over.
pub(crate) fn open_runs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let open = latest().into_iter().filter(|run| !run.status.is_final());
        open.map(candidate).collect()
    })
}

fn candidate(run: LatestRun) -> CompletionCandidate {
    let help = format!("{}: {}", run.status, one_line(&run.title, WIDTH));
    CompletionCandidate::new(run.id).help(Some(help.into()))
}

/// The groups of the latest runs, with the number of these.
pub(crate) fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for group in latest().into_iter().filter_map(|run| run.group) {
            *groups.entry(group).or_default() += 1;
        }
        let candidate = |(group, count): (String, usize)| {
            let runs = if count == 1 { "run" } else { "runs" };
            let help = format!("{count} {runs} lately");
            CompletionCandidate::new(group).help(Some(help.into()))
        };
        groups.into_iter().map(candidate).collect()
    })
}

/// The names of the keys, with their roles.
pub(crate) fn keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let keys = in_time(|| {
            let context = context().filter(|context| !context.global.local)?;
            ask(&context, async |client| {
                Some(client.keys().await.ok()?.value.keys)
            })
        });
        let candidate = |key: KeyView| {
            CompletionCandidate::new(key.name).help(Some(key.role.to_string().into()))
        };
        keys.into_iter().flatten().map(candidate).collect()
    })
}

/// The statuses of a run.
pub(crate) fn statuses() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = ExecutionStatus::ALL.iter();
        let names = names.map(|status| status.as_str().to_lowercase());
        names.map(CompletionCandidate::new).collect()
    })
}

/// The latest runs of the stack or the machine that the command line names.
fn latest() -> Vec<LatestRun> {
    let found = in_time(|| {
        let context = context()?;
        if context.global.local {
            let runs = local::latest(&context.home.local().ok()?, RUNS)?;
            return Some(runs.into_iter().map(LatestRun::from).collect());
        }
        let limit = RUNS.to_string();
        ask(&context, async |client| {
            let got = client.history(&[("limit", Some(&limit))]).await.ok()?;
            let runs = got.value.executions.into_iter();
            Some(
                runs.filter_map(|listed| listed.run().cloned())
                    .map(LatestRun::from)
                    .collect(),
            )
        })
    });
    found.unwrap_or_default()
}

/// Asks a question, and gives up after [`PATIENCE`]. The question goes on in its own thread,
/// because a look-up of a host's name cannot be cut short. The process ends soon anyway.
fn in_time<T: Send + 'static>(question: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(question()));
    answer.recv_timeout(PATIENCE).ok()?
}

/// Asks the stack or the server that the context names.
fn ask<T>(context: &Context, question: impl AsyncFnOnce(&Client) -> Option<T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async { question(&context.client(MachineFlags::default()).await.ok()?).await })
}

/// The context of the command line that is being typed. `None` if it names a stack or an endpoint
/// that cannot be read: the runs of another one are no candidates.
fn context() -> Option<Context> {
    let words = words(env::args_os());
    let names = |flag: &str| words.iter().any(|word| word == flag);
    let global = global(&words)?;
    let is_lost = names("--stack") && global.stack.is_none()
        || names("--endpoint") && global.endpoint.is_none();
    (!is_lost).then(|| Context::new(global, "", LogForm::Text))
}

/// The words that are being typed, which the shell passes after `--`. bash takes `--stack=team` for
/// three words.
fn words(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    for word in arguments.skip_while(|word| word != "--").skip(1) {
        match word.to_str().and_then(|word| word.split_once('=')) {
            Some(("", "")) => {}
            Some((flag, value)) if flag.starts_with("--") => {
                words.extend([flag.into(), value.into()]);
            }
            _ => words.push(word),
        }
    }
    words
}

/// The global flags among these words, wherever they stand before a `--`.
fn global(words: &[OsString]) -> Option<Global> {
    let command = Global::augment_args(Command::new("mycli")).ignore_errors(true);
    let mut kept = vec![OsString::from("mycli")];
    let mut words = words.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let is_named = |flag: &&Arg| {
            flag.get_long()
                .is_some_and(|name| *word == *format!("--{name}"))
        };
        if let Some(flag) = command.get_arguments().find(is_named) {
            kept.push(word.clone());
            if flag.get_action().takes_values() {
                kept.extend(words.next().cloned());
            }
        }
    }
    let matches = command.try_get_matches_from(kept).ok()?;
    Global::from_arg_matches(&matches).ok()
}
