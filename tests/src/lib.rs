//! What the tests share.

pub mod engine;

mod program;

pub use program::mycli;
