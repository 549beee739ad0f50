//! Input that is meant to harm: keys, requests, cursors, shell text.

#![expect(
    clippy::unwrap_used,
    reason = "a step of a test that fails shows its value"
)]

mod document;
mod fuzz;
mod injection;
mod keys;
mod wire;
