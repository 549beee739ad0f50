//! All integration tests, as one program.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod aws;
mod chaos;
mod cli;
mod container;
mod contract;
mod deploy;
mod e2e;
mod ecs;
mod fault;
mod fixtures;
mod flood;
mod followers;
mod git_server;
mod hostile;
mod hot_key;
mod infra;
mod launchers;
mod logs;
mod metrics;
mod priced;
mod property;
mod rerun;
mod runner;

mod simulation;
mod stack;
mod sweep;
mod uploads;
mod words;
