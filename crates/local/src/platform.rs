//! The parts that differ between operating systems: how to look at processes, and how to make a
//! named pipe. Each system has a file with the same functions. No other file depends on the system
//! (`tests/platform.sh` checks that).

#[cfg(target_os = "linux")]
mod linux;
// Linux's `ps` has the same options, so the parsing is also tested on Linux.
#[cfg(any(target_os = "macos", test))]
#[cfg_attr(
    not(target_os = "macos"),
    expect(dead_code, reason = "compiled for its tests")
)]
mod macos;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{
    IS_A_CONTAINERS, KEEPERS_ADOPT, LOOK, adopt_orphans, boot, make_pipe, own_children, process,
    remains,
};
#[cfg(target_os = "macos")]
pub(crate) use self::macos::{
    IS_A_CONTAINERS, KEEPERS_ADOPT, LOOK, adopt_orphans, boot, make_pipe, own_children, process,
    remains,
};

/// The state of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process group.
    pub(crate) group: i32,
    /// When it started, in this system's own count. The number stays the same as long as the
    /// process lives.
    pub(crate) start_time: u64,
    /// Whether it has ended and its parent has not reaped it.
    pub(crate) is_zombie: bool,
}

/// The mark of the processes of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    /// Their process group, as long as no other process can lead a group of that number.
    pub(crate) group: Option<i32>,
    /// A variable in the environment that they were started with, `NAME=value`.
    pub(crate) variable: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id().cast_signed();
        let seen = process(pid).expect("it runs");
        assert_eq!(
            seen.group,
            rustix::process::getpgrp().as_raw_nonzero().get()
        );
        assert!(!seen.is_zombie);
        assert_eq!(process(pid), Some(seen), "the same at each look");
    }

    #[test]
    fn what_was_never_waited_for_is_a_zombie() {
        let mut child = std::process::Command::new("true")
            .spawn()
            .expect("it starts");
        let pid = child.id().cast_signed();
        while process(pid).is_some_and(|seen| !seen.is_zombie) {
            std::thread::yield_now();
        }
        assert!(process(pid).is_some());
        child.wait().expect("ours");
        assert_eq!(process(pid), None);
    }
}
