//! Metrics in CloudWatch's embedded metric format: lines of a function's log from which CloudWatch
//! takes metrics, without a call and without a permission.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{
    Timestamp,
    metric::{METRICS, Metric, MetricUnit},
};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use serde_json::{Map, Value, json};

/// Most values of one metric in a line (CloudWatch user guide, embedded metric format
/// specification).
const VALUES_MAX: usize = 100;

/// The values recorded since the last line, by their labels. One line has all metrics of the same
/// labels.
type ByLabels = BTreeMap<Vec<(String, String)>, BTreeMap<&'static str, Values>>;

/// The values of a metric.
#[derive(Debug)]
enum Values {
    Sum(u64),
    Last(f64),
    All(Vec<f64>),
}

/// Collects metrics until they are written as lines.
#[derive(Clone, Debug)]
pub struct EmbeddedMetrics {
    namespace: String,
    recorded: Arc<Mutex<ByLabels>>,
}

impl EmbeddedMetrics {
    /// Makes a recorder that writes into a namespace of CloudWatch.
    #[must_use]
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            recorded: Arc::default(),
        }
    }

    /// Makes the recorder of this process, which has one at most. Without a namespace it measures
    /// nothing.
    #[must_use]
    pub fn install(namespace: &str) -> Self {
        let made = Self::new(namespace);
        if made.is_on() {
            let _first = metrics::set_global_recorder(made.clone());
        }
        made
    }

    /// Whether anything is measured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.namespace.is_empty()
    }

    /// Writes what was recorded since the last call to standard output, from where Lambda takes it.
    /// A failure is logged: no work fails for its metrics.
    pub fn flush(&self, now: Timestamp) {
        if let Err(error) = self.write(now, &mut io::stdout().lock()) {
            tracing::warn!(%error, "metrics could not be written");
        }
    }

    /// Writes what was recorded since the last call, one JSON object a line. A gauge of zero is left
    /// out: CloudWatch bills a metric for each hour in which it has a value, and a stack that does
    /// nothing should cost nothing.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&self, now: Timestamp, to: &mut impl Write) -> io::Result<()> {
        for (labels, metrics) in std::mem::take(&mut *self.lock()) {
            for line in self.lines(now, &labels, metrics) {
                // In one piece, so that no other line falls in between.
                to.write_all(format!("{line}\n").as_bytes())?;
            }
        }
        to.flush()
    }

    /// The lines of metrics with the same labels: several, if one has too many values for a line.
    fn lines(
        &self,
        now: Timestamp,
        labels: &[(String, String)],
        metrics: BTreeMap<&'static str, Values>,
    ) -> Vec<Value> {
        let mut parts: Vec<Map<String, Value>> = Vec::new();
        let mut place = |part: usize, name: &str, value: Value| {
            if parts.len() <= part {
                parts.resize_with(part + 1, Map::new);
            }
            parts[part].insert(name.to_owned(), value);
        };
        for (name, values) in metrics {
            match values {
                Values::Sum(sum) => place(0, name, json!(sum)),
                Values::Last(0.0) => {}
                Values::Last(last) => place(0, name, json!(last)),
                Values::All(all) => {
                    for (part, some) in all.chunks(VALUES_MAX).enumerate() {
                        place(part, name, json!(some));
                    }
                }
            }
        }
        let line = |values: Map<String, Value>| self.line(now, labels, values);
        parts.into_iter().map(line).collect()
    }

    fn line(
        &self,
        now: Timestamp,
        labels: &[(String, String)],
        values: Map<String, Value>,
    ) -> Value {
        let names: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).collect();
        let definitions: Vec<_> = values.keys().map(|name| definition(name)).collect();
        let mut line = json!({
            "_aws": {
                "Timestamp": now.timestamp_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [names],
                    "Metrics": definitions,
                }],
            },
        });
        for (name, value) in labels {
            line[name] = json!(value);
        }
        for (name, value) in values {
            line[name] = value;
        }
        line
    }

    fn lock(&self) -> MutexGuard<'_, ByLabels> {
        // A panic while it was locked has lost one value at most.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the place where the values of a metric are collected; `None` for one that is not for
    /// CloudWatch.
    fn cell(&self, key: &Key) -> Option<Arc<Cell>> {
        let metric = METRICS.iter().find(|metric| metric.name == key.name())?;
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        labels.sort();
        Some(Arc::new(Cell {
            metrics: self.clone(),
            labels,
            name: metric.in_cloudwatch?,
        }))
    }
}

fn definition(name: &str) -> Value {
    let is_it = |metric: &&Metric| metric.in_cloudwatch == Some(name);
    let unit = match METRICS.iter().find(is_it).map(|metric| metric.unit) {
        Some(MetricUnit::Count) => "Count",
        Some(MetricUnit::Seconds) => "Seconds",
        Some(MetricUnit::Dollars) | None => "None",
    };
    json!({ "Name": name, "Unit": unit })
}

/// The values of a metric with certain labels.
#[derive(Debug)]
struct Cell {
    metrics: EmbeddedMetrics,
    labels: Vec<(String, String)>,
    name: &'static str,
}

impl Cell {
    fn change(&self, empty: Values, change: impl FnOnce(&mut Values)) {
        let mut recorded = self.metrics.lock();
        let of_labels = recorded.entry(self.labels.clone()).or_default();
        change(of_labels.entry(self.name).or_insert(empty));
    }
}

impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.change(Values::Sum(0), |values| {
            if let Values::Sum(sum) = values {
                *sum = sum.saturating_add(by);
            }
        });
    }

    /// A counter of this format has no value before it counts.
    fn absolute(&self, value: u64) {
        self.change(Values::Sum(0), |values| *values = Values::Sum(value));
    }
}

impl GaugeFn for Cell {
    fn increment(&self, by: f64) {
        self.change(Values::Last(0.0), |values| {
            if let Values::Last(last) = values {
                *last += by;
            }
        });
    }

    fn decrement(&self, by: f64) {
        GaugeFn::increment(self, -by);
    }

    fn set(&self, value: f64) {
        self.change(Values::Last(0.0), |values| *values = Values::Last(value));
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.change(Values::All(Vec::new()), |values| {
            if let Values::All(all) = values {
                all.push(value);
            }
        });
    }
}

impl Recorder for EmbeddedMetrics {
    /// The format has no descriptions.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.cell(key).map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.cell(key).map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.cell(key)
            .map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        limit::{BacklogSize, CapacityPool, LimitKey},
        measure, metric,
        ports::LaunchError,
        scheduler::adaptive_limit::Shortage,
    };

    use super::*;

    /// The lines of what `record` records.
    fn lines(record: impl FnOnce()) -> Vec<Value> {
        let embedded = EmbeddedMetrics::new("mycli/default");
        metrics::with_local_recorder(&embedded, record);
        written(&embedded)
    }

    fn written(embedded: &EmbeddedMetrics) -> Vec<Value> {
        let mut text = Vec::new();
        let now = Timestamp::from_timestamp_millis(1_764_752_400_123).expect("a moment");
        embedded.write(now, &mut text).expect("memory takes it");
        let text = String::from_utf8(text).expect("it is text");
        let parsed = text.lines().map(serde_json::from_str::<Value>);
        parsed.collect::<Result<_, _>>().expect("each is JSON")
    }

    #[test]
    fn a_line_has_what_cloudwatch_looks_for() {
        let lines = lines(|| {
            for _ in 0..3 {
                measure::record_launch(CapacityPool::FargateSpot);
            }
        });
        let wanted = json!({
            "_aws": {
                "Timestamp": 1_764_752_400_123_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "mycli/default",
                    "Dimensions": [["capacity"]],
                    "Metrics": [{ "Name": "Launches", "Unit": "Count" }],
                }],
            },
            "capacity": "spot",
            "Launches": 3,
        });
        assert_eq!(lines, [wanted]);
    }

    #[test]
    fn refusals_are_told_apart_by_cause() {
        let full = |shortage| LaunchError::Full {
            shortage,
            words: "no".into(),
        };
        let refusals = [
            LaunchError::Throttled("slow".into()),
            full(Shortage::Quota),
            full(Shortage::Capacity),
            LaunchError::Refused("never".into()),
            LaunchError::Unknown("silence".into()),
        ];
        let lines = lines(|| {
            for error in &refusals {
                measure::record_refusal(CapacityPool::Fargate, error);
            }
        });
        let causes: Vec<_> = lines.iter().map(|line| line["cause"].clone()).collect();
        assert_eq!(causes, ["capacity", "other", "quota", "rate"]);
    }

    #[test]
    fn many_values_are_split_and_none_is_lost() {
        let lines = lines(|| {
            for value in 0..250 {
                metrics::histogram!(metric::WAIT.name, "capacity" => "spot").record(value);
            }
            metrics::histogram!(metric::RUN_TIME.name, "capacity" => "spot").record(7);
        });
        let counts: Vec<_> = lines
            .iter()
            .map(|line| line["Wait"].as_array().map_or(0, Vec::len))
            .collect();
        assert_eq!(counts, [100, 100, 50]);
        assert_eq!(lines[0]["RunTime"], json!([7.0]));
        assert_eq!(lines[1].get("RunTime"), None, "it is told once");
    }

    #[test]
    fn nothing_is_written_twice_and_an_idle_stack_writes_nothing() {
        let embedded = EmbeddedMetrics::new("mycli/default");
        let pools = [CapacityPool::FargateSpot, CapacityPool::Fargate];
        let now = Timestamp::from_timestamp_millis(90_000).expect("a moment");
        let size = BacklogSize {
            key: LimitKey::Pool(CapacityPool::Fargate),
            entries: 4,
            oldest: Timestamp::default(),
        };
        metrics::with_local_recorder(&embedded, || {
            measure::record_backlogs(&pools, &[size], now);
            measure::record_use(CapacityPool::Fargate, 1536, None);
        });
        let first = written(&embedded);
        assert_eq!(first.len(), 2, "{first:?}");
        assert_eq!(first[0]["VcpusUsed"], 1.5);
        assert_eq!(
            (&first[1]["BacklogLength"], &first[1]["BacklogAge"]),
            (&json!(4.0), &json!(90.0))
        );
        metrics::with_local_recorder(&embedded, || {
            measure::record_backlogs(&pools, &[], now);
            measure::record_use(CapacityPool::Fargate, 0, None);
        });
        assert_eq!(written(&embedded), Vec::<Value>::new());
    }

    #[test]
    fn metrics_that_the_log_tells_are_left_out() {
        assert_eq!(lines(metric::record_unreadable), Vec::<Value>::new());
    }
}
