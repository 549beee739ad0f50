//! Removes the files that a command left, whatever their permissions (Go, for example, makes its
//! module cache read-only).
//!
//! No link is followed, and no path has several names: each step is one name within an open folder.
//! Nested folders are first moved to the top, so that no depth exceeds the length of a path or the
//! number of open files.

use std::{fs, io, path::Path};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    ffi::{CStr, CString},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags},
    io::Errno,
    path::Arg,
};

/// Removes a folder and everything in it. A missing folder counts as removed. If something cannot
/// be removed, everything else still is.
///
/// # Errors
/// The first entry that cannot be removed, with its name.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    // Most commands leave their folders empty, and then no search is needed.
    let removed = fs::remove_dir(path)
        .or_else(|_| fs::remove_dir_all(path))
        .or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ if is_folder(path) => by_force(path),
            _ => fs::remove_file(path),
        });
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether the path is still a folder. A command may have replaced it.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn by_force(path: &Path) -> io::Result<()> {
    let mut removal = Removal {
        top: open(CWD, path)?,
        moved: 0,
        changes: 0,
        fault: None,
    };
    while removal.pass()? {}
    match removal.fault {
        Some(fault) => Err(fault),
        None => fs::remove_dir(path),
    }
}

struct Removal {
    top: OwnedFd,
    /// How many folders were moved to the top. Their names there are numbers.
    moved: u32,
    /// How many entries were removed or moved in this pass.
    changes: u32,
    /// The first failure in this pass.
    fault: Option<io::Error>,
}

/// An entry of a folder.
struct FolderEntry {
    name: CString,
    is_folder: bool,
}

impl Removal {
    /// Removes the entries at the top, and moves the folders two levels down to the top. Returns
    /// whether another pass may do more.
    fn pass(&mut self) -> io::Result<bool> {
        (self.changes, self.fault) = (0, None);
        for entry in entries(self.top.as_fd())? {
            if entry.is_folder {
                self.empty(&entry.name);
            }
            let flags = if entry.is_folder {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            self.unlink(None, &entry.name, flags);
        }
        Ok(self.changes > 0)
    }

    /// Empties a folder at the top.
    fn empty(&mut self, name: &CStr) {
        let listed =
            open(&self.top, name).and_then(|folder| Ok((entries(folder.as_fd())?, folder)));
        let (entries, folder) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.fails(name, error),
        };
        for entry in entries {
            if entry.is_folder {
                self.move_up(&folder, &entry.name);
            } else {
                self.unlink(Some(&folder), &entry.name, AtFlags::empty());
            }
        }
    }

    /// Moves a folder to the top. The folder itself must be writable for that.
    fn move_up(&mut self, from: &OwnedFd, name: &CStr) {
        let moved = open(from, name)
            .map_err(io::Error::from)
            .and_then(|_| self.rename(from, name));
        match moved {
            Ok(()) => self.changes += 1,
            Err(error) => self.fails(name, error),
        }
    }

    /// Renames the folder to a free name, or to that of an empty folder, which it replaces.
    fn rename(&mut self, from: &OwnedFd, name: &CStr) -> io::Result<()> {
        loop {
            let new = format!("{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat(from, name, &self.top, &new) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                renamed => return Ok(renamed?),
            }
        }
    }

    fn unlink(&mut self, folder: Option<&OwnedFd>, name: &CStr, flags: AtFlags) {
        match rustix::fs::unlinkat(folder.unwrap_or(&self.top), name, flags) {
            Ok(()) => self.changes += 1,
            Err(error) => self.fails(name, error),
        }
    }

    fn fails(&mut self, name: &CStr, error: impl Into<io::Error>) {
        let error = error.into();
        // Another process has removed it already.
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        let named = || io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()));
        self.fault.get_or_insert_with(named);
    }
}

/// Opens a folder, and gives its owner all rights to it. Refuses a link.
fn open<P: Arg + Copy>(at: impl AsFd, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
        // This is a folder: a link fails with another error.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&at, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    // If another user owns it, a later step shows what is permitted in it.
    let _not_ours = rustix::fs::fchmod(&folder, Mode::RWXU);
    Ok(folder)
}

fn entries(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<FolderEntry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // Some file systems do not tell the type.
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(
                rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            kind => kind,
        };
        entries.push(FolderEntry {
            name: name.to_owned(),
            is_folder: kind == FileType::Directory,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
    };

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let outside = tempfile::tempdir().expect("a folder");
        let inside = outside.path().join("task");
        fs::create_dir(&inside).expect("a folder");
        (outside, inside)
    }

    fn make(path: &Path) {
        fs::create_dir_all(path).expect("a folder");
        fs::write(path.join("file"), "x").expect("a file");
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    /// Removes by both functions. For root, `remove_folder` alone would never call `by_force`.
    fn check_gone(path: &Path) {
        by_force(path).expect("it is removed");
        assert!(!path.exists());
        remove_folder(path).expect("it is removed already");
    }

    #[test]
    fn folders_without_any_right_are_removed() {
        let (_outside, task) = folder();
        make(&task.join("a/b/c"));
        make(&task.join("d"));
        for (name, mode) in [
            ("a/b/c", 0),
            ("a/b", 0o500),
            ("a", 0),
            ("d", 0o555),
            ("", 0o500),
        ] {
            set_mode(&task.join(name), mode);
        }
        check_gone(&task);
    }

    #[test]
    fn what_a_link_leads_to_stays_as_it_is() {
        let (outside, task) = folder();
        let mine = outside.path().join("mine");
        make(&mine);
        set_mode(&mine, 0o555);
        for name in ["a/link", "a/b/link", "link"] {
            fs::create_dir_all(task.join(name).parent().expect("one")).expect("a folder");
            symlink(&mine, task.join(name)).expect("a link");
        }
        set_mode(&task.join("a"), 0o555);
        check_gone(&task);
        assert_eq!(
            fs::metadata(&mine).expect("there").permissions().mode() & 0o777,
            0o555
        );
        assert!(mine.join("file").exists());
        // The folder itself may have become a link.
        symlink(&mine, &task).expect("a link");
        assert!(by_force(&task).is_err());
        remove_folder(&task).expect("the link is removed");
        assert!(mine.join("file").exists() && !task.exists());
        set_mode(&mine, 0o755);
    }

    #[test]
    fn a_file_in_its_place_is_removed() {
        let (_outside, task) = folder();
        fs::remove_dir(&task).expect("empty");
        fs::write(&task, "x").expect("a file");
        remove_folder(&task).expect("it is removed");
        assert!(!task.exists());
    }

    #[test]
    fn names_in_the_way_are_no_fault() {
        let (_outside, task) = folder();
        for name in ["0", "1/0/1", "a/0", "a/1/2/3", "2/2/2/2"] {
            make(&task.join(name));
        }
        fs::write(task.join("3"), "").expect("a file");
        check_gone(&task);
    }

    /// Deeper than the longest path, and than the number of files that may be open.
    #[test]
    fn no_folder_is_too_deep() {
        let (outside, task) = folder();
        let mut top = task.clone();
        // Built from the inside, because the whole path would be too long.
        for _ in 0..3_000 {
            let above = outside.path().join("above");
            fs::create_dir(&above).expect("a folder");
            fs::rename(&top, above.join("n")).expect("moved");
            fs::rename(&above, &task).expect("moved");
            top.clone_from(&task);
        }
        remove_folder(&task).expect("it is removed");
        assert!(!task.exists());
    }
}
