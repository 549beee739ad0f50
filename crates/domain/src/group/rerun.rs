//! Running the failed members of a group again, by one request that is worked off page by page.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{GroupWork, GroupWorkKind, Progress};
use crate::{
    Timestamp,
    execution::Execution,
    history::Cursor,
    id::ExecutionId,
    key::{Caller, Role},
    message::Message,
    principal::Principal,
    request::{Changes, FieldError, Name, SubmitRequest},
};

/// How many rejections are kept with their reasons; the others are only counted. The record is
/// rewritten after each page, so it must stay small.
pub const REJECTIONS_MAX: usize = 100;

/// A rerun of the failed members of one group, as members of another group or of the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRerun {
    /// The progress, in the group of the new executions. Members of the other group are run again
    /// if they were submitted before `at`, when the submission was first sent. So no execution that
    /// the rerun itself made is run again.
    #[serde(flatten)]
    pub progress: Progress,
    /// The group whose failed members are run again.
    pub of: Name,
    /// The submission of the new executions. Sent again, it makes none twice.
    pub submission: String,
    /// The name of the key that asked, for people.
    pub by: String,
    /// The principal that asked.
    pub by_id: Principal,
    /// The role of the key that asked.
    pub role: Role,
    /// The changes of each request.
    pub changes: Changes,
    /// The secrets that each request gets in addition to its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_secrets: Vec<String>,
    /// The results so far.
    #[serde(flatten)]
    pub counts: RerunCounts,
    /// The first members that cannot be run again, with the reasons.
    pub rejections: Vec<Rejection>,
    /// Whether the new group was cancelled meanwhile, so that the rest is not run again.
    pub cancelled: bool,
}

/// The results of failed members, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunCounts {
    /// Members run again.
    pub accepted: u32,
    /// Members that the same submission ran again before.
    pub existing: u32,
    /// Members not run again, because the request is no longer valid.
    pub rejected: u32,
    /// Members whose record cannot be read.
    pub passed_over: u32,
}

/// A member that cannot be run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The execution's id.
    pub execution_id: ExecutionId,
    /// The reasons.
    pub errors: Vec<FieldError>,
}

/// The result of a page of members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerunPage {
    /// The counts.
    pub counts: RerunCounts,
    /// The members that cannot be run again.
    pub rejections: Vec<Rejection>,
}

/// A caller's request for a rerun, before it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RerunWish {
    /// The group whose failed members are run again.
    pub of: Name,
    /// The group of the new executions.
    pub into: Name,
    /// The submission's id.
    pub submission: String,
    /// The changes of each request.
    pub changes: Changes,
    /// The secrets that each request gets in addition to its own.
    pub add_secrets: Vec<String>,
}

impl GroupRerun {
    /// A rerun that begins now, for a submission that was first sent `at`. It replaces one that is
    /// done.
    #[must_use]
    pub fn new(
        wish: RerunWish,
        by: &Caller,
        at: Timestamp,
        now: Timestamp,
        before: Option<&Self>,
    ) -> Self {
        Self {
            progress: Progress::new(wish.into, at, now, before.map(|before| &before.progress)),
            of: wish.of,
            submission: wish.submission,
            by: by.name.clone(),
            by_id: by.principal.clone(),
            role: by.role,
            changes: wish.changes,
            add_secrets: wish.add_secrets,
            counts: RerunCounts::default(),
            rejections: Vec::new(),
            cancelled: false,
        }
    }

    /// Whether it is for the same request of the same caller.
    #[must_use]
    pub fn is_for(&self, wish: &RerunWish, by: &Caller) -> bool {
        (&self.of, &self.submission, &self.by_id) == (&wish.of, &wish.submission, &by.principal)
            && (&self.changes, &self.add_secrets) == (&wish.changes, &wish.add_secrets)
    }

    /// The caller who asked.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            name: self.by.clone(),
            role: self.role,
            principal: self.by_id.clone(),
        }
    }

    /// Whether this member is to be run again. A cancelled member is not: its result was no longer
    /// wanted.
    #[must_use]
    pub fn covers(&self, execution: &Execution) -> bool {
        execution.request.group.as_ref() == Some(&self.of)
            && execution.submitted_at < self.progress.at
            && execution.status().is_failure()
    }

    /// The request for this member's rerun.
    #[must_use]
    pub fn request(&self, member: &Execution) -> SubmitRequest {
        let changes = Changes {
            group: Some(self.progress.group.to_string()),
            idempotency_key: Some(key(&self.submission, &member.id)),
            ..self.changes.clone()
        };
        let mut request = changes.applied_to(&member.request);
        add_secrets(&mut request.secrets, &self.add_secrets);
        request
    }

    /// The rerun after a page of members. `next` is where the walk continues; `None` at its end.
    #[must_use]
    pub fn after(&self, page: RerunPage, next: Option<&Cursor>, now: Timestamp) -> Self {
        let (
            RerunCounts {
                accepted,
                existing,
                rejected,
                passed_over,
            },
            more,
        ) = (self.counts, page.counts);
        let counts = RerunCounts {
            accepted: accepted + more.accepted,
            existing: existing + more.existing,
            rejected: rejected + more.rejected,
            passed_over: passed_over + more.passed_over,
        };
        let rejections = self
            .rejections
            .iter()
            .cloned()
            .chain(page.rejections)
            .take(REJECTIONS_MAX)
            .collect();
        let progress = Progress {
            done: next.is_none(),
            ..self.progress.after_page(next, now)
        };
        Self {
            progress,
            counts,
            rejections,
            ..self.clone()
        }
    }

    /// The rerun with executions that another caller recorded at the same time. They were counted
    /// as existing, and now count as accepted.
    #[must_use]
    pub fn recorded_beside(&self, accepted: u32) -> Self {
        let RerunCounts {
            accepted: before,
            existing,
            ..
        } = self.counts;
        let counts = RerunCounts {
            accepted: before + accepted,
            existing: existing.saturating_sub(accepted),
            ..self.counts
        };
        Self {
            counts,
            ..self.clone()
        }
    }

    /// The rerun once the new group was cancelled: no more members are run again.
    #[must_use]
    pub fn given_up(&self, now: Timestamp) -> Self {
        let progress = Progress {
            done: true,
            touched_at: now,
            ..self.progress.clone()
        };
        Self {
            progress,
            cancelled: true,
            ..self.clone()
        }
    }

    /// Whether it belongs to the same submission.
    #[must_use]
    pub fn is_of_the_submission_of(&self, other: &Self) -> bool {
        (&self.submission, &self.by_id, self.progress.at)
            == (&other.submission, &other.by_id, other.progress.at)
    }

    /// Whether this is the same walk, and no page of members was handled since.
    #[must_use]
    pub fn is_at_the_page_of(&self, earlier: &Self) -> bool {
        let page = |rerun: &Self| (rerun.progress.cursor.clone(), rerun.progress.done);
        self.is_of_the_submission_of(earlier) && page(self) == page(earlier)
    }

    /// A fault of a request made by [`GroupRerun::request`], as a fault of the changes, if they
    /// caused it.
    #[must_use]
    pub fn own_fault(&self, request: &SubmitRequest, fault: FieldError) -> Option<FieldError> {
        let head = fault.field.split(['[', '.']).next().unwrap_or_default();
        let is_added = || {
            let index = fault
                .field
                .strip_prefix("secrets[")?
                .strip_suffix(']')?
                .parse::<usize>()
                .ok()?;
            self.add_secrets
                .contains(request.secrets.get(index)?)
                .then_some(())
        };
        if is_added().is_some() {
            return Some(FieldError {
                field: "add_secrets".into(),
                ..fault
            });
        }
        let changes = serde_json::to_value(&self.changes).ok()?;
        changes.get(head)?;
        Some(FieldError {
            field: format!("changes.{}", fault.field),
            ..fault
        })
    }
}

impl GroupWork for GroupRerun {
    const KIND: GroupWorkKind = GroupWorkKind::Rerun;
    const WHAT: &'static str = "the rerun of a group";

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn message(&self) -> Message {
        Message::RerunGroup {
            group: self.progress.group.clone(),
        }
    }
}

/// The id of a submission whose caller gave none.
#[must_use]
pub fn fresh_submission(now: Timestamp, bits: u128) -> String {
    format!(
        "sub_{}",
        ulid::Ulid::from_parts(
            u64::try_from(now.timestamp_millis()).unwrap_or_default(),
            bits
        )
    )
}

/// The idempotency key of a rerun. It is the same whenever the submission is sent again, whatever
/// else has failed by then. It is a hash, because a submission's id may be as long as a key.
#[must_use]
pub fn key(submission: &str, member: &ExecutionId) -> String {
    let digest = hex::encode(Sha256::digest(format!("{submission}/{member}")));
    format!("rerun-{}", &digest[..32])
}

/// Adds the secrets that a request does not name yet.
pub fn add_secrets(secrets: &mut Vec<String>, added: &[String]) {
    for name in added {
        if !secrets.contains(name) {
            secrets.push(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> ExecutionId {
        ExecutionId::new(Timestamp::UNIX_EPOCH, number)
    }

    #[test]
    fn a_run_has_one_key_in_a_submission_and_another_in_any_other() {
        let long = "x".repeat(64);
        let first = key(&long, &id(1));
        assert_eq!(first, key(&long, &id(1)));
        assert_ne!(first, key(&long, &id(2)));
        assert_ne!(first, key("y", &id(1)));
        assert!(first.parse::<crate::request::IdempotencyKey>().is_ok());
    }

    #[test]
    fn secrets_are_added_once() {
        let mut secrets = vec!["A".to_owned()];
        add_secrets(
            &mut secrets,
            &["B".to_owned(), "A".to_owned(), "B".to_owned()],
        );
        assert_eq!(secrets, ["A", "B"]);
    }
}
