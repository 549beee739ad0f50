//! Many executions in one request: some lines of a submission.
//!
//! Only the execution itself is kept for each line. Its id follows from the time when the
//! submission was opened and the line's index. So a submission that broke half-way and is sent
//! again records exactly the rest.

use std::collections::BTreeSet;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use domain::{
    api::{BULK_MAX, BulkAnswer, BulkEntry, BulkRejection, BulkRequest, Problem},
    execution::Execution,
    group::GroupCancel,
    id::{ExecutionId, LINES_MAX, Submission},
    key::Caller,
    message::Message,
    ports::{Clock, Created, Entropy, Keys, PortError, Queue, Secrets, WriteStore},
    request::{FieldError, IdempotencyKey, LaunchRequest},
    task,
    transition::CancelDecision,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Submit, audit::AuditFacts};
use crate::{http, intake::backlog_of, unreadable::passed_over};

/// How many records are read at once, to compare them with what is sent again. The reads of a
/// request's 500 lines overlap, but do not all run at the same time.
const READS: usize = 32;

/// A line that can be run.
struct SubmissionLine {
    index: u32,
    request: LaunchRequest,
}

impl<S: WriteStore, K: Keys, Q: Queue, X: Secrets, A: Clock + Entropy> Submit<'_, S, K, Q, X, A> {
    pub(super) async fn bulk(
        &self,
        caller: &Caller,
        bulk: BulkRequest,
        facts: &mut AuditFacts,
    ) -> Result<ApiGatewayProxyResponse, Problem> {
        let id = checked(&bulk).map_err(|fault| Problem::invalid(vec![fault]))?;
        facts.target = Some(id.to_string());
        let mut answer = BulkAnswer::default();
        let taken = self.take(caller, &id, bulk, &mut answer).await;
        // Some lines may be recorded even if the rest failed.
        facts.counted(&answer);
        taken.map_err(|error| http::failed(&error))?;
        Ok(http::json(202, &answer))
    }

    async fn take(
        &self,
        caller: &Caller,
        id: &IdempotencyKey,
        bulk: BulkRequest,
        answer: &mut BulkAnswer,
    ) -> Result<(), PortError> {
        let (lines, rejected) = self.sorted(caller, bulk).await?;
        answer.rejected = rejected;
        if !lines.is_empty() {
            let submission = self.opened(caller, id.as_str()).await?;
            let executions = lines
                .into_iter()
                .filter_map(|line| self.execution(caller, &submission, line))
                .collect();
            let executions = self.heeding_marks(executions).await?;
            self.record_all(executions, answer).await?;
        }
        answer.rejected.sort_by_key(|rejection| rejection.index);
        Ok(())
    }

    /// Returns the lines that can be run, and the others with all their faults.
    async fn sorted(
        &self,
        caller: &Caller,
        bulk: BulkRequest,
    ) -> Result<(Vec<SubmissionLine>, Vec<BulkRejection>), PortError> {
        let drafts: Vec<_> = bulk
            .executions
            .into_iter()
            .map(|request| {
                let misplaced = BulkRequest::line_fault(&request);
                let draft = self.intake().draft(request);
                match misplaced {
                    Some(fault) => Err(std::iter::once(fault)
                        .chain(draft.err().into_iter().flatten())
                        .collect()),
                    None => draft,
                }
            })
            .collect();
        let known = self.intake().known(drafts.iter().flatten()).await?;
        let (mut lines, mut rejected) = (Vec::new(), Vec::new());
        for (index, draft) in (bulk.first_index..).zip(drafts) {
            match draft.and_then(|draft| self.intake().judged(caller, draft, &known)) {
                Ok(request) => lines.push(SubmissionLine { index, request }),
                Err(errors) => rejected.push(BulkRejection { index, errors }),
            }
        }
        Ok((lines, rejected))
    }

    fn execution(
        &self,
        caller: &Caller,
        submission: &Submission,
        line: SubmissionLine,
    ) -> Option<(u32, Execution)> {
        let pool = task::pool(&line.request, self.settings);
        let (id, at) = (submission.execution(line.index)?, submission.opened_at);
        Some((
            line.index,
            Execution::submitted(id, line.request, pool, caller, at),
        ))
    }

    /// Records the lines as cancelled if their group was cancelled since the submission began.
    /// Their sender sees the status, and none of them starts.
    async fn heeding_marks(
        &self,
        lines: Vec<(u32, Execution)>,
    ) -> Result<Vec<(u32, Execution)>, PortError> {
        let groups: BTreeSet<_> = lines
            .iter()
            .filter_map(|(_, line)| line.request.group.clone())
            .collect();
        let mut marks = Vec::new();
        for group in groups {
            marks.extend(passed_over(
                self.store.group_work::<GroupCancel>(&group).await,
            )?);
        }
        let now = self.system.now();
        let heeding = |execution: Execution| match marks.iter().find(|mark| mark.covers(&execution))
        {
            Some(mark) => match execution.cancelled_as(mark.cancel(), now) {
                CancelDecision::Changed(cancelled) => *cancelled,
                _ => execution,
            },
            None => execution,
        };
        Ok(lines
            .into_iter()
            .map(|(index, execution)| (index, heeding(execution)))
            .collect())
    }

    /// Records these executions and then sends one wakeup for each backlog that they wait in.
    /// Accepted is durable: if a wakeup is lost, the sweep sends another.
    async fn record_all(
        &self,
        executions: Vec<(u32, Execution)>,
        answer: &mut BulkAnswer,
    ) -> Result<(), PortError> {
        let created = self
            .store
            .create_all(
                executions
                    .iter()
                    .map(|(_, execution)| execution.clone())
                    .collect(),
            )
            .await?;
        let (new, known): (Vec<_>, Vec<_>) = executions
            .into_iter()
            .zip(created)
            .partition(|(_, created)| *created == Created::New);
        let waiting = new
            .iter()
            .filter(|((_, execution), _)| execution.backlog_entry().is_some());
        let mut backlogs: BTreeSet<_> = waiting
            .map(|((_, execution), _)| backlog_of(execution))
            .collect();
        let entry = |(index, execution): (u32, Execution)| BulkEntry {
            index,
            execution_id: execution.id,
        };
        answer
            .accepted
            .extend(new.into_iter().map(|(line, _)| entry(line)));
        for ((index, execution), found) in self.recorded_before(known).await? {
            // Whoever recorded it may have died before sending the wakeup.
            backlogs.extend(
                found
                    .iter()
                    .filter(|found| found.backlog_entry().is_some())
                    .map(backlog_of),
            );
            match found {
                Some(found) if found.request != execution.request => {
                    answer.rejected.push(BulkRejection {
                        index,
                        errors: vec![another(&execution.id)],
                    });
                }
                _ => answer.existing.push(entry((index, execution))),
            }
        }
        self.queue
            .send(
                backlogs
                    .into_iter()
                    .map(|backlog| Message::Wakeup { backlog, id: None }.into())
                    .collect(),
            )
            .await
    }

    /// Returns the executions that are recorded under the same ids.
    async fn recorded_before(
        &self,
        lines: Vec<((u32, Execution), Created)>,
    ) -> Result<Vec<((u32, Execution), Option<Execution>)>, PortError> {
        let found = lines
            .into_iter()
            .map(async |(line, _)| Ok((passed_over(self.store.load(&line.1.id).await)?, line)));
        stream::iter(found)
            .buffered(READS)
            .map_ok(|(found, line)| (line, found))
            .try_collect()
            .await
    }
}

/// Returns the submission's id, if the request is valid as a whole.
fn checked(bulk: &BulkRequest) -> Result<IdempotencyKey, FieldError> {
    let fault = |field: &str, message: String| FieldError {
        field: field.into(),
        message,
    };
    let id = bulk
        .submission_id
        .parse()
        .map_err(|error| fault("submission_id", format!("{error}")))?;
    let entries = bulk.executions.len();
    if entries == 0 || entries > BULK_MAX {
        return Err(fault(
            "executions",
            format!("has {entries} entries; send 1 to {BULK_MAX} at a time"),
        ));
    }
    let end = u32::try_from(entries)
        .ok()
        .and_then(|entries| bulk.first_index.checked_add(entries));
    if end.is_none_or(|end| end > LINES_MAX) {
        let message = format!(
            "and the entries after it exceed the limit of {LINES_MAX} lines in a submission"
        );
        return Err(fault("first_index", message));
    }
    Ok(id)
}

fn another(id: &ExecutionId) -> FieldError {
    let message = format!(
        "was used within 24 hours with another request at this index ({id}); use a new one"
    );
    FieldError {
        field: "submission_id".into(),
        message,
    }
}
