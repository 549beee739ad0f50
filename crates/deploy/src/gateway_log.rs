//! The role with which API Gateway writes logs. The account has one such setting per region, shared
//! by all APIs (AWS-FACTS §9). So a role that is set stays, we create one only where none is set,
//! and a role that we created is removed with the last API that logs with it.

use std::collections::BTreeSet;

use aws_sdk_apigateway::{
    Client as Gateway,
    types::{Op, PatchOperation},
};
use aws_sdk_iam::{Client as Iam, error::ProvideErrorMetadata};

use crate::{Account, CallError, StackName, names::TAG, stack::Stacks};

/// The template's parameter that says whether to create the role.
pub(crate) const PARAMETER: &str = "GatewayLogRole";
/// The template's resource that is our own role.
const RESOURCE: &str = "GatewayRole";

/// The role that API Gateway logs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogRole {
    /// No role is set.
    Unset,
    /// This role is set and exists (its ARN).
    Set(String),
    /// This role is set, but it does not exist any more.
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

/// Reads the account's setting.
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
        // A role that these credentials may not look at counts as existing.
        _ => LogRole::Set(arn.to_owned()),
    })
}

/// Returns the names of the roles that may have to be removed with a stack. These are the stack's
/// own role, which CloudFormation names while the stack exists, and the role that is set, if one of
/// our stacks created it.
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

/// Whether a role has the tag that our stacks give to all their resources.
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

/// The fate of our own role after its stack was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogRoleFate {
    /// The role is gone. The account's setting is cleared if it named the role.
    Nothing,
    /// The role stays, because other APIs of the region log with it.
    InUse,
}

/// Removes a role that one of our stacks created, unless other APIs log with it. Idempotent.
///
/// # Errors
/// When a service refuses or does not answer.
pub(crate) async fn remove(account: &Account, role: &str) -> Result<LogRoleFate, CallError> {
    if look(account).await?.arn().map(name_of) == Some(role) {
        if some_api_logs(account).await? {
            return Ok(LogRoleFate::InUse);
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
    Ok(LogRoleFate::Nothing)
}

/// Whether any API of this region has a stage that writes logs.
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

/// Returns the role's name from its ARN, without the path.
fn name_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
