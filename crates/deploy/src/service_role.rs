//! ECS's service-linked role. An account's first cluster with capacity providers cannot be created
//! without it (AWS-FACTS §9).

use std::time::Duration;

use aws_sdk_iam::{Client, error::ProvideErrorMetadata};
use tokio::time::sleep;

use crate::{Account, CallError, stack::ResourceEvent};

const SERVICE: &str = "ecs.amazonaws.com";
const ROLE: &str = "AWSServiceRoleForECS";
/// How often and how long we look for a role that was just created. IAM is eventually consistent
/// and states no upper limit for the delay.
const LOOKS: usize = 15;
const LOOK: Duration = Duration::from_secs(2);
/// How long we wait after the role is visible until ECS can assume it. AWS states no time; public
/// reports say that a second try some ten seconds later worked.
const SETTLE: Duration = Duration::from_secs(10);

/// The result of [`ensure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceRole {
    /// The role existed.
    There,
    /// The role was created, and we waited until it could be used.
    Made,
    /// These credentials may not create the role. This matters only in an account that never used
    /// ECS.
    Denied(String),
}

/// Creates the role if it is missing, and waits until it can be used. Idempotent.
///
/// # Errors
/// When IAM refuses for a reason other than a missing permission, or does not answer.
pub(crate) async fn ensure(account: &Account) -> Result<ServiceRole, CallError> {
    let client = Client::new(&account.config);
    match client
        .create_service_linked_role()
        .aws_service_name(SERVICE)
        .send()
        .await
    {
        Ok(_) => {
            wait(&client).await?;
            Ok(ServiceRole::Made)
        }
        // IAM answers `InvalidInput` both for an existing role and for a wrong service name. Only
        // the message tells them apart.
        Err(error)
            if error
                .message()
                .is_some_and(|message| message.contains("has been taken")) =>
        {
            Ok(ServiceRole::There)
        }
        Err(error) => {
            let error = CallError::of("make ECS's service-linked role")(error);
            if error.is_denied() {
                Ok(ServiceRole::Denied(error.to_string()))
            } else {
                Err(error)
            }
        }
    }
}

async fn wait(client: &Client) -> Result<(), CallError> {
    for _ in 0..LOOKS {
        match client.get_role().role_name(ROLE).send().await {
            Ok(_) => break,
            Err(error) if error.code() == Some("NoSuchEntity") => sleep(LOOK).await,
            Err(error) => {
                let error = CallError::of("look for ECS's service-linked role")(error);
                if error.is_denied() {
                    break;
                } else {
                    return Err(error);
                }
            }
        }
    }
    sleep(SETTLE).await;
    Ok(())
}

/// Whether a resource failed because ECS cannot use the role yet.
pub(crate) fn is_not_ready(event: &ResourceEvent) -> bool {
    event
        .reason
        .as_deref()
        .is_some_and(|reason| reason.contains("assume the service linked role"))
}
