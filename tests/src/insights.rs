//! Queries of CloudWatch Logs Insights over lines of JSON, so that the queries in docs/LOGGING.md
//! can be held to what our processes log. No emulator has Insights.
//!
//! The module knows the part of the language that the manual uses (Amazon CloudWatch Logs User
//! Guide, "CloudWatch Logs Insights language query syntax"). Anything else is an error, never an
//! empty result.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::{Value, json};

/// One line of a log, or one row of a result.
pub type Row = BTreeMap<String, Value>;

/// A part of a query that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not known here: {0}")]
pub struct InsightsError(String);

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct InsightsQuery(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Fields(Vec<String>),
    /// Rows of which all of these hold.
    Filter(Vec<Test>),
    Stats {
        aggregates: Vec<Aggregate>,
        by: Vec<String>,
    },
    Sort {
        field: String,
        descending: bool,
    },
    Limit(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    OneOf(String, Vec<Value>),
    Not(String, Value),
    Present(String),
}

/// A sum of a field, or without a field a count, under a name.
#[derive(Clone, Debug, PartialEq)]
struct Aggregate {
    sum_of: Option<String>,
    name: String,
}

/// The hour of a line.
const BIN: &str = "bin(1h)";

impl InsightsQuery {
    /// Parses a query.
    ///
    /// # Errors
    /// [`InsightsError`] names the part that is not known.
    pub fn parse(text: &str) -> Result<Self, InsightsError> {
        let steps = text.split('|').map(|step| Step::parse(step.trim()));
        steps.collect::<Result<_, _>>().map(Self)
    }

    /// The names of the fields that the query reads from lines.
    #[must_use]
    pub fn reads(&self) -> Vec<&str> {
        self.0.iter().flat_map(Step::reads).collect()
    }

    /// Runs the query over these lines.
    #[must_use]
    pub fn run(&self, lines: &[Row]) -> Vec<Row> {
        let steps = self.0.iter();
        steps.fold(lines.to_vec(), |rows, step| step.run(rows))
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, InsightsError> {
        let unknown = || InsightsError(text.to_owned());
        let (command, rest) = text.split_once(' ').ok_or_else(unknown)?;
        Ok(match command {
            "fields" => Self::Fields(names(rest)),
            "filter" => {
                let tests = rest.split(" and ").map(|test| Test::parse(test.trim()));
                Self::Filter(tests.collect::<Result<_, _>>()?)
            }
            "stats" => {
                let (aggregates, by) = rest.split_once(" by ").ok_or_else(unknown)?;
                let aggregates = aggregates
                    .split(',')
                    .map(|text| Aggregate::parse(text.trim()));
                Self::Stats {
                    aggregates: aggregates.collect::<Result<_, _>>()?,
                    by: names(by),
                }
            }
            "sort" => {
                let (field, order) = rest.split_once(' ').ok_or_else(unknown)?;
                Self::Sort {
                    field: field.to_owned(),
                    descending: match order {
                        "asc" => false,
                        "desc" => true,
                        _ => return Err(unknown()),
                    },
                }
            }
            "limit" => Self::Limit(rest.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        })
    }

    fn reads(&self) -> Vec<&str> {
        match self {
            Self::Fields(names) => names.iter().map(String::as_str).collect(),
            Self::Filter(tests) => tests.iter().map(Test::field).collect(),
            Self::Stats { aggregates, by } => {
                let by = by.iter().filter(|name| *name != BIN);
                let sums = aggregates.iter().filter_map(|of| of.sum_of.as_ref());
                by.chain(sums).map(String::as_str).collect()
            }
            // A sort may be by a name that `stats` gave.
            Self::Sort { .. } | Self::Limit(_) => Vec::new(),
        }
    }

    fn run(&self, mut rows: Vec<Row>) -> Vec<Row> {
        match self {
            Self::Fields(names) => {
                let chosen = |row: &Row| {
                    let fields = names.iter().filter_map(|name| {
                        let value = field(row, name)?;
                        Some((name.clone(), value))
                    });
                    // A later step may read a field that is not shown.
                    fields.chain(row.clone()).collect()
                };
                rows.iter().map(chosen).collect()
            }
            Self::Filter(tests) => {
                rows.retain(|row| tests.iter().all(|test| test.holds(row)));
                rows
            }
            Self::Stats { aggregates, by } => counted(&rows, aggregates, by),
            Self::Sort {
                field: name,
                descending,
            } => {
                rows.sort_by(|one, other| {
                    let order = compared(field(one, name), field(other, name));
                    if *descending { order.reverse() } else { order }
                });
                rows
            }
            Self::Limit(most) => {
                rows.truncate(*most);
                rows
            }
        }
    }
}

impl Test {
    fn parse(text: &str) -> Result<Self, InsightsError> {
        let unknown = || InsightsError(text.to_owned());
        let value = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| unknown());
        if let Some(rest) = text.strip_prefix("ispresent(") {
            let name = rest.strip_suffix(')').ok_or_else(unknown)?;
            return Ok(Self::Present(name.to_owned()));
        }
        if let Some((name, other)) = text.split_once(" != ") {
            return Ok(Self::Not(name.to_owned(), value(other)?));
        }
        if let Some((name, one)) = text.split_once(" = ") {
            return Ok(Self::OneOf(name.to_owned(), vec![value(one)?]));
        }
        let (name, list) = text.split_once(" in ").ok_or_else(unknown)?;
        let list = serde_json::from_str(list).map_err(|_| unknown())?;
        Ok(Self::OneOf(name.to_owned(), list))
    }

    fn field(&self) -> &str {
        match self {
            Self::OneOf(name, _) | Self::Not(name, _) | Self::Present(name) => name,
        }
    }

    fn holds(&self, row: &Row) -> bool {
        let found = field(row, self.field());
        match self {
            Self::OneOf(_, values) => found.is_some_and(|found| values.contains(&found)),
            Self::Not(_, value) => found.is_some_and(|found| found != *value),
            Self::Present(_) => found.is_some(),
        }
    }
}

impl Aggregate {
    fn parse(text: &str) -> Result<Self, InsightsError> {
        let unknown = || InsightsError(text.to_owned());
        let (call, name) = text.split_once(" as ").ok_or_else(unknown)?;
        let of = |function: &str| call.strip_prefix(function)?.strip_suffix(')');
        let sum_of = match (of("count("), of("sum(")) {
            (Some("*"), None) => None,
            (None, Some(field)) => Some(field.to_owned()),
            _ => return Err(unknown()),
        };
        let name = name.to_owned();
        Ok(Self { sum_of, name })
    }

    fn of(&self, rows: &[&Row]) -> Value {
        match &self.sum_of {
            None => json!(rows.len()),
            Some(name) => {
                let values = rows.iter().filter_map(|row| field(row, name)?.as_u64());
                json!(values.sum::<u64>())
            }
        }
    }
}

/// One row for each combination of the fields of `by`.
fn counted(rows: &[Row], aggregates: &[Aggregate], by: &[String]) -> Vec<Row> {
    let mut groups: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let key = by.iter().map(|name| format!("{:?} ", field(row, name)));
        groups.entry(key.collect()).or_default().push(row);
    }
    let counted = |members: Vec<&Row>| {
        let keys = by.iter().filter_map(|name| {
            let value = field(members.first()?, name)?;
            Some((name.clone(), value))
        });
        let values = aggregates
            .iter()
            .map(|aggregate| (aggregate.name.clone(), aggregate.of(&members)));
        keys.chain(values).collect()
    };
    groups.into_values().map(counted).collect()
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
}

/// A field by its name. A field of an object within the line is named with a dot.
fn field(row: &Row, name: &str) -> Option<Value> {
    if name == BIN {
        let hour = row.get("timestamp")?.as_str()?.get(..13)?;
        return Some(hour.into());
    }
    let mut parts = name.split('.');
    let first = row.get(parts.next()?)?;
    let found = parts.try_fold(first, |value, part| value.get(part))?;
    Some(found.clone())
}

fn compared(one: Option<Value>, other: Option<Value>) -> Ordering {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    match (number(&one), number(&other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => text(one).cmp(&text(other)),
    }
}
