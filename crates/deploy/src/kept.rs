//! A table that outlived its stack: `destroy --keep-history` leaves one.

use aws_sdk_dynamodb::{Client, error::ProvideErrorMetadata};

use crate::{Account, CallError, StackName, names::TAG, table::Table, template::KEPT_TAG};

/// The kind of table that has a stack's name while there is no such stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptTable {
    /// There is no table of this name.
    Nothing,
    /// The table is the history of a stack of this name.
    History,
    /// The table is not mycli's.
    Foreign,
}

/// Finds out by the table's tags. Either an earlier removal or CloudFormation has tagged a table of
/// ours.
pub(crate) async fn look(account: &Account, name: &StackName) -> Result<KeptTable, CallError> {
    let table = name.table();
    let Some(arn) = arn(account, &table).await? else {
        return Ok(KeptTable::Nothing);
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
        KeptTable::History
    } else {
        KeptTable::Foreign
    })
}

/// Removes the table for good, even if it is protected against deletion.
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

/// Removes the tag of an earlier removal, once the table belongs to a stack again.
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
