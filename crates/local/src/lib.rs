//! mycli on one machine: the handlers of `pipeline` run over a SQLite store and queue. Tasks are
//! containers and processes of the host.

pub mod artifacts;
pub mod container;
pub mod database;
pub mod failpoint;
mod form;
pub mod host;
pub mod liveness;
pub mod log_file;
pub mod machine;
mod metrics;
mod platform;
pub mod process;
pub mod queue;
mod remains;
mod removal;
pub mod runner_program;
pub mod secrets;
pub mod server;
pub mod store;
pub mod system;
pub mod task;
pub mod tasks;
pub mod worker;

pub use database::Limits;
pub use machine::{Bounds, Machine, OpenError, Options, SERVE_KEY, Upkeep, prune, supervise};
pub use process::keep_inherited_files;
pub use remains::Remains;
pub use runner::order::GitProgram;
pub use server::serve;
pub use store::latest;
