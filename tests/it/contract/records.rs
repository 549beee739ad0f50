//! Records made as the pipeline makes them, by the domain's own functions.

use chrono::TimeDelta;
use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    container::MAIN,
    ecs::{Container, RunTaskInput, StopCode, Task, TaskArn},
    execution::Execution,
    git_access::GitAccess,
    id::ExecutionId,
    limit::{Admission, CapacityPool, LimitKey},
    marker::Marker,
    ports::{Claim, Created, SweepStore},
    price::{AttemptPrice, NanoUsd},
    quota::Quotas,
    request::{Arch, Defaults, SubmitRequest},
    settings::Settings,
    task::{self, AttemptProof},
    transition::{LaunchPlan, Observation},
};
use tests::Store;
use tests::callers::caller;
use tests::ecs::STOPPED;

pub(crate) const POOL: LimitKey = LimitKey::Pool(CapacityPool::Machine);
/// The CPU units of the smallest task, which all tests here use.
pub(crate) const CPU: u32 = 256;

/// This many milliseconds after the time at which all these tests start.
pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(1_764_000_000_000 + millis).expect("in range")
}

pub(crate) fn lock(name: &str) -> LimitKey {
    LimitKey::Lock(name.parse().expect("a name"))
}

/// The properties of an execution that a test chooses. The rest is the same for all.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) by: &'static str,
    /// When it is submitted, in milliseconds after the start.
    pub(crate) at: i64,
    /// Distinguishes the ids of executions with the same time.
    pub(crate) entropy: u128,
    pub(crate) priority: i64,
    pub(crate) lock: Option<&'static str>,
    pub(crate) group: Option<&'static str>,
    pub(crate) max_parallel: Option<i64>,
    pub(crate) image: Option<String>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            by: "alice",
            at: 0,
            entropy: 1,
            priority: 0,
            lock: None,
            group: None,
            max_parallel: None,
            image: None,
        }
    }
}

impl Wish {
    /// An execution by this submitter at this time, which is enough for most tests.
    pub(crate) fn of(by: &'static str, at: i64) -> Self {
        Self {
            by,
            at,
            ..Self::default()
        }
    }

    pub(crate) fn execution(&self) -> Execution {
        let request = SubmitRequest {
            command: Some("true".into()),
            priority: Some(self.priority),
            lock: self.lock.map(str::to_owned),
            group: self.group.map(str::to_owned),
            max_parallel: self.max_parallel,
            image: self.image.clone(),
            ..SubmitRequest::default()
        };
        let request = request
            .validate(&Defaults::one_machine(Arch::X86_64))
            .expect("a sound request");
        let now = at(self.at);
        let by_whom = self
            .by
            .bytes()
            .fold(0_u128, |sum, byte| sum * 31 + u128::from(byte));
        let id = ExecutionId::new(now, self.entropy << 64 | by_whom);
        Execution::submitted(id, request, CapacityPool::Machine, &caller(self.by), now)
    }

    /// Records it.
    pub(crate) async fn submit(&self, store: &impl Store) -> Execution {
        let execution = self.execution();
        let created = store
            .create(&execution, None)
            .await
            .expect("the store answers");
        assert_eq!(created, Created::New, "the test's own ids differ");
        execution
    }
}

pub(crate) fn claim(key: &str, digest: &str, expires: i64) -> Claim {
    Claim {
        key: key.into(),
        digest: digest.into(),
        expires_at: at(expires),
    }
}

/// All its demands, with this much of the pool.
pub(crate) fn admissions(execution: &Execution, max: Option<u32>) -> Vec<Admission> {
    domain::scheduler::snapshot::admissions(execution, max)
}

/// The settings of an installation without any limit.
pub(crate) fn settings() -> Settings {
    Settings {
        cluster: "cluster".into(),
        log_group: "group".into(),
        defaults: Defaults::one_machine(Arch::X86_64),
        quotas: Quotas::default(),
        run_task_rate: None,
        runner_images: Some(tests::ecs::runner_images()),
        artifacts: None,
        spot_fallback_after: None,
        definitions_rate: None,
        allowed: None,
        network: None,
        prices: None,
        task_tags: None,
        unlisted_seconds: 10,
        log_delay_seconds: 0,
    }
}

pub(crate) fn run_task_input(execution: &Execution) -> RunTaskInput {
    task::run_task(
        execution,
        "arn:aws:ecs:task-definition/x:1",
        AttemptProof::Nonce(&AttemptSecret::of_bits(0)),
        &GitAccess::default(),
        &settings(),
    )
}

pub(crate) fn launching(execution: &Execution, now: Timestamp) -> Execution {
    let plan = LaunchPlan {
        nonce: "0".repeat(32),
        token_hash: None,
        run_task: run_task_input(execution),
        price: Some(AttemptPrice {
            low: NanoUsd(7_962_500),
            high: NanoUsd(14_875_000),
            basis: "us-east-1 2026-11".into(),
        }),
    };
    execution.launching(plan, now).expect("it has a due ticket")
}

/// Records the launch, without a limit.
pub(crate) async fn launch(store: &impl Store, execution: &Execution) -> Execution {
    let now = execution.submitted_at + TimeDelta::milliseconds(1);
    store
        .update(
            execution,
            launching(execution, now),
            &admissions(execution, None),
        )
        .await
        .expect("there is no limit")
}

/// 32 hexadecimal digits that depend on the execution.
pub(crate) fn task_id(execution: &Execution) -> String {
    let number = execution.id.as_str().bytes().fold(0_u128, |sum, byte| {
        sum.wrapping_mul(131).wrapping_add(byte.into())
    });
    format!("{number:032x}")
}

pub(crate) fn task_arn(execution: &Execution) -> TaskArn {
    let arn = format!(
        "arn:aws:ecs:eu-central-1:123456789012:task/cluster/{}",
        task_id(execution)
    );
    arn.into()
}

/// The execution after its task stopped with this exit code. Its log tells the start alone.
pub(crate) fn stopped(execution: &Execution, exit_code: i32) -> Execution {
    let now = at(60_000);
    let container = Container {
        name: MAIN.into(),
        exit_code: Some(exit_code),
        ..Container::default()
    };
    let task = Task {
        task_arn: task_arn(execution),
        last_status: STOPPED.into(),
        desired_status: STOPPED.into(),
        containers: vec![container],
        stop_code: Some(StopCode::EssentialContainerExited),
        version: 3,
        pull_started_at: Some(at(20_000)),
        pull_stopped_at: Some(at(29_000)),
        started_at: Some(at(30_000)),
        stopped_at: Some(now),
        ..Task::default()
    };
    let seen = execution
        .observe(1, &Observation::Task(&task), now)
        .expect("it is news");
    let log = [(at(30_000), Marker::Start)];
    seen.observe(1, &Observation::WholeLog(&log), now)
        .unwrap_or(seen)
}

/// Records its end.
pub(crate) async fn close(store: &impl Store, execution: &Execution, exit_code: i32) -> Execution {
    store
        .update(execution, stopped(execution, exit_code), &[])
        .await
        .expect("nobody else writes it")
}

/// Goes through the open records, and then compares what is derived from them, as a sweep does.
pub(crate) async fn sweep<S: SweepStore>(store: &S) {
    let (mut survey, mut after) = (S::Survey::default(), None);
    loop {
        let page = store.survey(&mut survey, after.as_ref(), 2).await;
        after = page.expect("the store answers").next;
        if after.is_none() {
            break;
        }
    }
    store.reconcile(survey).await.expect("the store answers");
}

/// The submitters in order, such as "abba".
pub(crate) fn names<'a>(submitters: impl IntoIterator<Item = &'a String>) -> String {
    submitters
        .into_iter()
        .map(|principal| principal.trim_start_matches("key:"))
        .collect()
}
