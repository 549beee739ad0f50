//! This machine as an installation.

pub(crate) use ::local::{
    Bounds, Limits, Machine, OpenError, Options, SERVE_KEY, Upkeep, keep_inherited_files, prune,
    serve, supervise,
};
