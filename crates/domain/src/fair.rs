//! The order of a line: fair between submitters, then by priority, then by time.
//!
//! Start-time fair queueing with equal shares: each submitter has a virtual time that grows with what has been started for it,
//! and the one that had least goes next. Who comes anew begins where the others are now, with no credit for the past.

use std::collections::BTreeMap;

use crate::execution::Ticket;

/// Puts the tickets of one line in the order in which they are due.
///
/// `tickets` holds each submitter's first ones in that submitter's own order; `served` each submitter's virtual time. The order
/// depends on nothing else, so every launcher computes the same one.
#[must_use]
pub fn order(tickets: Vec<Ticket>, served: &BTreeMap<String, u64>) -> Vec<Ticket> {
    let mut ahead: BTreeMap<String, u64> = BTreeMap::new();
    let mut own_order = tickets;
    own_order.sort_by(|a, b| own_key(a).cmp(&own_key(b)));
    let mut tagged: Vec<_> = own_order
        .into_iter()
        .map(|ticket| {
            let turn = ahead.entry(ticket.submitter.clone()).or_default();
            let tag = served.get(&ticket.submitter).copied().unwrap_or_default() + *turn;
            *turn += 1;
            (tag, ticket)
        })
        .collect();
    tagged.sort_by(|(a_tag, a), (b_tag, b)| (a_tag, own_key(a)).cmp(&(b_tag, own_key(b))));
    tagged.into_iter().map(|(_, ticket)| ticket).collect()
}

/// The order among one submitter's own tickets: priority, time, id.
fn own_key(ticket: &Ticket) -> (std::cmp::Reverse<i32>, crate::Timestamp, &str) {
    (std::cmp::Reverse(ticket.priority), ticket.submitted_at, ticket.id.as_str())
}

/// A submitter's virtual time after one more start: at least where the line is, so that a pause earns no credit.
#[must_use]
pub fn charge(served: u64, line_now: u64) -> u64 {
    served.max(line_now) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Timestamp,
        id::ExecutionId,
        limit::{CapacityPool, LimitKey},
    };

    fn ticket(submitter: &str, priority: i32, second: i64) -> Ticket {
        let submitted_at = Timestamp::from_timestamp(1_764_000_000 + second, 0).expect("in range");
        Ticket {
            id: ExecutionId::new(submitted_at, u128::try_from(second).expect("small")),
            line: LimitKey::Pool(CapacityPool::Machine),
            submitter: submitter.into(),
            priority,
            submitted_at,
            not_before: None,
        }
    }

    fn names(tickets: Vec<Ticket>, served: &[(&str, u64)]) -> String {
        let served = served.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect();
        order(tickets, &served).into_iter().map(|t| t.submitter).collect::<Vec<_>>().join("")
    }

    #[test]
    fn ten_thousand_do_not_starve_one() {
        let many = (0..6).map(|second| ticket("a", 0, second)).chain([ticket("b", 0, 100)]);
        assert_eq!(names(many.collect(), &[]), "abaaaaa");
    }

    #[test]
    fn who_had_more_waits() {
        assert_eq!(names(vec![ticket("a", 0, 0), ticket("b", 0, 1)], &[("a", 5), ("b", 4)]), "ba");
    }

    #[test]
    fn priority_counts_among_ones_own_only() {
        let tickets = vec![ticket("a", 9, 2), ticket("a", 0, 0), ticket("b", 0, 1)];
        let order: Vec<_> = order(tickets, &BTreeMap::new()).into_iter().map(|t| (t.submitter, t.priority)).collect();
        assert_eq!(order, [("a".to_owned(), 9), ("b".to_owned(), 0), ("a".to_owned(), 0)]);
    }

    #[test]
    fn a_pause_earns_no_credit() {
        assert_eq!(charge(3, 40), 41);
        assert_eq!(charge(50, 40), 51);
    }
}
