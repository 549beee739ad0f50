//! Putting the program where the other containers of a task find it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{PROGRAM, order::place, platform};

/// The permissions of a folder in which every user may make files, and remove only their own.
const FOR_EVERYONE: u32 = 0o1777;

/// Copies this program into a folder. Nobody sees a part of it.
///
/// # Errors
/// When it cannot be read or written.
pub fn program(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!("{PROGRAM}.new"));
    fs::copy(platform::own_program()?, &draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
    fs::rename(draft, folder.join(PROGRAM))
}

/// Makes a workspace: it and the folder for what is handed over belong to every user. With a folder
/// in it the workspace is not empty. An engine fills an empty volume from the image, and gives it
/// the image's owner and mode.
///
/// # Errors
/// When it cannot be made.
pub fn workspace(folder: &Path) -> io::Result<()> {
    for folder in [folder, &folder.join(place::HANDED_OVER)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(FOR_EVERYONE))?;
    }
    Ok(())
}
