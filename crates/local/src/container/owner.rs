//! The user of a container as numbers: files that are brought in must belong to it. Docker looks a
//! name up among the users of its own machine, so this looks into the container.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bollard::{
    Docker, errors::Error as Fault, query_parameters::DownloadFromContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;

use super::{error::is_missing, persistently};
use crate::failpoint;

/// The files with a container's users and groups (passwd(5), group(5)).
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// The most of such a file that is read.
const FILE_MAX: u64 = 1 << 20;
/// How many links lead to such a file at most (Linux follows 40).
const LINKS_MAX: usize = 40;

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u64,
    pub(super) group: u64,
}

/// The owner that an image's `USER` means in a container: root if there is no such user.
///
/// # Errors
/// When the engine cannot tell.
pub(super) async fn find(docker: &Docker, container: &str, user: &str) -> Result<Owner, Fault> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    if name.is_empty() || is_root(name, group) {
        return Ok(Owner::default());
    }
    let users = read(docker, container, USERS).await?;
    let mut owner = among(&users, name);
    if !group.is_empty() {
        owner.group = match group.parse() {
            Ok(number) => number,
            Err(_) => group_among(&read(docker, container, GROUPS).await?, group),
        };
    }
    Ok(owner)
}

fn is_root(name: &str, group: &str) -> bool {
    ["0", "root"].contains(&name) && ["", "0", "root"].contains(&group)
}

/// The user of this name or number in the text of a passwd file.
fn among(users: &str, name: &str) -> Owner {
    let found = users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [known, _, user, group, ..] = fields[..] else {
            return None;
        };
        let owner = Owner {
            user: user.parse().ok()?,
            group: group.parse().ok()?,
        };
        (known == name || user == name).then_some(owner)
    });
    found.unwrap_or_else(|| Owner {
        user: name.parse().unwrap_or_default(),
        group: 0,
    })
}

/// The number of the group of this name in the text of a group file.
fn group_among(groups: &str, name: &str) -> u64 {
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name)
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    found.unwrap_or_default()
}

/// The text of a file of a container; empty if it has no such file.
async fn read(docker: &Docker, container: &str, path: &str) -> Result<String, Fault> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS_MAX {
        match persistently(|| first_of(docker, container, &path)).await {
            Ok(Entry::File(text)) => return Ok(text),
            // Docker gives the link, Podman what it leads to.
            Ok(Entry::Link(target)) => path = beside(&path, &target),
            Err(fault) if is_missing(&fault) => break,
            Err(fault) => return Err(fault),
        }
    }
    Ok(String::new())
}

/// The first entry of the archive of this path. An archive without a whole one was cut short, as if
/// the connection had broken: taken for a missing file, it would make the user root.
async fn first_of(docker: &Docker, container: &str, path: &Path) -> Result<Entry, Fault> {
    let archive = download(docker, container, path).await?;
    Entry::first_of(&archive).ok_or_else(|| {
        let cut = format!("the archive of {} was cut short", path.display());
        Fault::from(io::Error::new(io::ErrorKind::UnexpectedEof, cut))
    })
}

async fn download(docker: &Docker, container: &str, path: &Path) -> Result<Vec<u8>, Fault> {
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(&path.to_string_lossy())
        .build();
    failpoint!("container.user.before");
    let parts = docker
        .download_from_container(container, Some(options))
        .try_fold(Vec::new(), async |mut all, part| {
            // Room for the headers, too.
            if all.len() as u64 <= 2 * FILE_MAX {
                all.extend_from_slice(&part);
            }
            Ok(all)
        });
    let archive = parts.await;
    failpoint!("container.user.after");
    archive
}

/// The path that a link at `path` leads to.
fn beside(path: &Path, target: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(target)
}

/// The first entry of an archive.
enum Entry {
    File(String),
    Link(PathBuf),
}

impl Entry {
    /// `None` if the archive has no whole entry, up to the most that is read.
    fn first_of(archive: &[u8]) -> Option<Self> {
        let mut archive = tar::Archive::new(archive);
        let entry = archive.entries().ok()?.next()?.ok()?;
        if entry.header().entry_type().is_symlink() {
            return Some(Self::Link(entry.link_name().ok()??.into_owned()));
        }
        let (mut text, size) = (Vec::new(), entry.size().min(FILE_MAX));
        entry.take(FILE_MAX).read_to_end(&mut text).ok()?;
        (text.len() as u64 == size).then(|| Self::File(String::from_utf8_lossy(&text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let app = Owner {
            user: 1000,
            group: 1001,
        };
        assert_eq!(among(PASSWD, "app"), app);
        assert_eq!(among(PASSWD, "1000"), app);
        let unknown = Owner { user: 7, group: 0 };
        assert_eq!(among(PASSWD, "7"), unknown);
        assert_eq!(among(PASSWD, "nobody"), Owner::default());
        assert_eq!(among("", "app"), Owner::default());
    }

    /// Each archive that is cut within its first entry.
    #[test]
    fn a_file_that_came_in_part_is_no_file() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(PASSWD.len() as u64);
        header.set_cksum();
        let added = archive.append_data(&mut header, "passwd", PASSWD.as_bytes());
        added.expect("it is an archive");
        let archive = archive.into_inner().expect("it is an archive");
        let whole = 512 + PASSWD.len();
        assert!(matches!(Entry::first_of(&archive), Some(Entry::File(text)) if text == PASSWD));
        for length in 0..whole {
            assert!(Entry::first_of(&archive[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_group_is_found_by_name() {
        assert_eq!(group_among("root:x:0:\nstaff:x:50:app\n", "staff"), 50);
        assert_eq!(group_among("root:x:0:\n", "staff"), 0);
    }
}
