//! `mycli cancel`: asks a run to stop.

use clap::Args;
use domain::{api::ExecutionView, execution::ExecutionStatus};

use crate::{api::Got, client::Client, context::Context, exit, failure::Failure, follow, output};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli cancel 7XQ9                   waiting or running; a command that runs gets TERM, and KILL 10 s later
  mycli cancel 7XQ9 --wait            returns once it is over

Exit code: 0 once the stop is asked for (or the run was over already), 1 if it cannot be.";

/// The command line of `cancel`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cancel {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN
    id: String,
    /// Wait until it is over
    #[arg(long)]
    wait: bool,
}

impl Cancel {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(false).await?;
        let ended = self.cancel(context, &client).await;
        client.close(&context.screen).await;
        ended
    }

    async fn cancel(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let run = client.find(Some(&self.id)).await?;
        let id = run.value.execution_id.clone();
        if run.value.status.is_final() {
            context.screen.say(&format!("{id} was over already: {}", run.value.status));
            return self.report(context, &run);
        }
        client.cancel(&id).await?;
        context.screen.say(&format!("cancelling {id}: {}", consequence(&run.value)));
        let after = if self.wait {
            follow::until_final(client, &id, &context.screen).await?
        } else {
            client.execution(id.as_str()).await?
        };
        if self.wait {
            context.screen.say(&format!("{id} is {}", after.value.status));
        }
        self.report(context, &after)
    }

    fn report(&self, context: &Context, run: &Got<ExecutionView>) -> Result<u8, Failure> {
        if context.is_json() {
            output::json(context, &run.answer)?;
        }
        Ok(exit::SUCCESS)
    }
}

fn consequence(run: &ExecutionView) -> &'static str {
    match run.status {
        ExecutionStatus::Queued | ExecutionStatus::Waiting => "it will not start",
        ExecutionStatus::Launching => "its task is stopped as soon as it can be",
        _ => "its command gets TERM, and KILL after 10 s",
    }
}
