//! Requests about a whole group. They are only recorded here; the control queue carries them out.

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use domain::{
    api::{GroupCancelView, GroupRerunRequest, GroupRerunView, GroupView, Problem},
    execution::Execution,
    group::{
        GroupCancel, GroupRerun, GroupWork,
        rerun::{RerunWish, fresh_submission},
    },
    history::Filter,
    key::Caller,
    ports::{Clock, Entropy, Keys, PortError, Queue, Secrets, WriteStore},
    request::{FieldError, IdempotencyKey, Name, NameError},
};

use super::Submit;
use crate::{
    advance::{Changed, WorkOnGroup, change},
    http, lookup,
};

impl<S: WriteStore, K: Keys, Q: Queue, X: Secrets, A: Clock + Entropy> Submit<'_, S, K, Q, X, A> {
    /// Cancels a group by one mark, however many members it has. From a second after the answer on,
    /// no member that was submitted up to the mark starts.
    pub(super) async fn cancel_group(
        &self,
        caller: &Caller,
        group: &str,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        // The group may have no members yet: the first lines of a submission may be on their way.
        let group = name("group", group)?;
        let mark = self
            .mark(caller, &group)
            .await
            .map_err(|e| http::failed(&e))?;
        let view = GroupView {
            group: group.to_string(),
            cancel: Some(GroupCancelView::from(&mark)),
            rerun: None,
        };
        Ok(http::json(202, &view))
    }

    async fn mark(&self, caller: &Caller, group: &Name) -> Result<GroupCancel, PortError> {
        let now = self.system.now();
        let decide = |before: Option<&GroupCancel>| {
            Some(GroupCancel::new(group.clone(), caller, now, before))
        };
        let work = WorkOnGroup::new(self.store, group);
        match change(&work, decide).await?.now() {
            Some(mark) => self.started(mark).await,
            None => Err(PortError::invalid("the store", "a mark was not written")),
        }
    }

    /// Records one rerun, however many members have failed. The members are run again one after the
    /// other.
    pub(super) async fn rerun_group(
        &self,
        caller: &Caller,
        group: &str,
        request: GroupRerunRequest,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let of = name("group", group)?;
        let wish = self.wish(of, request)?;
        let opened = self
            .opened(caller, &wish.submission)
            .await
            .map_err(|e| http::failed(&e))?;
        let rerun = GroupRerun::new(
            wish.clone(),
            caller,
            opened.opened_at,
            self.system.now(),
            None,
        );
        self.check_changes(caller, &rerun).await?;
        let rerun = self.begin(caller, wish, rerun).await?;
        let view = GroupView {
            group: rerun.progress.group.to_string(),
            cancel: None,
            rerun: Some(GroupRerunView::from(rerun)),
        };
        Ok(http::json(202, &view))
    }

    /// Returns the caller's wish, if it is valid by itself.
    fn wish(&self, of: Name, request: GroupRerunRequest) -> Result<RerunWish, Problem> {
        let GroupRerunRequest {
            submission_id,
            changes,
            add_secrets,
        } = request;
        let submission = submission_id
            .unwrap_or_else(|| fresh_submission(self.system.now(), self.system.bits()));
        submission
            .parse::<IdempotencyKey>()
            .map_err(|error| fault("submission_id", error.to_string()))?;
        let into = match &changes.group {
            Some(group) => name("changes.group", group)?,
            None => name("submission_id", &submission)?,
        };
        if changes.idempotency_key.is_some() {
            return Err(fault(
                "changes.idempotency_key",
                "is not allowed here: each run gets its own key, so leave it out".into(),
            ));
        }
        Ok(RerunWish {
            of,
            into,
            submission,
            changes,
            add_secrets,
        })
    }

    /// Refuses changes that are wrong by themselves, before anything is run again. They are checked
    /// on the newest member. Any other fault of a member is reported for that member.
    async fn check_changes(&self, caller: &Caller, rerun: &GroupRerun) -> Result<(), Problem> {
        let members = Filter {
            group: Some(rerun.of.clone()),
            ..Filter::default()
        };
        let newest = self
            .store
            .list(&members, None, 1)
            .await
            .map_err(|e| http::failed(&e))?
            .items;
        if newest.is_empty() {
            return Err(lookup::no_such_group(rerun.of.as_str()));
        }
        let Some(member) = newest.into_iter().find_map(Result::ok) else {
            return Ok(());
        };
        let faults = self
            .faults_of_changes(caller, rerun, &member)
            .await
            .map_err(|e| http::failed(&e))?;
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(faults))
        }
    }

    async fn faults_of_changes(
        &self,
        caller: &Caller,
        rerun: &GroupRerun,
        member: &Execution,
    ) -> Result<Vec<FieldError>, PortError> {
        let request = rerun.request(member);
        let checked = self.intake().validated(caller, request.clone()).await?;
        let faults = checked.err().unwrap_or_default();
        Ok(faults
            .into_iter()
            .filter_map(|fault| rerun.own_fault(&request, fault))
            .collect())
    }

    /// Records the rerun, unless another rerun into the same group is not over.
    async fn begin(
        &self,
        caller: &Caller,
        wish: RerunWish,
        rerun: GroupRerun,
    ) -> Result<GroupRerun, Problem> {
        let failed = |error: PortError| http::failed(&error);
        let now = self.system.now();
        let decide = |before: Option<&GroupRerun>| {
            if before.is_some_and(|before| !before.progress.done) {
                return None;
            }
            let at = rerun.progress.at;
            Some(GroupRerun::new(wish.clone(), caller, at, now, before))
        };
        let work = WorkOnGroup::new(self.store, &rerun.progress.group);
        match change(&work, decide).await.map_err(failed)? {
            Changed::No(Some(other)) if !other.is_for(&wish, caller) => Err(under_way(&other)),
            // The message of the same rerun may have been lost, so it is sent again.
            begun => match begun.now() {
                Some(rerun) => self.started(rerun).await.map_err(failed),
                None => Ok(rerun),
            },
        }
    }

    /// Sends the message that starts recorded work. If the message is lost, the sweep sends another.
    async fn started<W: GroupWork>(&self, work: W) -> Result<W, PortError> {
        self.queue.send(vec![work.message().into()]).await?;
        Ok(work)
    }
}

fn fault(field: &str, message: String) -> Problem {
    Problem::invalid(vec![FieldError {
        field: field.into(),
        message,
    }])
}

fn name(field: &str, text: &str) -> Result<Name, Problem> {
    text.parse()
        .map_err(|error: NameError| fault(field, error.to_string()))
}

fn under_way(other: &GroupRerun) -> Problem {
    let GroupRerun {
        of, by, progress, ..
    } = other;
    let group = &progress.group;
    let title = format!(
        "{by} is still running the failed runs of {of} again as members of {group}: wait until that is over, or choose another group"
    );
    Problem::new(409, "rerun_under_way", title)
}
