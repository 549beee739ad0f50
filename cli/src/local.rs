//! This machine as an installation.

pub(crate) use ::local::{Bounds, Limits, Machine, OpenError, Options, SERVE_KEY, Upkeep, prune, serve, supervise};
