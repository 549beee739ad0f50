//! The processes of a command: all that descend from the keeper, whatever group or session they are
//! in, since it adopts their orphans.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::process::CommandExt as _,
    process::Command,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};

use crate::platform;

/// How often to look for processes that fork while they are being stopped.
const PASSES: usize = 50;

/// Starts a command in a process group of its own, so that it reaches the keeper with no signal for
/// its group (`kill 0`).
pub(super) fn in_a_group_of_its_own(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// The processes of the command.
pub(super) struct Tree {
    own: i32,
}

/// The result of a look at ended children.
pub(super) struct Reaped {
    /// The pids and exit statuses of those that have ended since the last look.
    pub(super) ended: Vec<(i32, i32)>,
    /// Whether no process of the command is left.
    pub(super) is_nobody_left: bool,
}

impl Tree {
    /// The descendants of this process.
    ///
    /// # Errors
    /// When the system does not let it adopt orphans.
    pub(super) fn of_this_process() -> io::Result<Self> {
        platform::adopt_orphans()?;
        Ok(Self {
            own: std::process::id().cast_signed(),
        })
    }

    /// Takes note of the children that have ended.
    pub(super) fn reap(&self) -> Reaped {
        let mut ended = Vec::new();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let code = status
                        .exit_status()
                        .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                    ended.extend(code.map(|code| (pid.as_raw_nonzero().get(), code)));
                }
                Ok(None) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    return Reaped {
                        ended,
                        is_nobody_left: true,
                    };
                }
            }
        }
        Reaped {
            ended,
            is_nobody_left: false,
        }
    }

    /// Sends a signal to all of them, to parents before their children: a script that is told after
    /// what it waits for would take that one's end for its own next step.
    pub(super) fn signal(&self, signal: Signal) {
        if self.own == 1 {
            // The kernel does it in one step for everyone but process 1.
            let _nobody = kill_process_group(Pid::INIT, signal);
            // A stopped process gets a signal only once it goes on.
            let _nobody = kill_process_group(Pid::INIT, Signal::CONT);
            return;
        }
        for pid in self.descendants() {
            send(pid, signal);
            // A stopped process gets a signal only once it goes on.
            send(pid, Signal::CONT);
        }
    }

    /// Kills all of them, and the group of the child. They are stopped first, so that none forks
    /// away.
    pub(super) fn kill(&self, child: i32) {
        if self.own == 1 {
            let _nobody = kill_process_group(Pid::INIT, Signal::KILL);
            return;
        }
        if let Some(group) = Pid::from_raw(child) {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let mut stopped = HashSet::new();
        for _ in 0..PASSES {
            let found = self.descendants();
            let mut is_new = false;
            for pid in found {
                if stopped.insert(pid) {
                    is_new = true;
                    send(pid, Signal::STOP);
                }
            }
            if !is_new {
                break;
            }
        }
        for pid in stopped {
            send(pid, Signal::KILL);
        }
    }

    /// The pids of all descendants, parents before their children.
    fn descendants(&self) -> Vec<i32> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for (pid, parent) in platform::processes() {
            children.entry(parent).or_default().push(pid);
        }
        let mut found = Vec::new();
        let mut next = vec![self.own];
        while let Some(parent) = next.pop() {
            let own = children.remove(&parent).unwrap_or_default();
            found.extend(&own);
            next.extend(own);
        }
        found
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = kill_process(pid, signal);
    }
}
