//! Secrets on one machine: files that only their owner can read. They reach a task's environment when it starts, and nothing else.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use domain::{
    key::Role,
    ports::{self, PortError},
    secret::SecretRecord,
    task::GIT_KNOWN_HOSTS,
};
use secrecy::SecretString;

/// The secrets of this machine: `<dir>/<NAME>`, mode 0600; else the variable `MYCLI_SECRET_<NAME>` of the process that runs the work.
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
    fn path(&self, name: &str) -> PathBuf {
        // So that `ssh-keyscan` can be told to write it.
        self.dir.join(if name == GIT_KNOWN_HOSTS { "known_hosts" } else { name })
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
    /// Whoever may submit may name each: all keys of this machine are its owner's.
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        let record = |_| SecretRecord { name: name.to_owned(), role: Role::Submit, set_at: None };
        Ok(self.value(name).map(record))
    }

    fn how_to_set(&self, name: &str) -> String {
        let path = self.path(name);
        format!(
            "it is not set; `mycli --local secrets set {name}` keeps it, or put its value into {} (mode 0600)",
            path.display()
        )
    }
}
