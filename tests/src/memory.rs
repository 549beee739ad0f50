//! Stores and queues in this process's memory: for simulations, which have ten thousand executions
//! and no time for files.
//!
//! They keep the ports' promises as the adapters of one machine and of AWS do, which the same
//! contract suites show; everything in them is ordered, so that a simulation with the same seed is
//! the same simulation.

mod backlog;
mod find;
mod meter;
mod queue;
mod state;
mod store;

pub use meter::{Meter, Shared};
pub use queue::{MAX_RECEIVES, MemoryQueue, Received};
pub use store::MemoryStore;
