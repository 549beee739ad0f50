//! Where mycli keeps the user's files.

use std::path::{Path, PathBuf};

use crate::{failure::Failure, variables::HOME};

/// The folder `~/.mycli`, or the one that `MYCLI_HOME` names. Unset if neither is known.
#[derive(Clone, Debug)]
pub(crate) struct Home(Option<PathBuf>);

impl Home {
    /// Reads `MYCLI_HOME` and `HOME`, and asks for the user's home directory. It never falls back
    /// to the working directory: another user's files there would be taken for this user's
    /// settings.
    pub(crate) fn find() -> Self {
        let named = std::env::var_os(HOME)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let own = || {
            std::env::home_dir()
                .filter(|home| home.is_absolute())
                .map(|home| home.join(".mycli"))
        };
        Self(named.or_else(own))
    }

    /// The path of the configuration file, with endpoints and keys.
    ///
    /// # Errors
    /// The user has no home directory.
    pub(crate) fn config(&self) -> Result<PathBuf, Failure> {
        Ok(self.folder()?.join("config.yaml"))
    }

    /// The folder with this machine's history, queue and logs.
    ///
    /// # Errors
    /// The same as for [`Self::config`].
    pub(crate) fn local(&self) -> Result<PathBuf, Failure> {
        Ok(self.folder()?.join("local"))
    }

    fn folder(&self) -> Result<&Path, Failure> {
        self.0.as_deref().ok_or_else(|| {
            let message = "this user has no home directory (HOME is not set to one): set MYCLI_HOME to the folder where mycli may keep \
                           settings and history";
            Failure::Usage(message.into())
        })
    }
}
