//! The tests, as one program.

mod cli;
mod container;
mod contract;
mod property;
mod script;
