//! Groups that were cancelled: who is not to start by their mark, and closing the members page by page.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use domain::{
    execution::Execution,
    group::{Closed, GroupCancel},
    history::{Cursor, Filter, Loaded},
    message::{Message, Outgoing},
    ports::{Clock, Definitions, Entropy, Logs, PortError, Queue, Secrets, Store, Tasks, Update, UpdateError},
    request::Name,
    transition::CancelDecision,
};

use super::{Launcher, drain::Launched};
use crate::{
    advance::{self, advance, delayed},
    unreadable::passed_over,
};

/// How long one message is worked on, well below the function's 60 s: then the next message goes on.
const WORK: TimeDelta = TimeDelta::seconds(40);
/// How old a mark may be where a member is started next. Ours: half of the second after which nobody starts (DESIGN §7 knows no number; the
/// manual promises one second).
const FRESH: TimeDelta = TimeDelta::milliseconds(500);
/// Members looked at before the mark is written again. Ours: what a page of history costs at most.
const PAGE: u32 = 100;
/// Members closed at once. Ours: as many as are launched at once.
const TOGETHER: usize = 20;

/// The marks of the groups that some executions are of.
type Marks = BTreeMap<Name, GroupCancel>;

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: Store + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// The marks as they are now: one read for each group, however many are of it.
    async fn marks<'e>(&self, executions: impl Iterator<Item = &'e Execution>) -> Result<Marks, PortError> {
        let groups: BTreeSet<_> = executions.filter_map(|execution| execution.request.group.as_ref()).collect();
        let mut marks = Marks::new();
        for group in groups {
            if let Some(mark) = passed_over(self.store.group_cancel(group).await)? {
                marks.insert(group.clone(), mark);
            }
        }
        Ok(marks)
    }

    /// The same, of which none was read longer ago than is allowed where something is started next. A store that is slow is asked once more.
    async fn fresh_marks<'e>(
        &self,
        executions: impl Iterator<Item = &'e Execution> + Clone,
    ) -> Result<Marks, PortError> {
        loop {
            let asked_at = self.ambient.now();
            let marks = self.marks(executions.clone()).await?;
            if self.ambient.now() - asked_at <= FRESH {
                return Ok(marks);
            }
        }
    }

    /// Closes those of a line's first that a mark covers, before anything is written for their start; says whether there were any.
    pub(super) async fn close_marked(&self, standing: &[Execution]) -> Result<bool, PortError> {
        let marks = self.marks(standing.iter()).await?;
        let mut closed = false;
        for execution in standing {
            if let Some(mark) = mark_on(&marks, execution) {
                self.cancel_marked(execution, mark).await?;
                closed = true;
            }
        }
        Ok(closed)
    }

    /// Those of the launches on record that may go on. A mark may have come since the line was looked at; what it covers has no task yet that
    /// we know of, so it is cancelled, and the control queue finds out.
    pub(super) async fn without_marked(&self, launched: Vec<Launched>) -> Result<Vec<Launched>, PortError> {
        let marks = self.fresh_marks(launched.iter().map(|launched| &launched.execution)).await?;
        let mut go_on = Vec::with_capacity(launched.len());
        for one in launched {
            match mark_on(&marks, &one.execution) {
                Some(mark) => self.cancel_marked(&one.execution, mark).await?,
                None => go_on.push(one),
            }
        }
        Ok(go_on)
    }

    /// The execution, cancelled if a mark covers it and nobody has done so yet.
    pub(super) async fn heeding_its_mark(&self, execution: &Execution) -> Result<Option<Execution>, PortError> {
        let marks =
            self.fresh_marks(Some(execution).filter(|execution| execution.cancel.is_none()).into_iter()).await?;
        match mark_on(&marks, execution) {
            Some(mark) => {
                let now = self.ambient.now();
                let cancelled = |execution: &Execution| cancelled_by(mark, execution, now);
                advance(self.store, self.queue, now, &execution.id, cancelled).await
            }
            None => Ok(Some(execution.clone())),
        }
    }

    async fn cancel_marked(&self, execution: &Execution, mark: &GroupCancel) -> Result<(), PortError> {
        let now = self.ambient.now();
        let cancelled = |execution: &Execution| cancelled_by(mark, execution, now);
        let after = advance(self.store, self.queue, now, &execution.id, cancelled).await?;
        match after.filter(|after| after.end().is_none()) {
            Some(after) => self.queue.send(vec![Message::Check { id: after.id }.into()]).await,
            None => Ok(()),
        }
    }

    /// Closes the members of a cancelled group, from where somebody stopped, until all are closed or the time is up. Harmless beside others who
    /// do the same.
    pub(super) async fn close_group(&self, group: &Name) -> Result<(), PortError> {
        let until = self.ambient.now() + WORK;
        loop {
            let Some(mark) = passed_over(self.store.group_cancel(group).await)?.filter(|mark| !mark.done) else {
                return Ok(());
            };
            if let Some(pause) = mark.next_look(self.ambient.now()) {
                return self.queue.send(vec![delayed(go_on(group), pause.num_milliseconds())]).await;
            }
            let from = mark.cursor.as_deref().and_then(|cursor| Cursor::decode(cursor).ok());
            let members = Filter { group: Some(group.clone()), ..Filter::default() };
            let page = self.store.list(&members, from.as_ref(), PAGE).await?;
            let closed = self.close(&mark, page.items).await?;
            self.note_closed(&mark, closed, page.next.as_ref()).await?;
            if self.ambient.now() >= until {
                return self.queue.send(vec![go_on(group).into()]).await;
            }
        }
    }

    /// Writes down how far a mark is. Where somebody else was faster, only what was closed here is added to theirs.
    async fn note_closed(&self, mark: &GroupCancel, closed: Closed, next: Option<&Cursor>) -> Result<(), PortError> {
        let now = self.ambient.now();
        let mut written = self.store.set_group_cancel(&mark.after(closed, next, now)).await?;
        while !written {
            let Some(theirs) = passed_over(self.store.group_cancel(&mark.group).await)? else { return Ok(()) };
            written = self.store.set_group_cancel(&theirs.counting(closed, now)).await?;
        }
        Ok(())
    }

    async fn close(&self, mark: &GroupCancel, members: Vec<Loaded>) -> Result<Closed, PortError> {
        let (mut closed, mut updates) = (Closed::default(), Vec::new());
        let now = self.ambient.now();
        for member in members {
            match member {
                Err(corrupt) => {
                    corrupt.note();
                    closed.passed_over += 1;
                }
                Ok(before) if mark.covers(&before) => match before.cancelled_as(mark.cancel(), now) {
                    CancelDecision::Changed(after) => {
                        updates.push(Update { before, after: *after, admissions: Vec::new() });
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
            for after in self.write_closed(mark, std::mem::replace(&mut updates, rest)).await? {
                match after.end() {
                    Some(_) => closed.cancelled += 1,
                    None => {
                        closed.stopping += 1;
                        checks.push(Message::Check { id: after.id }.into());
                    }
                }
            }
        }
        if !checks.is_empty() {
            self.queue.send(checks).await?;
        }
        Ok(closed)
    }

    /// The members as written; without those that ended by themselves in the meantime.
    async fn write_closed(&self, mark: &GroupCancel, updates: Vec<Update>) -> Result<Vec<Execution>, PortError> {
        let now = self.ambient.now();
        let befores: Vec<_> = updates.iter().map(|update| update.before.clone()).collect();
        let mut written = Vec::new();
        for (before, result) in befores.into_iter().zip(self.store.update_all(updates).await) {
            match result {
                Ok(after) => {
                    advance::wake(self.store, self.queue, now, &before, &after).await?;
                    written.push(after);
                }
                Err(UpdateError::Failed(error)) => return Err(error),
                // Somebody moved it on: decided anew.
                Err(UpdateError::Conflict | UpdateError::Full(_)) => {
                    let cancelled = |execution: &Execution| cancelled_by(mark, execution, now);
                    let after = advance(self.store, self.queue, now, &before.id, cancelled).await?;
                    written.extend(after.filter(|after| after.cancel == Some(mark.cancel())));
                }
            }
        }
        Ok(written)
    }
}

fn mark_on<'m>(marks: &'m Marks, execution: &Execution) -> Option<&'m GroupCancel> {
    marks.get(execution.request.group.as_ref()?).filter(|mark| mark.covers(execution))
}

fn cancelled_by(mark: &GroupCancel, execution: &Execution, now: domain::Timestamp) -> Option<Execution> {
    match execution.cancelled_as(mark.cancel(), now) {
        CancelDecision::Changed(after) if mark.covers(execution) => Some(*after),
        _ => None,
    }
}

fn go_on(group: &Name) -> Message {
    Message::CancelGroup { group: group.clone() }
}
