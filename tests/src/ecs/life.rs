//! How a task lives: the script of its times, and how it ends.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::TimeDelta;

use crate::random::Random;

/// How a task ends if nobody stops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its container exits with this code.
    Exit(i32),
    /// The kernel kills its container for its memory: exit code 137 and the container's reason
    /// (Developer Guide, "Stopped task error codes").
    OutOfMemory,
    /// Its container ends without an exit code, which the task's state may lack (AWS-FACTS §4).
    NoExitCode,
    /// It never starts, for this reason: `TaskFailedToStart`, and no exit code (AWS-FACTS §4).
    NeverStarts(String),
    /// Fargate Spot takes its capacity back after its work: a warning, TERM, KILL.
    Interrupted,
    /// Its host fails after its work: `InfrastructureHealth`, and no exit code.
    HostFails,
}

/// A pull that failed for a reason that may pass, in ECS's words (Developer Guide,
/// "CannotPullContainer task errors").
pub const PULL_TIMED_OUT: &str = "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
                                  docker.io/library/ubuntu:22.04: dial tcp 3.94.224.37:443: i/o timeout";
/// A pull of what is not there (ibid.).
pub const IMAGE_MISSING: &str = "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref \
                                 docker.io/library/nope:1: pull access denied, repository does not exist or may require authorization";
/// A secret that could not be read because the Parameter Store throttled (AWS-FACTS §3).
pub const SECRET_THROTTLED: &str = "ResourceInitializationError: unable to pull secrets or registry auth: unable to retrieve secrets from ssm: \
                                    ThrottlingException: Rate exceeded";

/// How a container takes TERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTerm {
    /// It exits so long after, with this code.
    Exits(TimeDelta, i32),
    /// It does not: it is killed when the definition's `stopTimeout` is over, with 137.
    Ignores,
}

/// The script of one task's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// From RunTask to RUNNING.
    pub start_up: TimeDelta,
    /// From RUNNING to the container's end.
    pub work: TimeDelta,
    /// From the container's end to STOPPED.
    pub wind_down: TimeDelta,
    /// How it ends by itself.
    pub end: End,
    /// How it ends when it is stopped.
    pub on_term: OnTerm,
}

impl Life {
    /// A task that starts, works and exits. TERM ends it at once, as it does a program that handles
    /// no signals.
    #[must_use]
    pub fn new(start_up: TimeDelta, work: TimeDelta, end: End) -> Self {
        Self {
            start_up,
            work,
            wind_down: TimeDelta::zero(),
            end,
            on_term: OnTerm::Exits(TimeDelta::zero(), 143),
        }
    }
}

/// How the tasks of an account live.
#[derive(Clone, Debug)]
pub struct Lives {
    /// What start-up is drawn from: 20–60 s is usual (AWS-FACTS §3).
    pub start_up: RangeInclusive<TimeDelta>,
    /// What work is drawn from.
    pub work: RangeInclusive<TimeDelta>,
    /// What the time from the container's end to STOPPED is drawn from.
    pub wind_down: RangeInclusive<TimeDelta>,
    /// Ends other than exit 0, each with its probability.
    pub ends: Vec<(f64, End)>,
    /// How tasks take TERM.
    pub on_term: OnTerm,
    /// The lives of particular tasks, by `startedBy`.
    pub given: BTreeMap<String, Life>,
}

impl Default for Lives {
    fn default() -> Self {
        let seconds = |least, most| TimeDelta::seconds(least)..=TimeDelta::seconds(most);
        Self {
            start_up: seconds(20, 60),
            work: seconds(5, 90),
            wind_down: seconds(0, 0),
            ends: Vec::new(),
            on_term: OnTerm::Exits(TimeDelta::zero(), 143),
            given: BTreeMap::new(),
        }
    }
}

impl Lives {
    /// The life of the task that is started by this: the same whenever it is asked for, so that who
    /// plans with all the knowledge there is can ask too.
    #[must_use]
    pub fn of(&self, seed: u64, started_by: &str) -> Life {
        self.given
            .get(started_by)
            .cloned()
            .unwrap_or_else(|| self.drawn(&mut Random::keyed(seed, started_by, 0)))
    }

    fn drawn(&self, random: &mut Random) -> Life {
        Life {
            start_up: random.within(&self.start_up),
            work: random.within(&self.work),
            wind_down: random.within(&self.wind_down),
            end: self.end(random),
            on_term: self.on_term,
        }
    }

    fn end(&self, random: &mut Random) -> End {
        let drawn = self
            .ends
            .iter()
            .find(|(probability, _)| random.chance(*probability));
        drawn.map_or(End::Exit(0), |(_, end)| end.clone())
    }
}
