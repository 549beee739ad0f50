//! Secrets on one machine: files that only their owner can read. They reach a task's environment when it starts, and nothing else.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

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

    /// What to do about one that is not set.
    #[must_use]
    pub fn how_to_set(&self, name: &str) -> String {
        format!("it is not set; put its value into {} (mode 0600)", self.dir.join(name).display())
    }

    fn kept(&self, name: &str) -> Option<String> {
        let path = self.dir.join(name);
        let mode = fs::metadata(&path).ok()?.mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "a secret that others can read is not used; chmod 600 it");
            return None;
        }
        let text = fs::read_to_string(&path).ok()?;
        Some(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
    }
}
