//! The commands: a file for each.

pub(crate) mod artifacts;
pub(crate) mod bulk;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dead_letters;
pub(crate) mod destroy;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod forget;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod one_machine;
pub(crate) mod rerun;
pub(crate) mod rollout;
pub(crate) mod secrets;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod upgrade;
pub(crate) mod wait;
pub(crate) mod whoami;
