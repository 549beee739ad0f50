//! This machine as an installation.

pub(crate) use ::local::{Bounds, Limits, Machine, OpenError, Options, prune, serve, supervise};
