//! What differs between operating systems. Each has a file with the same functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

#[cfg(target_os = "linux")]
pub(super) use self::linux::{adopt_orphans, hide, processes};
#[cfg(target_os = "macos")]
pub(super) use self::macos::{adopt_orphans, hide, processes};
