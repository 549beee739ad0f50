//! Times of commands, taken in turns so that a busy moment falls on all alike.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a command takes from its start to its end.
///
/// # Panics
/// When it cannot be started or fails: what fails is not measured.
pub(crate) fn time(command: &mut Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let start = Instant::now();
    let status = command.status().expect("the command can be started");
    let took = start.elapsed();
    assert!(
        status.success(),
        "{:?} ended with {status}",
        command.get_program()
    );
    took
}

/// The times of both commands, so many of each, in turns, after a few that do not count.
pub(crate) fn in_turns(
    rounds: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> (Times, Times) {
    for _ in 0..3 {
        let _warm = (one(), other());
    }
    let (ones, others) = (0..rounds).map(|_| (one(), other())).unzip();
    (Times::of(ones), Times::of(others))
}

/// Times of the same thing, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Of at least one.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// The one that so many of a thousand do not exceed.
    pub(crate) fn per_mille(&self, share: usize) -> Duration {
        self.0[(self.0.len() - 1) * share / 1000]
    }

    /// The median in milliseconds.
    pub(crate) fn median_millis(&self) -> f64 {
        self.median().as_secs_f64() * 1000.0
    }

    /// The quickest and the slowest, in milliseconds.
    pub(crate) fn range_millis(&self) -> (f64, f64) {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        (millis(self.0[0]), millis(self.0[self.0.len() - 1]))
    }

    /// Median, quickest and slowest, in milliseconds, as cells of a table.
    pub(crate) fn cells(&self) -> String {
        let (first, last) = self.range_millis();
        format!("{:.1} ms | {first:.1} – {last:.1} ms", self.median_millis())
    }
}

/// The one in the middle.
///
/// # Panics
/// When there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
