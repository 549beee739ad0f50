//! `mycli cancel`: asks a run to stop, or all of a group.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use domain::{
    api::{ExecutionView, Listed, Problem},
    execution::ExecutionStatus,
    id::ExecutionId,
};
use futures_util::stream::{self, StreamExt};

use crate::{
    api::Got,
    client::{CallError, Client},
    context::Context,
    exit,
    failure::Failure,
    follow,
    group::{self, Counts, Watch},
    output, typed,
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli cancel 7XQ9                   waiting or running; a command that runs gets TERM, and KILL 10 s later
  mycli cancel 7XQ9 --wait            returns once it is over
  mycli cancel --group nightly --yes  all of a group that are not over

Exit code: 0 once the stop is asked for (or the run was over already), 1 if it cannot be.";

/// Cancels under way at once. Ours.
const IN_FLIGHT: usize = 8;

/// The statuses that can be cancelled, as a run comes by them: who moves on while others are looked at is met again.
const OPEN: [ExecutionStatus; 4] =
    [ExecutionStatus::Queued, ExecutionStatus::Waiting, ExecutionStatus::Launching, ExecutionStatus::Running];

/// The command line of `cancel`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cancel {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN
    #[arg(required_unless_present = "group", conflicts_with = "group")]
    id: Option<String>,
    /// All of this group that are not over
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Do not ask before a group is cancelled
    #[arg(short, long, requires = "group")]
    yes: bool,
    /// Wait until it is over, or they are
    #[arg(long)]
    wait: bool,
}

impl Cancel {
    /// Runs it.
    ///
    /// # Errors
    /// The API's.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(false).await?;
        let ended = match &self.group {
            Some(group) => self.cancel_group(context, &client, group).await,
            None => self.cancel(context, &client).await,
        };
        client.close(&context.screen).await;
        ended
    }

    async fn cancel(&self, context: &Context, client: &Client) -> Result<u8, Failure> {
        let run = client.find(self.id.as_deref()).await?;
        let id = run.value.execution_id.clone();
        if run.value.is_over() {
            context.screen.say(&format!("{id} was over already: {}", run.value.status));
            return self.report(context, &run);
        }
        let asked = client.cancel(&id).await?;
        context.screen.say(&format!("cancelling {id}: {}", consequence(&asked)));
        let after = if self.wait {
            follow::until_final(client, &id, &context.screen).await?
        } else {
            client.execution(id.as_str()).await?
        };
        if self.wait {
            context.screen.say(&format!("{id} is {}", after.value.status));
        }
        self.report(context, &after)
    }

    async fn cancel_group(&self, context: &Context, client: &Client, group: &str) -> Result<u8, Failure> {
        let mut open = open(client, group).await?;
        if open.is_empty() {
            return Err(Failure::Nothing(format!("no run of the group {group} is under way")));
        }
        let counts: Counts = open.values().cloned().collect();
        if !self.yes && typed::can_ask() {
            let question = format!("cancel {} of {group} ({})?", counts.total(), counts.line());
            if !typed::agreed(context, &question)? {
                return Err(Failure::Nothing("nothing was cancelled".into()));
            }
        }
        let mut done = Cancelled::default();
        // Until a look finds nobody new: some may have moved on, or have come, between two looks.
        while !open.is_empty() {
            done.cancel(context, client, open).await?;
            open = self::open(client, group).await?;
            open.retain(|id, _| !done.asked.contains(id));
        }
        context.screen.no_progress();
        if self.wait {
            let mut watch = Watch::new(done.to_follow().cloned().map(|id| (0, id)), BTreeSet::from([group.to_owned()]));
            watch.follow(client, &context.screen).await?;
            context.screen.no_progress();
            // By now it is known how each of them ended.
            done.cancelled = watch.runs().filter(|(_, run)| run.status == ExecutionStatus::Cancelled).count();
            done.over = done.to_follow().count() - done.cancelled;
        }
        done.report(context, group)
    }

    fn report(&self, context: &Context, run: &Got<ExecutionView>) -> Result<u8, Failure> {
        if context.is_json() {
            output::json(context, &run.answer)?;
        }
        Ok(exit::SUCCESS)
    }
}

/// Who of a group is not over.
async fn open(client: &Client, group: &str) -> Result<BTreeMap<ExecutionId, ExecutionStatus>, CallError> {
    let mut open = BTreeMap::new();
    for status in OPEN {
        let see = |listed: Listed| {
            open.insert(listed.id().clone(), listed.status().clone());
        };
        group::walk(client, group, Some(&status), see).await?;
    }
    Ok(open)
}

/// What came of cancelling many.
#[derive(Default)]
struct Cancelled {
    asked: BTreeSet<ExecutionId>,
    /// How many of them will not start.
    cancelled: usize,
    /// How many of them were over before they could be.
    over: usize,
    /// Why the others could not be asked to stop.
    refused: BTreeMap<ExecutionId, String>,
}

/// Whether the refusal is about one run alone, so that the others are cancelled all the same.
fn is_of_one_run(problem: &Problem) -> bool {
    ["unreadable_record", "status_not_known", "not_found"].contains(&problem.code.as_str())
}

impl Cancelled {
    async fn cancel(
        &mut self,
        context: &Context,
        client: &Client,
        runs: BTreeMap<ExecutionId, ExecutionStatus>,
    ) -> Result<(), CallError> {
        let all = self.asked.len() + runs.len();
        let calls = runs.into_keys().map(async |id| (client.cancel(&id).await, id));
        let mut calls = std::pin::pin!(stream::iter(calls).buffer_unordered(IN_FLIGHT));
        while let Some((answer, id)) = calls.next().await {
            match answer {
                Ok(ExecutionStatus::Cancelled) => self.cancelled += 1,
                Ok(_) => {}
                Err(CallError::Refused(problem)) if problem.code == "already_final" => self.over += 1,
                Err(CallError::Refused(problem)) if is_of_one_run(&problem) => {
                    self.refused.insert(id.clone(), problem.title);
                }
                Err(error) => return Err(error),
            }
            self.asked.insert(id);
            context.screen.gauge(self.asked.len(), all, "cancelled");
        }
        Ok(())
    }

    /// Those that were asked to stop, or had ended already.
    fn to_follow(&self) -> impl Iterator<Item = &ExecutionId> {
        self.asked.iter().filter(|id| !self.refused.contains_key(*id))
    }

    fn report(&self, context: &Context, group: &str) -> Result<u8, Failure> {
        let Self { cancelled, over, refused, .. } = self;
        // How these end is for the future to tell: a command may be done before the signal comes.
        let stopping = self.to_follow().count() - cancelled - over;
        for (id, why) in refused {
            context.screen.say(&format!("{id} was not cancelled: {why}"));
        }
        if context.is_json() {
            let refused: Vec<_> = refused.keys().collect();
            let json = serde_json::json!({
                "group": group, "cancelled": cancelled, "stopping": stopping, "over": over, "refused": refused
            });
            output::text(context, &format!("{json}\n"))?;
        } else {
            let text = format!("cancelled  {cancelled}\nstopping   {stopping}\nover       {over}\n");
            output::text(context, &text)?;
        }
        Ok(if refused.is_empty() { exit::SUCCESS } else { exit::FAILURE })
    }
}

/// Of a run that is in this state once it was asked to stop.
fn consequence(asked: &ExecutionStatus) -> &'static str {
    match asked {
        ExecutionStatus::Running => "its command gets TERM, and KILL after 10 s",
        asked if asked.is_final() => "it will not start",
        _ => "its task is stopped as soon as it can be",
    }
}
