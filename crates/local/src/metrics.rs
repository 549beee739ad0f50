//! The metrics of this process, as Prometheus reads them.

use std::sync::OnceLock;

use domain::metric::{self, METRICS, MetricKind, MetricUnit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// The type of the text (Prometheus documentation, "Exposition formats").
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of times, in seconds: from what a wait takes at least to a timeout of a day.
const SECONDS: [f64; 13] = [
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 10_800.0, 43_200.0, 86_400.0,
];
/// Upper bounds of costs, in dollars.
const DOLLARS: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

/// The recorder of this process: the facade has one for all servers in it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to record, unless this process does so already. If another recorder is installed, there
/// is nothing to show.
pub(crate) fn begin() {
    RECORDER.get_or_init(|| {
        let made = builder().and_then(PrometheusBuilder::install_recorder);
        let made = made.inspect_err(|error| tracing::warn!(%error, "there are no metrics"));
        metric::describe();
        made.ok()
    });
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut histograms = METRICS
        .into_iter()
        .filter(|metric| metric.kind == MetricKind::Histogram);
    histograms.try_fold(PrometheusBuilder::new(), |builder, metric| {
        let bounds: &[f64] = match metric.unit {
            MetricUnit::Dollars => &DOLLARS,
            MetricUnit::Seconds | MetricUnit::Count => &SECONDS,
        };
        let name = Matcher::Full(metric.name.to_owned());
        builder.set_buckets_for_metric(name, bounds)
    })
}

/// The metrics as text.
pub(crate) fn text() -> String {
    let handle = RECORDER.get().and_then(Option::as_ref);
    handle.map(PrometheusHandle::render).unwrap_or_default()
}

/// Sums up what was recorded, so that memory does not grow while nobody reads the metrics.
pub(crate) fn tidy() {
    if let Some(handle) = RECORDER.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}
