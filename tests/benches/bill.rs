//! What was asked of AWS, from the emulator's logs, and what it costs.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};
use tests::{meter, price, table, world::World};

/// The bytes of a line in the API's access log, by the template's format. The emulator writes none.
const ACCESS_LINE: f64 = 330.0;
const GROUPS: [&str; 5] = [
    "/aws/mycli/default",
    "/aws/lambda/mycli-default-submit",
    "/aws/lambda/mycli-default-launcher",
    "/aws/lambda/mycli-default-state-tracker",
    "/aws/lambda/mycli-default-query",
];

/// How long the logs were, and how much was stored, at some moment.
pub(crate) struct Mark {
    calls: usize,
    invocations: usize,
    log_bytes: BTreeMap<&'static str, f64>,
    kept: f64,
}

impl Mark {
    /// The mark of this moment.
    pub(crate) fn now(world: &World) -> Self {
        let emulator = &world.emulator;
        Self {
            calls: lines(&emulator.calls_log()).len(),
            invocations: lines(&emulator.invocations_log()).len(),
            log_bytes: GROUPS
                .into_iter()
                .map(|group| (group, log_bytes(world, group)))
                .collect(),
            kept: kept(&emulator.endpoint()),
        }
    }
}

/// What some functions did since a mark.
pub(crate) struct Seen {
    calls: Vec<Value>,
    invocations: Vec<Value>,
    log_bytes: f64,
    kept: f64,
}

impl Seen {
    /// What these functions did, with what they logged. The log of the tasks counts with the state
    /// tracker, which subscribes to it.
    pub(crate) fn since(mark: &Mark, world: &World, functions: &[&str]) -> Self {
        let logs_with = |group: &str| {
            let writer = group
                .strip_prefix("/aws/lambda/mycli-default-")
                .unwrap_or("state-tracker");
            functions.contains(&writer)
        };
        let groups = GROUPS.into_iter().filter(|group| logs_with(group));
        Self {
            log_bytes: groups
                .map(|group| log_bytes(world, group) - mark.log_bytes[group])
                .sum(),
            kept: kept(&world.emulator.endpoint()) - mark.kept,
            ..Self::so_far(mark, world, functions)
        }
    }

    /// Like `since`, but does not measure the logs and the storage, which takes a while.
    pub(crate) fn so_far(mark: &Mark, world: &World, functions: &[&str]) -> Self {
        let is_theirs = |line: &Value| {
            functions
                .iter()
                .any(|name| line["function"] == format!("mycli-default-{name}"))
        };
        let new = |path: &Path, from: usize| {
            lines(path)
                .into_iter()
                .skip(from)
                .filter(is_theirs)
                .collect()
        };
        Self {
            calls: new(&world.emulator.calls_log(), mark.calls),
            invocations: new(&world.emulator.invocations_log(), mark.invocations),
            log_bytes: 0.0,
            kept: 0.0,
        }
    }

    /// How many entries were published on the event bus.
    pub(crate) fn published(&self) -> f64 {
        self.calls_of("AWSEvents.")
            .map(|call| number(call["body"]["Entries"].as_array().map_or(0, Vec::len)))
            .sum()
    }

    /// How many invocations there were, without the sweeps.
    pub(crate) fn invocations(&self) -> usize {
        self.invocations
            .iter()
            .filter(|one| one["source"] != "sweep")
            .count()
    }

    /// How many sweeps there were.
    pub(crate) fn sweeps(&self) -> usize {
        self.invocations.len() - self.invocations()
    }

    /// The write units used.
    pub(crate) fn writes(&self) -> f64 {
        self.units("writes")
    }

    /// Messages received, over all queues.
    pub(crate) fn receives(&self) -> f64 {
        self.of_queues()
            .filter_map(|one| one["records"].as_f64())
            .sum()
    }

    fn units(&self, kind: &str) -> f64 {
        self.calls
            .iter()
            .filter_map(|call| call["units"][kind].as_f64())
            .sum()
    }

    fn calls_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Value> {
        self.calls.iter().filter(move |call| {
            call["target"]
                .as_str()
                .is_some_and(|target| target.starts_with(prefix))
        })
    }

    fn of_queues(&self) -> impl Iterator<Item = &Value> {
        self.invocations.iter().filter(|one| {
            one["source"]
                .as_str()
                .is_some_and(|source| source.contains(":sqs:"))
        })
    }

    fn of_gateway(&self) -> f64 {
        number(
            self.invocations
                .iter()
                .filter(|one| one["source"] == "httpMethod")
                .count(),
        )
    }

    /// The gigabyte-seconds of all invocations.
    fn lambda_time(&self) -> f64 {
        let of =
            |one: &Value| Some(one["ms"].as_f64()? / 1000.0 * one["memory"].as_f64()? / 1024.0);
        self.invocations.iter().filter_map(of).sum()
    }

    /// The calls by function and action, for each of `runs`, as a table.
    pub(crate) fn calls(&self, runs: f64) -> String {
        let mut counts: BTreeMap<(String, String), [f64; 4]> = BTreeMap::new();
        for call in &self.calls {
            let [function, target] =
                ["function", "target"].map(|field| call[field].as_str().unwrap_or_default());
            let (service, action) = target.split_once('.').unwrap_or_default();
            let key = (
                function.replace("mycli-default-", ""),
                format!("{} {action}", short(service)),
            );
            let count = counts.entry(key).or_default();
            count[0] += 1.0;
            count[1] += call["units"]["writes"].as_f64().unwrap_or_default();
            count[2] += call["units"]["reads"].as_f64().unwrap_or_default();
            count[3] += if call["refused"] == true { 1.0 } else { 0.0 };
        }
        let mut table = String::from(
            "| function | action | calls | refused | write units | read units |\n|---|---|---|---|---|---|\n",
        );
        let cell = |count: f64| {
            if count == 0.0 {
                String::new()
            } else {
                format!("{:.2}", count / runs)
            }
        };
        for ((function, action), [calls, writes, reads, refused]) in counts {
            let cells = [calls, refused, writes, reads].map(cell).join(" | ");
            let _infallible = writeln!(table, "| {function} | {action} | {cells} |");
        }
        table
    }

    /// The invocations by function and what invoked it, for each of `runs`, as a table.
    pub(crate) fn invoked(&self, runs: f64) -> String {
        let mut times: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
        for one in &self.invocations {
            let function = one["function"]
                .as_str()
                .unwrap_or_default()
                .replace("mycli-default-", "");
            let source = source(one["source"].as_str().unwrap_or_default());
            times
                .entry((function, source))
                .or_default()
                .push(one["ms"].as_f64().unwrap_or_default());
        }
        let mut table = String::from(
            "| function | invoked by | invocations | median time |\n|---|---|---|---|\n",
        );
        for ((function, source), times) in times {
            let count = number(times.len()) / runs;
            let _infallible = writeln!(
                table,
                "| {function} | {source} | {count:.2} | {:.0} ms |",
                crate::sample::median(times)
            );
        }
        table
    }

    /// The bill, and its sum in US$ for a million of `runs`.
    pub(crate) fn bill(&self, runs: f64) -> (String, f64) {
        let receives_and_deletes = 2.0 * number(self.of_queues().count());
        let access_log = ACCESS_LINE * self.of_gateway();
        let items = [
            ("DynamoDB write units", self.writes(), price::WRITES),
            ("DynamoDB read units", self.units("reads"), price::READS),
            (
                "SQS requests",
                number(self.calls_of("AmazonSQS.").count()) + receives_and_deletes,
                price::SQS,
            ),
            (
                "Lambda requests",
                number(self.invocations.len()),
                price::LAMBDA,
            ),
            ("Lambda GB-seconds", self.lambda_time(), price::LAMBDA_TIME),
            ("API Gateway requests", self.of_gateway(), price::GATEWAY),
            ("EventBridge events", self.published(), price::EVENTS),
            (
                "CloudWatch Logs, bytes taken in",
                self.log_bytes + access_log,
                price::LOGS,
            ),
            (
                "DynamoDB, bytes kept for 90 days",
                self.kept,
                price::STORAGE,
            ),
        ];
        price::bill(&items, runs)
    }
}

/// The service in an `X-Amz-Target`, which names it by its protocol.
fn short(service: &str) -> &str {
    match service {
        "DynamoDB_20120810" => "DynamoDB",
        "AmazonSQS" => "SQS",
        "AmazonEC2ContainerServiceV20141113" => "ECS (free)",
        "Logs_20140328" => "Logs (free)",
        "AWSEvents" => "EventBridge",
        "s3" => "S3",
        other => other,
    }
}

/// What an invocation's event came from.
fn source(source: &str) -> &str {
    match source {
        "httpMethod" => "the API",
        "awslogs" => "marker lines",
        "detail" => "a task's change",
        "sweep" => "the sweep",
        arn if arn.contains("-launch") => "launch queue",
        arn if arn.contains("-control") => "control queue",
        arn if arn.contains(":dynamodb:") => "ends in the table's stream",
        other => other,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be incomplete.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The size of a log group, as CloudWatch Logs measures it.
fn log_bytes(world: &World, group: &str) -> f64 {
    let (mut bytes, mut token) = (0.0, Value::Null);
    loop {
        let mut ask = json!({"logGroupName": group});
        if token.is_string() {
            ask["nextToken"] = token;
        }
        let page = world.ask("logs", "Logs_20140328.FilterLogEvents", &ask);
        for event in page["events"].as_array().into_iter().flatten() {
            bytes +=
                number(event["message"].as_str().map_or(0, str::len)) + price::LOG_EVENT_OVERHEAD;
        }
        token = page["nextToken"].clone();
        if !token.is_string() {
            return bytes;
        }
    }
}

/// The size of the table and its indexes, in bytes.
fn kept(endpoint: &str) -> f64 {
    let client = aws_sdk_dynamodb::Client::new(&table::configuration(endpoint.to_owned()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(meter::kept(&client, "mycli-default"))
}

#[expect(clippy::cast_precision_loss, reason = "a few million at most")]
fn number(count: usize) -> f64 {
    count as f64
}
