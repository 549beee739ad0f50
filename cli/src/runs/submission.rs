//! Sends many requests as one submission and can follow them. `bulk` and `rerun --failed` share
//! this part.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fmt::Write as _,
    pin::pin,
    time::{SystemTime, UNIX_EPOCH},
};

use chrono::{TimeDelta, Utc};
use domain::{
    Timestamp,
    api::{
        BULK_BODY_MAX, BULK_EVENT_MAX, BULK_IN_FLIGHT, BULK_MAX, BulkAnswer, BulkRejection,
        GroupCancelView, length_in_event,
    },
    execution::ExecutionStatus,
    id::ExecutionId,
    request::{FieldError, Name},
};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::Value;
use ulid::Ulid;

use crate::{
    client::{ApiError, Client},
    commands::cancel,
    config::context::Context,
    exit,
    failure::Failure,
    request::lines::{JsonKeys, ReadyLine},
    runs::group::{Counts, GroupWatch},
    terminal::{
        interrupt::{InterruptWish, Interrupts},
        output,
    },
};

pub(crate) mod reruns;

use self::reruns::Reruns;

/// The prefix of a submission's id.
const PREFIX: &str = "sub_";
/// How far the clock of the machine that made an id may be ahead of this one's. We chose an hour:
/// working clocks differ by much less, so an id further ahead was not made by mycli.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);
/// How long the API knows a submission (DESIGN §7: as long as an idempotency key).
const KNOWN_FOR: TimeDelta = TimeDelta::hours(24);

/// A submission.
#[derive(Clone, Debug)]
pub(crate) struct BulkSubmission {
    /// The submission's id.
    pub(crate) id: Name,
    /// The group of those lines that name none.
    pub(crate) group: String,
    /// Whether it was begun before.
    resumed: bool,
}

impl BulkSubmission {
    /// Begins a new submission, or resumes the one with this id.
    ///
    /// # Errors
    /// The id was not made by mycli, or the API has forgotten it by now. In either case all lines
    /// would run as new ones.
    pub(crate) fn begin(resume: Option<&Name>, group: Option<&str>) -> Result<Self, Failure> {
        let id = match resume {
            Some(id) => resumable(id)?,
            None => new_id()?,
        };
        Ok(Self {
            group: group.unwrap_or(id.as_str()).to_owned(),
            resumed: resume.is_some(),
            id,
        })
    }

    /// Whether the submission was begun before, so that some of its lines may be accepted already.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether its group has the same name as the submission.
    pub(crate) fn names_its_group(&self) -> bool {
        self.group == self.id.as_str()
    }

    /// Adds the submission's group to a line's keys, unless they name a group.
    pub(crate) fn group_in(&self, mut keys: JsonKeys) -> JsonKeys {
        if keys.get("group").is_none_or(Value::is_null) {
            keys.insert("group".into(), Value::String(self.group.clone()));
        }
        keys
    }
}

/// Returns the id if the API may still know it. Only the answers for the lines show whether it
/// does.
fn resumable(id: &Name) -> Result<Name, Failure> {
    let now = Utc::now();
    let why = match made_at(id) {
        Some(at) if now - at > KNOWN_FOR => {
            let at = crate::terminal::moment::shown(at);
            format!(
                "{id} began at {at}, and a submission can be resumed only for 24 hours; `mycli history --group {id}` shows its runs"
            )
        }
        Some(at) if at - now <= CLOCKS_DIFFER => return Ok(id.clone()),
        _ => format!(
            "`{id}` is not a submission's id: an id begins with {PREFIX}, and the interrupted command printed it in its first line. Without \
             --resume, this is a new submission"
        ),
    };
    Err(Failure::Usage(format!("--resume: {why}")))
}

fn new_id() -> Result<Name, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Other(format!("failed to get random bytes: {error}")))?;
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let millis = u64::try_from(millis).map_err(Failure::other)?;
    let id = format!(
        "{PREFIX}{}",
        Ulid::from_parts(millis, u128::from_le_bytes(bytes))
    );
    id.parse::<Name>()
        .map_err(|error| Failure::Other(format!("the submission's id {error}")))
}

/// When a submission's id was made. `None` for an id that is spelled differently, for example in
/// lower case: to the API that is another id.
fn made_at(id: &Name) -> Option<Timestamp> {
    let text = id.as_str().strip_prefix(PREFIX)?;
    let ulid = Ulid::from_string(text)
        .ok()
        .filter(|ulid| ulid.to_string() == text)?;
    Timestamp::from_timestamp_millis(i64::try_from(ulid.timestamp_ms()).ok()?)
}

/// The outcomes of the lines.
#[derive(Debug, Default)]
struct Sent {
    accepted: Vec<(usize, ExecutionId)>,
    existing: Vec<(usize, ExecutionId)>,
    rejected: Vec<(usize, Vec<FieldError>)>,
}

impl Sent {
    /// Makes it from the API's answer. `lines` gives the line number for an index.
    fn of(answer: BulkAnswer, lines: &[ReadyLine]) -> Self {
        let number = |index: u32| {
            usize::try_from(index)
                .ok()
                .and_then(|index| Some(lines.get(index)?.number))
        };
        let known =
            |entry: domain::api::BulkEntry| Some((number(entry.index)?, entry.execution_id));
        let rejected = |entry: BulkRejection| Some((number(entry.index)?, entry.errors));
        Self {
            accepted: answer.accepted.into_iter().filter_map(known).collect(),
            existing: answer.existing.into_iter().filter_map(known).collect(),
            rejected: answer.rejected.into_iter().filter_map(rejected).collect(),
        }
    }

    fn add(&mut self, more: Self) {
        self.accepted.extend(more.accepted);
        self.existing.extend(more.existing);
        self.rejected.extend(more.rejected);
    }

    fn totals(&self) -> Totals {
        Totals {
            accepted: self.accepted.len(),
            existing: self.existing.len(),
            rejected: self.rejected.len(),
        }
    }

    fn count(&self) -> usize {
        self.accepted.len() + self.existing.len() + self.rejected.len()
    }

    fn sorted(mut self) -> Self {
        self.accepted.sort();
        self.existing.sort();
        self.rejected.sort_by_key(|(line, _)| *line);
        self
    }

    fn recorded(&self) -> impl Iterator<Item = &(usize, ExecutionId)> {
        self.accepted.iter().chain(&self.existing)
    }
}

/// How many lines had each outcome.
#[derive(Clone, Copy, Debug)]
struct Totals {
    accepted: usize,
    existing: usize,
    rejected: usize,
}

/// The groups that were marked as cancelled, and what the API answered to each mark.
type GroupMarks = Vec<(String, Option<GroupCancelView>)>;

/// How sending ended.
enum WaitEnd {
    All,
    Interrupted,
    /// The whole submission is to be cancelled. Holds the marks, if no answer has come since they
    /// were set.
    Cancelled(Option<GroupMarks>),
    Failed(Failure),
}

/// The parts of a submission.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Batch<'a> {
    /// The lines of a `bulk`, many in one request.
    Lines(&'a [ReadyLine]),
    /// Runs that the server runs again.
    Reruns(&'a Reruns),
}

impl<'a> Batch<'a> {
    fn len(self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Reruns(reruns) => reruns.len(),
        }
    }

    /// The earlier run that the one with this number repeats.
    fn before(self, number: usize) -> Option<&'a ExecutionId> {
        match self {
            Self::Lines(_) => None,
            Self::Reruns(reruns) => reruns.before(number),
        }
    }

    /// The groups that the runs are in.
    fn groups(self, submission: &BulkSubmission) -> BTreeSet<String> {
        match self {
            Self::Lines(lines) => {
                let own = lines
                    .iter()
                    .map(|line| line.keys.get("group").and_then(Value::as_str));
                own.map(|group| group.unwrap_or(&submission.group).to_owned())
                    .collect()
            }
            Self::Reruns(_) => [submission.group.clone()].into(),
        }
    }
}

/// Splits the lines into request bodies, in order.
fn chunks(submission: &BulkSubmission, lines: &[ReadyLine]) -> Vec<Vec<u8>> {
    let head = |first: usize| {
        format!(
            r#"{{"submission_id":"{}","first_index":{first},"executions":["#,
            submission.id
        )
    };
    let (mut chunks, mut first, mut body) = (Vec::new(), 0, head(0));
    let mut in_event = length_in_event(&body);
    for (index, line) in lines.iter().enumerate() {
        let text = Value::Object(line.keys.clone()).to_string();
        let length = length_in_event(&text);
        let is_long = body.len() + text.len() + AROUND > BULK_BODY_MAX
            || in_event + length + AROUND > BULK_EVENT_MAX;
        if (index - first == BULK_MAX || is_long) && index > first {
            chunks.push(closed(std::mem::replace(&mut body, head(index))));
            (first, in_event) = (index, length_in_event(&body));
        }
        let comma = if index > first { "," } else { "" };
        body.push_str(comma);
        body.push_str(&text);
        in_event += comma.len() + length;
    }
    chunks.push(closed(body));
    chunks
}

/// The bytes that may still be added to a body: a comma before a line, and the end.
const AROUND: usize = ",]}".len();

fn closed(body: String) -> Vec<u8> {
    (body + "]}").into_bytes()
}

/// Sends the lines of a `bulk`, then follows the runs if `wait`. Returns the exit code.
///
/// # Errors
/// A request was refused or had no answer. The lines accepted before have been reported by then.
pub(crate) async fn run(
    context: &Context,
    client: &Client,
    submission: &BulkSubmission,
    lines: &[ReadyLine],
    wait: bool,
) -> Result<u8, Failure> {
    let batch = Batch::Lines(lines);
    let mut interrupts = Interrupts::catch().map_err(Failure::io("catch signals"))?;
    let id = &submission.id;
    let begun = if submission.resumed {
        "resuming"
    } else {
        "submitting"
    };
    context.screen.say(&format!(
        "{begun} {} {} as {id}; if interrupted, the same command with --resume {id} continues",
        batch.len(),
        runs(batch.len())
    ));
    let mut sent = Sent::default();
    let ended = send(
        context,
        client,
        submission,
        lines,
        &mut interrupts,
        &mut sent,
    )
    .await;
    context.screen.no_progress();
    let sent = sent.sorted();
    if submission.resumed && sent.existing.is_empty() && !sent.accepted.is_empty() {
        context.screen.say(&format!(
            "nothing was known of {id}: {} new {} for the first time. If you meant another submission, check the id, the key and the stack; \
             `{} cancel --group {}` stops the new runs",
            sent.accepted.len(),
            if sent.accepted.len() == 1 { "run was submitted" } else { "runs were submitted" },
            program(context),
            submission.group
        ));
    }
    tell_rejected(context, batch, &sent);
    let told = Told {
        context,
        client,
        submission,
        batch,
        totals: sent.totals(),
        sent: &sent,
    };
    match ended {
        WaitEnd::All => told.all_sent(wait, &mut interrupts).await,
        WaitEnd::Cancelled(marks) => told.cancelled(marks, &mut interrupts).await,
        WaitEnd::Interrupted => {
            go_on(context, submission, &sent, batch.len());
            told.report(None)?;
            Ok(exit::CANCELLED)
        }
        WaitEnd::Failed(error) => {
            go_on(context, submission, &sent, batch.len());
            told.report(None)?;
            Err(error)
        }
    }
}

fn runs(count: usize) -> &'static str {
    if count == 1 { "run" } else { "runs" }
}

async fn send(
    context: &Context,
    client: &Client,
    submission: &BulkSubmission,
    lines: &[ReadyLine],
    interrupts: &mut Interrupts,
    sent: &mut Sent,
) -> WaitEnd {
    let (is_cancelled, mut marks) = (Cell::new(false), None);
    let asked = async |body| Ok::<_, ApiError>(Sent::of(client.submit_lines(body).await?, lines));
    let chunks = chunks(submission, lines)
        .into_iter()
        .take_while(|_| !is_cancelled.get());
    let mut answers = pin!(
        stream::iter(chunks)
            .map(asked)
            .buffer_unordered(BULK_IN_FLIGHT)
    );
    let what = all_of(submission);
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            wish = wish(interrupts, &what, context, is_cancelled.get()) => match wish {
                InterruptWish::Stay => continue,
                InterruptWish::Detach if is_cancelled.get() => return WaitEnd::Cancelled(marks),
                InterruptWish::Detach => return WaitEnd::Interrupted,
                InterruptWish::Cancel => {
                    is_cancelled.set(true);
                    // Nothing more starts from now on. The API may not know the submission yet, and
                    // then the requests under way create it. So we wait for them, and mark the
                    // groups again if any was accepted.
                    match mark_all(client, submission, Batch::Lines(lines)).await {
                        Ok(set) => marks = Some(set),
                        Err(error) => return WaitEnd::Failed(error),
                    }
                    continue;
                }
            },
        };
        match answer {
            None if is_cancelled.get() => return WaitEnd::Cancelled(marks),
            None => return WaitEnd::All,
            Some(Err(error)) => return WaitEnd::Failed(error.into()),
            Some(Ok(more)) => {
                sent.add(more);
                marks = None;
            }
        }
        context.screen.gauge(sent.count(), lines.len(), "submitted");
    }
}

/// The user's next wish. After a cancel there is nothing left to ask, so any signal means to leave.
async fn wish(
    interrupts: &mut Interrupts,
    what: &str,
    context: &Context,
    is_cancelled: bool,
) -> InterruptWish {
    if is_cancelled {
        interrupts.any().await;
        return InterruptWish::Detach;
    }
    interrupts.wish(what, &context.screen).await
}

fn tell_rejected(context: &Context, batch: Batch<'_>, sent: &Sent) {
    for (line, errors) in &sent.rejected {
        let what = batch
            .before(*line)
            .map_or_else(|| format!("line {line}"), |id| format!("the rerun of {id}"));
        for error in errors {
            context.screen.say(&format!("{what} is rejected: {error}"));
        }
    }
}

/// The description of what the Ctrl-C prompt would cancel.
fn all_of(submission: &BulkSubmission) -> String {
    format!("all of the group {}", submission.group)
}

/// Marks the groups of a submission as cancelled, and shows the progress of closing them. Lines
/// that arrive later are subject to the mark too. Another signal ends the waiting; the marks stay.
async fn cancel_all(
    context: &Context,
    client: &Client,
    submission: &BulkSubmission,
    batch: Batch<'_>,
    marks: Option<GroupMarks>,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    // All groups are marked first, so that none of the last group starts while the first is being
    // closed.
    let marks = match marks {
        Some(marks) => marks,
        None => mark_all(client, submission, batch).await?,
    };
    for (group, mark) in marks {
        let closed = tokio::select! {
            closed = cancel::until_closed(context, client, &group, mark) => closed,
            () = interrupts.any() => {
                context.screen.no_progress();
                context.screen.say("no more of its runs start; running ones are stopped in the background");
                return Ok(());
            }
        };
        match closed {
            Ok(cancel) => context.screen.say(&format!(
                "cancelled the group {group}: {}",
                cancel::closed(&cancel)
            )),
            // Every run was over already, or none had been accepted.
            Err(Failure::Nothing(_)) => context.screen.say(&format!("cancelled the group {group}")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Marks each of the groups as cancelled.
async fn mark_all(
    client: &Client,
    submission: &BulkSubmission,
    batch: Batch<'_>,
) -> Result<GroupMarks, Failure> {
    let mut marked = Vec::new();
    for group in batch.groups(submission) {
        let mark = cancel::set_mark(client, &group).await?;
        marked.push((group, mark));
    }
    Ok(marked)
}

/// Says how far sending got when it was cut short. A request under way may still have been
/// accepted.
fn go_on(context: &Context, submission: &BulkSubmission, sent: &Sent, of: usize) {
    let id = &submission.id;
    let recorded = sent.recorded().count();
    context.screen.say(&format!(
        "interrupted: {recorded} of {of} are known to be accepted, and will run; the same command with --resume {id} continues, \
         `{} cancel --group {}` stops them",
        program(context),
        submission.group
    ));
}

fn program(context: &Context) -> &'static str {
    if context.global.local {
        "mycli --local"
    } else {
        "mycli"
    }
}

/// A submission that was sent and its outcomes, for reporting to the user.
struct Told<'a> {
    context: &'a Context,
    client: &'a Client,
    submission: &'a BulkSubmission,
    batch: Batch<'a>,
    /// The runs to report.
    sent: &'a Sent,
    totals: Totals,
}

impl Told<'_> {
    /// Handles a submission that was sent completely: follows the runs if `wait`. Returns the exit
    /// code.
    async fn all_sent(&self, wait: bool, interrupts: &mut Interrupts) -> Result<u8, Failure> {
        if wait {
            return self.follow(interrupts).await;
        }
        self.report(None)?;
        Ok(if self.totals.rejected == 0 {
            exit::SUCCESS
        } else {
            exit::FAILURE
        })
    }

    /// Cancels the whole submission. Sets the marks unless they are given.
    async fn cancelled(
        &self,
        marks: Option<GroupMarks>,
        interrupts: &mut Interrupts,
    ) -> Result<u8, Failure> {
        let Self {
            context,
            client,
            submission,
            batch,
            ..
        } = self;
        let cancelled = cancel_all(context, client, submission, *batch, marks, interrupts).await;
        self.report(None)?;
        cancelled.map(|()| exit::CANCELLED)
    }

    async fn follow(&self, interrupts: &mut Interrupts) -> Result<u8, Failure> {
        let Self {
            context,
            client,
            submission,
            batch,
            sent,
            ..
        } = self;
        let mut watch = GroupWatch::new(sent.recorded().cloned(), batch.groups(submission));
        let what = all_of(submission);
        let ended = loop {
            let wish = tokio::select! {
                ended = watch.follow(client, &context.screen) => break Some(ended),
                wish = interrupts.wish(&what, &context.screen) => wish,
            };
            match wish {
                InterruptWish::Stay => {}
                InterruptWish::Detach => break None,
                InterruptWish::Cancel => {
                    cancel_all(context, client, submission, *batch, None, interrupts).await?;
                }
            }
        };
        context.screen.no_progress();
        self.report(Some(&watch))?;
        let group = &submission.group;
        match ended {
            Some(Ok(())) => {
                let all = watch
                    .runs()
                    .all(|(_, run)| run.status == ExecutionStatus::Succeeded);
                Ok(if all && self.totals.rejected == 0 {
                    exit::SUCCESS
                } else {
                    exit::FAILURE
                })
            }
            Some(Err(error)) => Err(error.into()),
            None => {
                let program = program(context);
                context.screen.say(&format!(
                    "no longer following; the runs go on. To look at them: {program} status --group {group}   to stop them: {program} \
                     cancel --group {group}"
                ));
                Ok(exit::CANCELLED)
            }
        }
    }

    fn report(&self, watch: Option<&GroupWatch>) -> Result<(), Failure> {
        let Self {
            context,
            submission,
            batch,
            sent,
            ..
        } = self;
        if !context.is_json() {
            return output::text(context, &self.text(watch));
        }
        let report = Report {
            submission_id: submission.id.as_str(),
            group: &submission.group,
            accepted: entries(*batch, &sent.accepted),
            existing: entries(*batch, &sent.existing),
            rejected: sent
                .rejected
                .iter()
                .map(|(line, errors)| RejectionReport {
                    line: *line,
                    rerun_of: batch.before(*line),
                    errors,
                })
                .collect(),
            counts: watch.map(GroupWatch::counts),
            failed: watch.map(|watch| failed(*batch, watch)),
        };
        let json = serde_json::to_string(&report).map_err(Failure::other)?;
        output::text(context, &format!("{json}\n"))
    }

    fn text(&self, watch: Option<&GroupWatch>) -> String {
        let Totals {
            accepted,
            existing,
            rejected,
        } = self.totals;
        let mut text = format!("accepted  {accepted}\n");
        for (label, count) in [("existing", existing), ("rejected", rejected)] {
            if count > 0 {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label}  {count}");
            }
        }
        let (group, program) = (&self.submission.group, program(self.context));
        let _ = writeln!(text, "group     {group}");
        let Some(watch) = watch else {
            let _ = write!(
                text,
                "next      {program} status --group {group}\n          {program} history --group {group} --status failed\n          \
                 {program} cancel --group {group}\n"
            );
            return text;
        };
        let _ = writeln!(text, "ended     {}", watch.counts().line());
        for run in failed(self.batch, watch) {
            let reason = run
                .reason
                .map(|reason| crate::terminal::screen::one_line(reason, usize::MAX))
                .unwrap_or_default();
            let what = run.rerun_of.map_or_else(
                || format!("line {}", run.line),
                |before| format!("rerun of {before}"),
            );
            let _ = writeln!(
                text,
                "{what}  {}  {}  {reason}",
                run.execution_id, run.status
            );
        }
        if watch
            .runs()
            .any(|(_, run)| run.over && run.status != ExecutionStatus::Succeeded)
        {
            let _ = writeln!(text, "next      {program} rerun --failed --group {group}");
        }
        text
    }
}

/// The report that `-o json` prints.
#[derive(Serialize)]
struct Report<'a> {
    submission_id: &'a str,
    group: &'a str,
    accepted: Vec<ReportEntry<'a>>,
    existing: Vec<ReportEntry<'a>>,
    rejected: Vec<RejectionReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Vec<Failed<'a>>>,
}

#[derive(Serialize)]
struct ReportEntry<'a> {
    line: usize,
    execution_id: &'a ExecutionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun_of: Option<&'a ExecutionId>,
}

#[derive(Serialize)]
struct RejectionReport<'a> {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun_of: Option<&'a ExecutionId>,
    errors: &'a [FieldError],
}

#[derive(Serialize)]
struct Failed<'a> {
    line: usize,
    execution_id: &'a ExecutionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun_of: Option<&'a ExecutionId>,
    status: &'a ExecutionStatus,
    exit_code: Option<i32>,
    reason: Option<&'a str>,
}

fn entries<'a>(batch: Batch<'a>, entries: &'a [(usize, ExecutionId)]) -> Vec<ReportEntry<'a>> {
    let entry = |(line, execution_id): &'a (usize, ExecutionId)| ReportEntry {
        line: *line,
        execution_id,
        rerun_of: batch.before(*line),
    };
    entries.iter().map(entry).collect()
}

/// The runs that are over and did not succeed, in the order of their lines. The order of ids may
/// differ.
fn failed<'a>(batch: Batch<'a>, watch: &'a GroupWatch) -> Vec<Failed<'a>> {
    let ended = watch
        .runs()
        .filter(|(_, run)| run.over && run.status != ExecutionStatus::Succeeded);
    let mut failed: Vec<_> = ended
        .map(|(execution_id, run)| Failed {
            line: run.line,
            execution_id,
            rerun_of: batch.before(run.line),
            status: &run.status,
            exit_code: run.exit_code,
            reason: run.reason.as_deref(),
        })
        .collect();
    failed.sort_by_key(|run| run.line);
    failed
}

#[cfg(test)]
mod tests {
    use domain::api::BulkRequest;
    use serde_json::json;

    use super::*;

    fn line(number: usize, command: &str) -> ReadyLine {
        let Value::Object(keys) = json!({"command": command}) else {
            panic!("an object")
        };
        ReadyLine { number, keys }
    }

    fn check(lines: &[ReadyLine], expected: &[(u32, usize)]) {
        let submission = BulkSubmission::begin(None, None).unwrap();
        let chunks = chunks(&submission, lines);
        let read: Vec<BulkRequest> = chunks
            .iter()
            .map(|body| serde_json::from_slice(body).unwrap())
            .collect();
        assert_eq!(
            read.iter()
                .map(|chunk| (chunk.first_index, chunk.executions.len()))
                .collect::<Vec<_>>(),
            expected
        );
        for chunk in &chunks {
            let event = serde_json::to_string(std::str::from_utf8(chunk).unwrap()).unwrap();
            assert!(
                chunk.len() <= BULK_BODY_MAX && event.len() - 2 <= BULK_EVENT_MAX,
                "{}",
                event.len()
            );
        }
        let sent = read
            .into_iter()
            .flat_map(|chunk| chunk.executions)
            .map(|request| request.command.unwrap().to_string());
        assert!(
            sent.eq(lines
                .iter()
                .map(|line| line.keys["command"].as_str().unwrap().to_owned()))
        );
    }

    #[test]
    fn chunks_keep_to_the_api_s_limits() {
        let small: Vec<_> = (0..1001).map(|number| line(number * 2, "true")).collect();
        check(&small, &[(0, 500), (500, 500), (1000, 1)]);
        let large: Vec<_> = (0..7)
            .map(|number| line(number, &"x".repeat(1_000_000)))
            .collect();
        check(&large, &[(0, 4), (4, 3)]);
        // Each quote takes two bytes in a request, and four in the event that Lambda receives.
        let quotes: Vec<_> = (0..7)
            .map(|number| line(number, &"\"".repeat(500_000)))
            .collect();
        check(&quotes, &[(0, 2), (2, 2), (4, 2), (6, 1)]);
    }

    #[test]
    fn an_old_submission_is_not_begun_anew() {
        let old: Name = format!("{PREFIX}{}", Ulid::from_parts(1_764_000_000_000, 7))
            .parse()
            .unwrap();
        assert!(matches!(
            BulkSubmission::begin(Some(&old), None),
            Err(Failure::Usage(_))
        ));
        let own = new_id().unwrap();
        assert_eq!(
            BulkSubmission::begin(Some(&own), None).unwrap().group,
            own.as_str()
        );
    }

    #[test]
    fn what_was_never_a_submission_s_id_is_not_resumed() {
        let future = format!("{PREFIX}{}", Ulid::from_parts(32_503_680_000_000, 7));
        let own = new_id().unwrap();
        let cut = &own.as_str()[..own.as_str().len() - 1];
        for wrong in [
            "nightly",
            "sub_",
            "sub_1",
            cut,
            "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9",
            &future,
        ] {
            let Err(Failure::Usage(words)) =
                BulkSubmission::begin(Some(&wrong.parse().unwrap()), None)
            else {
                panic!("{wrong} is resumed")
            };
            assert!(
                words.starts_with("--resume: `") && words.contains("is not a submission's id"),
                "{words}"
            );
        }
    }
}
