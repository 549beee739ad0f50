//! `mycli rerun`: the same again, as history keeps it; one run, or what failed of a group.

use clap::Args;
use domain::{
    api::{ExecutionView, Listed},
    execution::ExecutionStatus,
    request::{Name, SubmitRequest},
};

use crate::{
    bulk::{self, lines::Ready},
    client::Client,
    context::Context,
    draft,
    failure::Failure,
    flags::{LaunchFlags, RunFlags},
    group, launch,
    submission::{self, Submission},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli rerun                         your latest run again
  mycli rerun 7XQ9 --branch main      another branch, everything else the same
  mycli rerun 7XQ9 --timeout 2h --on-demand --detach
  mycli rerun --failed --group nightly --wait     all of a group that failed, timed out or were lost

Exit code: as of exec; with --failed as of bulk.";

/// What --failed runs again. What was cancelled was not wanted.
const FAILED: [ExecutionStatus; 3] = [ExecutionStatus::Failed, ExecutionStatus::TimedOut, ExecutionStatus::Lost];

/// The command line of `rerun`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Rerun {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    #[arg(conflicts_with = "failed")]
    id: Option<String>,
    /// Run again, as one submission, what failed, timed out or was lost of --group
    #[arg(long, requires = "group", conflicts_with_all = ["detach", "idempotency_key"])]
    failed: bool,
    /// With --failed: the group to count the new runs in [default: the submission's id]
    #[arg(long, value_name = "NAME", requires = "failed")]
    into: Option<Name>,
    /// With --failed: wait until all are over
    #[arg(long, requires = "failed")]
    wait: bool,
    /// With --failed: go on with a submission that was cut short, once the group is over
    #[arg(long, value_name = "ID", requires = "failed")]
    resume: Option<Name>,
    #[command(flatten)]
    launch: LaunchFlags,
    #[command(flatten)]
    run: RunFlags,
}

impl Rerun {
    /// Runs it.
    ///
    /// # Errors
    /// Anything but the run's own failure.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(self.launch.host).await?;
        let ended = match (self.failed, &self.run.group) {
            (true, Some(group)) => self.all_again(context, &client, group).await,
            _ => self.again(context, &client).await,
        };
        client.close(&context.screen).await;
        ended
    }

    /// Whether it is about many runs.
    pub(crate) fn is_of_a_group(&self) -> bool {
        self.failed
    }

    async fn all_again(&self, context: &Context, client: &Client, group: &str) -> Result<u8, Failure> {
        let mut runs: Vec<ExecutionView> = Vec::new();
        for status in FAILED {
            group::walk(client, group, Some(&status), |listed| runs.extend(run_of(listed))).await?;
        }
        if runs.is_empty() {
            return Err(Failure::Nothing(format!("nothing of the group {group} has failed")));
        }
        runs.sort_by(|one, other| one.execution_id.cmp(&other.execution_id));
        let submission = Submission::begin(self.resume.as_ref(), self.into.as_ref().map(Name::as_str))?;
        let flags = RunFlags { group: Some(submission.group.clone()), ..self.run.clone() };
        let requests = runs.into_iter().map(|run| changed(context, &flags, run)).collect::<Result<Vec<_>, _>>()?;
        let line = |(number, request)| Ready { number, keys: bulk::lines::keys_of(&request) };
        let lines: Vec<_> = (1..).zip(requests).map(line).collect();
        if self.launch.dry_run {
            return bulk::print(context, &lines);
        }
        if let (Client::Local(machine), true) = (client, self.wait) {
            machine.start().await.map_err(|error| Failure::Local(error.to_string()))?;
        }
        submission::run(context, client, &submission, &lines, self.wait).await
    }

    async fn again(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let before = client.find(self.id.as_deref()).await?.value;
        context.screen.say(&introduction(&before));
        let request = changed(context, &self.run, before)?;
        if self.launch.dry_run {
            return launch::dry_run(context, &request);
        }
        launch::run(context, client, request, self.launch).await
    }
}

/// The request of a run, with what the flags say otherwise.
/// Of one whose record cannot be read nothing is known that could be repeated; asked for by status, there is none.
fn run_of(listed: Listed) -> Option<ExecutionView> {
    match listed {
        Listed::Run(run) => Some(*run),
        Listed::Unreadable(_) => None,
    }
}

fn changed(context: &Context, flags: &RunFlags, before: ExecutionView) -> Result<SubmitRequest, Failure> {
    let mut request = SubmitRequest::from(before.request);
    let mut flags = flags.clone();
    if context.global.local {
        let here = std::env::current_dir().map_err(Failure::io("find the working directory"))?;
        flags.repo = flags.repo.map(|repo| draft::absolute(&repo, &here));
    }
    draft::apply(&flags, &mut request, &context.screen)?;
    Ok(request)
}

/// Which run it is, and what it ran on: a branch may have moved since.
fn introduction(before: &ExecutionView) -> String {
    let id = &before.execution_id;
    match (&before.commit, &before.request.branch) {
        (Some(commit), _) if before.request.branch.as_ref() == Some(commit) => {
            format!("running {id} again, at commit {commit}")
        }
        (Some(commit), Some(branch)) => {
            format!("running {id} again, on {branch}; it ran at commit {commit} then (--branch {commit} to pin it)")
        }
        (Some(commit), None) => {
            format!(
                "running {id} again, on the default branch; it ran at commit {commit} then (--branch {commit} to pin it)"
            )
        }
        (None, _) => format!("running {id} again"),
    }
}
