//! `mycli rerun`: repeats one run, or the failed runs of a group, from the request in the history.

use std::collections::BTreeSet;

use clap::Args;
use domain::{
    api::{ExecutionView, GroupRerunRequest, Listed},
    group::rerun::{add_secrets, key},
    request::{Changes, Name, SubmitRequest},
};

use crate::{
    client::Client,
    commands::bulk,
    commands::completions::values,
    config::context::Context,
    failure::Failure,
    request::{
        draft,
        flags::{LaunchFlags, RunFlags},
        git,
        lines::{self, ReadyLine},
    },
    runs::{
        group, launch,
        submission::{BulkSubmission, reruns},
    },
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli rerun                         your latest run again
  mycli rerun 7XQ9 --branch main      another branch, everything else the same
  mycli rerun 7XQ9 --timeout 2h --on-demand --detach
  mycli rerun 7XQ9 -e STAGE=test      another value for STAGE; the other variables stay
  mycli rerun --failed --group nightly --wait     all runs that failed, timed out or were lost

The stored request is copied on the server and checked as if you had sent it. Flags change
that copy; everything else stays as it was, with two exceptions: --repo drops the stored
branch, and --cpu or --memory alone chooses the other to fit. -e and --secret add to the
variables and secrets of the earlier run.

Exit code: the same as exec; with --failed the same as bulk.";

/// The command line of `rerun`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RerunArgs {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    #[arg(conflicts_with = "failed", add = values::runs())]
    id: Option<String>,
    /// Repeat all runs of --group that failed, timed out or were lost, as one submission
    #[arg(long, requires = "group", conflicts_with_all = ["detach", "idempotency_key"])]
    failed: bool,
    /// With --failed: the group of the new runs [default: the submission's id]
    #[arg(long, value_name = "NAME", requires = "failed")]
    into: Option<Name>,
    /// With --failed: wait until all new runs are over
    #[arg(long, requires = "failed")]
    wait: bool,
    /// With --failed: continue an interrupted submission, once the runs of the group are over
    #[arg(long, value_name = "ID", requires = "failed")]
    resume: Option<Name>,
    #[command(flatten)]
    launch: LaunchFlags,
    #[command(flatten)]
    run: RunFlags,
}

impl RerunArgs {
    /// Runs `mycli rerun` and returns the exit code.
    ///
    /// # Errors
    /// Every failure except the run's own.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(self.launch.machine).await?;
        let ended = match (self.failed, &self.run.group) {
            (true, Some(group)) => self.all_again(context, &client, group).await,
            _ => self.again(context, &client).await,
        };
        client.close(&context.screen).await;
        ended
    }

    /// Whether it repeats many runs (`--failed`).
    pub(crate) fn is_of_a_group(&self) -> bool {
        self.failed
    }

    async fn all_again(
        &self,
        context: &Context,
        client: &Client,
        group: &str,
    ) -> Result<u8, Failure> {
        let submission =
            BulkSubmission::begin(self.resume.as_ref(), self.into.as_ref().map(Name::as_str))?;
        let flags = RunFlags {
            group: Some(submission.group.clone()),
            ..self.run.clone()
        };
        let changes = changes(context, &flags)?;
        if self.launch.dry_run {
            return show_all(context, client, group, &submission, &changes).await;
        }
        let request = GroupRerunRequest {
            submission_id: Some(submission.id.to_string()),
            add_secrets: changes.secrets.clone().unwrap_or_default(),
            changes: Changes {
                secrets: None,
                ..changes
            },
        };
        reruns::run(context, client, &submission, group, request, self.wait).await
    }

    async fn again(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        if let (None, Some(group)) = (&self.id, &self.run.group) {
            let how = format!(
                "no run is named: give its id (the new run then joins the group {group}), or --failed to repeat all failed runs of the group"
            );
            return Err(Failure::Usage(how));
        }
        let before = client.find(self.id.as_deref()).await?.value;
        context.screen.say(&introduction(&before));
        let changes = with_secrets_of(&before, &changes(context, &self.run)?);
        if self.launch.dry_run {
            return launch::dry_run(context, &would_be(context, before, changes));
        }
        launch::rerun(context, client, &before.execution_id, changes, &self.launch).await
    }
}

/// The changes that the flags ask for.
fn changes(context: &Context, flags: &RunFlags) -> Result<Changes, Failure> {
    if flags.repo.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::Usage(
            "--repo is empty: give a repository, or --no-repo to run without one".into(),
        ));
    }
    let mut request = SubmitRequest::default();
    draft::apply(flags, &mut request, &context.screen)?;
    if context.global.local {
        let here = std::env::current_dir().map_err(Failure::io("find the working directory"))?;
        request.repo = request
            .repo
            .map(|repo| git::absolute(&repo, &here))
            .transpose()
            .map_err(Failure::Usage)?;
    }
    let mut changes = Changes::from(request);
    if flags.no_repo {
        changes.repo = Some(String::new());
    }
    Ok(changes)
}

/// Adds the names given with `--secret` to the secret names of the earlier run.
fn with_secrets_of(before: &ExecutionView, changes: &Changes) -> Changes {
    let Some(given) = &changes.secrets else {
        return changes.clone();
    };
    let mut secrets = before.request.secrets.clone();
    add_secrets(&mut secrets, given);
    Changes {
        secrets: Some(secrets),
        ..changes.clone()
    }
}

/// The request that the server would build, as far as the caller may see its parts.
fn would_be(context: &Context, before: ExecutionView, changes: Changes) -> SubmitRequest {
    let hidden = before
        .request
        .env
        .iter()
        .filter(|(name, value)| value.is_none() && !changes.env.contains_key(*name));
    let hidden: Vec<_> = hidden.map(|(name, _)| name.as_str()).collect();
    if !hidden.is_empty() {
        let (id, names) = (&before.execution_id, hidden.join(", "));
        context.screen.say(&format!(
            "{id}: values that this key may not see are left out here: {names}"
        ));
    }
    let mut request = SubmitRequest::from(before.request);
    changes.apply(&mut request);
    request
}

/// Shows the requests that would be made for the failed runs. Runs that a resumed submission made
/// itself are left out.
async fn show_all(
    context: &Context,
    client: &Client,
    group: &str,
    submission: &BulkSubmission,
    changes: &Changes,
) -> Result<u8, Failure> {
    let mut runs = Vec::new();
    // We list all statuses and filter here. An unreadable record has no status and may belong to a
    // failed run, so the user is told about it.
    let see = |listed: Listed| match listed {
        Listed::Run(run) => runs.extend(Some(*run).filter(|run| run.status.is_failure())),
        Listed::Unreadable(view) => {
            let words = format!(
                "the record of {} cannot be read, so it is not run again",
                view.execution_id
            );
            context.screen.say(&words);
        }
    };
    group::walk(client, group, None, see).await?;
    if submission.is_resumed() {
        let keys: BTreeSet<_> = runs
            .iter()
            .map(|run| key(submission.id.as_str(), &run.execution_id))
            .collect();
        runs.retain(|run| {
            run.request
                .idempotency_key
                .as_ref()
                .is_none_or(|key| !keys.contains(key))
        });
    }
    if runs.is_empty() {
        return Err(Failure::Nothing(format!(
            "no run of the group {group} has failed"
        )));
    }
    runs.sort_by(|one, other| one.execution_id.cmp(&other.execution_id));
    let request = |run: ExecutionView| {
        let changes = with_secrets_of(&run, changes);
        would_be(context, run, changes)
    };
    let line = |(number, request)| ReadyLine {
        number,
        keys: lines::keys_of(&request),
    };
    let lines: Vec<_> = (1..).zip(runs.into_iter().map(request)).map(line).collect();
    bulk::print(context, &lines)
}

/// Names the run and the commit it ran on, since a branch may have moved since.
fn introduction(before: &ExecutionView) -> String {
    let id = &before.execution_id;
    match (&before.commit, &before.request.branch) {
        (Some(commit), _) if before.request.branch.as_ref() == Some(commit) => {
            format!("running {id} again, at commit {commit}")
        }
        (Some(commit), Some(branch)) => {
            format!(
                "running {id} again, on {branch}; last time it ran at commit {commit} (--branch {commit} runs that commit)"
            )
        }
        (Some(commit), None) => {
            format!(
                "running {id} again, on the default branch; last time it ran at commit {commit} (--branch {commit} runs that commit)"
            )
        }
        (None, _) => format!("running {id} again"),
    }
}
