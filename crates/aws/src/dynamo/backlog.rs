//! The backlogs: which entry is next, and how many are ahead of an entry.
//!
//! A backlog has one partition of the index `by_standing` for each submitter, in that submitter's
//! own order. The directory of backlogs lists the submitters. [`fair::order`] orders the entries
//! between submitters, by start-time-fair tags: a submitter's k-th entry has the tag `begins + k`,
//! and `begins` is the later of the submitter's own virtual time and the backlog's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{
    Timestamp,
    execution::BacklogEntry,
    limit::{BacklogSize, LimitKey},
    ports::PortError,
    scheduler::fair,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    DynamoStore, SERVICE,
    directory::{BacklogMember, reached},
    item::{self, Item, backlog_partition, text},
    table::Freshness,
};
use crate::error::failed;

/// Most entries of one submitter that are counted for a position; a position beyond that is an
/// estimate from below. Chosen to bound the cost of an answer at about 20 read units for each
/// submitter, however long the backlog is.
pub(super) const COUNT_MAX: u32 = 1_000;
/// Fewest entries that are read together. Backed-off entries come before those that are due, so a
/// smaller read might find none that is due.
const BACKED_OFF: usize = 24;
/// Partitions that are queried at the same time, so that many submitters neither wait for each
/// other nor open a connection each.
const PARALLEL: usize = 8;

/// A submitter and the tag of its first entry.
#[derive(Clone, Debug)]
struct SubmitterTurn {
    submitter: String,
    begins: u64,
}

/// Every submitter's turn, the smallest `begins` first.
fn turns(entries: &[BacklogMember]) -> Vec<SubmitterTurn> {
    let reached = reached(entries.iter().map(|entry| entry.served));
    let turn = |entry: &BacklogMember| SubmitterTurn {
        submitter: entry.submitter.clone(),
        begins: reached.max(entry.served),
    };
    let mut turns: Vec<_> = entries.iter().map(turn).collect();
    turns.sort_by_key(|turn| turn.begins);
    turns
}

fn is_due(backlog_entry: &BacklogEntry, now: Timestamp) -> bool {
    backlog_entry
        .not_before
        .is_none_or(|not_before| not_before <= now)
}

impl DynamoStore {
    /// The first due entries of each submitter, of as many submitters as are needed to know the
    /// first `limit` entries of the backlog.
    pub(super) async fn backlog(
        &self,
        backlog: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        let entries = self.members(backlog, Freshness::LastWritten).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let turns = turns(&entries);
        let begins: BTreeMap<_, _> = turns
            .iter()
            .map(|turn| (turn.submitter.clone(), turn.begins))
            .collect();
        let (mut backlog_entries, mut tags) = (Vec::new(), Vec::new());
        for some in turns.chunks(PARALLEL) {
            // Tags of later submitters only grow, so enough smaller tags settle the result.
            let settled = tags
                .iter()
                .filter(|tag| some.first().is_some_and(|turn| **tag < turn.begins))
                .count();
            if settled >= limit {
                break;
            }
            let due = some
                .iter()
                .map(|turn| self.due(backlog, &turn.submitter, now, limit));
            for (turn, own) in some
                .iter()
                .zip(futures_util::future::try_join_all(due).await?)
            {
                tags.extend((turn.begins..).take(own.len()));
                backlog_entries.extend(own);
            }
        }
        self.remember(backlog, &entries, &backlog_entries);
        let mut ordered = fair::order(backlog_entries, &begins);
        ordered.truncate(limit);
        let ids = ordered.iter().map(|entry| entry.id.clone()).collect();
        self.memory.line_up(backlog, ids);
        Ok(ordered)
    }

    /// Keeps in memory which submitters are in the backlog: that decides whether the next start
    /// from it is charged.
    fn remember(
        &self,
        backlog: &LimitKey,
        entries: &[BacklogMember],
        backlog_entries: &[BacklogEntry],
    ) {
        let waits = |entry: &&BacklogMember| {
            backlog_entries
                .iter()
                .any(|backlog_entry| backlog_entry.submitter == entry.submitter)
        };
        let served = entries
            .iter()
            .filter(waits)
            .map(|entry| (entry.submitter.clone(), entry.served));
        self.memory.see(backlog, served.collect());
    }

    /// A submitter's first due entries in a backlog. Backed-off entries before them are read and
    /// skipped.
    async fn due(
        &self,
        backlog: &LimitKey,
        submitter: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        let (mut due, mut start) = (Vec::new(), None);
        while due.len() < limit {
            // One entry is 0.1 kB, and a page is billed in steps of 4 kB.
            let most = (limit - due.len()).max(BACKED_OFF);
            let page = self
                .index_entries(&backlog_partition(backlog, submitter), None, most, start)
                .await?;
            let backlog_entries = page
                .entries
                .iter()
                .filter_map(|entry| item::backlog_entry(backlog, submitter, entry));
            due.extend(backlog_entries.filter(|backlog_entry| is_due(backlog_entry, now)));
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        due.truncate(limit);
        Ok(due)
    }

    /// A page of a partition of `by_standing`, in order of position, up to `before`.
    async fn index_entries(
        &self,
        partition: &str,
        before: Option<&str>,
        limit: usize,
        start: Option<HashMap<String, aws_sdk_dynamodb::types::AttributeValue>>,
    ) -> Result<Entries, PortError> {
        let call = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_standing");
        let call = call.expression_attribute_values(":standing", text(partition));
        let call = match before {
            None => call.key_condition_expression("standing = :standing"),
            Some(place) => call
                .key_condition_expression("standing = :standing AND place < :place")
                .expression_attribute_values(":place", text(place)),
        };
        let limit = i32::try_from(limit.max(1)).unwrap_or(i32::MAX);
        let output = call
            .limit(limit)
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(failed(SERVICE))?;
        Ok(Entries {
            entries: output.items.unwrap_or_default(),
            next: output.last_evaluated_key,
        })
    }

    /// The first entries of a partition of `by_standing`, at most `most`.
    pub(super) async fn first_in(
        &self,
        partition: &str,
        most: usize,
    ) -> Result<Vec<Item>, PortError> {
        self.first_before(partition, None, most).await
    }

    async fn first_before(
        &self,
        partition: &str,
        before: Option<&str>,
        most: usize,
    ) -> Result<Vec<Item>, PortError> {
        let (mut entries, mut start) = (Vec::new(), None);
        while entries.len() < most {
            let page = self
                .index_entries(partition, before, most - entries.len(), start)
                .await?;
            entries.extend(page.entries);
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    /// Whether any entry is due. Stops at the first one. Usually the submitters that a read at half
    /// price finds have one. If they have none, those are looked at that it may have missed.
    pub(super) async fn has_backlog(
        &self,
        backlog: &LimitKey,
        now: Timestamp,
    ) -> Result<bool, PortError> {
        let recent = self.members(backlog, Freshness::Recent).await?;
        let known: BTreeSet<_> = recent.iter().map(|entry| entry.submitter.clone()).collect();
        if self.has_due(backlog, recent, now).await? {
            return Ok(true);
        }
        let mut missed = self.members(backlog, Freshness::LastWritten).await?;
        missed.retain(|entry| !known.contains(&entry.submitter));
        self.has_due(backlog, missed, now).await
    }

    /// Whether one of these submitters has an entry that is due, the last one seen first.
    async fn has_due(
        &self,
        backlog: &LimitKey,
        mut entries: Vec<BacklogMember>,
        now: Timestamp,
    ) -> Result<bool, PortError> {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.seen()));
        let looks: Vec<_> = entries
            .iter()
            .map(|entry| self.due(backlog, &entry.submitter, now, 1))
            .collect();
        let mut found = stream::iter(looks).buffer_unordered(PARALLEL);
        while let Some(due) = found.try_next().await? {
            if !due.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The backlogs with a due entry. Removes a submitter from the directory if it has no entry in
    /// the backlog and has not been seen there for long.
    pub(super) async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        let entries = self.in_any_backlog().await?;
        let looks: Vec<_> = entries.iter().map(|entry| self.look(entry, now)).collect();
        let mut due: Vec<LimitKey> = stream::iter(looks)
            .buffer_unordered(PARALLEL)
            .try_filter_map(|backlog| std::future::ready(Ok(backlog)))
            .try_collect()
            .await?;
        due.sort();
        due.dedup();
        Ok(due)
    }

    /// The backlog, if this submitter has a due entry in it.
    async fn look(
        &self,
        entry: &BacklogMember,
        now: Timestamp,
    ) -> Result<Option<LimitKey>, PortError> {
        if !self
            .due(&entry.backlog, &entry.submitter, now, 1)
            .await?
            .is_empty()
        {
            return Ok(Some(entry.backlog.clone()));
        }
        if entry.is_old(now) {
            let partition = backlog_partition(&entry.backlog, &entry.submitter);
            if self
                .index_entries(&partition, None, 1, None)
                .await?
                .entries
                .is_empty()
            {
                self.leave_backlog(entry).await?;
            }
        }
        Ok(None)
    }

    /// The size of each backlog, as far as `most` entries of each submitter show it.
    pub(super) async fn backlog_sizes(&self, most: u32) -> Result<Vec<BacklogSize>, PortError> {
        let members = self.in_any_backlog().await?;
        let sizes: Vec<_> = members.iter().map(|one| self.size_of(one, most)).collect();
        let mut counted = stream::iter(sizes).buffer_unordered(PARALLEL);
        let mut by_backlog: BTreeMap<LimitKey, BacklogSize> = BTreeMap::new();
        while let Some(size) = counted.try_next().await? {
            let Some(size) = size else { continue };
            by_backlog
                .entry(size.key.clone())
                .and_modify(|known| {
                    known.entries = known.entries.saturating_add(size.entries);
                    known.oldest = known.oldest.min(size.oldest);
                })
                .or_insert(size);
        }
        Ok(by_backlog.into_values().collect())
    }

    /// The part of a backlog that is one submitter's; `None` if there is no entry.
    async fn size_of(
        &self,
        member: &BacklogMember,
        most: u32,
    ) -> Result<Option<BacklogSize>, PortError> {
        let partition = backlog_partition(&member.backlog, &member.submitter);
        let (mut entries, mut oldest, mut start) = (0_u32, None, None);
        while entries < most {
            let limit = usize::try_from(most - entries).unwrap_or(usize::MAX);
            let page = self.index_entries(&partition, None, limit, start).await?;
            for entry in &page.entries {
                let Some(entry) = item::backlog_entry(&member.backlog, &member.submitter, entry)
                else {
                    continue;
                };
                entries += 1;
                oldest = oldest
                    .min(Some(entry.submitted_at))
                    .or(Some(entry.submitted_at));
            }
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        Ok(oldest.map(|oldest| BacklogSize {
            key: member.backlog.clone(),
            entries,
            oldest,
        }))
    }

    pub(super) async fn ahead(
        &self,
        backlog_entry: &BacklogEntry,
        exact: u32,
    ) -> Result<u32, PortError> {
        let members = self.members(&backlog_entry.backlog, Freshness::LastWritten);
        let turns = turns(&members.await?);
        let counting = PositionCount {
            store: self,
            backlog_entry,
            max: u64::from(exact.max(COUNT_MAX)),
        };
        let before = counting.of_the_same().await?;
        let begins = turns
            .iter()
            .find(|turn| turn.submitter == backlog_entry.submitter)
            .map_or(0, |turn| turn.begins);
        let tag = begins + before;
        let others = turns
            .iter()
            .filter(|turn| turn.submitter != backlog_entry.submitter && turn.begins <= tag);
        let counts: Vec<_> = others.map(|turn| counting.of_another(turn, tag)).collect();
        let others: Vec<u64> = stream::iter(counts)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        Ok(u32::try_from(before + others.iter().sum::<u64>()).unwrap_or(u32::MAX))
    }
}

struct Entries {
    entries: Vec<Item>,
    next: Option<HashMap<String, aws_sdk_dynamodb::types::AttributeValue>>,
}

struct PositionCount<'a> {
    store: &'a DynamoStore,
    backlog_entry: &'a BacklogEntry,
    max: u64,
}

impl PositionCount<'_> {
    /// The submitter's own entries before this one.
    async fn of_the_same(&self) -> Result<u64, PortError> {
        let place = item::place(self.backlog_entry);
        Ok(self
            .entries(&self.backlog_entry.submitter, Some(&place), self.max)
            .await?
            .len() as u64)
    }

    /// Another submitter's entries with a smaller tag, plus its entry with the same tag if that one
    /// sorts first by its own position.
    async fn of_another(&self, turn: &SubmitterTurn, tag: u64) -> Result<u64, PortError> {
        let smaller = tag.saturating_sub(turn.begins).min(self.max);
        let first = self.entries(&turn.submitter, None, smaller + 1).await?;
        let tie = usize::try_from(smaller)
            .ok()
            .and_then(|place| first.get(place));
        let own = item::place(self.backlog_entry);
        let comes_first = tie
            .and_then(|tie| item::text_of(tie, "place"))
            .is_some_and(|place| place < own.as_str());
        Ok(smaller.min(first.len() as u64) + u64::from(comes_first))
    }

    /// A submitter's first entries in the backlog, at most `most`.
    async fn entries(
        &self,
        submitter: &str,
        before: Option<&str>,
        most: u64,
    ) -> Result<Vec<Item>, PortError> {
        let partition = backlog_partition(&self.backlog_entry.backlog, submitter);
        self.store
            .first_before(
                &partition,
                before,
                usize::try_from(most).unwrap_or(usize::MAX),
            )
            .await
    }
}
