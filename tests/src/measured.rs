//! The metrics of a part of a test, as a function writes them.

use std::future::Future;

use aws::metrics::EmbeddedMetrics;
use domain::Timestamp;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString,
    Unit,
};

/// The namespace of all metrics here.
pub const NAMESPACE: &str = "mycli/measured";

tokio::task_local! {
    /// The metrics of the invocation that a task belongs to.
    static INVOCATION: EmbeddedMetrics;
}

/// Gives each invocation metrics of its own, as each has a process of its own on AWS.
#[derive(Debug)]
struct ByInvocation;

impl Recorder for ByInvocation {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let own = INVOCATION.try_with(|metrics| metrics.register_counter(key, metadata));
        own.unwrap_or_else(|_| Counter::noop())
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let own = INVOCATION.try_with(|metrics| metrics.register_gauge(key, metadata));
        own.unwrap_or_else(|_| Gauge::noop())
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let own = INVOCATION.try_with(|metrics| metrics.register_histogram(key, metadata));
        own.unwrap_or_else(|_| Histogram::noop())
    }
}

/// Measures what [`invocation`]s on this thread do, until the guard is dropped.
#[must_use]
pub fn on_this_thread() -> LocalRecorderGuard<'static> {
    metrics::set_default_local_recorder(&ByInvocation)
}

/// Does the work of one invocation. Returns its result and the lines that it writes at this time.
///
/// # Panics
/// When a line is not text.
pub async fn invocation<T>(
    now: impl Fn() -> Timestamp,
    work: impl Future<Output = T>,
) -> (T, String) {
    let embedded = EmbeddedMetrics::new(NAMESPACE);
    // On the heap: a debug build of a handler needs much of a stack.
    let done = INVOCATION.scope(embedded.clone(), Box::pin(work)).await;
    let mut lines = Vec::new();
    let written = embedded.write(now(), &mut lines);
    written.unwrap_or_else(|error| panic!("memory takes it: {error}"));
    let text = String::from_utf8(lines);
    (done, text.unwrap_or_else(|error| panic!("{error}")))
}
