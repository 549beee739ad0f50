//! The pure part of mycli: its types, its rules and its decisions.
//!
//! Nothing here does I/O or reads a clock, an environment variable or a random source: every such
//! value is an argument. The [`ports`] are what the handlers in `pipeline` need from outside;
//! adapters implement them.

pub mod announcement;
pub mod api;
pub mod artifact;
pub mod attempt_secret;
pub mod backoff;
pub mod cause;
pub mod container;
pub mod cost;
pub mod ecs;
pub mod error;
pub mod execution;
pub mod forget;
pub mod git;
pub mod git_access;
pub mod group;
pub mod history;
pub mod id;
pub mod key;
pub mod limit;
pub mod marker;
pub mod measure;
pub mod message;
pub mod metric;
pub mod patience;
pub mod ports;
pub mod price;
pub mod principal;
pub mod quota;
pub mod request;
pub mod scheduler;

pub mod secret;
pub mod settings;
pub mod statistics;
pub mod stored;
pub mod task;
pub mod timing;
pub mod transition;
pub mod upload;

/// A moment in UTC with millisecond precision (that of CloudWatch Logs and ULIDs).
pub type Timestamp = chrono::DateTime<chrono::Utc>;
