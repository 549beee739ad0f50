//! The tests, as one program.

mod cli;
mod container;
mod contract;
mod e2e;
mod fault;
mod property;
mod script;
