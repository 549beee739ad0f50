//! The handlers: one module for each function, over the ports of `domain` and AWS's own event
//! types.
//!
//! Each handler parses, loads, decides (in `domain`) and acts. The same code runs in the Lambda
//! functions, on one machine and in the simulation; only the adapters differ. A handler's fields
//! are its permissions: it can use only the services that it holds.

pub mod advance;
pub mod announce;
pub mod attempts;
pub mod auth;
pub mod definitions;
pub mod forget;
pub mod gauges;
pub mod http;
mod intake;
pub mod launcher;
mod log;
pub mod lookup;
pub mod markers;
pub mod query;
pub mod recent;
pub mod state_tracker;
pub mod statistics;
pub mod submit;
mod task_log;
pub mod unreadable;
pub mod uploads;
