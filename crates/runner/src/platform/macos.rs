//! macOS: `ps` tells of processes. Orphans cannot be adopted, so mycli looks for what a command
//! left behind.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// Does nothing: macOS shows a process's memory to nobody but root.
///
/// # Errors
/// None.
pub fn hide() -> io::Result<()> {
    Ok(())
}

/// Does nothing.
///
/// # Errors
/// None.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// Does nothing.
///
/// # Errors
/// None.
pub fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// This program, to be started once more.
///
/// # Errors
/// When it cannot be found.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Whether a folder holds no files but what the kernel shows as files: none does.
#[must_use]
pub fn is_of_the_kernel(_folder: &Path) -> bool {
    false
}

/// All processes that are not zombies, each with its parent.
#[must_use]
pub fn processes() -> Vec<(i32, i32)> {
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
