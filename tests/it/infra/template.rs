//! The template as a whole.

use std::{collections::BTreeSet, ffi::OsStr, fs, path::Path, process::Command};

use domain::{
    error::{Corrupt, PASSED_OVER},
    id::ExecutionId,
    metric::{METRICS, Metric},
};
use pipeline::state_tracker::NO_TASKS_LINES;
use serde_json::{Value, json};
use tests::{
    logged,
    template::{Stack, Template},
};

/// cfn-lint and checkov find nothing except what the template skips with a reason.
#[test]
fn linters_find_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.json");
    fs::write(&file, format!("{:#}", Template::read().0)).unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/infra/lint.sh"))
        .arg(&file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// Runs one of the scripts beside the tests, and asserts that it finds no fault.
#[track_caller]
pub(super) fn says_nothing_is_wrong(script: &str, arguments: &[&OsStr]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new("python3")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// Each action of each role exists in AWS, and its resource is of a type that the action can be
/// used on.
#[test]
fn policies_are_what_the_service_authorization_reference_knows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.json");
    fs::write(&file, format!("{:#}", Template::read().0)).unwrap();
    says_nothing_is_wrong("policies.py", &[file.as_os_str()]);
}

/// The script that checks policies and the one that checks the requests to the emulator find the
/// faults that they are meant to find.
#[test]
fn who_looks_at_policies_and_requests_finds_what_is_wrong() {
    says_nothing_is_wrong("policies.py", &[OsStr::new("self-test")]);
    says_nothing_is_wrong("models.py", &[OsStr::new("self-test")]);
}

#[test]
fn whatever_is_skipped_says_why() {
    let template = Template::read();
    for (name, resource) in template.0["Resources"].as_object().unwrap() {
        for skip in resource["Metadata"]["checkov"]["skip"]
            .as_array()
            .into_iter()
            .flatten()
        {
            assert!(
                skip["comment"].as_str().is_some_and(|why| why.len() > 20),
                "{name}: {skip}"
            );
        }
    }
}

/// An alarm makes every message visible that cannot be processed.
#[test]
fn every_dead_letter_rings() {
    let template = Template::read();
    let stack = Stack::named("default");
    let alarms: Vec<_> = template
        .of_type("AWS::CloudWatch::Alarm")
        .map(|(name, _)| template.properties(name, &stack))
        .collect();
    for (name, _) in template.of_type("AWS::SQS::Queue") {
        let queue = template.properties(name, &stack);
        let rings = |metric: &str| {
            alarms.iter().any(|alarm| {
                alarm["MetricName"] == metric
                    && alarm["Dimensions"][0]["Value"] == queue["QueueName"]
            })
        };
        let is_source = !queue["RedrivePolicy"].is_null();
        assert!(
            rings(if is_source {
                "ApproximateAgeOfOldestMessage"
            } else {
                "ApproximateNumberOfMessagesVisible"
            }),
            "{name}"
        );
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{name}");
    }
}

/// A task's event holds the run's variables, and a dead letter is kept for two weeks. So such an
/// event gets no dead-letter queue. The sweep finds out what a lost event would have reported.
#[test]
fn no_event_of_a_task_becomes_a_dead_letter() {
    let template = Template::read();
    let stack = Stack::named("default");
    let targets = template.properties("TaskRule", &stack)["Targets"].clone();
    assert_eq!(
        (
            targets.as_array().unwrap().len(),
            &targets[0]["DeadLetterConfig"]
        ),
        (1, &Value::Null),
        "{targets:#}"
    );
    let invocation = template.properties("StateTrackerInvocation", &stack);
    assert_eq!(
        invocation["DestinationConfig"],
        Value::Null,
        "{invocation:#}"
    );
    let alarms = template
        .of_type("AWS::CloudWatch::Alarm")
        .map(|(name, _)| template.properties(name, &stack));
    assert!(
        alarms
            .into_iter()
            .any(|alarm| alarm["MetricName"] == "AsyncEventsDropped"),
        "that they are given up rings"
    );
}

/// Lambda stops a chain of invocations of one function after sixteen. A run that waits for capacity
/// makes the launcher send itself messages for as long as it waits.
#[test]
fn what_the_launcher_sends_itself_is_not_taken_for_a_loop() {
    let properties = Template::read().properties("LauncherFunction", &Stack::named("default"));
    assert_eq!(properties["RecursiveLoop"], "Allow", "{properties:#}");
}

#[test]
fn names_are_those_that_all_of_mycli_relies_on() {
    let template = Template::read();
    let stack = Stack::named("nightly");
    let of = |value: Value| template.resolved(&value, &stack).unwrap();
    let output = |name: &str| of(template.0["Outputs"][name]["Value"].clone());
    assert_eq!(output("Table"), "mycli-nightly");
    assert_eq!(output("Cluster"), "mycli-nightly");
    assert_eq!(output("LogGroup"), "/aws/mycli/nightly");
    assert_eq!(output("SecretsPath"), "/mycli/nightly/secrets/");
    assert_eq!(output("TaskRolePath"), "/mycli/nightly/");
    for (output_name, queue) in [
        ("LaunchQueueUrl", "launch"),
        ("ControlQueueUrl", "control"),
        ("LaunchDeadLettersUrl", "launch-dead"),
        ("ControlDeadLettersUrl", "control-dead"),
        ("EventDeadLettersUrl", "events-dead"),
    ] {
        assert!(
            output(output_name)
                .as_str()
                .unwrap()
                .ends_with(&format!("/mycli-nightly-{queue}")),
            "{output_name}"
        );
    }
    for (resource, function) in [
        ("SubmitFunction", "submit"),
        ("QueryFunction", "query"),
        ("LauncherFunction", "launcher"),
        ("StateTrackerFunction", "state-tracker"),
    ] {
        let properties = template.properties(resource, &stack);
        assert_eq!(
            properties["FunctionName"],
            format!("mycli-nightly-{function}")
        );
        assert_eq!(
            properties["Code"]["S3Key"],
            format!("functions/0/{function}.zip")
        );
        assert_eq!(
            (&properties["Runtime"], &properties["Handler"]),
            (&"provided.al2023".into(), &"bootstrap".into())
        );
    }
}

/// The filter finds the runner's marker lines by the phrase that they begin with, without those that
/// the state tracker does not need.
#[test]
fn the_marker_lines_that_tell_something_are_delivered() {
    let filter = Template::read().properties("MarkerLines", &Stack::named("default"));
    assert_eq!(filter["FilterPattern"], domain::marker::filter_pattern());
    assert_eq!(filter["LogGroupName"], "/aws/mycli/default");
}

/// Each function's log has a metric filter for the records that the function skipped, and one alarm
/// covers all of them.
#[test]
fn every_record_that_is_passed_over_rings() {
    let template = Template::read();
    let stack = Stack::named("default");
    let (alarm, _) = template
        .of_type("AWS::CloudWatch::Alarm")
        .map(|(name, _)| (template.properties(name, &stack), name))
        .find(|(alarm, _)| alarm["MetricName"] == "UnreadableRecords")
        .unwrap();
    assert_eq!(
        (&alarm["Threshold"], &alarm["TreatMissingData"]),
        (&json!(0), &json!("notBreaching"))
    );
    assert_eq!(alarm["ComparisonOperator"], "GreaterThanThreshold");
    let filters: Vec<_> = template
        .of_type("AWS::Logs::MetricFilter")
        .map(|(name, _)| template.properties(name, &stack))
        .collect();
    for (name, _) in template.of_type("AWS::Lambda::Function") {
        let logging = &template.properties(name, &stack)["LoggingConfig"];
        // Otherwise Lambda's own lines would be text among the JSON of ours.
        assert_eq!(logging["LogFormat"], "JSON", "{name}");
        // At a higher level the audit lines would be lost.
        assert_eq!(logging["ApplicationLogLevel"], "INFO", "{name}");
        let log = logging["LogGroup"].clone();
        let unreadable = |filter: &&Value| {
            filter["LogGroupName"] == log
                && filter["MetricTransformations"][0]["MetricName"] == alarm["MetricName"]
        };
        let filter = filters
            .iter()
            .find(unreadable)
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            filter["FilterPattern"],
            format!("\"{PASSED_OVER}\""),
            "{name}"
        );
        let metric = &filter["MetricTransformations"][0];
        assert_eq!(
            (
                &metric["MetricNamespace"],
                &metric["MetricName"],
                &metric["MetricValue"]
            ),
            (&alarm["Namespace"], &alarm["MetricName"], &json!("1")),
            "{name}"
        );
    }
}

/// The metrics that the dashboard looks for, each with its dimensions: those of searches.
fn searched(body: &Value) -> BTreeSet<(String, Vec<String>)> {
    let widgets = body["widgets"].as_array().unwrap();
    let metrics = widgets
        .iter()
        .flat_map(|widget| widget["properties"]["metrics"].as_array().unwrap());
    let expressions = metrics.filter_map(|metric| metric[0]["expression"].as_str());
    let parts = |expression: &str| {
        let (scheme, rest) = expression
            .strip_prefix("SEARCH('{mycli/default,")?
            .split_once("} MetricName=\"")?;
        let (name, _) = rest.split_once('"')?;
        let dimensions = scheme.split(',').map(str::to_owned).collect();
        Some((name.to_owned(), dimensions))
    };
    expressions
        .map(|expression| parts(expression).unwrap_or_else(|| panic!("{expression}")))
        .collect()
}

#[test]
fn the_dashboard_shows_each_metric_by_its_own_dimensions() {
    let dashboard = Template::read().properties("Dashboard", &Stack::named("default"));
    assert_eq!(dashboard["DashboardName"], "mycli-default-eu-central-1");
    let body = serde_json::from_str(dashboard["DashboardBody"].as_str().unwrap()).unwrap();
    let written = METRICS.into_iter().filter_map(|metric| {
        let labels = metric.labels.iter().map(ToString::to_string);
        Some((metric.in_cloudwatch?.to_owned(), labels.collect()))
    });
    assert_eq!(searched(&body), written.collect());
}

/// An alarm on a metric that no function writes, or by other dimensions, never rings.
#[test]
fn alarms_look_at_metrics_that_the_functions_write() {
    let (template, stack) = (Template::read(), Stack::named("default"));
    let mut seen = 0;
    for (name, resource) in template.of_type("AWS::CloudWatch::Alarm") {
        let alarm = template.properties(name, &stack);
        if alarm["Namespace"] != "mycli/default" || alarm["MetricName"] == "UnreadableRecords" {
            continue;
        }
        let is_it = |metric: &&Metric| alarm["MetricName"].as_str() == metric.in_cloudwatch;
        let metric = METRICS
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{name}"));
        let dimensions = alarm["Dimensions"].as_array().unwrap();
        let names: Vec<_> = dimensions
            .iter()
            .map(|one| one["Name"].as_str().unwrap())
            .collect();
        assert_eq!(names, metric.labels, "{name}");
        assert_eq!(resource["Condition"], "HasMetrics", "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn a_stack_without_metrics_writes_none() {
    let template = Template::read();
    for (metrics, namespace) in [("true", "mycli/default"), ("false", "")] {
        let stack = Stack::named("default").with("Metrics", metrics);
        for function in ["LauncherFunction", "StateTrackerFunction"] {
            let variables = &template.properties(function, &stack)["Environment"]["Variables"];
            assert_eq!(
                variables["MYCLI_METRICS_NAMESPACE"], namespace,
                "{function}"
            );
        }
    }
    assert_eq!(template.resource("Dashboard")["Condition"], "HasMetrics");
}

#[test]
fn the_manual_lists_each_metric() {
    let manual = include_str!("../../../docs/stack.md");
    for metric in METRICS {
        let Some(name) = metric.in_cloudwatch else {
            continue;
        };
        let row = manual
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")))
            .unwrap_or_else(|| panic!("docs/stack.md has no row for {name}"));
        for label in metric.labels {
            assert!(row.contains(&format!("`{label}`")), "{row}");
        }
    }
}

#[test]
fn lines_of_no_task_are_counted() {
    let filter = Template::read().properties("StateTrackerForeignLines", &Stack::named("default"));
    assert_eq!(filter["FilterPattern"], format!("\"{NO_TASKS_LINES}\""));
}

/// CloudWatch Logs searches a line for a quoted pattern as it stands, so the pattern finds the
/// words in JSON too. The functions' log must have the words in one piece.
#[test]
fn a_record_that_is_passed_over_is_one_line_that_the_filter_finds() {
    let id: ExecutionId = "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9".parse().unwrap();
    let text = logged::during(|| {
        Corrupt::execution(id.clone(), "this release cannot read its `request.arch`").note();
    });
    let filter =
        Template::read().properties("StateTrackerUnreadableRecords", &Stack::named("default"));
    let phrase = filter["FilterPattern"].as_str().unwrap().trim_matches('"');
    let found: Vec<_> = text.lines().filter(|line| line.contains(phrase)).collect();
    assert!(found.len() == 1 && found[0].contains(id.as_str()), "{text}");
}

/// These are properties of a table that an emulator does not keep.
#[test]
fn the_table_forgets_by_itself_and_can_be_brought_back() {
    let table = Template::read().properties("Table", &Stack::named("default"));
    assert_eq!(
        table["TimeToLiveSpecification"],
        serde_json::json!({"AttributeName": "expires", "Enabled": true})
    );
    assert_eq!(
        table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"],
        true
    );
    assert_eq!(table["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
}

/// API Gateway does not escape what it puts into a line of the access log. So the line must hold
/// nothing that a client may choose freely.
#[test]
fn no_client_can_break_a_line_of_the_access_log() {
    let template = Template::read();
    let format = template.resource("Stage")["Properties"]["AccessLogSetting"]["Format"]
        .as_str()
        .unwrap();
    let mut rest = format;
    let mut filled = String::new();
    while let Some((before, after)) = rest.split_once("$context.") {
        let end = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .unwrap_or(after.len());
        let (variable, tail) = after.split_at(end);
        // These are values that API Gateway makes itself, an address, and the method and path of a
        // resource that it found.
        assert!(
            [
                "requestTime",
                "requestId",
                "identity.sourceIp",
                "httpMethod",
                "resourcePath",
                "status",
                "responseLength",
                "responseLatency",
                "integrationLatency",
                "error.responseType"
            ]
            .contains(&variable),
            "{variable}"
        );
        filled.push_str(before);
        rest = tail;
    }
    filled.push_str(rest);
    assert!(serde_json::from_str::<Value>(&filled).is_ok(), "{filled}");
}

/// A setting that the account's owner makes once holds for every resource of its kind.
#[test]
fn a_boundary_a_key_and_a_topic_reach_all_that_can_have_them() {
    let template = Template::read();
    let (boundary, key) = (
        "arn:aws:iam::123456789012:policy/edge",
        "arn:aws:kms:us-east-1:123456789012:key/k",
    );
    let topic = "arn:aws:sns:us-east-1:123456789012:rings";
    let set = Stack::named("default")
        .with("PermissionsBoundaryArn", boundary)
        .with("KmsKeyArn", key)
        .with("AlarmTopicArn", topic);
    let properties = |stack: &Stack, resource: &Value| {
        template.resolved(&resource["Properties"], stack).unwrap()
    };
    for (kind, property, value) in [
        ("AWS::IAM::Role", "PermissionsBoundary", json!(boundary)),
        ("AWS::SQS::Queue", "KmsMasterKeyId", json!(key)),
        ("AWS::Logs::LogGroup", "KmsKeyId", json!(key)),
        ("AWS::CloudWatch::Alarm", "AlarmActions", json!([topic])),
        (
            "AWS::DynamoDB::Table",
            "SSESpecification",
            json!({"SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": key}),
        ),
    ] {
        let all: Vec<_> = template.of_type(kind).collect();
        assert!(!all.is_empty(), "{kind}");
        for (name, resource) in all {
            assert_eq!(properties(&set, resource)[property], value, "{name}");
            assert_eq!(
                properties(&Stack::named("default"), resource).get(property),
                None,
                "{name}"
            );
        }
    }
}
