//! `mycli man`: the manual pages, one for each command. A release has them.

use std::{fs, path::PathBuf};

use clap::{Args, Command};

use crate::{config::context::Context, exit, failure::Failure};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli man ~/.local/share/man/man1     then: man mycli-exec";

/// The command line of `man`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Man {
    /// The folder; made if missing
    folder: PathBuf,
}

impl Man {
    /// Runs `mycli man` and returns the exit code. `mycli` is the whole command line.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn run(&self, context: &Context, mycli: Command) -> Result<u8, Failure> {
        let failed = |error| Failure::file(&self.folder, &error);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        clap_mangen::generate_to(mycli, &self.folder).map_err(failed)?;
        context.screen.say(&format!(
            "wrote the manual pages to {}",
            self.folder.display()
        ));
        Ok(exit::SUCCESS)
    }
}
