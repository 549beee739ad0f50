//! ECS's ARNs of tasks. Those without the cluster's name, which an account may have kept, match no
//! role of the stack and take no tags.

use aws_sdk_ecs::{Client, types::SettingName};

use crate::Account;

/// Whether the account keeps the short ones. An account that nobody may ask, or that says nothing,
/// has the long ones: they are the default since April 2021 (ECS Developer Guide, "Amazon Resource
/// Names (ARNs) and IDs").
pub(crate) async fn are_off(account: &Account) -> bool {
    let call = Client::new(&account.config)
        .list_account_settings()
        .name(SettingName::TaskLongArnFormat);
    // The functions' roles are nobody that has settings of its own: for them the account's hold,
    // which are the root user's.
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
