//! `mycli rerun`: the same again, as history keeps it.

use clap::Args;
use domain::{api::ExecutionView, request::SubmitRequest};

use crate::{
    client::Client,
    context::Context,
    draft,
    failure::Failure,
    flags::{LaunchFlags, RunFlags},
    launch,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli rerun                         your latest run again
  mycli rerun 7XQ9 --branch main      another branch, everything else the same
  mycli rerun 7XQ9 --timeout 2h --on-demand --detach

Exit code: as of exec.";

/// The command line of `rerun`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Rerun {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    id: Option<String>,
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
        let ended = self.again(context, &client).await;
        client.close(&context.screen).await;
        ended
    }

    async fn again(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let before = client.find(self.id.as_deref()).await?.value;
        context.screen.say(&introduction(&before));
        let mut request = SubmitRequest::from(before.request);
        if context.global.local {
            let here = std::env::current_dir().map_err(Failure::io("find the working directory"))?;
            let mut flags = self.run.clone();
            flags.repo = flags.repo.map(|repo| draft::absolute(&repo, &here));
            draft::apply(&flags, &mut request, &context.screen)?;
        } else {
            draft::apply(&self.run, &mut request, &context.screen)?;
        }
        if self.launch.dry_run {
            return launch::dry_run(context, &request);
        }
        launch::run(context, client, request, self.launch).await
    }
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
