//! One line: its tickets by submitter, and the fair order between these.
//!
//! The tags are those of the other stores: a submitter's k-th ticket has the tag `begins + k`, where it begins at its own virtual time or at
//! the line's, whichever is later.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use domain::{Timestamp, execution::Ticket, fair, id::ExecutionId, limit::LimitKey};

/// The order among one submitter's own tickets.
type Own = (Reverse<i32>, Timestamp, ExecutionId);

fn own(ticket: &Ticket) -> Own {
    (Reverse(ticket.priority), ticket.submitted_at, ticket.id.clone())
}

/// The tickets of a line, each with the moment before which it is not due.
#[derive(Default)]
pub(super) struct Line {
    tickets: BTreeMap<String, BTreeMap<Own, Option<Timestamp>>>,
    served: BTreeMap<String, u64>,
    reached: u64,
}

fn is_due(not_before: Option<Timestamp>, now: Timestamp) -> bool {
    not_before.is_none_or(|moment| moment <= now)
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(super) fn add(&mut self, ticket: &Ticket) {
        self.tickets.entry(ticket.submitter.clone()).or_default().insert(own(ticket), ticket.not_before);
    }

    pub(super) fn remove(&mut self, ticket: &Ticket) {
        if let Entry::Occupied(mut tickets) = self.tickets.entry(ticket.submitter.clone()) {
            tickets.get_mut().remove(&own(ticket));
            if tickets.get().is_empty() {
                tickets.remove();
            }
        }
    }

    /// Charges a submitter for one start; the line is now where that start began.
    pub(super) fn charge(&mut self, submitter: &str) {
        let served = fair::charge(self.served.get(submitter).copied().unwrap_or_default(), self.reached);
        self.served.insert(submitter.to_owned(), served);
        self.reached = served.saturating_sub(1);
    }

    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.tickets.values().any(|tickets| tickets.values().any(|not_before| is_due(*not_before, now)))
    }

    fn begins(&self, submitter: &str) -> u64 {
        self.reached.max(self.served.get(submitter).copied().unwrap_or_default())
    }

    /// The first due tickets. Of each submitter only so many are looked at, and of no more submitters than settle the order.
    pub(super) fn first(&self, key: &LimitKey, now: Timestamp, limit: u32) -> Vec<Ticket> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut turns: Vec<_> = self.tickets.keys().map(|submitter| (self.begins(submitter), submitter)).collect();
        turns.sort();
        let (mut tickets, mut tags) = (Vec::new(), Vec::new());
        for (begins, submitter) in &turns {
            if tags.iter().filter(|tag| *tag < begins).count() >= limit {
                break;
            }
            let due = self.tickets[*submitter].iter().filter(|(_, not_before)| is_due(**not_before, now)).take(limit);
            let of_submitter: Vec<_> = due.map(|(own, not_before)| ticket(key, submitter, own, *not_before)).collect();
            tags.extend((*begins..).take(of_submitter.len()));
            tickets.extend(of_submitter);
        }
        let begins = turns.into_iter().map(|(begins, submitter)| (submitter.clone(), begins)).collect();
        let mut ordered = fair::order(tickets, &begins);
        ordered.truncate(limit);
        ordered
    }

    /// How many stand before this one, those that are not due yet too.
    pub(super) fn ahead(&self, of: &Ticket) -> usize {
        let own = own(of);
        let mine = self.tickets.get(&of.submitter).map_or(0, |tickets| tickets.range(..&own).count());
        let tag = self.begins(&of.submitter) + u64::try_from(mine).unwrap_or(u64::MAX);
        let others = self.tickets.iter().filter(|(submitter, _)| **submitter != of.submitter);
        mine + others.map(|(submitter, tickets)| self.of_another(submitter, tickets, tag, &own)).sum::<usize>()
    }

    /// Another's tickets with smaller tags, and the one with the same tag if it comes first by itself.
    fn of_another(&self, submitter: &str, tickets: &BTreeMap<Own, Option<Timestamp>>, tag: u64, own: &Own) -> usize {
        let Some(smaller) = tag.checked_sub(self.begins(submitter)) else { return 0 };
        let smaller = usize::try_from(smaller).unwrap_or(usize::MAX);
        if smaller >= tickets.len() {
            return tickets.len();
        }
        smaller + usize::from(tickets.keys().nth(smaller).is_some_and(|tie| tie < own))
    }
}

fn ticket(line: &LimitKey, submitter: &str, own: &Own, not_before: Option<Timestamp>) -> Ticket {
    let (Reverse(priority), submitted_at, id) = own;
    Ticket {
        id: id.clone(),
        line: line.clone(),
        submitter: submitter.to_owned(),
        priority: *priority,
        submitted_at: *submitted_at,
        not_before,
    }
}
