//! What each role may do and what it may not. The tests evaluate the policies themselves, since no
//! emulator asks IAM.

use serde_json::json;
use tests::{
    policy::{Call, Policy, calls_of},
    template::{Stack, Template},
};

/// Allowed actions that no call of a function shows, each with the reason for it: role, action,
/// reason.
pub(crate) const ARGUED: &[(&str, &str, &str)] = &[
    ("SubmitRole", "logs:CreateLogStream", LAMBDA_LOGS),
    ("SubmitRole", "logs:PutLogEvents", LAMBDA_LOGS),
    ("QueryRole", "logs:CreateLogStream", LAMBDA_LOGS),
    ("QueryRole", "logs:PutLogEvents", LAMBDA_LOGS),
    ("LauncherRole", "logs:CreateLogStream", LAMBDA_LOGS),
    ("LauncherRole", "logs:PutLogEvents", LAMBDA_LOGS),
    ("LauncherRole", "sqs:ReceiveMessage", LAMBDA_SOURCE),
    ("LauncherRole", "sqs:DeleteMessage", LAMBDA_SOURCE),
    ("LauncherRole", "sqs:GetQueueAttributes", LAMBDA_SOURCE),
    ("StateTrackerRole", "logs:CreateLogStream", LAMBDA_LOGS),
    ("StateTrackerRole", "logs:PutLogEvents", LAMBDA_LOGS),
    ("StateTrackerRole", "dynamodb:DescribeStream", LAMBDA_SOURCE),
    ("StateTrackerRole", "dynamodb:GetRecords", LAMBDA_SOURCE),
    (
        "StateTrackerRole",
        "dynamodb:GetShardIterator",
        LAMBDA_SOURCE,
    ),
    ("StateTrackerRole", "dynamodb:ListStreams", LAMBDA_SOURCE),
    ("SubmitRole", "s3:PutObject", SIGNED),
    (
        "SubmitRole",
        "s3:GetObject",
        "looks whether a file is there whose parts were put together before",
    ),
    (
        "QueryRole",
        "s3:ListBucket",
        "lets S3 say that a list of files is missing, not that it is forbidden",
    ),
    ("SubmitRole", "dynamodb:BatchGetItem", ONE_SET),
    ("LauncherRole", "dynamodb:BatchGetItem", ONE_SET),
    (
        "LauncherRole",
        "dynamodb:DeleteItem",
        "forgets a task definition that ECS does not know any more",
    ),
    ("LauncherRole", "ecs:DescribeTasks", NO_ANSWER),
    ("LauncherRole", "ecs:ListTasks", NO_ANSWER),
    (
        "LauncherRole",
        "sqs:SendMessage",
        "sends itself another hint when the launch rate is used up",
    ),
    (
        "StateTrackerRole",
        "dynamodb:DeleteItem",
        "forgets where a sweep was cut short, and lines that nobody used for a day",
    ),
    (
        "StateTrackerRole",
        "servicequotas:GetAWSDefaultServiceQuota",
        "an account that never asked for another quota has no value of its own; the emulator has no Service Quotas at all",
    ),
    (
        "StateTrackerRole",
        "ecs:StopTask",
        "stops what is long past its time",
    ),
];
const SIGNED: &str = "signs a request that the runner of a task makes";
const ONE_SET: &str = "all functions read records by one set of permissions, and this one reads nothing that GetItem does not";
const NO_ANSWER: &str = "asks ECS when RunTask's answer never came and its token may have ended";
const LAMBDA_LOGS: &str = "Lambda writes what the function prints";
const LAMBDA_SOURCE: &str = "Lambda reads the event source with the function's role";

const ROLES: [&str; 4] = [
    "SubmitRole",
    "QueryRole",
    "LauncherRole",
    "StateTrackerRole",
];

fn stack() -> Stack {
    Stack::named("default")
}

fn policy(role: &str) -> Policy {
    Policy::of_role(&Template::read(), role, &stack())
}

fn arn(service: &str, path: &str) -> String {
    stack().arn(service, path)
}

fn role_arn(path: &str) -> String {
    format!("arn:aws:iam::123456789012:role/{path}")
}

/// Asserts which of the four functions' roles allow a call.
#[track_caller]
fn check(call: &Call, allowed: &[&str]) {
    let found: Vec<_> = ROLES
        .into_iter()
        .filter(|role| policy(role).allows(call))
        .collect();
    assert_eq!(found, allowed, "{call:?}");
}

const WRITERS: &[&str] = &["SubmitRole", "LauncherRole", "StateTrackerRole"];
const TASK_KEEPERS: &[&str] = &["LauncherRole", "StateTrackerRole"];
const LAUNCHER: &[&str] = &["LauncherRole"];

#[test]
fn records_are_read_by_all_and_written_by_those_who_change_them() {
    let table = arn("dynamodb", "table/mycli-default");
    for action in ["GetItem", "BatchGetItem", "Query"] {
        check(&Call::new(&format!("dynamodb:{action}"), &table), &ROLES);
    }
    check(
        &Call::new("dynamodb:Query", format!("{table}/index/by_submitter")),
        &ROLES,
    );
    for action in ["PutItem", "UpdateItem", "DeleteItem"] {
        check(&Call::new(&format!("dynamodb:{action}"), &table), WRITERS);
    }
    for action in [
        "Scan",
        "DeleteTable",
        "UpdateTable",
        "BatchWriteItem",
        "ExportTableToPointInTime",
    ] {
        check(&Call::new(&format!("dynamodb:{action}"), &table), &[]);
    }
    for other in ["mycli-other", "mycli-default2"] {
        check(
            &Call::new(
                "dynamodb:GetItem",
                arn("dynamodb", &format!("table/{other}")),
            ),
            &[],
        );
    }
}

#[test]
fn wakeups_are_sent_by_who_writes_and_received_for_the_launcher() {
    for queue in ["mycli-default-launch", "mycli-default-control"] {
        check(&Call::new("sqs:SendMessage", arn("sqs", queue)), WRITERS);
        check(
            &Call::new("sqs:ReceiveMessage", arn("sqs", queue)),
            LAUNCHER,
        );
        check(&Call::new("sqs:PurgeQueue", arn("sqs", queue)), &[]);
    }
    check(
        &Call::new("sqs:SendMessage", arn("sqs", "mycli-default-events-dead")),
        &["StateTrackerRole"],
    );
    check(
        &Call::new("sqs:SendMessage", arn("sqs", "mycli-other-launch")),
        &[],
    );
}

fn ecs(action: &str, resource: String, cluster: &str) -> Call {
    Call::new(&format!("ecs:{action}"), resource)
        .with("ecs:cluster", arn("ecs", &format!("cluster/{cluster}")))
}

#[test]
fn only_launcher_and_state_tracker_touch_ecs_and_only_in_their_cluster() {
    let task = |cluster: &str| {
        arn(
            "ecs",
            &format!("task/{cluster}/0f9de17a6465404e8b1b2356dc13c2f8"),
        )
    };
    for action in ["DescribeTasks", "StopTask"] {
        check(
            &ecs(action, task("mycli-default"), "mycli-default"),
            TASK_KEEPERS,
        );
        check(&ecs(action, task("other"), "other"), &[]);
        check(&ecs(action, task("mycli-default"), "other"), &[]);
    }
    check(&ecs("ListTasks", "*".into(), "mycli-default"), LAUNCHER);
    check(&ecs("ListTasks", "*".into(), "other"), &[]);
}

#[test]
fn the_launcher_runs_its_own_definitions_in_its_own_cluster() {
    let definition = |family: &str| arn("ecs", &format!("task-definition/{family}:3"));
    check(&Call::new("ecs:RegisterTaskDefinition", "*"), LAUNCHER);
    check(
        &ecs("RunTask", definition("mycli-default-3f2a"), "mycli-default"),
        LAUNCHER,
    );
    check(
        &ecs("RunTask", definition("mycli-default-3f2a"), "other"),
        &[],
    );
    check(&ecs("RunTask", definition("payroll"), "mycli-default"), &[]);
    check(
        &ecs(
            "DeregisterTaskDefinition",
            definition("mycli-default-3f2a"),
            "mycli-default",
        ),
        &[],
    );
    check(
        &ecs(
            "UpdateService",
            arn("ecs", "service/mycli-default/x"),
            "mycli-default",
        ),
        &[],
    );
}

#[test]
fn only_the_stacks_own_roles_go_to_tasks() {
    let pass = |role: &str| {
        Call::new("iam:PassRole", role_arn(role))
            .with("iam:PassedToService", "ecs-tasks.amazonaws.com")
    };
    for role in [
        "mycli/default/deployer",
        "mycli/default/team/deployer",
        "mycli-default-ExecutionRole",
        "mycli-default-TaskRole",
    ] {
        check(&pass(role), LAUNCHER);
    }
    for role in [
        "deployer",
        "mycli/other/deployer",
        "mycli/default",
        "mycli-default-LauncherRole",
        "admin/mycli/default/x",
    ] {
        check(&pass(role), &[]);
    }
    let to_lambda = Call::new("iam:PassRole", role_arn("mycli/default/deployer"))
        .with("iam:PassedToService", "lambda.amazonaws.com");
    check(&to_lambda, &[]);
}

#[test]
fn a_request_with_a_role_of_its_own_passes_that_role() {
    let request = json!({
        "cluster": "mycli-default", "taskDefinition": arn("ecs", "task-definition/mycli-default-3f2a:1"),
        "overrides": {"taskRoleArn": role_arn("mycli/default/deployer"), "containerOverrides": []},
    });
    let calls = calls_of(
        "AmazonEC2ContainerServiceV20141113.RunTask",
        &request,
        &stack(),
    );
    assert_eq!(calls.len(), 2);
    assert!(
        calls.iter().all(|call| policy("LauncherRole").allows(call)),
        "{calls:?}"
    );
    let mut foreign = request;
    foreign["overrides"]["taskRoleArn"] = role_arn("admin").into();
    let calls = calls_of(
        "AmazonEC2ContainerServiceV20141113.RunTask",
        &foreign,
        &stack(),
    );
    assert!(
        !calls.iter().all(|call| policy("LauncherRole").allows(call)),
        "{calls:?}"
    );
}

#[test]
fn logs_of_tasks_are_read_and_only_own_logs_written() {
    let stream = |group: &str| {
        arn(
            "logs",
            &format!("log-group:{group}:log-stream:task/main/0f9d"),
        )
    };
    check(
        &Call::new("logs:GetLogEvents", stream("/aws/mycli/default")),
        &["QueryRole", "LauncherRole", "StateTrackerRole"],
    );
    check(
        &Call::new("logs:GetLogEvents", stream("/aws/mycli/other")),
        &[],
    );
    check(
        &Call::new(
            "logs:GetLogEvents",
            stream("/aws/lambda/mycli-default-submit"),
        ),
        &[],
    );
    check(
        &Call::new("logs:PutLogEvents", stream("/aws/mycli/default")),
        &[],
    );
    check(
        &Call::new(
            "logs:PutLogEvents",
            stream("/aws/lambda/mycli-default-submit"),
        ),
        &["SubmitRole"],
    );
}

/// No function may read a secret's value, so none can leak one.
#[test]
fn values_of_secrets_are_read_by_ecs_alone() {
    let calls = [
        Call::new(
            "ssm:GetParameters",
            arn("ssm", "parameter/mycli/default/secrets/TOKEN"),
        ),
        Call::new(
            "secretsmanager:GetSecretValue",
            arn("secretsmanager", "secret:mycli/default/registry-AbCdEf"),
        ),
    ];
    let ecs = policy("ExecutionRole");
    for call in &calls {
        check(call, &[]);
        assert!(ecs.allows(call), "{call:?}");
        assert!(!policy("TaskRole").allows(call), "{call:?}");
    }
    assert!(!ecs.allows(&Call::new(
        "ssm:GetParameters",
        arn("ssm", "parameter/mycli/other/secrets/TOKEN")
    )));
    assert!(!ecs.allows(&Call::new(
        "secretsmanager:GetSecretValue",
        arn("secretsmanager", "secret:payroll-AbCdEf")
    )));
}

/// A command that could write into its task's own stream could not forge how it ended, because it
/// does not know the nonce. But it could bury the log under its own lines. It must not write into
/// other tasks' streams either.
#[test]
fn a_command_may_write_its_own_streams_and_nothing_else() {
    let command = policy("TaskRole");
    let stream = |name: &str| {
        arn(
            "logs",
            &format!("log-group:/aws/mycli/default:log-stream:{name}"),
        )
    };
    assert!(command.allows(&Call::new("logs:PutLogEvents", stream("command/report"))));
    assert!(!command.allows(&Call::new("logs:PutLogEvents", stream("task/main/0f9d"))));
    assert_eq!(
        command.actions().into_iter().collect::<Vec<_>>(),
        ["logs:CreateLogStream", "logs:PutLogEvents"]
    );
    assert!(
        policy("ExecutionRole").allows(&Call::new("logs:PutLogEvents", stream("task/main/0f9d")))
    );
}

#[test]
fn policies_of_the_owner_are_added_to_the_commands_role() {
    let attached =
        |stack: &Stack| Template::read().properties("TaskRole", stack)["ManagedPolicyArns"].clone();
    assert_eq!(attached(&stack()), json!(null));
    let read_only = "arn:aws:iam::aws:policy/ReadOnlyAccess";
    assert_eq!(
        attached(&stack().with("TaskRolePolicyArns", read_only)),
        json!(read_only)
    );
}

#[test]
fn what_is_argued_for_is_allowed() {
    for (role, action, why) in ARGUED {
        assert!(
            policy(role).actions().contains(action),
            "{role} is not allowed {action}, though {why}"
        );
    }
}

#[test]
fn a_wildcard_stands_only_where_there_are_no_resources() {
    let template = Template::read();
    let anything: Vec<_> = [
        "ecr:GetAuthorizationToken",
        "ecs:ListTasks",
        "ecs:RegisterTaskDefinition",
        "dynamodb:ListStreams",
        "events:ListRules",
        "servicequotas:GetServiceQuota",
        "servicequotas:GetAWSDefaultServiceQuota",
    ]
    .into();
    for (role, _) in template
        .of_type("AWS::IAM::Role")
        .filter(|(_, role)| !role["Properties"]["Policies"].is_null())
    {
        for policy in template.properties(role, &stack())["Policies"]
            .as_array()
            .unwrap()
        {
            for statement in policy["PolicyDocument"]["Statement"].as_array().unwrap() {
                let actions = statement["Action"].to_string();
                assert!(!actions.contains('*'), "{role}: {statement}");
                let everywhere = statement["Resource"] == "*";
                assert!(
                    !everywhere || anything.iter().any(|action| statement["Action"] == *action),
                    "{role}: {statement}"
                );
            }
        }
    }
}
