//! The built `mycli` as a user runs it on this machine: commands, repositories, logs, history, the
//! server, containers and secrets.

pub(crate) mod api;
mod argv;
mod artifacts;
mod backlog;
mod bulk;
mod completions;
mod container;
mod container_artifacts;
mod container_images;
mod crowd;
mod ending;
mod first_run;
mod forget;
mod host;
mod identity;
mod logs;
mod metrics;
mod past;
mod repository;
mod rerun;
mod secrecy;
mod signals;
mod stats;
mod unreadable;
mod words;
