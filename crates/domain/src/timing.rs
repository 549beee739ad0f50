//! How long the phases of an attempt took.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    execution::{Attempt, Execution},
};

/// The lengths of the phases, in milliseconds. `None` is a phase that is not over, that did not
/// happen, or of which too little is known. On AWS the times are those that ECS and the log give,
/// so a phase may be some hundred milliseconds off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// From the submission, or from the end of the attempt before, to the launch.
    pub queued_ms: Option<u64>,
    /// From the launch to the beginning of the image's pull: a place is found, the network is set
    /// up.
    pub provisioning_ms: Option<u64>,
    /// The image's pull.
    pub pulling_ms: Option<u64>,
    /// From there to the command's first moment: the clone.
    pub setup_ms: Option<u64>,
    /// The command.
    pub running_ms: Option<u64>,
    /// The upload of the files that the command leaves.
    pub uploading_ms: Option<u64>,
}

impl Timings {
    /// The phases with their names, in their order.
    #[must_use]
    pub fn phases(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("queued", self.queued_ms),
            ("provisioning", self.provisioning_ms),
            ("pulling", self.pulling_ms),
            ("set-up", self.setup_ms),
            ("running", self.running_ms),
            ("uploading", self.uploading_ms),
        ]
    }

    /// The phases of both together.
    fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            _ => Some(one.unwrap_or_default() + other.unwrap_or_default()),
        };
        Self {
            queued_ms: sum(self.queued_ms, other.queued_ms),
            provisioning_ms: sum(self.provisioning_ms, other.provisioning_ms),
            pulling_ms: sum(self.pulling_ms, other.pulling_ms),
            setup_ms: sum(self.setup_ms, other.setup_ms),
            running_ms: sum(self.running_ms, other.running_ms),
            uploading_ms: sum(self.uploading_ms, other.uploading_ms),
        }
    }
}

impl Attempt {
    /// The phases of this attempt, which waited for its launch since `waits_since`.
    #[must_use]
    pub fn timings(&self, waits_since: Timestamp) -> Timings {
        let (task, markers) = (self.task.as_ref(), &self.markers);
        let of_task = |time: fn(&crate::ecs::Task) -> Option<Timestamp>| task.and_then(time);
        let pulled = of_task(|task| task.pull_stopped_at);
        let pull = of_task(|task| task.pull_started_at);
        let began = of_task(|task| task.started_at);
        let placed = pull.or(began).or(markers.set_up_at);
        // A set-up that fails ends by its own marker line.
        let set_up = markers.started_at.or(markers.ended_at);
        let ended = markers
            .ended_at
            .or_else(|| of_task(|task| task.execution_stopped_at));
        Timings {
            queued_ms: millis(Some(waits_since), Some(self.launched_at)),
            provisioning_ms: millis(Some(self.launched_at), placed),
            pulling_ms: millis(pull, pulled),
            setup_ms: millis(pulled.or(began).or(markers.set_up_at), set_up),
            running_ms: millis(markers.started_at, ended),
            uploading_ms: markers
                .uploaded
                .as_ref()
                .and_then(|uploaded| millis(markers.ended_at, Some(uploaded.at))),
        }
    }
}

impl Execution {
    /// The phases of each attempt.
    #[must_use]
    pub fn attempt_timings(&self) -> Vec<Timings> {
        let mut waits_since = self.submitted_at;
        let mut all = Vec::new();
        for attempt in &self.attempts {
            all.push(attempt.timings(waits_since));
            let closed = attempt.closed.as_ref();
            waits_since = closed.map_or(attempt.launched_at, |end| end.at);
        }
        all
    }

    /// The phases of all attempts together. A run that ended before it was launched was queued
    /// until then.
    #[must_use]
    pub fn timings(&self) -> Timings {
        if self.attempts.is_empty() {
            return Timings {
                queued_ms: millis(Some(self.submitted_at), self.end().map(|end| end.at)),
                ..Timings::default()
            };
        }
        self.attempt_timings()
            .into_iter()
            .fold(Timings::default(), Timings::and)
    }
}

/// The time between two moments. Two clocks may disagree by some milliseconds: that is no time.
fn millis(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<u64> {
    let between = (to? - from?).num_milliseconds();
    Some(u64::try_from(between).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{ecs::Task, execution::MarkerFacts, limit::CapacityPool};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default() + TimeDelta::seconds(seconds)
    }

    fn attempt(task: Task, markers: MarkerFacts) -> Attempt {
        Attempt {
            number: 1,
            pool: CapacityPool::Fargate,
            cpu: 256,
            nonce: String::new(),
            token_hash: None,
            run_task: None,
            launched_at: at(10),
            price: None,
            repeated_calls: Vec::new(),
            refusals: 0,
            task_arn: None,
            task: Some(task),
            markers,
            overdue: false,
            gone: false,
            closed: None,
        }
    }

    fn task() -> Task {
        Task {
            pull_started_at: Some(at(20)),
            pull_stopped_at: Some(at(25)),
            started_at: Some(at(26)),
            execution_stopped_at: Some(at(99)),
            ..Task::default()
        }
    }

    #[test]
    fn each_phase_has_its_length() {
        let markers = MarkerFacts {
            set_up_at: Some(at(26)),
            started_at: Some(at(30)),
            ended_at: Some(at(90)),
            ..MarkerFacts::default()
        };
        let expected = Timings {
            queued_ms: Some(10_000),
            provisioning_ms: Some(10_000),
            pulling_ms: Some(5_000),
            setup_ms: Some(5_000),
            running_ms: Some(60_000),
            uploading_ms: None,
        };
        assert_eq!(attempt(task(), markers).timings(at(0)), expected);
    }

    /// Of a command that was killed with its container, ECS alone knows the end.
    #[test]
    fn an_end_without_a_marker_is_that_of_the_task() {
        let markers = MarkerFacts {
            started_at: Some(at(30)),
            ..MarkerFacts::default()
        };
        let timings = attempt(task(), markers).timings(at(0));
        assert_eq!(timings.running_ms, Some(69_000));
    }

    #[test]
    fn a_set_up_that_failed_has_a_length_and_its_command_has_none() {
        let markers = MarkerFacts {
            ended_at: Some(at(28)),
            ..MarkerFacts::default()
        };
        let timings = attempt(task(), markers).timings(at(0));
        assert_eq!((timings.setup_ms, timings.running_ms), (Some(3_000), None));
    }

    #[test]
    fn phases_that_are_not_over_are_not_told() {
        let timings = attempt(Task::default(), MarkerFacts::default()).timings(at(12));
        let expected = Timings {
            queued_ms: Some(0),
            ..Timings::default()
        };
        assert_eq!(timings, expected);
    }
}
