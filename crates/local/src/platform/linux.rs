//! Linux: `/proc`, and system calls that only Linux has.

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use rustix::fs::{CWD, Mode};

use super::{Mark, Process};

/// How often to look at a process that is not a child of this one. A look reads one small file, so
/// 20 ms cost little.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Whether programs for this system run in containers.
pub(crate) const IS_A_CONTAINERS: bool = true;

/// Whether a keeper adopts the orphans of its command, so that nothing is left when it has ended.
pub(crate) const KEEPERS_ADOPT: bool = true;

/// The id of the current boot.
pub(crate) fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .map(|boot| boot.trim().to_owned())
}

/// Returns the process with this pid (proc(5), `stat`). The name in parentheses may contain
/// anything, so fields are counted from the last parenthesis.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Process {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// From now on, orphans of this process's descendants become its children, so that none escapes by
/// leaving its group.
pub(crate) fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of commands cannot be adopted; they are looked for in /proc instead");
    }
}

/// The children of the main thread, which adopts the orphans. Empty if the kernel does not list
/// them.
pub(crate) fn own_children() -> Vec<i32> {
    let pid = std::process::id();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The processes and zombies with this mark. If `thorough`, among all visible processes. Otherwise
/// among this process's adopted children, which is enough if it has run during the whole attempt.
pub(crate) fn remains(mark: Mark<'_>, thorough: bool) -> Vec<i32> {
    let mut pids = if thorough {
        every_process()
    } else {
        own_children()
    };
    pids.retain(|pid| has(*pid, mark));
    pids
}

fn has(pid: i32, mark: Mark<'_>) -> bool {
    process(pid).is_some_and(|process| Some(process.group) == mark.group)
        || carries(pid, mark.variable.as_ref())
}

fn carries(pid: i32, wanted: &OsStr) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    })
}

fn every_process() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .collect()
}

/// Makes a named pipe that only its owner may use.
pub(crate) fn make_pipe(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?)
}
