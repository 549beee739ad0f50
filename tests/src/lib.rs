//! Code that the tests share.

pub mod callers;
pub mod clock;
pub mod ecs;
pub mod emulator;
pub mod engine;
pub mod insights;
pub mod json_protocol;
pub mod loaded;
pub mod logged;
pub mod measured;
pub mod memory;
pub mod meter;
pub mod operator;
pub mod pattern;
pub mod planted;
pub mod policy;
pub mod price;
pub mod random;
pub mod sandbox;
pub mod schema;
pub mod simulation;
pub mod table;
pub mod template;
pub mod world;

mod program;

pub use program::{built, mycli};

/// Everything that a store of executions does. The handlers ask for less; the contract suites run
/// against all of it.
pub trait Store:
    domain::ports::WriteStore + domain::ports::LaunchStore + domain::ports::SweepStore
{
}

impl<S> Store for S where
    S: domain::ports::WriteStore + domain::ports::LaunchStore + domain::ports::SweepStore
{
}
