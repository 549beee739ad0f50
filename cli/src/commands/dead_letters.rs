//! `mycli dead-letters`: messages that could not be processed.

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use deploy::dead_letters::{DeadLetter, DeadLetters as Queues, DeadQueue, Redriven};

use crate::{
    config::{context::Context, target::AwsFlags},
    exit,
    failure::Failure,
    request::number::whole,
    terminal::{moment, output},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli dead-letters list
  mycli dead-letters redrive                   all of them, once the cause is fixed
  mycli dead-letters redrive --queue launch
  mycli dead-letters list -o json | jq -r '.dead_letters[].execution_id'

A message that failed five times is a dead letter. It is kept for 14 days. A redrive is
harmless: work that was done meanwhile is not done again. An event is not repeated:
mycli looks up the current state instead.

Exit code: 0, or 1 if the queues cannot be used or a message could not be moved.";

/// The command line of `dead-letters`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// List the dead letters, and leave them where they are
    #[command(after_help = EXAMPLES)]
    List {
        /// Only dead letters of this queue
        #[arg(long, value_enum)]
        queue: Option<QueueArg>,
        /// Show at most this many of each queue
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole(1..=1_000_000_usize))]
        limit: usize,
        #[command(flatten)]
        aws: AwsFlags,
    },
    /// Process the dead letters again
    #[command(after_help = EXAMPLES)]
    Redrive {
        /// Only dead letters of this queue
        #[arg(long, value_enum)]
        queue: Option<QueueArg>,
        #[command(flatten)]
        aws: AwsFlags,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QueueArg {
    /// Starting runs
    Launch,
    /// Cancelling and checking runs
    Control,
    /// Events for the state tracker
    Events,
}

fn queues(name: Option<QueueArg>) -> Vec<DeadQueue> {
    match name {
        None => DeadQueue::ALL.to_vec(),
        Some(QueueArg::Launch) => vec![DeadQueue::Launch],
        Some(QueueArg::Control) => vec![DeadQueue::Control],
        Some(QueueArg::Events) => vec![DeadQueue::Events],
    }
}

impl DeadLettersArgs {
    /// Runs `mycli dead-letters` and returns the exit code.
    ///
    /// # Errors
    /// The queues cannot be used.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self.action {
            Action::List { queue, limit, aws } => list(context, &aws, &queues(queue), limit).await,
            Action::Redrive { queue, aws } => redrive(context, &aws, &queues(queue)).await,
        }
    }
}

async fn list(
    context: &Context,
    aws: &AwsFlags,
    queues: &[DeadQueue],
    limit: usize,
) -> Result<u8, Failure> {
    let target = aws.open(context).await?;
    let stack = target.stack().await?;
    let mut letters = Vec::new();
    for queue in queues {
        letters.extend(
            Queues::new(&target.account, &stack)
                .list(*queue, limit)
                .await?,
        );
    }
    if context.is_json() {
        let one = |letter: &DeadLetter| {
            serde_json::json!({
                "queue": letter.queue.as_str(), "message_id": letter.id, "sent_at": letter.sent_at.map(moment::exact),
                "about": letter.about, "execution_id": letter.execution
            })
        };
        let all: Vec<_> = letters.iter().map(one).collect();
        output::text(
            context,
            &format!("{}\n", serde_json::json!({ "dead_letters": all })),
        )?;
    } else if letters.is_empty() {
        context.screen.say("no dead letters");
    } else {
        output::text(context, &table(&letters))?;
    }
    Ok(exit::SUCCESS)
}

fn table(letters: &[DeadLetter]) -> String {
    let row = |letter: &DeadLetter| {
        let age = letter
            .sent_at
            .map(|at| moment::short(Utc::now() - at))
            .unwrap_or_default();
        let execution = letter
            .execution
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        format!(
            "{:<7}  {age:>4}  {execution:<31}  {}\n",
            letter.queue.as_str(),
            letter.about
        )
    };
    let head = format!(
        "{:<7}  {:>4}  {:<31}  {}\n",
        "QUEUE", "AGE", "EXECUTION", "ABOUT"
    );
    std::iter::once(head)
        .chain(letters.iter().map(row))
        .collect()
}

async fn redrive(context: &Context, aws: &AwsFlags, queues: &[DeadQueue]) -> Result<u8, Failure> {
    let target = aws.open(context).await?;
    let stack = target.stack().await?;
    let mut all = Vec::new();
    for queue in queues {
        let redriven = Queues::new(&target.account, &stack).redrive(*queue).await?;
        if !context.is_json() {
            context
                .screen
                .say(&format!("{}: {}", queue.as_str(), words(redriven)));
        }
        all.push((*queue, redriven));
    }
    if context.is_json() {
        let one = |(queue, redriven): &(DeadQueue, Redriven)| {
            serde_json::json!({
                "queue": queue.as_str(), "moved": redriven.moved, "outlived": redriven.outlived, "left": redriven.left
            })
        };
        let all: Vec<_> = all.iter().map(one).collect();
        output::text(
            context,
            &format!("{}\n", serde_json::json!({ "queues": all })),
        )?;
    }
    let left = all.iter().any(|(_, redriven)| redriven.left > 0);
    Ok(if left { exit::FAILURE } else { exit::SUCCESS })
}

fn words(redriven: Redriven) -> String {
    let outlived = (redriven.outlived > 0).then(|| {
        format!(
            "{} removed, because the sweep has already done the work",
            redriven.outlived
        )
    });
    let left = (redriven.left > 0).then(|| {
        format!(
            "{} left, because they cannot be repeated (see `mycli dead-letters list`)",
            redriven.left
        )
    });
    let moved = (redriven.moved > 0 || (outlived.is_none() && left.is_none()))
        .then(|| format!("{} moved", redriven.moved));
    moved
        .into_iter()
        .chain(outlived)
        .chain(left)
        .collect::<Vec<_>>()
        .join("; ")
}
