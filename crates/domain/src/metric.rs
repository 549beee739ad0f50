//! The metrics: how the installation as a whole is doing.
//!
//! Handlers and adapters record them through the facade of the crate `metrics`. A process without a
//! recorder measures nothing. The functions write them into their logs, in CloudWatch's embedded
//! metric format; `mycli local serve` shows them at `/metrics`.
//!
//! Labels have few values, so that a metric stays cheap: CloudWatch bills each combination of values
//! as a metric of its own. Therefore no label has an id, or a name that a user made up.

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, as Prometheus names metrics.
    pub name: &'static str,
    /// Its name in CloudWatch; `None` if the functions need not write it.
    pub in_cloudwatch: Option<&'static str>,
    /// The kind of its values.
    pub kind: MetricKind,
    /// The unit of its values.
    pub unit: MetricUnit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, for people.
    pub help: &'static str,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// The value of the moment.
    Gauge,
    /// One value for each run.
    Histogram,
}

/// The units of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A number of things.
    Count,
    /// A time, with fractions.
    Seconds,
    /// US dollars, at list price. CloudWatch has no such unit.
    Dollars,
}

pub(crate) const CAPACITY: &str = "capacity";
pub(crate) const STATUS: &str = "status";
pub(crate) const CAUSE: &str = "cause";
pub(crate) const LIMIT: &str = "limit";

/// The runs that ended.
pub const RUNS: Metric = counter(
    "mycli_runs_total",
    "Runs",
    &[CAPACITY, STATUS],
    "Runs that ended, by final status and capacity",
);
/// The waits of ended runs.
pub const WAIT: Metric = of_runs(
    "mycli_wait_seconds",
    "Wait",
    MetricUnit::Seconds,
    "How long a run waited for its launches",
);
/// The provisioning times of ended runs.
pub const PROVISIONING: Metric = of_runs(
    "mycli_provisioning_seconds",
    "Provisioning",
    MetricUnit::Seconds,
    "From the launch of a run's task to the beginning of its image's pull",
);
/// The run times of ended runs.
pub const RUN_TIME: Metric = of_runs(
    "mycli_run_seconds",
    "RunTime",
    MetricUnit::Seconds,
    "How long a run's command ran",
);
/// The cost of ended runs, at least.
pub const COST_LOW: Metric = of_runs(
    "mycli_cost_low_dollars",
    "CostLow",
    MetricUnit::Dollars,
    "About what a run cost at list price, at least",
);
/// The cost of ended runs, at most.
pub const COST_HIGH: Metric = of_runs(
    "mycli_cost_high_dollars",
    "CostHigh",
    MetricUnit::Dollars,
    "About what a run cost at list price, at most",
);
/// The tasks that started.
pub const LAUNCHES: Metric = counter(
    "mycli_launches_total",
    "Launches",
    &[CAPACITY],
    "Tasks that were started",
);
/// The launches that were refused.
pub const REFUSALS: Metric = counter(
    "mycli_refusals_total",
    "Refusals",
    &[CAPACITY, CAUSE],
    "Launches that were refused, by cause: rate, quota, capacity, other",
);
/// The sizes of backlogs.
pub const BACKLOG: Metric = gauge(
    "mycli_backlog_runs",
    "BacklogLength",
    MetricUnit::Count,
    &[LIMIT],
    "Runs that wait for a limit: spot, on-demand, machine, lock, group",
);
/// The ages of backlogs.
pub const BACKLOG_AGE: Metric = gauge(
    "mycli_backlog_oldest_seconds",
    "BacklogAge",
    MetricUnit::Seconds,
    &[LIMIT],
    "How long ago the run that waits longest for a limit was submitted",
);
/// The vCPUs in use.
pub const VCPUS_USED: Metric = gauge(
    "mycli_vcpus_used",
    "VcpusUsed",
    MetricUnit::Count,
    &[CAPACITY],
    "vCPUs that runs hold",
);
/// The vCPUs that may be in use.
pub const VCPUS_MAX: Metric = gauge(
    "mycli_vcpus_quota",
    "VcpusQuota",
    MetricUnit::Count,
    &[CAPACITY],
    "vCPUs that runs may hold at once",
);
/// The records that cannot be read. In a stack a filter counts the log lines about them, also those
/// of functions that write no metrics.
pub const UNREADABLE: Metric = Metric {
    name: "mycli_unreadable_records_total",
    in_cloudwatch: None,
    kind: MetricKind::Counter,
    unit: MetricUnit::Count,
    labels: &[],
    help: "How often a record was passed over because it cannot be read",
};

/// All metrics.
pub const METRICS: [Metric; 13] = [
    RUNS,
    WAIT,
    PROVISIONING,
    RUN_TIME,
    COST_LOW,
    COST_HIGH,
    LAUNCHES,
    REFUSALS,
    BACKLOG,
    BACKLOG_AGE,
    VCPUS_USED,
    VCPUS_MAX,
    UNREADABLE,
];

const fn counter(
    name: &'static str,
    in_cloudwatch: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        in_cloudwatch: Some(in_cloudwatch),
        kind: MetricKind::Counter,
        unit: MetricUnit::Count,
        labels,
        help,
    }
}

const fn gauge(
    name: &'static str,
    in_cloudwatch: &'static str,
    unit: MetricUnit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        in_cloudwatch: Some(in_cloudwatch),
        kind: MetricKind::Gauge,
        unit,
        labels,
        help,
    }
}

const fn of_runs(
    name: &'static str,
    in_cloudwatch: &'static str,
    unit: MetricUnit,
    help: &'static str,
) -> Metric {
    Metric {
        name,
        in_cloudwatch: Some(in_cloudwatch),
        kind: MetricKind::Histogram,
        unit,
        labels: &[CAPACITY],
        help,
    }
}

/// Tells the recorder of this process what each metric means.
pub fn describe() {
    for metric in METRICS {
        let unit = match metric.unit {
            MetricUnit::Count | MetricUnit::Dollars => metrics::Unit::Count,
            MetricUnit::Seconds => metrics::Unit::Seconds,
        };
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// Records that a stored form was passed over because it cannot be read.
pub fn record_unreadable() {
    metrics::counter!(UNREADABLE.name).increment(1);
}
