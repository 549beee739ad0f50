//! `mycli destroy`: removes a stack and all that belongs to it.

use clap::Args;
use deploy::{
    activity,
    remove::{self, Removed},
    stack::{Condition, StackView},
};

use crate::{
    config,
    context::Context,
    exit,
    failure::Failure,
    output,
    site::{AwsFlags, Site},
    telling::Telling,
    typed,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli destroy                       asks for the stack's name first
  mycli destroy --stack ci --yes
  mycli destroy --keep-history        the table with all records outlives the stack; the next init takes it up
  mycli destroy --force               also while runs are under way: their tasks are stopped

Removes the stack, its bucket, its task definitions and the values of its secrets, and
forgets it in ~/.mycli/config.yaml. Run again it removes what is left, a history that
was kept too.

Exit code: 0 once nothing is left, 1 if something is.";

/// The command line of `destroy`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Destroy {
    /// Keep the table with the records
    #[arg(long)]
    keep_history: bool,
    /// Do not ask for the stack's name
    #[arg(long, short)]
    yes: bool,
    /// Even if runs wait or are under way; they are stopped
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Destroy {
    /// Runs it.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let site = self.aws.open(context).await?;
        let stack = site.find().await?;
        self.look_first(context, &site, stack.as_ref()).await?;
        self.confirm(context, &site)?;
        let telling = Telling::on(&context.screen);
        let removed =
            remove::remove(&site.account, &site.name, self.keep_history, &|progress| telling.tell(progress)).await;
        context.screen.no_progress();
        let removed = removed?;
        if context.settings()?.stacks.contains_key(&site.name) {
            config::change(context, |settings| {
                settings.stacks.remove(&site.name);
                settings.stack.take_if(|used| *used == site.name);
            })?;
        }
        self.report(context, &site, removed)?;
        Ok(exit::SUCCESS)
    }

    /// Work under way is not thrown away by the way.
    async fn look_first(&self, context: &Context, site: &Site, stack: Option<&StackView>) -> Result<(), Failure> {
        let Some(stack) = stack.filter(|stack| stack.condition() == Condition::Stands) else { return Ok(()) };
        if self.force {
            return Ok(());
        }
        let activity = activity::look(&site.account, stack).await?;
        if activity.is_idle() {
            return Ok(());
        }
        context.screen.no_progress();
        Err(Failure::UnderWay { words: activity.words(), command: site.command("history --status running") })
    }

    fn confirm(&self, context: &Context, site: &Site) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !typed::can_ask() {
            return Err(Failure::Usage(
                "nobody can be asked here: give --yes to remove the stack without a question".into(),
            ));
        }
        let history = if self.keep_history { "its history is kept" } else { "its history too" };
        let question = format!(
            "removing the stack {} in {}, {history}. Type its name, {}, to go on:",
            site.name.full(),
            site.place(),
            site.name
        );
        if typed::answer(context, &question)? == site.name.as_str() {
            return Ok(());
        }
        Err(Failure::Nothing("that is not its name: nothing was removed".into()))
    }

    fn report(&self, context: &Context, site: &Site, removed: Removed) -> Result<(), Failure> {
        if context.is_json() {
            let line = serde_json::json!({
                "stack": site.name, "removed": removed.stack, "tasks_stopped": removed.tasks, "secrets": removed.secrets,
                "task_definitions": removed.definitions, "history_kept": self.keep_history.then(|| site.name.table())
            });
            return output::text(context, &format!("{line}\n"));
        }
        let name = site.name.full();
        let text = match removed.stack || removed.bucket || removed.kept_table {
            true if self.keep_history => {
                let table = site.name.table();
                format!(
                    "removed {name}; its history stays in the table {table}, and the next `{}` takes it up",
                    site.command("init")
                )
            }
            true => format!("removed {name}"),
            false => format!("there was nothing left of {name}"),
        };
        context.screen.say(&text);
        Ok(())
    }
}
