//! Deploys mycli to an AWS account and maintains it: what `init`, `upgrade`, `destroy`, `doctor`,
//! `secrets`, `dead-letters` and `forget` need. The functions do not link this crate. Its API
//! exposes no type of an SDK.

pub mod account;
pub mod activity;
mod bucket;
pub mod dead_letters;
pub mod doctor;
pub mod error;
pub mod first_key;
pub mod forget;
mod gateway_log;
pub mod indexes;
pub mod install;
mod kept;
pub mod log_writers;
mod long_arns;
pub mod names;
pub mod network;
pub mod package;
pub mod quotas;
pub mod remove;
mod rolling;
pub mod runner_image;
pub mod secrets;
mod service_role;
pub mod stack;
pub mod table;
pub mod template;
mod zones;

pub use account::Account;
pub use error::CallError;
pub use names::StackName;
