//! `mycli completions`: completion scripts for shells.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{config::context::Context, exit, failure::Failure, terminal::output};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli completions bash > ~/.local/share/bash-completion/completions/mycli
  mycli completions zsh > \"${fpath[1]}/_mycli\"
  mycli completions fish > ~/.config/fish/completions/mycli.fish";

/// The command line of `completions`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    /// Runs `mycli completions` and returns the exit code. `mycli` is the whole command line.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn run(&self, context: &Context, mut mycli: Command) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut mycli, "mycli", &mut script);
        output::text(context, &String::from_utf8_lossy(&script))?;
        Ok(exit::SUCCESS)
    }
}
