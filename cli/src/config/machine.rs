//! The settings of one machine that flags choose.

use clap::{Args, ValueEnum};

use crate::local::GitProgram;

/// How runs of this machine are carried out.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct MachineFlags {
    /// With --local: run in this machine's own shell, and ignore the image
    #[arg(long)]
    pub(crate) host: bool,
    /// With --local: clone with mycli's library, or with this system's git
    #[arg(long, value_enum, value_name = "PROGRAM", default_value_t)]
    pub(crate) git: GitChoice,
}

/// The program that clones a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GitChoice {
    // Documented at the flag: a text here would make each help longer.
    #[default]
    Library,
    System,
}

impl From<GitChoice> for GitProgram {
    fn from(choice: GitChoice) -> Self {
        match choice {
            GitChoice::Library => Self::Library,
            GitChoice::System => Self::System,
        }
    }
}
