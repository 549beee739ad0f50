//! A table that outlived its stack, as `destroy --keep-history` leaves it.

use aws_sdk_dynamodb::{Client, error::ProvideErrorMetadata};

use crate::{Account, CallError, template::KEPT_TAG};

/// Whether there is such a table, and an earlier removal kept it. One that does not say so by its tag is not ours to judge.
pub(crate) async fn is_kept(account: &Account, table: &str) -> Result<bool, CallError> {
    let tables = Client::new(&account.config);
    let arn = match tables.describe_table().table_name(table).send().await {
        Ok(found) => found.table.and_then(|table| table.table_arn),
        Err(error) if error.code() == Some("ResourceNotFoundException") => None,
        Err(error) => return Err(CallError::of(format!("look for the table {table}"))(error)),
    };
    let Some(arn) = arn else { return Ok(false) };
    let tags = tables.list_tags_of_resource().resource_arn(arn).send().await;
    let tags = tags.map_err(CallError::of(format!("read the tags of the table {table}")))?;
    Ok(tags.tags().iter().any(|tag| tag.key() == KEPT_TAG))
}

/// Removes it for good.
pub(crate) async fn remove(account: &Account, table: &str) -> Result<(), CallError> {
    let deleted = Client::new(&account.config).delete_table().table_name(table).send().await;
    deleted.map(drop).map_err(CallError::of(format!("remove the table {table}")))
}
