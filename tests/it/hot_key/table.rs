//! A DynamoDB table on virtual time, as far as a submission needs it: its items, and what one key,
//! an index and the table take.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    config::{AsyncSleep, Builder, Sleep, retry::RetryPartition},
    types::AttributeValue,
};
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use chrono::TimeDelta;
use domain::{
    ports::Clock,
    quota::{Rate, TokenBucket},
};
use serde_json::{Map, Value, json};
use tests::{meter, simulation::time::Virtual, table::configuration};

/// How long a call takes one way, and its answer the other.
const WAY: [TimeDelta; 2] = [TimeDelta::milliseconds(2), TimeDelta::milliseconds(3)];
/// Write units a second of one partition: "every partition in a DynamoDB table is designed to
/// deliver a maximum capacity of […] 1,000 write units per second" (Developer Guide, "Best
/// practices for designing and using partition keys effectively"). One key of an index is one
/// partition, since its sort key only rises. A burst of one second's worth is our choice.
const KEY: Rate = Rate {
    burst: 1_000.0,
    per_second: 1_000.0,
};
/// Write units a second of a new on-demand table, and of each of its indexes (AWS-FACTS §9).
const WHOLE: Rate = Rate {
    burst: 4_000.0,
    per_second: 4_000.0,
};

/// An index as in the template: its name, its keys and its other attributes.
struct Index {
    name: &'static str,
    keys: [&'static str; 2],
    more: &'static [&'static str],
}

const INDEXES: [Index; 3] = [
    Index {
        name: "by_submitter",
        keys: ["submitter", "sk"],
        more: &[],
    },
    Index {
        name: "by_group",
        keys: ["grp", "sk"],
        more: &[],
    },
    Index {
        name: "by_standing",
        keys: ["standing", "place"],
        more: &["not_before"],
    },
];

/// An item as it goes over the wire.
type Item = Map<String, Value>;

/// A part of the table with its own limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bounded {
    /// The table, or an index.
    Whole(&'static str),
    /// One key of it.
    Key(&'static str, String),
}

impl Bounded {
    fn rate(&self) -> Rate {
        match self {
            Self::Whole(_) => WHOLE,
            Self::Key(..) => KEY,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Whole(name) => (*name).to_owned(),
            Self::Key(name, _) => format!("a key of {name}"),
        }
    }
}

/// Why a write was refused.
enum Refused {
    /// Throttled. The same write is taken later.
    Throttled(String),
    /// Its condition does not hold for this item.
    Condition(Option<Item>),
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<[String; 2], Item>,
    buckets: BTreeMap<Bounded, TokenBucket>,
    throttled: BTreeMap<String, usize>,
    clients: usize,
}

/// The table. Clones share the same one.
#[derive(Clone, Debug)]
pub(super) struct Table {
    time: Virtual,
    state: Arc<Mutex<State>>,
}

impl Table {
    pub(super) fn new(time: Virtual) -> Self {
        Self {
            time,
            state: Arc::default(),
        }
    }

    /// A client with the settings of a function, as a separate process has it: the SDK counts its
    /// retries per process.
    pub(super) fn client(&self) -> Client {
        let number = {
            let mut state = self.state();
            state.clients += 1;
            state.clients
        };
        // The SDK keeps its count under this name, for as long as the test's own process lives.
        let name = format!("{:p} {number}", Arc::as_ptr(&self.state));
        let config = Builder::from(&configuration("http://dynamodb.invalid".to_owned()))
            .http_client(self.clone())
            .sleep_impl(Sleeps(self.time.clone()))
            .retry_partition(RetryPartition::new(name));
        Client::from_conf(config.build())
    }

    /// The values of an attribute over all items that have it, in order.
    pub(super) fn values(&self, attribute: &str) -> Vec<String> {
        let text = |item: &Item| item.get(attribute)?["S"].as_str().map(str::to_owned);
        let mut values: Vec<_> = self.state().items.values().filter_map(text).collect();
        values.sort();
        values
    }

    /// How often each part of the table refused a write.
    pub(super) fn throttled(&self) -> BTreeMap<String, usize> {
        self.state().throttled.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let operation = request
            .headers()
            .get("x-amz-target")
            .and_then(|target| target.rsplit('.').next())
            .unwrap();
        let input: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let outcome = match operation {
            "PutItem" => self.put(&input).map(|()| json!({})),
            "UpdateItem" => self.note(&input).map(|()| json!({})),
            "GetItem" => Ok(self.get(&input)),
            other => panic!("a submission calls {other}: {input}"),
        };
        let (status, body) = match outcome {
            Ok(body) => (200, body),
            Err(Refused::Throttled(by)) => (
                400,
                problem("ThrottlingException", &format!("{by} takes no more now")),
            ),
            Err(Refused::Condition(found)) => {
                let mut body = problem(
                    "ConditionalCheckFailedException",
                    "The conditional request failed",
                );
                body["Item"] = found.into();
                (400, body)
            }
        };
        HttpResponse::new(
            StatusCode::try_from(status).unwrap(),
            body.to_string().into(),
        )
    }

    fn put(&self, input: &Value) -> Result<(), Refused> {
        let item = input["Item"].as_object().unwrap();
        let (mut state, key) = (self.state(), key_of(item));
        let before = state.items.get(&key).cloned();
        if !holds(input, before.as_ref()) {
            // A failed condition is still charged, to the table (Developer Guide, "DynamoDB reads
            // and writes").
            self.spend(&mut state, of_table(&key, before.as_ref(), item))?;
            return Err(Refused::Condition(before));
        }
        let mut charges = of_table(&key, before.as_ref(), item);
        charges.extend(
            INDEXES
                .iter()
                .flat_map(|index| of_index(index, before.as_ref(), item)),
        );
        self.spend(&mut state, charges)?;
        state.items.insert(key, item.clone());
        Ok(())
    }

    /// The only kind of update: it notes that a submitter was seen in a backlog.
    fn note(&self, input: &Value) -> Result<(), Refused> {
        let (mut item, key) = (
            input["Key"].as_object().unwrap().clone(),
            key_of(input["Key"].as_object().unwrap()),
        );
        assert_eq!(key[0], "LINES", "{input}");
        item.insert(
            "seen_at".to_owned(),
            input["ExpressionAttributeValues"][":now"].clone(),
        );
        let mut state = self.state();
        self.spend(&mut state, of_table(&key, None, &item))?;
        state.items.insert(key, item);
        Ok(())
    }

    /// Reads have no limit here. The real limits are three times as high, and a submission reads
    /// less than it writes.
    fn get(&self, input: &Value) -> Value {
        let found = self
            .state()
            .items
            .get(&key_of(input["Key"].as_object().unwrap()))
            .cloned();
        found.map_or_else(|| json!({}), |item| json!({ "Item": item }))
    }

    /// Spends all of the charges or none.
    fn spend(&self, state: &mut State, charges: Vec<(Bounded, u32)>) -> Result<(), Refused> {
        let mut sums: BTreeMap<Bounded, u32> = BTreeMap::new();
        charges
            .into_iter()
            .for_each(|(bounded, units)| *sums.entry(bounded).or_default() += units);
        let now = self.time.now();
        let mut after = Vec::new();
        for (bounded, units) in sums {
            let bucket = state.buckets.get(&bounded).copied().unwrap_or_default();
            let (granted, left) = bucket.take(bounded.rate(), units, now);
            if granted < units {
                *state.throttled.entry(bounded.name()).or_default() += 1;
                return Err(Refused::Throttled(bounded.name()));
            }
            after.push((bounded, left));
        }
        state.buckets.extend(after);
        Ok(())
    }
}

impl HttpClient for Table {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Table {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let table = self.clone();
        HttpConnectorFuture::new(async move {
            table.time.sleep(WAY[0]).await;
            let answer = table.answer(&request);
            table.time.sleep(WAY[1]).await;
            Ok(answer)
        })
    }
}

/// The SDK's pauses and timeouts, on virtual time.
#[derive(Debug)]
struct Sleeps(Virtual);

impl AsyncSleep for Sleeps {
    fn sleep(&self, span: Duration) -> Sleep {
        let (time, span) = (self.0.clone(), TimeDelta::from_std(span).unwrap());
        Sleep::new(async move { time.sleep(span).await })
    }
}

fn problem(code: &str, message: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message })
}

fn key_of(item: &Item) -> [String; 2] {
    ["pk", "sk"].map(|name| item[name]["S"].as_str().unwrap().to_owned())
}

/// Whether a submission's condition holds: there is none, no such item exists, or the item has
/// expired.
fn holds(input: &Value, before: Option<&Item>) -> bool {
    let number = |value: &Value| {
        value["N"]
            .as_str()
            .and_then(|digits| digits.parse::<i64>().ok())
    };
    match (input["ConditionExpression"].as_str(), before) {
        (None, _) | (Some(_), None) => true,
        (Some("attribute_not_exists(pk)"), Some(_)) => false,
        (Some("attribute_not_exists(pk) OR expires_at <= :now"), Some(before)) => {
            number(&before["expires_at"]) <= number(&input["ExpressionAttributeValues"][":now"])
        }
        (Some(other), _) => panic!("a submission's condition is {other}"),
    }
}

/// What a write costs the table: by the larger of the item before and after.
fn of_table(key: &[String; 2], before: Option<&Item>, after: &Item) -> Vec<(Bounded, u32)> {
    let units = units(after).max(before.map_or(0, units));
    vec![
        (Bounded::Whole("the table"), units),
        (Bounded::Key("the table", key[0].clone()), units),
    ]
}

/// What a write costs an index: the removed entry and the added one, if they differ.
fn of_index(index: &Index, before: Option<&Item>, after: &Item) -> Vec<(Bounded, u32)> {
    let (before, after) = (
        before.and_then(|item| entry(index, item)),
        entry(index, after),
    );
    if before == after {
        return Vec::new();
    }
    let charge = |entry: Item| {
        let key = entry[index.keys[0]]["S"].as_str().unwrap().to_owned();
        [
            (Bounded::Whole(index.name), units(&entry)),
            (Bounded::Key(index.name, key), units(&entry)),
        ]
    };
    before.into_iter().chain(after).flat_map(charge).collect()
}

/// An item's entry in an index, if it has one.
fn entry(index: &Index, item: &Item) -> Option<Item> {
    if index.keys.iter().any(|key| !item.contains_key(*key)) {
        return None;
    }
    let names = ["pk", "sk"].iter().chain(&index.keys).chain(index.more);
    Some(
        names
            .filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone())))
            .collect(),
    )
}

/// The write units of an item: one for each KB begun.
fn units(item: &Item) -> u32 {
    u32::try_from(meter::size(&attributes(item)).div_ceil(1024)).unwrap()
}

fn attributes(item: &Item) -> HashMap<String, AttributeValue> {
    item.iter()
        .map(|(name, value)| (name.clone(), attribute(value)))
        .collect()
}

fn attribute(value: &Value) -> AttributeValue {
    let (kind, value) = value
        .as_object()
        .and_then(|value| value.iter().next())
        .unwrap();
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => AttributeValue::S(text.clone()),
        ("N", Value::String(digits)) => AttributeValue::N(digits.clone()),
        ("M", Value::Object(map)) => AttributeValue::M(attributes(map)),
        ("L", Value::Array(list)) => AttributeValue::L(list.iter().map(attribute).collect()),
        ("BOOL", Value::Bool(truth)) => AttributeValue::Bool(*truth),
        _ => panic!("no attribute of ours: {kind} {value}"),
    }
}
