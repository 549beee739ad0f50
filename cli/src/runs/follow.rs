//! Follows a run: shows its log as it grows, its status while there is no log, and how it ended.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    pin::pin,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::{ExecutionView, LogLineView, WaitingView},
    backoff,
    id::ExecutionId,
};

use crate::{
    client::{ApiError, Client, PAUSE, api::Got},
    failure::Failure,
    terminal::{
        interrupt::{InterruptWish, Interrupts},
        moment,
        screen::{Screen, Stream},
    },
};

/// A page with fewer lines than this reaches the current end of the log. After a fuller page there
/// may be more lines at once.
const FULL_PAGE: usize = 100;
/// CloudWatch Logs may return empty pages in the middle of a log (`GetLogEvents`). We take this
/// many empty pages in a row as its end.
const EMPTY_PAGES: u32 = 10;
/// How often a quiet run's record is read, in case its log is never marked complete.
const RECORD_EVERY: Duration = Duration::from_secs(5);
/// The message while reads of the log are throttled.
const THROTTLED: &str =
    "logs are read too often in this AWS account and region; waiting for a turn";
/// How long to wait for the rest of a log after its run is over.
const LATE_LOG: Duration = Duration::from_secs(60);

/// Which log lines to show, how, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Show {
    /// If set, shows only this many of the lines that exist already.
    pub(crate) tail: Option<usize>,
    /// If set, shows only lines from this time on.
    pub(crate) since: Option<Timestamp>,
    /// Whether each line begins with its time.
    pub(crate) timestamps: bool,
    /// Whether each line is a JSON object.
    pub(crate) json: bool,
    /// The stream to write to.
    pub(crate) to: Stream,
}

impl Show {
    /// Shows all lines unchanged.
    pub(crate) fn all(to: Stream) -> Self {
        Self {
            tail: None,
            since: None,
            timestamps: false,
            json: false,
            to,
        }
    }

    fn line(&self, line: &LogLineView) -> String {
        if self.json {
            return format!(
                "{}\n",
                serde_json::json!({"at": moment::exact(line.at), "text": line.text})
            );
        }
        let at = if self.timestamps {
            format!("{} ", moment::exact(line.at))
        } else {
            String::new()
        };
        format!("{at}{}\n", line.text)
    }
}

/// Prints lines page by page. With `tail`, the lines that exist already are held back until the end
/// of the log is known.
struct Printer<'a> {
    show: Show,
    screen: &'a Screen,
    held: Option<VecDeque<String>>,
}

impl<'a> Printer<'a> {
    fn new(show: Show, screen: &'a Screen) -> Self {
        Self {
            show,
            screen,
            held: show.tail.map(|_| VecDeque::new()),
        }
    }

    fn page(&mut self, lines: &[LogLineView]) -> Result<(), Failure> {
        let wanted = lines
            .iter()
            .filter(|line| self.show.since.is_none_or(|since| line.at >= since));
        let texts = wanted.map(|line| self.show.line(line));
        match &mut self.held {
            Some(held) => {
                held.extend(texts);
                let excess = held
                    .len()
                    .saturating_sub(self.show.tail.unwrap_or_default());
                held.drain(..excess);
                Ok(())
            }
            None => self.put(&texts.collect::<String>()),
        }
    }

    /// Prints the held lines: all lines that existed already have been read.
    fn caught_up(&mut self) -> Result<(), Failure> {
        let held = self.held.take().unwrap_or_default();
        self.put(&held.into_iter().collect::<String>())
    }

    fn put(&self, text: &str) -> Result<(), Failure> {
        if !text.is_empty() {
            self.screen.no_progress();
        }
        self.screen
            .write(self.show.to, text)
            .map_err(Failure::io("write the log"))
    }
}

/// Prints the log as it is now.
///
/// # Errors
/// The API's errors, and failures to write to standard output.
pub(crate) async fn so_far(
    client: &Client,
    id: &ExecutionId,
    show: Show,
    screen: &Screen,
) -> Result<(), Failure> {
    let (mut printer, mut cursor, mut empty) = (Printer::new(show, screen), None, 0);
    loop {
        let Got {
            value: page,
            answer,
        } = client.logs(id, cursor.as_deref()).await?;
        if page.throttled {
            screen.progress(THROTTLED);
            client
                .pause(
                    &answer,
                    false,
                    backoff::before_the_next_look(1, answer.retry_after(), chance()),
                )
                .await;
            continue;
        }
        printer.page(&page.lines)?;
        empty = if page.lines.is_empty() { empty + 1 } else { 0 };
        let is_end = page.complete || page.next_cursor.is_none() || page.next_cursor == cursor;
        if is_end || empty == EMPTY_PAGES || screen.is_closed() {
            return printer.caught_up();
        }
        cursor = page.next_cursor;
    }
}

/// How following ended.
pub(crate) enum FollowEnd {
    /// The run is over. Holds its final record.
    Final(Box<Got<ExecutionView>>),
    /// The user stopped following.
    Detached,
}

/// Prints a log until the run is over and all of the log is shown. Returns the final record.
///
/// # Errors
/// The API's errors, and failures to write to standard output.
pub(crate) async fn to_the_end(
    client: &Client,
    id: &ExecutionId,
    show: Show,
    screen: &Screen,
) -> Result<Got<ExecutionView>, Failure> {
    let (mut printer, mut cursor, mut record) =
        (Printer::new(show, screen), None, Record::default());
    let mut empty_looks = 0;
    loop {
        // The first read asks the server not to hold its answer, because the user may be waiting to
        // see why nothing happens.
        let page = match record.seen_at {
            None => client.logs(id, cursor.as_deref()).await?,
            Some(_) => client.logs_followed(id, cursor.as_deref()).await?,
        };
        let lines = page.value.lines.len();
        if page.value.throttled {
            record.give_the_log_time();
        }
        empty_looks = if lines > 0 || record.is_over() {
            0
        } else {
            empty_looks + 1
        };
        printer.page(&page.value.lines)?;
        cursor = page.value.next_cursor.or(cursor);
        if page.value.complete {
            printer.caught_up()?;
            let got = until_final(client, id, screen).await?;
            record.tell_of_failed_tries(&got.value, screen);
            return Ok(got);
        }
        if lines < FULL_PAGE {
            printer.caught_up()?;
        }
        if lines == 0
            && let Some(late) = record.look(client, id, screen).await?
        {
            screen.say(
                "the run is over, but its log was not completed: the last lines may be missing",
            );
            return Ok(late);
        }
        if lines < FULL_PAGE {
            let pause =
                backoff::before_the_next_look(empty_looks, page.answer.retry_after(), chance());
            client.pause(&page.answer, lines > 0, pause).await;
        }
    }
}

fn chance() -> u128 {
    u128::from(getrandom::u32().unwrap_or_default())
}

/// The part of the record that we remember while we follow the log.
#[derive(Default)]
struct Record {
    seen_at: Option<Instant>,
    over_since: Option<Instant>,
    /// How many failed attempts the user has been told about.
    failed_tries: usize,
}

impl Record {
    /// Whether the run is known to be over, so that only its last log lines are missing.
    fn is_over(&self) -> bool {
        self.over_since.is_some()
    }

    /// Restarts the wait for a late log. While reads are throttled, a late log does not mean that
    /// it will never come.
    fn give_the_log_time(&mut self) {
        self.over_since = self.over_since.map(|_| Instant::now());
    }

    /// Reads the record if it is time to, and shows the run's status. Returns the record once the
    /// run is over and its log is overdue.
    async fn look(
        &mut self,
        client: &Client,
        id: &ExecutionId,
        screen: &Screen,
    ) -> Result<Option<Got<ExecutionView>>, ApiError> {
        if self.seen_at.is_some_and(|at| at.elapsed() < RECORD_EVERY) && !client.is_local() {
            return Ok(None);
        }
        self.seen_at = Some(Instant::now());
        let got = client.execution(id.as_str()).await?;
        if !got.value.is_over() {
            self.tell_of_failed_tries(&got.value, screen);
            screen.progress(&progress(&got.value));
            return Ok(None);
        }
        let over_since = *self.over_since.get_or_insert_with(Instant::now);
        Ok((over_since.elapsed() > LATE_LOG).then_some(got))
    }
}

impl Record {
    /// Tells the user of each failed attempt, because a retried run takes longer than expected.
    /// This includes attempts that failed while nobody was looking.
    fn tell_of_failed_tries(&mut self, run: &ExecutionView, screen: &Screen) {
        let waits = run.waiting.as_ref().filter(|_| {
            run.attempts
                .last()
                .is_some_and(|last| last.stopped_at.is_some())
        });
        let failed = run
            .attempts
            .len()
            .saturating_sub(usize::from(waits.is_none()));
        for (index, attempt) in run
            .attempts
            .iter()
            .enumerate()
            .take(failed)
            .skip(self.failed_tries)
        {
            match waits.filter(|_| index + 1 == run.attempts.len()) {
                Some(waiting) => screen.say(&waiting.reason),
                None => {
                    let (number, why) = (
                        attempt.attempt,
                        attempt.reason.as_deref().unwrap_or("no reason is known"),
                    );
                    screen.say(&format!("attempt {number} failed ({why}); trying again"));
                }
            }
        }
        self.failed_tries = self.failed_tries.max(failed);
    }
}

/// Waits until the run is over.
///
/// # Errors
/// The API's errors.
pub(crate) async fn until_final(
    client: &Client,
    id: &ExecutionId,
    screen: &Screen,
) -> Result<Got<ExecutionView>, Failure> {
    let mut got = client.execution(id.as_str()).await?;
    // We look often at first because many runs are short, and less often later.
    let mut pause = PAUSE / 16;
    while !got.value.is_over() {
        screen.progress(&progress(&got.value));
        client.pause(&got.answer, false, pause).await;
        pause = PAUSE.min(pause * 2);
        got = client.execution_followed(id).await?;
    }
    screen.no_progress();
    Ok(got)
}

/// Runs `following` and handles Ctrl-C, which may cancel the run or stop following it.
///
/// # Errors
/// The errors of `following`, and a failure to catch signals.
pub(crate) async fn attended(
    client: &Client,
    id: &ExecutionId,
    screen: &Screen,
    following: impl Future<Output = Result<Got<ExecutionView>, Failure>>,
) -> Result<FollowEnd, Failure> {
    let mut interrupts = Interrupts::catch().map_err(Failure::io("catch signals"))?;
    let mut following = pin!(following);
    loop {
        tokio::select! {
            ended = &mut following => {
                screen.no_progress();
                return ended.map(|got| FollowEnd::Final(Box::new(got))).inspect_err(|_| screen.say(&advice(client, id)));
            }
            wish = interrupts.wish("the run", screen) => match wish {
                InterruptWish::Stay => {}
                InterruptWish::Cancel => cancel(client, id, screen).await,
                InterruptWish::Detach => {
                    screen.no_progress();
                    screen.say(&advice(client, id));
                    return Ok(FollowEnd::Detached);
                }
            }
        }
    }
}

async fn cancel(client: &Client, id: &ExecutionId, screen: &Screen) {
    match client.cancel(id).await {
        Ok(_) => screen.say("cancelling; the command has 10 s to end"),
        Err(error) => screen.say(&format!("failed to cancel: {error}")),
    }
}

fn advice(client: &Client, id: &ExecutionId) -> String {
    let local = if client.is_local() { "--local " } else { "" };
    format!(
        "no longer following; the run goes on. To follow it: mycli {local}logs -f {id}   to stop it: mycli {local}cancel {id}"
    )
}

/// The present state of a run, in one line.
pub(crate) fn progress(run: &ExecutionView) -> String {
    match &run.waiting {
        Some(waiting) => format!("{}: {}", run.status, position(waiting)),
        None => run.status.to_string(),
    }
}

/// A position in a backlog, in words: `12th in line: Fargate Spot vCPU 6 of 6 in use, about 3 min`.
pub(crate) fn position(waiting: &WaitingView) -> String {
    let about = if waiting.position > 100 { "about " } else { "" };
    let mut text = format!(
        "{about}{} in line: {}",
        ordinal(waiting.position),
        waiting.reason
    );
    if let Some(seconds) = waiting
        .estimate_seconds
        .and_then(|seconds| i64::try_from(seconds).ok())
    {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            ", about {}",
            moment::words(TimeDelta::seconds(seconds))
        );
    }
    text
}

/// The ordinal of a number: `1st`, `2nd`, `112th`.
pub(crate) fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_said_as_people_say_it() {
        assert_eq!(
            [1, 2, 3, 4, 11, 13, 21, 112].map(ordinal),
            ["1st", "2nd", "3rd", "4th", "11th", "13th", "21st", "112th"]
        );
        let waiting = WaitingView {
            reason: "Fargate Spot vCPU 6 of 6 in use".into(),
            limit: "pool:fargate-spot".into(),
            used: 6.0,
            max: Some(6.0),
            position: 12,
            estimate_seconds: Some(180),
        };
        assert_eq!(
            position(&waiting),
            "12th in line: Fargate Spot vCPU 6 of 6 in use, about 3 min"
        );
    }
}
