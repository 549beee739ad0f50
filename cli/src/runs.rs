//! Runs and submissions under way: launched, followed, counted.

pub(crate) mod artifacts;
pub(crate) mod follow;
pub(crate) mod group;
pub(crate) mod launch;
pub(crate) mod submission;
