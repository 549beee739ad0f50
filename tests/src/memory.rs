//! Stores and queues in this process's memory, for simulations of ten thousand executions, where
//! files would be too slow.
//!
//! They keep the ports' promises as the adapters of one machine and of AWS do: the same contract
//! suites run against them. Everything in them is ordered, so that the same seed gives the same
//! simulation.

mod backlog;
mod find;
mod meter;
mod queue;
mod state;
mod store;

pub use meter::{Meter, Shared};
pub use queue::{MAX_RECEIVES, MemoryQueue, Received};
pub use store::MemoryStore;
