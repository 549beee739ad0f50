//! `mycli completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args::Cli, context::Context, exit, failure::Failure, output};

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
    /// Runs `mycli completions` and returns the exit code.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn run(&self, context: &Context) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mycli", &mut script);
        output::text(context, &String::from_utf8_lossy(&script))?;
        Ok(exit::SUCCESS)
    }
}
