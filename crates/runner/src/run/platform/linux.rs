//! Linux: `/proc`, and system calls that only Linux has.

use std::{fs, io};

use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};

/// Closes this process's memory, environment and descriptors to other processes of its user.
///
/// # Errors
/// When the system does not allow it.
pub(crate) fn hide() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// From now on, orphans of this process's descendants become its children.
///
/// # Errors
/// When the system does not allow it.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// All processes that are not zombies, each with its parent (proc(5), `stat`). The name in
/// parentheses may hold anything, so fields are counted from the last parenthesis.
pub(crate) fn processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let (state, parent) = (fields.next()?, fields.next()?);
        (!matches!(state, "Z" | "X")).then_some((pid, parent.parse().ok()?))
    });
    found.collect()
}
