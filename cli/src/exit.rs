//! The exit codes, as `mycli --help` documents them. They are those of `docker run` where it has
//! them.

use domain::{api::ExecutionView, execution::ExecutionStatus};

/// The command worked. For `exec`, `wait` and `logs -f`: the run's command exited with 0.
pub(crate) const SUCCESS: u8 = 0;
/// mycli failed, in a command that does not pass on a run's exit code.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong. This is clap's number too.
pub(crate) const USAGE: u8 = 2;
/// The run was stopped by its timeout. GNU `timeout` uses this number.
pub(crate) const TIMED_OUT: u8 = 124;
/// No exit code is known: the command never ran, was lost, or mycli itself failed. `docker run`
/// uses this number.
pub(crate) const UNKNOWN: u8 = 125;
/// The run was cancelled: 128 plus SIGINT.
pub(crate) const CANCELLED: u8 = 130;

/// The exit code for a run that ended like this.
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

/// One line on how the run ended. `None` if the exit code says it all.
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
