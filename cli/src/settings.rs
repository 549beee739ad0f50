//! `~/.mycli/config.yaml`: the endpoint and its key.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The address of the API.
    pub(crate) endpoint: Option<String>,
    /// The key for it.
    pub(crate) key: Option<SecretString>,
}

/// Why the file cannot be used. Never holds a part of the file's text: that may be the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Someone else could take the key.
    #[error("{} can be read by others (mode {mode:04o}): make it yours alone with `chmod 600 {}`", path.display(), path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not YAML, or other keys than `endpoint` and `key`.
    #[error("{} is not right{}: it holds the keys `endpoint` and `key`, each with a text", path.display(), at(*line))]
    Form {
        /// The file.
        path: PathBuf,
        /// Where, if that is known.
        line: Option<usize>,
    },
    /// Reading or writing failed.
    #[error("failed to use {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(" in line {line}")).unwrap_or_default()
}

impl Settings {
    /// Reads the file; nothing is set when there is none.
    ///
    /// # Errors
    /// [`SettingsError`], also when others may read the file.
    pub(crate) fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |error| SettingsError::Io { path: path.to_owned(), error };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SettingsError::Readable { path: path.to_owned(), mode });
        }
        Self::parse(&text).map_err(|line| SettingsError::Form { path: path.to_owned(), line })
    }

    fn parse(text: &str) -> Result<Self, Option<usize>> {
        let parsed = serde_norway::from_str::<Option<Self>>(text);
        parsed.map(Option::unwrap_or_default).map_err(|error| error.location().map(|place| place.line()))
    }

    /// Puts the file in place whole, readable by the user alone: whoever reads meanwhile sees the old or the new one.
    ///
    /// # Errors
    /// [`SettingsError::Io`].
    pub(crate) fn write(&self, path: &Path) -> Result<(), SettingsError> {
        write_private(path, self.text().as_bytes()).map_err(|error| SettingsError::Io { path: path.to_owned(), error })
    }

    /// JSON strings are YAML too, and need no thought about quoting.
    fn text(&self) -> String {
        let key = self.key.as_ref().map(SecretString::expose_secret);
        let lines = [("endpoint", self.endpoint.as_deref()), ("key", key)];
        lines.iter().filter_map(|(name, value)| Some(format!("{name}: {}\n", serde_json::json!((*value)?)))).collect()
    }
}

/// Writes a file of mode 0600 in one step, and its folder (0700) if there is none.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
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
        Settings { endpoint: Some("https://example.com/prod".into()), key }.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Settings::read(&path).unwrap();
        assert_eq!(read.endpoint.as_deref(), Some("https://example.com/prod"));
        assert_eq!(read.key.unwrap().expose_secret(), "sk: \"quoted\" # text");
    }

    #[test]
    fn an_error_names_the_line_and_never_the_text() {
        let error = Settings::parse("endpoint: http://a\nkye: sk_live_secret\n").unwrap_err();
        assert_eq!(error, Some(2));
        assert!(Settings::parse("").unwrap().endpoint.is_none());
    }
}
