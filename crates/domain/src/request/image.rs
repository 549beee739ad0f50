//! Docker image references, by the grammar that Docker, containerd and ECS share.

use std::net::Ipv6Addr;

use thiserror::Error;

use super::text::{shown, text_type};

/// The longest image name, with the registry but without tag and digest, in characters
/// (`NameTotalLengthMax` of the grammar's package).
pub const IMAGE_NAME_MAX: usize = 255;

/// The longest tag, in characters (the grammar: one character and up to 127 more).
pub const TAG_MAX: usize = 128;

/// The fewest hexadecimal digits of a digest (the grammar: "at least 128 bit").
const DIGEST_HEX_MIN: usize = 32;

text_type! {
    /// An image: `[registry[:port]/]path[:tag][@digest]`, kept exactly as written.
    ///
    /// The grammar is the one at the head of `reference.go` in the CNCF's `distribution/reference`.
    /// The names of the OCI distribution specification agree with it. As in Docker, the first part
    /// is a registry only if it holds a dot, a colon or an upper-case letter. Sixty-four
    /// hexadecimal digits alone are refused, because engines read them as an image's id.
    ImageRef, ImageError
}

/// Why a text is not an [`ImageRef`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Nothing was given.
    #[error("is empty: name an image like `alpine:3.20`, or leave it out for the default")]
    Empty,
    /// A URL where a reference belongs.
    #[error(
        "starts with a scheme, which image references do not have: write `registry.example.com/team/tool:1.0`"
    )]
    Scheme,
    /// A space or a control character, often at an end.
    #[error("holds {0:?}: image references have no spaces or control characters, remove it")]
    Blank(char),
    /// Longer than [`IMAGE_NAME_MAX`].
    #[error("has a name of {0} characters, the limit is {IMAGE_NAME_MAX}: shorten it")]
    TooLong(usize),
    /// Upper case in the path.
    #[error("has upper case in {}, image names are lower case: write {}", shown(.0), shown(&.0.to_lowercase()))]
    UpperCase(String),
    /// A part of the path breaks the grammar.
    #[error(
        "has {} in its name: each part between slashes is lower-case letters and digits, joined by `.`, `_`, `__` or dashes",
        shown(.0)
    )]
    Part(String),
    /// The registry's host or port breaks the grammar.
    #[error("names the registry {}, which is not valid: write a host name or address, and a port of digits if it needs one", shown(.0))]
    Registry(String),
    /// The tag breaks the grammar.
    #[error("has the tag {}, which is not valid: a tag is 1 to {TAG_MAX} letters, digits, `_`, `.` or `-`, and does not start with `.` or `-`", shown(.0))]
    Tag(String),
    /// The digest breaks the grammar.
    #[error("has an invalid digest: write `@sha256:` and 64 lower-case hexadecimal digits")]
    Digest,
    /// An image's id, which no registry knows.
    #[error(
        "is an image's id, which no registry knows: name the image, or its digest as `name@sha256:…`"
    )]
    Id,
}

/// The parts of a reference.
struct ImageParts<'a> {
    registry: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> ImageParts<'a> {
    /// Splits at the grammar's separators; nothing is checked yet.
    fn of(text: &'a str) -> Self {
        let (rest, digest) = split_last(text.split_once('@'), text);
        // A colon before the last slash belongs to the registry's port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (rest, tag) = match rest[name_end..].find(':') {
            Some(colon) => (
                &rest[..name_end + colon],
                Some(&rest[name_end + colon + 1..]),
            ),
            None => (rest, None),
        };
        match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => Self {
                registry: Some(first),
                path,
                tag,
                digest,
            },
            _ => Self {
                registry: None,
                path: rest,
                tag,
                digest,
            },
        }
    }

    fn name_length(&self) -> usize {
        self.registry.map_or(0, |registry| registry.len() + 1) + self.path.len()
    }
}

fn split_last<'a>(split: Option<(&'a str, &'a str)>, whole: &'a str) -> (&'a str, Option<&'a str>) {
    split.map_or((whole, None), |(before, after)| (before, Some(after)))
}

/// Whether the first part of a name is a registry, by Docker's rule. Docker's exception for a bare
/// `localhost` is left out: `localhost` is valid as either, and the text is kept as it is.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first.contains(|c: char| c.is_ascii_uppercase())
}

impl ImageRef {
    fn check(text: &str) -> Result<(), ImageError> {
        if text.is_empty() {
            return Err(ImageError::Empty);
        }
        if text.contains("://") {
            return Err(ImageError::Scheme);
        }
        if let Some(blank) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(ImageError::Blank(blank));
        }
        if text.len() == 64 && is_lower_hex(text) {
            return Err(ImageError::Id);
        }
        check_parts(&ImageParts::of(text))
    }

    /// Returns the stack's default image.
    pub(super) fn ubuntu() -> Self {
        Self("ubuntu:22.04".to_owned())
    }

    /// Returns the tag, if the reference has one.
    pub fn tag(&self) -> Option<&str> {
        ImageParts::of(&self.0).tag
    }

    /// Returns the digest (`sha256:…`), if the reference is pinned to one.
    pub fn digest(&self) -> Option<&str> {
        ImageParts::of(&self.0).digest
    }
}

fn check_parts(parts: &ImageParts<'_>) -> Result<(), ImageError> {
    if parts.name_length() > IMAGE_NAME_MAX {
        return Err(ImageError::TooLong(parts.name_length()));
    }
    if let Some(registry) = parts
        .registry
        .filter(|registry| !is_host_and_port(registry))
    {
        return Err(ImageError::Registry(registry.to_owned()));
    }
    check_path(parts.path)?;
    if let Some(tag) = parts.tag.filter(|tag| !is_tag(tag)) {
        return Err(ImageError::Tag(tag.to_owned()));
    }
    match parts.digest {
        Some(digest) if !is_digest(digest) => Err(ImageError::Digest),
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), ImageError> {
    if is_path(&path.to_ascii_lowercase()) && !is_path(path) {
        return Err(ImageError::UpperCase(path.to_owned()));
    }
    match path.split('/').find(|part| !is_path_part(part)) {
        Some(part) => Err(ImageError::Part(part.to_owned())),
        None => Ok(()),
    }
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_part)
}

/// Whether the part consists of `[a-z0-9]+` runs joined by one `.`, one or two `_`, or any number
/// of `-`.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let starts_and_ends = part.starts_with(alphanumeric) && part.ends_with(alphanumeric);
    starts_and_ends && part.split(alphanumeric).all(is_separator)
}

/// Whether the text between two alphanumeric characters may join them. It may be empty.
fn is_separator(between: &str) -> bool {
    matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
}

fn is_host_and_port(registry: &str) -> bool {
    // An IPv6 address holds colons of its own, so only a colon after its bracket starts a port.
    let host_end = registry.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match registry[host_end..].find(':') {
        Some(colon) => (
            &registry[..host_end + colon],
            Some(&registry[host_end + colon + 1..]),
        ),
        None => (registry, None),
    };
    let port_valid =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    port_valid && (is_ipv6(host) || host.split('.').all(is_host_label))
}

fn is_ipv6(host: &str) -> bool {
    let inside = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_host_label(label: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    label.starts_with(alphanumeric)
        && label.ends_with(alphanumeric)
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_MAX
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// Whether a digest is valid. The known algorithms have an exact length in lower case; for others
/// the grammar requires 32 hexadecimal digits or more.
fn is_digest(digest: &str) -> bool {
    match digest.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64 && is_lower_hex(hex),
        Some(("sha512", hex)) => hex.len() == 128 && is_lower_hex(hex),
        Some((algorithm, hex)) => {
            is_algorithm(algorithm)
                && hex.len() >= DIGEST_HEX_MIN
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        None => false,
    }
}

fn is_algorithm(algorithm: &str) -> bool {
    algorithm.split(['+', '.', '-', '_']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        text.parse::<ImageRef>().unwrap_err().to_string()
    }

    fn sha256() -> String {
        format!("sha256:{}", "0123456789abcdef".repeat(4))
    }

    #[test]
    fn references_of_every_shape_are_kept_as_written() {
        for text in [
            "alpine",
            "ubuntu:22.04",
            "library/ubuntu",
            "hashicorp/terraform:1.9.8",
            "a/b/c/d:e",
            "a--b__c_d.e-f",
            "localhost/tool",
            "localhost:5000/tool:dev",
            "REGISTRY/tool",
            "Registry.Example.com:443/team/tool",
            "127.0.0.1:5000/x",
            "[::1]:5000/x:y",
            "[2001:db8::1]/x",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/tool:v1.0-rc.1_x",
            "tool:_T.a-G",
            &format!("tool@{}", sha256()),
            &format!("tool:1@{}", sha256()),
            &format!("tool@sha512:{}", "a".repeat(128)),
            &format!("tool@multihash+base58:{}", "Ab".repeat(16)),
            &format!("tool:{}", "t".repeat(128)),
            &"n".repeat(255),
        ] {
            assert_eq!(
                text.parse::<ImageRef>().map(|image| image.to_string()),
                Ok(text.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn tag_and_digest_are_found() {
        let image: ImageRef = format!("host:5000/tool:1@{}", sha256()).parse().unwrap();
        assert_eq!(
            (image.tag(), image.digest()),
            (Some("1"), Some(sha256().as_str()))
        );
        let image: ImageRef = "host:5000/tool".parse().unwrap();
        assert_eq!((image.tag(), image.digest()), (None, None));
    }

    #[test]
    fn upper_case_in_a_name_is_told_the_lower_case_one() {
        assert_eq!(
            fault("Ubuntu:22.04"),
            "has upper case in `Ubuntu`, image names are lower case: write `ubuntu`"
        );
        assert_eq!(
            fault("ghcr.io/Me/Tool:V1"),
            "has upper case in `Me/Tool`, image names are lower case: write `me/tool`"
        );
    }

    #[test]
    fn a_name_that_breaks_the_grammar_has_its_part_named() {
        for (text, part) in [
            ("-alpine", "-alpine"),
            ("team/-tool", "-tool"),
            ("a..b", "a..b"),
            ("a___b", "a___b"),
            ("a_", "a_"),
            ("a//b", ""),
            ("a/", ""),
            ("/a", ""),
            ("ghcr.io/", ""),
            ("a$b", "a$b"),
            (":tag", ""),
            ("é", "é"),
        ] {
            let expected = format!(
                "has `{part}` in its name: each part between slashes is lower-case letters and digits, joined by `.`, `_`, `__` or dashes"
            );
            assert_eq!(fault(text), expected, "{text}");
        }
    }

    #[test]
    fn a_registry_that_is_none_is_named() {
        for (text, registry) in [
            ("-x.io/a", "-x.io"),
            ("a..b/c", "a..b"),
            ("host:/a", "host:"),
            ("host:5x/a", "host:5x"),
            ("[::g]:1/a", "[::g]:1"),
            ("u_x.io/a", "u_x.io"),
        ] {
            let expected = format!(
                "names the registry `{registry}`, which is not valid: write a host name or address, and a port of digits if it needs one"
            );
            assert_eq!(fault(text), expected, "{text}");
        }
    }

    #[test]
    fn a_tag_that_is_none_is_named() {
        for tag in ["", "-x", ".x", "a:b", "a+b"] {
            let expected = format!(
                "has the tag `{tag}`, which is not valid: a tag is 1 to 128 letters, digits, `_`, `.` or `-`, and does not start with `.` or `-`"
            );
            assert_eq!(fault(&format!("tool:{tag}")), expected);
        }
        assert!(fault(&format!("tool:{}", "t".repeat(129))).starts_with("has the tag `ttt"));
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        let short = format!("sha256:{}", "a".repeat(63));
        let upper = format!("sha256:{}", "A".repeat(64));
        let few = format!("other:{}", "a".repeat(31));
        let twice = format!("{}@{}", sha256(), sha256());
        for digest in [
            "",
            "sha256",
            "sha256:",
            &short,
            &upper,
            &few,
            &twice,
            "1x:00000000000000000000000000000000",
        ] {
            assert_eq!(
                fault(&format!("tool@{digest}")),
                "has an invalid digest: write `@sha256:` and 64 lower-case hexadecimal digits",
                "{digest}"
            );
        }
    }

    #[test]
    fn what_is_no_reference_at_all_says_so() {
        assert_eq!(
            fault(""),
            "is empty: name an image like `alpine:3.20`, or leave it out for the default"
        );
        assert_eq!(
            fault("https://ghcr.io/a/b"),
            "starts with a scheme, which image references do not have: write `registry.example.com/team/tool:1.0`"
        );
        assert_eq!(
            fault("alpine "),
            "holds ' ': image references have no spaces or control characters, remove it"
        );
        assert_eq!(
            fault(&"n".repeat(256)),
            "has a name of 256 characters, the limit is 255: shorten it"
        );
        assert_eq!(
            fault(&"0123456789abcdef".repeat(4)),
            "is an image's id, which no registry knows: name the image, or its digest as `name@sha256:…`"
        );
    }
}
