//! `mycli doctor`: finds out what is wrong with a stack.

use clap::Args;
use deploy::doctor::{Check, CheckVerdict, Facts, judge};

use crate::{
    client::{Call, Client},
    commands::rollout::VERSION,
    config::{context::Context, machine::MachineFlags, target::AwsFlags},
    exit,
    failure::Failure,
    terminal::output,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli doctor
  mycli doctor --stack ci -o json | jq -r '.checks[] | select(.verdict == \"wrong\") | .fix'

Checks the credentials, the clock, the stack, the functions' version, the account's
quotas, dead letters, waiting and starting runs, the secrets, roles and users outside
the stack that can write into the logs of tasks, and whether the API accepts your key.
It changes nothing.

Exit code: 0 if nothing is wrong, 1 if something is. A warning is not a failure.";

/// The command line of `doctor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    aws: AwsFlags,
}

impl Doctor {
    /// Runs `mycli doctor` and returns the exit code.
    ///
    /// # Errors
    /// Standard output cannot be written, or the configuration cannot be used.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let facts = match self.aws.open(context).await {
            Ok(target) => {
                context.screen.progress("checking the stack");
                let mut facts = Facts::gather(&target.account, &target.name, VERSION).await;
                if target.known.is_some() {
                    facts.api = Some(api(context).await);
                }
                facts
            }
            Err(Failure::Account(error)) => {
                Facts::without_account(&context.stack()?, VERSION, error.to_string())
            }
            Err(other) => return Err(other),
        };
        context.screen.no_progress();
        let checks = judge(&facts);
        show(context, &checks)?;
        let wrong = checks
            .iter()
            .any(|check| check.verdict == CheckVerdict::Wrong);
        Ok(if wrong { exit::FAILURE } else { exit::SUCCESS })
    }
}

async fn api(context: &Context) -> Result<(), String> {
    let client = context
        .client(MachineFlags::default())
        .await
        .map_err(|error| error.to_string())?;
    let Client::Remote(_) = &client else {
        return Ok(());
    };
    client
        .call(Call::get("/executions?limit=1".into()))
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

fn show(context: &Context, checks: &[Check]) -> Result<(), Failure> {
    if context.is_json() {
        return output::text(
            context,
            &format!("{}\n", serde_json::json!({ "checks": checks })),
        );
    }
    let line = |check: &Check| {
        let word = match check.verdict {
            CheckVerdict::Ok => "ok",
            CheckVerdict::Warning => "warning",
            CheckVerdict::Wrong => "WRONG",
            CheckVerdict::Unknown => "?",
        };
        let fix = check
            .fix
            .as_deref()
            .map(|fix| format!("{:25}fix: {fix}\n", ""))
            .unwrap_or_default();
        format!("{word:<9}{:<16}{}\n{fix}", check.name, check.detail)
    };
    output::text(context, &checks.iter().map(line).collect::<String>())
}
