//! Re-exports what the command line uses from the `local` crate: mycli on one machine.

pub(crate) use ::local::{
    Bounds, GitProgram, Limits, Machine, OpenError, Options, SERVE_KEY, Upkeep,
    keep_inherited_files, latest, prune, serve, supervise,
};
