//! Linux: `/proc`, and system calls that only Linux has.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FsWord, statfs},
    process::{
        DumpableBehavior, Signal, getpid, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal,
    },
};

/// Closes this process's memory, environment and descriptors to other processes of its user.
///
/// # Errors
/// When the system does not allow it.
pub fn hide() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// From now on, orphans of this process's descendants become its children.
///
/// # Errors
/// When the system does not allow it.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// From now on, this process is killed when the one that started it ends.
///
/// # Errors
/// When the system does not allow it.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// This program, to be started once more. Its file may have another name by now, or none.
///
/// # Errors
/// When it cannot be found.
pub fn own_program() -> io::Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    match link.exists() {
        true => Ok(link),
        false => std::env::current_exe(),
    }
}

/// The file systems whose files are made by the kernel, and not by programs (linux/magic.h): proc,
/// sysfs, cgroup and cgroup2, devpts, mqueue, debugfs, tracefs, securityfs and bpf.
const OF_THE_KERNEL: [FsWord; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// Whether a folder holds no files but what the kernel shows as files, such as `/proc`.
#[must_use]
pub fn is_of_the_kernel(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| OF_THE_KERNEL.contains(&found.f_type))
}

/// All processes, each with its parent (proc(5), `stat`). The name in parentheses may hold
/// anything, also what is not UTF-8, so fields are counted from the last parenthesis. Zombies
/// count: one whose main thread has ended may have other threads that run.
#[must_use]
pub fn processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let (_state, parent) = (fields.next()?, fields.next()?);
        Some((pid, parent.parse().ok()?))
    });
    found.collect()
}
