//! The rules of `domain::ports::Tasks`: for one machine, for the real adapter with the model of ECS
//! on the wire, and for the model in the same process.

use domain::ecs::TaskArn;
use std::{future::Future, time::Duration};
use tests::ecs::STOPPED;

use chrono::TimeDelta;
use domain::{
    attempt_secret::AttemptSecret,
    ecs::RunTaskInput,
    git_access::GitAccess,
    id::AttemptId,
    ports::Tasks,
    task::{self, AttemptProof, TaskDefinition},
};
use local::{
    artifacts::LocalArtifacts,
    database::{Database, WorkerId},
    log_file::LocalLogs,
    secrets::SecretFiles,
    tasks::{LocalTasks, Setup},
};
use tempfile::TempDir;
use tests::{
    clock::Manual,
    ecs::{port::InProcess, wire::Wire},
};
use tokio::sync::{mpsc, watch};

use super::records::{Wish, settings};
use crate::ecs as model;

const ANSWERS: &str = "ECS answers";
/// How often a test checks whether a task is over. This bounds a hang.
const LOOKS: usize = 600;

/// An adapter, and the input for its calls.
pub(crate) trait Case: Sync {
    /// The adapter.
    type Adapter: Tasks;
    fn tasks(&self) -> &Self::Adapter;
    fn definition(&self) -> TaskDefinition;
    fn attempt(&self, number: u32) -> AttemptId;
    fn input(&self, number: u32, definition_arn: &str) -> RunTaskInput;
    /// Lets the tasks make progress.
    fn wait(&self) -> impl Future<Output = ()> + Send;
}

/// Makes a test of each rule, for the case that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { tasks, $fresh:
            registering_twice_is_harmless
            a_token_that_is_repeated_is_the_same_task
            another_attempt_is_another_task
            a_task_is_described_and_a_stranger_is_missing
            stopping_again_or_a_stranger_is_no_error
            a_task_that_is_over_is_still_found
        }
    };
}

async fn started<C: Case>(case: &C, number: u32) -> TaskArn {
    let definition = case
        .tasks()
        .register_definition(&case.definition())
        .await
        .expect(ANSWERS);
    case.tasks()
        .run_task(&case.input(number, &definition))
        .await
        .expect("it starts")
        .task_arn
}

fn stranger(task_arn: &TaskArn) -> TaskArn {
    let (before, id) = task_arn
        .as_str()
        .rsplit_once('/')
        .expect("an ARN has parts");
    format!("{before}/{}", "0".repeat(id.len())).into()
}

pub(crate) async fn registering_twice_is_harmless<C: Case>(case: C) {
    let first = case
        .tasks()
        .register_definition(&case.definition())
        .await
        .expect(ANSWERS);
    let second = case
        .tasks()
        .register_definition(&case.definition())
        .await
        .expect(ANSWERS);
    for (number, definition) in [(1, first), (2, second)] {
        let task = case
            .tasks()
            .run_task(&case.input(number, &definition))
            .await
            .expect("it starts");
        assert_eq!(task.attempt(), Some(case.attempt(number)));
    }
}

pub(crate) async fn a_token_that_is_repeated_is_the_same_task<C: Case>(case: C) {
    let definition = case
        .tasks()
        .register_definition(&case.definition())
        .await
        .expect(ANSWERS);
    let input = case.input(1, &definition);
    let first = case.tasks().run_task(&input).await.expect("it starts");
    let again = case.tasks().run_task(&input).await.expect("it is there");
    assert_eq!(first.task_arn, again.task_arn);
    assert_eq!(
        case.tasks()
            .list_tasks(&case.attempt(1))
            .await
            .expect(ANSWERS),
        [first.task_arn]
    );
}

pub(crate) async fn another_attempt_is_another_task<C: Case>(case: C) {
    let (first, second) = (started(&case, 1).await, started(&case, 2).await);
    assert_ne!(first, second);
    assert_eq!(
        case.tasks()
            .list_tasks(&case.attempt(1))
            .await
            .expect(ANSWERS),
        [first]
    );
    assert_eq!(
        case.tasks()
            .list_tasks(&case.attempt(2))
            .await
            .expect(ANSWERS),
        [second]
    );
    assert_eq!(
        case.tasks()
            .list_tasks(&case.attempt(3))
            .await
            .expect(ANSWERS),
        [""; 0]
    );
}

pub(crate) async fn a_task_is_described_and_a_stranger_is_missing<C: Case>(case: C) {
    let arn = started(&case, 1).await;
    let described = case
        .tasks()
        .describe_tasks(&[arn.clone(), stranger(&arn)])
        .await
        .expect(ANSWERS);
    let known: Vec<_> = described
        .tasks
        .iter()
        .map(|task| task.task_arn.clone())
        .collect();
    assert_eq!(
        (known, described.missing),
        (vec![arn.clone()], vec![stranger(&arn)])
    );
    assert_eq!(described.tasks[0].attempt(), Some(case.attempt(1)));
}

pub(crate) async fn stopping_again_or_a_stranger_is_no_error<C: Case>(case: C) {
    let arn = started(&case, 1).await;
    for _ in 0..2 {
        case.tasks()
            .stop_task(&arn, "cancelled by alice")
            .await
            .expect("a task is stopped");
    }
    case.tasks()
        .stop_task(&stranger(&arn), "cancelled by alice")
        .await
        .expect("there is nothing to stop");
}

pub(crate) async fn a_task_that_is_over_is_still_found<C: Case>(case: C) {
    let arn = started(&case, 1).await;
    for _ in 0..LOOKS {
        let described = case
            .tasks()
            .describe_tasks(std::slice::from_ref(&arn))
            .await
            .expect(ANSWERS);
        let [task] = described.tasks.as_slice() else {
            panic!("it is not there: {described:?}")
        };
        if task.last_status == STOPPED {
            assert_eq!(
                task.container().and_then(|container| container.exit_code),
                Some(0),
                "{task:#?}"
            );
            assert_eq!(
                case.tasks()
                    .list_tasks(&case.attempt(1))
                    .await
                    .expect(ANSWERS),
                [arn]
            );
            return;
        }
        case.wait().await;
    }
    panic!("{arn} is never over");
}

/// Commands in this machine's own shell.
struct OnThisMachine {
    tasks: LocalTasks,
    _outlives_it: TempDir,
}

impl Case for OnThisMachine {
    type Adapter = LocalTasks;

    fn tasks(&self) -> &LocalTasks {
        &self.tasks
    }

    fn definition(&self) -> TaskDefinition {
        TaskDefinition::of(
            &Wish::default().execution().request,
            &GitAccess::default(),
            &settings(),
        )
    }

    fn attempt(&self, number: u32) -> AttemptId {
        Wish::default().execution().id.attempt(number)
    }

    fn input(&self, number: u32, definition_arn: &str) -> RunTaskInput {
        let execution = Wish::default().execution();
        let secret = AttemptSecret::of_bits(0);
        let attempt = self.attempt(number);
        RunTaskInput {
            client_token: attempt.to_string(),
            started_by: attempt.to_string(),
            overrides: task::overrides(
                &execution.request,
                &attempt,
                AttemptProof::Nonce(&secret),
                &GitAccess::default(),
            ),
            ..task::run_task(
                &execution,
                definition_arn,
                AttemptProof::Nonce(&secret),
                &GitAccess::default(),
                &settings(),
            )
        }
    }

    async fn wait(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn on_this_machine() -> (
    OnThisMachine,
    mpsc::UnboundedReceiver<local::tasks::TaskReport>,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["logs", "tasks", "secrets"] {
        std::fs::create_dir(at(name)).expect("a folder");
    }
    let database = Database::open(&at("store.sqlite"), WorkerId::new()).expect("it opens");
    let setup = Setup {
        tasks_dir: at("tasks"),
        programs_dir: at("programs"),
        remains: local::Remains::new(at("remains")),
        artifacts: LocalArtifacts::new(at("artifacts")),
        home: folder.path().to_owned(),
        secrets: SecretFiles::new(at("secrets")),
        host_only: true,
        git: local::GitProgram::default(),
    };
    let (reports, heard) = mpsc::unbounded_channel();
    let tasks = LocalTasks::new(
        database,
        LocalLogs::new(at("logs")),
        setup,
        reports,
        watch::Sender::new(()),
    );
    (
        OnThisMachine {
            tasks,
            _outlives_it: folder,
        },
        heard,
    )
}

mod one_machine {
    crate::contract::tasks::suite!(super::on_this_machine);
}

/// The model of ECS, on the wire or in the same process.
struct Modelled<T> {
    tasks: T,
    clock: Manual,
}

impl<T: Tasks> Case for Modelled<T> {
    type Adapter = T;

    fn tasks(&self) -> &T {
        &self.tasks
    }

    fn definition(&self) -> TaskDefinition {
        model::definition()
    }

    fn attempt(&self, number: u32) -> AttemptId {
        model::attempt(number)
    }

    fn input(&self, number: u32, definition_arn: &str) -> RunTaskInput {
        model::input(number, definition_arn)
    }

    async fn wait(&self) {
        self.clock.pass(TimeDelta::seconds(1));
    }
}

async fn on_the_wire() -> (Modelled<aws::ecs::EcsTasks>, Wire) {
    let clock = model::clock();
    let (wire, _events, tasks) = model::on_the_wire(model::account(), &clock).await;
    (Modelled { tasks, clock }, wire)
}

mod aws_on_the_wire {
    crate::contract::tasks::suite!(super::on_the_wire);
}

#[expect(clippy::unused_async, reason = "as the others are")]
async fn in_process() -> (Modelled<InProcess<Manual>>, ()) {
    let clock = model::clock();
    let (_ecs, tasks) = model::in_process(model::account(), &clock);
    (Modelled { tasks, clock }, ())
}

mod simulated {
    crate::contract::tasks::suite!(super::in_process);
}

pub(crate) use suite;
