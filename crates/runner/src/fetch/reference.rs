//! The commit that a reference means: a branch, then a tag, then a commit. A full commit id goes
//! first, so that a pinned commit is never taken for a branch of that name.

use std::fmt;

use gix::{
    bstr::{BString, ByteSlice},
    hash::ObjectId,
    protocol::handshake::Ref,
};

/// The fewest digits of a short commit id (git's own minimum).
const SHORT_MIN: usize = 4;

/// The commit that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// The remote's default branch.
    Head,
    /// A full commit id.
    Commit(ObjectId),
    /// A name: a branch, a tag, another ref, or a short commit id.
    Name(String),
}

/// The ref that a name turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A branch, by its name without `refs/heads/`, and its commit.
    Branch(String, ObjectId),
    /// A tag, by its name without `refs/tags/`, and the object it names (an annotated tag or a
    /// commit).
    Tag(String, ObjectId),
    /// Something else, which is checked out without a branch.
    Detached(ObjectId),
    /// The remote's HEAD names a branch that has no commit.
    Unborn(String),
}

impl Found {
    /// The object to ask for.
    pub(super) fn object(&self) -> Option<ObjectId> {
        match self {
            Self::Branch(_, id) | Self::Tag(_, id) | Self::Detached(id) => Some(*id),
            Self::Unborn(_) => None,
        }
    }
}

/// Its name in messages.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Commit(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Reference {
    /// Reads the reference of a request.
    pub(super) fn of(text: Option<&str>) -> Self {
        match text {
            None | Some("" | "HEAD") => Self::Head,
            Some(text) => ObjectId::from_hex(text.to_ascii_lowercase().as_bytes())
                .map_or_else(|_| Self::Name(text.to_owned()), Self::Commit),
        }
    }

    /// The full names of the refs that it may mean, best first.
    pub(super) fn candidates(&self) -> Vec<String> {
        let name = match self {
            Self::Head => return vec!["HEAD".into()],
            Self::Commit(id) => id.to_string(),
            Self::Name(name) => name.clone(),
        };
        if name.starts_with("refs/") {
            return vec![name];
        }
        let mut names = vec![
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/{name}"),
        ];
        names.extend(
            name.strip_prefix("origin/")
                .map(|branch| format!("refs/heads/{branch}")),
        );
        names
    }

    /// The prefixes of refs for which to ask the server.
    pub(super) fn prefixes(&self) -> Vec<BString> {
        self.candidates().into_iter().map(BString::from).collect()
    }

    /// Finds it among the refs of the server.
    pub(super) fn among(&self, refs: &[Ref]) -> Option<Found> {
        self.candidates().iter().find_map(|name| {
            let found = refs
                .iter()
                .find(|found| full_name(found) == name.as_str())?;
            Some(found_as(name, found))
        })
    }

    /// Whether it may be a short commit id, and of which lower-case digits.
    pub(super) fn short_commit(&self) -> Option<String> {
        match self {
            Self::Name(name)
                if name.len() >= SHORT_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                Some(name.to_ascii_lowercase())
            }
            _ => None,
        }
    }
}

/// The commits (or annotated tags) that refs name and whose ids begin with these digits, each once.
pub(super) fn tips_with_prefix(refs: &[Ref], digits: &str) -> Vec<ObjectId> {
    let mut ids: Vec<_> = refs
        .iter()
        .filter_map(|found| found.unpack().2.or(found.unpack().1).map(ToOwned::to_owned))
        .filter(|id| id.to_string().starts_with(digits))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn full_name(found: &Ref) -> &str {
    found.unpack().0.to_str().unwrap_or_default()
}

fn found_as(name: &str, found: &Ref) -> Found {
    match found {
        Ref::Unborn { target, .. } => Found::Unborn(short(target.to_str_lossy().as_ref())),
        Ref::Symbolic { target, object, .. } if target.starts_with(b"refs/heads/") => {
            Found::Branch(short(target.to_str_lossy().as_ref()), *object)
        }
        Ref::Symbolic { object, .. } => Found::Detached(*object),
        Ref::Direct { object, .. } => named(name, *object),
        Ref::Peeled { tag, .. } => named(name, *tag),
    }
}

fn named(name: &str, id: ObjectId) -> Found {
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        Found::Branch(branch.to_owned(), id)
    } else if let Some(tag) = name.strip_prefix("refs/tags/") {
        Found::Tag(tag.to_owned(), id)
    } else {
        Found::Detached(id)
    }
}

fn short(name: &str) -> String {
    name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ObjectId {
        let text: String = std::iter::repeat_n(digit, 40).collect();
        ObjectId::from_hex(text.as_bytes()).expect("an id")
    }

    fn direct(name: &str, digit: char) -> Ref {
        Ref::Direct {
            full_ref_name: name.into(),
            object: id(digit),
        }
    }

    fn server() -> Vec<Ref> {
        vec![
            Ref::Symbolic {
                full_ref_name: "HEAD".into(),
                target: "refs/heads/main".into(),
                tag: None,
                object: id('1'),
            },
            direct("refs/heads/main", '1'),
            direct("refs/heads/v1", '2'),
            direct("refs/tags/v1", '3'),
            Ref::Peeled {
                full_ref_name: "refs/tags/v2".into(),
                tag: id('4'),
                object: id('5'),
            },
            direct("refs/pull/7/head", '6'),
        ]
    }

    #[test]
    fn a_branch_comes_before_a_tag_and_any_other_ref_is_detached() {
        let find = |text| Reference::of(Some(text)).among(&server());
        assert_eq!(find("v1"), Some(Found::Branch("v1".into(), id('2'))));
        assert_eq!(find("tags/v1"), Some(Found::Tag("v1".into(), id('3'))));
        assert_eq!(find("heads/v1"), Some(Found::Branch("v1".into(), id('2'))));
        assert_eq!(
            find("origin/main"),
            Some(Found::Branch("main".into(), id('1')))
        );
        assert_eq!(find("v2"), Some(Found::Tag("v2".into(), id('4'))));
        for name in ["refs/pull/7/head", "pull/7/head"] {
            assert_eq!(find(name), Some(Found::Detached(id('6'))), "{name}");
        }
        assert_eq!(find("nowhere"), None);
    }

    #[test]
    fn no_name_and_the_name_head_mean_the_default_branch() {
        for text in [None, Some("HEAD"), Some("")] {
            assert_eq!(
                Reference::of(text).among(&server()),
                Some(Found::Branch("main".into(), id('1')))
            );
        }
    }

    #[test]
    fn a_full_id_is_a_commit_and_a_short_one_is_a_name_first() {
        assert_eq!(
            Reference::of(Some(&"A".repeat(40))),
            Reference::Commit(id('a'))
        );
        let short = Reference::of(Some("BEEF"));
        assert_eq!(short.short_commit().as_deref(), Some("beef"));
        assert_eq!(Reference::of(Some("abc")).short_commit(), None);
        assert_eq!(Reference::of(Some("main")).short_commit(), None);
        assert_eq!(tips_with_prefix(&server(), "5555"), [id('5')]);
    }
}
