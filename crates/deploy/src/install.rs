//! Creates a stack, or updates one to this program's version: first the bucket, then the code, the
//! template and the stack. Each step finds out what exists already, so the next run repairs one
//! that was interrupted.

use std::collections::BTreeMap;

use crate::{
    Account, CallError, StackName,
    bucket::StackBucket,
    gateway_log::{self, LogRole},
    kept::{self, KeptTable},
    long_arns,
    package::Functions,
    rolling::Rolling,
    runner_image::{RunnerImage, RunnerRepository},
    service_role::{self, ServiceRole},
    stack::{Setting, StackCondition, StackError, StackProgress, StackSettings, StackView, Stacks},
    table::Table,
    template::Template,
    zones,
};

pub(crate) mod outcome;

pub use outcome::{InstallError, StackChange};

/// The parameters that follow from the code and the account. A user cannot set them.
pub const OWN_PARAMETERS: [&str; 7] = [
    "StackName",
    "CodeBucket",
    "CodePrefix",
    "Version",
    "Architecture",
    "EndpointUrl",
    RUNNER_IMAGE,
];

/// The parameter with the image of the runner.
pub(crate) const RUNNER_IMAGE: &str = "RunnerImage";

/// The parameter with the processor of runs that name none.
const DEFAULT_ARCH: &str = "DefaultArch";

/// The parameter with the IAM path of the roles that runs may name.
const TASK_ROLE_PATH: &str = "TaskRolePath";

/// The input of a deployment.
#[derive(Clone, Debug)]
pub struct InstallWish<'a> {
    /// The template.
    pub template: &'a Template,
    /// The functions' code.
    pub functions: &'a Functions,
    /// The image of the program inside tasks.
    pub runner: &'a RunnerImage,
    /// The version of this program.
    pub version: &'a str,
    /// The parameters to set. The others keep their values, or get their defaults.
    pub parameters: &'a BTreeMap<String, String>,
}

/// The result of a deployment.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The stack after the deployment.
    pub stack: StackView,
    /// The change to the stack.
    pub change: StackChange,
    /// The version of the stack before, if it existed.
    pub version_before: Option<String>,
}

/// Creates or updates the stack. Idempotent: if all is up to date, nothing changes.
///
/// # Errors
/// [`InstallError`]. What was done before the failure stays, and the next call continues from
/// there.
pub async fn deploy(
    account: &Account,
    name: &StackName,
    wish: &InstallWish<'_>,
    tell: &impl Fn(StackProgress),
) -> Result<Deployed, InstallError> {
    let template = wish.template;
    check_parameters(template, wish.parameters)?;
    if long_arns::are_off(account).await {
        return Err(InstallError::ShortArns(account.region.clone()));
    }
    let stacks = Stacks::new(account, name);
    let bucket = StackBucket::code(account, name);
    let before = match ready(&stacks, tell).await? {
        None => adopted(account, name, &bucket, &stacks, template, tell).await?,
        stands => stands,
    };
    // A stack that holds only an imported table has no settings yet.
    let as_set = before.as_ref().filter(|stack| !stack.is_adopted);
    check_arch(as_set, wish)?;
    upload(&bucket, wish.functions, tell).await?;
    let repository = RunnerRepository::new(account, name);
    let runner = repository.push(wish.runner, tell).await?;
    let own = own_parameters(account, name, &bucket, wish, runner);
    let found = found_parameters(account, name, as_set, wish, tell).await?;
    let settings = settings(template, as_set, &own, &found, wish.parameters);
    if as_set.is_none() {
        service_role(account, tell).await?;
    }
    let version_before = before
        .as_ref()
        .and_then(StackView::version)
        .map(str::to_owned);
    let (stack, change) = match before {
        None => {
            tell(StackProgress::Step(format!(
                "making the stack {} ({} resources)",
                name.full(),
                template.size()
            )));
            let url = bucket.put_template(template).await?;
            (
                make(&stacks, &url, &settings, tell).await?,
                StackChange::Made,
            )
        }
        Some(before) => {
            let table = before
                .outputs
                .get("Table")
                .cloned()
                .unwrap_or_else(|| name.table());
            let rolling = Rolling::of(account, &bucket, &stacks, &table, tell);
            let is_adopted = before.is_adopted;
            let (stack, change) = rolling.update(before, template, &settings).await?;
            if is_adopted {
                kept::unmark(account, &table).await?;
                (stack, StackChange::Made)
            } else {
                (stack, change)
            }
        }
    };
    protect(account, name, tell).await;
    let kept = match repository.expire(&wish.runner.digest()).await {
        Ok(kept) => kept,
        Err(error) => vec![error.to_string()],
    };
    for why in kept {
        tell(StackProgress::Step(format!(
            "images of older releases were not removed; the next upgrade tries again: {why}"
        )));
    }
    Ok(Deployed {
        stack,
        change,
        version_before,
    })
}

/// Creates ECS's service-linked role, which a new account lacks.
async fn service_role(account: &Account, tell: &impl Fn(StackProgress)) -> Result<(), CallError> {
    match service_role::ensure(account).await? {
        ServiceRole::There => {}
        ServiceRole::Made => tell(StackProgress::Step("made ECS's service-linked role".into())),
        ServiceRole::Denied(why) => {
            tell(StackProgress::Step(format!(
                "{why}; that matters only if this account never used ECS"
            )));
        }
    }
    Ok(())
}

/// Creates the stack. ECS may not know a service-linked role that was just created. In that case
/// the stack is created once more.
async fn make(
    stacks: &Stacks,
    url: &str,
    settings: &StackSettings,
    tell: &impl Fn(StackProgress),
) -> Result<StackView, InstallError> {
    match stacks.create(url, settings, tell).await {
        Err(StackError::Failed {
            resource: Some(event),
            ..
        }) if service_role::is_not_ready(&event) => {
            tell(StackProgress::Step(
                "ECS could not use its service-linked role yet: trying again".into(),
            ));
            ready(stacks, tell).await?;
            Ok(stacks.create(url, settings, tell).await?)
        }
        made => Ok(made?),
    }
}

/// Returns parameters that follow from what exists in the account, unless the user sets them: the
/// zones of the network, and whether to create API Gateway's log role. For an existing stack the
/// zones are those of its subnets, and the log role stays as it is.
async fn found_parameters(
    account: &Account,
    name: &StackName,
    before: Option<&StackView>,
    wish: &InstallWish<'_>,
    tell: &impl Fn(StackProgress),
) -> Result<BTreeMap<&'static str, String>, InstallError> {
    let mut found = BTreeMap::new();
    let takes = |parameter: &str| {
        wish.template.parameters().any(|known| known == parameter)
            && !wish.parameters.contains_key(parameter)
    };
    let has_own_network = wish
        .parameters
        .get("SubnetIds")
        .is_none_or(String::is_empty);
    if zones::PARAMETERS.iter().all(|parameter| takes(parameter)) {
        let zones = match before {
            // Once the zones are parameters of the stack, they stay.
            Some(before) if before.parameters.contains_key(zones::PARAMETERS[0]) => Vec::new(),
            Some(_) => zones::of_stack(account, name).await?,
            None if has_own_network => zones::choose(account).await?,
            None => Vec::new(),
        };
        found.extend(zones::PARAMETERS.into_iter().zip(zones));
    }
    if before.is_none() && takes(TASK_ROLE_PATH) {
        // IAM has no regions. The path names the region, so that a role for this stack is not also
        // for a stack of the same name in another region.
        found.insert(TASK_ROLE_PATH, format!("/mycli/{name}.{}/", account.region));
    }
    if before.is_none()
        && takes(DEFAULT_ARCH)
        && let [only] = wish.runner.archs()[..]
    {
        if wish.template.default_of(DEFAULT_ARCH) != Some(only.to_string()) {
            tell(StackProgress::Step(format!(
                "this mycli was built from source and has the runner for {only} alone: DefaultArch is {only}"
            )));
        }
        found.insert(DEFAULT_ARCH, only.to_string());
    }
    if before.is_none() && takes(gateway_log::PARAMETER) {
        let what = match gateway_log::look(account)
            .await
            .map_err(InstallError::GatewayLogRole)?
        {
            LogRole::Unset => "create",
            LogRole::Set(arn) => {
                tell(StackProgress::Step(format!(
                    "API Gateway logs with {arn} in this account and region: keeping that role"
                )));
                "keep"
            }
            LogRole::Gone(arn) => {
                let told = format!(
                    "API Gateway is set to log with {arn}, which no longer exists: making another role"
                );
                tell(StackProgress::Step(told));
                "create"
            }
        };
        found.insert(gateway_log::PARAMETER, what.to_owned());
    }
    Ok(found)
}

fn check_parameters(
    template: &Template,
    given: &BTreeMap<String, String>,
) -> Result<(), InstallError> {
    if let Some(own) = given
        .keys()
        .find(|name| OWN_PARAMETERS.contains(&name.as_str()))
    {
        return Err(InstallError::Own(own.clone()));
    }
    if !template.parameters().any(|known| known == RUNNER_IMAGE) {
        return Err(InstallError::OldTemplate(RUNNER_IMAGE));
    }
    let known: Vec<_> = template
        .parameters()
        .filter(|name| !OWN_PARAMETERS.contains(name))
        .collect();
    match given.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(InstallError::Parameter {
            name: name.clone(),
            known: known.join(", "),
        }),
        None => Ok(()),
    }
}

/// Checks that the runner is there for the processor of runs that name none.
fn check_arch(before: Option<&StackView>, wish: &InstallWish<'_>) -> Result<(), InstallError> {
    let of_stack = || before.and_then(|stack| stack.parameters.get(DEFAULT_ARCH));
    let Some(arch) = wish.parameters.get(DEFAULT_ARCH).or_else(of_stack) else {
        return Ok(());
    };
    let known: Vec<_> = wish
        .runner
        .archs()
        .iter()
        .map(ToString::to_string)
        .collect();
    match known.contains(arch) {
        true => Ok(()),
        false => Err(InstallError::Arch {
            arch: arch.clone(),
            known: known.join(" and "),
        }),
    }
}

/// Brings the stack into a state in which it can be updated, and returns it; `None` if it must be
/// created.
async fn ready(
    stacks: &Stacks,
    tell: &impl Fn(StackProgress),
) -> Result<Option<StackView>, InstallError> {
    let mut found = stacks.find().await?;
    loop {
        let Some(stack) = found else { return Ok(None) };
        found = match stack.condition() {
            StackCondition::Stands => return Ok(Some(stack)),
            StackCondition::Busy => {
                tell(StackProgress::Step(format!(
                    "the stack is {}: waiting until that is over",
                    stack.status
                )));
                stacks.settle(&stack, tell).await?;
                stacks.find().await?
            }
            StackCondition::NeverStood => {
                tell(StackProgress::Step(format!(
                    "an earlier attempt ended as {}: removing what it left",
                    stack.status
                )));
                stacks.delete(&stack, tell).await?;
                None
            }
            StackCondition::Stuck => {
                tell(StackProgress::Step(
                    "undoing an earlier change got stuck: continuing it".into(),
                ));
                Some(stacks.unstick(&stack, tell).await?)
            }
            StackCondition::HalfRemoved => return Err(InstallError::HalfRemoved(stack.reason)),
        };
    }
}

/// Makes a stack from the history that an earlier stack left, if there is one. CloudFormation
/// imports the table, and a later update adds the rest. Creating a table of the same name would
/// fail after minutes.
async fn adopted(
    account: &Account,
    name: &StackName,
    bucket: &StackBucket,
    stacks: &Stacks,
    template: &Template,
    tell: &impl Fn(StackProgress),
) -> Result<Option<StackView>, InstallError> {
    let table = name.table();
    match kept::look(account, name).await {
        Ok(KeptTable::Nothing) => return Ok(None),
        Ok(KeptTable::Foreign) => return Err(InstallError::ForeignTable(table)),
        Ok(KeptTable::History) => {}
        // Without permission to look, CloudFormation reports a table that is in the way.
        Err(error) if error.is_denied() => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let Some(seen) = Table::new(account, &table).look().await? else {
        return Ok(None);
    };
    tell(StackProgress::Step(format!(
        "taking the history in the table {table} into the new stack"
    )));
    ensure(bucket, tell).await?;
    let url = bucket
        .put_template(&template.of_kept_table(&table, &seen.shape)?)
        .await?;
    Ok(Some(
        stacks
            .import(&url, &template.table_name()?, &table, tell)
            .await?,
    ))
}

/// Protects the table against deletion. A failure is only reported, because the stack itself is
/// complete.
async fn protect(account: &Account, name: &StackName, tell: &impl Fn(StackProgress)) {
    if let Err(error) = Table::new(account, &name.table()).protect(true).await {
        tell(StackProgress::Step(format!(
            "the history is not protected against deletion: {error}"
        )));
    }
}

async fn ensure(bucket: &StackBucket, tell: &impl Fn(StackProgress)) -> Result<(), CallError> {
    if bucket.ensure().await? {
        tell(StackProgress::Step(format!(
            "made the bucket {}",
            bucket.name()
        )));
    }
    Ok(())
}

/// Stores the functions' code.
async fn upload(
    bucket: &StackBucket,
    functions: &Functions,
    tell: &impl Fn(StackProgress),
) -> Result<(), CallError> {
    ensure(bucket, tell).await?;
    let mut stored = false;
    for (name, zip) in &functions.zips {
        stored |= bucket
            .put(&format!("{}/{name}.zip", functions.prefix()), zip.clone())
            .await?;
    }
    if stored {
        tell(StackProgress::Step(format!(
            "stored the functions' code ({})",
            functions.architecture.as_str()
        )));
    }
    Ok(())
}

fn own_parameters(
    account: &Account,
    name: &StackName,
    bucket: &StackBucket,
    wish: &InstallWish<'_>,
    runner: String,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (RUNNER_IMAGE, runner),
        ("StackName", name.to_string()),
        ("CodeBucket", bucket.name().to_owned()),
        ("CodePrefix", wish.functions.prefix()),
        ("Version", wish.version.to_owned()),
        (
            "Architecture",
            wish.functions.architecture.as_str().to_owned(),
        ),
        (
            "EndpointUrl",
            account.endpoint_url.clone().unwrap_or_default(),
        ),
    ])
}

/// Returns the parameters. Precedence, highest first: those that follow from the code, the user's,
/// those found in the account, those of the stack before. All others get the template's defaults.
fn settings(
    template: &Template,
    before: Option<&StackView>,
    own: &BTreeMap<&'static str, String>,
    found: &BTreeMap<&'static str, String>,
    wished: &BTreeMap<String, String>,
) -> StackSettings {
    let one = |name: &str| {
        let value = own
            .get(name)
            .or_else(|| wished.get(name))
            .or_else(|| found.get(name))
            .cloned()
            .map(Setting::Value);
        let previous = before
            .filter(|stack| stack.parameters.contains_key(name))
            .map(|_| Setting::Previous);
        Some((name.to_owned(), value.or(previous)?))
    };
    template.parameters().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(parameters: &[(&str, &str)]) -> StackView {
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        StackView {
            id: "id".into(),
            status: "CREATE_COMPLETE".into(),
            reason: None,
            parameters,
            outputs: BTreeMap::new(),
            tags: BTreeMap::new(),
            is_adopted: false,
        }
    }

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_user_set_before_stays_and_what_follows_from_the_code_does_not() {
        let template = Template::built_in().unwrap();
        let given = texts(&[("RetentionDays", "30")]);
        let own = BTreeMap::from([("Version", "2.0.0".to_owned())]);
        let zones = BTreeMap::from([("ZoneA", "eu-west-1b".to_owned())]);
        let value = |text: &str| Some(Setting::Value(text.to_owned()));

        let new = settings(&template, None, &own, &zones, &given);
        assert_eq!(new.get("SpotVcpus"), None, "it follows the account's quota");
        assert_eq!(new.get("RetentionDays").cloned(), value("30"));
        assert_eq!(new.get("DefaultImage"), None);
        assert_eq!(new.get("ZoneA").cloned(), value("eu-west-1b"));

        let before = stack(&[
            ("Version", "1.0.0"),
            ("SpotVcpus", "12"),
            ("RetentionDays", "90"),
            ("Gone", "1"),
        ]);
        let next = settings(&template, Some(&before), &own, &BTreeMap::new(), &given);
        assert_eq!(next.get("Version").cloned(), value("2.0.0"));
        assert_eq!(next.get("SpotVcpus"), Some(&Setting::Previous));
        assert_eq!(next.get("RetentionDays").cloned(), value("30"));
        assert_eq!((next.get("Gone"), next.get("DefaultImage")), (None, None));
    }

    #[test]
    fn a_parameter_that_is_none_is_named_with_those_that_are() {
        let template = Template::built_in().unwrap();
        let error = check_parameters(&template, &texts(&[("RetentionDay", "30")]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`RetentionDay`") && error.contains("RetentionDays"),
            "{error}"
        );
        assert!(matches!(
            check_parameters(&template, &texts(&[("Version", "1")])),
            Err(InstallError::Own(_))
        ));
    }
}
