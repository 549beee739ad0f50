//! The tests, as one program.

mod cli;
mod container;
mod contract;
mod fault;
mod e2e;
mod property;
mod script;
