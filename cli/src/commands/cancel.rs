//! `mycli cancel`: asks a run, or all runs of a group, to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use clap::Args;
use domain::{
    api::{ExecutionView, GroupCancelView, Listed},
    execution::ExecutionStatus,
    id::ExecutionId,
};

use crate::{
    client::{ApiError, Client, PAUSE, api::Got},
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    runs::{
        follow,
        group::{self, Counts, GroupWatch},
    },
    terminal::{output, prompt},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli cancel 7XQ9                   a run that waits or runs
  mycli cancel 7XQ9 --wait            returns once it is over
  mycli cancel --group nightly --yes  all runs of a group that are not over

A running command gets TERM, and KILL 10 s later.

Exit code: 0 once the stop is requested (or the run was over already), 1 if that fails.";

/// The statuses that can be cancelled, in the order a run passes through them. A run that moves on
/// while we list one status is found again in a later one.
const OPEN: [ExecutionStatus; 4] = [
    ExecutionStatus::Queued,
    ExecutionStatus::Waiting,
    ExecutionStatus::Launching,
    ExecutionStatus::Running,
];

/// The command line of `cancel`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CancelArgs {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN
    #[arg(required_unless_present = "group", conflicts_with = "group", add = values::open_runs())]
    id: Option<String>,
    /// Cancel all runs of this group that are not over
    #[arg(long, value_name = "NAME", add = values::groups())]
    group: Option<String>,
    /// Do not ask before a group is cancelled
    #[arg(short, long, requires = "group")]
    yes: bool,
    /// Wait until the run, or all runs of the group, are over
    #[arg(long)]
    wait: bool,
}

impl CancelArgs {
    /// Runs `mycli cancel` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
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
            context
                .screen
                .say(&format!("{id} was over already: {}", run.value.status));
            return self.report(context, &run);
        }
        let asked = client.cancel(&id).await?;
        context
            .screen
            .say(&format!("cancelling {id}: {}", consequence(&asked)));
        let after = if self.wait {
            follow::until_final(client, &id, &context.screen).await?
        } else {
            client.execution(id.as_str()).await?
        };
        if self.wait {
            context
                .screen
                .say(&format!("{id} is {}", after.value.status));
        }
        self.report(context, &after)
    }

    async fn cancel_group(
        &self,
        context: &Context,
        client: &Client,
        group: &str,
    ) -> Result<u8, Failure> {
        if !self.yes && prompt::can_ask() {
            let open = open(client, group).await?;
            if open.is_empty() {
                return Err(Failure::Nothing(format!(
                    "no run of the group {group} is under way"
                )));
            }
            let counts: Counts = open.values().cloned().collect();
            let question = format!("cancel {} of {group} ({})?", counts.total(), counts.line());
            if !prompt::agreed(context, &question)? {
                return Err(Failure::Nothing("nothing was cancelled".into()));
            }
        }
        let set = set_mark(client, group).await?;
        let marked = until_closed(context, client, group, set).await?;
        let mut ends = Ends {
            cancelled: marked.cancelled,
            stopping: marked.stopping,
            over: 0,
        };
        if self.wait {
            ends.over = wait_for(context, client, group, &marked).await?;
            ends.cancelled += ends.stopping.saturating_sub(ends.over);
            ends.stopping = 0;
        }
        report_group(context, group, &marked, &ends)
    }

    fn report(&self, context: &Context, run: &Got<ExecutionView>) -> Result<u8, Failure> {
        if context.is_json() {
            output::json(context, &run.answer)?;
        }
        Ok(exit::SUCCESS)
    }
}

/// The unfinished runs of a group.
async fn open(
    client: &Client,
    group: &str,
) -> Result<BTreeMap<ExecutionId, ExecutionStatus>, ApiError> {
    let mut open = BTreeMap::new();
    for status in OPEN {
        let see = |listed: Listed| {
            open.insert(listed.id().clone(), listed.status().clone());
        };
        group::walk(client, group, Some(&status), see).await?;
    }
    Ok(open)
}

/// How many runs of a group ended in which way.
struct Ends {
    cancelled: u32,
    stopping: u32,
    /// Runs that ended by themselves although they were asked to stop.
    over: u32,
}

/// Waits until all runs that the mark covers are over. Returns how many ended in another way than
/// cancelled.
async fn wait_for(
    context: &Context,
    client: &Client,
    group: &str,
    mark: &GroupCancelView,
) -> Result<u32, Failure> {
    let mut open = BTreeSet::new();
    for status in OPEN {
        let see = |listed: Listed| match listed {
            Listed::Run(run) if run.submitted_at <= mark.at => {
                open.extend([run.execution_id.clone()]);
            }
            Listed::Run(_) | Listed::Unreadable(_) => {}
        };
        group::walk(client, group, Some(&status), see).await?;
    }
    let mut watch = GroupWatch::new(
        open.into_iter().map(|id| (0, id)),
        BTreeSet::from([group.to_owned()]),
    );
    watch.follow(client, &context.screen).await?;
    context.screen.no_progress();
    let otherwise = watch
        .runs()
        .filter(|(_, run)| run.status != ExecutionStatus::Cancelled)
        .count();
    Ok(u32::try_from(otherwise).unwrap_or(u32::MAX))
}

/// Marks a group as cancelled. The mark holds from then on, whether or not anybody waits until its
/// runs are closed.
///
/// # Errors
/// The API's errors.
pub(crate) async fn set_mark(
    client: &Client,
    group: &str,
) -> Result<Option<GroupCancelView>, Failure> {
    if let Client::Local(machine) = client {
        machine.start().await.map_err(Failure::other)?;
    }
    Ok(client.cancel_group(group).await?.cancel)
}

/// Shows the progress of closing a marked group's runs, until the server has looked at all of them.
///
/// # Errors
/// The API's errors; [`Failure::Nothing`] if no run was under way.
pub(crate) async fn until_closed(
    context: &Context,
    client: &Client,
    group: &str,
    set: Option<GroupCancelView>,
) -> Result<GroupCancelView, Failure> {
    let since = set.as_ref().map(|set| set.at);
    let mut shown = set;
    while let Some(cancel) = &shown
        && !cancel.looked_at_all
    {
        context.screen.progress(&format!(
            "no more runs of {group} start; closing them: {}",
            closed(cancel)
        ));
        let got = client.group(group).await?;
        client.pause(&got.answer, false, PAUSE).await;
        // A later mark also covers this one's runs.
        shown = got.value.cancel.filter(|newer| Some(newer.at) >= since);
    }
    context.screen.no_progress();
    let nothing = || Failure::Nothing(format!("no run of the group {group} is under way"));
    shown
        .filter(|shown| shown.cancelled + shown.stopping + shown.passed_over > 0)
        .ok_or_else(nothing)
}

/// How far the cancelling of a group is, in words: `1,200 cancelled, 12 stopping`.
pub(crate) fn closed(cancel: &GroupCancelView) -> String {
    let mut text = format!(
        "{} cancelled, {} stopping",
        cancel.cancelled, cancel.stopping
    );
    if cancel.passed_over > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {} skipped", cancel.passed_over);
    }
    text
}

fn report_group(
    context: &Context,
    group: &str,
    marked: &GroupCancelView,
    ends: &Ends,
) -> Result<u8, Failure> {
    let Ends {
        cancelled,
        stopping,
        over,
    } = ends;
    if marked.passed_over > 0 {
        context.screen.say(&format!(
            "not cancelled in {group}: {}, because the record cannot be read or only a newer release can stop the run (`mycli history --group \
             {group}` shows which)",
            marked.passed_over
        ));
    }
    if context.is_json() {
        let json = serde_json::json!({
            "group": group, "at": marked.at, "cancelled": cancelled, "stopping": stopping, "over": over,
            "passed_over": marked.passed_over
        });
        output::text(context, &format!("{json}\n"))?;
    } else {
        let text = format!("cancelled  {cancelled}\nstopping   {stopping}\nover       {over}\n");
        output::text(context, &text)?;
    }
    Ok(if marked.passed_over == 0 {
        exit::SUCCESS
    } else {
        exit::FAILURE
    })
}

/// The effect of a request to stop on a run that had this status.
fn consequence(asked: &ExecutionStatus) -> &'static str {
    match asked {
        ExecutionStatus::Running => "its command gets TERM, and KILL after 10 s",
        asked if asked.is_final() => "it will not start",
        _ => "its task is stopped as soon as it can be",
    }
}
