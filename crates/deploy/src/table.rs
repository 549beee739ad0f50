//! The table as DynamoDB describes it, and the wait until its indexes are built.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::ProvideErrorMetadata,
    types::{
        self, GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, TableDescription,
        TableStatus,
    },
};
use domain::backoff::Backoff;
use tokio::time::{Instant, sleep};

use crate::{
    Account, CallError,
    indexes::{Attribute, KeyPart, Projection, TableIndex, TableShape},
    stack::StackProgress,
};

/// The pauses between two looks at the table. The first is short, because an index of an empty
/// table is built within a minute. The longest is 30 seconds, because that of a large table takes
/// hours.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
/// How long an index may take to be built or dropped. DynamoDB states no upper limit. Large tables
/// take hours, so this only ends the wait for a table that never gets there.
const PATIENCE: Duration = Duration::from_secs(12 * 60 * 60);
/// How long an index that CloudFormation has added may be missing from the table's description,
/// which is eventually consistent (API reference, `DescribeTable`). In practice it appears within
/// seconds.
const ABSENT: Duration = Duration::from_secs(2 * 60);
/// How often the same wait is reported again. A wait may take hours, so a reminder every few
/// minutes shows that it goes on.
const REMINDER: Duration = Duration::from_secs(5 * 60);

/// Why the table's indexes did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The change takes longer than we wait.
    #[error(
        "{why}, still so after {hours} hours: look at the table in the AWS console, then run this again"
    )]
    Slow {
        /// The event that was waited for.
        why: String,
        /// How long, in hours.
        hours: u64,
    },
    /// The stack has an index that the table lacks.
    #[error(
        "the index {0} is in the stack's template and not in the table: somebody removed it. Add it to the table again as the template \
         has it, then run this again"
    )]
    Absent(String),
    /// The table was removed during the wait.
    #[error("the table {0} no longer exists")]
    Gone(String),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A stack's table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    client: Client,
    name: String,
}

/// The table in DynamoDB's description.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableView {
    /// The keys and indexes, including indexes that are being built or dropped.
    pub(crate) shape: TableShape,
    active: bool,
    /// The indexes that are not ready for use, with their status.
    pending: BTreeMap<String, String>,
}

impl TableView {
    /// Says in words what must finish before the table, in this shape, can be used and changed;
    /// `None` if nothing must. `dropped` is an index that was just removed from the shape.
    pub(crate) fn pending(&self, shape: &TableShape, dropped: Option<&str>) -> Option<String> {
        if let Some((index, status)) = self.pending.first_key_value() {
            let doing = match status.as_str() {
                "CREATING" => "being built",
                "DELETING" => "being dropped",
                _ => "being changed",
            };
            return Some(format!("the index {index} is {doing}"));
        }
        let missing = self
            .absent(shape)
            .map(|index| format!("the index {index} is not there yet"));
        let left = dropped.filter(|name| self.shape.index(name).is_some());
        let left = left.map(|name| format!("the index {name} is still there"));
        missing
            .or(left)
            .or_else(|| (!self.active).then(|| "the table is being changed".to_owned()))
    }
}

impl TableView {
    /// Returns an index of this shape that the table lacks, while no index is being built or
    /// dropped.
    fn absent<'a>(&self, shape: &'a TableShape) -> Option<&'a str> {
        let mut names = shape
            .global_secondary_indexes
            .iter()
            .map(|index| index.name.as_str());
        names.find(|name| self.pending.is_empty() && self.shape.index(name).is_none())
    }
}

impl Table {
    /// The table of this name.
    pub(crate) fn new(account: &Account, name: &str) -> Self {
        Self {
            client: Client::new(&account.config),
            name: name.to_owned(),
        }
    }

    /// Reads the table's description; `None` if there is no table.
    pub(crate) async fn look(&self) -> Result<Option<TableView>, CallError> {
        match self
            .client
            .describe_table()
            .table_name(&self.name)
            .send()
            .await
        {
            Ok(found) => Ok(found.table().map(view)),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(error) => Err(CallError::of(format!("look at the table {}", self.name))(
                error,
            )),
        }
    }

    /// Switches deletion protection on or off. With it on, nobody loses the history by deleting the
    /// stack or the table in the AWS console. Idempotent. Does nothing if there is no table.
    pub(crate) async fn protect(&self, on: bool) -> Result<(), CallError> {
        let doing = || {
            format!(
                "{} deletion protection of the table {}",
                if on { "switch on" } else { "switch off" },
                self.name
            )
        };
        let found = match self
            .client
            .describe_table()
            .table_name(&self.name)
            .send()
            .await
        {
            Ok(found) => found,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(()),
            Err(error) => return Err(CallError::of(doing())(error)),
        };
        if found
            .table()
            .and_then(TableDescription::deletion_protection_enabled)
            == Some(on)
        {
            return Ok(());
        }
        let call = self
            .client
            .update_table()
            .table_name(&self.name)
            .deletion_protection_enabled(on);
        call.send().await.map(drop).map_err(CallError::of(doing()))
    }

    /// Waits until every index of this shape is ready for use, `dropped` is gone, and no index is
    /// being built or dropped.
    ///
    /// CloudFormation does not wait for that (its user guide, `AWS::DynamoDB::Table`). Stopping
    /// this call stops only the wait.
    pub(crate) async fn settle(
        &self,
        shape: &TableShape,
        dropped: Option<&str>,
        tell: &impl Fn(StackProgress),
    ) -> Result<(), SettleError> {
        let begun = Instant::now();
        let (mut told, mut absent): (Option<(Instant, String)>, Option<Instant>) = (None, None);
        for round in 0.. {
            let view = self
                .look()
                .await?
                .ok_or_else(|| SettleError::Gone(self.name.clone()))?;
            let Some(why) = view.pending(shape, dropped) else {
                return Ok(());
            };
            match view.absent(shape) {
                Some(index) if absent.get_or_insert_with(Instant::now).elapsed() > ABSENT => {
                    return Err(SettleError::Absent(index.to_owned()));
                }
                Some(_) => {}
                None => absent = None,
            }
            if begun.elapsed() > PATIENCE {
                return Err(SettleError::Slow {
                    why,
                    hours: PATIENCE.as_secs() / 3600,
                });
            }
            let is_old = |(at, said): &(Instant, String)| *said == why && at.elapsed() < REMINDER;
            if !told.as_ref().is_some_and(is_old) {
                tell(StackProgress::Step(waiting(&why, begun.elapsed())));
                told = Some((Instant::now(), why));
            }
            sleep(PAUSES.pause(round, chance())).await;
        }
        Ok(())
    }
}

fn waiting(why: &str, since: Duration) -> String {
    let minutes = since.as_secs() / 60;
    match minutes {
        0 => format!("{why}: waiting for that (after Ctrl-C, the same command continues)"),
        minutes => format!("{why}: still waiting after {minutes} minutes"),
    }
}

/// Returns the random part of a pause. A constant would do if the system had no randomness: the
/// pauses of several commands need not differ.
fn chance() -> u128 {
    getrandom::u64().map_or(0, u128::from)
}

fn view(table: &TableDescription) -> TableView {
    let indexes = table.global_secondary_indexes();
    let status = |index: &GlobalSecondaryIndexDescription| {
        let status = index
            .index_status()
            .filter(|status| **status != IndexStatus::Active)?;
        Some((
            index.index_name().unwrap_or_default().to_owned(),
            status.as_str().to_owned(),
        ))
    };
    let attributes = table.attribute_definitions().iter().map(|one| Attribute {
        attribute_name: one.attribute_name().to_owned(),
        attribute_type: one.attribute_type().as_str().to_owned(),
    });
    TableView {
        shape: TableShape {
            key_schema: key(table.key_schema()),
            attribute_definitions: attributes.collect(),
            global_secondary_indexes: indexes.iter().map(index).collect(),
        },
        active: table
            .table_status()
            .is_none_or(|status| *status == TableStatus::Active),
        pending: indexes.iter().filter_map(status).collect(),
    }
}

fn key(parts: &[KeySchemaElement]) -> Vec<KeyPart> {
    let part = |part: &KeySchemaElement| KeyPart {
        attribute_name: part.attribute_name().to_owned(),
        key_type: part.key_type().as_str().to_owned(),
    };
    parts.iter().map(part).collect()
}

fn index(index: &GlobalSecondaryIndexDescription) -> TableIndex {
    let projection = index.projection();
    let kind = projection.and_then(types::Projection::projection_type);
    let included = projection
        .into_iter()
        .flat_map(types::Projection::non_key_attributes);
    TableIndex {
        name: index.index_name().unwrap_or_default().to_owned(),
        key_schema: key(index.key_schema()),
        projection: Projection {
            projection_type: kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            non_key_attributes: included.cloned().collect(),
        },
        rest: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(indexes: &[(&str, &str)], status: TableStatus) -> TableView {
        let index = |(name, status): &(&str, &str)| {
            GlobalSecondaryIndexDescription::builder()
                .index_name(*name)
                .index_status((*status).into())
                .build()
        };
        let indexes = indexes.iter().map(index).collect();
        view(
            &TableDescription::builder()
                .table_status(status)
                .set_global_secondary_indexes(Some(indexes))
                .build(),
        )
    }

    #[test]
    fn an_index_that_is_being_built_or_dropped_or_not_shown_yet_is_waited_for() {
        let wanted = table(&[("a", "ACTIVE"), ("b", "ACTIVE")], TableStatus::Active).shape;
        let pending =
            |indexes: &[(&str, &str)], status| table(indexes, status).pending(&wanted, Some("old"));
        assert_eq!(
            pending(&[("a", "ACTIVE"), ("b", "ACTIVE")], TableStatus::Active),
            None
        );
        let said = |text: &str| Some(text.to_owned());
        let building = pending(&[("a", "ACTIVE"), ("b", "CREATING")], TableStatus::Updating);
        assert_eq!(building, said("the index b is being built"));
        let dropping = pending(
            &[("a", "ACTIVE"), ("b", "ACTIVE"), ("c", "DELETING")],
            TableStatus::Updating,
        );
        assert_eq!(dropping, said("the index c is being dropped"));
        assert_eq!(
            pending(&[("a", "ACTIVE")], TableStatus::Active),
            said("the index b is not there yet")
        );
        let left = pending(
            &[("a", "ACTIVE"), ("b", "ACTIVE"), ("old", "ACTIVE")],
            TableStatus::Active,
        );
        assert_eq!(left, said("the index old is still there"));
        let busy = pending(&[("a", "ACTIVE"), ("b", "ACTIVE")], TableStatus::Updating);
        assert_eq!(busy, said("the table is being changed"));
    }
}
