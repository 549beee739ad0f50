//! The launcher function: starts the executions at the heads of backlogs, stops tasks that are not
//! wanted any more, and finds out what came of launches whose outcome is unknown.

// The SDK's futures nest deeper than rustc's default limit.
#![recursion_limit = "256"]

use aws::{
    connect,
    dynamo::DynamoStore,
    ecs::EcsTasks,
    logs::CloudWatchLogs,
    metrics::EmbeddedMetrics,
    settings::{Function, Installation},
    sqs::SqsQueue,
    system::System,
};
use aws_lambda_events::sqs::SqsEvent;
use domain::ports::Clock as _;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use pipeline::{
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
};
use tracing::Instrument as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init_function();
    let Installation {
        settings,
        names,
        registration,
    } = Installation::from_environment(Function::Launcher)?;
    let metrics = EmbeddedMetrics::install(&names.metrics_namespace);
    let config = connect::from_environment()?;
    let store = DynamoStore::of(&config, names.table, names.retention_days);
    let queue = SqsQueue::new(&config, names.launch_queue_url, names.control_queue_url);
    let tasks = EcsTasks::new(&config, settings.cluster.clone(), registration);
    let logs = CloudWatchLogs::new(&config, settings.log_group.clone());
    let (registered, pace) = (Registered::default(), Pace::default());
    let heads = Heads::default();
    let launcher = Launcher {
        store: &store,
        queue: &queue,
        tasks: &tasks,
        logs: &logs,
        secrets: &store,
        registered: &registered,
        pace: &pace,
        heads: &heads,
        system: &System,
        settings: &settings,
    };
    let answer = async |event: LambdaEvent<SqsEvent>| {
        let span = logging::invocation(&event.context.request_id);
        let handled = launcher.handle(event.payload).instrument(span).await;
        metrics.flush(System.now());
        Ok::<_, Error>(handled)
    };
    Runtime::new(service_fn(answer)).run().await
}
