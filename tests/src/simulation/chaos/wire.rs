//! The ports as a process sees them. Each call takes time, may have no answer, and may have been
//! carried out even so.

use std::{ops::RangeInclusive, sync::Arc};

use chrono::NaiveDate;
use domain::{
    Timestamp,
    ecs::{RunTaskInput, Task},
    ecs::{TaskArn, TaskId},
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{AttemptId, ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, BacklogSize, CapacityPool, LimitKey, RateKey, Usage},
    message::Outgoing,
    ports::{
        AccountQuotas, Claim, Clock, Created, Definitions, Described, KeyLookup, Keys, LaunchError,
        LaunchStore, LogLine, LogPage, Logs, PortError, Queue, ReadError, ReadStore, Secrets,
        StatisticsStore, SweepStore, Tasks, Update, UpdateError, WriteStore,
    },
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::state::LimitState,
    secret::SecretRecord,
    statistics::{DatedTally, DayStatistics, Dimension, RunEnd},
    task::TaskDefinition,
};

use super::World;

/// The connections of one process.
pub(super) struct Wire {
    pub(super) world: Arc<World>,
    /// The process's name in the story.
    pub(super) who: String,
}

fn no_answer() -> PortError {
    PortError::unavailable("the network", "no answer (the weather of this simulation)")
}

impl Wire {
    fn tell(&self, what: impl FnOnce() -> String) {
        self.world.story.tell(&self.who, what);
    }

    /// Makes a call: one way, carried out at one moment, and back.
    async fn call<T, E: From<PortError> + std::fmt::Display>(
        &self,
        what: impl Fn() -> String + Send,
        act: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let World { fate, time, .. } = &*self.world;
        time.sleep(fate.latency()).await;
        let struck = fate.strikes(|weather| weather.no_answer);
        if struck && fate.below(2) == 0 {
            self.tell(|| format!("{}: no answer, and not carried out", what()));
            return Err(no_answer().into());
        }
        let result = act.await;
        if let Err(error) = &result {
            self.tell(|| format!("{}: {error}", what()));
        }
        time.sleep(fate.latency()).await;
        if struck {
            self.tell(|| format!("{}: no answer, though carried out", what()));
            return Err(no_answer().into());
        }
        result
    }

    /// Makes a read. It is left out of the story unless it fails.
    async fn read<T>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        self.call(|| what.to_owned(), act).await
    }

    /// Lets the stream tell that the record of an ended execution was written.
    fn tell_of_end(&self, execution: &Execution) {
        if execution.end().is_some() {
            self.world.stream.tell(&execution.id);
        }
    }

    /// Makes a conditional write of one record, at the moment when it is carried out.
    async fn write(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        if self.world.fate.strikes(|weather| weather.conflict) {
            return Err(UpdateError::Conflict);
        }
        let written = self.world.store.update(before, after, admissions).await?;
        self.tell(|| super::rules::change(before, &written));
        self.world.rules.changed(&self.world, before, &written);
        self.tell_of_end(&written);
        Ok(written)
    }
}

impl ReadStore for Wire {
    async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        self.read("load", self.world.store.load(id)).await
    }

    async fn find(&self, fragment: &str, limit: u32) -> Result<Vec<ExecutionId>, PortError> {
        self.read("find", self.world.store.find(fragment, limit))
            .await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.read("list", self.world.store.list(filter, after, limit))
            .await
    }

    async fn group_work<W: GroupWork>(&self, group: &Name) -> Result<Option<W>, PortError> {
        self.read(W::WHAT, self.world.store.group_work(group)).await
    }

    async fn ahead(&self, entry: &BacklogEntry, exact: u32) -> Result<u32, PortError> {
        self.read("a place", self.world.store.ahead(entry, exact))
            .await
    }

    async fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        self.read("a backlog", self.world.store.backlog(key, now, limit))
            .await
    }

    async fn backlog_sizes(&self, most: u32) -> Result<Vec<BacklogSize>, PortError> {
        self.read("backlogs", self.world.store.backlog_sizes(most))
            .await
    }

    async fn limit_state(&self, key: &LimitKey) -> Result<LimitState, PortError> {
        self.read("a backlog's state", self.world.store.limit_state(key))
            .await
    }

    async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        self.read("usage", self.world.store.usage(key)).await
    }

    async fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> Result<Vec<DatedTally>, PortError> {
        self.read("tallies", self.world.store.tallies(dimension, days))
            .await
    }
}

impl WriteStore for Wire {
    async fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> Result<Created, PortError> {
        let act = async {
            let created = self.world.store.create(execution, claim).await?;
            self.tell_of_end(execution);
            self.tell(|| {
                format!(
                    "records {} ({}): {created:?}",
                    execution.id, execution.request.command
                )
            });
            Ok(created)
        };
        self.call(|| format!("create {}", execution.id), act).await
    }

    /// Each execution is recorded on its own: if there is no answer, the first few may be recorded.
    async fn create_all(&self, executions: Vec<Execution>) -> Result<Vec<Created>, PortError> {
        let World {
            fate, time, store, ..
        } = &*self.world;
        time.sleep(fate.latency()).await;
        let struck = fate.strikes(|weather| weather.no_answer);
        let count = executions.len();
        let carried_out = if struck {
            fate.below(count as u64 + 1)
        } else {
            count as u64
        };
        let some = executions
            .into_iter()
            .take(usize::try_from(carried_out).unwrap_or_default())
            .collect::<Vec<_>>();
        self.tell(|| {
            format!(
                "records {carried_out} of {count}: {:?}",
                some.iter().map(|e| &e.id).collect::<Vec<_>>()
            )
        });
        some.iter()
            .for_each(|execution| self.tell_of_end(execution));
        let created = store.create_all(some).await?;
        time.sleep(fate.latency()).await;
        if struck {
            Err(no_answer())
        } else {
            Ok(created)
        }
    }

    async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        self.read(
            "open a submission",
            self.world.store.open_submission(by, id, now, expires_at),
        )
        .await
    }

    async fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        let status = after.status();
        self.call(
            || format!("write {} as {status}", before.id),
            self.write(before, after, admissions),
        )
        .await
    }

    /// Each update is written on its own: if some have no answer, the others are written.
    async fn update_all(&self, updates: Vec<Update>) -> Vec<Result<Execution, UpdateError>> {
        let World { fate, time, .. } = &*self.world;
        time.sleep(fate.latency()).await;
        let mut results = Vec::new();
        for Update {
            before,
            after,
            admissions,
        } in updates
        {
            let struck = fate.strikes(|weather| weather.no_answer);
            let carried_out = !struck || fate.below(2) == 0;
            let result = match carried_out {
                true => self.write(&before, after, &admissions).await,
                false => Err(no_answer().into()),
            };
            if struck {
                self.tell(|| format!("write {}: no answer, carried out: {carried_out}", before.id));
            }
            results.push(if struck {
                Err(no_answer().into())
            } else {
                result
            });
        }
        time.sleep(fate.latency()).await;
        results
    }

    async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        let what = || format!("writes {} {}", W::WHAT, work.progress().group);
        self.call(what, self.world.store.set_group_work(work)).await
    }

    async fn has_backlog(&self, key: &LimitKey, now: Timestamp) -> Result<bool, PortError> {
        self.read(
            "whether a backlog has anybody",
            self.world.store.has_backlog(key, now),
        )
        .await
    }
}

impl LaunchStore for Wire {
    async fn set_limit_state(
        &self,
        key: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> Result<bool, PortError> {
        self.call(
            || format!("write the state of {key}"),
            self.world.store.set_limit_state(key, before, after),
        )
        .await
    }

    async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        self.read(
            "take tokens",
            self.world.store.take_tokens(key, rate, want, now),
        )
        .await
    }
}

impl SweepStore for Wire {
    type Survey = ();

    async fn of_task(&self, task: &TaskId) -> Result<Option<ExecutionId>, PortError> {
        self.read("of a task", self.world.store.of_task(task)).await
    }

    async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.read("what is launched", self.world.store.launched(after, limit))
            .await
    }

    async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        self.read("the backlogs", self.world.store.backlogs(now))
            .await
    }

    async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        self.read(
            "the open work on groups",
            self.world.store.open_group_work(),
        )
        .await
    }

    async fn reconcile(&self, survey: ()) -> Result<(), PortError> {
        self.read("reconcile", self.world.store.reconcile(survey))
            .await
    }

    async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        self.read("the bookmark", self.world.store.bookmark()).await
    }

    async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        self.read("set the bookmark", self.world.store.set_bookmark(at))
            .await
    }
}

impl StatisticsStore for Wire {
    async fn load_all(&self, ids: &[ExecutionId]) -> Result<Vec<Loaded>, PortError> {
        let mut loaded = self
            .read("load all", self.world.store.load_all(ids))
            .await?;
        // An eventually consistent read may miss what was just written.
        if self.world.fate.strikes(|weather| weather.conflict) {
            loaded.pop();
        }
        Ok(loaded)
    }

    async fn day_statistics(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> Result<DayStatistics, PortError> {
        self.read(
            "a day's statistics",
            self.world.store.day_statistics(day, ends),
        )
        .await
    }

    async fn set_day_statistics(
        &self,
        before: &DayStatistics,
        after: &DayStatistics,
        counted: &[RunEnd],
    ) -> Result<bool, PortError> {
        let World { fate, store, .. } = &*self.world;
        if fate.strikes(|weather| weather.conflict) {
            return Ok(false);
        }
        self.call(
            || format!("count {} ends", counted.len()),
            store.set_day_statistics(before, after, counted),
        )
        .await
    }
}

impl Definitions for Wire {
    async fn definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        self.read("a definition", self.world.store.definition(hash))
            .await
    }

    async fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        self.read(
            "claim a definition",
            self.world.store.claim_definition(hash, now, until),
        )
        .await
    }

    async fn keep_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.read(
            "keep a definition",
            self.world.store.keep_definition(hash, arn),
        )
        .await
    }

    async fn forget_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.read(
            "forget a definition",
            self.world.store.forget_definition(hash, arn),
        )
        .await
    }
}

impl KeyLookup for Wire {
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        self.read("a key", self.world.store.find_key(id)).await
    }
}

impl Keys for Wire {
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        self.read("the keys", self.world.store.list_keys()).await
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        self.read("add a key", self.world.store.add_key(key)).await
    }

    async fn rotate_key(&self, old: &KeyRecord, new: &KeyRecord) -> Result<bool, PortError> {
        self.read("rotate a key", self.world.store.rotate_key(old, new))
            .await
    }

    async fn remove_key(&self, name: &str) -> Result<bool, PortError> {
        self.read("remove a key", self.world.store.remove_key(name))
            .await
    }
}

impl Secrets for Wire {
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        self.read("a secret", self.world.store.find_secret(name))
            .await
    }

    fn how_to_set(&self, name: &str) -> String {
        self.world.store.how_to_set(name)
    }
}

impl Queue for Wire {
    /// If there is no answer, the first few messages may be sent. Each may be lost on its way.
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let World {
            fate,
            time,
            queue,
            news,
            ..
        } = &*self.world;
        time.sleep(fate.latency()).await;
        let struck = fate.strikes(|weather| weather.no_answer);
        let sent = if struck {
            fate.below(messages.len() as u64 + 1)
        } else {
            messages.len() as u64
        };
        for outgoing in messages
            .into_iter()
            .take(usize::try_from(sent).unwrap_or_default())
        {
            let lost = fate.strikes(|weather| weather.wakeup_lost);
            self.tell(|| {
                format!(
                    "sends {outgoing:?}{}",
                    if lost { ", which is lost" } else { "" }
                )
            });
            if !lost {
                queue.send(vec![outgoing]).await?;
            }
        }
        news.tell();
        time.sleep(fate.latency()).await;
        if struck { Err(no_answer()) } else { Ok(()) }
    }
}

impl Tasks for Wire {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        self.call(
            || "RegisterTaskDefinition".into(),
            self.world.tasks.register_definition(definition),
        )
        .await
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        self.world.rules.asks_to_launch(&self.world, input);
        let act = async {
            let result = match self.world.fate.strikes(|weather| weather.throttled) {
                true => Err(LaunchError::Throttled("Rate exceeded".into())),
                false => super::script::run_task(&self.world, input).await,
            };
            self.tell(|| match &result {
                Ok(task) => format!("RunTask {}: {}", input.client_token, task.task_arn),
                Err(error) => format!("RunTask {}: {error}", input.client_token),
            });
            result
        };
        self.call(|| format!("RunTask {}", input.client_token), act)
            .await
    }

    async fn stop_task(&self, task_arn: &TaskArn, reason: &str) -> Result<(), PortError> {
        let act = async {
            let result = self.world.tasks.stop_task(task_arn, reason).await;
            self.tell(|| format!("StopTask {task_arn} ({reason})"));
            self.world.news.tell();
            result
        };
        self.call(|| format!("StopTask {task_arn}"), act).await
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        self.read("DescribeTasks", self.world.tasks.describe_tasks(task_arns))
            .await
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        let act = async {
            let result = self.world.tasks.list_tasks(started_by).await;
            self.tell(|| format!("ListTasks {started_by}: {result:?}"));
            result
        };
        self.call(|| format!("ListTasks {started_by}"), act).await
    }
}

impl AccountQuotas for Wire {
    async fn cpu(&self, pool: CapacityPool) -> Result<Option<u32>, PortError> {
        self.read("a quota", self.world.tasks.cpu(pool)).await
    }
}

impl Logs for Wire {
    async fn read(&self, stream: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        let act = async { Ok(self.world.logs.read(stream, cursor, self.world.time.now())) };
        Ok(Wire::read(self, "read a log", act).await?)
    }

    async fn last(&self, stream: &str) -> Result<Vec<LogLine>, ReadError> {
        let act = async {
            Ok(self
                .world
                .logs
                .read(stream, None, self.world.time.now())
                .lines)
        };
        Ok(Wire::read(self, "read the end of a log", act).await?)
    }
}
