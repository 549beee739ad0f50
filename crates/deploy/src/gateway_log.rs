//! The role by which API Gateway writes logs. There is one for the whole account and region,
//! whoever set it (AWS-FACTS §9), so what is set stays, one is made only where there is none, and
//! what we made goes with the last API that logs by it.

use std::collections::BTreeSet;

use aws_sdk_apigateway::{
    Client as Gateway,
    types::{Op, PatchOperation},
};
use aws_sdk_iam::{Client as Iam, error::ProvideErrorMetadata};

use crate::{Account, CallError, StackName, names::TAG, stack::Stacks};

/// The template's parameter.
pub(crate) const PARAMETER: &str = "GatewayLogRole";
/// The resource of the template that is our own role.
const RESOURCE: &str = "GatewayRole";

/// The role that API Gateway logs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogRole {
    /// None is set.
    Unset,
    /// This one, by its ARN.
    Set(String),
    /// One is set that is not there any more.
    Gone(String),
}

impl LogRole {
    fn arn(&self) -> Option<&str> {
        match self {
            Self::Unset => None,
            Self::Set(arn) | Self::Gone(arn) => Some(arn),
        }
    }
}

/// Looks at the account's setting.
///
/// # Errors
/// When API Gateway or IAM does not answer.
pub(crate) async fn look(account: &Account) -> Result<LogRole, CallError> {
    let asked = Gateway::new(&account.config).get_account().send().await;
    let answer = asked.map_err(CallError::of("look at the role that API Gateway logs with"))?;
    let Some(arn) = answer.cloudwatch_role_arn().filter(|arn| !arn.is_empty()) else {
        return Ok(LogRole::Unset);
    };
    let there = Iam::new(&account.config)
        .get_role()
        .role_name(name_of(arn))
        .send()
        .await;
    Ok(match there {
        Err(error) if error.code() == Some("NoSuchEntity") => LogRole::Gone(arn.to_owned()),
        // One that these credentials may not look at is taken to be there.
        _ => LogRole::Set(arn.to_owned()),
    })
}

/// The names of the roles that may have to go with a stack: the one that it made, as CloudFormation
/// tells while the stack is there, and the one that is set if a stack of ours made it.
///
/// # Errors
/// When a service does not answer.
pub(crate) async fn ours(
    account: &Account,
    name: &StackName,
    stands: bool,
) -> Result<BTreeSet<String>, CallError> {
    let mut roles = BTreeSet::new();
    if stands {
        roles.extend(
            Stacks::new(account, name)
                .resources()
                .await?
                .remove(RESOURCE),
        );
    }
    let set = look(account).await?;
    if let Some(role) = set.arn().map(name_of)
        && is_tagged(account, role).await?
    {
        roles.insert(role.to_owned());
    }
    Ok(roles)
}

/// Whether a role has the tag that a stack of ours gives to all that it makes.
async fn is_tagged(account: &Account, role: &str) -> Result<bool, CallError> {
    match Iam::new(&account.config)
        .list_role_tags()
        .role_name(role)
        .send()
        .await
    {
        Ok(tags) => Ok(tags.tags().iter().any(|tag| tag.key() == TAG)),
        Err(error) if error.code() == Some("NoSuchEntity") => Ok(false),
        Err(error) => {
            let error = CallError::of(format!("read the tags of the role {role}"))(error);
            if error.is_denied() {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

/// What became of our own role once its stack was gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is gone, and so is the account's setting if it named the role.
    Nothing,
    /// Other APIs of the region log with it: it stays.
    InUse,
}

/// Removes a role that a stack of ours made, unless other APIs log with it. Idempotent.
///
/// # Errors
/// When a service refuses or does not answer.
pub(crate) async fn remove(account: &Account, role: &str) -> Result<Left, CallError> {
    if look(account).await?.arn().map(name_of) == Some(role) {
        if some_api_logs(account).await? {
            return Ok(Left::InUse);
        }
        let unset = PatchOperation::builder()
            .op(Op::Replace)
            .path("/cloudwatchRoleArn")
            .value("")
            .build();
        let asked = Gateway::new(&account.config)
            .update_account()
            .patch_operations(unset)
            .send()
            .await;
        asked.map_err(CallError::of("unset the role that API Gateway logs with"))?;
    }
    delete(&Iam::new(&account.config), role).await?;
    Ok(Left::Nothing)
}

/// Whether an API of this region has a stage that writes logs.
async fn some_api_logs(account: &Account) -> Result<bool, CallError> {
    let client = Gateway::new(&account.config);
    let mut apis = client.get_rest_apis().into_paginator().items().send();
    while let Some(api) = apis.next().await {
        let api = api.map_err(CallError::of("list the APIs of this region"))?;
        let stages = client
            .get_stages()
            .rest_api_id(api.id().unwrap_or_default())
            .send()
            .await;
        let stages = stages.map_err(CallError::of(format!(
            "look at the API {}",
            api.name().unwrap_or_default()
        )))?;
        let logs = |level: Option<&str>| level.is_some_and(|level| level != "OFF");
        let any = stages.item().iter().any(|stage| {
            let settings = stage
                .method_settings()
                .into_iter()
                .flat_map(|settings| settings.values());
            stage
                .access_log_settings()
                .is_some_and(|access| access.destination_arn().is_some())
                || settings
                    .into_iter()
                    .any(|setting| logs(setting.logging_level()))
        });
        if any {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn delete(client: &Iam, role: &str) -> Result<(), CallError> {
    let doing = || format!("remove the role {role}");
    let mut policies = client
        .list_attached_role_policies()
        .role_name(role)
        .into_paginator()
        .items()
        .send();
    while let Some(policy) = policies.next().await {
        let policy = match policy {
            Err(error) if error.code() == Some("NoSuchEntity") => return Ok(()),
            policy => policy.map_err(CallError::of(doing()))?,
        };
        let detach = client
            .detach_role_policy()
            .role_name(role)
            .policy_arn(policy.policy_arn().unwrap_or_default());
        detach.send().await.map_err(CallError::of(doing()))?;
    }
    match client.delete_role().role_name(role).send().await {
        Err(error) if error.code() == Some("NoSuchEntity") => Ok(()),
        deleted => deleted.map(drop).map_err(CallError::of(doing())),
    }
}

/// The name in a role's ARN, without its path.
fn name_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
