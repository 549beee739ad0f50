//! The bootstrap script under real shells, against real git servers.
//!
//! Each case runs under dash, busybox ash and bash, in its own mount namespace where that shell is
//! `/bin/sh`. That needs root.

#![expect(
    clippy::unwrap_used,
    reason = "a step of a test that fails shows its value"
)]

mod again;
mod arguments;
mod ending;
mod http;
mod install;
mod reference;
mod secrecy;
pub(crate) mod server;
mod shape;
mod ssh;
mod stage;
mod words;
