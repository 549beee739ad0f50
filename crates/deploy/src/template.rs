//! The CloudFormation template: `infra/template.yaml`, with `infra/openapi.yaml` as the body of its
//! API.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::indexes::TableShape;

const TEMPLATE: &str = include_str!("../../../infra/template.yaml");
const OPENAPI: &str = include_str!("../../../infra/openapi.yaml");

/// A complete template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Value);

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The text is not YAML or JSON of the expected form.
    #[error("the {0} cannot be read: {1}")]
    Form(&'static str, String),
    /// The template lacks a part.
    #[error("the template has no {0}")]
    Lacks(&'static str),
}

impl Template {
    /// Returns the template that is built into this program.
    ///
    /// # Errors
    /// When the program was built with a broken template. The tests of such a build fail.
    pub fn built_in() -> Result<Self, TemplateError> {
        let mut template = yaml("template", TEMPLATE)?;
        let api = template
            .pointer_mut("/Resources/Api/Properties")
            .and_then(Value::as_object_mut);
        let body = yaml("OpenAPI document", OPENAPI)?;
        let name = format!("{DEPLOYMENT}{}", digest(&body.to_string()));
        api.ok_or(TemplateError::Lacks("resource `Api`"))?
            .insert("Body".into(), body);
        let resources = template
            .pointer_mut("/Resources")
            .and_then(Value::as_object_mut);
        let deployment = resources.and_then(|all| Some((all.remove(DEPLOYMENT)?, all)));
        let (deployment, resources) =
            deployment.ok_or(TemplateError::Lacks("resource `Deployment`"))?;
        resources.insert(name.clone(), deployment);
        rename(&mut template["Resources"], &name);
        Ok(Self(template))
    }

    /// Reads a complete template: one that was deployed before, or a user's own.
    ///
    /// # Errors
    /// When the text is no template.
    pub fn whole(text: &str) -> Result<Self, TemplateError> {
        let template = yaml("template", text)?;
        if template["Resources"].is_object() {
            Ok(Self(template))
        } else {
            Err(TemplateError::Lacks("resources"))
        }
    }

    /// Returns the template changed so that the table outlives the stack.
    ///
    /// CloudFormation makes no update for a changed deletion policy alone (its user guide: "you
    /// can't update the ... attribute by itself"). So the table also gets a tag, which marks it as
    /// kept.
    pub(crate) fn keeping_the_table(mut self) -> Result<Self, TemplateError> {
        let table = self.table_mut()?;
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            table.insert(policy.into(), "Retain".into());
        }
        let properties = table.get_mut("Properties").and_then(Value::as_object_mut);
        let properties = properties.ok_or(TemplateError::Lacks("property of the table"))?;
        // The tag is the only change: the table's deletion protection stays as it is, since a kept
        // table is to be deleted only on purpose.
        let tags = properties.entry("Tags").or_insert_with(|| json!([]));
        let kept = json!({"Key": KEPT_TAG, "Value": "true"});
        if let Some(tags) = tags.as_array_mut().filter(|tags| !tags.contains(&kept)) {
            tags.push(kept);
        }
        Ok(self)
    }

    /// Returns a template that has only the table in its present form, for CloudFormation to import
    /// into a new stack. An import creates and changes nothing else.
    pub(crate) fn of_kept_table(
        &self,
        name: &str,
        shape: &TableShape,
    ) -> Result<Self, TemplateError> {
        let whole = self.with_table(shape)?;
        let (logical_name, table) = whole.table_resource()?;
        let mut properties = table["Properties"].clone();
        if let Value::Object(properties) = &mut properties {
            // Properties that depend on parameters are added by the update after the import.
            properties.retain(|_, value| !value.to_string().contains("\"Fn::If\""));
            properties.insert("TableName".into(), name.into());
            for index in properties
                .get_mut("GlobalSecondaryIndexes")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Value::Object(index) = index {
                    index.retain(|_, value| !value.to_string().contains("\"Fn::If\""));
                }
            }
        }
        let table = json!({
            "Type": TABLE, "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain", "Properties": properties
        });
        Ok(Self(json!({
            "AWSTemplateFormatVersion": "2010-09-09", "Description": ADOPTED, "Resources": {logical_name: table}
        })))
    }

    /// Returns the name of the table within the template.
    pub(crate) fn table_name(&self) -> Result<String, TemplateError> {
        Ok(self.table_resource()?.0.clone())
    }

    fn table_resource(&self) -> Result<(&String, &Value), TemplateError> {
        let mut resources = self.0["Resources"].as_object().into_iter().flatten();
        resources
            .find(|(_, resource)| resource["Type"] == TABLE)
            .ok_or(TemplateError::Lacks("table"))
    }

    fn table_mut(&mut self) -> Result<&mut Map<String, Value>, TemplateError> {
        let resources = self
            .0
            .pointer_mut("/Resources")
            .and_then(Value::as_object_mut);
        let mut resources = resources.into_iter().flat_map(Map::values_mut);
        let table = resources.find(|resource| resource["Type"] == TABLE);
        table
            .and_then(Value::as_object_mut)
            .ok_or(TemplateError::Lacks("table"))
    }

    /// Returns the keys and indexes of the table.
    ///
    /// # Errors
    /// When the template has no table, or one whose keys are not written out.
    pub fn table(&self) -> Result<TableShape, TemplateError> {
        let (_, table) = self.table_resource()?;
        let shape = serde_json::from_value(table["Properties"].clone());
        shape.map_err(|error| TemplateError::Form("table of the template", error.to_string()))
    }

    /// Returns the template with the keys and indexes of its table replaced.
    ///
    /// # Errors
    /// When the template has no table.
    pub(crate) fn with_table(&self, shape: &TableShape) -> Result<Self, TemplateError> {
        if self.table()? == *shape {
            return Ok(self.clone());
        }
        let mut template = self.clone();
        let properties = template
            .table_mut()?
            .get_mut("Properties")
            .and_then(Value::as_object_mut);
        let properties = properties.ok_or(TemplateError::Lacks("property of the table"))?;
        let form = |error: serde_json::Error| TemplateError::Form("table", error.to_string());
        if let Value::Object(fields) = serde_json::to_value(shape).map_err(form)? {
            properties.extend(fields);
        }
        Ok(template)
    }

    /// Returns the names of the parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0["Parameters"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
    }

    /// Returns the default of a parameter.
    pub(crate) fn default_of(&self, parameter: &str) -> Option<String> {
        let default = &self.0["Parameters"][parameter]["Default"];
        default.as_str().map(str::to_owned)
    }

    /// Returns the number of resources, including those under a condition.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0["Resources"].as_object().map_or(0, Map::len)
    }

    /// Returns the template as JSON without needless spaces. CloudFormation takes up to a megabyte
    /// (CloudFormation quotas, "Template, URL").
    #[must_use]
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// Returns the template as indented JSON for readers.
    #[must_use]
    pub fn pretty(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// Returns the template's key in the bucket, derived from its content.
    #[must_use]
    pub fn key(&self) -> String {
        format!("templates/{}.json", digest(&self.text()))
    }
}

/// The resource type of the table.
pub(crate) const TABLE: &str = "AWS::DynamoDB::Table";

/// The description of a stack that holds only an imported table so far. An import cannot tag the
/// stack, so the description marks the stack as ours.
pub(crate) const ADOPTED: &str = "mycli: the history of a removed stack, on its way into a new one";

/// The tag of a table that `destroy --keep-history` left.
pub const KEPT_TAG: &str = "mycli:kept";

/// The resource that is a snapshot of the API. CloudFormation makes a new snapshot only under a new
/// name, so the name includes a hash of the API.
const DEPLOYMENT: &str = "Deployment";

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))[..16].to_owned()
}

/// Replaces references to the deployment by its new name.
fn rename(value: &mut Value, name: &str) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text)
                        if (key == "Ref" || key == "DependsOn") && text == DEPLOYMENT =>
                    {
                        name.clone_into(text);
                    }
                    value => rename(value, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, name)),
        _ => {}
    }
}

/// Parses YAML into JSON. A YAML map may have numbers as keys (the statuses in an OpenAPI
/// document); in JSON they become strings.
fn yaml(what: &'static str, text: &str) -> Result<Value, TemplateError> {
    let value = serde_norway::from_str::<serde_norway::Value>(text);
    let value = value.map_err(|error| TemplateError::Form(what, error.to_string()))?;
    json_of(value).ok_or_else(|| {
        TemplateError::Form(what, "it has short forms like `!Ref`; write `Ref:`".into())
    })
}

fn json_of(value: serde_norway::Value) -> Option<Value> {
    use serde_norway::Value as Yaml;
    Some(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Number(number) => serde_json::to_value(number).ok()?,
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => items
            .into_iter()
            .map(json_of)
            .collect::<Option<Vec<_>>>()?
            .into(),
        Yaml::Mapping(entries) => {
            let entries = entries
                .into_iter()
                .map(|(key, value)| Some((key_of(&key)?, json_of(value)?)));
            Value::Object(entries.collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Tagged(_) => return None,
    })
}

fn key_of(key: &serde_norway::Value) -> Option<String> {
    match key {
        serde_norway::Value::String(text) => Some(text.clone()),
        serde_norway::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_template_is_whole() {
        let template = Template::built_in().unwrap();
        assert!(
            template
                .0
                .pointer("/Resources/Api/Properties/Body/paths/~1execute")
                .is_some()
        );
        assert!(
            template.text().len() < 1_000_000,
            "{}",
            template.text().len()
        );
        let deployment = &template.0["Resources"]["Stage"]["Properties"]["DeploymentId"]["Ref"];
        let deployment = deployment.as_str().unwrap();
        assert!(deployment.len() == DEPLOYMENT.len() + 16, "{deployment}");
        assert!(
            template.0["Resources"][deployment].is_object()
                && template.0["Resources"][DEPLOYMENT].is_null()
        );
        for name in crate::install::OWN_PARAMETERS {
            assert!(
                template.parameters().any(|parameter| parameter == name),
                "{name}"
            );
        }
    }

    #[test]
    fn numbers_are_keys_of_json_too_and_short_forms_are_refused() {
        assert_eq!(
            yaml("test", "200: {a: [1, 2.5, true, ~]}").unwrap(),
            json!({"200": {"a": [1, 2.5, true, null]}})
        );
        assert!(yaml("test", "a: !Ref B").is_err());
    }

    #[test]
    fn a_table_with_other_indexes_is_the_same_otherwise() {
        let template = Template::built_in().unwrap();
        let shape = template.table().unwrap();
        assert_eq!(template.with_table(&shape).unwrap(), template);
        let mut fewer = shape.clone();
        fewer.global_secondary_indexes.pop();
        let changed = template.with_table(&fewer).unwrap();
        assert_eq!(changed.table().unwrap(), fewer);
        assert_eq!(changed.with_table(&shape).unwrap(), template);
    }

    #[test]
    fn a_kept_table_is_kept_and_changed_so_that_the_update_is_one() {
        let table = json!({"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Delete", "Properties": {"TableName": "t"}});
        let before =
            Template(json!({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}, "Table": table}}));
        let after = before.clone().keeping_the_table().unwrap();
        let table = &after.0["Resources"]["Table"];
        assert_eq!(
            (&table["DeletionPolicy"], &table["UpdateReplacePolicy"]),
            (&json!("Retain"), &json!("Retain"))
        );
        assert_ne!(
            table["Properties"],
            before.0["Resources"]["Table"]["Properties"]
        );
        assert_eq!(
            after.0["Resources"]["Queue"],
            before.0["Resources"]["Queue"]
        );
        assert_eq!(after.clone().keeping_the_table().unwrap(), after);
    }
}
