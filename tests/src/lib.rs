//! What the tests share.

pub mod emulator;
pub mod engine;
pub mod sandbox;

mod program;

pub use program::mycli;
