//! Brings a stack to this version: the part that `init` and `upgrade` share.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::Args;
use deploy::{
    doctor::is_newer,
    install::{self, Deployed, InstallError, InstallWish, StackChange},
    package::Functions,
    quotas::{self, KnownQuota, Pool},
    runner_image::RunnerImage,
    stack::StackView,
    template::Template,
};
use local::runner_program;

use crate::{
    config::{context::Context, target::Target},
    failure::Failure,
    request::number::whole,
    terminal::progress::ProgressPrinter,
};

/// This program's version. The functions have the same version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The largest vCPU limit that we accept. It is more than any account has, so it only catches
/// typing errors.
const VCPUS_MAX: u32 = 1_000_000;

/// The flags of a deployment.
#[derive(Args, Clone, Debug)]
pub(crate) struct Rollout {
    /// The folder with the functions' zips [default: `functions` beside this program]
    #[arg(long, value_name = "DIR")]
    functions: Option<PathBuf>,
    /// How many vCPUs of Fargate Spot may be in use at once [default: unchanged; for a new stack
    /// the account's quota]
    #[arg(long, value_name = "N", value_parser = whole(0..=VCPUS_MAX))]
    vcpus_spot: Option<u32>,
    /// How many vCPUs of Fargate on demand may be in use at once [default: as for --vcpus-spot]
    #[arg(long, value_name = "N", value_parser = whole(0..=VCPUS_MAX))]
    vcpus_on_demand: Option<u32>,
    /// A parameter of the template; the others keep their values (see `mycli init
    /// --print-template`)
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Your own template, based on the output of `mycli init --print-template`
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Allow a downgrade to an older version
    #[arg(long)]
    allow_downgrade: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Rollout {
    /// Finds the functions' code.
    ///
    /// # Errors
    /// There is no code, or it cannot be deployed.
    pub(crate) fn code(&self) -> Result<Functions, Failure> {
        Ok(Functions::find(&self.folders())?)
    }

    /// Makes the image of the runner.
    fn runner(&self) -> Result<RunnerImage, Failure> {
        let programs = runner_program::for_image(&self.folders()).map_err(Failure::Other)?;
        RunnerImage::of(&programs)
            .map_err(|error| Failure::Other(format!("the runner's image cannot be made: {error}")))
    }

    /// The folders that may hold the functions' code.
    fn folders(&self) -> Vec<PathBuf> {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|program| program.canonicalize().ok());
        let beside = beside.and_then(|program| Some(program.parent()?.join("functions")));
        self.functions.clone().or(beside).into_iter().collect()
    }

    /// The user's own template, or the built-in one.
    ///
    /// # Errors
    /// The file cannot be read, or is not a template.
    pub(crate) fn template(&self) -> Result<Template, Failure> {
        let template = match &self.template {
            None => Template::built_in(),
            Some(path) => {
                let text = fs::read_to_string(path);
                Template::whole(&text.map_err(|error| Failure::file(path, &error))?)
            }
        };
        Ok(template.map_err(InstallError::from)?)
    }

    /// Makes or changes the stack.
    ///
    /// # Errors
    /// Anything that prevents it.
    pub(crate) async fn roll_out(
        &self,
        context: &Context,
        target: &Target,
        functions: &Functions,
        before: Option<&StackView>,
    ) -> Result<Deployed, Failure> {
        self.refuse_downgrade(before)?;
        let given = self.given();
        let stands = before
            .is_some_and(|stack| stack.condition() != deploy::stack::StackCondition::NeverStood);
        let quotas = if stands {
            Vec::new()
        } else {
            self.quotas(context, target).await
        };
        let (template, runner) = (self.template()?, self.runner()?);
        let wish = InstallWish {
            template: &template,
            functions,
            runner: &runner,
            version: VERSION,
            parameters: &given,
        };
        let printer = ProgressPrinter::on(&context.screen);
        let deployed = install::deploy(&target.account, &target.name, &wish, &|progress| {
            printer.tell(progress);
        })
        .await;
        context.screen.no_progress();
        let deployed = deployed?;
        for (pool, vcpus) in quotas {
            quotas::keep(&target.account, &deployed.stack, pool, vcpus).await?;
        }
        context.screen.say(&said(target, &deployed));
        Ok(deployed)
    }

    fn given(&self) -> BTreeMap<String, String> {
        let mut given: BTreeMap<_, _> = self.parameters.iter().cloned().collect();
        for (pool, vcpus) in [
            (Pool::Spot, self.vcpus_spot),
            (Pool::OnDemand, self.vcpus_on_demand),
        ] {
            given.extend(vcpus.map(|vcpus| (pool.parameter().to_owned(), vcpus.to_string())));
        }
        given
    }

    fn refuse_downgrade(&self, before: Option<&StackView>) -> Result<(), Failure> {
        match before
            .and_then(StackView::version)
            .filter(|theirs| is_newer(theirs, VERSION))
        {
            Some(theirs) if !self.allow_downgrade => Err(Failure::Other(format!(
                "the stack is of version {theirs}, newer than this mycli ({VERSION}): install that version, or go back with --allow-downgrade"
            ))),
            _ => Ok(()),
        }
    }

    /// The account's quotas for a new stack, where they are known and no limit is given.
    async fn quotas(&self, context: &Context, target: &Target) -> Vec<(Pool, u32)> {
        let given = self.given();
        let mut found = Vec::new();
        for pool in Pool::ALL
            .into_iter()
            .filter(|pool| !given.contains_key(pool.parameter()))
        {
            let title = pool.title();
            match quotas::read(&target.account, pool).await {
                KnownQuota::Vcpus(vcpus) => {
                    context
                        .screen
                        .say(&format!("{title}: the account's quota is {vcpus} vCPUs"));
                    found.push((pool, vcpus));
                }
                KnownQuota::Unset => {
                    context.screen.say(&format!(
                        "{title}: AWS reports no quota; set a limit with {}",
                        pool.flag()
                    ));
                }
                KnownQuota::Unknown(why) => {
                    let advice = format!(
                        "mycli learns it from ECS's refusals, or you set a limit with {}",
                        pool.flag()
                    );
                    context.screen.say(&format!(
                        "{title}: the quota cannot be read ({why}): {advice}"
                    ));
                }
            }
        }
        found
    }
}

fn said(target: &Target, deployed: &Deployed) -> String {
    let stack = target.name.full();
    match (deployed.change, deployed.version_before.as_deref()) {
        (StackChange::Made, _) => format!("made the stack {stack} (version {VERSION})"),
        (StackChange::Changed, Some(before)) if before != VERSION => {
            format!("changed the stack {stack}: version {before} to {VERSION}")
        }
        (StackChange::Changed, _) => format!("changed the stack {stack} (version {VERSION})"),
        (StackChange::Nothing, _) => {
            format!("the stack {stack} is as it should be (version {VERSION}): nothing to change")
        }
    }
}
