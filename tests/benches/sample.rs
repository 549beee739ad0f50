//! Times of commands, taken in turns so that a busy moment affects all of them alike.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a command takes from its start to its end.
///
/// # Panics
/// If it cannot be started, or fails: a failed command is not measured.
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

/// The times of both commands, `rounds` of each, in turns, after a few that do not count.
pub(crate) fn in_turns(
    rounds: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> (Times, Times) {
    for _ in 0..3 {
        let _warm = (one(), other());
    }
    pairs(rounds, one, other)
}

/// The times of both, this many of each, in turns.
pub(crate) fn pairs(
    count: usize,
    mut one: impl FnMut() -> Duration,
    mut other: impl FnMut() -> Duration,
) -> (Times, Times) {
    let (ones, others) = (0..count).map(|_| (one(), other())).unzip();
    (Times::of(ones), Times::of(others))
}

/// Times of the same command, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Sorts the times; there must be at least one.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// The time that `share` in a thousand of them do not exceed.
    pub(crate) fn per_mille(&self, share: usize) -> Duration {
        self.0[(self.0.len() - 1) * share / 1000]
    }

    /// The median in milliseconds.
    pub(crate) fn median_millis(&self) -> f64 {
        self.median().as_secs_f64() * 1000.0
    }

    /// The fastest and the slowest, in milliseconds.
    pub(crate) fn range_millis(&self) -> (f64, f64) {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        (millis(self.0[0]), millis(self.0[self.0.len() - 1]))
    }

    /// Median, fastest and slowest, in milliseconds, as cells of a table.
    pub(crate) fn cells(&self) -> String {
        let (first, last) = self.range_millis();
        format!("{:.1} ms | {first:.1} – {last:.1} ms", self.median_millis())
    }
}

/// The middle value.
///
/// # Panics
/// If there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
