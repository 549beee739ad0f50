//! The exit codes, as `mycli --help` documents them. Those of `docker run` where it has them.

use domain::{api::ExecutionView, execution::ExecutionStatus};

/// It worked; of `exec`, `wait` and `logs -f`: the command exited 0.
pub(crate) const SUCCESS: u8 = 0;
/// mycli failed, in a command that does not pass on a run's exit code.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong. The number that clap uses.
pub(crate) const USAGE: u8 = 2;
/// The run was stopped by its timeout. As GNU `timeout` does.
pub(crate) const TIMED_OUT: u8 = 124;
/// The command never ran, was lost, or mycli itself failed: nothing is known of an exit code. As
/// `docker run` does.
pub(crate) const UNKNOWN: u8 = 125;
/// The run was cancelled: 128 and SIGINT.
pub(crate) const CANCELLED: u8 = 130;

/// What to exit with for a run that ended so.
pub(crate) fn of(run: &ExecutionView) -> u8 {
    match run.status {
        ExecutionStatus::Succeeded => SUCCESS,
        ExecutionStatus::Failed => run
            .exit_code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(UNKNOWN),
        ExecutionStatus::TimedOut => TIMED_OUT,
        ExecutionStatus::Cancelled => CANCELLED,
        ExecutionStatus::Lost => UNKNOWN,
        ExecutionStatus::Queued
        | ExecutionStatus::Waiting
        | ExecutionStatus::Launching
        | ExecutionStatus::Running
        | ExecutionStatus::Other(_) => UNKNOWN,
    }
}

/// One line on how the run ended, unless its exit code says it all.
pub(crate) fn remark(run: &ExecutionView) -> Option<String> {
    let plain = run
        .exit_code
        .map(|code| format!("the command exited with code {code}"));
    if run.status == ExecutionStatus::Succeeded || (plain.is_some() && run.reason == plain) {
        return None;
    }
    Some(match &run.reason {
        Some(reason) => format!("{}: {reason}", run.status),
        None => run.status.to_string(),
    })
}
