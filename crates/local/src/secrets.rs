//! Secrets on one machine: files that only their owner can read. They reach a task's environment when it starts, and nothing else.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use domain::{
    git::{self, GIT_KNOWN_HOSTS, GitHost},
    key::Role,
    ports::{self, PortError},
    request::SecretName,
    secret::SecretRecord,
};
use secrecy::SecretString;

/// The file of [`GIT_KNOWN_HOSTS`], named as ssh's own is, so that `ssh-keyscan` can be told to write it.
const KNOWN_HOSTS_FILE: &str = "known_hosts";

/// The secrets of this machine: `<dir>/<NAME>`, mode 0600; else the variable `MYCLI_SECRET_<NAME>` of the process that runs the work.
/// The hosts of a credential for git are lines of `<dir>/<NAME>.hosts`.
#[derive(Clone, Debug)]
pub struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    /// Secrets in this directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The value of a secret; `None` if it is not set, or if others could read it.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<SecretString> {
        self.kept(name).or_else(|| std::env::var(format!("MYCLI_SECRET_{name}")).ok()).map(SecretString::from)
    }

    /// Where the value of a secret is kept.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(if name == GIT_KNOWN_HOSTS { KNOWN_HOSTS_FILE } else { name })
    }

    /// Where the hosts of a credential for git are kept.
    #[must_use]
    pub fn hosts_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.hosts"))
    }

    /// The hosts that were named for a secret; none where none were.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is no host.
    pub fn hosts(&self, name: &str) -> io::Result<Vec<GitHost>> {
        if !git::has_hosts(name) {
            return Ok(Vec::new());
        }
        match fs::read_to_string(self.hosts_path(name)) {
            Ok(text) => text.lines().map(|line| line.parse().map_err(io::Error::other)).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The secrets that have a file of their own, by name.
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
            let name = if file == KNOWN_HOSTS_FILE { GIT_KNOWN_HOSTS } else { file.as_str() };
            if name.parse::<SecretName>().is_ok() && entry.path() == self.path(name) {
                let set_at = Some(entry.metadata()?.modified()?.into());
                records.push(SecretRecord { set_at, ..self.record(name)? });
            }
        }
        records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// Whoever may submit may name each: all keys of this machine are its owner's.
    fn record(&self, name: &str) -> io::Result<SecretRecord> {
        Ok(SecretRecord { name: name.to_owned(), role: Role::Submit, set_at: None, hosts: self.hosts(name)? })
    }

    fn kept(&self, name: &str) -> Option<String> {
        let path = self.path(name);
        let mode = fs::metadata(&path).ok()?.mode();
        // Host keys are public.
        if mode & 0o077 != 0 && name != GIT_KNOWN_HOSTS {
            tracing::warn!(path = %path.display(), "a secret that others can read is not used; chmod 600 it");
            return None;
        }
        let text = fs::read_to_string(&path).ok()?;
        Some(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
    }
}

impl ports::Secrets for Secrets {
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        let unreadable = |error| PortError::corrupt(format!("the file {}", self.hosts_path(name).display()), error);
        self.value(name).map(|_| self.record(name).map_err(unreadable)).transpose()
    }

    fn how_to_set(&self, name: &str) -> String {
        let path = self.path(name);
        format!(
            "it is not set; `mycli --local secrets set {name}` keeps it, or put its value into {} (mode 0600)",
            path.display()
        )
    }
}
