//! The format of ECS's task ARNs. An account may have kept the short ones, without the cluster's
//! name. They match no role of the stack, and tasks with such an ARN take no tags.

use aws_sdk_ecs::{Client, types::SettingName};

use crate::Account;

/// Whether the account keeps the short ARNs. If the setting cannot be read or is missing, the
/// account counts as having the long ones, which are the default since April 2021 (ECS Developer
/// Guide, "Amazon Resource Names (ARNs) and IDs").
pub(crate) async fn are_off(account: &Account) -> bool {
    let call = Client::new(&account.config)
        .list_account_settings()
        .name(SettingName::TaskLongArnFormat);
    // The functions' roles have no settings of their own. The account's settings apply to them, and
    // those are the root user's.
    let root = account
        .arn
        .split(':')
        .nth(1)
        .map(|partition| format!("arn:{partition}:iam::{}:root", account.id));
    match call
        .effective_settings(true)
        .set_principal_arn(root)
        .send()
        .await
    {
        Ok(found) => found
            .settings()
            .iter()
            .any(|setting| setting.value() == Some("disabled")),
        Err(_) => false,
    }
}
