//! How far a usage counter is off, and when it is corrected. Pure decisions over what was read.
//!
//! The records say which attempts hold an allocation, and they are right. Some stores do not write
//! their counters together with the records. Such a store takes from the counter *before* the write
//! that opens an attempt, and gives back *after* the write that closes it. So a process that dies
//! between the two writes leaves the counter too high. That wastes a slot but exceeds no limit,
//! until this module finds it.

/// A counter as it was read. The totals taken and released show what happened between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How much is in use, according to the counter.
    pub(crate) used: i64,
    /// The total ever taken.
    pub(crate) taken: u64,
    /// The total ever released.
    pub(crate) released: u64,
}

/// The sum of what the records hold, with a reading of the counter before and after them.
///
/// Each reading must be further from the reading of the records than the two writes of a healthy
/// writer are from each other. Then a launch or an end that shows only in the records, or only in a
/// reading, also shows in what was taken or released between the readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The counter, well before the records were read.
    pub(crate) before: Reading,
    /// The sum of what the records hold.
    pub(crate) held: i64,
    /// The counter, well after the records were read.
    pub(crate) after: Reading,
}

impl Look {
    /// How much the counter surely is too high (positive) or too low (negative); 0 if launches and
    /// ends during the look may explain the difference.
    #[must_use]
    pub(crate) fn off(&self) -> i64 {
        let taken = difference(self.before.taken, self.after.taken);
        let released = difference(self.before.released, self.after.released);
        let (least, most) = (
            self.before.used - self.held - released,
            self.before.used - self.held + taken,
        );
        if least > 0 { least } else { most.min(0) }
    }
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX)
}

/// The correction of a counter: as much as two looks in a row agree on. A writer that was slower
/// than any healthy one has finished by the second look.
#[must_use]
pub(crate) fn correction(previous: i64, now: i64) -> i64 {
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

    /// The longest time between the two writes of a launch or an end.
    const GAP: i64 = 10;
    const SCAN: std::ops::RangeInclusive<i64> = 100..=140;

    /// The times of one run: it takes from the counter, is opened, is closed, and gives back.
    #[derive(Clone, Debug)]
    struct Life {
        amount: i64,
        taken: i64,
        opened: i64,
        closed: i64,
        released: i64,
        /// When the run's record is read.
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
        /// Whatever happens during a look, the drift that it finds exists and is not larger than
        /// the real one.
        #[test]
        fn no_more_is_corrected_than_is_off(lives in prop::collection::vec(life(), 0..40), drift in -20_i64..20) {
            let off = look(&lives, drift).off();
            prop_assert!(off.signum() == 0 || off.signum() == drift.signum(), "{off} of {drift}");
            prop_assert!(off.abs() <= drift.abs(), "{off} of {drift}");
        }

        /// Two looks, in either order, correct towards the true value and never past it.
        #[test]
        fn a_correction_never_goes_past_the_truth(
            first in prop::collection::vec(life(), 0..20),
            second in prop::collection::vec(life(), 0..20),
            drift in -20_i64..20,
        ) {
            let by = correction(look(&first, drift).off(), look(&second, drift).off());
            prop_assert!((drift + by).abs() <= drift.abs() && (drift + by).signum() * drift.signum() >= 0);
        }

        /// While nothing happens, all of the drift is found.
        #[test]
        fn in_a_quiet_moment_all_of_it_is_corrected(lives in prop::collection::vec(life(), 0..20), drift in -20_i64..20) {
            let quiet: Vec<_> = lives.into_iter().filter(|life| life.opened < 80 && life.released < 80 || life.closed > 200)
                .filter(|life| life.taken < 80).collect();
            let off = look(&quiet, drift).off();
            prop_assert_eq!(off, drift);
            prop_assert_eq!(drift + correction(off, off), 0);
            prop_assert_eq!(look(&quiet, drift).off(), drift);
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
