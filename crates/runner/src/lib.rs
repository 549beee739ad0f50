//! The program inside a task. `fetch` gets the repository, `run` supervises the command. It is one
//! static file that needs nothing of the image that it runs in.
//!
//! Without the feature `program` this library has only what mycli needs in order to talk to the
//! program.

#[cfg(feature = "program")]
pub mod artifacts;
#[cfg(feature = "program")]
pub mod attempt_api;
#[cfg(feature = "program")]
pub mod fetch;
#[cfg(feature = "program")]
pub mod hand_over;
#[cfg(feature = "program")]
pub mod install;
pub mod log;
pub mod order;
#[cfg(feature = "program")]
pub mod parent;
#[cfg(feature = "program")]
pub mod platform;
#[cfg(feature = "program")]
pub mod run;

/// The program's name, by which lists of processes show it.
pub use domain::container::PROGRAM;
