//! A request, from the command line, `.mycli.yaml`, files of lines and git.

pub(crate) mod draft;
pub(crate) mod encoding;
pub(crate) mod env_file;
pub(crate) mod flags;
pub(crate) mod git;
pub(crate) mod lines;
pub(crate) mod number;
pub(crate) mod project;
