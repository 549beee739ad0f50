//! The user's settings, and what a command starts from.

pub(crate) mod context;
pub(crate) mod home;
pub(crate) mod known_stacks;
pub(crate) mod machine;
pub(crate) mod settings;
pub(crate) mod target;
