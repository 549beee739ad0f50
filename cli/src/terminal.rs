//! What mycli writes to a terminal, and reads from it.

pub(crate) mod interrupt;
pub(crate) mod moment;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod screen;
