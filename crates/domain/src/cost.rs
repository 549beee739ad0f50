//! The cost of runs, at AWS's list prices.
//!
//! An attempt keeps the price of an hour from its launch on. Its cost is computed from that and
//! from the times that ECS reports, so it does not depend on the order in which these arrive, and
//! a price that changes later changes no record.

use std::{iter::Sum, ops::Add};

use crate::{
    Timestamp,
    execution::{Attempt, Execution, Final, Outcome},
    limit::CapacityPool,
    price::{BASIS_OF_STACK, NanoUsd},
};

/// The shortest time that a task is billed for, in seconds (AWS Fargate pricing).
const BILLED_SECONDS_MIN: u64 = 60;
/// The seconds of an hour.
const HOUR: u64 = 3600;

/// An amount that is known within bounds: Spot's price floats, and some times of some tasks are
/// unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// At least so much.
    pub low: NanoUsd,
    /// At most so much.
    pub high: NanoUsd,
    /// The sources of the prices, each once ([`basis`](crate::price::PriceList::basis)).
    pub basis: Vec<String>,
}

impl Cost {
    /// The sources of the prices, in words.
    #[must_use]
    pub fn basis_in_words(&self) -> String {
        let words = |basis: &String| match basis.as_str() {
            BASIS_OF_STACK => "list prices that the stack was given".to_owned(),
            region => format!("list prices of {region}"),
        };
        let all: Vec<_> = self.basis.iter().map(words).collect();
        all.join("; ")
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.low = self.low + other.low;
        self.high = self.high + other.high;
        for basis in other.basis {
            if !self.basis.contains(&basis) {
                self.basis.push(basis);
            }
        }
        self
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl Attempt {
    /// The cost of this attempt; `None` while it is open, and if it has no price.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        let price = self.price.as_ref()?;
        let (least, most) = self.billed_seconds()?;
        let times = |hourly: NanoUsd, seconds: u64| {
            let amount = u128::from(hourly.0) * u128::from(seconds) / u128::from(HOUR);
            NanoUsd(u64::try_from(amount).unwrap_or(u64::MAX))
        };
        Some(Cost {
            low: times(price.low, least),
            high: times(price.high, most),
            basis: vec![price.basis.clone()],
        })
    }

    /// The seconds that AWS bills, at least and at most: the time that its task was there, rounded up
    /// to the second, and no less than a minute. `None` while the attempt is open.
    fn billed_seconds(&self) -> Option<(u64, u64)> {
        let (least, most) = self.task_millis()?;
        let billed = |millis: u64| match millis {
            0 => 0,
            millis => millis.div_ceil(1000).max(BILLED_SECONDS_MIN),
        };
        Some((billed(least), billed(most)))
    }

    /// Whether it has ended, and may have had a task that worked.
    fn may_have_worked(&self) -> bool {
        self.task_millis().is_some_and(|(_, most)| most > 0)
    }

    /// The time that its task was there, at least and at most, in milliseconds: from the beginning of
    /// the image's pull until the task has stopped. `None` while the attempt is open.
    fn task_millis(&self) -> Option<(u64, u64)> {
        let Final {
            outcome,
            at: closed,
        } = self.closed.as_ref()?;
        let (task, markers) = (self.task.as_ref(), &self.markers);
        let of_task = |time: fn(&crate::ecs::Task) -> Option<Timestamp>| task.and_then(time);
        let pulled = of_task(|task| task.pull_started_at);
        let stopped = of_task(|task| task.stopped_at);
        let seen_running = [
            of_task(|task| task.started_at),
            markers.set_up_at,
            markers.started_at,
        ];
        let began = pulled.or(seen_running.into_iter().flatten().min());
        let Some(began) = began else {
            // Nothing was seen of a task at work. If nobody can tell how the attempt ended, a task
            // may have worked all the same.
            let is_unknown = self.gone || matches!(outcome, Outcome::Lost { .. });
            let most = is_unknown.then(|| millis(self.launched_at, *closed));
            return Some((0, most.unwrap_or_default()));
        };
        let uploaded = markers.uploaded.as_ref().map(|uploaded| uploaded.at);
        let last_seen = [
            Some(began),
            of_task(|task| task.execution_stopped_at),
            markers.ended_at,
            uploaded,
        ];
        let last_seen = last_seen.into_iter().flatten().max().unwrap_or(began);
        let least = millis(began, stopped.unwrap_or(last_seen));
        let most = millis(
            pulled.unwrap_or(self.launched_at),
            stopped.unwrap_or(last_seen.max(*closed)),
        );
        Some((least, most.max(least)))
    }
}

/// The time from one moment to another, in milliseconds, and at least one: a task that was there at
/// all is billed.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    let between = (to - from).num_milliseconds();
    u64::try_from(between).unwrap_or_default().max(1)
}

impl Execution {
    /// The cost of all attempts together. `None` until the run has ended, if no task was started
    /// for it, and if the price of an attempt is not known.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        self.end()?;
        // An attempt that started nothing costs nothing, whatever its price.
        let is_known = |attempt: &&Attempt| attempt.price.is_some() || attempt.may_have_worked();
        let mut attempts = self.launched_attempts().filter(is_known).peekable();
        attempts.peek()?;
        attempts.map(Attempt::cost).sum()
    }

    /// The attempts for which a task may have been started. ECS may have refused the last one just
    /// before the run was cancelled: then it stays open, and started nothing.
    pub fn launched_attempts(&self) -> impl Iterator<Item = &Attempt> {
        let was_refused = |attempt: &Attempt| {
            attempt.is_open() && attempt.run_task.is_none() && attempt.task_arn.is_none()
        };
        self.attempts.iter().filter(move |one| !was_refused(one))
    }

    /// Whether it used something that AWS bills, and whose price is not known.
    #[must_use]
    pub fn is_unpriced(&self) -> bool {
        self.attempts.iter().any(|attempt| {
            attempt.pool != CapacityPool::Machine
                && attempt.price.is_none()
                && attempt.may_have_worked()
        })
    }

    /// The CPU units that the tasks of its attempts had, times the milliseconds for which they were
    /// surely there.
    #[must_use]
    pub fn cpu_ms(&self) -> u64 {
        let of_attempt = |attempt: &Attempt| {
            let (least, _) = attempt.task_millis().unwrap_or_default();
            least.saturating_mul(u64::from(attempt.cpu))
        };
        let all = self.attempts.iter().map(of_attempt);
        all.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        ecs::{Task, TaskStatus},
        execution::{MarkerFacts, State},
        id::ExecutionId,
        key::Caller,
        price::PriceList,
        request::{Defaults, LaunchRequest, SubmitRequest},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default() + TimeDelta::seconds(seconds)
    }

    fn request() -> LaunchRequest {
        let request = SubmitRequest {
            command: Some("true".into()),
            ..SubmitRequest::default()
        };
        request.validate(&Defaults::aws()).expect("it is valid")
    }

    /// An attempt whose task was launched at second 10, and its price on demand.
    fn attempt(task: Option<Task>, closed: i64) -> Attempt {
        let (prices, pool) = (PriceList::of_region("us-east-1"), CapacityPool::Fargate);
        Attempt {
            number: 1,
            pool,
            cpu: 256,
            nonce: String::new(),
            token_hash: None,
            run_task: None,
            launched_at: at(10),
            price: prices.and_then(|prices| prices.attempt(&request(), pool, false)),
            repeated_calls: Vec::new(),
            refusals: 0,
            task_arn: Some("arn:aws:ecs:r:1:task/c/t".to_owned().into()),
            task,
            markers: MarkerFacts::default(),
            overdue: false,
            gone: false,
            closed: Some(Final {
                outcome: Outcome::Succeeded,
                at: at(closed),
            }),
        }
    }

    fn worked(from: i64, to: i64) -> Option<Task> {
        Some(Task {
            last_status: TaskStatus::Stopped,
            pull_started_at: Some(at(from)),
            stopped_at: Some(at(to)),
            ..Task::default()
        })
    }

    #[test]
    fn a_task_is_billed_from_its_pull_to_its_end_by_the_second_and_for_a_minute_at_least() {
        let seconds = |task, closed| attempt(task, closed).billed_seconds();
        assert_eq!(seconds(worked(20, 30), 30), Some((60, 60)));
        assert_eq!(seconds(worked(20, 3_620), 3_620), Some((3_600, 3_600)));
        let mut task = worked(20, 100).expect("a task");
        task.stopped_at = task.stopped_at.map(|at| at + TimeDelta::milliseconds(1));
        assert_eq!(seconds(Some(task), 101), Some((81, 81)));
        let cost = attempt(worked(20, 3_620), 3_620).cost().expect("a cost");
        assert_eq!((cost.low.0, cost.high.0), (9_875_000, 9_875_000));
    }

    #[test]
    fn a_task_that_never_worked_costs_nothing() {
        let never = Task {
            last_status: TaskStatus::Stopped,
            stopped_at: Some(at(50)),
            ..Task::default()
        };
        assert_eq!(attempt(Some(never), 50).billed_seconds(), Some((0, 0)));
        assert_eq!(attempt(None, 50).billed_seconds(), Some((0, 0)));
    }

    /// ECS forgets a task an hour after its end; a fault may hide it for so long.
    #[test]
    fn a_task_that_ecs_forgot_costs_between_what_was_seen_of_it_and_all_of_its_time() {
        let mut forgotten = attempt(None, 1_010);
        forgotten.gone = true;
        assert_eq!(forgotten.billed_seconds(), Some((0, 1_000)));
        forgotten.markers.started_at = Some(at(110));
        forgotten.markers.ended_at = Some(at(210));
        assert_eq!(forgotten.billed_seconds(), Some((100, 1_000)));
    }

    /// A record that an older state tracker wrote has no time of the pull.
    #[test]
    fn a_task_whose_pull_is_not_known_costs_between_its_start_and_its_launch() {
        let mut task = worked(0, 310).expect("a task");
        (task.pull_started_at, task.started_at) = (None, Some(at(110)));
        assert_eq!(attempt(Some(task), 310).billed_seconds(), Some((200, 300)));
    }

    #[test]
    fn a_launch_that_was_refused_before_the_run_was_cancelled_takes_no_cost_away() {
        let (by, id) = (Caller::local("ci"), ExecutionId::new(at(0), 1));
        let pool = CapacityPool::Fargate;
        let mut run = Execution::submitted(id, request(), pool, &by, at(0));
        let refused = Attempt {
            number: 2,
            task_arn: None,
            closed: None,
            ..attempt(None, 0)
        };
        run.state = State::Final(Final {
            outcome: Outcome::Cancelled {
                reason: String::new(),
            },
            at: at(200),
        });
        run.attempts = vec![refused.clone()];
        assert_eq!(run.cost(), None, "no task was started");
        run.attempts = vec![attempt(worked(20, 3_620), 3_620), refused];
        assert_eq!(run.cost().map(|cost| cost.low.0), Some(9_875_000));
    }

    #[test]
    fn the_cost_of_a_run_is_that_of_all_its_attempts_once_it_has_ended() {
        let (by, id) = (Caller::local("ci"), ExecutionId::new(at(0), 1));
        let pool = CapacityPool::Fargate;
        let mut run = Execution::submitted(id, request(), pool, &by, at(0));
        run.attempts = vec![
            attempt(worked(20, 80), 80),
            Attempt {
                number: 2,
                ..attempt(worked(100, 160), 160)
            },
        ];
        assert_eq!(run.cost(), None, "it has not ended");
        run.state = State::Final(Final {
            outcome: Outcome::Succeeded,
            at: at(160),
        });
        let cost = run.cost().expect("a cost");
        assert_eq!(cost.high.0, 2 * 9_875_000 / 60);
        assert_eq!(cost.basis, ["us-east-1 2026-11"]);
        assert_eq!(cost.basis_in_words(), "list prices of us-east-1 2026-11");
        run.attempts[1].price = None;
        assert_eq!(run.cost(), None, "a price is not known");
        assert!(run.is_unpriced());
        run.attempts[1].pool = CapacityPool::Machine;
        assert!(!run.is_unpriced(), "nothing is billed on one machine");
    }
}
