//! This machine as an installation.

pub(crate) use ::local::{Machine, OpenError, Options, prune, serve, supervise};
