//! What a role may do by IAM's rules (IAM User Guide, "Policy evaluation logic" and "IAM JSON
//! policy elements"), since no emulator checks it. Nothing is allowed unless a statement allows it,
//! and nothing that a statement denies.
//!
//! Elements and operators that the template does not use are an error, not a guess.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::template::{Stack, Template};

/// A call to AWS, as IAM sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The action, as `service:Action`.
    pub action: String,
    /// The resource's ARN, or `*` where the action has no resource.
    pub resource: String,
    /// The condition keys that the service passes to IAM.
    pub context: BTreeMap<String, String>,
}

impl Call {
    /// A call without condition keys.
    #[must_use]
    pub fn new(action: &str, resource: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            resource: resource.into(),
            context: BTreeMap::new(),
        }
    }

    /// Adds a condition key.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }
}

/// The statements of a role's policies.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Statement>);

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// The conditions, all of which must hold.
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    operator: String,
    key: String,
    values: Vec<String>,
}

impl Policy {
    /// The policies of one of the template's roles.
    ///
    /// # Panics
    /// When there is no such role, or it uses an element that is not known here.
    #[must_use]
    pub fn of_role(template: &Template, role: &str, stack: &Stack) -> Self {
        let properties = template.properties(role, stack);
        let policies = properties["Policies"]
            .as_array()
            .unwrap_or_else(|| panic!("{role} has no policies"));
        Self(
            policies
                .iter()
                .flat_map(|policy| statements(&policy["PolicyDocument"]))
                .collect(),
        )
    }

    /// The policy of an identity that has all these documents.
    ///
    /// # Panics
    /// When a document uses an element that is not known here.
    pub fn of_documents<'a>(documents: impl IntoIterator<Item = &'a Value>) -> Self {
        Self(documents.into_iter().flat_map(statements).collect())
    }

    /// Whether the call is allowed.
    #[must_use]
    pub fn allows(&self, call: &Call) -> bool {
        let mut fitting = self
            .0
            .iter()
            .filter(|statement| statement.fits(call))
            .peekable();
        fitting.peek().is_some() && fitting.all(|statement| statement.allows)
    }

    /// The allowed actions, on whatever resource.
    #[must_use]
    pub fn actions(&self) -> BTreeSet<&str> {
        let allowing = self.0.iter().filter(|statement| statement.allows);
        allowing
            .flat_map(|statement| &statement.actions)
            .map(String::as_str)
            .collect()
    }

    /// The allowed actions that none of these calls needed.
    #[must_use]
    pub fn unseen(&self, calls: &[Call]) -> BTreeSet<&str> {
        let seen = |action: &&str| {
            calls
                .iter()
                .any(|call| like(&action.to_lowercase(), &call.action.to_lowercase()))
        };
        self.actions()
            .into_iter()
            .filter(|action| !seen(action))
            .collect()
    }
}

/// The statements of a policy document.
///
/// # Panics
/// When it uses an element that is not known here.
fn statements(document: &Value) -> Vec<Statement> {
    assert_eq!(document["Version"], "2012-10-17", "{document}");
    document["Statement"]
        .as_array()
        .expect("a list of statements")
        .iter()
        .map(Statement::parse)
        .collect()
}

impl Statement {
    fn parse(statement: &Value) -> Self {
        let fields = statement.as_object().expect("a statement");
        for field in fields.keys() {
            assert!(
                ["Sid", "Effect", "Action", "Resource", "Condition"].contains(&field.as_str()),
                "{field} is not known here"
            );
        }
        let conditions = fields
            .get("Condition")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let conditions = conditions.flat_map(|(operator, keys)| {
            let keys = keys.as_object().expect("keys of a condition").iter();
            keys.map(move |(key, values)| Condition {
                operator: operator.clone(),
                key: key.clone(),
                values: texts(values),
            })
        });
        let conditions: Vec<_> = conditions.collect();
        for condition in &conditions {
            let known = ["StringEquals", "StringLike", "ArnEquals", "ArnLike"];
            assert!(
                known.contains(&condition.operator.as_str()),
                "{} is not known here",
                condition.operator
            );
        }
        Self {
            allows: match fields["Effect"].as_str() {
                Some("Allow") => true,
                Some("Deny") => false,
                other => panic!("{other:?} is no effect"),
            },
            actions: texts(&fields["Action"]),
            resources: texts(&fields["Resource"]),
            conditions,
        }
    }

    fn fits(&self, call: &Call) -> bool {
        let action = call.action.to_lowercase();
        self.actions
            .iter()
            .any(|pattern| like(&pattern.to_lowercase(), &action))
            && self
                .resources
                .iter()
                .any(|pattern| like_arn(pattern, &call.resource))
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(&call.context))
    }
}

impl Condition {
    /// Whether the condition holds. A condition fails if the request lacks its key, for all
    /// operators known here.
    fn holds(&self, context: &BTreeMap<String, String>) -> bool {
        // The names of keys are case-insensitive; values are not.
        let found = context
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(&self.key))
            .map(|(_, value)| value);
        let Some(found) = found else { return false };
        self.values
            .iter()
            .any(|value| match self.operator.as_str() {
                "StringEquals" => value == found,
                "StringLike" => like(value, found),
                // Both operators compare part by part, with wildcards (IAM User Guide, "ARN
                // condition operators").
                _ => like_arn(value, found),
            })
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().expect("a text").to_owned())
            .collect(),
        other => panic!("{other} is neither a text nor a list of texts"),
    }
}

/// Whether a text matches a pattern: `*` is any text, `?` any character.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len())
            .filter(|at| text.is_char_boundary(*at))
            .any(|at| like(&pattern[1..], &text[at..])),
        Some(wanted) => text.chars().next().is_some_and(|found| {
            (wanted == '?' || wanted == found)
                && like(&pattern[wanted.len_utf8()..], &text[found.len_utf8()..])
        }),
    }
}

/// Whether an ARN matches a pattern. An ARN has six parts, and a wildcard does not reach beyond its
/// part.
fn like_arn(pattern: &str, arn: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (patterns, parts): (Vec<_>, Vec<_>) = (
        pattern.splitn(6, ':').collect(),
        arn.splitn(6, ':').collect(),
    );
    patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| like(pattern, part))
}

/// The calls that IAM sees for a request to AWS, from its `X-Amz-Target` and its JSON body: one for
/// each action and each resource.
///
/// # Panics
/// When this project's functions do not call the operation, or write its body differently.
#[must_use]
pub fn calls_of(target: &str, body: &Value, stack: &Stack) -> Vec<Call> {
    let (service, operation) = target
        .split_once('.')
        .unwrap_or_else(|| panic!("{target} is no operation"));
    match service {
        "DynamoDB_20120810" => dynamodb(operation, body, stack),
        "AmazonSQS" => sqs(operation, body, stack),
        "AmazonEC2ContainerServiceV20141113" => ecs(operation, body, stack),
        "Logs_20140328" if operation == "GetLogEvents" => {
            let (group, stream) = (text(body, "logGroupName"), text(body, "logStreamName"));
            vec![Call::new(
                "logs:GetLogEvents",
                stack.arn("logs", &format!("log-group:{group}:log-stream:{stream}")),
            )]
        }
        "s3" => s3(operation, &text(body, "path")),
        "ServiceQuotasV20190624" => vec![Call::new(&format!("servicequotas:{operation}"), "*")],
        "AWSEvents" if operation == "PutEvents" => list(body, "Entries")
            .iter()
            .map(|entry| put_event(entry, stack))
            .collect(),
        "AWSEvents" if operation == "ListRules" => vec![Call::new("events:ListRules", "*")],
        _ => panic!("no function is meant to call {target}"),
    }
}

/// The call of an S3 operation on an object. An upload in parts needs the permission to put an object
/// (Amazon S3 User Guide, "Multipart upload API and permissions").
fn s3(operation: &str, path: &str) -> Vec<Call> {
    let action = match operation {
        "PutObject" | "CreateMultipartUpload" | "CompleteMultipartUpload" => "s3:PutObject",
        "GetObject" | "HeadObject" => "s3:GetObject",
        _ => panic!("no function is meant to call s3.{operation}"),
    };
    let object = path.trim_start_matches('/');
    vec![Call::new(action, format!("arn:aws:s3:::{object}"))]
}

fn put_event(entry: &Value, stack: &Stack) -> Call {
    let bus = entry
        .get("EventBusName")
        .and_then(Value::as_str)
        .unwrap_or("default");
    let bus = if bus.starts_with("arn:") {
        bus.to_owned()
    } else {
        stack.arn("events", &format!("event-bus/{bus}"))
    };
    Call::new("events:PutEvents", bus)
        .with("events:source", text(entry, "Source"))
        .with("events:detail-type", text(entry, "DetailType"))
}

/// The calls of a DynamoDB operation. A transaction or batch needs the permissions of its parts
/// (Amazon DynamoDB Developer Guide, "Using IAM with DynamoDB transactions").
fn dynamodb(operation: &str, body: &Value, stack: &Stack) -> Vec<Call> {
    let table = |name: &str| stack.arn("dynamodb", &format!("table/{name}"));
    match operation {
        "TransactWriteItems" => {
            let action = |name: &str| {
                if name == "ConditionCheck" {
                    "ConditionCheckItem".into()
                } else {
                    format!("{name}Item")
                }
            };
            let items = list(body, "TransactItems")
                .iter()
                .flat_map(|item| item.as_object().expect("an item"));
            let calls = items.map(|(name, item)| {
                Call::new(
                    &format!("dynamodb:{}", action(name)),
                    table(&text(item, "TableName")),
                )
            });
            calls.collect()
        }
        "TransactGetItems" => {
            let items = list(body, "TransactItems")
                .iter()
                .map(|item| text(&item["Get"], "TableName"));
            items
                .map(|name| Call::new("dynamodb:GetItem", table(&name)))
                .collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            let tables = body["RequestItems"].as_object().expect("tables").keys();
            tables
                .map(|name| Call::new(&format!("dynamodb:{operation}"), table(name)))
                .collect()
        }
        _ => {
            let table = table(&text(body, "TableName"));
            let index = body
                .get("IndexName")
                .and_then(Value::as_str)
                .map(|index| format!("{table}/index/{index}"));
            vec![Call::new(
                &format!("dynamodb:{operation}"),
                index.unwrap_or(table),
            )]
        }
    }
}

/// The call of an SQS operation. A batch needs the permission of the single operation (Amazon SQS
/// API permissions reference).
fn sqs(operation: &str, body: &Value, stack: &Stack) -> Vec<Call> {
    let url = text(body, "QueueUrl");
    let queue = url.rsplit('/').next().unwrap_or_default();
    let action = operation.strip_suffix("Batch").unwrap_or(operation);
    vec![Call::new(&format!("sqs:{action}"), stack.arn("sqs", queue))]
}

fn ecs(operation: &str, body: &Value, stack: &Stack) -> Vec<Call> {
    let cluster = body
        .get("cluster")
        .and_then(Value::as_str)
        .unwrap_or("default");
    let cluster = cluster.rsplit('/').next().unwrap_or_default();
    let task = |task: &Value| match task.as_str().expect("a task") {
        arn if arn.starts_with("arn:") => arn.to_owned(),
        id => stack.arn("ecs", &format!("task/{cluster}/{id}")),
    };
    let call = |resource: String| {
        Call::new(&format!("ecs:{operation}"), resource).with(
            "ecs:cluster",
            stack.arn("ecs", &format!("cluster/{cluster}")),
        )
    };
    match operation {
        "RegisterTaskDefinition" => {
            let mut calls = passed_roles(body);
            calls.push(Call::new("ecs:RegisterTaskDefinition", "*"));
            calls
        }
        "RunTask" => {
            let definition = text(body, "taskDefinition");
            let definition = if definition.starts_with("arn:") {
                definition
            } else {
                stack.arn("ecs", &format!("task-definition/{definition}"))
            };
            let mut calls = passed_roles(&body["overrides"]);
            if body["tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                let task = stack.arn("ecs", &format!("task/{cluster}/0123456789abcdef"));
                calls.push(Call::new("ecs:TagResource", task).with("ecs:CreateAction", "RunTask"));
            }
            calls.push(call(definition));
            calls
        }
        "DescribeTasks" => list(body, "tasks")
            .iter()
            .map(|one| call(task(one)))
            .collect(),
        "StopTask" => vec![call(task(&body["task"]))],
        "ListTasks" => vec![call("*".into())],
        _ => panic!("no function is meant to call ecs:{operation}"),
    }
}

/// The `iam:PassRole` calls: a caller that names a role for a task passes it.
fn passed_roles(body: &Value) -> Vec<Call> {
    let roles = ["taskRoleArn", "executionRoleArn"]
        .iter()
        .filter_map(|name| body.get(name)?.as_str());
    roles
        .map(|role| {
            Call::new("iam:PassRole", role).with("iam:PassedToService", "ecs-tasks.amazonaws.com")
        })
        .collect()
}

fn text(body: &Value, field: &str) -> String {
    body[field]
        .as_str()
        .unwrap_or_else(|| panic!("{body} has no {field}"))
        .to_owned()
}

fn list<'a>(body: &'a Value, field: &str) -> &'a [Value] {
    body[field]
        .as_array()
        .unwrap_or_else(|| panic!("{body} has no list {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(of: &Value) -> Policy {
        Policy(statements(
            &json!({"Version": "2012-10-17", "Statement": of}),
        ))
    }

    const QUEUE: &str = "arn:aws:sqs:eu-central-1:123456789012:q";

    #[test]
    fn nothing_is_allowed_unless_a_statement_says_so() {
        let policy = policy(
            &json!([{"Effect": "Allow", "Action": ["sqs:SendMessage", "sqs:Get*"], "Resource": QUEUE}]),
        );
        assert!(policy.allows(&Call::new("sqs:SendMessage", QUEUE)));
        assert!(policy.allows(&Call::new("SQS:getqueueurl", QUEUE)));
        assert!(!policy.allows(&Call::new("sqs:DeleteMessage", QUEUE)));
        assert!(!policy.allows(&Call::new("sqs:SendMessage", format!("{QUEUE}2"))));
        assert!(!policy.allows(&Call::new("sqs:SendMessage", "*")));
    }

    #[test]
    fn a_denial_wins() {
        let policy = policy(&json!([
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
            {"Effect": "Deny", "Action": "sqs:*", "Resource": QUEUE},
        ]));
        assert!(policy.allows(&Call::new("ecs:RunTask", "*")));
        assert!(!policy.allows(&Call::new("sqs:SendMessage", QUEUE)));
    }

    #[test]
    fn conditions_all_hold_and_a_missing_key_does_not() {
        let condition = json!({"StringEquals": {"a:x": ["1", "2"], "a:y": "3"}, "ArnEquals": {"ecs:cluster": "arn:aws:ecs:*:1:cluster/c"}});
        let policy = policy(
            &json!([{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": condition}]),
        );
        let call = |x: &str, cluster: &str| {
            Call::new("a:b", "r")
                .with("a:x", x)
                .with("A:Y", "3")
                .with("ecs:cluster", cluster)
        };
        assert!(policy.allows(&call("2", "arn:aws:ecs:eu-central-1:1:cluster/c")));
        assert!(!policy.allows(&call("4", "arn:aws:ecs:eu-central-1:1:cluster/c")));
        assert!(!policy.allows(&call("2", "arn:aws:ecs:eu-central-1:1:cluster/d")));
        assert!(!policy.allows(&Call::new("a:b", "r").with("a:x", "1").with("a:y", "3")));
    }

    #[test]
    fn a_wildcard_stays_in_its_part_of_an_arn() {
        assert!(like_arn("arn:aws:s3:::b*", "arn:aws:s3:::bucket/a:b"));
        assert!(!like_arn("arn:aws:*:b", "arn:aws:s3:::b"));
        assert!(!like_arn("arn:aws:sqs:*:1:q", "arn:aws:sqs:a:b:1:q"));
        assert!(like("a?c*", "abcdé") && !like("a?c", "ac"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for statement in [
            json!({"Effect": "Allow", "NotAction": "a:b", "Resource": "*"}),
            json!({"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": {"Bool": {"a:c": "true"}}}),
        ] {
            assert!(std::panic::catch_unwind(|| policy(&json!([statement]))).is_err());
        }
    }

    #[test]
    fn a_request_is_told_by_its_target_and_body() {
        let stack = Stack::named("one");
        let of = |target: &str, body: Value| calls_of(target, &body, &stack);
        let arn = |service: &str, path: &str| {
            format!("arn:aws:{service}:eu-central-1:123456789012:{path}")
        };
        assert_eq!(
            of(
                "DynamoDB_20120810.Query",
                json!({"TableName": "t", "IndexName": "i"})
            ),
            [Call::new(
                "dynamodb:Query",
                arn("dynamodb", "table/t/index/i")
            )]
        );
        let transaction = json!({"TransactItems": [{"Update": {"TableName": "t"}}, {"ConditionCheck": {"TableName": "t"}}]});
        let actions: Vec<_> = of("DynamoDB_20120810.TransactWriteItems", transaction)
            .into_iter()
            .map(|call| call.action)
            .collect();
        assert_eq!(
            actions,
            ["dynamodb:UpdateItem", "dynamodb:ConditionCheckItem"]
        );
        assert_eq!(
            of(
                "AmazonSQS.SendMessageBatch",
                json!({"QueueUrl": "http://localhost:1/123456789012/q"})
            ),
            [Call::new("sqs:SendMessage", QUEUE)]
        );
        let role = "arn:aws:iam::123456789012:role/mycli/one/x";
        let run =
            json!({"cluster": "c", "taskDefinition": "f:3", "overrides": {"taskRoleArn": role}});
        let cluster = arn("ecs", "cluster/c");
        assert_eq!(
            of("AmazonEC2ContainerServiceV20141113.RunTask", run),
            [
                Call::new("iam:PassRole", role)
                    .with("iam:PassedToService", "ecs-tasks.amazonaws.com"),
                Call::new("ecs:RunTask", arn("ecs", "task-definition/f:3"))
                    .with("ecs:cluster", cluster),
            ]
        );
        let events = json!({"Entries": [{"Source": "mycli", "DetailType": "d"}]});
        let event = Call::new("events:PutEvents", arn("events", "event-bus/default"));
        assert_eq!(
            of("AWSEvents.PutEvents", events),
            [event
                .with("events:source", "mycli")
                .with("events:detail-type", "d")]
        );
    }
}
