//! Processes of tasks on the host. They are identified by pid and start time, found by their
//! attempt, and killed together with all processes that they started.

use domain::{container::variable, id::AttemptId};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

pub(crate) use crate::platform::adopt_orphans;
use crate::platform::{self, Mark};

/// The identity of a process. A pid may be used again, but not with the same start time and boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, which is also its process group.
    pub pid: i32,
    /// When it started, in the system's own count (Linux: clock ticks since boot; macOS: seconds
    /// since 1970).
    pub start_time: u64,
    /// The system's name for the boot.
    pub boot: String,
}

impl ProcessId {
    /// Returns the process that has this pid now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: platform::process(pid)?.start_time,
            boot: platform::boot().unwrap_or_default(),
        })
    }

    /// Whether it exists and is not a zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        platform::process(self.pid)
            .is_some_and(|seen| seen.start_time == self.start_time && !seen.is_zombie)
            && self.is_of_this_boot()
    }

    /// Whether its process group can still be its own. Once the group has no process left, its
    /// number is free, and another process may then lead a group of that number.
    fn has_group(&self) -> bool {
        let leader =
            platform::process(self.pid).is_none_or(|seen| seen.start_time == self.start_time);
        leader && self.is_of_this_boot()
    }

    fn is_of_this_boot(&self) -> bool {
        platform::boot().unwrap_or_default() == self.boot
    }

    /// Resolves when the process has ended, at once if it has already. It polls, because the
    /// process need not be a child of this one: only processes that outlived their mycli are waited
    /// for in this way.
    pub async fn ended(&self) {
        while self.is_alive() {
            tokio::time::sleep(platform::LOOK).await;
        }
    }

    /// Sends a signal to this process alone, if it still exists.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) {
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Keeps inherited files, except the standard three, from the processes that this process starts. A
/// run that outlives its caller would otherwise hold the caller's locks and pipes, and a command
/// would see files that it was not given. Files that mycli opens itself are never inherited. Call
/// this first, while there is only one thread.
pub fn keep_inherited_files() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// Kills everything that an ended attempt left: its process group, and processes that left the
/// group but still carry the attempt's id.
///
/// If `thorough`, looks at every process of this user. Otherwise looks only at this process's
/// adopted children, which is enough if it has run during the whole attempt.
pub async fn kill_leftovers(leader: &ProcessId, attempt: &str, thorough: bool) {
    let group = leader.has_group().then_some(leader.pid);
    let variable = format!("{}={attempt}", variable::ATTEMPT_ID);
    // Processes that fork while they are being killed need more than one pass.
    for _ in 0..50 {
        if let Some(pid) = group.and_then(Pid::from_raw) {
            let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let mut left = platform::remains(
            Mark {
                group,
                variable: &variable,
            },
            thorough,
        );
        // The leader is reaped elsewhere.
        left.retain(|pid| *pid != leader.pid);
        let orphans = platform::own_children();
        for pid in &left {
            let Some(pid) = Pid::from_raw(*pid) else {
                continue;
            };
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
            if orphans.contains(&pid.as_raw_nonzero().get()) {
                let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // The id names the attempt of one execution.
    let id: Option<AttemptId> = attempt.parse().ok();
    tracing::warn!(
        execution_id = id
            .as_ref()
            .map(|id| tracing::field::display(id.execution())),
        attempt = id.as_ref().map(AttemptId::number),
        "processes of an ended attempt do not die"
    );
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsRawFd, process::Command};

    use rustix::io::{FdFlags, fcntl_setfd};

    use super::*;

    #[test]
    fn inherited_files_are_for_nobody_else() {
        let file = tempfile::tempfile().expect("a file");
        fcntl_setfd(&file, FdFlags::empty()).expect("as a caller leaves it");
        let test = format!("[ -e /dev/fd/{} ]", file.as_raw_fd());
        let is_seen = || {
            Command::new("sh")
                .args(["-c", &test])
                .status()
                .expect("it runs")
                .success()
        };
        assert!(is_seen());
        keep_inherited_files();
        assert!(!is_seen());
        assert!(file.metadata().is_ok(), "it is open here");
    }
}
