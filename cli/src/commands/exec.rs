//! `mycli exec`: runs one command and exits with its exit code.

use clap::{Args, ValueHint};

use crate::{
    client::Client,
    config::context::Context,
    failure::Failure,
    request::{
        draft::RunDraft,
        flags::{LaunchFlags, RunFlags},
    },
    runs::launch,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli exec 'terraform plan'           on a fresh clone of this repository's origin
  mycli exec --image node:22 -- npm test -- --watch=false
  mycli exec --repo https://github.com/me/infra --branch v2 'make deploy'
  mycli exec --local --no-repo 'echo hello'      on this machine, with no account
  mycli exec --no-repo -e STAGE --env-file .env --timeout 10m './migrate.sh'
  mycli exec --artifact 'dist/**' --artifacts-to . 'make dist'     keeps files, and gets them
  id=$(mycli exec --detach 'make nightly')       follow it with: mycli logs -f $id

--env-file is read as docker run reads it: quotes are part of a value, and a value is one
line. Give a value of several lines with -e NAME=\"$(cat FILE)\", or as a secret.

Precedence, highest first: flags, .mycli.yaml, the git origin (for the repository and the
branch). The file .mycli.yaml is the one here, or in the nearest folder above within the
git repository.

Exit code: the command's own, or 124 if it timed out, 125 if it never ran, was lost, or
mycli failed, 130 if it was cancelled, 2 for wrong usage. Ctrl-C asks whether to cancel
the run or to leave it running. Without a terminal, the run is left running.";

/// The command line of `exec`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Exec {
    /// Shell text, as one argument
    #[arg(
        value_name = "COMMAND",
        value_hint = ValueHint::AnyPath,
        required_unless_present = "argv",
        conflicts_with = "argv"
    )]
    command: Vec<String>,
    /// A program and its arguments, run as they are and without a shell
    #[arg(last = true, value_name = "ARGV", value_hint = ValueHint::AnyPath)]
    argv: Vec<String>,
    #[command(flatten)]
    launch: LaunchFlags,
    #[command(flatten)]
    run: RunFlags,
}

impl Exec {
    /// Runs `mycli exec` and returns the exit code.
    ///
    /// # Errors
    /// Every failure except the run's own.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let command = launch::command_line(&self.command, &self.argv)?;
        let draft = RunDraft::gather(command, &self.run, context.global.local, &context.screen);
        if self.launch.dry_run {
            let draft = draft.await?;
            return launch::dry_run(context, &draft.request)
                .map_err(|error| launch::placed(error, |faults| draft.placed(faults)));
        }
        // The client comes first, so that a first-time user is told what is missing before git or
        // the network is asked anything.
        let client = context.client(self.launch.machine).await?;
        let ended = self.submit(context, &client, draft.await).await;
        client.close(&context.screen).await;
        ended
    }

    async fn submit(
        &self,
        context: &Context,
        client: &Client,
        draft: Result<RunDraft, Failure>,
    ) -> Result<u8, Failure> {
        let draft = draft?;
        let ended = launch::run(context, client, draft.request.clone(), &self.launch).await;
        ended.map_err(|error| launch::placed(error, |faults| draft.placed(faults)))
    }
}
