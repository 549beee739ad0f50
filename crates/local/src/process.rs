//! Processes of tasks on the host: known by pid and start time, found by the attempt they belong to, ended with all they started.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, time::Duration};

use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

/// How often a process that is not our child is looked at. Ours.
const LOOK: Duration = Duration::from_millis(20);

/// A process that cannot be taken for another: pids are used again, these together are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, which is its process group too.
    pub pid: i32,
    /// Clock ticks from boot to its start (proc(5), `stat`, field 22).
    pub start_time: u64,
    /// Which boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

impl ProcessId {
    /// The process that has this pid now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Some(Self { pid, start_time: stat(pid)?.start_time, boot })
    }

    /// Whether it is there and not a zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.state != 'Z' && stat.state != 'X')
            && fs::read_to_string("/proc/sys/kernel/random/boot_id").is_ok_and(|boot| boot.trim() == self.boot)
    }

    /// Whether its process group can still be its own: the number is free for others once nobody of the group is left, and then
    /// some other process may lead a group of that number.
    fn has_group(&self) -> bool {
        let leader = stat(self.pid).is_none_or(|stat| stat.start_time == self.start_time);
        leader && fs::read_to_string("/proc/sys/kernel/random/boot_id").is_ok_and(|boot| boot.trim() == self.boot)
    }

    /// Resolves when it has ended; at once if it has already. It need not be a child of this process, so it is looked at in turns:
    /// only those that outlived their mycli are waited for in this way.
    pub async fn ended(&self) {
        while self.is_alive() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a signal to it alone, if it is still there.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) {
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

struct Stat {
    state: char,
    group: i32,
    start_time: u64,
}

/// `/proc/PID/stat`. The name in parentheses may hold anything, so fields count from the last one.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// From now on orphans of the processes we start become our children, so that none escapes by leaving its group.
pub fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of commands cannot be adopted; they are looked for in /proc instead");
    }
}

/// Kills everything that an ended attempt left behind: its process group, and who left that but still carries the attempt's id.
///
/// `thorough` looks at every process of this user; else only at our own adopted children, which is enough while we have been there
/// throughout.
pub async fn kill_leftovers(leader: &ProcessId, attempt: &str, thorough: bool) {
    let group = leader.has_group().then_some(leader.pid);
    // What forks while it is being killed needs more than one look.
    for _ in 0..50 {
        if let Some(pid) = group.and_then(Pid::from_raw) {
            let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let orphans = own_children();
        let suspects = if thorough { every_process() } else { orphans.clone() };
        let left: Vec<i32> =
            suspects.into_iter().filter(|pid| *pid != leader.pid && belongs(*pid, group, attempt)).collect();
        for pid in &left {
            let Some(pid) = Pid::from_raw(*pid) else { continue };
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
    tracing::warn!(attempt, "processes of an ended attempt do not die");
}

/// Kills every process that carries this variable with this value in its environment.
pub fn kill_carriers(name: &str, value: &OsStr) {
    for pid in every_process().into_iter().filter(|pid| carries(*pid, name, value)).filter_map(Pid::from_raw) {
        let _gone = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn carries(pid: i32, name: &str, value: &OsStr) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        let wanted = [name.as_bytes(), b"=", value.as_bytes()].concat();
        environ.split(|byte| *byte == 0).any(|variable| variable == wanted)
    })
}

/// Whether a process, or zombie, is of this group or carries this attempt's id in its environment. The leader itself is somebody
/// else's to wait for.
fn belongs(pid: i32, group: Option<i32>, attempt: &str) -> bool {
    let in_group = stat(pid).is_some_and(|stat| Some(stat.group) == group);
    in_group || carries(pid, "MYCLI_ATTEMPT_ID", attempt.as_ref())
}

/// The children of our main thread: that is where adopted orphans go. Empty where the kernel does not list them.
fn own_children() -> Vec<i32> {
    let pid = std::process::id();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn every_process() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .collect()
}
