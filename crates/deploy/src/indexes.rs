//! The keys and indexes of the table, and the steps from one release's table to another's. This
//! module only decides, without I/O; `rolling` carries the steps out.
//!
//! DynamoDB adds or drops one global secondary index per table update (API reference,
//! `UpdateTable`: "create or delete one global secondary index"), and CloudFormation refuses a
//! template that asks for more. So each index takes a stack update of its own. First every new
//! index is added, then the functions and the rest of the template are updated, then the indexes
//! that nothing reads any more are dropped. So the old functions have their indexes until the last
//! of them is replaced, and the new functions have theirs from their first call.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The keys of a table and its global secondary indexes, in CloudFormation's spelling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TableShape {
    /// The key of the table itself.
    pub key_schema: Vec<KeyPart>,
    /// The types of all attributes that are part of a key.
    pub attribute_definitions: Vec<Attribute>,
    /// The global secondary indexes.
    #[serde(default)]
    pub global_secondary_indexes: Vec<TableIndex>,
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyPart {
    /// The attribute's name.
    pub attribute_name: String,
    /// `HASH` or `RANGE`.
    pub key_type: String,
}

/// An attribute and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attribute {
    /// The attribute's name.
    pub attribute_name: String,
    /// Its type: `S`, `N` or `B`.
    pub attribute_type: String,
}

/// A global secondary index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TableIndex {
    /// The index's name.
    #[serde(rename = "IndexName")]
    pub name: String,
    /// The index's key.
    pub key_schema: Vec<KeyPart>,
    /// The attributes that the index holds beside its keys.
    pub projection: Projection,
    /// All other properties that a template gives it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The attributes that an index holds beside its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Projection {
    /// `KEYS_ONLY`, `INCLUDE` or `ALL`.
    pub projection_type: String,
    /// The attributes that `INCLUDE` names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub non_key_attributes: BTreeSet<String>,
}

impl TableIndex {
    /// Whether both have the same key and projection. Neither can be changed (API reference,
    /// `UpdateGlobalSecondaryIndexAction`).
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        key(&self.key_schema) == key(&other.key_schema) && self.projection == other.projection
    }
}

/// Returns the parts of a key, independent of their order.
fn key(parts: &[KeyPart]) -> BTreeSet<&KeyPart> {
    parts.iter().collect()
}

impl TableShape {
    /// Returns the index of this name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<&TableIndex> {
        self.global_secondary_indexes
            .iter()
            .find(|index| index.name == name)
    }

    /// Whether both have the same keys and indexes.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let has = |shape: &Self, index: &TableIndex| {
            shape
                .index(&index.name)
                .is_some_and(|own| own.is_same(index))
        };
        key(&self.key_schema) == key(&other.key_schema)
            && self.types() == other.types()
            && self
                .global_secondary_indexes
                .iter()
                .all(|index| has(other, index))
            && other
                .global_secondary_indexes
                .iter()
                .all(|index| has(self, index))
    }

    fn types(&self) -> BTreeMap<&str, &str> {
        let attributes = self.attribute_definitions.iter();
        attributes
            .map(|one| (one.attribute_name.as_str(), one.attribute_type.as_str()))
            .collect()
    }

    /// Returns the shape with one more index. `source` gives the types of its attributes.
    fn with(&self, index: &TableIndex, source: &Self) -> Self {
        let mut more = self.clone();
        more.global_secondary_indexes.push(index.clone());
        more.attribute_definitions
            .extend(source.attribute_definitions.iter().cloned());
        more.only_attributes_in_use()
    }

    fn without(&self, name: &str) -> Self {
        let mut less = self.clone();
        less.global_secondary_indexes
            .retain(|index| index.name != name);
        less.only_attributes_in_use()
    }

    /// Drops the attribute definitions that no key uses: DynamoDB refuses them (API reference,
    /// `UpdateTable`).
    fn only_attributes_in_use(mut self) -> Self {
        let indexes = self
            .global_secondary_indexes
            .iter()
            .flat_map(|index| &index.key_schema);
        let parts = self.key_schema.iter().chain(indexes);
        let mut left: BTreeSet<String> = parts.map(|part| part.attribute_name.clone()).collect();
        self.attribute_definitions
            .retain(|one| left.remove(&one.attribute_name));
        self
    }
}

/// One stack update that adds or drops one index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexStep {
    /// The index's name.
    pub index: String,
    /// The table after this step.
    pub after: TableShape,
}

/// The steps from one release's table to another's.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexPlan {
    /// The indexes to add first, each in a stack update that changes nothing else.
    pub adds: Vec<IndexStep>,
    /// The table for the update that changes everything else: the wanted table, plus the indexes
    /// that are still to be dropped.
    pub switch: TableShape,
    /// The indexes to drop last, each in a stack update of its own.
    pub drops: Vec<IndexStep>,
}

/// Why a table cannot be changed into the template's. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The template changes the key of the table itself.
    #[error(
        "the template gives the table another key: DynamoDB cannot change it, and CloudFormation would make a new, empty \
         table. A table with another key needs another name, and its items copied"
    )]
    TableKey,
    /// The template changes the key or the projection of an index.
    #[error(
        "the template changes the index {0}: DynamoDB cannot change the key or the projection of an index. Give the changed \
         one a new name, and drop {0} in the release after"
    )]
    ChangedIndex(String),
    /// The template changes the type of an attribute.
    #[error(
        "the template changes the type of the attribute {0}: DynamoDB cannot change the type of a key. Use an attribute with \
         a new name, in an index with a new name"
    )]
    AttributeType(String),
}

/// Plans the steps from `deployed` to `wanted`. There are none if nothing differs. After an
/// interrupted run the plan has only the steps that are left.
///
/// # Errors
/// [`PlanError`] for a change that no update can make.
pub fn plan(deployed: &TableShape, wanted: &TableShape) -> Result<IndexPlan, PlanError> {
    refuse_changes(deployed, wanted)?;
    let new = wanted
        .global_secondary_indexes
        .iter()
        .filter(|index| deployed.index(&index.name).is_none());
    let old = deployed
        .global_secondary_indexes
        .iter()
        .filter(|index| wanted.index(&index.name).is_none());
    let old: Vec<_> = old.collect();

    let mut table = deployed.clone();
    let mut adds = Vec::new();
    for index in new {
        table = table.with(index, wanted);
        adds.push(IndexStep {
            index: index.name.clone(),
            after: table.clone(),
        });
    }

    let switch = old
        .iter()
        .fold(wanted.clone(), |table, index| table.with(index, deployed));
    let mut table = switch.clone();
    let mut drops = Vec::new();
    for index in old {
        table = table.without(&index.name);
        drops.push(IndexStep {
            index: index.name.clone(),
            after: table.clone(),
        });
    }
    Ok(IndexPlan {
        adds,
        switch,
        drops,
    })
}

fn refuse_changes(deployed: &TableShape, wanted: &TableShape) -> Result<(), PlanError> {
    if key(&deployed.key_schema) != key(&wanted.key_schema) {
        return Err(PlanError::TableKey);
    }
    for index in &wanted.global_secondary_indexes {
        if deployed
            .index(&index.name)
            .is_some_and(|old| !old.is_same(index))
        {
            return Err(PlanError::ChangedIndex(index.name.clone()));
        }
    }
    let types = deployed.types();
    for Attribute {
        attribute_name: name,
        attribute_type,
    } in &wanted.attribute_definitions
    {
        if types
            .get(name.as_str())
            .is_some_and(|old| old != attribute_type)
        {
            return Err(PlanError::AttributeType(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Builds a table with these indexes. The key of each is its name in upper case.
    fn table(indexes: &[&str]) -> TableShape {
        let attributes = ["pk".to_owned()]
            .into_iter()
            .chain(indexes.iter().map(|name| name.to_uppercase()));
        let attributes: Vec<_> = attributes
            .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
            .collect();
        let index = |name: &&str| {
            json!({
                "IndexName": name, "Projection": {"ProjectionType": "KEYS_ONLY"},
                "KeySchema": [{"AttributeName": name.to_uppercase(), "KeyType": "HASH"}],
            })
        };
        let indexes: Vec<_> = indexes.iter().map(index).collect();
        serde_json::from_value(json!({
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": attributes, "GlobalSecondaryIndexes": indexes,
        }))
        .unwrap()
    }

    fn indexes(table: &TableShape) -> Vec<&str> {
        table
            .global_secondary_indexes
            .iter()
            .map(|index| index.name.as_str())
            .collect()
    }

    fn attributes(table: &TableShape) -> Vec<&str> {
        table
            .attribute_definitions
            .iter()
            .map(|one| one.attribute_name.as_str())
            .collect()
    }

    #[test]
    fn the_same_table_takes_no_step() {
        let same = plan(&table(&["a", "b"]), &table(&["b", "a"])).unwrap();
        assert_eq!(
            (same.adds, same.drops, same.switch),
            (vec![], vec![], table(&["b", "a"]))
        );
        assert!(
            table(&["a", "b"]).is_same(&table(&["b", "a"]))
                && !table(&["a"]).is_same(&table(&["a", "b"]))
        );
    }

    #[test]
    fn each_index_has_an_update_of_its_own_and_old_ones_outlive_the_switch() {
        let plan = plan(&table(&["a", "b", "c"]), &table(&["c", "d", "e"])).unwrap();
        let steps = |steps: &[IndexStep]| -> Vec<(String, String)> {
            steps
                .iter()
                .map(|step| (step.index.clone(), indexes(&step.after).join(" ")))
                .collect()
        };
        let texts = |pairs: [(&str, &str); 2]| {
            pairs
                .map(|(one, other)| (one.to_owned(), other.to_owned()))
                .to_vec()
        };
        assert_eq!(
            steps(&plan.adds),
            texts([("d", "a b c d"), ("e", "a b c d e")])
        );
        assert_eq!(indexes(&plan.switch), ["c", "d", "e", "a", "b"]);
        assert_eq!(
            steps(&plan.drops),
            texts([("a", "c d e b"), ("b", "c d e")])
        );
        assert!(plan.drops[1].after.is_same(&table(&["c", "d", "e"])));
    }

    #[test]
    fn the_attributes_of_a_step_are_those_in_use() {
        let plan = plan(&table(&["a"]), &table(&["b"])).unwrap();
        assert_eq!(attributes(&plan.adds[0].after), ["pk", "A", "B"]);
        assert_eq!(attributes(&plan.switch), ["pk", "B", "A"]);
        assert_eq!(attributes(&plan.drops[0].after), ["pk", "B"]);
    }

    #[test]
    fn what_was_cut_short_goes_on_where_it_stopped() {
        let (old, new) = (table(&["a", "b"]), table(&["c", "d"]));
        let whole = plan(&old, &new).unwrap();
        let rest = plan(&whole.adds[0].after, &new).unwrap();
        assert_eq!(rest.adds, whole.adds[1..]);
        let rest = plan(&whole.drops[0].after, &new).unwrap();
        assert_eq!(
            (rest.adds, rest.drops.len(), &rest.drops[0].index),
            (vec![], 1, &"b".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_changed_is_refused_with_what_to_do() {
        let refused = |change: &dyn Fn(&mut TableShape)| {
            let mut wanted = table(&["a"]);
            change(&mut wanted);
            plan(&table(&["a"]), &wanted).unwrap_err()
        };
        let error = refused(&|table| table.key_schema[0].attribute_name = "id".into());
        assert_eq!(error, PlanError::TableKey);
        let error = refused(&|table| {
            table.global_secondary_indexes[0].projection.projection_type = "ALL".into();
        });
        assert_eq!(error, PlanError::ChangedIndex("a".into()));
        assert!(error.to_string().contains("new name"), "{error}");
        let error = refused(&|table| {
            table.global_secondary_indexes[0].key_schema[0].key_type = "RANGE".into();
        });
        assert_eq!(error, PlanError::ChangedIndex("a".into()));
        let error = refused(&|table| table.attribute_definitions[1].attribute_type = "N".into());
        assert_eq!(error, PlanError::AttributeType("A".into()));
    }

    #[test]
    fn a_shape_is_spelled_as_it_was_read() {
        let spelled = json!({
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "GlobalSecondaryIndexes": [{
                "IndexName": "a", "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x", "y"]},
                "OnDemandThroughput": {"MaxReadRequestUnits": 5},
            }],
        });
        let shape: TableShape = serde_json::from_value(spelled.clone()).unwrap();
        assert_eq!(serde_json::to_value(shape).unwrap(), spelled);
    }
}
