//! The tests, as one program.

mod cli;
mod contract;
mod script;
