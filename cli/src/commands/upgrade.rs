//! `mycli upgrade`: brings a stack to this version of mycli.

use clap::Args;

use crate::{
    commands::{
        config,
        rollout::{Rollout, VERSION},
    },
    config::{context::Context, target::AwsFlags},
    exit,
    failure::Failure,
    terminal::output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli upgrade                             the functions and the template of this mycli
  mycli upgrade --stack ci
  mycli upgrade --vcpus-spot 64             after the account's quota was raised
  mycli upgrade --parameter DefaultImage=alpine:3.20

Parameters keep their values unless they are given. Running tasks go on: a task does not
need the functions, and events that the functions miss meanwhile are sent again.

Exit code: 0 if the stack has this version, 1 if not.";

/// The command line of `upgrade`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    rollout: Rollout,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Upgrade {
    /// Runs `mycli upgrade` and returns the exit code.
    ///
    /// # Errors
    /// Anything that prevents the change.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let target = self.aws.open(context).await?;
        let functions = self.rollout.code()?;
        let before = target.stack().await?;
        let theirs = before.version().unwrap_or("unknown");
        context.screen.say(&format!(
            "{} in {}: version {theirs}; this mycli: {VERSION}",
            target.name.full(),
            target.place()
        ));
        let deployed = self
            .rollout
            .roll_out(context, &target, &functions, Some(&before))
            .await?;
        let endpoint = target
            .account
            .api_address(deployed.stack.output("Endpoint")?);
        if target
            .known
            .as_ref()
            .is_some_and(|known| known.endpoint.as_deref() != Some(endpoint.as_str()))
        {
            config::change(context, |settings| {
                settings
                    .stacks
                    .entry(target.name.clone())
                    .or_default()
                    .endpoint = Some(endpoint);
            })?;
        }
        if context.is_json() {
            let line = serde_json::json!({
                "stack": target.name, "version_before": deployed.version_before, "version": VERSION,
                "change": if deployed.change == deploy::install::StackChange::Nothing { "nothing" } else { "changed" },
                "status": deployed.stack.status
            });
            output::text(context, &format!("{line}\n"))?;
        }
        Ok(exit::SUCCESS)
    }
}
