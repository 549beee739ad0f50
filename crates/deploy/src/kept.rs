//! A table that outlived its stack, as `destroy --keep-history` leaves it.

use aws_sdk_dynamodb::{Client, error::ProvideErrorMetadata};

use crate::{Account, CallError, StackName, names::TAG, table::Table, template::KEPT_TAG};

/// The nature of a table that has a stack's name, while there is no such stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// There is none.
    Nothing,
    /// The history of a stack of this name.
    History,
    /// Somebody else's.
    Foreign,
}

/// Finds out by the table's tags: that of an earlier removal, or the one that CloudFormation gave
/// it.
pub(crate) async fn look(account: &Account, name: &StackName) -> Result<Kept, CallError> {
    let table = name.table();
    let Some(arn) = arn(account, &table).await? else {
        return Ok(Kept::Nothing);
    };
    let tags = Client::new(&account.config)
        .list_tags_of_resource()
        .resource_arn(arn)
        .send()
        .await;
    let tags = tags.map_err(CallError::of(format!("read the tags of the table {table}")))?;
    let ours = |tag: &aws_sdk_dynamodb::types::Tag| {
        tag.key() == KEPT_TAG || (tag.key() == TAG && tag.value() == name.as_str())
    };
    Ok(if tags.tags().iter().any(ours) {
        Kept::History
    } else {
        Kept::Foreign
    })
}

/// Removes it for good.
pub(crate) async fn remove(account: &Account, table: &str) -> Result<(), CallError> {
    Table::new(account, table).protect(false).await?;
    let deleted = Client::new(&account.config)
        .delete_table()
        .table_name(table)
        .send()
        .await;
    deleted
        .map(drop)
        .map_err(CallError::of(format!("remove the table {table}")))
}

/// Takes the mark of an earlier removal away from one that is a stack's again.
pub(crate) async fn unmark(account: &Account, table: &str) -> Result<(), CallError> {
    let Some(arn) = arn(account, table).await? else {
        return Ok(());
    };
    let call = Client::new(&account.config)
        .untag_resource()
        .resource_arn(arn)
        .tag_keys(KEPT_TAG);
    call.send().await.map(drop).map_err(CallError::of(format!(
        "change the tags of the table {table}"
    )))
}

async fn arn(account: &Account, table: &str) -> Result<Option<String>, CallError> {
    match Client::new(&account.config)
        .describe_table()
        .table_name(table)
        .send()
        .await
    {
        Ok(found) => Ok(found.table.and_then(|table| table.table_arn)),
        Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
        Err(error) => Err(CallError::of(format!("look for the table {table}"))(error)),
    }
}
