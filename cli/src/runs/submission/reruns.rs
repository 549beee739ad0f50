//! The runs of `rerun --failed`. One request makes the server run them again one after the other.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    api::{ExecutionView, GroupRerunRequest, GroupRerunView, Listed},
    group::rerun::Rejection,
    id::ExecutionId,
};

use super::{Batch, BulkSubmission, Sent, Told, Totals, all_of, program};
use crate::{
    client::{ApiError, Client, PAUSE},
    config::context::Context,
    exit,
    failure::Failure,
    runs::group,
    terminal::interrupt::{InterruptWish, Interrupts},
};

/// The earlier runs that are run again. Each has a number, counted from 1.
#[derive(Debug, Default)]
pub(crate) struct Reruns(Vec<ExecutionId>);

impl Reruns {
    /// The earlier run that the one with this number repeats.
    pub(super) fn before(&self, number: usize) -> Option<&ExecutionId> {
        self.0.get(number.checked_sub(1)?)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Asks the server to run the failed runs of a group again, then follows the new runs if `wait`.
/// Returns the exit code.
///
/// # Errors
/// A request was refused or had no answer; [`Failure::Nothing`] if no run has failed.
pub(crate) async fn run(
    context: &Context,
    client: &Client,
    submission: &BulkSubmission,
    of: &str,
    request: GroupRerunRequest,
    wait: bool,
) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::catch().map_err(Failure::io("catch signals"))?;
    // The server's answer does not tell new runs from those that existed before.
    let known = if submission.is_resumed() {
        members(client, &submission.group).await?
    } else {
        BTreeMap::new()
    };
    let id = &submission.id;
    context.screen.say(&format!(
        "running the failed runs of {of} again, as {id}; if interrupted, the same command with --resume {id} continues"
    ));
    if let Client::Local(machine) = client {
        machine.start().await.map_err(Failure::other)?;
    }
    let began = client
        .rerun_group(of, &request)
        .await
        .map_err(in_flags)?
        .rerun;
    let (rerun, ended) = until_done(context, client, submission, began, &mut interrupts).await?;
    context.screen.no_progress();
    tell(context, of, submission, &rerun);
    let counts = rerun.counts;
    if ended == Done::All && counts.accepted + counts.existing + counts.rejected == 0 {
        return Err(Failure::Nothing(format!(
            "no run of the group {of} has failed"
        )));
    }
    let (reruns, sent) = if context.is_json() || (wait && ended == Done::All) {
        let failed = failed(client, of, &rerun).await?;
        let made = members(client, &submission.group).await?;
        entries(
            &failed,
            &made,
            &known,
            &rerun.rejections,
            &rerun.submission_id,
        )
    } else {
        Default::default()
    };
    let totals = totals(submission, &rerun);
    let batch = Batch::Reruns(&reruns);
    let told = Told {
        context,
        client,
        submission,
        batch,
        sent: &sent,
        totals,
    };
    match ended {
        Done::All => told.all_sent(wait, &mut interrupts).await,
        Done::Cancelled => told.cancelled(None, &mut interrupts).await,
        Done::Left => {
            let (group, program) = (&submission.group, program(context));
            context.screen.say(&format!(
                "no longer following; the rest of the failed runs still run again. To look at them: {program} status --group {group}   to stop them: \
                 {program} cancel --group {group}"
            ));
            told.report(None)?;
            Ok(exit::CANCELLED)
        }
    }
}

/// Names faulty fields after the flags that gave them: `cpu`, not `changes.cpu`.
fn in_flags(failure: Failure) -> Failure {
    let Failure::Refused(mut problem) = failure else {
        return failure;
    };
    for error in &mut problem.errors {
        if let Some(flag) = error.field.strip_prefix("changes.") {
            error.field = flag.to_owned();
        }
    }
    Failure::Refused(problem)
}

/// How watching the server's progress ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// All failed runs were looked at.
    All,
    /// The user asked to cancel the new runs.
    Cancelled,
    /// The user stopped watching.
    Left,
}

/// Shows the server's progress until it has looked at all failed runs.
async fn until_done(
    context: &Context,
    client: &Client,
    submission: &BulkSubmission,
    began: Option<GroupRerunView>,
    interrupts: &mut Interrupts,
) -> Result<(GroupRerunView, Done), Failure> {
    let foreign = || Failure::Other("the API does not say how far the rerun is".to_owned());
    let what = all_of(submission);
    let mut rerun = began.ok_or_else(foreign)?;
    while !rerun.done {
        let so_far = rerun.counts.accepted + rerun.counts.existing;
        context
            .screen
            .progress(&format!("run again so far: {so_far}"));
        let look = async {
            let got = client.group(&submission.group).await?;
            client.pause(&got.answer, false, PAUSE).await;
            Ok::<_, ApiError>(got.value.rerun)
        };
        tokio::select! {
            seen = look => rerun = seen?.ok_or_else(foreign)?,
            wish = interrupts.wish(&what, &context.screen) => match wish {
                InterruptWish::Stay => {}
                InterruptWish::Detach => return Ok((rerun, Done::Left)),
                InterruptWish::Cancel => return Ok((rerun, Done::Cancelled)),
            },
        }
    }
    Ok((rerun, Done::All))
}

/// Reports the runs that are not run again, with the reasons.
fn tell(context: &Context, of: &str, submission: &BulkSubmission, rerun: &GroupRerunView) {
    for Rejection {
        execution_id,
        errors,
    } in &rerun.rejections
    {
        for error in errors {
            context
                .screen
                .say(&format!("the rerun of {execution_id} is rejected: {error}"));
        }
    }
    let told = u32::try_from(rerun.rejections.len()).unwrap_or(u32::MAX);
    if rerun.counts.rejected > told {
        context.screen.say(&format!(
            "{} more are rejected",
            rerun.counts.rejected - told
        ));
    }
    if rerun.counts.passed_over > 0 {
        context.screen.say(&format!(
            "not run again of {of}: {}, because the record cannot be read (`{} history --group {of}` shows which)",
            rerun.counts.passed_over,
            program(context)
        ));
    }
    if rerun.cancelled {
        let group = &submission.group;
        context.screen.say(&format!(
            "the group {group} was cancelled: no more runs of {of} run again in it"
        ));
    }
}

/// The totals to report. In a new submission no run existed before, so `existing` counts only runs
/// that the server met twice. They count as accepted.
fn totals(submission: &BulkSubmission, rerun: &GroupRerunView) -> Totals {
    let (accepted, existing) = match (rerun.counts.accepted, rerun.counts.existing) {
        (accepted, existing) if submission.is_resumed() => (accepted, existing),
        (accepted, existing) => (accepted + existing, 0),
    };
    let [accepted, existing, rejected] = [accepted, existing, rerun.counts.rejected]
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    Totals {
        accepted,
        existing,
        rejected,
    }
}

/// The failed runs that the rerun covers, oldest first.
async fn failed(
    client: &Client,
    of: &str,
    rerun: &GroupRerunView,
) -> Result<BTreeSet<ExecutionId>, ApiError> {
    let mut failed = BTreeSet::new();
    let see = |listed: Listed| match listed {
        Listed::Run(run) if is_covered(&run, rerun) => failed.extend([run.execution_id.clone()]),
        Listed::Run(_) | Listed::Unreadable(_) => {}
    };
    group::walk(client, of, None, see).await?;
    Ok(failed)
}

fn is_covered(run: &ExecutionView, rerun: &GroupRerunView) -> bool {
    run.status.is_failure() && run.submitted_at < rerun.at
}

/// The runs of a group by their idempotency keys.
async fn members(client: &Client, group: &str) -> Result<BTreeMap<String, ExecutionId>, ApiError> {
    let mut members = BTreeMap::new();
    let see = |listed: Listed| {
        if let Listed::Run(run) = listed
            && let Some(key) = run.request.idempotency_key
        {
            members.insert(key, run.execution_id);
        }
    };
    group::walk(client, group, None, see).await?;
    Ok(members)
}

/// Matches each new run to the run it repeats, by the rerun's idempotency key.
fn entries(
    failed: &BTreeSet<ExecutionId>,
    members: &BTreeMap<String, ExecutionId>,
    known: &BTreeMap<String, ExecutionId>,
    rejections: &[Rejection],
    submission: &str,
) -> (Reruns, Sent) {
    let mut sent = Sent::default();
    for (number, before) in (1..).zip(failed) {
        let key = domain::group::rerun::key(submission, before);
        let rejection = rejections
            .iter()
            .find(|rejection| rejection.execution_id == *before);
        match (members.get(&key), rejection) {
            (_, Some(rejection)) => sent.rejected.push((number, rejection.errors.clone())),
            (Some(id), None) if known.contains_key(&key) => {
                sent.existing.push((number, id.clone()));
            }
            (Some(id), None) => sent.accepted.push((number, id.clone())),
            // This run failed after the server had looked at it.
            (None, None) => {}
        }
    }
    (Reruns(failed.iter().cloned().collect()), sent)
}

#[cfg(test)]
mod tests {
    use domain::{group::rerun::key, request::FieldError};

    use super::*;

    #[test]
    fn each_new_run_is_told_with_the_one_that_it_repeats() {
        let id = |number| ExecutionId::new(domain::Timestamp::UNIX_EPOCH, number);
        let of = |numbers: &[u128]| {
            numbers
                .iter()
                .map(|number| (key("sub", &id(*number)), id(100 + number)))
                .collect()
        };
        let failed = [1, 2, 3, 4].map(id).into();
        let fault = FieldError {
            field: "cpu".into(),
            message: "is odd".into(),
        };
        let rejections = [Rejection {
            execution_id: id(3),
            errors: vec![fault],
        }];
        let (reruns, sent) = entries(&failed, &of(&[1, 2]), &of(&[1]), &rejections, "sub");
        assert_eq!(
            (sent.existing, sent.accepted),
            (vec![(1, id(101))], vec![(2, id(102))])
        );
        assert_eq!(
            sent.rejected
                .iter()
                .map(|(number, _)| *number)
                .collect::<Vec<_>>(),
            [3]
        );
        assert_eq!(
            (reruns.before(3), reruns.before(0), reruns.len()),
            (Some(&id(3)), None, 4)
        );
    }
}
