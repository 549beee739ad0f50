//! `mycli forget`: removes a record that cannot be read.

use clap::Args;
use deploy::forget::{Records, Unreadable};
use domain::forget::Forgotten;

use crate::{
    config::{
        context::{Context, local_options},
        machine::MachineFlags,
        target::AwsFlags,
    },
    exit,
    failure::Failure,
    local::Machine,
    terminal::{output, prompt},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli forget 7XQ9                   asks first; with the account's AWS credentials
  mycli --local forget 7XQ9 --yes     in this machine's history
  mycli forget 7XQ9 --yes -o json | jq -r '.released[]'

history shows such a record as UNREADABLE, and doctor says why. A newer mycli may be able
to read it (mycli upgrade), so try that first: a removed record cannot be brought back.

A task that still runs is stopped first. Then the lock and the group's place that the run
held are free; the vCPUs of a stack are free after the next sweep (one minute). If the
record does not say what the run held, forget prints that.

Exit code: 0 once it is removed, 1 if there is no such record or it can be read.";

/// The command line of `forget`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Forget {
    /// Which record: its id, or a unique beginning or end of it
    id: String,
    /// Do not ask before the record is removed
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Forget {
    /// Runs `mycli forget` and returns the exit code.
    ///
    /// # Errors
    /// The store's errors; there is no such record; or the record can be read.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.id.trim().trim_matches('.').is_empty() {
            return Err(Failure::Usage(format!(
                "`{}` is not an id: give a run's id, or a part of it",
                self.id
            )));
        }
        if context.global.endpoint.is_some() {
            let how = "a record cannot be removed through the API: use --local on its machine, or --stack with the credentials of its account";
            return Err(Failure::Usage(how.into()));
        }
        if context.global.local {
            self.here(context).await
        } else {
            self.on_a_stack(context).await
        }
    }

    async fn here(&self, context: &Context) -> Result<u8, Failure> {
        let machine = Machine::open(local_options(
            context.home.local()?,
            MachineFlags::default(),
        ))
        .await?;
        let forgotten = self.of_machine(context, &machine).await;
        if let Err(error) = machine.close().await {
            context
                .screen
                .say(&format!("failed to close this machine's history: {error}"));
        }
        let forgotten = forgotten?;
        report(context, &forgotten)
    }

    async fn of_machine(&self, context: &Context, machine: &Machine) -> Result<Forgotten, Failure> {
        let found = machine.unreadable(&self.id).await?;
        self.confirm(context, &found)?;
        Ok(machine.forget(&found.id).await?)
    }

    async fn on_a_stack(&self, context: &Context) -> Result<u8, Failure> {
        let target = self.aws.open(context).await?;
        let stack = target.stack().await?;
        let records = Records::of(&target.account, &stack);
        let found = records.unreadable(&self.id).await?;
        self.confirm(context, &found)?;
        let forgotten = records.forget(&found.id).await?;
        report(context, &forgotten)
    }

    fn confirm(&self, context: &Context, found: &Unreadable) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !prompt::can_ask() {
            let why =
                "there is no terminal here: give --yes to remove the record without a question";
            return Err(Failure::Usage(why.into()));
        }
        let Unreadable { id, why } = found;
        let question = format!(
            "{id} cannot be read: {why}. Remove it? A task that runs for it is stopped; the record cannot be brought back"
        );
        if prompt::agreed(context, &question)? {
            return Ok(());
        }
        Err(Failure::Nothing("nothing was removed".into()))
    }
}

fn report(context: &Context, forgotten: &Forgotten) -> Result<u8, Failure> {
    let Forgotten {
        id,
        released,
        untold,
        task_arn,
    } = forgotten;
    let released: Vec<_> = released.iter().map(ToString::to_string).collect();
    let untold: Vec<_> = untold.iter().map(ToString::to_string).collect();
    if context.is_json() {
        let json = serde_json::json!({
            "forgotten": id, "released": released, "untold": untold, "task_arn": task_arn
        });
        output::text(context, &format!("{json}\n"))?;
        return Ok(exit::SUCCESS);
    }
    if let Some(arn) = task_arn {
        context.screen.say(&format!("its task was stopped: {arn}"));
    }
    context.screen.say(&format!("removed the record of {id}"));
    if !released.is_empty() {
        context
            .screen
            .say(&format!("free again: {}", released.join(", ")));
    }
    untold.iter().for_each(|words| context.screen.say(words));
    Ok(exit::SUCCESS)
}
