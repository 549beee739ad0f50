//! What each operating system does in its own way: how processes are looked at, and a named pipe
//! made. Each has a file with the same functions; no other file knows which one it is on
//! (`tests/platform.sh` holds us to that).

#[cfg(target_os = "linux")]
mod linux;
// Its words are Linux's too, as far as `ps` goes, so what it reads is tested where we are.
#[cfg(any(target_os = "macos", test))]
#[cfg_attr(
    not(target_os = "macos"),
    expect(dead_code, reason = "compiled for its tests")
)]
mod macos;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{
    LOOK, adopt_orphans, boot, carriers, make_pipe, own_children, process, remains,
};
#[cfg(target_os = "macos")]
pub(crate) use self::macos::{
    LOOK, adopt_orphans, boot, carriers, make_pipe, own_children, process, remains,
};

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process group.
    pub(crate) group: i32,
    /// When it started, in this system's own count: the same number for as long as it lives.
    pub(crate) start_time: u64,
    /// It has ended, and its parent has not asked how.
    pub(crate) is_zombie: bool,
}

/// What tells the processes of an attempt from all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    /// Their process group, as long as its number can be no other's.
    pub(crate) group: Option<i32>,
    /// A variable of the environment that they were started with, `NAME=value`.
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
