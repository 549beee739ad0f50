//! `mycli logs`: shows what a run has printed.

use clap::Args;
use domain::{Timestamp, execution::ExecutionStatus, id::ExecutionId};

use crate::{
    client::Client,
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    request::number::whole,
    runs::follow::{self, FollowEnd, Show},
    terminal::{
        moment, output,
        screen::{Stream, one_line},
    },
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli logs                          the log of your latest run
  mycli logs 7XQ9 -f --tail 20        the last 20 lines, then each new one until the run ends
  mycli logs 7XQ9 --since 5m --timestamps
  mycli logs 7XQ9 -o json             one {\"at\",\"text\"} a line

Exit code: 0, or 1 if there is no log to show; with -f the same as exec.";

/// The largest `--tail`. We chose a limit because the lines are kept in memory while the log is
/// read to its end.
const TAIL_MAX: usize = 10_000_000;

/// The command line of `logs`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogsArgs {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    #[arg(add = values::runs())]
    id: Option<String>,
    /// Follow the log until the run ends, and exit with the run's exit code
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines so far
    #[arg(long, value_name = "N", value_parser = whole(0..=TAIL_MAX))]
    tail: Option<usize>,
    /// Only lines since then: 30m, 2h, a date, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment::since)]
    since: Option<Timestamp>,
    /// Show the time of each line
    #[arg(long)]
    timestamps: bool,
}

impl LogsArgs {
    /// Runs `mycli logs` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let ended = self.show(context, &client).await;
        client.close(&context.screen).await;
        ended
    }

    async fn show(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let run = client.find(self.id.as_deref()).await?.value;
        let id = run.execution_id.clone();
        let has_log = run
            .attempts
            .iter()
            .any(|attempt| attempt.log_stream.is_some());
        let pending = !has_log && !run.is_over() && run.status != ExecutionStatus::Running;
        if pending {
            context.screen.say(&format!(
                "{id} has not started, so it has no log yet. It is {}",
                follow::progress(&run)
            ));
        }
        if self.follow {
            return self.follow(context, client, &id).await;
        }
        if !has_log && run.is_over() && run.started_at.is_none() {
            let reason = run
                .reason
                .map(|reason| format!(": {}", one_line(&reason, usize::MAX)))
                .unwrap_or_default();
            return Err(Failure::Nothing(format!(
                "{id} never started, so it has no log. It is {}{reason}",
                run.status
            )));
        }
        follow::so_far(client, &id, self.what(context), &context.screen).await?;
        Ok(if pending {
            exit::FAILURE
        } else {
            exit::SUCCESS
        })
    }

    async fn follow(
        &self,
        context: &Context,
        client: &Client,
        id: &ExecutionId,
    ) -> Result<u8, Failure> {
        let following = follow::to_the_end(client, id, self.what(context), &context.screen);
        tokio::select! {
            ended = follow::attended(client, id, &context.screen, following) => match ended? {
                FollowEnd::Final(got) => Ok(output::verdict(context, &got.value)),
                FollowEnd::Detached => Ok(exit::UNKNOWN),
            },
            // The reader of the log has gone away, as `head` does. There is nobody left to follow
            // for.
            () = context.screen.closing() => Ok(exit::SUCCESS),
        }
    }

    fn what(&self, context: &Context) -> Show {
        Show {
            tail: self.tail,
            since: self.since,
            timestamps: self.timestamps,
            json: context.is_json(),
            to: Stream::Out,
        }
    }
}
