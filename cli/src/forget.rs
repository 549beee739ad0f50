//! `mycli forget`: removes a record that cannot be read.

use clap::Args;
use deploy::forget::{self, Records, Unreadable};
use domain::forget::Forgotten;

use crate::{
    context::{Context, local_options},
    exit,
    failure::Failure,
    local::Machine,
    output,
    site::AwsFlags,
    typed,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli forget 7XQ9                   asks first; with the account's AWS credentials
  mycli --local forget 7XQ9 --yes     of this machine's history
  mycli forget 7XQ9 --yes -o json | jq -r '.task_arn // empty'

history shows such a record as UNREADABLE, and doctor says why. A newer mycli may read it
(mycli upgrade): forget it only if none does. What it holds is given back: its lock, and
its place of a group, at once; a stack's vCPUs by the sweep. What it does not tell is
said. A task that still runs is stopped on one machine; on a stack it is named, with the
command that stops it.

Exit code: 0 once it is removed, 1 if it is not: there is none, or it can be read.";

/// The command line of `forget`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Forget {
    /// Which record: its id, or a unique beginning or end of it
    id: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Forget {
    /// Runs it.
    ///
    /// # Errors
    /// The store's; no such record; one that can be read.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.id.trim().trim_matches('.').is_empty() {
            return Err(Failure::Usage(format!("`{}` is no id: give a run's id, or a part of it", self.id)));
        }
        if context.global.local { self.here(context).await } else { self.on_a_stack(context).await }
    }

    async fn here(&self, context: &Context) -> Result<u8, Failure> {
        let machine = Machine::open(local_options(context.home.local()?, false)).await?;
        let forgotten = self.of_machine(context, &machine).await;
        if let Err(error) = machine.close().await {
            context.screen.say(&format!("failed to close this machine's history: {error}"));
        }
        let forgotten = forgotten?;
        let task = forgotten.task_arn.as_ref().map(|arn| format!("its task is being stopped: {arn}"));
        report(context, &forgotten, task.as_deref())
    }

    async fn of_machine(&self, context: &Context, machine: &Machine) -> Result<Forgotten, Failure> {
        let found = machine.unreadable(&self.id).await?;
        self.confirm(context, &found)?;
        Ok(machine.forget(&found.id).await?)
    }

    async fn on_a_stack(&self, context: &Context) -> Result<u8, Failure> {
        let site = self.aws.open(context).await?;
        let stack = site.stack().await?;
        let records = Records::of(&site.account, &stack);
        let found = records.unreadable(&self.id).await?;
        self.confirm(context, &found)?;
        let forgotten = records.forget(&found.id).await?;
        let task = forgotten.task_arn.as_ref().map(|arn| {
            let how = forget::how_to_stop(arn).unwrap_or_else(|| format!("stop the task {arn}"));
            format!("its task may still run, and nothing looks after it any more. To stop it: {how}")
        });
        report(context, &forgotten, task.as_deref())
    }

    fn confirm(&self, context: &Context, found: &Unreadable) -> Result<(), Failure> {
        if self.yes || !typed::can_ask() {
            return Ok(());
        }
        let Unreadable { id, why } = found;
        let question = format!("{id} cannot be read: {why}. Remove it? It cannot be brought back");
        if typed::agreed(context, &question)? {
            return Ok(());
        }
        Err(Failure::Nothing("nothing was removed".into()))
    }
}

fn report(context: &Context, forgotten: &Forgotten, task: Option<&str>) -> Result<u8, Failure> {
    let Forgotten { id, released, untold, task_arn } = forgotten;
    let released: Vec<_> = released.iter().map(ToString::to_string).collect();
    let untold: Vec<_> = untold.iter().map(ToString::to_string).collect();
    if context.is_json() {
        let json = serde_json::json!({
            "forgotten": id, "released": released, "untold": untold, "task_arn": task_arn
        });
        output::text(context, &format!("{json}\n"))?;
        return Ok(exit::SUCCESS);
    }
    context.screen.say(&format!("removed the record of {id}"));
    if !released.is_empty() {
        context.screen.say(&format!("free again: {}", released.join(", ")));
    }
    untold.iter().map(String::as_str).chain(task).for_each(|words| context.screen.say(words));
    Ok(exit::SUCCESS)
}
