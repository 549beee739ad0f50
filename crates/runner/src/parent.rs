//! The process that asks this one for a step of a set-up, and reads its stdout.

use std::{io, process, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, getpgrp, getpid, kill_process_group},
};

/// From now on, this process and everything that it starts is killed once nobody reads its stdout:
/// the one who asked for its work has ended. Git, which may wait for a server, does not notice that
/// by itself.
pub fn end_with_it() {
    thread::spawn(|| {
        let stdout = io::stdout();
        // Without events to wait for, only the reader's end is told.
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) == Err(Errno::INTR) {}
        // Others may be in the group of a terminal.
        if getpgrp() == getpid() {
            let _gone = kill_process_group(getpid(), Signal::KILL);
        }
        process::exit(1);
    });
}
