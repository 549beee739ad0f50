//! The values that a shell completes. They are asked for at a TAB, so nothing here prints, and a
//! failure means no candidates.

use std::{collections::BTreeMap, env, ffi::OsString, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use domain::{
    api::{ExecutionView, KeyView},
    execution::ExecutionStatus,
};

use crate::{
    args::Cli,
    client::Client,
    config::context::{Context, Global},
    terminal::{log::LogForm, screen::one_line},
};

/// How long a person at a terminal waits for a TAB without thinking that it hangs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many of the latest runs are offered.
const RUNS: &str = "50";
/// The width of a command beside its run.
const WIDTH: usize = 40;

/// The ids of the latest runs, with status and command.
pub(crate) fn runs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let candidate = |run: ExecutionView| {
            let command = run.request.name.as_ref().unwrap_or(&run.request.command);
            let help = format!("{}: {}", run.status, one_line(command, WIDTH));
            CompletionCandidate::new(run.execution_id.to_string()).help(Some(help.into()))
        };
        latest().into_iter().map(candidate).collect()
    })
}

/// The groups of the latest runs, with the number of these.
pub(crate) fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for group in latest().into_iter().filter_map(|run| run.request.group) {
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
        let keys = ask(async |client| Some(client.keys().await.ok()?.value.keys));
        let candidate = |key: KeyView| {
            CompletionCandidate::new(key.name).help(Some(key.role.to_string().into()))
        };
        keys.into_iter().flatten().map(candidate).collect()
    })
}

/// The stacks of the user's settings.
pub(crate) fn stacks() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = context().and_then(|context| {
            let settings = context.settings().ok()?;
            Some(settings.stacks.keys().map(ToString::to_string).collect())
        });
        let names: Vec<String> = names.unwrap_or_default();
        names.into_iter().map(CompletionCandidate::new).collect()
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

fn latest() -> Vec<ExecutionView> {
    let found = ask(async |client| {
        let got = client.history(&[("limit", Some(RUNS))]).await.ok()?;
        let runs = got.value.executions.into_iter();
        Some(runs.filter_map(|listed| listed.run().cloned()).collect())
    });
    found.unwrap_or_default()
}

/// Asks the stack or the machine that the command line names.
fn ask<T>(question: impl AsyncFnOnce(&Client) -> Option<T>) -> Option<T> {
    let context = context()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let answer = async {
        let client = context.client(false).await.ok()?;
        let answer = question(&client).await;
        client.close(&context.screen).await;
        answer
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, answer).await })
        .ok()?
}

/// The context of the command line that is being typed. The shell passes its words after `--`. A
/// global flag whose value is not typed yet counts as not given.
fn context() -> Option<Context> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    let global = global(words).or_else(|| global([Cli::command().get_name().into()]))?;
    Some(Context::new(global, "", LogForm::Text))
}

fn global(words: impl IntoIterator<Item = OsString>) -> Option<Global> {
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok()?;
    Global::from_arg_matches(&matches).ok()
}
