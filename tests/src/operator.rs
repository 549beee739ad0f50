//! The calls of `mycli init`, `upgrade`, `destroy` and `doctor` as IAM sees them, and the policies
//! that docs/init-policy offers for these commands.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    policy::{self, Call},
    template::Stack,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/init-policy");

/// The policy documents for one stack, by file name. Their placeholders are replaced as
/// docs/ACCOUNT.md says.
///
/// # Panics
/// When a document cannot be read.
#[must_use]
pub fn documents(stack: &Stack) -> Vec<(String, Value)> {
    let mut files: Vec<_> = fs::read_dir(FOLDER)
        .expect("docs/init-policy")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "docs/init-policy is empty");
    files
        .iter()
        .map(|file| (name_of(file), document(file, stack)))
        .collect()
}

fn name_of(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn document(file: &Path, stack: &Stack) -> Value {
    let text = fs::read_to_string(file).expect("a policy");
    let text = text
        .replace("REGION", &stack.region)
        .replace("ACCOUNT", &stack.account);
    serde_json::from_str(&text.replace("STACK", &stack.parameters["StackName"])).expect("JSON")
}

/// The calls that IAM sees for one request of the command line, given as a line of the emulator's
/// `commands.jsonl`. Where an operation and its action have different names, the Service
/// Authorization Reference gives the action's.
///
/// # Panics
/// When these commands do not call the operation.
#[must_use]
pub fn calls_of(request: &Value, stack: &Stack) -> Vec<Call> {
    let (service, operation) = (text(request, "service"), text(request, "operation"));
    let given = &request["parameters"];
    let one = |resource: String| vec![Call::new(&format!("{service}:{operation}"), resource)];
    match (service, operation) {
        // This needs no permission (STS API reference, `GetCallerIdentity`).
        ("sts", "GetCallerIdentity") => Vec::new(),
        ("cloudformation", _) => cloudformation(operation, given, stack),
        ("s3", _) => s3(operation, text(request, "path")),
        ("dynamodb", "ListTagsOfResource" | "UntagResource") => {
            one(text(given, "ResourceArn").to_owned())
        }
        ("dynamodb", _) => {
            policy::calls_of(&format!("DynamoDB_20120810.{operation}"), given, stack)
        }
        ("sqs", _) => policy::calls_of(&format!("AmazonSQS.{operation}"), given, stack),
        ("ssm", "DescribeParameters") => one("*".into()),
        ("ssm", "DeleteParameters") => texts(&given["Names"])
            .map(|name| {
                Call::new(
                    "ssm:DeleteParameters",
                    stack.arn("ssm", &format!("parameter{name}")),
                )
            })
            .collect(),
        ("ecs", "ListTasks" | "StopTask") => policy::calls_of(
            &format!("AmazonEC2ContainerServiceV20141113.{operation}"),
            given,
            stack,
        ),
        (
            "ecs",
            "DeregisterTaskDefinition"
            | "ListAccountSettings"
            | "ListTaskDefinitionFamilies"
            | "ListTaskDefinitions",
        ) => one("*".into()),
        ("ecs", "DeleteTaskDefinitions") => texts(&given["taskDefinitions"])
            .map(|arn| Call::new("ecs:DeleteTaskDefinitions", arn))
            .collect(),
        ("ecr", "GetAuthorizationToken") => one("*".into()),
        ("ecr", _) => {
            let named = texts(&given["repositoryNames"]).next();
            let name = named.unwrap_or_else(|| text(given, "repositoryName"));
            let repository = stack.arn("ecr", &format!("repository/{name}"));
            let call = |operation: &str| Call::new(&format!("ecr:{operation}"), &*repository);
            let tags = (!given["tags"].is_null()).then(|| call("TagResource"));
            [call(operation)].into_iter().chain(tags).collect()
        }
        ("ec2", "DescribeAvailabilityZones" | "DescribeSubnets") => one("*".into()),
        ("apigateway", _) => {
            let resource = format!(
                "arn:aws:apigateway:{}::{}",
                stack.region,
                text(request, "path")
            );
            vec![Call::new(
                &format!("apigateway:{}", text(request, "method")),
                resource,
            )]
        }
        ("iam", "GetAccountAuthorizationDetails") => one("*".into()),
        ("iam", "SimulatePrincipalPolicy") => one(text(given, "PolicySourceArn").to_owned()),
        ("iam", "CreateServiceLinkedRole") => {
            let service = text(given, "AWSServiceName");
            let role = format!(
                "arn:aws:iam::{}:role/aws-service-role/{service}/AWSServiceRoleForECS",
                stack.account
            );
            vec![Call::new("iam:CreateServiceLinkedRole", role).with("iam:AWSServiceName", service)]
        }
        ("iam", _) => one(format!(
            "arn:aws:iam::{}:role/{}",
            stack.account,
            text(given, "RoleName")
        )),
        ("service-quotas", _) => vec![Call::new(&format!("servicequotas:{operation}"), "*")],
        _ => panic!("these commands are not meant to call {service}:{operation}"),
    }
}

/// CloudFormation reads the template with the caller's rights. It tags what it creates by a
/// separate action.
fn cloudformation(operation: &str, given: &Value, stack: &Stack) -> Vec<Call> {
    let name = text(given, "StackName");
    let arn = if name.starts_with("arn:") {
        name.to_owned()
    } else {
        stack.arn("cloudformation", &format!("stack/{name}/0f9d"))
    };
    let mut calls = vec![Call::new(&format!("cloudformation:{operation}"), &arn)];
    if let Some(url) = given.get("TemplateURL").and_then(Value::as_str) {
        let path = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .expect("an address")
            .1;
        calls.push(Call::new("s3:GetObject", format!("arn:aws:s3:::{path}")));
    }
    if given
        .as_object()
        .is_some_and(|given| given.keys().any(|name| name.starts_with("Tags.")))
    {
        calls.push(Call::new("cloudformation:TagResource", arn));
    }
    calls
}

fn s3(operation: &str, path: &str) -> Vec<Call> {
    let path = path.trim_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let (bucket, object) = (
        format!("arn:aws:s3:::{bucket}"),
        format!("arn:aws:s3:::{bucket}/{key}"),
    );
    let actions: &[(&str, &String)] = match operation {
        "HeadBucket" => &[("ListBucket", &bucket)],
        "ListObjectVersions" => &[("ListBucketVersions", &bucket)],
        "PutPublicAccessBlock" => &[("PutBucketPublicAccessBlock", &bucket)],
        "PutBucketEncryption" => &[("PutEncryptionConfiguration", &bucket)],
        "CreateBucket"
        | "DeleteBucket"
        | "PutBucketPolicy"
        | "PutBucketTagging"
        | "PutBucketVersioning" => &[(operation, &bucket)],
        // A missing object is a 404 only for a caller that may list the bucket.
        "HeadObject" => &[("GetObject", &object), ("ListBucket", &bucket)],
        "PutObject" => &[("PutObject", &object)],
        "DeleteObjects" => &[("DeleteObject", &object), ("DeleteObjectVersion", &object)],
        _ => panic!("these commands are not meant to call s3:{operation}"),
    };
    actions
        .iter()
        .map(|(action, resource)| Call::new(&format!("s3:{action}"), *resource))
        .collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no {field}"))
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_told_by_its_operation_path_and_parameters() {
        let stack = Stack::named("one");
        let of = |request: Value| calls_of(&request, &stack);
        let put = json!({"service": "s3", "operation": "PutBucketEncryption", "method": "PUT", "path": "/b", "parameters": {}});
        assert_eq!(
            of(put),
            [Call::new("s3:PutEncryptionConfiguration", "arn:aws:s3:::b")]
        );
        let create = json!({
            "service": "cloudformation", "operation": "CreateStack", "method": "POST", "path": "/",
            "parameters": {"StackName": "mycli-one", "TemplateURL": "http://localhost:1/b/k/t.json", "Tags.member.1.Key": "k"},
        });
        let arn = "arn:aws:cloudformation:eu-central-1:123456789012:stack/mycli-one/0f9d";
        assert_eq!(
            of(create),
            [
                Call::new("cloudformation:CreateStack", arn),
                Call::new("s3:GetObject", "arn:aws:s3:::b/k/t.json"),
                Call::new("cloudformation:TagResource", arn),
            ]
        );
        let patch = json!({"service": "apigateway", "operation": "UpdateAccount", "method": "PATCH", "path": "/account"});
        assert_eq!(
            of(patch),
            [Call::new(
                "apigateway:PATCH",
                "arn:aws:apigateway:eu-central-1::/account"
            )]
        );
    }

    #[test]
    fn a_document_is_for_one_stack() {
        for (name, document) in documents(&Stack::named("one")) {
            let text = document.to_string();
            assert!(
                !["REGION", "ACCOUNT", "STACK"]
                    .iter()
                    .any(|left| text.contains(left)),
                "{name}"
            );
        }
    }
}
