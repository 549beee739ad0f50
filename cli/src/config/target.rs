//! Where a stack is in AWS: the flags for it, the file's entry for it, and the caller's identity
//! there.

use clap::Args;
use deploy::{
    Account, StackName,
    account::Access,
    stack::{StackCondition, StackView, Stacks},
};

use crate::{
    config::{context::Context, settings::Profile},
    failure::Failure,
    variables::{AWS_PROFILE, ENDPOINT_URL, variable},
};

/// Which account and region.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "AWS")]
pub(crate) struct AwsFlags {
    /// The region [default: the one the stack is in, then AWS's own settings]
    #[arg(long)]
    region: Option<String>,
    /// The profile of ~/.aws [default: AWS_PROFILE, then the one the stack was made with]
    #[arg(long)]
    profile: Option<String>,
    /// The address of an AWS emulator [default: AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// An AWS account that answered, and a stack's name in it.
pub(crate) struct Target {
    /// The stack's name.
    pub(crate) name: StackName,
    /// The account.
    pub(crate) account: Account,
    /// The chosen profile of `~/.aws`.
    pub(crate) aws_profile: Option<String>,
    /// The configuration file's entry for the stack.
    pub(crate) known: Option<Profile>,
}

impl AwsFlags {
    /// Settings for access to AWS. Precedence, highest first: flags, environment, file.
    fn access(&self, known: Option<&Profile>) -> Result<Access, Failure> {
        let known = known.cloned().unwrap_or_default();
        let given = |flag: &Option<String>, name: &str| match flag {
            Some(value) => Ok(Some(value.clone())),
            None => variable(name),
        };
        Ok(Access {
            region: self.region.clone().or(known.region),
            profile: given(&self.profile, AWS_PROFILE)?.or(known.aws_profile),
            endpoint_url: given(&self.endpoint_url, ENDPOINT_URL)?.or(known.endpoint_url),
        })
    }

    /// Finds credentials and asks AWS for their identity.
    ///
    /// # Errors
    /// There are no credentials or no region, or they are for another account or region than the
    /// stack's.
    pub(crate) async fn open(&self, context: &Context) -> Result<Target, Failure> {
        if context.global.local || context.global.endpoint.is_some() {
            let message = "this command is for a stack in an AWS account: name it with --stack, without --local and --endpoint";
            return Err(Failure::Usage(message.into()));
        }
        let name = context.stack()?;
        let known = context.settings()?.stacks.get(&name).cloned();
        let access = self.access(known.as_ref())?;
        context.screen.progress("asking AWS who we are");
        let account = Account::open(&access).await;
        context.screen.no_progress();
        let account = account?;
        if let Some(known) = &known {
            same_place(&name, known, &account)?;
        }
        Ok(Target {
            name,
            account,
            aws_profile: access.profile,
            known,
        })
    }
}

/// Refuses credentials for another account or region than the stack's. A name stands for one stack,
/// so a stack elsewhere needs another name.
fn same_place(name: &StackName, known: &Profile, account: &Account) -> Result<(), Failure> {
    let differs =
        |known: &Option<String>, found: &str| known.as_deref().is_some_and(|known| known != found);
    if !differs(&known.account, &account.id) && !differs(&known.region, &account.region) {
        return Ok(());
    }
    let place = |account: &str, region: &str| format!("account {account}, {region}");
    let stack = place(
        known.account.as_deref().unwrap_or("unknown"),
        known.region.as_deref().unwrap_or("unknown"),
    );
    let credentials = place(&account.id, &account.region);
    Err(Failure::Other(format!(
        "the stack `{name}` is in {stack}, but these credentials are for {credentials}: use those of that account and region, or give \
         another name with --stack"
    )))
}

impl Target {
    /// The stack, if there is one, in any condition.
    ///
    /// # Errors
    /// CloudFormation's errors.
    pub(crate) async fn find(&self) -> Result<Option<StackView>, Failure> {
        Ok(Stacks::new(&self.account, &self.name).find().await?)
    }

    /// The stack, which must exist.
    ///
    /// # Errors
    /// CloudFormation's errors; there is no such stack.
    pub(crate) async fn stack(&self) -> Result<StackView, Failure> {
        let found = self
            .find()
            .await?
            .filter(|stack| stack.condition() != StackCondition::NeverStood);
        found.ok_or_else(|| {
            Failure::Other(format!(
                "there is no stack {} in {}: `mycli init` makes one",
                self.name.full(),
                self.place()
            ))
        })
    }

    /// The place in words: "account 123456789012 (user/alice), eu-west-1".
    pub(crate) fn place(&self) -> String {
        let emulator = self
            .account
            .endpoint_url
            .as_ref()
            .map(|url| format!(", emulated at {url}"));
        format!(
            "account {} ({}), {}{}",
            self.account.id,
            self.account.who(),
            self.account.region,
            emulator.unwrap_or_default()
        )
    }

    /// The command to type for this stack.
    pub(crate) fn command(&self, verb: &str) -> String {
        if self.name == StackName::default() {
            format!("mycli {verb}")
        } else {
            format!("mycli --stack {} {verb}", self.name)
        }
    }
}
