//! `~/.mycli/config.yaml`: endpoints and their keys, one for each stack.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use deploy::StackName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::request::encoding;

/// The contents of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The address of an API that is not one of `stacks`.
    pub(crate) endpoint: Option<String>,
    /// The key for that address.
    pub(crate) key: Option<SecretString>,
    /// The stack that is used when none is named.
    pub(crate) stack: Option<StackName>,
    /// The stacks, by name.
    pub(crate) stacks: BTreeMap<StackName, Profile>,
}

/// The file's entry for a stack.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Profile {
    /// The address of the stack's API.
    pub(crate) endpoint: Option<String>,
    /// The key for that address.
    pub(crate) key: Option<SecretString>,
    /// The stack's AWS account.
    pub(crate) account: Option<String>,
    /// The stack's region.
    pub(crate) region: Option<String>,
    /// The profile of `~/.aws` that the stack was made with.
    pub(crate) aws_profile: Option<String>,
    /// The address of the emulator that the stack is in.
    pub(crate) endpoint_url: Option<String>,
}

/// An endpoint and its key, as the file has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProfileEntry<'a> {
    /// The stack's name; `None` for the endpoint that is not one of `stacks`.
    pub(crate) stack: Option<&'a StackName>,
    /// The address.
    pub(crate) endpoint: Option<&'a str>,
    /// The key.
    pub(crate) key: Option<&'a SecretString>,
}

/// Why the file cannot be used. Never holds a part of the file's text, which may be the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Other users can read the file, and so the key.
    #[error("{} can be read by others (mode {mode:04o}): make it yours alone with `chmod 600 {}`", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// The file's permissions.
        mode: u32,
    },
    /// The file is not valid YAML or has unknown keys.
    #[error(
        "{} is not valid{}: it must hold `endpoint` and `key`, or `stack` with a name and `stacks` with a map of each name to its `endpoint`, `key`, \
         `account`, `region`, `aws_profile` and `endpoint_url`",
        path.display(),
        at(*line)
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The line number, from 1, if it is known.
        line: Option<usize>,
    },
    /// The file is not UTF-8.
    #[error("{} {fault}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoding that it seems to have, and the fix.
        fault: String,
    },
    /// The file does not have this stack.
    #[error("there is no stack `{name}` in {}{}", path.display(), there_are(known))]
    NoStack {
        /// The stack that was asked for.
        name: StackName,
        /// The file.
        path: PathBuf,
        /// The stacks in the file.
        known: Vec<StackName>,
    },
    /// The file cannot be read or written.
    #[error("failed to use {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
}

fn there_are(known: &[StackName]) -> String {
    let names: Vec<_> = known.iter().map(StackName::as_str).collect();
    if names.is_empty() {
        ": `mycli init` makes one".into()
    } else {
        format!(": there are {}", names.join(", "))
    }
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(" in line {line}"))
        .unwrap_or_default()
}

impl ConfigFile {
    /// Reads the file. If there is none, nothing is set.
    ///
    /// # Errors
    /// [`SettingsError`], also when other users can read the file.
    pub(crate) fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |error| SettingsError::Io {
            path: path.to_owned(),
            error,
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SettingsError::Readable {
                path: path.to_owned(),
                mode,
            });
        }
        if let Some(fault) = encoding::fault(&bytes) {
            return Err(SettingsError::Encoding {
                path: path.to_owned(),
                fault,
            });
        }
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|line| SettingsError::Form {
            path: path.to_owned(),
            line,
        })
    }

    fn parse(text: &str) -> Result<Self, Option<usize>> {
        let parsed = serde_norway::from_str::<Option<Self>>(text);
        parsed
            .map(Option::unwrap_or_default)
            .map_err(|error| error.location().map(|place| place.line()))
    }

    /// Writes the whole file in one step, readable by the user alone. A concurrent reader sees the
    /// old file or the new one.
    ///
    /// # Errors
    /// [`SettingsError::Io`].
    pub(crate) fn write(&self, path: &Path) -> Result<(), SettingsError> {
        write_private(path, self.text().as_bytes()).map_err(|error| SettingsError::Io {
            path: path.to_owned(),
            error,
        })
    }

    /// The file's text. Values are written as JSON strings, which are valid YAML and need no other
    /// quoting.
    fn text(&self) -> String {
        let mut text = lines(
            "",
            &[
                ("endpoint", self.endpoint.as_deref()),
                ("key", exposed(self.key.as_ref())),
            ],
        );
        text += &lines("", &[("stack", self.stack.as_ref().map(StackName::as_str))]);
        if !self.stacks.is_empty() {
            text += "stacks:\n";
        }
        for (name, profile) in &self.stacks {
            let values = profile.lines();
            text += &format!(
                "  {}:{}",
                serde_json::json!(name),
                if values.is_empty() { " {}\n" } else { "\n" }
            );
            text += &values;
        }
        text
    }

    /// The entry to use: the named stack's, else that of the stack in use. If neither is set, it is
    /// the entry without a stack, or the only stack if that entry is empty.
    pub(crate) fn entry(&self, named: Option<&StackName>) -> ProfileEntry<'_> {
        let plain = ProfileEntry {
            stack: None,
            endpoint: self.endpoint.as_deref(),
            key: self.key.as_ref(),
        };
        let only = || {
            self.stacks
                .keys()
                .next()
                .filter(|_| self.stacks.len() == 1 && self.is_plain_unset())
        };
        let name = named.or(self.stack.as_ref()).or_else(only);
        name.and_then(|name| self.entry_of(name)).unwrap_or(plain)
    }

    fn is_plain_unset(&self) -> bool {
        self.endpoint.is_none() && self.key.is_none()
    }

    fn entry_of(&self, name: &StackName) -> Option<ProfileEntry<'_>> {
        let (name, profile) = self.stacks.get_key_value(name)?;
        Some(ProfileEntry {
            stack: Some(name),
            endpoint: profile.endpoint.as_deref(),
            key: profile.key.as_ref(),
        })
    }

    /// All entries, without an empty one that belongs to no stack.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ProfileEntry<'_>> {
        let plain = ProfileEntry {
            stack: None,
            endpoint: self.endpoint.as_deref(),
            key: self.key.as_ref(),
        };
        let plain = (!self.is_plain_unset()).then_some(plain);
        plain
            .into_iter()
            .chain(self.stacks.keys().filter_map(|name| self.entry_of(name)))
    }
}

impl Profile {
    /// Whether the other profile has the same values.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.lines() == other.lines()
    }

    fn lines(&self) -> String {
        let values = [
            ("endpoint", self.endpoint.as_deref()),
            ("key", exposed(self.key.as_ref())),
            ("account", self.account.as_deref()),
            ("region", self.region.as_deref()),
            ("aws_profile", self.aws_profile.as_deref()),
            ("endpoint_url", self.endpoint_url.as_deref()),
        ];
        lines("    ", &values)
    }
}

fn exposed(key: Option<&SecretString>) -> Option<&str> {
    key.map(SecretString::expose_secret)
}

fn lines(indent: &str, values: &[(&str, Option<&str>)]) -> String {
    values
        .iter()
        .filter_map(|(name, value)| {
            Some(format!(
                "{indent}{name}: {}\n",
                serde_json::json!((*value)?)
            ))
        })
        .collect()
}

/// Writes a file of mode 0600 in one step. Makes its folder (0700) if there is none.
///
/// # Errors
/// The file system's errors.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_belongs_to_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.yaml");
        let key = Some("sk: \"quoted\" # text".to_owned().into());
        ConfigFile {
            endpoint: Some("https://example.com/prod".into()),
            key,
            ..ConfigFile::default()
        }
        .write(&path)
        .unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let read = ConfigFile::read(&path).unwrap();
        assert_eq!(read.endpoint.as_deref(), Some("https://example.com/prod"));
        assert_eq!(read.key.unwrap().expose_secret(), "sk: \"quoted\" # text");
    }

    #[test]
    fn an_error_names_the_line_and_never_the_text() {
        let error = ConfigFile::parse("endpoint: http://a\nkye: sk_live_secret\n").unwrap_err();
        assert_eq!(error, Some(2));
        assert!(ConfigFile::parse("").unwrap().endpoint.is_none());
    }

    #[test]
    fn stacks_are_written_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let name = |text: &str| text.parse::<StackName>().unwrap();
        let profile = Profile {
            endpoint: Some("https://b.example/prod".into()),
            account: Some("012345678901".into()),
            ..Profile::default()
        };
        let stacks = [(name("a"), Profile::default()), (name("no"), profile)].into();
        ConfigFile {
            stack: Some(name("no")),
            stacks,
            ..ConfigFile::default()
        }
        .write(&path)
        .unwrap();
        let read = ConfigFile::read(&path).unwrap();
        assert_eq!(read.entry(None).endpoint, Some("https://b.example/prod"));
        assert_eq!(read.entry(Some(&name("a"))).endpoint, None);
        assert_eq!(
            read.stacks[&name("no")].account.as_deref(),
            Some("012345678901")
        );
    }

    #[test]
    fn the_only_stack_is_used_unless_another_endpoint_is_set() {
        let one = "stacks: {ci: {endpoint: 'https://ci.example/prod'}}";
        assert_eq!(
            ConfigFile::parse(one).unwrap().entry(None).endpoint,
            Some("https://ci.example/prod")
        );
        let old = format!("endpoint: http://old.example\n{one}");
        assert_eq!(
            ConfigFile::parse(&old).unwrap().entry(None).endpoint,
            Some("http://old.example")
        );
        assert_eq!(ConfigFile::parse(&old).unwrap().entries().count(), 2);
        assert!(ConfigFile::parse("stacks: {NO: {}}").is_err());
    }
}
