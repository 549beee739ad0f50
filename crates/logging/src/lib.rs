//! The logs of mycli's own processes: the functions and `mycli local serve` write one JSON object a
//! line. docs/LOGGING.md lists the fields and shows how to query them.
//!
//! The fields of an event and those of the spans around it stand beside each other in one object,
//! so that `request_id` is found at the same place in every line. Therefore no event may have a
//! field that a span around it has.

use std::panic;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, LevelFilter, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// Our crates that log. Each is a target of log events.
const OURS: &[&str] = &[
    "aws", "deploy", "domain", "local", "logging", "mycli", "pipeline",
];
/// The level that AWS Lambda sets for a function (Lambda developer guide, log-level filtering).
const LEVEL_OF_A_FUNCTION: &str = "AWS_LAMBDA_LOG_LEVEL";

/// Returns a filter that takes our own events at `level`, and those of libraries at `libraries`.
///
/// Libraries are never more verbose than warnings: below that level, an HTTP client or an AWS SDK
/// may log headers and bodies, and with them keys and variables.
pub fn filter(
    level: LevelFilter,
    libraries: LevelFilter,
) -> FilterFn<impl Fn(&Metadata<'_>) -> bool + Clone> {
    let libraries = libraries.min(LevelFilter::WARN);
    filter_fn(move |metadata: &Metadata<'_>| {
        // Directives by name would take `aws_smithy_runtime` for a part of `aws`.
        let name = metadata.target().split("::").next().unwrap_or_default();
        let level = if OURS.contains(&name) {
            level
        } else {
            libraries
        };
        *metadata.level() <= level
    })
}

/// Returns a layer that writes each event as one line of JSON: `timestamp` (RFC 3339, UTC),
/// `level`, `message`, and the fields of the event and of the spans around it.
pub fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    json_subscriber::layer()
        .with_target(false)
        .with_current_span(false)
        .flatten_event(true)
        .flatten_span_list_on_top_level(true)
        .with_writer(writer)
}

/// Makes a function's process log to standard output, from where Lambda takes it, at the level that
/// Lambda sets (`INFO` unless the stack says otherwise). A panic is a line of the log too.
pub fn init_function() {
    let level =
        std::env::var(LEVEL_OF_A_FUNCTION).map_or(LevelFilter::INFO, |level| of_lambda(&level));
    tracing_subscriber::registry()
        .with(json(std::io::stdout).with_filter(filter(level, LevelFilter::WARN)))
        .init();
    panic::set_hook(Box::new(|fault| {
        tracing::error!(error = %fault, "a function panicked");
    }));
}

/// Lambda's name of a level. There is no level beyond errors here.
fn of_lambda(level: &str) -> LevelFilter {
    match level {
        "FATAL" => LevelFilter::ERROR,
        level => level.parse().unwrap_or(LevelFilter::INFO),
    }
}

/// Returns the span of one invocation of a function that no HTTP request causes. `request_id` is
/// the invocation's, as in Lambda's own lines.
#[must_use]
pub fn invocation(request_id: &str) -> tracing::Span {
    tracing::error_span!("invocation", request_id)
}
