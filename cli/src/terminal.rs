//! The terminal: mycli's output and the user's answers.

pub(crate) mod interrupt;
pub(crate) mod log;
pub(crate) mod moment;
pub(crate) mod money;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod screen;
