//! The address that a repository is cloned from, in the forms that git understands and that cannot
//! be turned against git.
//!
//! It is read by our own rules and not by the WHATWG rules of the `url` crate, because git and ssh
//! get the text as it stands. Attacks use exactly the parts that a browser would normalise away,
//! for example an escaped dash in a host.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use thiserror::Error;

use super::Place;
use super::text::{shown, text_type};

/// The longest repository URL, in bytes. It is a quarter of the 8192 characters that ECS allows for
/// everything in a run.
pub const REPO_MAX: usize = 2048;

/// The longest host name, in characters (RFC 1035, section 2.3.4).
const HOST_MAX: usize = 253;

text_type! {
    /// A repository: `https://`, `ssh://` or `git@host:path`; on one machine also `http://`,
    /// `file://` and an absolute path.
    ///
    /// It holds no credentials, and git can read no part of it as an option or as another
    /// transport. [`RepoUrl::parse`] makes one from a request and checks the form against the
    /// place. From a stored record all forms are accepted.
    RepoUrl, RepoError
}

/// The form of a repository's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// `https://host/path`
    Https,
    /// `http://host/path`
    Http,
    /// `ssh://user@host/path`
    Ssh,
    /// `user@host:path`, which is ssh too.
    ScpLike,
    /// `file:///path`
    File,
    /// `/path`
    Path,
}

/// Why a text is not a [`RepoUrl`]. No variant holds the whole text, because it may hold a
/// credential.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RepoError {
    /// Nothing was given.
    #[error("is empty: name a repository, or leave it out to run without one")]
    Empty,
    /// Longer than [`REPO_MAX`].
    #[error("is {0} bytes long, the limit is {REPO_MAX}: shorten it")]
    TooLong(usize),
    /// A space, a control character, a backslash or the like.
    #[error("holds {0:?}, which is not allowed: remove it, or percent-encode it in a path")]
    Character(char),
    /// A percent-encoded control character.
    #[error("holds a percent-encoded control character: remove it")]
    EncodedControl,
    /// A part that git or ssh would read as an option.
    #[error(
        "has a {0} that starts with `-`, which git reads as an option: use another name for the repository"
    )]
    Dash(&'static str),
    /// A user name or password where the form has none.
    #[error(
        "holds a user name or password, which would be stored with the run: remove the part before the `@` and store the token with `mycli secrets set GIT_TOKEN`"
    )]
    Credentials,
    /// A query or a fragment, which may hold a token.
    #[error(
        "has a `?` or `#` part, which repositories do not have: remove it, and give a token as a secret (`--secret`)"
    )]
    Query,
    /// A transport that runs commands, or does not authenticate the other side.
    #[error("uses the transport {}, which is not allowed: use https://, ssh:// or git@host:path", shown(.0))]
    Transport(String),
    /// The host is not a host name or address.
    #[error("has the host {}, which is not a host name or address: use letters, digits, `.` and `-`, or an address", shown(.0))]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("has the port {}, which is not valid: write 1 to 65535, or leave it out", shown(.0))]
    Port(String),
    /// The user name of an ssh form has characters that ssh cannot take.
    #[error(
        "has a user name that ssh cannot take: use letters, digits, `.`, `_`, `+`, `=` and `-`, as in git@host:path"
    )]
    User,
    /// A host without a path.
    #[error(
        "names a host but no repository on it: add the repository's path, as in https://github.com/me/project"
    )]
    NoPath,
    /// `http://` to another machine.
    #[error("uses http:// to {}, and anyone on the network in between could read and change the clone: use https:// (http:// is allowed only for loopback addresses and with --local)", shown(.0))]
    PlainHttp(String),
    /// A directory of this machine, which AWS cannot see.
    #[error(
        "is a directory on one machine, and a task in AWS cannot reach it: push it and give its https:// or ssh:// URL, or run with --local"
    )]
    LocalOnly,
    /// `file://` with a host, or relative.
    #[error("is a file:// URL with a host or a relative path: write file:/// and an absolute path")]
    FileHost,
    /// The text has none of the known forms.
    #[error(
        "is neither a URL nor an absolute path: write https://host/path, ssh://user@host/path, git@host:path, or with --local /path"
    )]
    Form,
}

impl RepoUrl {
    fn check(text: &str) -> Result<(), RepoError> {
        form(text).map(drop)
    }

    /// Reads a repository that can be reached from `place`.
    ///
    /// # Errors
    /// [`RepoError`] if it is in no known form, could be turned against git, or cannot be reached
    /// safely from `place`.
    pub fn parse(text: &str, place: Place) -> Result<Self, RepoError> {
        let form = form(text)?;
        match (place, form.kind) {
            (Place::Aws, RepoKind::File | RepoKind::Path) => return Err(RepoError::LocalOnly),
            (Place::Aws, RepoKind::Http) if !is_loopback(form.host) => {
                return Err(RepoError::PlainHttp(form.host.to_owned()));
            }
            _ => {}
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the form of the URL.
    pub fn kind(&self) -> RepoKind {
        // The text was checked when it was read, so the fallback is never reached. git takes any
        // other text for a path.
        form(&self.0).map_or(RepoKind::Path, |form| form.kind)
    }

    /// Returns its host; none for a directory of this machine.
    pub fn host(&self) -> Option<&str> {
        form(&self.0)
            .ok()
            .map(|form| form.host)
            .filter(|host| !host.is_empty())
    }

    /// Returns its port: the one it names, else the default of its transport.
    pub fn port(&self) -> Option<u16> {
        let form = form(&self.0).ok()?;
        form.port.or(match form.kind {
            RepoKind::Https => Some(443),
            RepoKind::Http => Some(80),
            RepoKind::Ssh | RepoKind::ScpLike => Some(22),
            RepoKind::File | RepoKind::Path => None,
        })
    }

    /// Returns the name of the folder of a clone, as git chooses it: the last part of the path,
    /// without `.git`. A name that could mean something else to a shell is `repository`.
    pub fn folder_name(&self) -> String {
        let path = self.0.trim_end_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path);
        let last = path.rsplit(['/', ':']).next().unwrap_or_default();
        let name = last.strip_suffix(".git").unwrap_or(last);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
            return "repository".to_owned();
        }
        name.to_owned()
    }

    /// Returns its directory, if it is on this machine.
    pub fn local_path(&self) -> Option<PathBuf> {
        match self.kind() {
            RepoKind::Path => Some(PathBuf::from(&self.0)),
            RepoKind::File => url::Url::parse(&self.0).ok()?.to_file_path().ok(),
            _ => None,
        }
    }
}

/// Returns the text for `Debug`, without anything that may be a credential.
pub(super) fn without_credentials(text: &str) -> String {
    let before_query = text.split(['?', '#']).next().unwrap_or_default();
    let scheme_end = before_query.find("://").map_or(0, |at| at + 3);
    match before_query.rfind('@') {
        Some(at) if at >= scheme_end => {
            format!("{}…{}", &before_query[..scheme_end], &before_query[at..])
        }
        _ => before_query.to_owned(),
    }
}

/// The parts of a repository text that the checks find.
struct RepoForm<'a> {
    kind: RepoKind,
    /// The host. It is empty for local forms; an IPv6 address has no brackets here.
    host: &'a str,
    port: Option<u16>,
}

fn form(text: &str) -> Result<RepoForm<'_>, RepoError> {
    check_whole(text)?;
    if text.starts_with('/') {
        return Ok(RepoForm {
            kind: RepoKind::Path,
            host: "",
            port: None,
        });
    }
    let scheme_end = text.find(|c| !is_scheme_character(c)).unwrap_or(text.len());
    let (scheme, rest) = text.split_at(scheme_end);
    if rest.starts_with("::") {
        return Err(RepoError::Transport(format!("{scheme}::")));
    }
    match rest.strip_prefix("://") {
        Some(rest) => url_form(scheme, rest),
        None => scp_form(text),
    }
}

fn check_whole(text: &str) -> Result<(), RepoError> {
    if text.is_empty() {
        return Err(RepoError::Empty);
    }
    if text.len() > REPO_MAX {
        return Err(RepoError::TooLong(text.len()));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(RepoError::Character(control));
    }
    if text.starts_with('-') {
        Err(RepoError::Dash("name"))
    } else {
        Ok(())
    }
}

fn is_scheme_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.')
}

fn url_form<'a>(scheme: &str, rest: &'a str) -> Result<RepoForm<'a>, RepoError> {
    let kind = match scheme {
        "https" => RepoKind::Https,
        "http" => RepoKind::Http,
        "ssh" => RepoKind::Ssh,
        "file" => RepoKind::File,
        _ => return Err(RepoError::Transport(format!("{scheme}://"))),
    };
    let path_start = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    // This check comes before any other that repeats a part of the text.
    check_credentials(kind, authority)?;
    check_url_text(rest)?;
    if kind == RepoKind::File {
        return if authority.is_empty() {
            Ok(RepoForm {
                kind,
                host: "",
                port: None,
            })
        } else {
            Err(RepoError::FileHost)
        };
    }
    let (host, port) = host_and_port_of(authority)?;
    check_path(path.trim_matches('/'))?;
    Ok(RepoForm { kind, host, port })
}

/// Checks the user name. Only ssh URLs have one (it chooses the account and proves nothing), and no
/// URL has a password.
fn check_credentials(kind: RepoKind, authority: &str) -> Result<(), RepoError> {
    match authority.rsplit_once('@') {
        Some((user, _)) if kind != RepoKind::Ssh || user.contains([':', '@']) => {
            Err(RepoError::Credentials)
        }
        Some((user, _)) => check_user(user),
        None => Ok(()),
    }
}

fn check_user(user: &str) -> Result<(), RepoError> {
    if user.starts_with('-') {
        return Err(RepoError::Dash("user name"));
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || "._+=-".contains(c);
    if !user.is_empty() && user.chars().all(valid) {
        Ok(())
    } else {
        Err(RepoError::User)
    }
}

fn check_url_text(text: &str) -> Result<(), RepoError> {
    if text.contains(['?', '#']) {
        return Err(RepoError::Query);
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_graphic() || "\\\"<>^`{|}".contains(*c))
    {
        Some(character) => Err(RepoError::Character(character)),
        None if holds_encoded_control(text) => Err(RepoError::EncodedControl),
        None => Ok(()),
    }
}

/// Whether the text holds a percent-encoded control character. git decodes `%0a` before it passes
/// the text to ssh or to a credential helper, and the helper's protocol consists of lines.
fn holds_encoded_control(text: &str) -> bool {
    text.split('%').skip(1).any(|after| {
        let code = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        code.is_some_and(|code| code.is_ascii_control())
    })
}

/// Returns the host and the port of `[user@]host[:port]`.
fn host_and_port_of(authority: &str) -> Result<(&str, Option<u16>), RepoError> {
    let host_and_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, after)| after);
    let (host, port) = match host_and_port.rfind(']') {
        Some(bracket) => host_and_port.split_at(bracket + 1),
        None => host_and_port.split_at(host_and_port.find(':').unwrap_or(host_and_port.len())),
    };
    let port = checked_port(port)?;
    Ok((checked_host(host)?, port))
}

fn checked_port(port: &str) -> Result<Option<u16>, RepoError> {
    let Some(number) = port.strip_prefix(':') else {
        return if port.is_empty() {
            Ok(None)
        } else {
            Err(RepoError::Port(port.to_owned()))
        };
    };
    // Parsing as `u16` alone would accept `+22`.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse::<u16>() {
        Ok(port @ 1..) if digits => Ok(Some(port)),
        _ => Err(RepoError::Port(number.to_owned())),
    }
}

fn checked_host(host: &str) -> Result<&str, RepoError> {
    if host.starts_with('-') {
        return Err(RepoError::Dash("host"));
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => Ok(address),
        None if is_host_name(host) => Ok(host),
        _ => Err(RepoError::Host(host.to_owned())),
    }
}

/// Whether this is a host name or an address; an IPv6 address has no brackets here.
pub fn is_host(text: &str) -> bool {
    is_host_name(text) || text.parse::<Ipv6Addr>().is_ok()
}

/// Whether this is a host name. IPv4 addresses pass too. DNS has no underscores, but names of
/// containers have them.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && !label.starts_with('-') && label.chars().all(valid)
    };
    host.len() <= HOST_MAX && host.split('.').all(label)
}

fn check_path(path: &str) -> Result<(), RepoError> {
    if path.starts_with('-') {
        return Err(RepoError::Dash("path"));
    }
    if path.is_empty() {
        Err(RepoError::NoPath)
    } else {
        Ok(())
    }
}

/// Reads `[user@]host:path`. As in git, a slash before the colon means that there is no host.
fn scp_form(text: &str) -> Result<RepoForm<'_>, RepoError> {
    let (authority, path) = split_scp(text).ok_or(RepoError::Form)?;
    // git takes `git:token@host:path` as a host named `git`. Here it is refused as a mistake that
    // holds a token.
    if path
        .split('/')
        .next()
        .is_some_and(|first| first.contains('@'))
    {
        return Err(RepoError::Credentials);
    }
    check_credentials(RepoKind::Ssh, authority)?;
    let (host, port) = host_and_port_of(authority)?;
    if matches!(
        host,
        "https" | "http" | "ssh" | "git" | "file" | "ftp" | "ftps"
    ) {
        return Err(RepoError::Transport(format!("{host}:")));
    }
    if let Some(character) = path.chars().find(|c| c.is_whitespace() || *c == '\\') {
        return Err(RepoError::Character(character));
    }
    check_path(path)?;
    Ok(RepoForm {
        kind: RepoKind::ScpLike,
        host,
        port,
    })
}

fn split_scp(text: &str) -> Option<(&str, &str)> {
    let address_end = text.find("]:").map(|bracket| bracket + 1);
    let colon = address_end
        .filter(|_| text.contains('['))
        .or_else(|| text.find(':'))?;
    let (authority, path) = (&text[..colon], &text[colon + 1..]);
    (!authority.contains('/')).then_some((authority, path))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clones_folder_has_the_repositorys_name() {
        for (repo, name) in [
            ("https://github.com/me/project.git", "project"),
            ("https://github.com/me/project/", "project"),
            ("git@host:project.git", "project"),
            ("/srv/git/project/.git", "project"),
            ("/srv/my project", "repository"),
            ("/srv/.hidden", "repository"),
            ("/", "repository"),
        ] {
            let repo: RepoUrl = repo.parse().expect("a repository");
            assert_eq!(repo.folder_name(), name, "{repo}");
        }
    }

    fn fault(text: &str, place: Place) -> String {
        RepoUrl::parse(text, place).unwrap_err().to_string()
    }

    fn refused_everywhere(text: &str, message: &str) {
        for place in [Place::Aws, Place::OneMachine] {
            assert_eq!(fault(text, place), message, "{text}");
        }
    }

    #[test]
    fn every_form_is_kept_as_written_and_known_by_its_kind() {
        for (text, kind, host) in [
            (
                "https://github.com/me/project",
                RepoKind::Https,
                "github.com",
            ),
            (
                "https://github.com/me/project.git/",
                RepoKind::Https,
                "github.com",
            ),
            (
                "https://git.example.com:8443/a/b%20c",
                RepoKind::Https,
                "git.example.com",
            ),
            (
                "https://[2001:db8::1]:8443/a",
                RepoKind::Https,
                "2001:db8::1",
            ),
            (
                "https://dev.azure.com/org/project/_git/repo",
                RepoKind::Https,
                "dev.azure.com",
            ),
            ("http://localhost:3000/a.git", RepoKind::Http, "localhost"),
            ("http://127.0.0.2/a", RepoKind::Http, "127.0.0.2"),
            ("http://[::1]:80/a", RepoKind::Http, "::1"),
            (
                "ssh://git@github.com/me/project",
                RepoKind::Ssh,
                "github.com",
            ),
            ("ssh://host:2222/~me/project", RepoKind::Ssh, "host"),
            ("ssh://git@[::1]:22/srv/a", RepoKind::Ssh, "::1"),
            (
                "git@github.com:me/project.git",
                RepoKind::ScpLike,
                "github.com",
            ),
            ("host:project", RepoKind::ScpLike, "host"),
            ("git@[::1]:me/project", RepoKind::ScpLike, "::1"),
            ("git@host:/srv/git/a:b", RepoKind::ScpLike, "host"),
        ] {
            for place in [Place::Aws, Place::OneMachine] {
                let repo = RepoUrl::parse(text, place).unwrap();
                assert_eq!(
                    (repo.as_str(), repo.kind(), repo.host()),
                    (text, kind, Some(host))
                );
                assert_eq!(repo.local_path(), None);
            }
        }
    }

    #[test]
    fn directories_are_for_one_machine() {
        let message = "is a directory on one machine, and a task in AWS cannot reach it: push it and give its https:// or ssh:// URL, or run with --local";
        for (text, path) in [
            ("/srv/my repo", "/srv/my repo"),
            ("/a:b/c?d#e", "/a:b/c?d#e"),
            ("file:///srv/my%20repo", "/srv/my repo"),
            ("file:///-x", "/-x"),
        ] {
            assert_eq!(fault(text, Place::Aws), message);
            let repo = RepoUrl::parse(text, Place::OneMachine).unwrap();
            assert_eq!(
                (repo.local_path(), repo.host()),
                (Some(PathBuf::from(path)), None)
            );
        }
        let elsewhere =
            "is a file:// URL with a host or a relative path: write file:/// and an absolute path";
        refused_everywhere("file://srv/repo", elsewhere);
        refused_everywhere("file://localhost/repo", elsewhere);
    }

    #[test]
    fn plain_http_to_another_machine_is_for_one_machine() {
        assert_eq!(
            fault("http://git.example.com:80/a", Place::Aws),
            "uses http:// to `git.example.com`, and anyone on the network in between could read and change the clone: use https:// (http:// is allowed only for loopback addresses and with --local)"
        );
        assert!(fault("http://localhost.example.com/a", Place::Aws).starts_with("uses http:// to"));
        assert!(fault("http://0x7f000001/a", Place::Aws).starts_with("uses http:// to"));
        assert_eq!(
            RepoUrl::parse("http://git.example.com/a", Place::OneMachine).map(|repo| repo.kind()),
            Ok(RepoKind::Http)
        );
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let message = "holds a user name or password, which would be stored with the run: remove the part before the `@` and store the token with `mycli secrets set GIT_TOKEN`";
        for text in [
            "https://hunter2@github.com/a",
            "https://me:hunter2@github.com/a",
            "https://me:hunter2@-bad-host/a b",
            "http://me:hunter2@localhost/a",
            "ssh://git:hunter2@github.com/a",
            "ssh://a@b@github.com/a",
            "git:hunter2@github.com:me/project",
            "file://me:hunter2@host/a",
        ] {
            refused_everywhere(text, message);
        }
        refused_everywhere(
            "https://github.com/a?token=hunter2",
            "has a `?` or `#` part, which repositories do not have: remove it, and give a token as a secret (`--secret`)",
        );
    }

    #[test]
    fn nothing_that_git_reads_as_an_option() {
        for (text, part) in [
            ("-oProxyCommand=x", "name"),
            ("--upload-pack=x", "name"),
            ("-oProxyCommand=x@host:a", "name"),
            ("ssh://-oProxyCommand=x/a", "host"),
            ("ssh://-oProxyCommand=x@host/a", "user name"),
            ("ssh://git@-host/a", "host"),
            ("git@-host:a", "host"),
            ("git@host:-a", "path"),
            ("ssh://host/-a", "path"),
            ("https://host/-a", "path"),
            ("https://-host/a", "host"),
        ] {
            let message = format!(
                "has a {part} that starts with `-`, which git reads as an option: use another name for the repository"
            );
            refused_everywhere(text, &message);
        }
        refused_everywhere(
            "ssh://%2doProxyCommand=x/a",
            "has the host `%2doProxyCommand=x`, which is not a host name or address: use letters, digits, `.` and `-`, or an address",
        );
        refused_everywhere(
            "ssh://%2doX@host/a",
            "has a user name that ssh cannot take: use letters, digits, `.`, `_`, `+`, `=` and `-`, as in git@host:path",
        );
    }

    #[test]
    fn other_transports_are_refused() {
        for (text, transport) in [
            ("ext::sh -c touch% /tmp/x", "ext::"),
            ("ext::sh -c x://y", "ext::"),
            ("fd::17", "fd::"),
            ("::x", "::"),
            ("git://host/a", "git://"),
            ("ftp://host/a", "ftp://"),
            ("git+ssh://host/a", "git+ssh://"),
            ("HTTPS://github.com/a", "HTTPS://"),
            ("https:github.com/a", "https:"),
            ("://host/a", "://"),
        ] {
            let message = format!(
                "uses the transport `{transport}`, which is not allowed: use https://, ssh:// or git@host:path"
            );
            refused_everywhere(text, &message);
        }
    }

    #[test]
    fn characters_that_do_not_belong_are_named() {
        for (text, character) in [
            ("https://host/a b", "' '"),
            ("https://host/a\nb", "'\\n'"),
            ("/srv/a\u{7}", "'\\u{7}'"),
            ("https://host\\@evil/a", "'\\\\'"),
            ("https://host/é", "'é'"),
            ("git@host:a b", "' '"),
            ("git@host:a\\b", "'\\\\'"),
        ] {
            // The `@` after the backslash is taken for credentials first, which refuses it just as
            // well.
            if text.contains("\\@") {
                assert!(fault(text, Place::Aws).starts_with("holds a user name"));
                continue;
            }
            let message = format!(
                "holds {character}, which is not allowed: remove it, or percent-encode it in a path"
            );
            refused_everywhere(text, &message);
        }
        refused_everywhere(
            "https://host/a%0ahost=evil",
            "holds a percent-encoded control character: remove it",
        );
        refused_everywhere(
            "ssh://host/a%7F",
            "holds a percent-encoded control character: remove it",
        );
    }

    #[test]
    fn hosts_ports_and_paths_are_checked() {
        for host in ["", "ho..st", ".host", "a.-b", "ho%20st", "[::g]", "[::1"] {
            let message = format!(
                "has the host `{host}`, which is not a host name or address: use letters, digits, `.` and `-`, or an address"
            );
            if host == "[::1" {
                assert!(fault("https://[::1/a", Place::Aws).starts_with("has the port"));
            } else {
                refused_everywhere(&format!("https://{host}/a"), &message);
            }
        }
        for port in ["", "0", "65536", "+22", "x"] {
            let message = format!(
                "has the port `{port}`, which is not valid: write 1 to 65535, or leave it out"
            );
            refused_everywhere(&format!("ssh://git@host:{port}/a"), &message);
        }
        for text in [
            "https://github.com",
            "https://github.com//",
            "ssh://git@host/",
            "git@host:",
        ] {
            refused_everywhere(
                text,
                "names a host but no repository on it: add the repository's path, as in https://github.com/me/project",
            );
        }
    }

    #[test]
    fn what_is_in_no_form_is_told_the_forms() {
        let message = "is neither a URL nor an absolute path: write https://host/path, ssh://user@host/path, git@host:path, or with --local /path";
        for text in ["project", "./project", "../a:b", "me/project"] {
            refused_everywhere(text, message);
        }
        refused_everywhere(
            "",
            "is empty: name a repository, or leave it out to run without one",
        );
        let long = format!("https://host/{}", "a".repeat(2036));
        refused_everywhere(&long, "is 2049 bytes long, the limit is 2048: shorten it");
    }

    #[test]
    fn debug_text_holds_no_credential() {
        for (text, expected) in [
            ("https://me:hunter2@host/a", "https://…@host/a"),
            ("git:hunter2@host:a", "…@host:a"),
            ("https://host/a?token=hunter2", "https://host/a"),
            ("https://host/a", "https://host/a"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
    }

    #[test]
    fn a_stored_repository_is_checked_again() {
        assert!(serde_json::from_str::<RepoUrl>("\"/srv/a\"").is_ok());
        assert!(serde_json::from_str::<RepoUrl>("\"ext::sh -c x\"").is_err());
    }
}
