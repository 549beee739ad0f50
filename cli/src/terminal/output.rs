//! Prints the results of commands in the form that was asked for.

use domain::api::ExecutionView;

use crate::{client::ApiAnswer, config::context::Context, exit, failure::Failure};

/// Prints text to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn text(context: &Context, text: &str) -> Result<(), Failure> {
    context
        .screen
        .print(text)
        .map_err(Failure::io("write the output"))
}

/// Prints the API's answer unchanged, on one line.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn json(context: &Context, answer: &ApiAnswer) -> Result<(), Failure> {
    text(
        context,
        &format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()),
    )
}

/// Says how a run ended if the exit code alone does not tell, and returns the exit code.
pub(crate) fn verdict(context: &Context, run: &ExecutionView) -> u8 {
    if let Some(remark) = exit::remark(run) {
        context.screen.say(&remark);
    }
    exit::of(run)
}
