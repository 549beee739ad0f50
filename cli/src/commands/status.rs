//! `mycli status`: shows all that is known of one run, or the state of a group.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{TimeDelta, Utc};
use clap::Args;
use domain::{
    Timestamp,
    api::{
        ArtifactsView, AttemptView, ExecutionView, GroupCancelView, GroupRerunView, Listed,
        RequestView,
    },
    group::rerun::RerunCounts,
    timing::Timings,
};
use serde::Serialize;

use crate::{
    client::{ApiError, Client},
    commands::cancel,
    commands::completions::values,
    config::{context::Context, machine::MachineFlags},
    exit,
    failure::Failure,
    runs::{follow, group, group::Counts},
    terminal::{moment, money, output, screen, screen::Screen},
};

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  mycli status                        your latest run
  mycli status 7XQ9                   by the unique end or beginning of its id, or its task's ARN
  mycli status 7XQ9 -o json | jq .waiting
  mycli status --group nightly        how many are in each status, and why some wait

Exit code: 0 if the run can be shown, whatever its result, or 1 if not.";

/// The command line of `status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Status {
    /// Which run: its id, a unique beginning or end of it, or its task's ARN [default: your latest]
    #[arg(conflicts_with = "group", add = values::runs())]
    id: Option<String>,
    /// Show the state of all runs of this group
    #[arg(long, value_name = "NAME", add = values::groups())]
    group: Option<String>,
}

impl Status {
    /// Runs `mycli status` and returns the exit code.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client(MachineFlags::default()).await?;
        let shown = match &self.group {
            Some(group) => GroupStatus::of(&client, group)
                .await
                .and_then(|status| status.show(context)),
            None => self.show(context, &client).await,
        };
        client.close(&context.screen).await;
        shown.map(|()| exit::SUCCESS)
    }

    async fn show(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let got = client.find(self.id.as_deref()).await?;
        if context.is_json() {
            output::json(context, &got.answer)
        } else {
            output::text(context, &page(&got.value, &context.screen))
        }
    }
}

/// The state of a group, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct GroupStatus {
    group: String,
    total: usize,
    counts: Counts,
    /// How many runs wait for each reason, in its latest wording.
    waiting: BTreeMap<String, usize>,
    /// The group's last cancel, and how far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<GroupCancelView>,
    /// The last rerun of failed runs into this group, and how far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun: Option<GroupRerunView>,
}

impl GroupStatus {
    async fn of(client: &Client, group: &str) -> Result<Self, Failure> {
        let (mut counts, mut by_kind) = (Counts::default(), BTreeMap::new());
        let see = |listed: Listed| {
            counts.add(listed.status().clone());
            if let Listed::Run(run) = listed
                && let Some(why) = run.waiting
            {
                // A limit's usage changes while we read its runs page by page. Reasons that differ
                // only in their numbers are one reason, and we keep the last wording.
                let kind = why
                    .reason
                    .replace(|letter: char| letter.is_ascii_digit(), "");
                let (reason, count) = by_kind
                    .entry((why.limit, kind))
                    .or_insert((String::new(), 0));
                *reason = why.reason;
                *count += 1;
            }
        };
        group::walk(client, group, None, see).await?;
        let mut waiting = BTreeMap::new();
        for (reason, count) in by_kind.into_values() {
            *waiting.entry(reason).or_insert(0) += count;
        }
        let (cancel, rerun) = match client.group(group).await {
            Ok(got) => (got.value.cancel, got.value.rerun),
            // An older stack does not have this path.
            Err(ApiError::Refused(problem)) if problem.status == 404 => (None, None),
            Err(error) => return Err(error.into()),
        };
        match counts.total() {
            0 => Err(Failure::Nothing(format!(
                "there are no runs in the group {group}"
            ))),
            total => Ok(Self {
                group: group.to_owned(),
                total,
                counts,
                waiting,
                cancel,
                rerun,
            }),
        }
    }

    fn show(&self, context: &Context) -> Result<(), Failure> {
        if context.is_json() {
            let json = serde_json::to_string(self).map_err(Failure::other)?;
            return output::text(context, &format!("{json}\n"));
        }
        let mut text = format!(
            "{}  {} of {} over\n",
            self.group,
            self.counts.over(),
            self.total
        );
        for (status, count) in self.counts.each() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}  {count:>6}", context.screen.status(status, 9));
        }
        for (reason, count) in &self.waiting {
            let _ = writeln!(
                text,
                "waiting    {count:>6}  {}",
                screen::one_line(reason, usize::MAX)
            );
        }
        if let Some(rerun) = &self.rerun {
            let going_on = match (rerun.done, rerun.cancelled) {
                (false, _) => ", going on",
                (true, true) => ", stopped because this group was cancelled",
                (true, false) => "",
            };
            let age = moment::short(Utc::now() - rerun.at);
            let RerunCounts {
                accepted,
                existing,
                rejected,
                ..
            } = rerun.counts;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "failed runs of {} run again by {} {age} ago: {} accepted, {rejected} rejected{going_on}",
                rerun.of,
                rerun.by,
                accepted + existing
            );
        }
        if let Some(cancel) = &self.cancel {
            let going_on = if cancel.looked_at_all {
                ""
            } else {
                ", going on"
            };
            let age = moment::short(Utc::now() - cancel.at);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "cancelled by {} {age} ago: {}{going_on}",
                cancel.by,
                cancel::closed(cancel)
            );
        }
        output::text(context, &text)
    }
}

/// A page with a label and a value on each line. Unknown values are left out.
struct ManPage(String);

impl ManPage {
    fn row(&mut self, label: &str, value: impl Into<Option<String>>) {
        if let Some(value) = value.into() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                self.0,
                "{label:<11}{}",
                screen::one_line(&value, usize::MAX)
            );
        }
    }
}

fn page(run: &ExecutionView, screen: &Screen) -> String {
    let mut page = ManPage(format!(
        "{}  {}\n",
        run.execution_id,
        screen.status(&run.status, 0)
    ));
    outcome_rows(&mut page, run);
    request_rows(&mut page, run);
    page.row(
        "artifacts",
        run.request.artifacts.as_ref().map(artifacts_line),
    );
    phase_rows(&mut page, run);
    page.row("phases", phases(&run.timings));
    page.row("cost", run.cost.as_ref().map(money::cost));
    attempt_rows(&mut page, &run.attempts);
    event_rows(&mut page, run);
    page.0
}

fn outcome_rows(page: &mut ManPage, run: &ExecutionView) {
    page.row("exit code", run.exit_code.map(|code| code.to_string()));
    page.row("reason", run.reason.clone());
    page.row("waiting", run.waiting.as_ref().map(follow::position));
}

/// How the repository is cloned, unless in the usual way.
fn clone(request: &RequestView) -> Option<String> {
    let depth = match request.depth.as_deref() {
        None | Some("1") => None,
        Some("full") => Some("whole history".to_owned()),
        Some(commits) => Some(format!("{commits} commits")),
    };
    let further = [
        request.submodules.then(|| "submodules".to_owned()),
        request.lfs.then(|| "large files".to_owned()),
    ];
    let parts: Vec<_> = depth
        .into_iter()
        .chain(further.into_iter().flatten())
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn request_rows(page: &mut ManPage, run: &ExecutionView) {
    let request = &run.request;
    page.row("name", request.name.clone());
    page.row("command", request.command.to_string());
    page.row("repo", request.repo.clone());
    page.row("branch", request.branch.clone());
    page.row("commit", run.commit.clone());
    page.row("clone", clone(request));
    page.row("image", request.image.clone());
    page.row("digest", run.image_digest.clone());
    page.row("env", names(request.env.keys()));
    page.row("secrets", names(request.secrets.iter()));
    page.row(
        "size",
        format!(
            "{} CPU units, {} MB{}, {}, {}",
            request.cpu,
            request.memory,
            request
                .storage
                .map_or_else(String::new, |disk| format!(", {disk} GB of disk")),
            request.arch,
            request.capacity
        ),
    );
    page.row("timeout", request.timeout.clone());
    page.row("lock", request.lock.clone());
    page.row("group", request.group.clone());
    page.row(
        "priority",
        (request.priority != 0).then(|| request.priority.to_string()),
    );
    page.row(
        "retries",
        (request.retries > 0).then(|| retries(request.retries, &request.retry_on)),
    );
}

/// The files that are kept, and their state.
fn artifacts_line(artifacts: &ArtifactsView) -> String {
    let globs = artifacts.globs.join(", ");
    let (files, bytes) = match (artifacts.files, artifacts.bytes) {
        (Some(files), Some(bytes)) => (files, bytes),
        _ => return globs,
    };
    let files = match files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let reason = artifacts.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(", not complete: {reason}"));
    let expires = artifacts.expires_at.map_or_else(String::new, |at| {
        let word = if at <= Utc::now() {
            "removed"
        } else {
            "kept until"
        };
        format!(", {word} {}", moment::shown(at))
    });
    format!("{globs}: {files}, {bytes} bytes{reason}{expires}")
}

/// The names in a list. Values may be secret and are not shown.
fn names<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let list = names.map(String::as_str).collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then_some(list)
}

fn retries(retries: u8, causes: &[String]) -> String {
    if causes.is_empty() {
        format!("up to {retries}")
    } else {
        format!("up to {retries}, on {}", causes.join(", "))
    }
}

/// Adds a row for each phase, with the time since the phase before it.
fn phase_rows(page: &mut ManPage, run: &ExecutionView) {
    page.row(
        "submitted",
        format!(
            "{} by {}",
            moment::shown(run.submitted_at),
            run.submitted_by
        ),
    );
    let mut before = run.submitted_at;
    for (label, word, at) in [
        ("launched", "after", run.launched_at),
        ("started", "after", run.started_at),
        (
            "stopped",
            if run.started_at.is_some() {
                "ran"
            } else {
                "after"
            },
            run.stopped_at,
        ),
    ] {
        if let Some(at) = at {
            page.row(
                label,
                format!(
                    "{} ({word} {})",
                    moment::shown(at),
                    moment::words(at - before)
                ),
            );
            before = at;
        }
    }
}

/// The phases with their lengths, in words.
fn phases(timings: &Timings) -> Option<String> {
    let told: Vec<_> = timings
        .phases()
        .into_iter()
        .filter_map(|(name, millis)| {
            let span = TimeDelta::milliseconds(i64::try_from(millis?).ok()?);
            Some(format!("{name} {}", moment::words(span)))
        })
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn attempt_rows(page: &mut ManPage, attempts: &[AttemptView]) {
    for attempt in attempts {
        page.row(
            &format!("attempt {}", attempt.attempt),
            attempt_line(attempt),
        );
    }
}

fn attempt_line(attempt: &AttemptView) -> String {
    let end = match (attempt.exit_code, &attempt.reason, attempt.stopped_at) {
        (_, Some(reason), _) => reason.clone(),
        (Some(code), None, _) => format!("exit code {code}"),
        (None, None, Some(_)) => "ended".into(),
        (None, None, None) => "under way".into(),
    };
    let took = attempt
        .started_at
        .zip(attempt.stopped_at)
        .map(|(from, to)| format!(", ran {}", moment::words(to - from)));
    let task = attempt.task_arn.as_ref().map(|arn| format!(", {arn}"));
    format!(
        "on {}: {end}{}{}",
        attempt.capacity,
        took.unwrap_or_default(),
        task.unwrap_or_default()
    )
}

fn event_rows(page: &mut ManPage, run: &ExecutionView) {
    for event in &run.events {
        let reason = event
            .reason
            .as_ref()
            .map(|reason| format!("  {reason}"))
            .unwrap_or_default();
        page.row(
            "",
            format!("{}  {:<9}{reason}", clock(event.at), event.status),
        );
    }
}

fn clock(at: Timestamp) -> String {
    at.with_timezone(&chrono::Local)
        .format("%H:%M:%S%.3f")
        .to_string()
}
