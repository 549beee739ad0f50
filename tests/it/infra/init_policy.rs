//! The policies of docs/init-policy against what CloudFormation does with the rights of the user
//! who runs `init`. AWS lists the actions for each type of resource. `deploy::permissions` checks
//! the calls of the commands themselves.

use std::{collections::BTreeSet, env, ffi::OsStr, fs, path::PathBuf};

use serde_json::{Value, json};
use tests::{
    operator::documents,
    policy::{Call, Policy},
    template::{Stack, Template},
};

use super::template::says_nothing_is_wrong;

/// The version in tests/setup.sh. cfn-lint comes with CloudFormation's resource schemas, whose
/// `handlers` list the actions of each type.
const CFN_LINT: &str = "cfn-lint-1.58.0";
/// The most characters of a managed policy, without white space (IAM User Guide, "IAM and AWS STS
/// quotas").
const POLICY_MAX: usize = 6144;

/// Actions that a handler may call but does not call for the resources of this template: type,
/// action, reason. A `*` at the end matches any rest.
const NOT_NEEDED: &[(&str, &str, &str)] = &[
    ("*", "kms:*", KEY),
    (
        "AWS::ApiGateway::RestApi",
        "apigateway:UpdateRestApiPolicy",
        "the API has no policy of its own",
    ),
    (
        "AWS::ApiGateway::RestApi",
        "s3:GetObject",
        "the API's document stands in the template",
    ),
    (
        "AWS::ApiGateway::RestApi",
        "iam:PassRole",
        "no integration has a role: the functions' permissions let the API in",
    ),
    ("AWS::DynamoDB::Table", "dynamodb:DescribeImport", IMPORT),
    ("AWS::DynamoDB::Table", "dynamodb:ImportTable", IMPORT),
    ("AWS::DynamoDB::Table", "dynamodb:BatchWriteItem", IMPORT),
    ("AWS::DynamoDB::Table", "dynamodb:DeleteItem", IMPORT),
    ("AWS::DynamoDB::Table", "dynamodb:Scan", IMPORT),
    ("AWS::DynamoDB::Table", "s3:*", IMPORT),
    ("AWS::DynamoDB::Table", "logs:*", IMPORT),
    ("AWS::DynamoDB::Table", "kinesis:*", STREAM),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:EnableKinesisStreamingDestination",
        STREAM,
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:DisableKinesisStreamingDestination",
        STREAM,
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:UpdateKinesisStreamingDestination",
        STREAM,
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:UpdateContributorInsights",
        "the template leaves them as they are: off",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:PutResourcePolicy",
        "the table has no policy of its own",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:DeleteResourcePolicy",
        "the table has no policy of its own",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:CreateTableReplica",
        REPLICA,
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:AssociateTableReplica",
        REPLICA,
    ),
    (
        "AWS::DynamoDB::Table",
        "iam:CreateServiceLinkedRole",
        REPLICA,
    ),
    ("AWS::S3::Bucket", "s3:PutBucketVersioning", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketAbac", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketAcl", UNUSED),
    ("AWS::S3::Bucket", "s3:PutObjectAcl", UNUSED),
    ("AWS::S3::Bucket", "s3:DeleteObject", UNUSED),
    ("AWS::S3::Bucket", "s3:PutAccelerateConfiguration", UNUSED),
    ("AWS::S3::Bucket", "s3:PutAnalyticsConfiguration", UNUSED),
    (
        "AWS::S3::Bucket",
        "s3:DeleteBucketAnalyticsConfiguration",
        UNUSED,
    ),
    ("AWS::S3::Bucket", "s3:PutBucketCORS", UNUSED),
    ("AWS::S3::Bucket", "s3:DeleteBucketCors", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketLogging", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketNotification", UNUSED),
    (
        "AWS::S3::Bucket",
        "s3:PutBucketObjectLockConfiguration",
        UNUSED,
    ),
    ("AWS::S3::Bucket", "s3:PutObjectLockConfiguration", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketReplication", UNUSED),
    ("AWS::S3::Bucket", "s3:PutReplicationConfiguration", UNUSED),
    ("AWS::S3::Bucket", "s3:DeleteBucketReplication", UNUSED),
    ("AWS::S3::Bucket", "s3:PutBucketWebsite", UNUSED),
    ("AWS::S3::Bucket", "s3:DeleteBucketWebsite", UNUSED),
    (
        "AWS::S3::Bucket",
        "s3:PutIntelligentTieringConfiguration",
        UNUSED,
    ),
    ("AWS::S3::Bucket", "s3:PutInventoryConfiguration", UNUSED),
    ("AWS::S3::Bucket", "s3:PutMetricsConfiguration", UNUSED),
    (
        "AWS::S3::Bucket",
        "s3:DeleteBucketMetricsConfiguration",
        UNUSED,
    ),
    ("AWS::S3::Bucket", "s3:DeleteBucketEncryption", UNUSED),
    ("AWS::S3::Bucket", "s3:DeleteBucketLifecycle", UNUSED),
    (
        "AWS::S3::Bucket",
        "s3:CreateBucketMetadataTableConfiguration",
        UNUSED,
    ),
    (
        "AWS::S3::Bucket",
        "s3:DeleteBucketMetadataTableConfiguration",
        UNUSED,
    ),
    ("AWS::S3::Bucket", "s3:UpdateBucketMetadata*", UNUSED),
    ("AWS::S3::Bucket", "s3tables:*", UNUSED),
    ("AWS::S3::Bucket", "iam:PassRole", UNUSED),
    (
        "AWS::EC2::EIP",
        "ec2:AcceptAddressTransfer",
        "the address is a new one",
    ),
    (
        "AWS::EC2::EIP",
        "ec2:AssociateAddress",
        "the NAT gateway takes the address by itself",
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:AssociateNatGatewayAddress",
        ONE_ADDRESS,
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:DisassociateNatGatewayAddress",
        ONE_ADDRESS,
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:AssignPrivateNatGatewayAddress",
        ONE_ADDRESS,
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:UnassignPrivateNatGatewayAddress",
        ONE_ADDRESS,
    ),
    (
        "AWS::EC2::SecurityGroup",
        "ec2:AuthorizeSecurityGroupIngress",
        NOTHING_IN,
    ),
    (
        "AWS::EC2::SecurityGroup",
        "ec2:RevokeSecurityGroupIngress",
        NOTHING_IN,
    ),
    (
        "AWS::EC2::SecurityGroup",
        "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
        NOTHING_IN,
    ),
    (
        "AWS::EC2::Subnet",
        "ec2:AssociateSubnetCidrBlock",
        "the subnets have no IPv6 addresses",
    ),
    (
        "AWS::EC2::Subnet",
        "ec2:DisassociateSubnetCidrBlock",
        "the subnets have no IPv6 addresses",
    ),
    (
        "AWS::EC2::VPC",
        "ec2:CreateVpcEncryptionControl",
        "the template asks for none",
    ),
    (
        "AWS::EC2::VPC",
        "ec2:ModifyVpcTenancy",
        "the tenancy stays the default one",
    ),
    (
        "AWS::EC2::VPCGatewayAttachment",
        "ec2:AttachVpnGateway",
        "the gateway is one to the internet",
    ),
    (
        "AWS::EC2::VPCGatewayAttachment",
        "ec2:DetachVpnGateway",
        "the gateway is one to the internet",
    ),
    (
        "AWS::ECS::Cluster",
        "ecs:PutAccountSetting",
        "the cluster takes the account's settings as they are",
    ),
    (
        "AWS::ECS::Cluster",
        "ecs:PutAccountSettingDefault",
        "the cluster takes the account's settings as they are",
    ),
    (
        "AWS::Events::Rule",
        "iam:PassRole",
        "the targets are a function and have no role",
    ),
    (
        "AWS::Lambda::Function",
        "elasticfilesystem:*",
        "the functions mount nothing",
    ),
    (
        "AWS::Lambda::Function",
        "s3files:*",
        "the functions mount nothing",
    ),
    (
        "AWS::Lambda::Function",
        "lambda:GetLayerVersion",
        "the functions have no layers",
    ),
    (
        "AWS::Lambda::Function",
        "lambda:GetCodeSigningConfig",
        UNSIGNED,
    ),
    (
        "AWS::Lambda::Function",
        "lambda:PutFunctionCodeSigningConfig",
        UNSIGNED,
    ),
    (
        "AWS::Lambda::Function",
        "lambda:DeleteFunctionCodeSigningConfig",
        UNSIGNED,
    ),
    (
        "AWS::Lambda::Function",
        "lambda:PutFunctionScalingConfig",
        ON_DEMAND,
    ),
    (
        "AWS::Lambda::Function",
        "lambda:PassCapacityProvider",
        ON_DEMAND,
    ),
    ("AWS::Lambda::Function", "lambda:PublishVersion", ON_DEMAND),
    (
        "AWS::Lambda::Alias",
        "lambda:PutProvisionedConcurrencyConfig",
        ON_DEMAND,
    ),
    (
        "AWS::Lambda::Alias",
        "lambda:DeleteProvisionedConcurrencyConfig",
        ON_DEMAND,
    ),
    (
        "AWS::Lambda::Alias",
        "codedeploy:*",
        "the alias always stands for $LATEST",
    ),
    (
        "AWS::Lambda::Function",
        "lambda:AssociateRuntimeAlias",
        "the runtime is Lambda's own",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:PutDataProtectionPolicy",
        NO_LOG_POLICY,
    ),
    ("AWS::Logs::LogGroup", "logs:PutIndexPolicy", NO_LOG_POLICY),
    (
        "AWS::Logs::LogGroup",
        "logs:DeleteIndexPolicy",
        NO_LOG_POLICY,
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:PutResourcePolicy",
        NO_LOG_POLICY,
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:DeleteResourcePolicy",
        NO_LOG_POLICY,
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:CreateLogDelivery",
        "the findings of a data protection policy would be delivered by it",
    ),
    (
        "AWS::Logs::LogGroup",
        "s3:REST.PUT.OBJECT",
        "the findings of a data protection policy would be delivered by it",
    ),
    (
        "AWS::Logs::LogGroup",
        "firehose:*",
        "the findings of a data protection policy would be delivered by it",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:PutLogGroupDeletionProtection",
        "the groups go with the stack",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:PutBearerTokenAuthentication",
        "nobody writes with a token",
    ),
    (
        "AWS::Logs::SubscriptionFilter",
        "iam:PassRole",
        "the destination is a function and takes no role",
    ),
];
const KEY: &str = "only with KmsKeyArn, and docs/ACCOUNT.md says which";
const IMPORT: &str = "the table begins empty, without an import or a replica";
const STREAM: &str = "the table's stream is DynamoDB's own";
const UNUSED: &str = "the bucket of the files of runs has none of that";
const REPLICA: &str = "the table is in one region";
const ONE_ADDRESS: &str = "the NAT gateway keeps its one address";
const NOTHING_IN: &str = "the group lets nothing in";
const UNSIGNED: &str = "the code is not signed";
const ON_DEMAND: &str =
    "the functions have no instances of the account's, no versions, and none kept ready";
const NO_LOG_POLICY: &str = "the groups have no policies of their own";

fn stack() -> Stack {
    Stack::named("default")
}

/// Returns all documents as one policy, which the user who runs `init` has.
fn policy() -> Policy {
    Policy::of_documents(documents(&stack()).iter().map(|(_, document)| document))
}

/// The names are the longest possible ones.
#[test]
fn init_policies_fit_into_managed_policies_and_are_what_aws_knows() {
    let longest = Stack {
        region: "ap-southeast-1".into(),
        ..Stack::named("a2345678901234567890")
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, document) in documents(&longest) {
        let text = document.to_string();
        assert!(
            text.len() <= POLICY_MAX,
            "{name} has {} characters",
            text.len()
        );
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        says_nothing_is_wrong("policies.py", &[file.as_os_str()]);
    }
}

#[test]
fn an_init_policy_is_for_one_stack_of_one_account_and_region() {
    let (policy, own) = (policy(), stack());
    let other = Stack {
        account: "210987654321".into(),
        region: "us-west-2".into(),
        ..stack()
    };
    let table = |stack: &Stack, name: &str| {
        Call::new(
            "dynamodb:DeleteTable",
            stack.arn("dynamodb", &format!("table/{name}")),
        )
    };
    assert!(policy.allows(&table(&own, "mycli-default")));
    assert!(
        !policy.allows(&table(&own, "mycli-other"))
            && !policy.allows(&table(&other, "mycli-default"))
    );
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let pass = |service: &str| {
        Call::new("iam:PassRole", role("mycli-default-SubmitRole-1"))
            .with("iam:PassedToService", service)
    };
    assert!(
        policy.allows(&pass("lambda.amazonaws.com")) && !policy.allows(&pass("ec2.amazonaws.com"))
    );
    for action in [
        "PutRolePolicy",
        "AttachRolePolicy",
        "UpdateAssumeRolePolicy",
        "DeleteRole",
    ] {
        let action = format!("iam:{action}");
        assert!(
            !policy.allows(&Call::new(&action, role("admin"))),
            "{action}"
        );
    }
    for action in [
        "iam:CreateUser",
        "iam:CreateAccessKey",
        "sts:AssumeRole",
        "ssm:GetParameters",
        "logs:PutLogEvents",
    ] {
        assert!(!policy.allows(&Call::new(action, "*")), "{action}");
    }
}

/// Returns the schema of a type as CloudFormation publishes it.
fn schema(kind: &str) -> Value {
    let cache = env::var_os("MYCLI_TESTS_CACHE").map(PathBuf::from);
    let home = || {
        env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"),
            PathBuf::from,
        )
    };
    let schemas = cache
        .unwrap_or_else(|| home().join("mycli-tests"))
        .join("tools")
        .join(CFN_LINT)
        .join("cfnlint/data/schemas");
    let read = |file: &OsStr| -> Value {
        let file = schemas.join(file);
        let text = fs::read(&file)
            .unwrap_or_else(|error| panic!("{}: {error}: run tests/setup.sh", file.display()));
        serde_json::from_slice(&text).unwrap()
    };
    let files = read(OsStr::new("providers/us-east-1.json"));
    let file = files[kind]
        .as_str()
        .unwrap_or_else(|| panic!("CloudFormation has no {kind}"));
    read(OsStr::new(&format!("resources/{file}.json")))
}

/// Returns the actions with which CloudFormation creates, reads, updates and deletes a resource of
/// a type.
fn actions(kind: &str) -> BTreeSet<String> {
    let schema = schema(kind);
    let handlers = ["create", "read", "update", "delete"]
        .map(|handler| schema["handlers"][handler]["permissions"].clone());
    let actions = handlers.iter().filter_map(Value::as_array).flatten();
    let actions: BTreeSet<_> = actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect();
    assert!(!actions.is_empty(), "{kind} says nothing of its handlers");
    actions
}

fn is_needed(kind: &str, action: &str) -> bool {
    let is = |pattern: &str, text: &str| {
        pattern
            .strip_suffix('*')
            .map_or(pattern == text, |start| text.starts_with(start))
    };
    !NOT_NEEDED
        .iter()
        .any(|(of, not, _)| is(of, kind) && is(not, action))
}

/// Returns the calls that IAM is asked about when a handler uses an action. Empty if they are not
/// known here.
fn calls(template: &Template, name: &str, kind: &str, action: &str) -> Vec<Call> {
    let stack = stack();
    let role = |name: &str| format!("arn:aws:iam::{}:role/{name}", stack.account);
    let pass = |name: &str, service: &str| {
        vec![Call::new(action, role(name)).with("iam:PassedToService", service)]
    };
    let one = |resource: String| vec![Call::new(action, resource)];
    let mapping = stack.arn(
        "lambda",
        "event-source-mapping:0f9d17ee-6465-404e-8b1b-2356dc13c2f8",
    );
    let function = stack.arn("lambda", "function:mycli-default-launcher");
    match (kind, action) {
        ("AWS::Lambda::Function", "iam:PassRole") => {
            pass("mycli-default-SubmitRole-1", "lambda.amazonaws.com")
        }
        ("AWS::Lambda::Function", "s3:GetObject" | "s3:GetObjectVersion") => one(format!(
            "arn:aws:s3:::mycli-default-{}-{}/functions/0/submit.zip",
            stack.account, stack.region
        )),
        ("AWS::ApiGateway::Account", "iam:PassRole") => {
            pass("mycli-default-GatewayRole-1", "apigateway.amazonaws.com")
        }
        ("AWS::ApiGateway::Account", "iam:GetRole") => one(role("mycli-default-GatewayRole-1")),
        ("AWS::ECS::Cluster", "iam:CreateServiceLinkedRole") => {
            let role = role("aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS");
            vec![Call::new(action, role).with("iam:AWSServiceName", "ecs.amazonaws.com")]
        }
        // These name no resource: either the Service Authorization Reference has none for the
        // action, or the handler lists all of them.
        (
            _,
            "logs:DescribeLogGroups"
            | "logs:DescribeIndexPolicies"
            | "logs:DescribeResourcePolicies",
        ) => one("*".into()),
        (_, "cloudwatch:DescribeAlarms") => one(stack.arn("cloudwatch", "alarm:*")),
        (_, "ec2:DescribeVpcAttribute") => one(stack.arn("ec2", "vpc/vpc-1")),
        (_, action) if action.starts_with("ec2:Describe") => one("*".into()),
        // EC2 chooses the ids of the parts of a network.
        (_, action) if action.starts_with("ec2:") => one(stack.arn("ec2", "vpc/vpc-1")),
        ("AWS::Lambda::EventSourceMapping", "lambda:CreateEventSourceMapping") => {
            vec![Call::new(action, "*").with("lambda:FunctionArn", function)]
        }
        ("AWS::Lambda::EventSourceMapping", _) => {
            vec![Call::new(action, mapping).with("lambda:FunctionArn", function)]
        }
        _ => own(template, name, kind, &stack)
            .into_iter()
            .map(|arn| Call::new(action, arn))
            .collect(),
    }
}

/// Returns the ARNs of a resource, in each form in which services use them.
fn own(template: &Template, name: &str, kind: &str, stack: &Stack) -> Vec<String> {
    let properties = template.properties(name, stack);
    let property = |property: &str| {
        properties[property]
            .as_str()
            .unwrap_or_else(|| panic!("{name} has no {property}"))
    };
    let arn = || {
        template
            .resolved(&json!({"Fn::GetAtt": format!("{name}.Arn")}), stack)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let group = |group: &str| {
        ["", ":*"]
            .map(|end| stack.arn("logs", &format!("log-group:{group}{end}")))
            .to_vec()
    };
    let api = |paths: &[&str]| -> Vec<_> {
        paths
            .iter()
            .map(|path| format!("arn:aws:apigateway:{}::{path}", stack.region))
            .collect()
    };
    match kind {
        "AWS::DynamoDB::Table"
        | "AWS::ECS::Cluster"
        | "AWS::Events::Rule"
        | "AWS::Lambda::Function"
        | "AWS::S3::Bucket"
        | "AWS::SQS::Queue" => {
            vec![arn()]
        }
        // CloudFormation appends a suffix to the name.
        "AWS::IAM::Role" => vec![format!("{}-0A1B2C3D4E5F", arn())],
        "AWS::Logs::LogGroup" | "AWS::Logs::MetricFilter" | "AWS::Logs::SubscriptionFilter" => {
            group(property("LogGroupName"))
        }
        "AWS::Lambda::Permission" | "AWS::Lambda::EventInvokeConfig" => {
            vec![stack.arn("lambda", &format!("function:{}", property("FunctionName")))]
        }
        "AWS::Lambda::Alias" => {
            let function = format!("function:{}", property("FunctionName"));
            let alias = format!("{function}:{}", property("Name"));
            [function, alias].map(|it| stack.arn("lambda", &it)).into()
        }
        "AWS::S3::BucketPolicy" => vec![format!("arn:aws:s3:::{}", property("Bucket"))],
        "AWS::SQS::QueuePolicy" => {
            let queues = properties["Queues"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str);
            queues
                .map(|url| stack.arn("sqs", url.rsplit('/').next().unwrap_or_default()))
                .collect()
        }
        "AWS::CloudWatch::Alarm" => {
            vec![stack.arn("cloudwatch", &format!("alarm:{}", property("AlarmName")))]
        }
        // A dashboard belongs to no region.
        "AWS::CloudWatch::Dashboard" => vec![format!(
            "arn:aws:cloudwatch::{}:dashboard/{}",
            stack.account,
            property("DashboardName")
        )],
        "AWS::ApiGateway::RestApi" => api(&["/restapis", "/restapis/a1b2c3"]),
        "AWS::ApiGateway::Deployment" => api(&[
            "/restapis/a1b2c3/deployments",
            "/restapis/a1b2c3/deployments/d4e5f6",
        ]),
        "AWS::ApiGateway::Stage" => {
            api(&["/restapis/a1b2c3/stages", "/restapis/a1b2c3/stages/prod"])
        }
        "AWS::ApiGateway::Account" => api(&["/account"]),
        _ => Vec::new(),
    }
}

/// This fails for a type of resource that is new in the template, until `calls` says what its
/// handler's calls are about.
#[test]
fn an_init_policy_has_what_each_type_of_the_template_takes() {
    let (template, policy) = (Template::read(), policy());
    let mut faults = Vec::new();
    for (name, resource) in template.0["Resources"].as_object().unwrap() {
        let kind = resource["Type"].as_str().unwrap();
        for action in actions(kind)
            .iter()
            .filter(|action| is_needed(kind, action))
        {
            let calls = calls(&template, name, kind, action);
            if calls.is_empty() {
                faults.push(format!("{kind}: it is not known what {action} is about"));
            }
            faults.extend(
                calls
                    .iter()
                    .filter(|call| !policy.allows(call))
                    .map(|call| format!("{kind}: may not {call:?}")),
            );
        }
    }
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// An exception that is not needed any more would hide a later one of the same name.
#[test]
fn what_an_init_policy_leaves_out_is_of_some_handler() {
    let template = Template::read();
    let types: BTreeSet<_> = template.0["Resources"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|one| one["Type"].as_str())
        .collect();
    for (of, not, why) in NOT_NEEDED {
        let start = not.strip_suffix('*');
        let is = |action: &String| start.map_or(action == not, |start| action.starts_with(start));
        let known = types
            .iter()
            .filter(|kind| *of == "*" || kind == &of)
            .any(|kind| actions(kind).iter().any(is));
        assert!(known, "{of} takes no {not}, though {why}");
    }
}
