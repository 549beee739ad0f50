//! The user of a container as numbers: files that are brought in must belong to it. Docker looks a
//! name up among the users of its own machine, so this looks into the container.

use bollard::{Docker, query_parameters::DownloadFromContainerOptionsBuilder};
use futures_util::TryStreamExt as _;
use std::io::Read as _;

use crate::failpoint;

/// The files with a container's users and groups (passwd(5), group(5)).
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// The most of such a file that is read.
const FILE_MAX: u64 = 1 << 20;

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u64,
    pub(super) group: u64,
}

/// The owner that an image's `USER` means in a container: root if it cannot be found.
pub(super) async fn find(docker: &Docker, container: &str, user: &str) -> Owner {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    if name.is_empty() || is_root(name, group) {
        return Owner::default();
    }
    let users = read(docker, container, USERS).await;
    let mut owner = among(&users, name);
    if !group.is_empty() {
        owner.group = match group.parse() {
            Ok(number) => number,
            Err(_) => group_among(&read(docker, container, GROUPS).await, group),
        };
    }
    owner
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

/// The text of a file of a container; none if it has no such file.
async fn read(docker: &Docker, container: &str, path: &str) -> String {
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(path)
        .build();
    failpoint!("container.user.before");
    let parts = docker
        .download_from_container(container, Some(options))
        .try_fold(Vec::new(), async |mut all, part| {
            if all.len() as u64 <= FILE_MAX {
                all.extend_from_slice(&part);
            }
            Ok(all)
        });
    let archive = parts.await.unwrap_or_default();
    failpoint!("container.user.after");
    text_in(&archive).unwrap_or_default()
}

/// The text of the only file in an archive.
fn text_in(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let file = archive.entries().ok()?.next()?.ok()?;
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
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

    #[test]
    fn a_group_is_found_by_name() {
        assert_eq!(group_among("root:x:0:\nstaff:x:50:app\n", "staff"), 50);
        assert_eq!(group_among("root:x:0:\n", "staff"), 0);
    }
}
