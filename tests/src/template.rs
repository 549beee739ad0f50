//! The stack's template as it is deployed, for tests that read it: it includes the API, and all
//! intrinsic functions are resolved for one stack.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A template, or a resolved part of one.
#[derive(Clone, Debug)]
pub struct Template(pub Value);

/// A stack's account, region, parameters and resource names.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The account, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// The parameters that differ from their defaults.
    pub parameters: BTreeMap<String, String>,
    /// The results of `Ref` and `Fn::GetAtt`, by `Name` and `Name.Attribute`, where they differ
    /// from what [`Stack`] derives from the resource's own name.
    pub known: BTreeMap<String, String>,
}

/// An image of the runner, as a stack is given it.
const RUNNER_IMAGE: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/mycli-team@sha256:\
                            0000000000000000000000000000000000000000000000000000000000000000";

impl Stack {
    /// A stack with this short name, some code location, and defaults for all else.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let given = [
            ("StackName", name),
            ("CodeBucket", "code"),
            ("CodePrefix", "functions/0"),
            ("RunnerImage", RUNNER_IMAGE),
            ("Version", "0.0.0"),
        ];
        Self {
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            parameters: given
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            known: BTreeMap::new(),
        }
    }

    /// The ARN of a resource in this stack's account and region.
    #[must_use]
    pub fn arn(&self, service: &str, path: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{path}", self.region, self.account)
    }

    /// Sets a parameter.
    #[must_use]
    pub fn with(mut self, parameter: &str, value: &str) -> Self {
        self.parameters.insert(parameter.into(), value.into());
        self
    }
}

impl Template {
    /// The template that `mycli init` deploys.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read() -> Self {
        let template = deploy::template::Template::built_in().expect("a whole template");
        Self(serde_json::from_str(&template.text()).expect("JSON"))
    }

    /// A resource as written in the template.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn resource(&self, name: &str) -> &Value {
        self.0["Resources"]
            .get(name)
            .unwrap_or_else(|| panic!("the template has no {name}"))
    }

    /// The resources of a type, by name.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = (&str, &Value)> {
        let resources = self.0["Resources"].as_object().into_iter().flatten();
        resources
            .filter(move |(_, resource)| resource["Type"] == kind)
            .map(|(name, resource)| (name.as_str(), resource))
    }

    /// A resource's properties in this stack.
    ///
    /// # Panics
    /// When there is no such resource, or it uses an intrinsic function that is not known here.
    #[must_use]
    pub fn properties(&self, name: &str, stack: &Stack) -> Value {
        self.resolved(&self.resource(name)["Properties"], stack)
            .unwrap_or_default()
    }

    /// A value in this stack; `None` is `AWS::NoValue`.
    ///
    /// # Panics
    /// When it uses an intrinsic function that is not known here.
    #[must_use]
    pub fn resolved(&self, value: &Value, stack: &Stack) -> Option<Value> {
        match value {
            Value::Array(items) => Some(
                items
                    .iter()
                    .filter_map(|item| self.resolved(item, stack))
                    .collect(),
            ),
            Value::Object(map) => match only(map) {
                Some((function, argument)) if function == "Ref" || function.starts_with("Fn::") => {
                    self.call(function, argument, stack)
                }
                _ => {
                    let entries = map.iter().filter_map(|(key, value)| {
                        Some((key.clone(), self.resolved(value, stack)?))
                    });
                    Some(Value::Object(entries.collect()))
                }
            },
            plain => Some(plain.clone()),
        }
    }

    fn call(&self, function: &str, argument: &Value, stack: &Stack) -> Option<Value> {
        let text = |value: &Value| text_of(&self.resolved(value, stack).unwrap_or_default());
        let item = |index: usize| &argument[index];
        Some(match function {
            "Ref" if argument == "AWS::NoValue" => return None,
            "Ref" => self.named(&text_of(argument), stack).into(),
            "Fn::GetAtt" => self.named(&text_of(argument), stack).into(),
            "Fn::Sub" => self.substituted(&text_of(argument), stack).into(),
            "Fn::Join" => {
                let parts = self.resolved(item(1), stack).unwrap_or_default();
                let parts = parts.as_array().cloned().unwrap_or_else(|| vec![parts]);
                parts
                    .iter()
                    .map(text_of)
                    .collect::<Vec<_>>()
                    .join(&text(item(0)))
                    .into()
            }
            "Fn::If" => {
                return self.resolved(
                    item(if self.condition(&text_of(item(0)), stack) {
                        1
                    } else {
                        2
                    }),
                    stack,
                );
            }
            "Fn::Select" => {
                let index = item(0)
                    .as_u64()
                    .and_then(|index| usize::try_from(index).ok())
                    .expect("an index");
                self.resolved(item(1), stack)?[index].clone()
            }
            "Fn::GetAZs" => ["a", "b", "c"]
                .map(|zone| format!("{}{zone}", stack.region))
                .to_vec()
                .into(),
            "Fn::Equals" => (text(item(0)) == text(item(1))).into(),
            "Fn::Not" => (!self.holds(item(0), stack)).into(),
            "Fn::Or" => argument
                .as_array()
                .expect("a list")
                .iter()
                .any(|one| self.holds(one, stack))
                .into(),
            "Fn::And" => argument
                .as_array()
                .expect("a list")
                .iter()
                .all(|one| self.holds(one, stack))
                .into(),
            other => panic!("{other} is not known here"),
        })
    }

    /// Whether a condition of the template holds in this stack.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn condition(&self, name: &str, stack: &Stack) -> bool {
        let condition = self.0["Conditions"]
            .get(name)
            .unwrap_or_else(|| panic!("the template has no condition {name}"));
        self.holds(condition, stack)
    }

    fn holds(&self, condition: &Value, stack: &Stack) -> bool {
        match condition.get("Condition").and_then(Value::as_str) {
            Some(name) => self.condition(name, stack),
            None => self.resolved(condition, stack) == Some(Value::Bool(true)),
        }
    }

    fn substituted(&self, text: &str, stack: &Stack) -> String {
        let mut parts = text.split("${");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').expect("a closing brace");
            whole.push_str(&self.named(name, stack));
            whole.push_str(rest);
        }
        whole
    }

    /// The value of a name: a parameter, a pseudo parameter, a resource or `Resource.Attribute`.
    fn named(&self, name: &str, stack: &Stack) -> String {
        if let Some(known) = stack.known.get(name).or_else(|| stack.parameters.get(name)) {
            return known.clone();
        }
        match name {
            "AWS::Region" => stack.region.clone(),
            "AWS::AccountId" => stack.account.clone(),
            "AWS::Partition" => "aws".into(),
            "AWS::URLSuffix" => "amazonaws.com".into(),
            "AWS::StackName" => format!("mycli-{}", stack.parameters["StackName"]),
            _ => match self.0["Parameters"].get(name) {
                Some(parameter) => text_of(
                    parameter
                        .get("Default")
                        .expect("a parameter that was given"),
                ),
                None => self.of_resource(name, stack),
            },
        }
    }

    /// A resource's `Ref`, ARN or other attribute, derived from its type and its own name.
    fn of_resource(&self, name: &str, stack: &Stack) -> String {
        let (logical, attribute) = name.split_once('.').unwrap_or((name, ""));
        let resource = self.resource(logical);
        let kind = resource["Type"].as_str().unwrap_or_default();
        let own = [
            "QueueName",
            "BucketName",
            "TableName",
            "ClusterName",
            "FunctionName",
            "LogGroupName",
            "RoleName",
        ];
        let own = own
            .iter()
            .find_map(|property| resource["Properties"].get(property));
        let own = own
            .or_else(|| resource["Properties"].get("Name"))
            .and_then(|own| self.resolved(own, stack));
        let own = own.map_or_else(
            || format!("mycli-{}-{logical}", stack.parameters["StackName"]),
            |own| text_of(&own),
        );
        let (region, account) = (&stack.region, &stack.account);
        let arn = |service: &str, path: &str| stack.arn(service, &format!("{path}{own}"));
        match (kind, attribute) {
            ("AWS::SQS::Queue", "") => {
                format!("https://sqs.{region}.amazonaws.com/{account}/{own}")
            }
            (_, "" | "QueueName") => own,
            ("AWS::SQS::Queue", "Arn") => arn("sqs", ""),
            ("AWS::DynamoDB::Table", "Arn") => arn("dynamodb", "table/"),
            ("AWS::DynamoDB::Table", "StreamArn") => {
                format!(
                    "{}/stream/2026-11-24T00:00:00.000",
                    arn("dynamodb", "table/")
                )
            }
            ("AWS::S3::Bucket", "Arn") => format!("arn:aws:s3:::{own}"),
            ("AWS::ECS::Cluster", "Arn") => arn("ecs", "cluster/"),
            ("AWS::Lambda::Function", "Arn") => arn("lambda", "function:"),
            ("AWS::Logs::LogGroup", "Arn") => format!("{}:*", arn("logs", "log-group:")),
            ("AWS::Events::Rule", "Arn") => arn("events", "rule/"),
            ("AWS::IAM::Role", "Arn") => format!("arn:aws:iam::{account}:role/{own}"),
            ("AWS::EC2::SecurityGroup", "GroupId") => "sg-0123456789abcdef0".into(),
            _ => panic!("{kind} has no {attribute} here"),
        }
    }
}

fn only(map: &Map<String, Value>) -> Option<(&String, &Value)> {
    map.iter().next().filter(|_| map.len() == 1)
}

/// A parameter as text, whatever its type in YAML.
fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template() -> Template {
        Template(json!({
            "Parameters": {"Size": {"Default": 3}, "Zone": {"Default": ""}},
            "Conditions": {"Zoned": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Zone"}, ""]}]}},
            "Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "q-${StackName}"}}}},
        }))
    }

    fn resolved(value: &Value, stack: &Stack) -> Option<Value> {
        template().resolved(value, stack)
    }

    #[test]
    fn functions_are_resolved_for_one_stack() {
        let stack = Stack::named("one");
        assert_eq!(
            resolved(&json!({"Fn::GetAtt": "Queue.Arn"}), &stack).unwrap(),
            "arn:aws:sqs:eu-central-1:123456789012:q-one"
        );
        assert_eq!(
            resolved(&json!({"Fn::Sub": "a${Size}${Queue.QueueName}z"}), &stack).unwrap(),
            "a3q-onez"
        );
        let zones = json!({"Fn::Join": [",", ["x", {"Fn::Select": [1, {"Fn::GetAZs": ""}]}, {"Ref": "AWS::NoValue"}]]});
        assert_eq!(resolved(&zones, &stack).unwrap(), "x,eu-central-1b");
    }

    #[test]
    fn conditions_choose() {
        let zone = json!({"a": {"Fn::If": ["Zoned", {"Ref": "Zone"}, {"Ref": "AWS::NoValue"}]}});
        assert_eq!(resolved(&zone, &Stack::named("one")).unwrap(), json!({}));
        assert_eq!(
            resolved(&zone, &Stack::named("one").with("Zone", "z")).unwrap(),
            json!({"a": "z"})
        );
    }

    #[test]
    fn what_is_known_of_a_real_stack_goes_first() {
        let mut stack = Stack::named("one");
        stack.known.insert("Queue.Arn".into(), "arn:real".into());
        assert_eq!(
            resolved(&json!([{"Fn::GetAtt": "Queue.Arn"}]), &stack).unwrap(),
            json!(["arn:real"])
        );
    }
}
