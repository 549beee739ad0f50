//! `mycli destroy`: removes a stack and all that belongs to it.

use clap::Args;
use deploy::{
    activity,
    remove::{self, Removed},
    stack::{StackCondition, StackView},
};

use crate::{
    commands::config,
    config::{
        context::Context,
        target::{AwsFlags, Target},
    },
    exit,
    failure::Failure,
    terminal::{output, progress::ProgressPrinter, prompt},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli destroy                       asks for the stack's name first
  mycli destroy --stack ci --yes
  mycli destroy --keep-history        the table with all records stays; the next init uses it again
  mycli destroy --force               also while runs are under way: their tasks are stopped

Removes the stack, its bucket, its images, its task definitions, the values of its secrets,
and its entry in ~/.mycli/config.yaml. A second destroy removes whatever is left, including a
history that was kept.

Exit code: 0 once nothing is left, 1 if something is left.";

/// The command line of `destroy`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Destroy {
    /// Keep the table with the records
    #[arg(long)]
    keep_history: bool,
    /// Do not ask for the stack's name
    #[arg(long, short)]
    yes: bool,
    /// Remove the stack even if runs wait or are under way; they are stopped
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Destroy {
    /// Runs `mycli destroy` and returns the exit code.
    ///
    /// # Errors
    /// Anything that prevents the removal.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let target = self.aws.open(context).await?;
        let stack = target.find().await?;
        self.look_first(context, &target, stack.as_ref()).await?;
        self.confirm(context, &target)?;
        let printer = ProgressPrinter::on(&context.screen);
        let removed = remove::remove(
            &target.account,
            &target.name,
            self.keep_history,
            &|progress| printer.tell(progress),
        )
        .await;
        context.screen.no_progress();
        let removed = removed?;
        if context.settings()?.stacks.contains_key(&target.name) {
            config::change(context, |settings| {
                settings.stacks.remove(&target.name);
                settings.stack.take_if(|used| *used == target.name);
            })?;
        }
        self.report(context, &target, removed)?;
        Ok(exit::SUCCESS)
    }

    /// Refuses if runs are under way, unless `--force` is given.
    async fn look_first(
        &self,
        context: &Context,
        target: &Target,
        stack: Option<&StackView>,
    ) -> Result<(), Failure> {
        let Some(stack) = stack.filter(|stack| stack.condition() == StackCondition::Stands) else {
            return Ok(());
        };
        if self.force {
            return Ok(());
        }
        let activity = activity::look(&target.account, stack).await?;
        if activity.is_idle() {
            return Ok(());
        }
        context.screen.no_progress();
        Err(Failure::Other(format!(
            "the stack is in use: {}. Wait for the end ({}), or stop them all with --force",
            activity.words(),
            target.command("history --status running")
        )))
    }

    fn confirm(&self, context: &Context, target: &Target) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !prompt::can_ask() {
            return Err(Failure::Usage(
                "there is no terminal here: give --yes to remove the stack without a question"
                    .into(),
            ));
        }
        let history = if self.keep_history {
            "its history is kept"
        } else {
            "its history too"
        };
        let question = format!(
            "removing the stack {} in {}, {history}. Type its name, {}, to go on:",
            target.name.full(),
            target.place(),
            target.name
        );
        if prompt::answer(context, &question)? == target.name.as_str() {
            return Ok(());
        }
        Err(Failure::Nothing(
            "that is not its name: nothing was removed".into(),
        ))
    }

    fn report(&self, context: &Context, target: &Target, removed: Removed) -> Result<(), Failure> {
        if context.is_json() {
            let line = serde_json::json!({
                "stack": target.name, "removed": removed.stack, "tasks_stopped": removed.tasks, "secrets": removed.secrets,
                "task_definitions": removed.definitions, "history_kept": self.keep_history.then(|| target.name.table())
            });
            return output::text(context, &format!("{line}\n"));
        }
        let name = target.name.full();
        let text = match removed.stack || removed.bucket || removed.repository || removed.kept_table
        {
            true if self.keep_history => {
                let table = target.name.table();
                format!(
                    "removed {name}; its history stays in the table {table}, and the next `{}` reuses it",
                    target.command("init")
                )
            }
            true => format!("removed {name}"),
            false => format!("there was nothing left of {name}"),
        };
        context.screen.say(&text);
        Ok(())
    }
}
