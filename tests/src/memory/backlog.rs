//! One backlog: its entries by submitter, and the fair order between submitters.
//!
//! The tags are those of the other stores. A submitter's k-th entry has the tag `begins + k`. A
//! submitter begins at its own virtual time or at the backlog's, whichever is later.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use domain::{
    Timestamp,
    execution::BacklogEntry,
    id::ExecutionId,
    limit::{BacklogSize, LimitKey},
    scheduler::fair,
};

/// The order among the entries of one submitter.
type Own = (Reverse<i32>, Timestamp, ExecutionId);

fn own(backlog_entry: &BacklogEntry) -> Own {
    (
        Reverse(backlog_entry.priority),
        backlog_entry.submitted_at,
        backlog_entry.id.clone(),
    )
}

/// The entries of a backlog. Each may have a time before which it is not due.
#[derive(Default)]
pub(super) struct Backlog {
    backlog_entries: BTreeMap<String, BTreeMap<Own, Option<Timestamp>>>,
    served: BTreeMap<String, u64>,
    reached: u64,
}

fn is_due(not_before: Option<Timestamp>, now: Timestamp) -> bool {
    not_before.is_none_or(|moment| moment <= now)
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.backlog_entries.is_empty()
    }

    pub(super) fn add(&mut self, backlog_entry: &BacklogEntry) {
        self.backlog_entries
            .entry(backlog_entry.submitter.clone())
            .or_default()
            .insert(own(backlog_entry), backlog_entry.not_before);
    }

    pub(super) fn remove(&mut self, backlog_entry: &BacklogEntry) {
        if let Entry::Occupied(mut backlog_entries) =
            self.backlog_entries.entry(backlog_entry.submitter.clone())
        {
            backlog_entries.get_mut().remove(&own(backlog_entry));
            if backlog_entries.get().is_empty() {
                backlog_entries.remove();
            }
        }
    }

    /// Charges a submitter for one start. The backlog's virtual time is then where that start
    /// began.
    pub(super) fn charge(&mut self, submitter: &str) {
        let served = fair::charge(
            self.served.get(submitter).copied().unwrap_or_default(),
            self.reached,
        );
        self.served.insert(submitter.to_owned(), served);
        self.reached = served.saturating_sub(1);
    }

    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.backlog_entries.values().any(|backlog_entries| {
            backlog_entries
                .values()
                .any(|not_before| is_due(*not_before, now))
        })
    }

    fn begins(&self, submitter: &str) -> u64 {
        self.reached
            .max(self.served.get(submitter).copied().unwrap_or_default())
    }

    /// Returns the first due entries. It looks at no more entries of a submitter, and at no more
    /// submitters, than the order needs.
    pub(super) fn first(&self, key: &LimitKey, now: Timestamp, limit: u32) -> Vec<BacklogEntry> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut turns: Vec<_> = self
            .backlog_entries
            .keys()
            .map(|submitter| (self.begins(submitter), submitter))
            .collect();
        turns.sort();
        let (mut backlog_entries, mut tags) = (Vec::new(), Vec::new());
        for (begins, submitter) in &turns {
            if tags.iter().filter(|tag| *tag < begins).count() >= limit {
                break;
            }
            let due = self.backlog_entries[*submitter]
                .iter()
                .filter(|(_, not_before)| is_due(**not_before, now))
                .take(limit);
            let of_submitter: Vec<_> = due
                .map(|(own, not_before)| backlog_entry(key, submitter, own, *not_before))
                .collect();
            tags.extend((*begins..).take(of_submitter.len()));
            backlog_entries.extend(of_submitter);
        }
        let begins = turns
            .into_iter()
            .map(|(begins, submitter)| (submitter.clone(), begins))
            .collect();
        let mut ordered = fair::order(backlog_entries, &begins);
        ordered.truncate(limit);
        ordered
    }

    /// Returns its size; `None` if it is empty.
    pub(super) fn size(&self, key: &LimitKey) -> Option<BacklogSize> {
        let entries = || self.backlog_entries.values().flatten();
        let oldest = entries().map(|((_, submitted_at, _), _)| *submitted_at);
        Some(BacklogSize {
            key: key.clone(),
            entries: u32::try_from(entries().count()).ok()?,
            oldest: oldest.min()?,
        })
    }

    /// How many entries are before this one, entries that are not due yet included.
    pub(super) fn ahead(&self, of: &BacklogEntry) -> usize {
        let own = own(of);
        let mine = self
            .backlog_entries
            .get(&of.submitter)
            .map_or(0, |backlog_entries| backlog_entries.range(..&own).count());
        let tag = self.begins(&of.submitter) + u64::try_from(mine).unwrap_or(u64::MAX);
        let others = self
            .backlog_entries
            .iter()
            .filter(|(submitter, _)| **submitter != of.submitter);
        mine + others
            .map(|(submitter, backlog_entries)| {
                self.of_another(submitter, backlog_entries, tag, &own)
            })
            .sum::<usize>()
    }

    /// Counts another submitter's entries with smaller tags, plus the one with the same tag if it
    /// comes first by its own order.
    fn of_another(
        &self,
        submitter: &str,
        backlog_entries: &BTreeMap<Own, Option<Timestamp>>,
        tag: u64,
        own: &Own,
    ) -> usize {
        let Some(smaller) = tag.checked_sub(self.begins(submitter)) else {
            return 0;
        };
        let smaller = usize::try_from(smaller).unwrap_or(usize::MAX);
        if smaller >= backlog_entries.len() {
            return backlog_entries.len();
        }
        smaller
            + usize::from(
                backlog_entries
                    .keys()
                    .nth(smaller)
                    .is_some_and(|tie| tie < own),
            )
    }
}

fn backlog_entry(
    backlog: &LimitKey,
    submitter: &str,
    own: &Own,
    not_before: Option<Timestamp>,
) -> BacklogEntry {
    let (Reverse(priority), submitted_at, id) = own;
    BacklogEntry {
        id: id.clone(),
        backlog: backlog.clone(),
        submitter: submitter.to_owned(),
        priority: *priority,
        submitted_at: *submitted_at,
        not_before,
    }
}
