//! `mycli history`: runs, newest first.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use clap::Args;
use domain::{
    Timestamp,
    api::{CostView, ExecutionView, HistoryPage, Listed, UnreadableView},
    execution::ExecutionStatus,
    history::{PAGE_DEFAULT, PAGE_MAX},
};

use crate::{
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    request::number::whole,
    runs::follow,
    terminal::{
        moment, money, output,
        screen::{Screen, one_line},
    },
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli history                       the latest 20
  mycli history --by me --since 2h
  mycli history --status failed --limit 100
  mycli history --group nightly -o json | jq -r '.executions[].execution_id'

Exit code: 0 if the runs can be shown, whatever their results, or 1 if not.";

/// The width of the columns before the command: id, status, exit code, age and run time, with two
/// spaces after each.
const FIXED: usize = 31 + 2 + 10 + 2 + 4 + 2 + 4 + 2 + 4 + 2;
/// The width of the column of the cost, and of the two spaces after it.
const COST: usize = 8 + 2;
/// The width of a terminal that has room for the cost, in columns: 27 are left for the command.
const WITH_COST: usize = 100;

/// The command line of `history`.
#[derive(Args, Clone, Debug)]
pub(crate) struct History {
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = PAGE_DEFAULT, value_parser = whole(1..=PAGE_MAX))]
    limit: u32,
    /// Only runs in this status: queued, waiting, launching, running, succeeded, failed,
    /// timed_out, cancelled, lost
    #[arg(long, value_parser = str::parse::<ExecutionStatus>, add = values::statuses())]
    status: Option<ExecutionStatus>,
    /// Only runs submitted since then: 30m, 2h, a date, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment::since)]
    since: Option<Timestamp>,
    /// Only runs of this group
    #[arg(long, value_name = "NAME", add = values::groups())]
    group: Option<String>,
    /// Only runs submitted with the key of this name; `me` is your own key
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Continue where an earlier page ended
    #[arg(long)]
    cursor: Option<String>,
}

impl History {
    /// Runs `mycli history` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let (limit, since) = (self.limit.to_string(), self.since.map(moment::exact));
        let filter = [
            ("limit", Some(limit.as_str())),
            ("status", self.status.as_ref().map(ExecutionStatus::as_str)),
            ("since", since.as_deref()),
            ("group", self.group.as_deref()),
            ("by", self.by.as_deref()),
            ("cursor", self.cursor.as_deref()),
        ];
        let got = client.history(&filter).await;
        client.close(&context.screen).await;
        let got = got?;
        if context.is_json() {
            output::json(context, &got.answer)?;
        } else {
            output::text(context, &table(&got.value, &context.screen, Utc::now()))?;
        }
        advice(context, &got.value);
        Ok(exit::SUCCESS)
    }
}

/// Tells people how to see more. Programs read `next_cursor`.
fn advice(context: &Context, page: &HistoryPage) {
    if context.is_json() {
        return;
    }
    if page.executions.is_empty() && page.next_cursor.is_none() {
        context.screen.say("no runs");
    }
    if let Some(unreadable) = page.executions.iter().find(|listed| listed.run().is_none()) {
        let id = unreadable.id();
        context.screen.say(&format!(
            "UNREADABLE: this mycli cannot read the record. A newer one may; `mycli forget {id}` removes it (with --local on one machine)"
        ));
    }
    if let Some(cursor) = &page.next_cursor {
        context
            .screen
            .say(&format!("there are more runs: add --cursor {cursor}"));
    }
}

fn table(page: &HistoryPage, screen: &Screen, now: Timestamp) -> String {
    if page.executions.is_empty() {
        return String::new();
    }
    let runs = || page.executions.iter().filter_map(Listed::run);
    let has_cost = screen.width() >= WITH_COST && runs().any(|run| run.cost.is_some());
    let columns = Columns {
        screen,
        now,
        has_cost,
        command: screen.width() - FIXED - if has_cost { COST } else { 0 },
    };
    let head = format!(
        "{:<31}  {:<10}  {:>4}  {:>4}  {:>4}  {}{}\n",
        "ID",
        "STATUS",
        "EXIT",
        "AGE",
        "RAN",
        columns.cost("MAX COST"),
        "COMMAND"
    );
    let rows = page.executions.iter().map(|listed| match listed {
        Listed::Run(run) => row(run, &columns),
        Listed::Unreadable(unreadable) => unreadable_row(unreadable, &columns),
    });
    std::iter::once(head)
        .chain(rows)
        .chain(reasons(page))
        .chain(cost(runs()))
        .collect()
}

/// The form of the table's rows.
struct Columns<'a> {
    screen: &'a Screen,
    now: Timestamp,
    has_cost: bool,
    /// The width of the command's column.
    command: usize,
}

impl Columns<'_> {
    /// The column of the cost, if there is one.
    fn cost(&self, text: &str) -> String {
        if self.has_cost {
            format!("{text:>8}  ")
        } else {
            String::new()
        }
    }
}

/// A line with the cost of all runs that have ended, if it is known of any.
fn cost<'a>(runs: impl Iterator<Item = &'a ExecutionView>) -> Option<String> {
    let costs: Vec<_> = runs.filter_map(|run| run.cost.as_ref()).collect();
    let count = costs.len();
    let sum = |of: fn(&CostView) -> f64| costs.iter().map(|cost| of(cost)).sum();
    let about = money::about(sum(|cost| cost.usd_low), sum(|cost| cost.usd_high));
    let basis: BTreeSet<_> = costs
        .iter()
        .flat_map(|cost| cost.basis.split("; "))
        .collect();
    let basis: Vec<_> = basis.into_iter().collect();
    (count > 0).then(|| format!("{count} of them cost {about}, at {}\n", basis.join("; ")))
}

/// Why runs on the page wait, with each reason once.
fn reasons(page: &HistoryPage) -> impl Iterator<Item = String> {
    let mut reasons: BTreeMap<&str, (usize, Option<u64>)> = BTreeMap::new();
    for waiting in page
        .executions
        .iter()
        .filter_map(|listed| listed.run()?.waiting.as_ref())
    {
        let (count, longest) = reasons.entry(&waiting.reason).or_default();
        *count += 1;
        *longest = (*longest).max(waiting.estimate_seconds);
    }
    reasons.into_iter().map(|(reason, (count, longest))| {
        let verb = if count == 1 { "waits" } else { "wait" };
        let longest = longest
            .and_then(|seconds| i64::try_from(seconds).ok())
            .map(TimeDelta::seconds);
        let about = longest.map_or_else(String::new, |span| {
            format!(", the last for about {}", moment::words(span))
        });
        format!("{count} {verb}: {reason}{about}\n")
    })
}

fn row(run: &ExecutionView, columns: &Columns<'_>) -> String {
    let code = run
        .exit_code
        .map(|code| code.to_string())
        .unwrap_or_default();
    let cost = run.cost.as_ref().map(|cost| money::dollars(cost.usd_high));
    let command = run.request.command.to_string();
    let what = run.request.name.as_ref().unwrap_or(&command);
    let what = &run.waiting.as_ref().map_or_else(
        || what.clone(),
        |waiting| format!("{} in line: {what}", follow::ordinal(waiting.position)),
    );
    format!(
        "{:<31}  {}  {code:>4}  {:>4}  {:>4}  {}{}\n",
        run.execution_id,
        columns.screen.status(&run.status, 10),
        moment::short(columns.now - run.submitted_at),
        ran(run, columns.now).map(moment::short).unwrap_or_default(),
        columns.cost(&cost.unwrap_or_default()),
        one_line(what, columns.command),
    )
}

/// The row of an unreadable record. Only its submission time is known, and why the rest is not.
fn unreadable_row(run: &UnreadableView, columns: &Columns<'_>) -> String {
    format!(
        "{:<31}  {}  {:>4}  {:>4}  {:>4}  {}{}\n",
        run.execution_id,
        columns.screen.status(&run.status, 10),
        "",
        moment::short(columns.now - run.submitted_at),
        "",
        columns.cost(""),
        one_line(&run.reason, columns.command),
    )
}

/// How long the command ran, or has run so far.
fn ran(run: &ExecutionView, now: Timestamp) -> Option<TimeDelta> {
    Some(run.stopped_at.unwrap_or(now) - run.started_at?)
}
