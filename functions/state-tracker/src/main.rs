//! The state tracker function: turns ECS's events and the runner's marker lines into history,
//! repairs in a sweep each minute what was missed, and publishes and counts the ends of executions.

// The SDK's futures nest deeper than rustc's default limit.
#![recursion_limit = "256"]

use std::time::Duration;

use aws::{
    connect,
    dynamo::DynamoStore,
    ecs::EcsTasks,
    events::EventBus,
    logs::CloudWatchLogs,
    metrics::EmbeddedMetrics,
    quotas::ServiceQuotas,
    settings::{Function, Installation},
    sqs::SqsQueue,
    system::System,
};
use domain::{Timestamp, ports::Clock as _};
use futures_util::TryFutureExt as _;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use pipeline::{
    announce::announce,
    gauges,
    state_tracker::{Input, StateTracker},
    statistics,
};
use serde_json::Value;
use tokio::time::timeout;
use tracing::Instrument as _;

/// The part of the function's time that a sweep leaves unused, in milliseconds. A sweep checks the
/// time only between two pages of executions, so this is the time for one page.
const SPARE_MILLIS: u64 = 15_000;

/// How long the measures after a sweep may take, within the time that the sweep leaves unused.
/// Backlogs of hundreds of submitters could need longer, and the sweep's work must not be repeated
/// for them.
const MEASURED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init_function();
    let Installation {
        settings, names, ..
    } = Installation::from_environment(Function::StateTracker)?;
    let metrics = EmbeddedMetrics::install(&names.metrics_namespace);
    let config = connect::from_environment()?;
    let store = DynamoStore::of(&config, names.table, names.retention_days);
    let queue = SqsQueue::new(&config, names.launch_queue_url, names.control_queue_url);
    let tasks = EcsTasks::new(&config, settings.cluster.clone(), None);
    let logs = CloudWatchLogs::new(&config, settings.log_group.clone());
    let bus = EventBus::new(&config, names.event_bus);
    let quotas = ServiceQuotas::new(&config);
    let tracker = StateTracker {
        store: &store,
        queue: &queue,
        tasks: &tasks,
        logs: &logs,
        quotas: &quotas,
        system: &System,
        settings: &settings,
    };
    let answer = async |event: LambdaEvent<Value>| {
        let span = logging::invocation(&event.context.request_id);
        let handled = async {
            match Input::read(event.payload, &event.context.invoked_function_arn)? {
                Input::Task(event) => tracker.task_changed(&event).await?,
                Input::Lines(event) => tracker.lines_written(&event).await?,
                Input::Ended(ids) => announce(&store, &bus, ids).await?,
                Input::ToCount(ids) => statistics::count(&store, System.now(), &ids).await?,
                Input::Sweep => {
                    let swept = tracker.next_sweep(until(event.context.deadline)).await;
                    if metrics.is_on() {
                        let measured = gauges::measure(&store, &settings, System.now());
                        if timeout(MEASURED_WITHIN, measured).await.is_err() {
                            tracing::warn!("the state of the moment takes too long to measure");
                        }
                    }
                    swept?;
                }
            }
            Ok::<_, Error>(())
        };
        let logged = handled.inspect_err(|error| tracing::error!(%error, "an event failed"));
        let handled = logged.instrument(span).await;
        metrics.flush(System.now());
        handled
    };
    Runtime::new(service_fn(answer)).run().await
}

/// Returns until when a sweep may go on. The deadline is in milliseconds since the epoch.
fn until(deadline: u64) -> Timestamp {
    let millis = i64::try_from(deadline.saturating_sub(SPARE_MILLIS)).unwrap_or(i64::MAX);
    Timestamp::from_timestamp_millis(millis).unwrap_or_default()
}
