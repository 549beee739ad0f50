//! A model of ECS on Fargate. It does what the documentation says, and no more.
//!
//! The model is a state machine without I/O, clock or threads. `now` is an argument of every call,
//! and everything random is drawn from a seed. So the same model serves two users: the wire-level
//! stand-in ([`wire`]), which the real SDK talks to, and the simulation ([`port`]), which runs on
//! virtual time. Each behaviour names its source; "our choice" marks what no source says.
//!
//! The model does not deliver events by itself. Its driver asks when something may happen next
//! ([`Ecs::next_event_at`]) and collects the events due by then ([`Ecs::take_events`]).

use std::{collections::BTreeMap, sync::Arc};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::{Container, StopCode, Task},
    settings::RunnerImages,
};
use serde_json::{Value, json};

use crate::random::Random;

/// The status of a task that runs.
pub const RUNNING: &str = "RUNNING";
/// The status of a task whose containers have ended and whose resources are being released.
pub const DEPROVISIONING: &str = "DEPROVISIONING";
/// The status of a task that has ended.
pub const STOPPED: &str = "STOPPED";

mod account;
mod bucket;
mod counts;
mod definition;
mod delivery;
mod life;
mod list;
mod operation;
pub mod port;
mod refusal;
mod run_task;
mod task;
pub mod wire;

#[cfg(test)]
mod tests;

pub use account::{
    ACCOUNT, Account, Answers, DEFAULT_RATES, Delivery, Foreign, Kind, Outage, REGION, Rates, VCPU,
    VcpuQuota,
};
pub use bucket::Shape;
pub use counts::{Counts, Why};
pub use life::{End, Helper, IMAGE_MISSING, Life, Lives, OnTerm, PULL_TIMED_OUT, SECRET_THROTTLED};
pub use list::{ListTasks, Listed};
pub use operation::Operation;
pub use refusal::Refusal;
pub use run_task::{Answered, Failure, Provider, RunTask};
pub use task::{Change, Shown};

use bucket::TokenBucket;
use definition::{ContainerShape, Definitions};
use delivery::Outbox;
use task::{Facts, PENDING, PROVISIONING, Record};

/// How long a stopped task is still described and listed. AWS says at least an hour (AWS-FACTS §4);
/// here it is exactly an hour.
const KEPT: TimeDelta = TimeDelta::hours(1);
/// The longest life of a client token, and how long it outlives its tasks (API Reference, "Ensuring
/// idempotency"). A token whose request started nothing lives for the second of the two (our
/// choice).
const TOKEN_LIVES: TimeDelta = TimeDelta::hours(24);
const TOKEN_OUTLIVES: TimeDelta = TimeDelta::hours(1);
/// The most tasks that one DescribeTasks call takes (API Reference).
const DESCRIBED_MAX: usize = 100;
/// The zones that tasks are spread over.
const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];

/// The answer to a call: the content of a 200, or an error.
pub type Answer<T> = Result<T, Refusal>;

/// A step that is due at a planned time.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A foreign tenant starts or stops.
    Foreign,
    /// A step of one task. It is dropped if a newer plan was made for the task.
    Of { task: usize, plan: u32, next: Next },
}

/// The next step of a task's life.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The image pull begins.
    Pulls,
    /// The task runs, or has failed to start.
    Runs,
    /// Its work is done.
    Ends,
    /// Its container exits after TERM or KILL.
    Exits(i32),
    /// The task stops and frees its vCPUs.
    Stops,
}

/// A fault that a test can inflict on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Fargate Spot takes the task's capacity back: an event and TERM, then KILL after the
    /// definition's `stopTimeout` (AWS-FACTS §4).
    SpotInterruption,
    /// The task's host fails: `InfrastructureHealth`, no exit code.
    HostFailure,
    /// The kernel kills the task's container for its memory use.
    OutOfMemory,
}

/// A client token that is in use.
struct Token {
    request: [u8; 32],
    answer: Answered,
    tasks: Vec<usize>,
    made_at: Timestamp,
}

struct Buckets {
    run_task: TokenBucket,
    launches: BTreeMap<Kind, TokenBucket>,
    run_and_stop: TokenBucket,
    look: TokenBucket,
    register: TokenBucket,
    describe_definition: TokenBucket,
}

impl Buckets {
    fn new(rates: &Rates) -> Self {
        Self {
            run_task: TokenBucket::new(rates.run_task),
            launches: Kind::ALL
                .map(|kind| (kind, TokenBucket::new(rates.launches)))
                .into(),
            run_and_stop: TokenBucket::new(rates.run_and_stop),
            look: TokenBucket::new(rates.look),
            register: TokenBucket::new(rates.register),
            describe_definition: TokenBucket::new(rates.describe_definition),
        }
    }

    /// Returns ECS's own bucket for an operation. Service Quotas publishes none for its own calls.
    fn of(&mut self, operation: Operation) -> Option<&mut TokenBucket> {
        match operation {
            Operation::RunTask | Operation::StopTask => Some(&mut self.run_and_stop),
            Operation::DescribeTasks | Operation::ListTasks => Some(&mut self.look),
            Operation::RegisterTaskDefinition | Operation::DeregisterTaskDefinition => {
                Some(&mut self.register)
            }
            Operation::DescribeTaskDefinition => Some(&mut self.describe_definition),
            Operation::GetServiceQuota | Operation::GetAwsDefaultServiceQuota => None,
        }
    }
}

/// The model of ECS in one account, with one cluster.
pub struct Ecs {
    account: Account,
    clock: Timestamp,
    buckets: Buckets,
    definitions: Definitions,
    tasks: Vec<Record>,
    /// Tasks by the last part of their ARN.
    by_id: BTreeMap<String, usize>,
    by_starter: BTreeMap<String, Vec<usize>>,
    tokens: BTreeMap<String, Token>,
    /// CPU units in use by our tasks.
    used: BTreeMap<Kind, u32>,
    /// CPU units in use by each foreign tenant.
    foreign: Vec<u32>,
    /// Planned steps, ordered by time. Steps of the same time keep the order in which they were
    /// planned.
    plans: BTreeMap<(Timestamp, u64), Step>,
    planned: u64,
    outbox: Outbox,
    /// How many of the next RunTask answers are lost, whatever the account's probabilities are.
    to_lose: u32,
    counts: Counts,
}

impl Ecs {
    /// The account before the first call.
    #[must_use]
    pub fn new(account: Account) -> Self {
        let mut ecs = Self {
            clock: Timestamp::default(),
            buckets: Buckets::new(&account.rates),
            definitions: Definitions::default(),
            tasks: Vec::new(),
            by_id: BTreeMap::new(),
            by_starter: BTreeMap::new(),
            tokens: BTreeMap::new(),
            used: BTreeMap::new(),
            foreign: Vec::new(),
            plans: BTreeMap::new(),
            planned: 0,
            outbox: Outbox::new(account.seed, account.delivery.clone()),
            to_lose: 0,
            counts: Counts::default(),
            account,
        };
        for foreign in std::mem::take(&mut ecs.account.foreign) {
            ecs.invite(foreign);
        }
        ecs
    }

    /// The model's counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// CPU units of a kind in use, foreign tasks included.
    #[must_use]
    pub fn in_use(&self, kind: Kind) -> u32 {
        self.used.get(&kind).copied().unwrap_or_default() + self.in_foreign_use(kind)
    }

    /// CPU units of a kind that foreign tasks use.
    #[must_use]
    pub fn in_foreign_use(&self, kind: Kind) -> u32 {
        self.foreigners(kind)
            .map(|(index, _)| self.foreign[index])
            .sum()
    }

    /// All tasks ever started, in the order of their starts.
    pub fn tasks(&self) -> impl Iterator<Item = &Shown> {
        self.tasks.iter().map(|record| &record.shown)
    }

    /// Scripts the life of the task with this `startedBy`.
    pub fn script(&mut self, started_by: &str, life: Life) {
        self.account.lives.given.insert(started_by.to_owned(), life);
    }

    /// Changes the account's quota from now on. Running tasks go on.
    pub fn set_quota(&mut self, kind: Kind, quota: VcpuQuota, now: Timestamp) {
        self.advance(now);
        self.account.vcpus.insert(kind, quota);
        self.foreigners_take(kind);
    }

    /// Adds a foreign tenant.
    pub fn invite(&mut self, foreign: Foreign) {
        self.account.foreign.push(foreign);
        self.foreign.push(0);
        self.plan(foreign.from.max(self.clock), Step::Foreign);
        self.plan(foreign.until.max(self.clock), Step::Foreign);
    }

    /// Adds a period without capacity.
    pub fn add_outage(&mut self, outage: Outage) {
        self.account.outages.push(outage);
    }

    /// Loses the answers of the next `count` RunTask calls that start a task.
    pub fn lose_answers(&mut self, count: u32) {
        self.to_lose += count;
    }

    /// When the next event arrives or something else may happen. `None` if nothing will ever happen
    /// without a call.
    #[must_use]
    pub fn next_event_at(&self) -> Option<Timestamp> {
        let planned = self.plans.first_key_value().map(|((at, _), _)| *at);
        [planned, self.outbox.next_at()].into_iter().flatten().min()
    }

    /// Returns the events that have arrived by now, each with its time of arrival.
    pub fn take_events(&mut self, now: Timestamp) -> Vec<(Timestamp, Change)> {
        let now = self.advance(now);
        let taken = self.outbox.take(now);
        self.counts.delivered += u64::try_from(taken.len()).unwrap_or_default();
        taken
    }

    /// RunTask.
    ///
    /// # Errors
    /// As ECS answers: throttled, a token conflict, an invalid request, or a server fault. After a
    /// server fault the task may exist.
    pub fn run_task(&mut self, request: &RunTask, now: Timestamp) -> Answer<Answered> {
        let now = self.receive(Operation::RunTask, now)?;
        let answer = self.run(request, now);
        self.counted(Operation::RunTask, answer)
    }

    fn run(&mut self, request: &RunTask, now: Timestamp) -> Answer<Answered> {
        if !self.buckets.run_task.take(1, now) {
            return Err(self.refuse(Operation::RunTask, Why::RunTaskRate, Refusal::throttled()));
        }
        let mut random = Random::keyed(self.account.seed, "answer", self.counts.all_calls());
        if random.chance(self.account.answers.failed) {
            return Err(self.refuse(Operation::RunTask, Why::Server, Refusal::server()));
        }
        self.check_cluster(&request.cluster)?;
        let kind = request.check()?;
        if let Some(answer) = self.repeated(request, now) {
            return answer;
        }
        let answer = self.place(request, kind, now)?;
        let lost = random.chance(self.account.answers.lost)
            || (self.to_lose > 0 && !answer.tasks.is_empty());
        if lost {
            self.to_lose = self.to_lose.saturating_sub(1);
            return Err(self.refuse(Operation::RunTask, Why::Server, Refusal::server()));
        }
        Ok(answer)
    }

    /// The answer to a request whose client token is in use. It is the original answer with its
    /// failures (API Reference, "Ensuring idempotency"), or a conflict if the request differs.
    fn repeated(&mut self, request: &RunTask, now: Timestamp) -> Option<Answer<Answered>> {
        let token = self.tokens.get(request.client_token.as_ref()?)?;
        if !self.lives(token, now) {
            return None;
        }
        if token.request == request.digest() {
            self.counts.repeated += 1;
            return Some(Ok(token.answer.clone()));
        }
        let arns = token
            .tasks
            .iter()
            .map(|task| self.tasks[*task].shown.task.task_arn.to_string())
            .collect();
        let conflict = Refusal::conflict(request.client_token.as_deref().unwrap_or_default(), arns);
        Some(Err(self.refuse(
            Operation::RunTask,
            Why::Conflict,
            conflict,
        )))
    }

    /// Whether a token still lives: it lives for min(24 h, its tasks' life + 1 h).
    fn lives(&self, token: &Token, now: Timestamp) -> bool {
        let outlives = |ended: Timestamp| now < ended + TOKEN_OUTLIVES;
        let of_task = |task: &usize| self.tasks[*task].stopped_at().is_none_or(outlives);
        let bound = if token.tasks.is_empty() {
            outlives(token.made_at)
        } else {
            token.tasks.iter().any(of_task)
        };
        bound && now < token.made_at + TOKEN_LIVES
    }

    /// Starts as many tasks as there is room for. The rest are failures in a 200 (AWS-FACTS §1) and
    /// use no launch rate tokens (our choice).
    fn place(&mut self, request: &RunTask, kind: Kind, now: Timestamp) -> Answer<Answered> {
        let definition = self.definitions.active(&request.task_definition)?.clone();
        let (cpu, cpu_text, memory) = request.size(&definition)?;
        let out = self.account.is_out(kind, now);
        let free = self.account.cap(kind).saturating_sub(self.in_use(kind));
        let placed = if out {
            0
        } else {
            request.count.min(free / cpu)
        };
        let slow_enough = self
            .buckets
            .launches
            .get_mut(&kind)
            .is_none_or(|bucket| bucket.take(placed, now));
        if !slow_enough {
            return Err(self.refuse(
                Operation::RunTask,
                Why::LaunchRate(kind),
                Refusal::throttled(),
            ));
        }
        let mut answer = Answered::default();
        let first = self.tasks.len();
        for _ in 0..placed {
            let facts = (cpu_text.clone(), memory.clone());
            answer
                .tasks
                .push(self.start(request, &definition, kind, cpu, facts, now));
        }
        for _ in placed..request.count {
            let (why, failure) = match out {
                true => (Why::NoCapacity(kind), Failure::no_capacity()),
                false => (Why::Vcpus(kind), Failure::vcpus()),
            };
            self.counts.refuse(Operation::RunTask, why);
            answer.failures.push(failure);
        }
        if let Some(token) = &request.client_token {
            let tasks = (first..self.tasks.len()).collect();
            let kept = Token {
                request: request.digest(),
                answer: answer.clone(),
                tasks,
                made_at: now,
            };
            self.tokens.insert(token.clone(), kept);
        }
        Ok(answer)
    }

    fn start(
        &mut self,
        request: &RunTask,
        definition: &definition::Definition,
        kind: Kind,
        cpu: u32,
        (cpu_text, memory): (String, String),
        now: Timestamp,
    ) -> Shown {
        let number = self.tasks.len();
        let mut random = Random::keyed(self.account.seed, "task", number as u64);
        let id = format!("{:016x}{:016x}", random.bits(), random.bits());
        let cluster = &self.account.cluster;
        let task_arn = self.account.arn(&format!("task/{cluster}/{id}"));
        let started_by = request.started_by.clone();
        let drawn_for = started_by.clone().unwrap_or_else(|| id.clone());
        let life = self.account.lives.of(self.account.seed, &drawn_for);
        let facts = Facts {
            cpu: cpu_text,
            memory,
            overrides: request.overrides.to_string(),
            group: request
                .group
                .clone()
                .unwrap_or_else(|| format!("family:{}", definition.family)),
            zone: ZONES[number % ZONES.len()],
            container_arn: self
                .account
                .arn(&format!("container/{cluster}/{id}/{:016x}", random.bits())),
        };
        let task = Task {
            cluster_arn: self.account.arn(&format!("cluster/{cluster}")),
            task_definition_arn: definition.arn.clone(),
            desired_status: RUNNING.into(),
            started_by: started_by.clone(),
            capacity_provider_name: Some(kind.provider().to_owned()),
            containers: definition
                .containers
                .iter()
                .map(|shape| Container {
                    name: shape.name.clone(),
                    image: Some(shape.image.clone()),
                    ..Container::default()
                })
                .collect(),
            created_at: Some(now),
            task_arn: task_arn.clone().into(),
            ..Task::default()
        };
        let (pulls, runs) = (now + life.start_up / 4, now + life.start_up);
        self.tasks.push(Record {
            shown: Shown {
                task,
                facts: Arc::new(facts),
            },
            kind,
            cpu,
            life,
            stop_timeout: definition.stop_timeout,
            seen_from: now + random.within(&self.account.seen_after),
            essential: definition
                .containers
                .iter()
                .position(ContainerShape::is_essential)
                .unwrap_or_default(),
            plan: 0,
        });
        self.by_id.insert(id, number);
        if let Some(starter) = started_by {
            self.started_by(starter, number);
        }
        self.hold(kind, cpu);
        self.counts.launch(kind, now);
        self.changes(number, PROVISIONING, now);
        self.next(number, pulls, Next::Pulls);
        self.next(number, runs, Next::Runs);
        self.tasks[number].shown.clone()
    }

    fn started_by(&mut self, starter: String, number: usize) {
        let all = self.by_starter.entry(starter.clone()).or_default();
        all.push(number);
        if all.len() > 1 {
            let arns = all
                .iter()
                .map(|task| self.tasks[*task].shown.task.task_arn.to_string())
                .collect();
            self.counts.doubled.insert(starter, arns);
        }
    }

    /// StopTask: TERM, then KILL after the definition's `stopTimeout`. Stopping a stopped task is
    /// no error while it is still described.
    ///
    /// # Errors
    /// As ECS answers: throttled, or a task that ECS does not know yet or no longer knows.
    pub fn stop_task(
        &mut self,
        cluster: &str,
        task: &str,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Answer<Shown> {
        let now = self.receive(Operation::StopTask, now)?;
        let answer = self.check_cluster(cluster).and_then(|()| {
            self.seen(task, now)
                .ok_or_else(|| Refusal::parameter("The referenced task was not found."))
        });
        let number = self.counted(Operation::StopTask, answer)?;
        self.stop(
            number,
            StopCode::UserInitiated,
            reason.unwrap_or("Task stopped by user"),
            now,
        );
        Ok(self.tasks[number].shown.clone())
    }

    /// DescribeTasks.
    ///
    /// # Errors
    /// As ECS answers: throttled, or more than 100 tasks.
    pub fn describe_tasks(
        &mut self,
        cluster: &str,
        tasks: &[String],
        now: Timestamp,
    ) -> Answer<Answered> {
        let now = self.receive(Operation::DescribeTasks, now)?;
        let answer = self
            .check_cluster(cluster)
            .and_then(|()| match tasks.len() {
                0 => Err(Refusal::parameter("Tasks cannot be empty.")),
                1..=DESCRIBED_MAX => Ok(self.describe(tasks, now)),
                _ => Err(Refusal::parameter("There are more than 100 tasks.")),
            });
        self.counted(Operation::DescribeTasks, answer)
    }

    fn describe(&self, tasks: &[String], now: Timestamp) -> Answered {
        let mut answer = Answered::default();
        for name in tasks {
            match self.seen(name, now) {
                Some(number) => answer.tasks.push(self.tasks[number].shown.clone()),
                None => answer.failures.push(Failure::missing(self.task_arn(name))),
            }
        }
        answer
    }

    /// Returns the ARN by which a failure names a task. The caller may give the ARN or the id
    /// alone.
    fn task_arn(&self, name: &str) -> String {
        if name.contains(':') {
            name.to_owned()
        } else {
            self.account
                .arn(&format!("task/{}/{name}", self.account.cluster))
        }
    }

    /// ListTasks.
    ///
    /// # Errors
    /// As ECS answers: throttled, or filters that cannot be combined.
    pub fn list_tasks(&mut self, request: &ListTasks, now: Timestamp) -> Answer<Listed> {
        let now = self.receive(Operation::ListTasks, now)?;
        let answer = self
            .check_cluster(&request.cluster)
            .and_then(|()| self.list(request, now));
        self.counted(Operation::ListTasks, answer)
    }

    fn list(&self, request: &ListTasks, now: Timestamp) -> Answer<Listed> {
        let (from, most) = request.page()?;
        let all = 0..self.tasks.len();
        let numbers: Vec<usize> = match &request.started_by {
            Some(starter) => self.by_starter.get(starter).cloned().unwrap_or_default(),
            None => all.collect(),
        };
        let mut wanted = numbers.into_iter().filter(|number| {
            *number >= from
                && self.is_seen(&self.tasks[*number], now)
                && request.wants(&self.tasks[*number].shown)
        });
        let task_arns = wanted
            .by_ref()
            .take(most)
            .map(|number| self.tasks[number].shown.task.task_arn.to_string())
            .collect();
        Ok(Listed {
            task_arns,
            next: wanted.next(),
        })
    }

    /// RegisterTaskDefinition: adds the next revision of the family.
    ///
    /// # Errors
    /// As ECS answers: throttled, or an invalid definition.
    pub fn register_task_definition(&mut self, body: &Value, now: Timestamp) -> Answer<Value> {
        let now = self.receive(Operation::RegisterTaskDefinition, now)?;
        let answer = self
            .definitions
            .register(&self.account, body, now)
            .map(definition::Definition::json);
        self.counted(Operation::RegisterTaskDefinition, answer)
    }

    /// DeregisterTaskDefinition: marks the definition INACTIVE.
    ///
    /// # Errors
    /// As ECS answers: throttled, or no such definition.
    pub fn deregister_task_definition(&mut self, name: &str, now: Timestamp) -> Answer<Value> {
        let now = self.receive(Operation::DeregisterTaskDefinition, now)?;
        let answer = self
            .definitions
            .deregister(name, now)
            .map(definition::Definition::json);
        self.counted(Operation::DeregisterTaskDefinition, answer)
    }

    /// DescribeTaskDefinition.
    ///
    /// # Errors
    /// As ECS answers: throttled, or no such definition.
    pub fn describe_task_definition(&mut self, name: &str, now: Timestamp) -> Answer<Value> {
        self.receive(Operation::DescribeTaskDefinition, now)?;
        let found = self
            .definitions
            .find(name)
            .map(definition::Definition::json);
        let answer = found.ok_or_else(|| Refusal::client("Unable to describe task definition."));
        self.counted(Operation::DescribeTaskDefinition, answer)
    }

    /// Service Quotas' GetServiceQuota: the account's own value, if it has one.
    ///
    /// # Errors
    /// As Service Quotas answers: no such quota, or no applied value.
    pub fn get_service_quota(
        &mut self,
        service: &str,
        code: &str,
        now: Timestamp,
    ) -> Answer<Value> {
        let quota = |quota: VcpuQuota| quota.applied;
        self.quota(Operation::GetServiceQuota, service, code, quota, now)
    }

    /// Service Quotas' GetAWSDefaultServiceQuota.
    ///
    /// # Errors
    /// As Service Quotas answers: no such quota.
    pub fn get_aws_default_service_quota(
        &mut self,
        service: &str,
        code: &str,
        now: Timestamp,
    ) -> Answer<Value> {
        let quota = |quota: VcpuQuota| Some(quota.default);
        self.quota(
            Operation::GetAwsDefaultServiceQuota,
            service,
            code,
            quota,
            now,
        )
    }

    fn quota(
        &mut self,
        operation: Operation,
        service: &str,
        code: &str,
        value: fn(VcpuQuota) -> Option<u32>,
        now: Timestamp,
    ) -> Answer<Value> {
        self.receive(operation, now)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| service == "fargate" && kind.quota_code() == code);
        let value =
            kind.and_then(|kind| value(self.account.vcpus.get(&kind).copied().unwrap_or_default()));
        let shown = value.map(|value| {
            json!({
                "Adjustable": true, "GlobalQuota": false, "QuotaCode": code, "ServiceCode": service, "Unit": "None",
                "Value": f64::from(value),
            })
        });
        self.counted(operation, shown.ok_or_else(Refusal::no_resource))
    }

    /// Inflicts a fault on a task now. Returns whether it did: a task that is already stopping, or
    /// has no container yet, is left alone.
    pub fn strike(&mut self, task: &str, strike: Strike, now: Timestamp) -> bool {
        let now = self.advance(now);
        let Some(number) = self
            .number(task)
            .filter(|number| !self.tasks[*number].is_stopping())
        else {
            return false;
        };
        match strike {
            Strike::SpotInterruption => self.interrupt(number, now),
            Strike::HostFailure => self.host_fails(number, now),
            Strike::OutOfMemory if self.tasks[number].is(RUNNING) => {
                self.out_of_memory(number, now);
            }
            Strike::OutOfMemory => return false,
        }
        true
    }

    /// Receives a call: first runs every step due before it, then takes a token from ECS's own
    /// bucket.
    fn receive(&mut self, operation: Operation, now: Timestamp) -> Answer<Timestamp> {
        let now = self.advance(now);
        *self.counts.calls.entry(operation).or_default() += 1;
        if self
            .buckets
            .of(operation)
            .is_none_or(|bucket| bucket.take(1, now))
        {
            return Ok(now);
        }
        Err(self.refuse(operation, Why::ApiRate, Refusal::throttled()))
    }

    fn refuse(&mut self, operation: Operation, why: Why, refusal: Refusal) -> Refusal {
        self.counts.refuse(operation, why);
        refusal
    }

    /// Counts a refusal that was not yet counted with its reason: an invalid request.
    fn counted<T>(&mut self, operation: Operation, answer: Answer<T>) -> Answer<T> {
        let known = [
            "ThrottlingException",
            "ConflictException",
            "ServerException",
        ];
        if answer
            .as_ref()
            .is_err_and(|refusal| !known.contains(&refusal.code))
        {
            self.counts.refuse(operation, Why::Invalid);
        }
        answer
    }

    fn check_cluster(&self, cluster: &str) -> Answer<()> {
        let name = cluster.rsplit('/').next().unwrap_or_default();
        if name == self.account.cluster {
            Ok(())
        } else {
            Err(Refusal::no_cluster())
        }
    }

    fn number(&self, task: &str) -> Option<usize> {
        self.by_id.get(task.rsplit('/').next()?).copied()
    }

    fn seen(&self, task: &str, now: Timestamp) -> Option<usize> {
        self.number(task)
            .filter(|number| self.is_seen(&self.tasks[*number], now))
    }

    /// Whether ECS shows the task: from a moment after RunTask until an hour after its end.
    fn is_seen(&self, record: &Record, now: Timestamp) -> bool {
        now >= record.seen_from && record.stopped_at().is_none_or(|at| now < at + KEPT)
    }

    /// Runs every step due by now. If the clock goes backwards, the model's time stands still.
    pub fn pass(&mut self, now: Timestamp) {
        self.advance(now);
    }

    fn advance(&mut self, now: Timestamp) -> Timestamp {
        let now = now.max(self.clock);
        while let Some(plan) = self.plans.first_entry().filter(|plan| plan.key().0 <= now) {
            let ((at, _), step) = plan.remove_entry();
            self.clock = at;
            match step {
                Step::Foreign => self.foreigners_change(at),
                Step::Of { task, plan, next } if self.tasks[task].plan == plan => {
                    self.carry_out(task, next, at);
                }
                Step::Of { .. } => {}
            }
        }
        self.clock = now;
        now
    }

    fn plan(&mut self, at: Timestamp, step: Step) {
        self.planned += 1;
        self.plans.insert((at, self.planned), step);
    }

    fn next(&mut self, task: usize, at: Timestamp, next: Next) {
        let plan = self.tasks[task].plan;
        self.plan(at, Step::Of { task, plan, next });
    }

    fn carry_out(&mut self, number: usize, next: Next, at: Timestamp) {
        match next {
            Next::Pulls => self.changes(number, PENDING, at),
            Next::Runs => self.runs(number, at),
            Next::Ends => self.ends(number, at),
            Next::Exits(code) => self.exits(number, Some(code), at),
            Next::Stops => self.stops(number, at),
        }
    }

    fn runs(&mut self, number: usize, at: Timestamp) {
        let record = &mut self.tasks[number];
        let (work, start_up) = (record.life.work, record.life.start_up);
        if let End::NeverStarts(reason) = record.life.end.clone() {
            record.wants_to_stop(StopCode::TaskFailedToStart, &reason, at);
            record
                .container()
                .into_iter()
                .for_each(|container| container.reason = Some(reason.clone()));
            return self.deprovisions(number, at);
        }
        match record.life.end.clone() {
            End::Hangs => return,
            End::Helper(helper) => return self.helper_fails(number, &helper, at),
            _ => {}
        }
        let record = &mut self.tasks[number];
        let essential = record.essential;
        let task = record.task();
        // The containers that the essential one waits for have done their work.
        for (place, container) in task.containers.iter_mut().enumerate() {
            container.exit_code = (place != essential).then_some(0);
        }
        task.pull_started_at = Some(at - start_up / 2);
        task.pull_stopped_at = Some(at - start_up / 8);
        task.started_at = Some(at);
        let runtime_id = format!("{}-{number}", task.task_arn.id());
        record
            .container()
            .into_iter()
            .for_each(|container| container.runtime_id = Some(runtime_id.clone()));
        self.changes(number, RUNNING, at);
        self.next(number, at + work, Next::Ends);
    }

    /// The task's work is done. A task that was asked to stop earlier keeps the reason given then.
    fn ends(&mut self, number: usize, at: Timestamp) {
        match self.tasks[number].life.end.clone() {
            End::Exit(code) => self.exits(number, Some(code), at),
            End::NoExitCode => self.exits(number, None, at),
            End::OutOfMemory => self.out_of_memory(number, at),
            End::Interrupted => self.interrupt(number, at),
            End::HostFails => self.host_fails(number, at),
            End::NeverStarts(_) | End::Hangs | End::Helper(_) => {}
        }
    }

    /// The essential container never runs, because of another one.
    fn helper_fails(&mut self, number: usize, helper: &Helper, at: Timestamp) {
        let arn = self.tasks[number].task().task_definition_arn.clone();
        let definition = self.definitions.find(&arn);
        if helper.code.is_some_and(|code| code != 0)
            && definition.is_some_and(|definition| definition.needs_success_of(helper.name))
        {
            return;
        }
        let record = &mut self.tasks[number];
        for container in &mut record.task().containers {
            if container.name == helper.name {
                (container.exit_code, container.reason) = (helper.code, helper.reason.clone());
            }
        }
        record.wants_to_stop(
            StopCode::EssentialContainerExited,
            "Essential container in task exited",
            at,
        );
        if let Some(main) = record.container() {
            main.exit_code = helper.invented;
        }
        self.deprovisions(number, at);
    }

    fn out_of_memory(&mut self, number: usize, at: Timestamp) {
        let reason = "OutOfMemoryError: Container killed due to memory usage";
        self.tasks[number]
            .container()
            .into_iter()
            .for_each(|container| container.reason = Some(reason.into()));
        self.exits(number, Some(137), at);
    }

    fn interrupt(&mut self, number: usize, at: Timestamp) {
        self.stop(
            number,
            StopCode::SpotInterruption,
            "Your Spot Task was interrupted.",
            at,
        );
    }

    fn host_fails(&mut self, number: usize, at: Timestamp) {
        let reason = "The infrastructure that the task was running on failed.";
        self.tasks[number].wants_to_stop(StopCode::InfrastructureHealth, reason, at);
        self.deprovisions(number, at);
    }

    /// Sends TERM to a running container, and KILL when `stopTimeout` is over. A task that does not
    /// run yet never will, and has no exit code.
    fn stop(&mut self, number: usize, code: StopCode, reason: &str, at: Timestamp) {
        let record = &mut self.tasks[number];
        if record.is_stopping() {
            return;
        }
        record.wants_to_stop(code, reason, at);
        if !record.is(RUNNING) {
            return self.deprovisions(number, at);
        }
        record.plan += 1;
        let natural_end = record.shown.task.started_at.unwrap_or(at) + record.life.work;
        let (after, code) = match record.life.on_term {
            OnTerm::Exits(after, code) if after <= record.stop_timeout => (after, code),
            _ => (record.stop_timeout, 137),
        };
        let ends_first = matches!(
            record.life.end,
            End::Exit(_) | End::NoExitCode | End::OutOfMemory
        ) && natural_end < at + after;
        self.changes(number, RUNNING, at);
        match ends_first {
            true => self.next(number, natural_end, Next::Ends),
            false => self.next(number, at + after, Next::Exits(code)),
        }
    }

    fn exits(&mut self, number: usize, code: Option<i32>, at: Timestamp) {
        let record = &mut self.tasks[number];
        if !record.is_stopping() {
            record.wants_to_stop(
                StopCode::EssentialContainerExited,
                "Essential container in task exited",
                at,
            );
        }
        record.task().execution_stopped_at = Some(at);
        record
            .container()
            .into_iter()
            .for_each(|container| container.exit_code = code);
        self.deprovisions(number, at);
    }

    /// The containers have ended. The guide's DEACTIVATING and STOPPING in between are left out:
    /// either may be missing (AWS-FACTS §4).
    fn deprovisions(&mut self, number: usize, at: Timestamp) {
        self.tasks[number].plan += 1;
        let wind_down = self.tasks[number].life.wind_down;
        self.changes(number, DEPROVISIONING, at);
        self.next(number, at + wind_down, Next::Stops);
    }

    /// The task is over and its vCPUs are free. No source says when they are freed (our choice).
    fn stops(&mut self, number: usize, at: Timestamp) {
        let record = &mut self.tasks[number];
        record.task().stopped_at = Some(at);
        let (kind, cpu) = (record.kind, record.cpu);
        self.changes(number, STOPPED, at);
        if let Some(used) = self.used.get_mut(&kind) {
            *used -= cpu;
        }
        self.foreigners_take(kind);
    }

    /// Changes a task's status: counts its version up and sends an event.
    fn changes(&mut self, number: usize, status: &str, at: Timestamp) {
        let record = &mut self.tasks[number];
        record.becomes(status);
        record.task().version += 1;
        self.counts.changes += 1;
        let shown = record.shown.clone();
        self.counts.dropped += u64::from(self.outbox.post(number, shown, at));
    }

    fn hold(&mut self, kind: Kind, cpu: u32) {
        *self.used.entry(kind).or_default() += cpu;
        self.counts.in_use(kind, self.in_use(kind));
    }

    fn foreigners(&self, kind: Kind) -> impl Iterator<Item = (usize, &Foreign)> {
        self.account
            .foreign
            .iter()
            .enumerate()
            .filter(move |(_, foreign)| foreign.kind == kind)
    }

    fn foreigners_change(&mut self, at: Timestamp) {
        for (foreign, held) in self.account.foreign.iter().zip(&mut self.foreign) {
            if foreign.until <= at {
                *held = 0;
            }
        }
        Kind::ALL
            .into_iter()
            .for_each(|kind| self.foreigners_take(kind));
    }

    /// Gives free capacity to each foreign tenant that is present and wants more.
    fn foreigners_take(&mut self, kind: Kind) {
        let here: Vec<_> = self
            .foreigners(kind)
            .filter(|(_, foreign)| (foreign.from..foreign.until).contains(&self.clock))
            .map(|(index, foreign)| (index, foreign.cpu))
            .collect();
        for (index, wants) in here {
            let free = self.account.cap(kind).saturating_sub(self.in_use(kind));
            self.foreign[index] += free.min(wants - self.foreign[index]);
        }
        self.counts.in_use(kind, self.in_use(kind));
    }
}

/// The runner's image, as a stack names it.
///
/// # Panics
/// Never: it is an image's name.
#[must_use]
pub fn runner_images() -> RunnerImages {
    let (registry, digest) = (
        "111122223333.dkr.ecr.eu-west-1.amazonaws.com",
        "0".repeat(64),
    );
    let runner = format!("{registry}/mycli-team@sha256:{digest}").parse();
    RunnerImages {
        runner: runner.expect("an image"),
        git: None,
    }
}
