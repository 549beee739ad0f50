//! Secrets on one machine: files that only their owner can read. A value goes into a task's
//! environment when the task starts, and nowhere else.

use std::{
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::PathBuf,
};

use domain::{
    git::{self, GIT_KNOWN_HOSTS, GitHost},
    key::Role,
    ports::{self, PortError},
    request::SecretName,
    secret::{self, SecretRecord, ValueError},
};
use secrecy::SecretString;

/// The file of [`GIT_KNOWN_HOSTS`]. It has the name of ssh's own file, so that `ssh-keyscan` can
/// write it.
const KNOWN_HOSTS_FILE: &str = "known_hosts";

/// The secrets of this machine. A value is in `<dir>/<NAME>`, mode 0600, or else in the variable
/// `MYCLI_SECRET_<NAME>` of the process that runs the work. The hosts of a git credential are the
/// lines of `<dir>/<NAME>.hosts`.
#[derive(Clone, Debug)]
pub struct SecretFiles {
    dir: PathBuf,
}

impl SecretFiles {
    /// Makes the secrets of this directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the value of a secret; `None` if it is not set, or if other users can read it.
    ///
    /// # Errors
    /// When the value cannot be given to a task. Such a value was put there by hand.
    pub fn value(&self, name: &str) -> Result<Option<SecretString>, ValueError> {
        let bytes = self
            .kept(name)
            .or_else(|| std::env::var_os(in_environment(name)).map(OsStringExt::into_vec));
        let value = bytes
            .map(|bytes| secret::readable_value(name, bytes))
            .transpose()?;
        Ok(value.map(SecretString::from))
    }

    /// The file of a secret's value.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(if name == GIT_KNOWN_HOSTS {
            KNOWN_HOSTS_FILE
        } else {
            name
        })
    }

    /// The file of a git credential's hosts.
    #[must_use]
    pub fn hosts_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.hosts"))
    }

    /// Returns the hosts that were named for a secret; none if none were named.
    ///
    /// # Errors
    /// When the file cannot be read, or one of its lines is not a host.
    pub fn hosts(&self, name: &str) -> io::Result<Vec<GitHost>> {
        if !git::has_hosts(name) {
            return Ok(Vec::new());
        }
        match fs::read_to_string(self.hosts_path(name)) {
            Ok(text) => text
                .lines()
                .map(|line| line.parse().map_err(io::Error::other))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Lists the secrets that have their own file, by name.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read.
    pub fn list(&self) -> io::Result<Vec<SecretRecord>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = if file == KNOWN_HOSTS_FILE {
                GIT_KNOWN_HOSTS
            } else {
                file.as_str()
            };
            if name.parse::<SecretName>().is_ok() && entry.path() == self.path(name) {
                let set_at = Some(entry.metadata()?.modified()?.into());
                records.push(SecretRecord {
                    set_at,
                    ..self.record(name)?
                });
            }
        }
        records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// Every submitter may use each secret, because all keys of this machine belong to its owner.
    fn record(&self, name: &str) -> io::Result<SecretRecord> {
        Ok(SecretRecord {
            name: name.to_owned(),
            role: Role::Submit,
            set_at: None,
            hosts: self.hosts(name)?,
        })
    }

    fn kept(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        if self.is_open_to_others(name) {
            tracing::warn!(path = %path.display(), "a secret that others can read is not used; chmod 600 it");
            return None;
        }
        let mut bytes = fs::read(&path).ok()?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Some(bytes)
    }

    /// Whether other users can read the secret. Host keys are public, so this does not matter for
    /// them.
    fn is_open_to_others(&self, name: &str) -> bool {
        name != GIT_KNOWN_HOSTS
            && fs::metadata(self.path(name)).is_ok_and(|file| file.mode() & 0o077 != 0)
    }

    /// The error for a value that cannot be used. It names the file or variable, not the value.
    fn unusable(&self, name: &str, error: ValueError) -> PortError {
        let path = self.path(name);
        let place = if path.exists() {
            format!("the file {}", path.display())
        } else {
            in_environment(name)
        };
        PortError::corrupt(place, error)
    }
}

impl ports::Secrets for SecretFiles {
    /// A git credential with an unusable value counts as found. The clone then reports what is
    /// wrong, and the launcher does not wait.
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        let unreadable = |error| {
            PortError::corrupt(
                format!("the file {}", self.hosts_path(name).display()),
                error,
            )
        };
        let is_set = match self.value(name) {
            Ok(value) => value.is_some(),
            Err(_) if is_for_git(name) => true,
            Err(error) => return Err(self.unusable(name, error)),
        };
        is_set
            .then(|| self.record(name).map_err(unreadable))
            .transpose()
    }

    fn how_to_set(&self, name: &str) -> String {
        let path = self.path(name);
        if self.is_open_to_others(name) {
            return format!(
                "others can read {0}, so it is not used; run `chmod 600 {0}`",
                path.display()
            );
        }
        format!(
            "it is not set; set it with `mycli --local secrets set {name}`, or put its value into {} (mode 0600)",
            path.display()
        )
    }
}

/// The variable of mycli's own environment that holds a secret without a file.
fn in_environment(name: &str) -> String {
    format!("MYCLI_SECRET_{name}")
}

fn is_for_git(name: &str) -> bool {
    git::has_hosts(name) || name == GIT_KNOWN_HOSTS
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use domain::ports::Secrets as _;
    use secrecy::ExposeSecret;

    use super::*;

    fn secrets(name: &str, bytes: &[u8], mode: u32) -> (SecretFiles, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let secrets = SecretFiles::new(dir.path().to_owned());
        fs::write(secrets.path(name), bytes).unwrap();
        fs::set_permissions(secrets.path(name), fs::Permissions::from_mode(mode)).unwrap();
        (secrets, dir)
    }

    #[tokio::test]
    async fn a_value_that_no_task_can_be_given_is_told_by_its_file_and_not_taken_for_none() {
        for (bytes, words) in [
            (&b"hidden\0b\n"[..], "NUL"),
            (b"hidden\xff", "UTF-8"),
            (&[b'h'; 200_000], "200000 bytes"),
        ] {
            let (secrets, _dir) = secrets("T", bytes, 0o600);
            let said = secrets.find_secret("T").await.unwrap_err().to_string();
            assert!(
                said.contains(words) && said.contains("/T") && !said.contains("hidden"),
                "{said}"
            );
        }
        let (secrets, _dir) = secrets("GIT_TOKEN", b"hidden\0b", 0o600);
        assert!(secrets.find_secret("GIT_TOKEN").await.unwrap().is_some());
        assert_eq!(secrets.value("GIT_TOKEN").unwrap_err(), ValueError::Nul);
    }

    #[tokio::test]
    async fn one_line_end_is_taken_off_and_nothing_else() {
        let (secrets, _dir) = secrets("T", b"two\nlines\n\n", 0o600);
        assert_eq!(
            secrets.value("T").unwrap().unwrap().expose_secret(),
            "two\nlines\n"
        );
        assert!(secrets.find_secret("T").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_told_as_what_it_is() {
        let (secrets, _dir) = secrets("T", b"hidden", 0o644);
        assert_eq!(secrets.find_secret("T").await.unwrap(), None);
        let remedy = secrets.how_to_set("T");
        assert!(
            remedy.contains("chmod 600") && !remedy.contains("not set"),
            "{remedy}"
        );
    }
}
