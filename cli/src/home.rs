//! Where mycli keeps what is the user's.

use std::path::PathBuf;

/// The folder `~/.mycli`, or what `MYCLI_HOME` names.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Reads `MYCLI_HOME` and `HOME`. Without either it is below the working directory, as good as any other place.
    pub(crate) fn find() -> Self {
        let named = std::env::var_os("MYCLI_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        Self(named.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".mycli")))
    }

    /// Endpoint and key.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.yaml")
    }

    /// History, queue and logs of this machine.
    pub(crate) fn local(&self) -> PathBuf {
        self.0.join("local")
    }
}
