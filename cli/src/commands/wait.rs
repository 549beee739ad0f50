//! `mycli wait`: waits for a run's end and exits with its exit code.

use clap::Args;

use crate::{
    client::Client,
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    runs::follow::{self, FollowEnd},
    terminal::output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli wait exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9
  mycli wait 7XQ9 && ./deploy.sh
  mycli wait 7XQ9 -o json             the final record

Exit code: the same as exec.";

/// The command line of `wait`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wait {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN
    #[arg(add = values::runs())]
    id: String,
}

impl Wait {
    /// Runs `mycli wait` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let ended = self.wait(context, &client).await;
        client.close(&context.screen).await;
        ended
    }

    async fn wait(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let id = client.resolve(Some(&self.id)).await?;
        let waiting = follow::until_final(client, &id, &context.screen);
        match follow::attended(client, &id, &context.screen, waiting).await? {
            FollowEnd::Final(got) => {
                if context.is_json() {
                    output::json(context, &got.answer)?;
                }
                Ok(output::verdict(context, &got.value))
            }
            FollowEnd::Detached => Ok(exit::UNKNOWN),
        }
    }
}
