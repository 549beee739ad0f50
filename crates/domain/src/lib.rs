//! The pure part of mycli: its words, its rules and its decisions.
//!
//! Nothing here does I/O, reads a clock, an environment variable or a random source: whatever
//! varies is an argument. The [`ports`] are what the handlers in `pipeline` need of the world;
//! adapters implement them.

pub mod adaptive_limit;
pub mod announcement;
pub mod api;
pub mod backlog;
pub mod backoff;
pub mod cause;
pub mod drift;
pub mod ecs;
pub mod error;
pub mod execution;
pub mod fair;
pub mod forget;
pub mod git;
pub mod group;
pub mod history;
pub mod id;
pub mod key;
pub mod limit;
pub mod marker;
pub mod message;
pub mod patience;
pub mod ports;
pub mod principal;
pub mod request;
pub mod script;
pub mod secret;
pub mod settings;
pub mod stored;
pub mod task;
pub mod throttle;
pub mod transition;

/// A moment, UTC, kept to the millisecond (what CloudWatch Logs and ULIDs can carry).
pub type Timestamp = chrono::DateTime<chrono::Utc>;
