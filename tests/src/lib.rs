//! What the tests share.

pub mod engine;
pub mod sandbox;

mod program;

pub use program::mycli;
