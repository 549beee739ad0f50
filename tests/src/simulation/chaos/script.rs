//! The script of a task. It writes marker lines to its log, and the log's subscription delivers
//! them to the state tracker.

use std::{collections::BTreeMap, sync::Arc, sync::Mutex};

use aws_lambda_events::cloudwatch_logs::{LogEntry, LogsEvent};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::TaskArn,
    ecs::{RunTaskInput, Task},
    marker,
    ports::{Clock, LaunchError, LogLine, LogPage, Tasks},
};
use pipeline::state_tracker::DATA_MESSAGE;

use super::{
    super::{script::locked, time::Time},
    World, lambda,
};
use crate::{
    ecs::{End, Life},
    random::Random,
};

/// The longest time until a written line can be read from its log. It is within the ten seconds
/// after which the pipeline considers a log complete.
const TO_THE_LOG: TimeDelta = TimeDelta::seconds(6);
/// The longest time until a line reaches the state tracker.
const SUBSCRIPTION: TimeDelta = TimeDelta::seconds(2);
/// The pauses before Lambda retries a failed asynchronous invocation (Lambda Developer Guide).
pub(super) const AGAIN: [TimeDelta; 2] = [TimeDelta::minutes(1), TimeDelta::minutes(2)];
/// The share of set-ups that fail in plans where commands fail.
const SET_UPS_FAIL: f64 = 0.05;

/// How a script ended, by what it reported itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    TimedOut,
    SetUpFailed,
}

/// The logs of all tasks by stream, each line with the time from which it can be read.
#[derive(Default)]
pub(super) struct LogGroup(Mutex<BTreeMap<String, Vec<(Timestamp, LogLine)>>>);

impl LogGroup {
    fn write(&self, stream: &str, found_at: Timestamp, line: LogLine) {
        locked(&self.0)
            .entry(stream.to_owned())
            .or_default()
            .push((found_at, line));
    }

    /// Reads a stream in order: a line can be read only after those before it.
    pub(super) fn read(&self, stream: &str, cursor: Option<&str>, now: Timestamp) -> LogPage {
        let logs = locked(&self.0);
        let Some(lines) = logs.get(stream) else {
            return LogPage::default();
        };
        let from: usize = cursor
            .and_then(|cursor| cursor.parse().ok())
            .unwrap_or_default();
        let found: Vec<_> = lines
            .iter()
            .skip(from)
            .take_while(|(at, _)| *at <= now)
            .map(|(_, line)| line.clone())
            .collect();
        LogPage {
            next: Some((from + found.len()).to_string()),
            lines: found,
            more: false,
        }
    }
}

/// RunTask, observed: every task started here is reported to the rules.
pub(super) async fn run_task(
    world: &Arc<World>,
    input: &RunTaskInput,
) -> Result<Task, LaunchError> {
    world.rules.about_to_launch(world, input);
    let (life, ended) = life(world, input);
    locked(&world.ecs).script(&input.started_by, life.clone());
    let before = locked(&world.ecs).tasks().count();
    let result = world.tasks.run_task(input).await;
    let started = locked(&world.ecs)
        .tasks()
        .nth(before)
        .map(|shown| shown.task.task_arn.clone());
    if let Some(arn) = started {
        world.rules.launched(world, input);
        let (world, nonce, by) = (Arc::clone(world), nonce(input), input.started_by.clone());
        world
            .time
            .clone()
            .spawn(async move { write(&world, &arn, &nonce, &by, &life, ended).await });
    }
    world.news.tell();
    result
}

/// The drawn life, with two changes: the script ends a command at its timeout, and some set-ups
/// fail.
fn life(world: &World, input: &RunTaskInput) -> (Life, Option<Ended>) {
    let mut random = Random::keyed(world.plan.seed, &input.started_by, 1);
    let drawn = {
        let ecs = locked(&world.ecs);
        ecs.account().lives.of(world.plan.seed, &input.started_by)
    };
    if drawn.end.is_before_main() {
        return (drawn, None);
    }
    let fails = !world
        .plan
        .account
        .lives
        .ends
        .iter()
        .all(|(share, _)| *share == 0.0)
        && random.chance(SET_UPS_FAIL);
    let allowed = TimeDelta::seconds(
        variable(input, "MYCLI_TIMEOUT")
            .parse()
            .unwrap_or(i64::MAX / 1000),
    );
    let set_up = set_up(&drawn);
    let (work, code, ended) = match drawn.end {
        _ if fails => (set_up, 125, Ended::SetUpFailed),
        _ if drawn.work > set_up + allowed => (set_up + allowed, 124, Ended::TimedOut),
        End::Exit(code) => (drawn.work, code, Ended::Exit(code)),
        _ => return (drawn, None),
    };
    (
        Life {
            work,
            end: End::Exit(code),
            ..drawn
        },
        Some(ended),
    )
}

fn set_up(life: &Life) -> TimeDelta {
    (life.work / 4).min(TimeDelta::seconds(3))
}

fn variable(input: &RunTaskInput, name: &str) -> String {
    let mut variables = input
        .overrides
        .container_overrides
        .iter()
        .flat_map(|container| &container.environment);
    variables
        .find(|variable| variable.name == name)
        .map(|variable| variable.value.clone())
        .unwrap_or_default()
}

fn nonce(input: &RunTaskInput) -> String {
    variable(input, "MYCLI_NONCE")
}

async fn write(
    world: &Arc<World>,
    arn: &TaskArn,
    nonce: &str,
    by: &str,
    life: &Life,
    ended: Option<Ended>,
) {
    world.time.sleep(life.start_up).await;
    if life.end.is_before_main() || world.is_stopping(arn) {
        return;
    }
    world.rules.spoke(by);
    say(world, arn, nonce, "setup");
    let set_up = if ended == Some(Ended::SetUpFailed) {
        life.work
    } else {
        set_up(life)
    };
    world.time.sleep(set_up).await;
    if world.is_stopping(arn) {
        return;
    }
    if ended != Some(Ended::SetUpFailed) {
        world.rules.started(by);
        say(world, arn, nonce, "start");
    }
    world.time.sleep(life.work - set_up).await;
    let Some(ended) = ended.filter(|_| !world.was_told_to_stop(arn)) else {
        return;
    };
    world.rules.said(by, ended);
    match ended {
        Ended::Exit(code) => say(world, arn, nonce, &format!("exit:{code}")),
        Ended::TimedOut => say(world, arn, nonce, "timeout"),
        Ended::SetUpFailed => say(world, arn, nonce, "fail:no such branch"),
    }
    // Once on stderr and once on stdout.
    say(world, arn, nonce, "ended");
    say(world, arn, nonce, "ended");
}

fn say(world: &Arc<World>, arn: &TaskArn, nonce: &str, word: &str) {
    let (now, stream) = (world.time.now(), arn.log_stream());
    let text = format!("{}{nonce}:{word}", marker::PREFIX);
    world.story.tell("a task", || format!("{arn} says {word}"));
    let delay = if world.fate.is_clear() {
        TimeDelta::seconds(1)
    } else {
        world.fate.within(TO_THE_LOG)
    };
    world.logs.write(
        &stream,
        now + delay,
        LogLine {
            at: now,
            text: text.clone(),
        },
    );
    if !marker::is_delivered(&text) {
        return;
    }
    let mut copies = u32::from(!world.fate.strikes(|weather| weather.line_lost));
    copies += u32::from(copies > 0 && world.fate.strikes(|weather| weather.line_doubled));
    for _ in 0..copies {
        let (world, stream, text) = (Arc::clone(world), stream.clone(), text.clone());
        world
            .time
            .clone()
            .spawn(async move { deliver(&world, stream, text, now).await });
    }
}

async fn deliver(world: &Arc<World>, stream: String, text: String, at: Timestamp) {
    world.time.sleep(world.fate.within(SUBSCRIPTION)).await;
    let mut event = LogsEvent::default();
    event.aws_logs.data.message_type = DATA_MESSAGE.into();
    event.aws_logs.data.log_stream = stream;
    let mut entry = LogEntry::default();
    (entry.timestamp, entry.message) = (at.timestamp_millis(), text);
    event.aws_logs.data.log_events = vec![entry];
    for pause in AGAIN.map(Some).into_iter().chain([None]) {
        let tracker = lambda::Environment::new(world, "tracker of lines");
        let told = world
            .fate
            .process(async { tracker.tracker().lines_written(&event).await })
            .await;
        match (told, pause) {
            (Some(Ok(())), _) | (_, None) => return,
            (_, Some(pause)) => world.time.sleep(pause).await,
        }
    }
}
