//! The parts that differ between operating systems. Each has a file with the same functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

#[cfg(target_os = "linux")]
pub use self::linux::{
    adopt_orphans, die_with_parent, hide, is_of_the_kernel, own_program, processes,
};
#[cfg(target_os = "macos")]
pub use self::macos::{
    adopt_orphans, die_with_parent, hide, is_of_the_kernel, own_program, processes,
};
