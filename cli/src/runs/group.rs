//! The runs of a group: listing them page by page, counting them, and following them to their ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{
    api::{ExecutionView, HistoryPage, Listed},
    execution::{ExecutionStatus, UNREADABLE},
    history::PAGE_MAX,
    id::ExecutionId,
};
use serde::Serialize;

use crate::{
    client::{ApiError, Client, PAUSE},
    exit,
    terminal::screen::Screen,
};

/// The shortest pause between two looks at work that another process does on this machine.
const LOCAL_GAP: Duration = Duration::from_millis(250);

/// Reads one page of a group's history, of the largest size.
async fn page(
    client: &Client,
    group: &str,
    status: Option<&ExecutionStatus>,
    cursor: Option<&str>,
) -> Result<HistoryPage, ApiError> {
    let limit = PAGE_MAX.to_string();
    let status = status.map(ExecutionStatus::as_str);
    let filter = [
        ("limit", Some(limit.as_str())),
        ("group", Some(group)),
        ("status", status),
        ("cursor", cursor),
    ];
    Ok(client.history(&filter).await?.value)
}

/// Calls `see` with every run of a group, newest first. With a status, only runs in that status.
///
/// # Errors
/// The API's errors.
pub(crate) async fn walk(
    client: &Client,
    group: &str,
    status: Option<&ExecutionStatus>,
    mut see: impl FnMut(Listed),
) -> Result<(), ApiError> {
    let mut cursor = None;
    loop {
        let page = page(client, group, status, cursor.as_deref()).await?;
        page.executions.into_iter().for_each(&mut see);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// How many runs are in each status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Counts(BTreeMap<ExecutionStatus, usize>);

impl Counts {
    /// Counts one more run.
    pub(crate) fn add(&mut self, status: ExecutionStatus) {
        *self.0.entry(status).or_default() += 1;
    }

    /// The statuses that have runs, in the order a run passes through them.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&ExecutionStatus, usize)> {
        self.0.iter().map(|(status, count)| (status, *count))
    }

    /// How many runs there are in all.
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// How many runs are over.
    pub(crate) fn over(&self) -> usize {
        self.each()
            .filter(|(status, _)| status.is_final())
            .map(|(_, count)| count)
            .sum()
    }

    /// All counts in one line: `8 RUNNING, 90 WAITING, 2 SUCCEEDED`.
    pub(crate) fn line(&self) -> String {
        let parts: Vec<_> = self
            .each()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        parts.join(", ")
    }
}

impl FromIterator<ExecutionStatus> for Counts {
    fn from_iter<I: IntoIterator<Item = ExecutionStatus>>(statuses: I) -> Self {
        let mut counts = Self::default();
        statuses.into_iter().for_each(|status| counts.add(status));
        counts
    }
}

/// A run that is being followed.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The number of the line that submitted it.
    pub(crate) line: usize,
    /// The status seen last; `LOST` if the history does not have the run.
    pub(crate) status: ExecutionStatus,
    /// Whether nothing more can be learned: the run is over, or its record cannot be read.
    pub(crate) over: bool,
    /// The command's exit code.
    pub(crate) exit_code: Option<i32>,
    /// Why the run ended as it did.
    pub(crate) reason: Option<String>,
}

/// Many runs that are followed together.
///
/// Each look reads one page of history, and a pause precedes each look. So the cost per second does
/// not grow with the number of runs. A page on which all runs are over is not read again. A page on
/// which no run has begun is read rarely, since a submission's runs start in order.
pub(crate) struct GroupWatch {
    runs: BTreeMap<ExecutionId, Followed>,
    groups: BTreeSet<String>,
    pages: Vec<Watched>,
    /// Counts turns, to choose which waiting page to read next.
    turn: usize,
}

/// A page of history that has some of the runs on it.
struct Watched {
    group: String,
    cursor: Option<String>,
    /// The runs that were on the page.
    ids: Vec<ExecutionId>,
}

impl GroupWatch {
    /// Makes a watch of these runs, given with their line numbers. `groups` are the groups they are
    /// in.
    pub(crate) fn new(
        runs: impl IntoIterator<Item = (usize, ExecutionId)>,
        groups: BTreeSet<String>,
    ) -> Self {
        let queued = |line| Followed {
            line,
            status: ExecutionStatus::Queued,
            over: false,
            exit_code: None,
            reason: None,
        };
        let runs = runs
            .into_iter()
            .map(|(line, id)| (id, queued(line)))
            .collect();
        Self {
            runs,
            groups,
            pages: Vec::new(),
            turn: 0,
        }
    }

    /// The runs, in the order of their ids.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&ExecutionId, &Followed)> {
        self.runs.iter()
    }

    /// How many runs are in each status.
    pub(crate) fn counts(&self) -> Counts {
        self.runs.values().map(|run| run.status.clone()).collect()
    }

    /// Follows the runs until all are over.
    ///
    /// # Errors
    /// The API's errors.
    pub(crate) async fn follow(
        &mut self,
        client: &Client,
        screen: &Screen,
    ) -> Result<(), ApiError> {
        let mut pause = PAUSE / 16;
        while self.is_open() {
            self.find(client, screen).await?;
            tokio::time::sleep(pause).await;
            while let Some(turn) = self.turn() {
                for place in turn {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(if client.is_near() { LOCAL_GAP } else { PAUSE });
                    self.look(client, place).await?;
                    self.show(screen);
                }
            }
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.runs.values().any(|run| !run.over)
    }

    fn show(&self, screen: &Screen) {
        let counts = self.counts();
        screen.gauge(counts.over(), counts.total(), &counts.line());
    }

    /// Reads the groups until every unfinished run was seen. Runs that are on no page are looked up
    /// alone.
    async fn find(&mut self, client: &Client, screen: &Screen) -> Result<(), ApiError> {
        self.pages.clear();
        let open = self.runs.iter().filter(|(_, run)| !run.over);
        let mut unseen: BTreeSet<_> = open.map(|(id, _)| id.clone()).collect();
        for group in self.groups.clone() {
            let mut cursor = None;
            while !unseen.is_empty() {
                let page = page(client, &group, None, cursor.as_deref()).await?;
                let ids: Vec<_> = page
                    .executions
                    .iter()
                    .map(|listed| listed.id().clone())
                    .collect();
                for id in &ids {
                    unseen.remove(id);
                }
                self.note(&page);
                self.show(screen);
                let ids = ids
                    .into_iter()
                    .filter(|id| self.runs.contains_key(id))
                    .collect();
                self.pages.push(Watched {
                    group: group.clone(),
                    cursor,
                    ids,
                });
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
        }
        for id in unseen {
            self.find_alone(client, &id).await?;
        }
        // A submission starts at its first line, but history begins with its last.
        self.pages.reverse();
        Ok(())
    }

    /// Looks up one run by its id. A page may lack a run that was recorded a moment ago; the record
    /// itself is there.
    async fn find_alone(&mut self, client: &Client, id: &ExecutionId) -> Result<(), ApiError> {
        match client.execution(id.as_str()).await {
            Ok(got) => self.note_run(&got.value),
            Err(ApiError::Refused(problem)) if problem.status == 404 => {
                self.give_up(id, ExecutionStatus::Lost, "it is not in history any more");
            }
            Err(ApiError::Refused(problem)) if problem.code == "unreadable_record" => {
                self.give_up(
                    id,
                    ExecutionStatus::Other(UNREADABLE.into()),
                    &problem.title,
                );
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note(&mut self, page: &HistoryPage) {
        for listed in &page.executions {
            match listed {
                Listed::Run(run) => self.note_run(run),
                Listed::Unreadable(found) => {
                    self.give_up(&found.execution_id, found.status.clone(), &found.reason);
                }
            }
        }
    }

    /// Marks a run about which nothing more can be learned.
    fn give_up(&mut self, id: &ExecutionId, status: ExecutionStatus, reason: &str) {
        if let Some(run) = self.runs.get_mut(id) {
            (run.status, run.over, run.reason) = (status, true, Some(reason.to_owned()));
        }
    }

    fn note_run(&mut self, seen: &ExecutionView) {
        if let Some(run) = self
            .runs
            .get_mut(&seen.execution_id)
            .filter(|run| !run.over)
        {
            run.status = seen.status.clone();
            run.over = seen.is_over();
            run.exit_code = seen.exit_code;
            run.reason = seen.reason.clone().or_else(|| exit::remark(seen));
        }
    }

    /// The pages to read next: all pages with runs that have begun, the first page with only
    /// waiting runs, and one of the other such pages in turn. `None` if all runs are over.
    fn turn(&mut self) -> Option<Vec<usize>> {
        let runs = |page: &Watched| -> Vec<&Followed> {
            page.ids.iter().filter_map(|id| self.runs.get(id)).collect()
        };
        let open = self
            .pages
            .iter()
            .map(runs)
            .enumerate()
            .filter(|(_, runs)| runs.iter().any(|run| !run.over));
        let waits = |run: &&Followed| {
            matches!(
                run.status,
                ExecutionStatus::Queued | ExecutionStatus::Waiting
            )
        };
        let stands_still = |runs: &Vec<&Followed>| runs.iter().all(waits);
        let (still, mut turn): (Vec<_>, Vec<_>) = open.partition(|(_, runs)| stands_still(runs));
        self.turn += 1;
        let mut still = still.into_iter();
        turn.extend(still.next());
        let others = still.len();
        turn.extend(still.nth(self.turn % others.max(1)));
        (!turn.is_empty()).then(|| turn.into_iter().map(|(place, _)| place).collect())
    }

    /// Reads one page again. Newer runs push older ones to the next page, so runs that left this
    /// page are looked for there.
    async fn look(&mut self, client: &Client, place: usize) -> Result<(), ApiError> {
        let Some(watched) = self.pages.get_mut(place) else {
            return Ok(());
        };
        let page = page(client, &watched.group, None, watched.cursor.as_deref()).await?;
        let there: BTreeSet<_> = page.executions.iter().map(Listed::id).collect();
        let (ids, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut watched.ids)
            .into_iter()
            .partition(|id| there.contains(id));
        watched.ids = ids;
        let group = watched.group.clone();
        self.note(&page);
        match page.next_cursor {
            _ if moved.is_empty() => {}
            None => {
                for id in moved {
                    self.find_alone(client, &id).await?;
                }
            }
            cursor => self.pages.push(Watched {
                group,
                cursor,
                ids: moved,
            }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ExecutionStatus::{Queued, Running, Succeeded, Waiting};
    use domain::Timestamp;

    use super::*;

    /// A watch of pages with runs in these statuses.
    fn watch(pages: &[&[ExecutionStatus]]) -> GroupWatch {
        let mut watch = GroupWatch::new([], BTreeSet::new());
        for (number, statuses) in (0_u128..).zip(pages) {
            let id = |line: u128| ExecutionId::new(Timestamp::UNIX_EPOCH, number << 8 | line);
            let ids: Vec<_> = (0..).zip(*statuses).map(|(line, _)| id(line)).collect();
            for (id, status) in ids.iter().zip(*statuses) {
                let (status, over) = (status.clone(), status.is_final());
                watch.runs.insert(
                    id.clone(),
                    Followed {
                        line: 0,
                        status,
                        over,
                        exit_code: None,
                        reason: None,
                    },
                );
            }
            watch.pages.push(Watched {
                group: "g".into(),
                cursor: None,
                ids,
            });
        }
        watch
    }

    #[test]
    fn a_look_is_at_what_moves_and_never_at_what_is_over() {
        let mut pages = vec![
            &[Succeeded, Succeeded][..],
            &[Succeeded, Queued],
            &[Running, Waiting],
            &[Queued, Waiting],
        ];
        pages.extend([&[Queued][..]; 40]);
        let mut watch = watch(&pages);
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let turn = watch.turn().expect("something is open");
            assert_eq!(
                (turn.len(), &turn[..3]),
                (4, &[1, 2, 3][..]),
                "few, however many stand still: {turn:?}"
            );
            seen.extend(turn);
        }
        assert_eq!(
            seen,
            (1..44).collect(),
            "whoever stands still has a turn too"
        );
    }

    #[test]
    fn when_all_are_over_there_is_nothing_to_look_at() {
        assert_eq!(
            watch(&[&[Succeeded], &[ExecutionStatus::Failed]]).turn(),
            None
        );
        assert_eq!(watch(&[]).turn(), None);
    }
}
