//! The process that asks this one for a step of a set-up, and reads its stdout.

use std::{io, process, thread, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, getpgrp, getpid, kill_process_group},
};

/// How long to wait before looking again at a stdout that tells of something else.
const LOOK: Duration = Duration::from_secs(1);

/// From now on, this process and everything that it starts is killed once nobody reads its stdout:
/// the one who asked for its work has ended. Git, which may wait for a server, does not notice that
/// by itself.
pub fn end_with_it() {
    thread::spawn(|| {
        let stdout = io::stdout();
        let is_gone = PollFlags::ERR | PollFlags::HUP;
        loop {
            let mut polled = [PollFd::new(&stdout, PollFlags::HUP)];
            match poll(&mut polled, None) {
                Ok(_) if polled[0].revents().intersects(is_gone) => break,
                // macOS also wakes for what a file holds.
                Ok(_) => thread::sleep(LOOK),
                Err(Errno::INTR) => {}
                // Without memory the kernel cannot watch. The work itself goes on.
                Err(_) => return,
            }
        }
        // Others may be in the group of a terminal.
        if getpgrp() == getpid() {
            let _gone = kill_process_group(getpid(), Signal::KILL);
        }
        process::exit(1);
    });
}
