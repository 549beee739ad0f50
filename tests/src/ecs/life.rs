//! The script of a task's life: its times, and how it ends.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::TimeDelta;

use crate::random::Random;

/// How a task ends if nobody stops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its container exits with this code.
    Exit(i32),
    /// The kernel kills its container for its memory use: exit code 137 and the container's reason
    /// (Developer Guide, "Stopped task error codes").
    OutOfMemory,
    /// Its container ends without an exit code: a task's state may lack it (AWS-FACTS §4).
    NoExitCode,
    /// It never starts, for this reason: `TaskFailedToStart`, and no exit code (AWS-FACTS §4).
    NeverStarts(String),
    /// It stays PENDING until it is stopped. Agents did that where a container that others wait for
    /// could not be pulled (amazon-ecs-agent PR#2734).
    Hangs,
    /// A container beside the essential one fails before that one starts.
    Helper(Helper),
    /// Fargate Spot takes its capacity back after its work: a warning, TERM, KILL.
    Interrupted,
    /// Its host fails after its work: `InfrastructureHealth`, and no exit code.
    HostFails,
}

impl End {
    /// Whether the essential container never runs.
    #[must_use]
    pub fn is_before_main(&self) -> bool {
        matches!(self, Self::NeverStarts(_) | Self::Hangs | Self::Helper(_))
    }
}

/// The failure of a container that the essential one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The container's name.
    pub name: &'static str,
    /// Its exit code, if it ran. One that waits for its success then waits for ever
    /// (amazon-ecs-agent#2579, containers-roadmap#817).
    pub code: Option<i32>,
    /// ECS's reason.
    pub reason: Option<String>,
    /// The exit code that ECS shows of the essential container, which never ran: newer agents
    /// invent 143 (amazon-ecs-agent PR#3218).
    pub invented: Option<i32>,
}

/// The stopped reason of a pull that failed for a transient reason, in ECS's words (Developer
/// Guide, "CannotPullContainer task errors").
pub const PULL_TIMED_OUT: &str = "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
                                  docker.io/library/ubuntu:22.04: dial tcp 3.94.224.37:443: i/o timeout";
/// The stopped reason of a pull of a missing image (ibid.).
pub const IMAGE_MISSING: &str = "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref \
                                 docker.io/library/nope:1: pull access denied, repository does not exist or may require authorization";
/// The stopped reason of a secret that could not be read because Parameter Store throttled
/// (AWS-FACTS §3).
pub const SECRET_THROTTLED: &str = "ResourceInitializationError: unable to pull secrets or registry auth: unable to retrieve secrets from ssm: \
                                    ThrottlingException: Rate exceeded";

/// How a container reacts to TERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTerm {
    /// It exits after this time, with this code.
    Exits(TimeDelta, i32),
    /// It ignores TERM. It is killed with 137 when the definition's `stopTimeout` is over.
    Ignores,
}

/// The script of one task's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The time from RunTask to RUNNING.
    pub start_up: TimeDelta,
    /// The time from RUNNING to the container's end.
    pub work: TimeDelta,
    /// The time from the container's end to STOPPED.
    pub wind_down: TimeDelta,
    /// How it ends if nobody stops it.
    pub end: End,
    /// How it ends when it is stopped.
    pub on_term: OnTerm,
}

impl Life {
    /// A task that starts, works and exits. TERM ends it at once, as it ends a program that handles
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
    /// The range of start-up times: 20–60 s is usual (AWS-FACTS §3).
    pub start_up: RangeInclusive<TimeDelta>,
    /// The range of work times.
    pub work: RangeInclusive<TimeDelta>,
    /// The range of times from the container's end to STOPPED.
    pub wind_down: RangeInclusive<TimeDelta>,
    /// Ends other than exit 0, each with its probability.
    pub ends: Vec<(f64, End)>,
    /// How tasks react to TERM.
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
    /// The life of the task with this `startedBy`. It is the same whenever it is asked for, so a
    /// planner with full knowledge can ask too.
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
