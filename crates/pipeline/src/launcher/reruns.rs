//! Running the failed members of a group again, page by page.

use std::collections::BTreeSet;

use domain::{
    Timestamp,
    execution::Execution,
    group::{
        GroupCancel, GroupRerun, GroupWork,
        rerun::{Rejection, RerunPage},
    },
    history::{Cursor, Filter, Loaded},
    id::ExecutionId,
    key::Caller,
    message::Message,
    ports::{
        Clock, Created, Definitions, Entropy, LaunchStore, Logs, PortError, Queue, Secrets, Tasks,
        WriteStore,
    },
    request::{FieldError, LaunchRequest, Name},
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    Launcher,
    groups::{PAGE, TOGETHER},
};
use crate::{
    advance::{WorkOnGroup, change_from},
    intake::{Intake, backlog_of},
    unreadable::passed_over,
};

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Runs the failed members again, from where the last launcher stopped, until all were looked
    /// at or the time is up. Several launchers may do this at once: each member has one idempotency
    /// key, under which its rerun is recorded once.
    pub(super) async fn rerun_group(
        &self,
        group: &Name,
        until: Timestamp,
    ) -> Result<(), PortError> {
        loop {
            let Some(rerun) = passed_over(self.store.group_work::<GroupRerun>(group).await)?
                .filter(|work| !work.progress.done)
            else {
                return Ok(());
            };
            if self.system.now() >= until {
                return self.queue.send(vec![rerun.message().into()]).await;
            }
            let mark = passed_over(self.store.group_work::<GroupCancel>(group).await)?;
            // The reruns count as submitted at that moment, so none of them would start.
            if mark.is_some_and(|mark| mark.progress.at >= rerun.progress.at) {
                self.store
                    .set_group_work(&rerun.given_up(self.system.now()))
                    .await?;
                continue;
            }
            let members = Filter {
                group: Some(rerun.of.clone()),
                ..Filter::default()
            };
            let page = self
                .store
                .list(&members, rerun.progress.next().as_ref(), PAGE)
                .await?;
            let came_to = self.run_again(&rerun, page.items).await?;
            self.note_rerun(&rerun, came_to, page.next.as_ref()).await?;
        }
    }

    async fn run_again(
        &self,
        rerun: &GroupRerun,
        members: Vec<Loaded>,
    ) -> Result<RerunPage, PortError> {
        let (mut page, mut failed) = (RerunPage::default(), Vec::new());
        for member in members {
            match member {
                Ok(member) if rerun.covers(&member) => failed.push(member),
                Ok(_) => {}
                Err(corrupt) => {
                    corrupt.note();
                    page.counts.passed_over += 1;
                }
            }
        }
        let caller = rerun.caller();
        let (requests, rejections) = self.checked(&caller, rerun, failed).await?;
        page.rejections = rejections;
        let record = async |(member, request): (ExecutionId, LaunchRequest)| {
            self.record_rerun(&caller, rerun, request)
                .await
                .map(|recorded| (member, recorded))
        };
        let recorded: Vec<_> = stream::iter(requests.into_iter().map(record))
            .buffered(TOGETHER)
            .try_collect()
            .await?;
        let mut backlogs = BTreeSet::new();
        for (member, (created, execution)) in recorded {
            match created {
                Created::New => page.counts.accepted += 1,
                Created::Existing(_) => page.counts.existing += 1,
                Created::Mismatch(_) => page.rejections.push(Rejection {
                    execution_id: member,
                    errors: vec![other()],
                }),
            }
            // Existing reruns need a wakeup too: whoever recorded them may have died before sending
            // it.
            backlogs.insert(backlog_of(&execution));
        }
        page.counts.rejected = u32::try_from(page.rejections.len()).unwrap_or(u32::MAX);
        let wakeups: Vec<_> = backlogs
            .into_iter()
            .map(|backlog| Message::Wakeup { backlog, id: None }.into())
            .collect();
        if !wakeups.is_empty() {
            self.queue.send(wakeups).await?;
        }
        Ok(page)
    }

    /// Returns the requests that can be run, and the rejected members with all their faults.
    async fn checked(
        &self,
        caller: &Caller,
        rerun: &GroupRerun,
        failed: Vec<Execution>,
    ) -> Result<(Vec<(ExecutionId, LaunchRequest)>, Vec<Rejection>), PortError> {
        let intake = self.intake();
        let drafts: Vec<_> = failed
            .into_iter()
            .map(|member| (intake.draft(rerun.request(&member)), member.id))
            .collect();
        let known = intake
            .known(drafts.iter().filter_map(|(draft, _)| draft.as_ref().ok()))
            .await?;
        let (mut requests, mut rejections) = (Vec::new(), Vec::new());
        for (draft, execution_id) in drafts {
            match draft.and_then(|draft| intake.judged(caller, draft, &known)) {
                Ok(request) => requests.push((execution_id, request)),
                Err(errors) => rejections.push(Rejection {
                    execution_id,
                    errors,
                }),
            }
        }
        Ok((requests, rejections))
    }

    async fn record_rerun(
        &self,
        caller: &Caller,
        rerun: &GroupRerun,
        request: LaunchRequest,
    ) -> Result<(Created, Execution), PortError> {
        let intake = self.intake();
        let claim = request
            .idempotency_key
            .as_ref()
            .map(|key| intake.claim(caller, key.as_str(), &request));
        intake
            .record(caller, request, claim.as_ref(), rerun.progress.at)
            .await
    }

    fn intake(&self) -> Intake<'_, S, X, A> {
        let Self {
            store,
            secrets,
            system,
            settings,
            ..
        } = self;
        Intake {
            store,
            secrets,
            system,
            settings,
        }
    }

    /// Records the progress of a rerun. If somebody else handled that page, only the counts of this
    /// call are added to theirs.
    async fn note_rerun(
        &self,
        rerun: &GroupRerun,
        page: RerunPage,
        next: Option<&Cursor>,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let decide = |there: Option<&GroupRerun>| {
            // A rerun of another submission has nothing to do with this page.
            let there = there.filter(|there| there.is_of_the_submission_of(rerun))?;
            Some(if there.is_at_the_page_of(rerun) {
                there.after(page.clone(), next, now)
            } else {
                there.recorded_beside(page.counts.accepted)
            })
        };
        let work = WorkOnGroup::new(self.store, &rerun.progress.group);
        passed_over(change_from(&work, Some(rerun.clone()), decide).await).map(drop)
    }
}

fn other() -> FieldError {
    let message = "was used within 24 hours with other changes of this run; use a new one";
    FieldError {
        field: "submission_id".into(),
        message: message.into(),
    }
}
