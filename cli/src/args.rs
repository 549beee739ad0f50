//! The command line.

use std::pin::Pin;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    commands::{
        artifacts::{self, ArtifactsArgs},
        bulk::{self, Bulk},
        cancel::{self, CancelArgs},
        completions::{self, Completions},
        config::{self, ConfigArgs},
        dead_letters::{self, DeadLettersArgs},
        destroy::{self, Destroy},
        doctor::{self, Doctor},
        exec::{self, Exec},
        forget::{self, Forget},
        history::{self, History},
        init::{self, Init},
        keys::{self, KeysArgs},
        logs::{self, LogsArgs},
        man::{self, Man},
        one_machine::{self, OneMachine},
        rerun::{self, RerunArgs},
        secrets::{self, SecretsArgs},
        stats::{self, Stats},
        status::{self, Status},
        upgrade::{self, Upgrade},
        wait::{self, Wait},
        whoami::{self, WhoamiArgs},
    },
    config::context::{Context, Global},
    exit,
    failure::Failure,
};

const EXAMPLES: &str = "\
Examples:
  mycli --local exec --no-repo 'echo hello'   on this machine, with no account
  mycli exec 'terraform plan'                 on your stack, on a fresh clone of
                                              this repository's origin
  mycli history                               the latest runs
  mycli logs -f                               your latest run's log, to its end
  mycli init                                  make such a stack in your AWS account

Commands go to the first of these that is given: --local, --endpoint URL or --stack NAME,
MYCLI_ENDPOINT, MYCLI_STACK, ~/.mycli/config.yaml (see mycli config). The key comes from
MYCLI_API_KEY, or else from that file. MYCLI_HOME moves ~/.mycli. MYCLI_LOG filters the
messages of -v.

Exit codes: exec, rerun, wait and logs -f exit with the command's own code, or with 124
if it timed out, 125 if it never ran, was lost, or mycli failed, 130 if it was cancelled.
All other commands exit with 0, or with 1 if they fail. Wrong usage exits with 2.";

/// Run a command, in any image, on a fresh clone of a git repository; follow it, and find it again
#[derive(Parser, Clone, Debug)]
#[command(name = "mycli", version, after_help = EXAMPLES, max_term_width = 120, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Verb {
    /// Run a command and exit with its exit code
    #[command(after_help = exec::EXAMPLES)]
    Exec(Box<Exec>),
    /// Run many commands as one submission
    #[command(after_help = bulk::EXAMPLES)]
    Bulk(Box<Bulk>),
    /// Show the details of a run, or the state of a group
    #[command(after_help = status::EXAMPLES)]
    Status(Status),
    /// Wait for a run's end and exit with its exit code
    #[command(after_help = wait::EXAMPLES)]
    Wait(Wait),
    /// Show a run's log
    #[command(after_help = logs::EXAMPLES)]
    Logs(LogsArgs),
    /// List and get the files that a run left
    #[command(after_help = artifacts::EXAMPLES)]
    Artifacts(ArtifactsArgs),
    /// Cancel a run, or all runs of a group
    #[command(after_help = cancel::EXAMPLES)]
    Cancel(CancelArgs),
    /// Repeat a run, with the same or other settings, or repeat all failed runs of a group
    #[command(after_help = rerun::EXAMPLES)]
    Rerun(Box<RerunArgs>),
    /// List runs, newest first
    #[command(after_help = history::EXAMPLES)]
    History(History),
    /// Show how many runs ended, how long they took, and what they cost
    #[command(after_help = stats::EXAMPLES)]
    Stats(Stats),
    /// Make a stack in your AWS account, or repair it
    #[command(after_help = init::EXAMPLES)]
    Init(Box<Init>),
    /// Upgrade a stack to this version of mycli
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(Box<Upgrade>),
    /// Remove a stack and all that belongs to it
    #[command(after_help = destroy::EXAMPLES)]
    Destroy(Destroy),
    /// Find out what is wrong with a stack
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// Show your name, principal and role in this installation
    #[command(after_help = whoami::EXAMPLES)]
    Whoami(WhoamiArgs),
    /// Make, list, rotate and revoke API keys
    #[command(after_help = keys::EXAMPLES)]
    Keys(KeysArgs),
    /// Set, list and remove secrets, which runs use by name
    #[command(after_help = secrets::EXAMPLES)]
    Secrets(SecretsArgs),
    /// List messages that could not be processed, and send them again
    #[command(after_help = dead_letters::EXAMPLES)]
    DeadLetters(DeadLettersArgs),
    /// Remove a record that cannot be read, and free the limits that it holds
    #[command(after_help = forget::EXAMPLES)]
    Forget(Forget),
    /// Show or change the endpoints and keys
    #[command(after_help = config::EXAMPLES)]
    Config(ConfigArgs),
    /// Serve the API on this machine; clean up its history
    #[command(after_help = one_machine::EXAMPLES)]
    Local(OneMachine),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(Completions),
    /// Write the manual pages into a folder (for packagers)
    #[command(hide = true, after_help = man::EXAMPLES)]
    Man(Man),
}

impl Verb {
    /// The exit code when mycli fails. Commands that pass on a run's exit code use a separate one,
    /// so that the two can be told apart.
    pub(crate) fn failure_code(&self) -> u8 {
        match self {
            Self::Rerun(rerun) if rerun.is_of_a_group() => exit::FAILURE,
            Self::Exec(_) | Self::Rerun(_) | Self::Wait(_) => exit::UNKNOWN,
            Self::Logs(logs) if logs.follow => exit::UNKNOWN,
            _ => exit::FAILURE,
        }
    }

    /// The example to show after `mycli --local` to a first-time user.
    pub(crate) fn example(&self) -> &'static str {
        match self {
            Self::Bulk(_) => "bulk --no-repo jobs.jsonl",
            Self::Status(_) => "status",
            Self::History(_) => "history",
            Self::Stats(_) => "stats",
            Self::Logs(_) => "logs",
            Self::Artifacts(_) => "artifacts list",
            _ => "exec --no-repo 'echo hello'",
        }
    }

    /// Whether the command needs more than one thread.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Local(verb) => verb.is_busy(),
            Self::Bulk(_) => true,
            _ => false,
        }
    }

    /// The level from which the command logs without `--verbose`.
    pub(crate) fn log_level(&self) -> LevelFilter {
        match self {
            Self::Local(verb) => verb.log_level(),
            _ => LevelFilter::OFF,
        }
    }

    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// Anything that ends the command early.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        // On the heap, because together they are as large as the largest.
        let ended: Pin<Box<dyn Future<Output = Result<u8, Failure>> + '_>> = match self {
            Self::Exec(verb) => Box::pin(verb.run(context)),
            Self::Bulk(verb) => Box::pin(verb.run(context)),
            Self::Status(verb) => Box::pin(verb.run(context)),
            Self::Wait(verb) => Box::pin(verb.run(context)),
            Self::Logs(verb) => Box::pin(verb.run(context)),
            Self::Artifacts(verb) => Box::pin(verb.run(context)),
            Self::Cancel(verb) => Box::pin(verb.run(context)),
            Self::Rerun(verb) => Box::pin(verb.run(context)),
            Self::Stats(verb) => Box::pin(verb.run(context)),
            Self::History(verb) => Box::pin(verb.run(context)),
            Self::Init(verb) => Box::pin(verb.run(context)),
            Self::Upgrade(verb) => Box::pin(verb.run(context)),
            Self::Destroy(verb) => Box::pin(verb.run(context)),
            Self::Doctor(verb) => Box::pin(verb.run(context)),
            Self::Whoami(verb) => Box::pin(verb.run(context)),
            Self::Keys(verb) => Box::pin(verb.run(context)),
            Self::Secrets(verb) => Box::pin(verb.run(context)),
            Self::DeadLetters(verb) => Box::pin(verb.run(context)),
            Self::Forget(verb) => Box::pin(verb.run(context)),
            Self::Config(verb) => return verb.run(context),
            Self::Local(verb) => Box::pin(verb.run(context)),
            Self::Completions(verb) => return verb.run(context),
            Self::Man(verb) => return verb.run(context, Cli::command()),
        };
        ended.await
    }
}
