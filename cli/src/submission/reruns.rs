//! The runs of `rerun --failed`: each is asked for in a request of its own, which names the run before and what changes.

use std::collections::BTreeSet;

use domain::{
    api::{Accepted, Problem},
    id::ExecutionId,
    request::{Changes, FieldError},
};
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use sha2::{Digest, Sha256};

use super::{Sent, Submission};
use crate::{
    client::{CallError, Client},
    failure::Failure,
};

/// Requests under way at once. Ours: a new account's functions run ten times at once (AWS-FACTS §7), and others use them too. The price is that
/// neighbours may be recorded, and so launched, in another order than that of the runs before. The report keeps that order.
const IN_FLIGHT: usize = 8;

/// Runs to run again.
#[derive(Debug)]
pub(crate) struct Reruns {
    runs: Vec<Again>,
    /// What the submission is known to have made before.
    known: BTreeSet<ExecutionId>,
}

/// A run to run again.
#[derive(Debug)]
struct Again {
    /// Counted from 1.
    number: usize,
    before: ExecutionId,
    /// The changes, as the body of a request.
    body: Vec<u8>,
}

impl Reruns {
    /// None yet. `known` are the runs of an earlier part of the submission: an answer that names one of them is not a new run.
    pub(crate) fn new(known: BTreeSet<ExecutionId>) -> Self {
        Self { runs: Vec::new(), known }
    }

    /// Adds one, under the key that the submission has for it.
    ///
    /// # Errors
    /// Changes that are no JSON.
    pub(crate) fn add(
        &mut self,
        submission: &Submission,
        before: ExecutionId,
        changes: Changes,
    ) -> Result<(), Failure> {
        let changes = Changes { idempotency_key: Some(key(submission, &before)), ..changes };
        let body = serde_json::to_vec(&changes).map_err(|error| Failure::Local(error.to_string()))?;
        self.runs.push(Again { number: self.runs.len() + 1, before, body });
        Ok(())
    }

    /// The run that the one with this number repeats.
    pub(super) fn before(&self, number: usize) -> Option<&ExecutionId> {
        self.runs.get(number.checked_sub(1)?).map(|again| &again.before)
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// What becomes of each, as the answers come in.
    pub(super) fn answers<'a>(&'a self, client: &'a Client) -> LocalBoxStream<'a, Result<Sent, CallError>> {
        let asked = move |again: &'a Again| async move {
            let answer = client.rerun(&again.before, again.body.clone()).await;
            self.outcome(again.number, answer.map(|got| got.value))
        };
        stream::iter(&self.runs).map(asked).buffer_unordered(IN_FLIGHT).boxed_local()
    }

    fn outcome(&self, number: usize, answer: Result<Accepted, CallError>) -> Result<Sent, CallError> {
        let mut sent = Sent::default();
        match answer {
            Ok(Accepted { execution_id: id, .. }) if self.known.contains(&id) => sent.existing.push((number, id)),
            Ok(Accepted { execution_id: id, .. }) => sent.accepted.push((number, id)),
            Err(CallError::Refused(problem)) if is_of_one_run(&problem) => {
                sent.rejected.push((number, faults(problem)));
            }
            Err(error) => return Err(error),
        }
        Ok(sent)
    }
}

/// The idempotency key of a rerun: the same whenever the submission is sent again, whatever else has failed by then. A hash, because a
/// submission's id may be as long as a key.
pub(crate) fn key(submission: &Submission, before: &ExecutionId) -> String {
    let digest = hex::encode(Sha256::digest(format!("{}/{before}", submission.id)));
    format!("rerun-{}", &digest[..32])
}

/// Whether the others may be accepted all the same.
fn is_of_one_run(problem: &Problem) -> bool {
    let codes = ["idempotency_key_reused", "not_found", "unreadable_record"];
    problem.has_faults() || codes.contains(&problem.code.as_str())
}

fn faults(problem: Problem) -> Vec<FieldError> {
    if !problem.errors.is_empty() {
        return problem.errors;
    }
    let fault = |field: &str, message: &str| vec![FieldError { field: field.into(), message: message.into() }];
    match problem.code.as_str() {
        "idempotency_key_reused" => {
            fault("submission_id", "was used within 24 hours with other changes of this run; use a new one")
        }
        _ => fault("id", &problem.title),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> ExecutionId {
        ExecutionId::new(domain::Timestamp::UNIX_EPOCH, number)
    }

    fn submission(id: &str) -> Submission {
        Submission { id: id.parse().unwrap(), group: id.to_owned(), resumed: true }
    }

    #[test]
    fn a_run_has_one_key_in_a_submission_and_another_in_any_other() {
        let long = "x".repeat(64);
        let first = key(&submission(&long), &id(1));
        assert_eq!(first, key(&submission(&long), &id(1)));
        assert_ne!(first, key(&submission(&long), &id(2)));
        assert_ne!(first, key(&submission("y"), &id(1)));
        assert!(first.parse::<domain::request::IdempotencyKey>().is_ok());
    }

    #[track_caller]
    fn check(answer: Result<Accepted, CallError>, accepted: usize, existing: usize, rejected: &[&str]) {
        let sent = Reruns::new([id(7)].into()).outcome(1, answer).unwrap();
        assert_eq!((sent.accepted.len(), sent.existing.len()), (accepted, existing));
        let told = sent.rejected.iter().flat_map(|(_, faults)| faults).map(|fault| fault.field.as_str());
        assert_eq!(told.collect::<Vec<_>>(), rejected);
    }

    #[test]
    fn a_refusal_of_one_run_stops_no_other() {
        let accepted =
            |number| Accepted { execution_id: id(number), status: domain::execution::ExecutionStatus::Queued };
        let refused = |problem| Err(CallError::Refused(problem));
        check(Ok(accepted(8)), 1, 0, &[]);
        check(Ok(accepted(7)), 0, 1, &[]);
        let fault = FieldError { field: "cpu".into(), message: "is odd".into() };
        check(refused(Problem::invalid(vec![fault])), 0, 0, &["cpu"]);
        check(refused(Problem::new(409, "idempotency_key_reused", "used")), 0, 0, &["submission_id"]);
        check(refused(Problem::new(404, "not_found", "pruned")), 0, 0, &["id"]);
        let ends_all = [Problem::new(403, "forbidden", "no"), Problem::new(404, "no_such_path", "of before")];
        for problem in ends_all {
            assert!(Reruns::new(BTreeSet::new()).outcome(1, refused(problem)).is_err());
        }
    }
}
