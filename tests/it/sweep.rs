//! The sweep over running executions: a fault of one execution does not affect the others.

use domain::ecs::TaskArn;
use std::sync::Mutex;
use tests::ecs::{RUNNING, STOPPED};

use aws_lambda_events::{
    cloudwatch_logs::{LogEntry, LogsEvent},
    eventbridge::EventBridgeEvent,
};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    announcement::Announcement,
    container::MAIN,
    ecs::{Container, RunTaskInput, StopCode, Task},
    execution::{Execution, ExecutionStatus},
    id::AttemptId,
    limit::CapacityPool,
    marker::{self, Marker},
    message::{Message, Outgoing},
    ports::{
        AccountQuotas, Announcer, Clock, Described, LaunchError, LaunchStore, LogLine, LogPage,
        Logs, PortError, Queue, ReadError, ReadStore, SweepStore, Tasks, WriteStore,
    },
    scheduler::state::{BacklogState, LimitState},
    settings::Settings,
    task::TaskDefinition,
    transition::Observation,
};
use pipeline::{announce::announce, state_tracker::StateTracker};
use tests::memory::MemoryStore;

use crate::contract::records::{POOL, Wish, at, launch, settings, task_arn};

/// The answers of ECS and the logs, and the calls they received.
#[derive(Default)]
struct Cloud {
    tasks: Vec<Task>,
    /// The part of a stream's name that makes its log unreadable.
    silent: String,
    stopped: Mutex<Vec<String>>,
    sent: Mutex<Vec<Message>>,
    parts_read: Mutex<usize>,
}

const NOW: i64 = 3_600_000;

impl Clock for Cloud {
    fn now(&self) -> Timestamp {
        at(NOW)
    }

    async fn sleep(&self, _: TimeDelta) {}
}

impl Queue for Cloud {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        self.sent
            .lock()
            .unwrap()
            .extend(messages.into_iter().map(|outgoing| outgoing.message));
        Ok(())
    }
}

impl AccountQuotas for Cloud {
    async fn cpu(&self, _: CapacityPool) -> Result<Option<u32>, PortError> {
        Ok(None)
    }
}

impl Tasks for Cloud {
    async fn register_definition(&self, _: &TaskDefinition) -> Result<String, LaunchError> {
        Err(LaunchError::Unknown("not asked for here".into()))
    }

    async fn run_task(&self, _: &RunTaskInput) -> Result<Task, LaunchError> {
        Err(LaunchError::Unknown("not asked for here".into()))
    }

    async fn stop_task(&self, task_arn: &TaskArn, _: &str) -> Result<(), PortError> {
        self.stopped.lock().unwrap().push(task_arn.to_string());
        Ok(())
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        let known: Vec<_> = self
            .tasks
            .iter()
            .filter(|task| task_arns.contains(&task.task_arn))
            .cloned()
            .collect();
        let is_missing = |arn: &&TaskArn| known.iter().all(|task| task.task_arn != **arn);
        let missing = task_arns.iter().filter(is_missing).cloned().collect();
        Ok(Described {
            tasks: known,
            missing,
        })
    }

    async fn list_tasks(&self, _: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        Ok(Vec::new())
    }
}

/// A log without end. The script's marker lines are at both ends of it.
impl Logs for Cloud {
    async fn read(&self, stream: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        *self.parts_read.lock().unwrap() += 1;
        if !self.silent.is_empty() && stream.ends_with(&self.silent) {
            return Err(PortError::unavailable("the log", "nothing").into());
        }
        let line = if cursor.is_none() {
            said("start")
        } else {
            "output".into()
        };
        let lines = vec![LogLine {
            at: at(2_000),
            text: line,
        }];
        Ok(LogPage {
            lines,
            next: Some("on".into()),
            more: true,
        })
    }

    async fn last(&self, _: &str) -> Result<Vec<LogLine>, ReadError> {
        *self.parts_read.lock().unwrap() += 1;
        let words = ["output".to_owned(), said("exit:7")];
        Ok(words
            .map(|text| LogLine {
                at: at(9_000),
                text,
            })
            .into())
    }
}

fn said(word: &str) -> String {
    format!("{}{}:{word}", marker::PREFIX, "0".repeat(32))
}

/// The task of an execution after its container has exited.
fn ended(execution: &Execution) -> Task {
    Task {
        last_status: STOPPED.into(),
        desired_status: STOPPED.into(),
        stop_code: Some(StopCode::EssentialContainerExited),
        containers: vec![Container {
            name: MAIN.into(),
            exit_code: Some(7),
            ..Container::default()
        }],
        stopped_at: Some(at(10_000)),
        ..task(execution, 2)
    }
}

fn task(execution: &Execution, version: i64) -> Task {
    Task {
        task_arn: task_arn(execution),
        started_by: Some(execution.id.attempt(1).to_string()),
        last_status: RUNNING.into(),
        desired_status: RUNNING.into(),
        version,
        ..Task::default()
    }
}

async fn running(store: &MemoryStore, entropy: u128) -> Execution {
    let execution = Wish {
        entropy,
        ..Wish::default()
    }
    .submit(store)
    .await;
    let launched = launch(store, &execution).await;
    let runs = launched
        .observe(1, &Observation::Task(&task(&launched, 1)), at(1_500))
        .expect("it is news");
    let runs = runs
        .observe(
            1,
            &Observation::Markers(&[(at(2_000), Marker::SetUp)]),
            at(2_000),
        )
        .unwrap_or(runs);
    store
        .update(&launched, runs, &[])
        .await
        .expect("nobody else writes it")
}

type Tracker<'a> = StateTracker<'a, MemoryStore, Cloud, Cloud, Cloud, Cloud, Cloud>;

fn tracker<'a>(store: &'a MemoryStore, cloud: &'a Cloud, settings: &'a Settings) -> Tracker<'a> {
    StateTracker {
        store,
        queue: cloud,
        tasks: cloud,
        logs: cloud,
        quotas: cloud,
        system: cloud,
        settings,
    }
}

async fn sweep(store: &MemoryStore, cloud: &Cloud) -> Result<(), PortError> {
    tracker(store, cloud, &settings())
        .next_sweep(at(NOW + 45_000))
        .await
}

async fn changed(store: &MemoryStore, cloud: &Cloud, task: Task) {
    let mut event = EventBridgeEvent::<Task>::default();
    event.detail = task;
    tracker(store, cloud, &settings())
        .task_changed(&event)
        .await
        .expect("nothing fails");
}

async fn status(store: &MemoryStore, execution: &Execution) -> ExecutionStatus {
    store.load(&execution.id).await.unwrap().unwrap().status()
}

#[tokio::test]
async fn one_whose_log_cannot_be_read_holds_up_none_of_the_others() {
    let store = MemoryStore::default();
    let (first, second, third) = (
        running(&store, 1).await,
        running(&store, 2).await,
        running(&store, 3).await,
    );
    let tasks = [&first, &second, &third].map(ended).into();
    let silent = task_arn(&first).id().to_string();
    let mut cloud = Cloud {
        tasks,
        silent,
        ..Cloud::default()
    };
    sweep(&store, &cloud)
        .await
        .expect_err("a failed look is told, so that it rings");
    assert_eq!(status(&store, &first).await, ExecutionStatus::Running);
    assert_eq!(
        (status(&store, &second).await, status(&store, &third).await),
        (ExecutionStatus::Failed, ExecutionStatus::Failed)
    );
    assert_eq!(
        store.bookmark().await.unwrap(),
        None,
        "the next one begins anew"
    );
    cloud.silent.clear();
    sweep(&store, &cloud).await.expect("nothing fails any more");
    assert_eq!(status(&store, &first).await, ExecutionStatus::Failed);
}

/// A log was once read page by page from its start. The end of gigabytes was never reached within a
/// minute.
#[tokio::test]
async fn of_a_log_without_end_its_two_ends_are_read() {
    let store = MemoryStore::default();
    let execution = running(&store, 1).await;
    let cloud = Cloud {
        tasks: vec![ended(&execution)],
        ..Cloud::default()
    };
    sweep(&store, &cloud).await.expect("nothing fails");
    let record = store.load(&execution.id).await.unwrap().unwrap();
    assert_eq!(
        record.end().and_then(|end| end.outcome.exit_code()),
        Some(7),
        "{record:#?}"
    );
    assert_eq!(*cloud.parts_read.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_second_task_of_an_attempt_is_stopped_and_not_believed() {
    let store = MemoryStore::default();
    let execution = running(&store, 1).await;
    let other = Task {
        task_arn: format!("{}x", task_arn(&execution)).into(),
        ..task(&execution, 9)
    };
    let cloud = Cloud::default();
    changed(&store, &cloud, other.clone()).await;
    assert_eq!(*cloud.stopped.lock().unwrap(), [other.task_arn.as_str()]);
    changed(
        &store,
        &cloud,
        Task {
            last_status: STOPPED.into(),
            desired_status: STOPPED.into(),
            ..other
        },
    )
    .await;
    assert_eq!(
        status(&store, &execution).await,
        ExecutionStatus::Running,
        "its own goes on"
    );
    assert_eq!(store.usage(&POOL).await.unwrap().used, 256);
}

/// `RunTask` was repeated after an hour without an answer, and only the repetition started the
/// task.
#[tokio::test]
async fn a_task_that_a_later_call_started_is_not_given_up_before_ecs_can_list_it() {
    for (repeated, status) in [
        (NOW - 5_000, ExecutionStatus::Running),
        (NOW - 15_000, ExecutionStatus::Failed),
    ] {
        let store = MemoryStore::default();
        let launched = launch(
            &store,
            &Wish {
                entropy: 1,
                ..Wish::default()
            }
            .submit(&store)
            .await,
        )
        .await;
        let token = launched.attempts[0]
            .run_task
            .as_ref()
            .unwrap()
            .client_token
            .clone();
        let repeated = launched
            .calling_again(&token, TimeDelta::zero(), at(repeated))
            .expect("it is the open launch");
        let runs = repeated
            .observe(1, &Observation::Task(&task(&repeated, 1)), at(NOW - 1_000))
            .expect("it is news");
        store
            .update(&launched, runs.clone(), &[])
            .await
            .expect("nobody else writes it");
        let cloud = Cloud::default();
        sweep(&store, &cloud).await.expect("nothing fails");
        assert_eq!(self::status(&store, &runs).await, status);
    }
}

/// The watcher's message is delivered again only after minutes; the sweep comes within one.
#[tokio::test]
async fn the_sweep_wakes_a_backlog_whose_watcher_died() {
    let store = MemoryStore::default();
    let (first, second) = (running(&store, 1).await, running(&store, 2).await);
    Wish {
        entropy: 3,
        ..Wish::default()
    }
    .submit(&store)
    .await;
    let watched = LimitState {
        backlog: BacklogState {
            watched_until: Some(at(NOW + 2_000)),
            ..BacklogState::default()
        },
        ..LimitState::default()
    };
    assert!(
        store
            .set_limit_state(&POOL, &LimitState::default(), watched)
            .await
            .unwrap()
    );
    let cloud = Cloud {
        tasks: vec![task(&second, 1)],
        ..Cloud::default()
    };
    let told = || {
        cloud.sent.lock().unwrap().contains(&Message::Wakeup {
            backlog: POOL,
            id: None,
        })
    };
    changed(&store, &cloud, ended(&first)).await;
    assert_eq!(status(&store, &first).await, ExecutionStatus::Failed);
    assert!(!told(), "somebody watches the line");
    sweep(&store, &cloud).await.expect("nothing fails");
    assert!(told());

    cloud.sent.lock().unwrap().clear();
    let watched = store.limit_state(&POOL).await.unwrap();
    assert!(
        store
            .set_limit_state(&POOL, &watched, LimitState::default())
            .await
            .unwrap()
    );
    changed(&store, &cloud, ended(&second)).await;
    assert!(told(), "nobody watches any more");
}

/// Every later sweep once died at the page with such a record, and nothing else was repaired.
#[tokio::test]
async fn a_record_that_is_unreadable_holds_up_none_of_the_others() {
    let store = MemoryStore::default();
    let (first, second, third) = (
        running(&store, 1).await,
        running(&store, 2).await,
        running(&store, 3).await,
    );
    let tasks = [&first, &second, &third].map(ended).into();
    store.spoil(&second.id);
    let cloud = Cloud {
        tasks,
        ..Cloud::default()
    };
    sweep(&store, &cloud)
        .await
        .expect("it is passed over, which is no failure");
    for other in [&first, &third] {
        assert_eq!(status(&store, other).await, ExecutionStatus::Failed);
    }
    assert_eq!(
        store.bookmark().await.unwrap(),
        None,
        "the next one begins anew"
    );
    changed(&store, &cloud, ended(&second)).await;
    let ended = [&first, &second, &third].map(|execution| execution.id.clone());
    let told = Told::default();
    announce(&store, &told, ended)
        .await
        .expect("what ended after it is announced");
    assert_eq!(told.0.lock().unwrap().len(), 2);
}

/// Other writers of the group have their own streams, and CloudWatch Logs sends control messages to
/// check the subscription. Neither may be an error, since a failed event is delivered again.
#[tokio::test]
async fn of_all_lines_only_those_of_its_task_tell_of_a_run() {
    let store = MemoryStore::default();
    let execution = running(&store, 1).await;
    let stream = task_arn(&execution).log_stream();
    let cloud = Cloud::default();
    let told = async |kind: &str, stream: &str| {
        let mut event = LogsEvent::default();
        let data = &mut event.aws_logs.data;
        (data.message_type, data.log_stream) = (kind.into(), stream.into());
        let mut entry = LogEntry::default();
        (entry.timestamp, entry.message) = (at(3_000).timestamp_millis(), said("start"));
        data.log_events = vec![entry];
        tracker(&store, &cloud, &settings())
            .lines_written(&event)
            .await
            .expect("it is answered");
        let record = store.load(&execution.id).await.unwrap().unwrap();
        record.attempts[0].markers.started_at
    };
    let id = stream.rsplit('/').next().unwrap();
    let foreign = [
        "",
        id,
        &format!("x/{stream}"),
        &format!("task/other/{id}"),
        &format!("task/main/x/{id}"),
        "task/main/",
    ];
    for stream in foreign {
        assert_eq!(told("DATA_MESSAGE", stream).await, None, "{stream}");
    }
    assert_eq!(told("CONTROL_MESSAGE", &stream).await, None);
    assert_eq!(told("DATA_MESSAGE", &stream).await, Some(at(3_000)));
}

#[derive(Default)]
struct Told(Mutex<Vec<Announcement>>);

impl Announcer for Told {
    async fn is_heard(&self) -> Result<bool, PortError> {
        Ok(true)
    }

    async fn announce(&self, announcements: &[Announcement]) -> Result<(), PortError> {
        self.0.lock().unwrap().extend_from_slice(announcements);
        Ok(())
    }
}
