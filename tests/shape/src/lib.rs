//! The shape of this project's code, as `just shape` prints it and a test bounds it.
//!
//! Rust is read with `syn`, so a word in a comment or in a text is no identifier.

pub mod circles;
pub mod functions;
pub mod log_fields;
pub mod names;
pub mod sources;
pub mod words;
