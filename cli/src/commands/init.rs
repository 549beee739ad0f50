//! `mycli init`: makes a stack in the user's AWS account, or repairs it.

use std::time::{Duration, Instant};

use clap::Args;
use deploy::{
    first_key,
    install::{Deployed, StackChange},
    stack::StackView,
};
use domain::{backoff::Backoff, key::ApiKey, request::Name};
use secrecy::ExposeSecret;

use crate::{
    client::{ApiError, Call, Client, Remote},
    commands::{
        config,
        rollout::{Rollout, VERSION},
    },
    config::{
        context::{self, Context},
        settings::Profile,
        target::{AwsFlags, Target},
    },
    exit,
    failure::Failure,
    terminal::{output, prompt},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli init                                    in the account and region that `aws` uses
  mycli init --stack ci --region eu-west-1 --profile work
  mycli init --parameter RetentionDays=30 --parameter DefaultArch=x86_64
  mycli init --parameter TaskRolePolicyArns=arn:aws:iam::aws:policy/ReadOnlyAccess
  mycli init --vcpus-spot 64                    after the account's quota was raised
  mycli init --print-template | less            print the template only

Makes a bucket for the functions' code, a repository for the image of the runner, and a
CloudFormation stack, then the first administrator's key, and writes
~/.mycli/config.yaml. A second init changes nothing that is right, repairs missing parts,
and continues an init that was interrupted.

Exit code: 0 if the stack is ready and its API accepts your key, 1 if not.";

/// How long to wait for an API that was just made, and the pauses between attempts. We chose a
/// minute because the parts of a new API reach each other within that time.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSES: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(8),
};

/// The command line of `init`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    rollout: Rollout,
    /// Do not ask before the stack is made
    #[arg(long, short)]
    yes: bool,
    /// Print the CloudFormation template, and make nothing
    #[arg(long)]
    print_template: bool,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Init {
    /// Runs `mycli init` and returns the exit code.
    ///
    /// # Errors
    /// Anything that prevents the stack from being made or used.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        if self.print_template {
            output::text(context, &self.rollout.template()?.pretty())?;
            return Ok(exit::SUCCESS);
        }
        let target = self.aws.open(context).await?;
        let functions = self.rollout.code()?;
        let before = target.find().await?;
        if before.is_none() && !self.agreed(context, &target)? {
            return Err(Failure::Nothing("nothing was made".into()));
        }
        let deployed = self
            .rollout
            .roll_out(context, &target, &functions, before.as_ref())
            .await?;
        let endpoint = target
            .account
            .api_address(deployed.stack.output("Endpoint")?);
        let key = keep(context, &target, &deployed.stack, &endpoint).await?;
        answers(context, &endpoint, &key).await?;
        report(context, &target, &deployed, &endpoint)?;
        Ok(exit::SUCCESS)
    }

    /// Asks before making something in an account, if somebody can be asked.
    fn agreed(&self, context: &Context, target: &Target) -> Result<bool, Failure> {
        let what = format!("the stack {} in {}", target.name.full(), target.place());
        if self.yes || !prompt::can_ask() {
            context.screen.say(&format!("making {what}"));
            return Ok(true);
        }
        prompt::agreed(context, &format!("make {what}?"))
    }
}

/// Makes sure that the configuration file has the stack's endpoint and a key that the stack knows.
async fn keep(
    context: &Context,
    target: &Target,
    stack: &StackView,
    endpoint: &str,
) -> Result<ApiKey, Failure> {
    let held = target
        .known
        .as_ref()
        .and_then(|known| known.key.as_ref())
        .and_then(|key| ApiKey::parse(key.expose_secret()));
    let known = match &held {
        Some(key) => first_key::is_known(&target.account, stack, key).await?,
        None => false,
    };
    if let Some(key) = held.filter(|_| known) {
        write_profile(context, target, endpoint, &key)?;
        return Ok(key);
    }
    // We write the key to the file before the stack learns it. If this failed in the other order,
    // the stack would have a key that nobody could use or tell apart from others.
    let key = first_key::make()?;
    write_profile(context, target, endpoint, &key)?;
    let name = first_key::add(&target.account, stack, &key, &key_name()).await?;
    context.screen.say(&format!(
        "made the administrator's key `{name}`; it is in {}",
        context.home.config()?.display()
    ));
    Ok(key)
}

/// The name for a person's key. Runs are shown with the name of the key that submitted them, so it
/// is the user's name.
fn key_name() -> String {
    let user: String = context::user()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    user.parse::<Name>()
        .map_or_else(|_| "admin".into(), |name| name.as_str().to_owned())
}

fn write_profile(
    context: &Context,
    target: &Target,
    endpoint: &str,
    key: &ApiKey,
) -> Result<(), Failure> {
    let profile = Profile {
        endpoint: Some(endpoint.to_owned()),
        key: Some(key.expose().to_owned().into()),
        account: Some(target.account.id.clone()),
        region: Some(target.account.region.clone()),
        aws_profile: target.aws_profile.clone(),
        endpoint_url: target.account.endpoint_url.clone(),
    };
    let settings = context.settings()?;
    let same = settings
        .stacks
        .get(&target.name)
        .is_some_and(|known| known.same(&profile));
    if same && settings.stack.is_some() {
        return Ok(());
    }
    config::change(context, |settings| {
        settings.stacks.insert(target.name.clone(), profile);
        settings.stack.get_or_insert_with(|| target.name.clone());
    })
}

/// Sends a first request to the API, which proves that the functions start, find their table and
/// accept the key. The parts of a new API may need a moment to find each other. Until then
/// something else may answer in its place, or nothing.
async fn answers(context: &Context, endpoint: &str, key: &ApiKey) -> Result<(), Failure> {
    context.screen.progress("asking the API");
    let client = Client::Remote(Remote::new(
        endpoint,
        &key.expose().to_owned().into(),
        &context.screen,
    )?);
    let (begun, mut round) = (Instant::now(), 0);
    loop {
        let answer = client.call(Call::get("/executions?limit=1".into())).await;
        let may_pass = matches!(
            &answer,
            Err(ApiError::Foreign { .. } | ApiError::Unreachable { .. })
        );
        let pause = PAUSES.pause(round, u128::from(getrandom::u32().unwrap_or_default()));
        if may_pass && begun.elapsed() + pause <= PATIENCE {
            tokio::time::sleep(pause).await;
            round += 1;
            continue;
        }
        context.screen.no_progress();
        return answer.map(drop).map_err(|error| {
            Failure::Other(format!(
                "the stack is ready, but its API at {endpoint} does not accept the key: {error}. Run this again; if it fails again, run `mycli doctor`"
            ))
        });
    }
}

fn report(
    context: &Context,
    target: &Target,
    deployed: &Deployed,
    endpoint: &str,
) -> Result<(), Failure> {
    if context.is_json() {
        let change = match deployed.change {
            StackChange::Made => "made",
            StackChange::Changed => "changed",
            StackChange::Nothing => "nothing",
        };
        let line = serde_json::json!({
            "stack": target.name, "endpoint": endpoint, "account": target.account.id, "region": target.account.region,
            "version": VERSION, "change": change, "status": deployed.stack.status
        });
        return output::text(context, &format!("{line}\n"));
    }
    context
        .screen
        .say(&format!("the API is at {endpoint}, and accepts your key"));
    let used = context.settings()?.stack;
    if used.as_ref() == Some(&target.name) {
        context
            .screen
            .say("try it: mycli exec --no-repo 'echo hello'");
    } else {
        context.screen.say(&format!(
            "use it: {}, or mycli config use {}",
            target.command("exec …"),
            target.name
        ));
    }
    Ok(())
}
