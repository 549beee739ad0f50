//! Cancelled groups: keeping members that a cancel mark covers from starting, and closing the
//! members page by page.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    execution::Execution,
    group::{Closed, GroupCancel, GroupWork},
    history::{Cursor, Filter, Loaded},
    id::ExecutionId,
    message::{Message, Outgoing},
    ports::{
        Clock, Definitions, Entropy, LaunchStore, Logs, PortError, Queue, Secrets, Tasks, Update,
        UpdateError, WriteStore,
    },
    request::Name,
    transition::CancelDecision,
};
use futures_util::future::try_join_all;

use super::{Launched, Launcher};
use crate::{
    advance::{self, Changed, WorkOnGroup, advance_from, change, change_from, delayed},
    log,
    unreadable::passed_over,
};

/// How long the messages of one batch are worked on together. It is well below the function's 60 s,
/// so that the next batch gets its turn.
pub(super) const WORK: TimeDelta = TimeDelta::seconds(30);
/// How often fresh marks are asked for. A store that was too slow this often will not be faster at
/// the next try.
const TRIES: usize = 5;
/// How old a mark may be when a member is started next. It is half of the second after which no
/// member starts (DESIGN §7 names no number; the manual promises one second).
const FRESH: TimeDelta = TimeDelta::milliseconds(500);
/// How many members are looked at before the mark is written again. A page then costs at most as
/// much as a page of history.
pub(super) const PAGE: u32 = 100;
/// How many members are closed at once: as many as are launched at once.
pub(super) const TOGETHER: usize = 20;

/// The cancel marks of the groups of some executions.
type Marks = BTreeMap<Name, GroupCancel>;

/// Executions that must not start, with the marks that say so.
pub(super) struct Marked {
    marks: Marks,
    executions: Vec<Execution>,
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Returns the marks as they are now. Each group is read once, however many executions it has,
    /// and all reads run at the same time.
    async fn marks<'e>(
        &self,
        executions: impl Iterator<Item = &'e Execution>,
    ) -> Result<Marks, PortError> {
        let groups: BTreeSet<_> = executions
            .filter_map(|execution| execution.request.group.as_ref())
            .collect();
        let reads = groups
            .into_iter()
            .map(async |group| passed_over(self.store.group_work::<GroupCancel>(group).await));
        let marks = try_join_all(reads).await?;
        Ok(marks
            .into_iter()
            .flatten()
            .map(|mark| (mark.progress.group.clone(), mark))
            .collect())
    }

    /// Returns marks that were all read recently enough to start something next. A store that is
    /// slow is asked again.
    async fn fresh_marks<'e>(
        &self,
        executions: impl Iterator<Item = &'e Execution> + Clone,
    ) -> Result<Marks, PortError> {
        for _ in 0..TRIES {
            let asked_at = self.system.now();
            let marks = self.marks(executions.clone()).await?;
            if self.system.now() - asked_at <= FRESH {
                return Ok(marks);
            }
        }
        Err(PortError::unavailable(
            "the store",
            format!("reading the groups took longer than {FRESH}, {TRIES} times in a row"),
        ))
    }

    /// Closes those of `waiting` that a mark covers, before anything is written for their start.
    /// Returns whether there were any.
    pub(super) async fn close_marked(&self, waiting: &[Execution]) -> Result<bool, PortError> {
        let marks = self.marks(waiting.iter()).await?;
        let marked: Vec<_> = waiting
            .iter()
            .filter(|execution| mark_on(&marks, execution).is_some())
            .cloned()
            .collect();
        for entry in marked.iter().filter_map(Execution::backlog_entry) {
            self.heads.forget(&entry.backlog, &entry.id);
        }
        self.cancel_marked(&marks, &marked).await?;
        Ok(!marked.is_empty())
    }

    /// Splits the recorded launches into those that may go on and those that a mark covers. Such a
    /// mark may have been set after the backlog was looked at. The launches that may go on must go
    /// on at once, because a mark that is set later has no effect on them here.
    pub(super) async fn by_their_marks(
        &self,
        launched: Vec<Launched>,
    ) -> Result<(Vec<Launched>, Marked), PortError> {
        let marks = self
            .fresh_marks(launched.iter().map(|launched| &launched.execution))
            .await?;
        let (marked, go_on): (Vec<_>, Vec<_>) = launched
            .into_iter()
            .partition(|one| mark_on(&marks, &one.execution).is_some());
        let marked = marked.into_iter().map(|one| one.execution).collect();
        Ok((
            go_on,
            Marked {
                marks,
                executions: marked,
            },
        ))
    }

    /// Cancels those executions. We know of no task of theirs yet; a check by the control queue
    /// finds out.
    pub(super) async fn cancel_by_mark(&self, marked: &Marked) -> Result<(), PortError> {
        self.cancel_marked(&marked.marks, &marked.executions).await
    }

    /// Returns the execution, cancelled if a mark covers it and nobody has cancelled it yet.
    pub(super) async fn heeding_its_mark(
        &self,
        execution: &Execution,
    ) -> Result<Option<Execution>, PortError> {
        let marks = self
            .fresh_marks(
                Some(execution)
                    .filter(|execution| execution.cancel.is_none())
                    .into_iter(),
            )
            .await?;
        let Some(mark) = mark_on(&marks, execution) else {
            return Ok(Some(execution.clone()));
        };
        let (after, closed) = self.cancel_one(mark, &execution.id).await?;
        self.note_closed_beside(mark, closed).await?;
        Ok(after)
    }

    /// Cancels each execution and adds it to the counts of its mark.
    async fn cancel_marked(
        &self,
        marks: &Marks,
        executions: &[Execution],
    ) -> Result<(), PortError> {
        let mut closed: BTreeMap<&Name, Closed> = BTreeMap::new();
        let mut checks: Vec<Outgoing> = Vec::new();
        for execution in executions {
            let Some(mark) = mark_on(marks, execution) else {
                continue;
            };
            let (after, one) = self.cancel_one(mark, &execution.id).await?;
            closed.entry(&mark.progress.group).or_default().add(one);
            let open = after.filter(|after| after.end().is_none());
            checks.extend(open.map(|after| Message::Check { id: after.id }.into()));
        }
        if !checks.is_empty() {
            self.queue.send(checks).await?;
        }
        for (group, closed) in closed {
            if let Some(mark) = marks.get(group) {
                self.note_closed_beside(mark, closed).await?;
            }
        }
        Ok(())
    }

    /// Cancels one execution. Returns the record afterwards, and what was changed by this call and
    /// not by somebody else.
    async fn cancel_one(
        &self,
        mark: &GroupCancel,
        id: &ExecutionId,
    ) -> Result<(Option<Execution>, Closed), PortError> {
        let (now, mut closed) = (self.system.now(), Closed::default());
        let Some(before) = self.store.load(id).await? else {
            return Ok((None, closed));
        };
        let cancelled = |execution: &Execution| cancelled_by(mark, execution, now);
        let changed = advance_from(self.store, self.queue, now, before, cancelled).await?;
        if let Changed::Yes { after, .. } = &changed {
            closed.count(after);
        }
        Ok((changed.now(), closed))
    }

    /// Closes the members of a cancelled group, from where the last launcher stopped, until all are
    /// closed or the time is up. Several launchers may do this at once.
    pub(super) async fn close_group(
        &self,
        group: &Name,
        until: Timestamp,
    ) -> Result<(), PortError> {
        loop {
            if self.system.now() >= until {
                return self
                    .queue
                    .send(vec![
                        Message::CancelGroup {
                            group: group.clone(),
                        }
                        .into(),
                    ])
                    .await;
            }
            let Some(mark) = passed_over(self.store.group_work::<GroupCancel>(group).await)?
                .filter(|mark| !mark.progress.done)
            else {
                return Ok(());
            };
            if let Some(pause) = mark.next_look(self.system.now()) {
                return self
                    .queue
                    .send(vec![delayed(mark.message(), pause.num_milliseconds())])
                    .await;
            }
            let members = Filter {
                group: Some(group.clone()),
                ..Filter::default()
            };
            let page = self
                .store
                .list(&members, mark.progress.next().as_ref(), PAGE)
                .await?;
            let closed = self.close(&mark, page.items).await?;
            self.note_closed(&mark, closed, page.next.as_ref()).await?;
        }
    }

    /// Records the progress of a mark. If somebody else handled that page or set a newer mark, only
    /// the counts of this call are added to theirs.
    async fn note_closed(
        &self,
        mark: &GroupCancel,
        closed: Closed,
        next: Option<&Cursor>,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let decide = |there: Option<&GroupCancel>| {
            let there = there?;
            Some(if there.is_at_the_page_of(mark) {
                there.after(closed, next, now)
            } else {
                there.counting(closed)
            })
        };
        let work = WorkOnGroup::new(self.store, &mark.progress.group);
        passed_over(change_from(&work, Some(mark.clone()), decide).await).map(drop)
    }

    /// Adds the counts of this call to the mark, while others advance it.
    async fn note_closed_beside(
        &self,
        mark: &GroupCancel,
        closed: Closed,
    ) -> Result<(), PortError> {
        if closed == Closed::default() {
            return Ok(());
        }
        let decide = |there: Option<&GroupCancel>| Some(there?.counting(closed));
        let work = WorkOnGroup::new(self.store, &mark.progress.group);
        passed_over(change(&work, decide).await).map(drop)
    }

    async fn close(&self, mark: &GroupCancel, members: Vec<Loaded>) -> Result<Closed, PortError> {
        let (mut closed, mut updates) = (Closed::default(), Vec::new());
        let now = self.system.now();
        for member in members {
            match member {
                Err(corrupt) => {
                    corrupt.note();
                    closed.passed_over += 1;
                }
                Ok(before) if mark.covers(&before) => match before.cancelled_as(mark.cancel(), now)
                {
                    CancelDecision::Changed(after) => {
                        updates.push(Update {
                            before,
                            after: *after,
                            admissions: Vec::new(),
                        });
                    }
                    CancelDecision::NotKnown(_) => closed.passed_over += 1,
                    CancelDecision::Final(_) | CancelDecision::Asked => {}
                },
                Ok(_) => {}
            }
        }
        let mut checks: Vec<Outgoing> = Vec::new();
        while !updates.is_empty() {
            let rest = updates.split_off(updates.len().min(TOGETHER));
            for after in self
                .write_closed(mark, std::mem::replace(&mut updates, rest))
                .await?
            {
                closed.count(&after);
                if after.end().is_none() {
                    checks.push(Message::Check { id: after.id }.into());
                }
            }
        }
        if !checks.is_empty() {
            self.queue.send(checks).await?;
        }
        Ok(closed)
    }

    /// Writes the closed members and returns them, without those that ended by themselves in the
    /// meantime or that somebody else closed.
    async fn write_closed(
        &self,
        mark: &GroupCancel,
        updates: Vec<Update>,
    ) -> Result<Vec<Execution>, PortError> {
        let now = self.system.now();
        let befores: Vec<_> = updates.iter().map(|update| update.before.clone()).collect();
        let mut written = Vec::new();
        for (before, result) in befores
            .into_iter()
            .zip(self.store.update_all(updates).await)
        {
            match result {
                Ok(after) => {
                    log::status_changed(&before.status(), &after);
                    advance::wake(self.store, self.queue, now, &before, &after).await?;
                    written.push(after);
                }
                Err(UpdateError::Failed(error)) => return Err(error),
                // Somebody else changed the record, so the cancel is decided again.
                Err(UpdateError::Conflict | UpdateError::Full(_)) => {
                    let (after, closed) = self.cancel_one(mark, &before.id).await?;
                    written.extend(after.filter(|_| closed != Closed::default()));
                }
            }
        }
        Ok(written)
    }
}

fn mark_on<'m>(marks: &'m Marks, execution: &Execution) -> Option<&'m GroupCancel> {
    marks
        .get(execution.request.group.as_ref()?)
        .filter(|mark| mark.covers(execution))
}

fn cancelled_by(mark: &GroupCancel, execution: &Execution, now: Timestamp) -> Option<Execution> {
    match execution.cancelled_as(mark.cancel(), now) {
        CancelDecision::Changed(after) if mark.covers(execution) => Some(*after),
        _ => None,
    }
}
