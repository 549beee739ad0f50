//! The keys that are pinned for a host, in the form of OpenSSH's `known_hosts` (sshd(8),
//! "SSH_KNOWN_HOSTS FILE FORMAT").

use std::io::{self, Write as _};

use russh::keys::{PublicKey, known_hosts::known_host_keys_path, parse_public_key_base64};

/// The beginning of a host that is hashed.
const HASHED: &str = "|1|";

/// The keys of a host. A line that cannot be read is passed over, as OpenSSH does; so is one of a
/// certificate authority, which we do not take for a host's key. A revoked key is none.
///
/// # Errors
/// When a file that the library needs cannot be written.
pub(super) fn keys_of(host: &str, port: u16, text: &str) -> io::Result<Vec<PublicKey>> {
    let name = match port {
        22 => host.to_ascii_lowercase(),
        port => format!("[{}]:{port}", host.to_ascii_lowercase()),
    };
    let (mut keys, mut revoked) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words: Vec<_> = line.split_whitespace().collect();
        let marker = words.first().copied().filter(|word| word.starts_with('@'));
        if marker.is_some() {
            words.remove(0);
        }
        let &[hosts, _kind, key, ..] = words.as_slice() else {
            continue;
        };
        let is_for_it = match hosts.starts_with(HASHED) {
            true => is_hash_of(hosts, key, host, port)?,
            false => !hosts.starts_with('#') && is_among(&name, hosts),
        };
        match (marker, parse_public_key_base64(key)) {
            (None, Ok(key)) if is_for_it => keys.push(key),
            (Some("@revoked"), Ok(key)) if is_for_it => revoked.push(key),
            _ => {}
        }
    }
    let is_revoked = |key: &PublicKey| {
        let mut all = revoked.iter();
        all.any(|revoked| revoked.key_data() == key.key_data())
    };
    keys.retain(|key| !is_revoked(key));
    Ok(keys)
}

/// Whether a hashed host is this one. The library knows the hash; it reads files only.
fn is_hash_of(hashed: &str, key: &str, host: &str, port: u16) -> io::Result<bool> {
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "{hashed} key {key}")?;
    let found = known_host_keys_path(host, port, file.path());
    Ok(found.is_ok_and(|found| !found.is_empty()))
}

/// Whether a list of patterns names a host: one fits, and none that begins with `!`.
fn is_among(name: &str, patterns: &str) -> bool {
    let mut is_named = false;
    for pattern in patterns.split(',') {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(excluded) if fits(name.as_bytes(), excluded.as_bytes()) => return false,
            Some(_) => {}
            None => is_named |= fits(name.as_bytes(), pattern.as_bytes()),
        }
    }
    is_named
}

/// Whether a pattern with `*` and `?` fits a name.
fn fits(name: &[u8], pattern: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), seen) => {
            fits(name, rest) || seen.is_some_and(|(_, name)| fits(name, pattern))
        }
        (Some((wanted, rest)), Some((seen, name))) => {
            (*wanted == b'?' || wanted == seen) && fits(name, rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    /// `ssh-keygen -H` of localhost.
    const LOCALHOST: &str = "|1|FpEy1jZ2GvXv8XtLtTifdmeJpAI=|Fm0eq5uXer6APQdUPxwLzVSmGuE=";

    fn count(host: &str, port: u16, text: &str) -> usize {
        let keys = keys_of(host, port, &text.replace("KEY", KEY));
        keys.expect("read").len()
    }

    #[test]
    fn hosts_are_found_as_openssh_finds_them() {
        let hashed = format!("{LOCALHOST} ssh-ed25519 KEY");
        let patterns = "*.example.com,!bad.example.com ssh-ed25519 KEY";
        for (line, host, port) in [
            ("github.com ssh-ed25519 KEY", "github.com", 22),
            ("a,GitHub.com,b ssh-ed25519 KEY comment", "GITHUB.com", 22),
            ("  github.com\tssh-ed25519\tKEY", "github.com", 22),
            ("[host]:2222 ssh-ed25519 KEY", "host", 2222),
            (patterns, "git.example.com", 22),
            ("10.0.0.? ssh-ed25519 KEY", "10.0.0.7", 22),
            (&hashed, "localhost", 22),
        ] {
            assert_eq!(count(host, port, line), 1, "{line}");
        }
        let revoked = "github.com ssh-ed25519 KEY\n@revoked * ssh-ed25519 KEY";
        for (line, host, port) in [
            ("github.com ssh-ed25519 KEY", "github.com.evil.example", 22),
            ("host ssh-ed25519 KEY", "host", 2222),
            (patterns, "bad.example.com", 22),
            ("#github.com ssh-ed25519 KEY", "#github.com", 22),
            (
                "@cert-authority github.com ssh-ed25519 KEY",
                "github.com",
                22,
            ),
            (revoked, "github.com", 22),
            (&hashed, "otherhost", 22),
            ("github.com", "github.com", 22),
        ] {
            assert_eq!(count(host, port, line), 0, "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_no_other() {
        let text = "github.com ssh-ed25519 not-a-key\n\ngithub.com ssh-ed25519 KEY\n";
        assert_eq!(count("github.com", 22, text), 1);
    }
}
