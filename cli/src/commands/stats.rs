//! `mycli stats`: how many runs ended, how long they took, and what they cost.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate, NaiveTime, TimeDelta};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use domain::{
    api::{ExecutionView, HistoryPage, Listed, StatsRow, StatsView, TallyView},
    history::PAGE_MAX,
    statistics::{DatedTally, Dimension, ReportSum, Tally},
};
use serde_json::json;

use crate::{
    client::{Client, api::Got},
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    terminal::{moment, money, output, screen::one_line},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli stats                         from 30 days ago on, by day
  mycli stats --since 7d --by name    which runs are many, slow or dear
  mycli stats --by status -o json | jq '.total.success_rate'
  mycli stats --since 2026-11-01 --recount        from the records themselves

A run belongs to the day, in UTC, on which it ended. A stack counts it within some minutes
of its end. SUCCESS leaves out cancelled runs. WAIT is the time before launches, RAN that
of the command; each length is less than 2 % off. COST is about, at list price.

At most 1,000 groups, submitters and names have rows of their own on a day. All later ones
are (other).

Exit code: 0 if the statistics can be shown, or 1 if not.";

/// How long before the first day a run may have been submitted that is counted anew: history is
/// read by the time of submission. The longest timeout is seven days; waits and retries come on top.
const SUBMITTED_BEFORE: Days = Days::new(30);
/// The width of a row's name in columns, and that of a day.
const NAME: usize = 32;
const DAY: usize = 10;

/// The command line of `stats`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Stats {
    /// Only runs that ended on this day or later: 7d, a date, or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = moment::day)]
    since: NaiveDate,
    /// Group the runs by this
    #[arg(long, value_name = "PROPERTY", default_value = "day", value_parser = dimensions())]
    by: Dimension,
    /// Read the records of all these runs and add them up anew, to compare. This takes a request
    /// for each 200 runs
    #[arg(long)]
    recount: bool,
}

fn dimensions() -> impl clap::builder::TypedValueParser<Value = Dimension> {
    PossibleValuesParser::new(Dimension::ALL.map(Dimension::as_str))
        .try_map(|text| text.parse::<Dimension>())
}

impl Stats {
    /// Runs `mycli stats` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let shown = self.show(context, &client).await;
        client.close(&context.screen).await;
        shown.map(|()| exit::SUCCESS)
    }

    async fn show(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let since = moment::exact(self.since.and_time(NaiveTime::MIN).and_utc());
        let asked = [
            ("since", Some(since.as_str())),
            ("by", Some(self.by.as_str())),
        ];
        let Got { answer, value } = client.stats(&asked).await?;
        if !self.recount {
            return match context.is_json() {
                true => output::json(context, &answer),
                false => show(context, &value),
            };
        }
        let recounted = self.recount(client, value.until).await?;
        if context.is_json() {
            let both = json!({ "counted": value, "recounted": recounted });
            return output::text(context, &format!("{both}\n"));
        }
        show(context, &recounted)?;
        for line in differences(&value, &recounted) {
            context.screen.say(&line);
        }
        Ok(())
    }

    /// Adds up the runs in history that ended on the days up to this one.
    async fn recount(&self, client: &Client, until: NaiveDate) -> Result<StatsView, Failure> {
        let submitted = self.since.checked_sub_days(SUBMITTED_BEFORE);
        let submitted = submitted.unwrap_or(self.since).and_time(NaiveTime::MIN);
        let (since, limit) = (moment::exact(submitted.and_utc()), PAGE_MAX.to_string());
        let mut sum = ReportSum::new(self.by);
        let mut cursor: Option<String> = None;
        loop {
            let filter = [
                ("since", Some(since.as_str())),
                ("limit", Some(limit.as_str())),
                ("cursor", cursor.as_deref()),
            ];
            let HistoryPage {
                executions,
                next_cursor,
            } = client.history(&filter).await?.value;
            let ends = executions
                .iter()
                .filter_map(Listed::run)
                .filter_map(ExecutionView::run_end)
                .filter(|end| (self.since..=until).contains(&end.day()));
            sum.extend(ends.map(|end| {
                let mut tally = Tally::default();
                tally.add(&end);
                DatedTally {
                    day: end.day(),
                    slot: end.slot(self.by.stored()),
                    tally,
                }
            }));
            cursor = next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let mut view = StatsView::new(self.since..=until, self.by, sum.report());
        let rows = view.rows.iter_mut().map(|row| &mut row.tally);
        rows.chain([&mut view.total])
            .for_each(|tally| tally.vcpu_hours = None);
        Ok(view)
    }
}

fn show(context: &Context, stats: &StatsView) -> Result<(), Failure> {
    if stats.rows.is_empty() {
        context.screen.say(&format!(
            "no run has ended since {}, or none is counted yet",
            stats.since
        ));
        return Ok(());
    }
    output::text(context, &table(stats))
}

/// The name of a row, as people read it.
fn name(by: Dimension, row: &StatsRow) -> String {
    match (&row.value, row.other) {
        (Some(value), _) => one_line(value, NAME),
        (None, true) => "(other)".into(),
        (None, false) => format!("(no {by})"),
    }
}

fn table(stats: &StatsView) -> String {
    let names: Vec<_> = stats.rows.iter().map(|row| name(stats.by, row)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let width = longest.unwrap_or_default().max(DAY);
    let head = format!(
        "{:<width$}  {:>7}  {:>7}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}  {}\n",
        stats.by.as_str().to_uppercase(),
        "RUNS",
        "SUCCESS",
        "WAIT",
        "95 %",
        "RAN",
        "95 %",
        "VCPU-H",
        "COST"
    );
    let line = |name: &str, tally: &TallyView| {
        let text = format!("{name:<width$}  {}", cells(tally));
        format!("{}\n", text.trim_end())
    };
    let rows = names.iter().zip(&stats.rows);
    let mut text: String = std::iter::once(head)
        .chain(rows.map(|(name, row)| line(name, &row.tally)))
        .collect();
    if stats.rows.len() > 1 {
        text.push_str(&line("all", &stats.total));
    }
    text
}

/// The cells of a row after its name.
fn cells(tally: &TallyView) -> String {
    let success = tally
        .success_rate
        .map(|rate| format!("{:.1} %", 100.0 * rate));
    let cpu = tally.vcpu_hours.map(|hours| format!("{hours:.2}"));
    let length = |millis: Option<u64>| {
        let span = millis.and_then(|millis| i64::try_from(millis).ok());
        span.map(TimeDelta::milliseconds)
            .map(moment::words)
            .unwrap_or_default()
    };
    let cost = tally
        .cost
        .map(|cost| money::about(cost.usd_low, cost.usd_high));
    let unpriced = match tally.unpriced {
        0 => String::new(),
        runs => format!(" and {runs} of unknown price"),
    };
    format!(
        "{:>7}  {:>7}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}  {}{unpriced}",
        tally.runs,
        success.unwrap_or_default(),
        length(tally.wait_ms.p50),
        length(tally.wait_ms.p95),
        length(tally.run_ms.p50),
        length(tally.run_ms.p95),
        cpu.unwrap_or_default(),
        cost.unwrap_or_default(),
    )
}

/// The differences between the counts and the records, in words.
fn differences(counted: &StatsView, recounted: &StatsView) -> Vec<String> {
    let rows = |stats: &StatsView| -> BTreeMap<Option<String>, u64> {
        let rows = stats.rows.iter().filter(|row| !row.other);
        rows.map(|row| (row.value.clone(), row.tally.runs))
            .collect()
    };
    let (of_records, of_counts) = (rows(recounted), rows(counted));
    // A recount gives more values rows of their own than the counts of a day have.
    let is_whole = !counted
        .rows
        .iter()
        .chain(&recounted.rows)
        .any(|row| row.other);
    let values: BTreeSet<_> = of_counts
        .keys()
        .chain(of_records.keys().filter(|_| is_whole))
        .collect();
    let mut lines = Vec::new();
    for value in values {
        let runs = |rows: &BTreeMap<_, u64>| rows.get(value).copied();
        let found = match (runs(&of_counts), runs(&of_records)) {
            (Some(_), None) if !is_whole => continue,
            (counted, found) => [counted, found].map(Option::unwrap_or_default),
        };
        let name = value.as_deref().map_or_else(
            || format!("(no {})", counted.by),
            |value| one_line(value, NAME),
        );
        lines.extend(difference(&name, found));
    }
    lines.extend(difference(
        "all",
        [counted.total.runs, recounted.total.runs],
    ));
    if lines.is_empty() {
        lines.push("as many runs were counted as are in history".into());
    } else {
        lines.push(
            "differences come from runs of the last minutes, removed records, runs that ended before \
             statistics were there, and runs submitted more than 30 days before the first day"
                .into(),
        );
    }
    lines
}

fn difference(name: &str, [counted, found]: [u64; 2]) -> Option<String> {
    (counted != found)
        .then(|| format!("{name}: {counted} runs were counted, and {found} are in history"))
}
