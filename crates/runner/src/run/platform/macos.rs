//! macOS: `ps` tells of processes. Orphans cannot be adopted, so mycli looks for what a command left
//! behind.

use std::{io, process::Command};

/// Does nothing: macOS shows a process's memory to nobody but root.
///
/// # Errors
/// None.
pub(crate) fn hide() -> io::Result<()> {
    Ok(())
}

/// Does nothing.
///
/// # Errors
/// None.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// All processes that are not zombies, each with its parent.
pub(crate) fn processes() -> Vec<(i32, i32)> {
    let listed = Command::new("/bin/ps")
        .args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="])
        .output();
    let text = listed.map(|listed| listed.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (!fields.next()?.starts_with('Z')).then_some((pid, parent))
    });
    found.collect()
}
