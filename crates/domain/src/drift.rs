//! How far a counter of use is off, and when that is put right. Pure decisions over what was read.
//!
//! The truth is which attempts hold a slot. A store whose counters are not written together with
//! the records takes from the counter *before* the write that opens an attempt and gives back
//! *after* the write that closes it. So a process that dies between the two leaves the counter too
//! high, which wastes a slot and exceeds nothing, until this finds it.

/// A counter as it was read. What it ever gave and got back tells what went on between two
/// readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How much is in use, by the counter.
    pub used: i64,
    /// How much was ever taken.
    pub taken: u64,
    /// How much was ever given back.
    pub released: u64,
}

/// What is held by the records, and the counter before and after those were read.
///
/// Each reading has to be further away from the records' than any healthy writer's two writes are
/// from each other: then whatever is seen of a launch or an end in the one and not in the other
/// shows in what was taken or released meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The counter, well before.
    pub before: Reading,
    /// The sum of what the records hold.
    pub held: i64,
    /// The counter, well after.
    pub after: Reading,
}

impl Look {
    /// How much the counter surely is too high (positive) or too low (negative); 0 while what went
    /// on meanwhile may explain it.
    #[must_use]
    pub fn off(&self) -> i64 {
        let taken = difference(self.before.taken, self.after.taken);
        let released = difference(self.before.released, self.after.released);
        let (least, most) = (
            self.before.used - self.held - released,
            self.before.used - self.held + taken,
        );
        if least > 0 { least } else { most.min(0) }
    }

    /// Whether nothing went on and nothing is off: no need to look more closely.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.before == self.after && self.before.used == self.held
    }
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX)
}

/// By how much a counter is put right: by what two looks in a row agree on. A writer that was
/// slower than any healthy one is over by the second look.
#[must_use]
pub fn correction(previous: i64, now: i64) -> i64 {
    match (previous.signum(), now.signum()) {
        (1, 1) => -previous.min(now),
        (-1, -1) => -previous.max(now),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Longest time between the two writes of a launch or an end.
    const GAP: i64 = 10;
    const SCAN: std::ops::RangeInclusive<i64> = 100..=140;

    /// A run's life: it takes from the counter, is opened, is closed, gives back; each at its time.
    #[derive(Clone, Debug)]
    struct Life {
        amount: i64,
        taken: i64,
        opened: i64,
        closed: i64,
        released: i64,
        /// When its record is read.
        read: i64,
    }

    prop_compose! {
        fn life()(amount in 1_i64..5, taken in -50_i64..250, open in 0..=GAP, runs in 0_i64..200, release in 0..=GAP, read in SCAN)
            -> Life {
            let (opened, closed) = (taken + open, taken + open + runs);
            Life { amount, taken, opened, closed, released: closed + release, read }
        }
    }

    fn sum(lives: &[Life], counts: impl Fn(&Life) -> bool) -> i64 {
        lives
            .iter()
            .filter(|life| counts(life))
            .map(|life| life.amount)
            .sum()
    }

    fn reading(lives: &[Life], drift: i64, at: i64) -> Reading {
        let (taken, released) = (
            sum(lives, |life| life.taken <= at),
            sum(lives, |life| life.released <= at),
        );
        let unsigned = |amount| u64::try_from(amount).expect("a sum of positive amounts");
        Reading {
            used: taken - released + drift,
            taken: unsigned(taken),
            released: unsigned(released),
        }
    }

    fn look(lives: &[Life], drift: i64) -> Look {
        let held = sum(lives, |life| {
            life.opened <= life.read && life.closed > life.read
        });
        let (before, after) = (SCAN.start() - GAP, SCAN.end() + GAP);
        Look {
            before: reading(lives, drift, before),
            held,
            after: reading(lives, drift, after),
        }
    }

    proptest! {
        /// Whatever goes on meanwhile: what is said to be off is, and no more than it is.
        #[test]
        fn no_more_is_corrected_than_is_off(lives in prop::collection::vec(life(), 0..40), drift in -20_i64..20) {
            let off = look(&lives, drift).off();
            prop_assert!(off.signum() == 0 || off.signum() == drift.signum(), "{off} of {drift}");
            prop_assert!(off.abs() <= drift.abs(), "{off} of {drift}");
        }

        /// Two looks correct towards the truth, never past it, in whatever order they are made.
        #[test]
        fn a_correction_never_goes_past_the_truth(
            first in prop::collection::vec(life(), 0..20),
            second in prop::collection::vec(life(), 0..20),
            drift in -20_i64..20,
        ) {
            let by = correction(look(&first, drift).off(), look(&second, drift).off());
            prop_assert!((drift + by).abs() <= drift.abs() && (drift + by).signum() * drift.signum() >= 0);
        }

        /// While nothing goes on all of it is found.
        #[test]
        fn in_a_quiet_moment_all_of_it_is_corrected(lives in prop::collection::vec(life(), 0..20), drift in -20_i64..20) {
            let quiet: Vec<_> = lives.into_iter().filter(|life| life.opened < 80 && life.released < 80 || life.closed > 200)
                .filter(|life| life.taken < 80).collect();
            let off = look(&quiet, drift).off();
            prop_assert_eq!(off, drift);
            prop_assert_eq!(drift + correction(off, off), 0);
            prop_assert_eq!(look(&quiet, drift).is_calm(), drift == 0);
        }
    }

    #[test]
    fn what_only_one_look_saw_is_left_alone() {
        assert_eq!(correction(0, 256), 0);
        assert_eq!(correction(256, 0), 0);
        assert_eq!(correction(-256, 256), 0);
        assert_eq!(correction(512, 256), -256);
        assert_eq!(correction(-512, -256), 256);
    }
}
