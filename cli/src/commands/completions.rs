//! `mycli completions`: completion scripts for shells. A script calls mycli back at each TAB, so
//! that values are completed too: the ids of runs, groups, keys, stacks.

use clap::{Args, Command};
use clap_complete::{Shell, env::CompleteEnv, env::Shells};

use crate::{
    config::context::Context, exit, failure::Failure, terminal::output, variables::COMPLETE,
};

pub(crate) mod values;

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli completions bash     in ~/.bashrc:                  source <(mycli completions bash)
  mycli completions zsh      in ~/.zshrc, below compinit:   source <(mycli completions zsh)
  mycli completions fish     in ~/.config/fish/config.fish: mycli completions fish | source

The ids of recent runs, groups, names of keys and stacks are completed too: mycli asks your
stack for them, and gives up after a second. A script belongs to the mycli that printed it,
so let the shell ask for it at each start, as above.";

/// The name of the program, as it is on the user's path.
const PROGRAM: &str = "mycli";

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
        let (shells, name) = (Shells::builtins(), self.shell.to_string());
        let shell = shells
            .completer(&name)
            .ok_or_else(|| Failure::Other(format!("no completions are known for {name}")))?;
        let mut script = Vec::new();
        shell
            .write_registration(COMPLETE, PROGRAM, PROGRAM, PROGRAM, &mut script)
            .map_err(Failure::io("write the script"))?;
        output::text(context, &String::from_utf8_lossy(&script))?;
        Ok(exit::SUCCESS)
    }
}

/// Answers the shell and ends the process, if a completion script called. `mycli` is the whole
/// command line. Call this first, while there is only one thread.
pub(crate) fn answer_the_shell(mycli: fn() -> Command) {
    CompleteEnv::with_factory(mycli)
        .var(COMPLETE)
        .bin(PROGRAM)
        .complete();
}
