//! Events of a task in every order, with some missing and some repeated. After a sweep the end is
//! always the same.
//!
//! The tests are exhaustive over all orders of all subsets, and over all short sequences with
//! repetitions. Longer sequences are drawn at random.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use domain::key::Caller;
use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    ecs::Task,
    execution::{Execution, ExecutionStatus, Outcome},
    git_access::GitAccess,
    id::ExecutionId,
    limit::CapacityPool,
    marker::Marker,
    ports::Tasks,
    request::{Defaults, SubmitRequest},
    task::{self, AttemptProof, TaskDefinition},
    transition::{CancelDecision, LaunchPlan, Observation},
};
use futures_util::FutureExt;
use proptest::prelude::*;
use tests::{
    clock::Manual,
    ecs::{Account, Ecs, End, Helper, Life, OnTerm, PULL_TIMED_OUT, port::InProcess},
    simulation::{settings, start},
};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// One piece of information about a task.
#[derive(Clone, Debug)]
enum News {
    Task(Box<Task>),
    Line(Timestamp, Marker),
}

/// The news of a task's life, and the record before any of it.
struct Story {
    name: &'static str,
    launched: Execution,
    news: Vec<News>,
    /// The expected status.
    status: ExecutionStatus,
    exit_code: Option<i32>,
}

fn at(second: i64) -> Timestamp {
    start() + TimeDelta::seconds(second)
}

/// Makes the news from a whole task life in the model of ECS.
fn story(
    name: &'static str,
    life: Life,
    lines: &[(i64, Marker)],
    stopped: Option<(i64, &str)>,
    (status, exit_code): (ExecutionStatus, Option<i32>),
) -> Story {
    let account = Account::new(1, "told");
    let settings = settings(&account);
    let request = SubmitRequest {
        command: Some("true".into()),
        timeout: Some("1m".to_owned().into()),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).unwrap();
    let submitted = Execution::submitted(
        ExecutionId::new(start(), 1),
        request,
        CapacityPool::FargateSpot,
        &Caller::local("alice"),
        start(),
    );
    let ecs = Arc::new(Mutex::new(Ecs::new(account)));
    ecs.lock()
        .unwrap()
        .script(&submitted.id.attempt(1).to_string(), life);
    let clock = Manual::new(start());
    let tasks = InProcess::new(Arc::clone(&ecs), clock.clone());
    let definition = TaskDefinition::of(&submitted.request, &GitAccess::default(), &settings);
    let arn = tasks
        .register_definition(&definition)
        .now_or_never()
        .unwrap()
        .unwrap();
    let run_task = task::run_task(
        &submitted,
        &arn,
        AttemptProof::Nonce(&AttemptSecret::of_text(NONCE.into())),
        &GitAccess::default(),
        &settings,
    );
    let launched = submitted
        .launching(
            LaunchPlan {
                nonce: NONCE.into(),
                token_hash: None,
                run_task: run_task.clone(),
                price: None,
            },
            start(),
        )
        .unwrap();
    let first = tasks.run_task(&run_task).now_or_never().unwrap().unwrap();
    if let Some((second, reason)) = stopped {
        clock.pass(TimeDelta::seconds(second));
        tasks
            .stop_task(&first.task_arn, reason)
            .now_or_never()
            .unwrap()
            .unwrap();
    }
    let told = ecs.lock().unwrap().take_events(at(3_600));
    let tasks = told
        .into_iter()
        .map(|(_, change)| change.shown.task)
        .filter(|task| task.last_status != "PROVISIONING");
    let mut news: Vec<_> = tasks.map(|task| News::Task(Box::new(task))).collect();
    news.extend(
        lines
            .iter()
            .map(|(second, marker)| News::Line(at(*second), marker.clone())),
    );
    Story {
        name,
        launched,
        news,
        status,
        exit_code,
    }
}

fn life(work: i64, end: End) -> Life {
    let wind_down = TimeDelta::seconds(2);
    Life {
        wind_down,
        ..Life::new(TimeDelta::seconds(20), TimeDelta::seconds(work), end)
    }
}

fn stories() -> Vec<Story> {
    use ExecutionStatus::{Cancelled, Failed, Lost, Succeeded, TimedOut, Waiting};
    let begun = || vec![(20, Marker::SetUp), (21, Marker::Start)];
    let with = |second: i64, marker: Marker| [begun(), vec![(second, marker)]].concat();
    let cancelled = |mut story: Story| {
        let CancelDecision::Changed(asked) =
            story.launched.cancelled(&Caller::local("alice"), at(30))
        else {
            panic!("it runs")
        };
        story.launched = *asked;
        story
    };
    let overdue = |mut story: Story| {
        assert!(story.launched.overdue(at(1_800)).is_none());
        story.launched = story.launched.overdue(at(1_801)).unwrap();
        story
    };
    let stubborn = Life {
        on_term: OnTerm::Exits(TimeDelta::seconds(3), 143),
        ..life(500, End::Exit(0))
    };
    vec![
        story(
            "a success",
            life(30, End::Exit(0)),
            &with(50, Marker::Exit(0)),
            None,
            (Succeeded, Some(0)),
        ),
        story(
            "a failure",
            life(30, End::Exit(3)),
            &with(50, Marker::Exit(3)),
            None,
            (Failed, Some(3)),
        ),
        // It is retried. The record then waits, and nothing else is seen of it.
        story(
            "a pull that failed",
            life(0, End::NeverStarts(PULL_TIMED_OUT.into())),
            &[],
            None,
            (Waiting, None),
        ),
        story(
            "an interruption",
            life(30, End::Interrupted),
            &begun(),
            None,
            (Failed, Some(143)),
        ),
        story(
            "a timeout",
            life(61, End::Exit(124)),
            &with(81, Marker::Timeout),
            None,
            (TimedOut, None),
        ),
        cancelled(story(
            "a cancel",
            stubborn,
            &begun(),
            Some((40, "cancelled by alice")),
            (Cancelled, None),
        )),
        // Its dependents start by COMPLETE. By SUCCESS they would wait for ever
        // (amazon-ecs-agent#2579, containers-roadmap#817).
        story(
            "an init that fails",
            helper(Some(1), None, None),
            &[],
            None,
            (Failed, None),
        ),
        // It is retried, although ECS shows an exit code of a command that never ran
        // (amazon-ecs-agent PR#3218).
        story(
            "a pull of our image that failed",
            helper(None, Some(PULL_TIMED_OUT), Some(143)),
            &[],
            None,
            (Waiting, None),
        ),
        // An exit code without a line of the runner tells nothing.
        story(
            "an exit code that ECS made up",
            life(1, End::Exit(143)),
            &[],
            None,
            (Lost, None),
        ),
        // The sweep stops it, and it is retried (amazon-ecs-agent PR#2734).
        overdue(story(
            "a task that stays PENDING",
            life(0, End::Hangs),
            &[],
            Some((1_900, "not running 30 minutes after its launch")),
            (Waiting, None),
        )),
    ]
}

/// The life of a task whose `init` fails.
fn helper(code: Option<i32>, reason: Option<&str>, invented: Option<i32>) -> Life {
    let helper = Helper {
        name: "init",
        code,
        reason: reason.map(str::to_owned),
        invented,
    };
    life(0, End::Helper(helper))
}

fn learn(record: Execution, news: &News) -> Execution {
    let told = match news {
        News::Task(task) => record.observe(1, &Observation::Task(task), at(3_600)),
        News::Line(second, marker) => record.observe(
            1,
            &Observation::Markers(&[(*second, marker.clone())]),
            at(3_600),
        ),
    };
    told.unwrap_or(record)
}

/// Applies the sweep: it describes the task, and reads the log once nothing more comes.
fn swept(story: &Story, record: Execution) -> Execution {
    let last = story
        .news
        .iter()
        .rev()
        .find(|news| matches!(news, News::Task(_)))
        .unwrap();
    let record = learn(record, last);
    let lines = story.news.iter().filter_map(|news| match news {
        News::Line(second, marker) => Some((*second, marker.clone())),
        News::Task(_) => None,
    });
    match record
        .open_attempt()
        .filter(|attempt| attempt.needs_its_log())
    {
        Some(_) => record
            .observe(
                1,
                &Observation::WholeLog(&lines.collect::<Vec<_>>()),
                at(3_700),
            )
            .unwrap_or(record),
        None => record,
    }
}

/// Asserts that the end is the expected one, whatever came in whichever order.
#[track_caller]
fn ends_right(story: &Story, record: &Execution, told: &[usize]) {
    let end = swept(story, record.clone());
    let closed = end.attempts[0].closed.as_ref();
    let outcome = closed.map(|closed| &closed.outcome);
    assert_eq!(
        (
            end.status(),
            outcome.and_then(Outcome::exit_code),
            end.allocations().len()
        ),
        (story.status.clone(), story.exit_code, 0),
        "{}, told {told:?}: {end:#?}",
        story.name
    );
    let ends = end
        .events
        .iter()
        .filter(|event| event.status.is_final())
        .count();
    assert_eq!(
        ends,
        usize::from(end.status().is_final()),
        "{}, told {told:?}: {:#?}",
        story.name,
        end.events
    );
    for news in &story.news {
        let later = learn(end.clone(), news);
        assert_eq!(
            (&later.state, &later.events),
            (&end.state, &end.events),
            "{}: nothing is undone by {news:?}",
            story.name
        );
    }
}

/// Tries all orders of all subsets of the remaining news.
fn every_order(story: &Story, record: &Execution, told: &mut Vec<usize>) -> u32 {
    ends_right(story, record, told);
    let mut count = 1;
    for next in 0..story.news.len() {
        if !told.contains(&next) {
            told.push(next);
            count += every_order(story, &learn(record.clone(), &story.news[next]), told);
            told.pop();
        }
    }
    count
}

/// Tries all sequences of this length, with repetitions.
fn every_sequence(story: &Story, record: &Execution, told: &mut Vec<usize>, left: usize) {
    ends_right(story, record, told);
    for next in (0..story.news.len()).filter(|_| left > 0) {
        told.push(next);
        every_sequence(
            story,
            &learn(record.clone(), &story.news[next]),
            told,
            left - 1,
        );
        told.pop();
    }
}

#[test]
fn every_order_of_every_subset_of_a_task_s_events_has_one_end() {
    for story in stories() {
        let count = every_order(&story, &story.launched, &mut Vec::new());
        assert!(count >= 5, "{}: {count} orders", story.name);
    }
}

#[test]
fn every_short_sequence_with_repetitions_has_the_same_end() {
    for story in stories() {
        every_sequence(&story, &story.launched, &mut Vec::new(), 4);
    }
}

proptest! {
    #[test]
    fn any_long_sequence_with_repetitions_has_the_same_end(which in 0_usize..10, order in prop::collection::vec(any::<prop::sample::Index>(), 5..20)) {
        let story = stories().swap_remove(which);
        let told: Vec<_> = order.iter().map(|index| index.index(story.news.len())).collect();
        let record = told.iter().fold(story.launched.clone(), |record, next| learn(record, &story.news[*next]));
        ends_right(&story, &record, &told);
    }
}
