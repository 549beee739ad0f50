//! Changes of several records together, each conditional by itself. A pool's counter is written
//! once for all of them: before the records for what is taken, after them for what is given back.

use std::collections::BTreeMap;

use domain::{
    execution::Execution,
    limit::{Admission, LimitKey, fitting},
    ports::{PortError, Update, UpdateError},
};
use futures_util::stream::{self, StreamExt};

use super::{
    DynamoStore,
    limits::{Added, LimitChange},
    table::{AGAIN, pause},
};

/// Records written at the same time: a little more than a launcher's batch, so that one batch goes
/// out at once.
const PARALLEL: usize = 32;

/// The change of one record.
pub(super) struct WriteStep<'a> {
    pub(super) before: &'a Execution,
    /// The record with its new revision.
    pub(super) after: &'a Execution,
    changes: Vec<LimitChange>,
}

/// The result of a step so far.
type WriteOutcome = Result<(), UpdateError>;

impl<'a> WriteStep<'a> {
    pub(super) fn new(
        before: &'a Execution,
        after: &'a Execution,
        admissions: &[Admission],
    ) -> Self {
        Self {
            before,
            after,
            changes: LimitChange::between(Some(before), after, admissions),
        }
    }

    fn of(update: &'a Update, after: &'a Execution) -> Self {
        Self::new(&update.before, after, &update.admissions)
    }

    /// The changes of limits that are counted apart from the records.
    fn apart(&self) -> impl Iterator<Item = &LimitChange> {
        self.changes.iter().filter(|change| change.is_apart())
    }

    /// The changes of limits that are counted in one transaction with the record.
    fn exact(&self) -> impl Iterator<Item = &LimitChange> {
        self.changes.iter().filter(|change| !change.is_apart())
    }

    /// The units that the step takes of a pool.
    fn taken(&self, pool: &LimitKey) -> u32 {
        let taken: i64 = self
            .apart()
            .filter(|change| change.key == *pool)
            .map(|change| change.by.max(0))
            .sum();
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Whether the step opens an attempt.
    fn opens(&self) -> bool {
        self.before.open_attempt().is_none() && self.after.open_attempt().is_some()
    }
}

/// The pools that are to be taken from, each with the smallest maximum that any of the steps
/// allows.
fn wanted(steps: &[WriteStep<'_>]) -> Vec<(LimitKey, Option<u32>)> {
    let mut pools: BTreeMap<LimitKey, Option<u32>> = BTreeMap::new();
    for change in steps
        .iter()
        .flat_map(WriteStep::apart)
        .filter(|change| change.by > 0)
    {
        let max = pools.entry(change.key.clone()).or_insert(change.max);
        *max = [*max, change.max].into_iter().flatten().min();
    }
    pools.into_iter().collect()
}

impl DynamoStore {
    pub(super) async fn update_all(
        &self,
        updates: Vec<Update>,
    ) -> Vec<Result<Execution, UpdateError>> {
        let next = |update: &Update| Execution {
            revision: update.before.revision + 1,
            ..update.after.clone()
        };
        let written: Vec<_> = updates.iter().map(next).collect();
        let step = |(update, after)| WriteStep::of(update, after);
        let steps: Vec<_> = updates.iter().zip(&written).map(step).collect();
        let outcomes = self.replace_all(&steps).await;
        outcomes
            .into_iter()
            .zip(written)
            .map(|(outcome, written)| outcome.map(|()| written))
            .collect()
    }

    /// Makes these changes. If there is not room for all, the first ones go.
    pub(super) async fn replace_all(&self, steps: &[WriteStep<'_>]) -> Vec<WriteOutcome> {
        let mut outcomes: Vec<WriteOutcome> = steps.iter().map(|_| Ok(())).collect();
        for (pool, max) in wanted(steps) {
            self.take_from(&pool, max, steps, &mut outcomes).await;
        }
        let admitted: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        let opening = steps
            .iter()
            .zip(&outcomes)
            .filter(|(step, outcome)| step.opens() && outcome.is_ok());
        let launched: Vec<_> = opening
            .map(|(step, _)| {
                let entry = step.before.backlog_entry();
                (step.after.id.clone(), entry.map(|entry| entry.backlog))
            })
            .collect();
        let announced = self.record_launch_batch(&launched).await;
        match &announced {
            Ok(()) => self.write_all(steps, &mut outcomes).await,
            Err(error) => fail(&mut outcomes, error),
        }
        self.give_back(steps, &admitted, &outcomes, announced.is_ok())
            .await;
        self.charge_all(steps, &outcomes).await;
        outcomes
    }

    /// Takes from a pool what the steps want of it, or what the first of them want.
    async fn take_from(
        &self,
        pool: &LimitKey,
        max: Option<u32>,
        steps: &[WriteStep<'_>],
        outcomes: &mut [WriteOutcome],
    ) {
        let wanting: Vec<_> = (0..steps.len())
            .filter(|at| outcomes[*at].is_ok() && steps[*at].taken(pool) > 0)
            .collect();
        let amounts: Vec<_> = wanting.iter().map(|at| steps[*at].taken(pool)).collect();
        match self.take_most(pool, max, &amounts).await {
            Ok(taken) => {
                for at in &wanting[taken..] {
                    outcomes[*at] = Err(self.refusal(steps[*at].before, pool).await);
                }
            }
            Err(error) => wanting
                .iter()
                .for_each(|at| outcomes[*at] = Err(error.clone().into())),
        }
    }

    /// How many of these amounts could be taken together, from the first one on.
    async fn take_most(
        &self,
        pool: &LimitKey,
        max: Option<u32>,
        amounts: &[u32],
    ) -> Result<usize, PortError> {
        let fit = |used: u32| fitting(amounts.iter().copied(), used, max);
        let mut count = fit(0);
        for round in 0..AGAIN {
            if count == 0 {
                return Ok(0);
            }
            let change = LimitChange {
                key: pool.clone(),
                by: amounts[..count].iter().copied().map(i64::from).sum(),
                max,
            };
            match self.add(&change).await? {
                Added::Yes => return Ok(count),
                // Others may have given back units meanwhile. What did not fit is still not asked
                // for again.
                Added::Full(used) => count = fit(used).min(count),
            }
            if round > 0 {
                pause(round).await;
            }
        }
        Ok(0)
    }

    /// Why a step was refused. A conflict on the record is reported before a full limit.
    async fn refusal(&self, before: &Execution, pool: &LimitKey) -> UpdateError {
        match self.is_current(before).await {
            Ok(true) => UpdateError::Full(pool.clone()),
            Ok(false) => UpdateError::Conflict,
            Err(error) => error.into(),
        }
    }

    /// Writes the records. Steps that share the counter of a lock or a group would only conflict,
    /// so those with such a counter are written one after the other.
    async fn write_all(&self, steps: &[WriteStep<'_>], outcomes: &mut [WriteOutcome]) {
        let ready = (0..steps.len()).filter(|at| outcomes[*at].is_ok());
        let (exact, apart): (Vec<_>, Vec<_>) =
            ready.partition(|at| steps[*at].exact().next().is_some());
        let writes = |places: Vec<usize>| -> Vec<_> {
            places
                .into_iter()
                .map(|at| self.write_step(at, &steps[at]))
                .collect()
        };
        let exact = stream::iter(writes(exact)).buffered(1).collect::<Vec<_>>();
        let apart = stream::iter(writes(apart))
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>();
        let (exact, apart) = futures_util::future::join(exact, apart).await;
        for (at, outcome) in exact.into_iter().chain(apart) {
            outcomes[at] = outcome;
        }
    }

    async fn write_step(&self, at: usize, step: &WriteStep<'_>) -> (usize, WriteOutcome) {
        let exact: Vec<_> = step.exact().cloned().collect();
        (at, self.replace(step.before, step.after, &exact).await)
    }

    /// Gives back what closed attempts held, and what was taken for a record that surely was not
    /// written. If a write got no answer, nothing is given back for it until the sweep finds out.
    async fn give_back(
        &self,
        steps: &[WriteStep<'_>],
        admitted: &[bool],
        outcomes: &[WriteOutcome],
        tried: bool,
    ) {
        let mut back: BTreeMap<&LimitKey, i64> = BTreeMap::new();
        let settled = steps
            .iter()
            .zip(outcomes)
            .zip(admitted)
            .filter(|(_, admitted)| **admitted);
        for (change, outcome) in
            settled.flat_map(|((step, outcome), _)| step.apart().map(move |c| (c, outcome)))
        {
            *back.entry(&change.key).or_default() += match outcome {
                Ok(()) => change.by.min(0),
                Err(UpdateError::Failed(_)) if tried => 0,
                Err(_) => -change.by.max(0),
            };
        }
        for (pool, by) in back.into_iter().filter(|(_, by)| *by < 0) {
            if let Err(error) = self
                .add(&LimitChange {
                    key: pool.clone(),
                    by,
                    max: None,
                })
                .await
            {
                tracing::warn!(limit_key = %pool, correction = by, %error, "what is free again could not be counted; the sweep will");
            }
        }
    }

    /// Charges the starts to their submitters. The starts are recorded already, as the caller
    /// asked, so a failed charge is only logged.
    async fn charge_all(&self, steps: &[WriteStep<'_>], outcomes: &[WriteOutcome]) {
        let mut starts: BTreeMap<(LimitKey, String), u64> = BTreeMap::new();
        for (step, _) in steps
            .iter()
            .zip(outcomes)
            .filter(|(step, outcome)| step.opens() && outcome.is_ok())
        {
            for backlog in step.after.started_from() {
                *starts.entry((backlog, step.after.submitter())).or_default() += 1;
            }
        }
        for ((backlog, submitter), count) in starts {
            if let Err(error) = self.charge(&backlog, &submitter, count).await {
                tracing::warn!(%backlog, submitter, %error, "starts could not be charged to their submitter");
            }
        }
    }
}

fn fail(outcomes: &mut [WriteOutcome], error: &PortError) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
        *outcome = Err(error.clone().into());
    }
}
