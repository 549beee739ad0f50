//! The order of a backlog: fair between submitters, then by priority, then by time.
//!
//! This is start-time fair queueing with equal shares. Each submitter has a virtual time that grows
//! with what has been started for it, and the submitter with the least goes next. A new submitter
//! begins at the others' current virtual time, with no credit for the past.

use std::collections::BTreeMap;

use crate::execution::BacklogEntry;

/// Puts the entries of one backlog in the order in which they are due.
///
/// `backlog_entries` holds the first entries of each submitter, and `served` each submitter's
/// virtual time. The order depends on nothing else, so every launcher computes the same one.
#[must_use]
pub fn order(
    backlog_entries: Vec<BacklogEntry>,
    served: &BTreeMap<String, u64>,
) -> Vec<BacklogEntry> {
    let mut ahead: BTreeMap<String, u64> = BTreeMap::new();
    let mut own_order = backlog_entries;
    own_order.sort_by(|a, b| own_key(a).cmp(&own_key(b)));
    let mut tagged: Vec<_> = own_order
        .into_iter()
        .map(|backlog_entry| {
            let turn = ahead.entry(backlog_entry.submitter.clone()).or_default();
            let tag = served
                .get(&backlog_entry.submitter)
                .copied()
                .unwrap_or_default()
                + *turn;
            *turn += 1;
            (tag, backlog_entry)
        })
        .collect();
    tagged.sort_by(|(a_tag, a), (b_tag, b)| (a_tag, own_key(a)).cmp(&(b_tag, own_key(b))));
    tagged
        .into_iter()
        .map(|(_, backlog_entry)| backlog_entry)
        .collect()
}

/// The order among one submitter's own entries: priority, time, id.
fn own_key(backlog_entry: &BacklogEntry) -> (std::cmp::Reverse<i32>, crate::Timestamp, &str) {
    (
        std::cmp::Reverse(backlog_entry.priority),
        backlog_entry.submitted_at,
        backlog_entry.id.as_str(),
    )
}

/// A submitter's virtual time after one more start. It is at least the backlog's own virtual time,
/// so that a pause earns no credit.
#[must_use]
pub fn charge(served: u64, backlog_now: u64) -> u64 {
    served.max(backlog_now) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Timestamp,
        id::ExecutionId,
        limit::{CapacityPool, LimitKey},
    };

    fn backlog_entry(submitter: &str, priority: i32, second: i64) -> BacklogEntry {
        let submitted_at = Timestamp::from_timestamp(1_764_000_000 + second, 0).expect("in range");
        BacklogEntry {
            id: ExecutionId::new(submitted_at, u128::try_from(second).expect("small")),
            backlog: LimitKey::Pool(CapacityPool::Machine),
            submitter: submitter.into(),
            priority,
            submitted_at,
            not_before: None,
        }
    }

    fn names(backlog_entries: Vec<BacklogEntry>, served: &[(&str, u64)]) -> String {
        let served = served
            .iter()
            .map(|(name, time)| ((*name).to_owned(), *time))
            .collect();
        order(backlog_entries, &served)
            .into_iter()
            .map(|t| t.submitter)
            .collect::<Vec<_>>()
            .join("")
    }

    #[test]
    fn ten_thousand_do_not_starve_one() {
        let many = (0..6)
            .map(|second| backlog_entry("a", 0, second))
            .chain([backlog_entry("b", 0, 100)]);
        assert_eq!(names(many.collect(), &[]), "abaaaaa");
    }

    #[test]
    fn who_had_more_waits() {
        assert_eq!(
            names(
                vec![backlog_entry("a", 0, 0), backlog_entry("b", 0, 1)],
                &[("a", 5), ("b", 4)]
            ),
            "ba"
        );
    }

    #[test]
    fn priority_counts_among_ones_own_only() {
        let backlog_entries = vec![
            backlog_entry("a", 9, 2),
            backlog_entry("a", 0, 0),
            backlog_entry("b", 0, 1),
        ];
        let order: Vec<_> = order(backlog_entries, &BTreeMap::new())
            .into_iter()
            .map(|t| (t.submitter, t.priority))
            .collect();
        assert_eq!(
            order,
            [
                ("a".to_owned(), 9),
                ("b".to_owned(), 0),
                ("a".to_owned(), 0)
            ]
        );
    }

    #[test]
    fn a_pause_earns_no_credit() {
        assert_eq!(charge(3, 40), 41);
        assert_eq!(charge(50, 40), 51);
    }
}
