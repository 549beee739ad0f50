//! What the tests share.

pub mod engine;
