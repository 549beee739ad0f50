//! The pauses before something is tried again.

use std::time::Duration;

/// A pause that doubles with each try, up to a longest one. It is shortened at random by up to
/// half, so that many callers that failed together do not return together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before try number `round + 2`: `round` is 0 after the first failure. `chance` is
    /// any evenly distributed number.
    #[must_use]
    pub fn pause(self, round: u32, chance: u128) -> Duration {
        const PARTS: u32 = 1000;
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(round).unwrap_or(u32::MAX));
        let whole = doubled.min(self.longest);
        let part = u32::try_from(chance % u128::from(PARTS)).unwrap_or_default();
        whole / 2 + whole / 2 * part / PARTS
    }
}

/// The pauses between reads of a quiet log, in seconds: after the first empty read, after the
/// second, and after all others. A quiet log is read seldom because calls are scarce: CloudWatch
/// Logs allows 10 to 25 a second for an account and region (AWS-FACTS §9).
const QUIET: [u64; 3] = [1, 2, 5];
/// The least and the most seconds that a throttled reader is told to wait. The range spreads many
/// readers over that time.
const THROTTLED: (u64, u64) = (5, 15);

/// How long to pause before a log is read again, after this many empty reads in a row. The server's
/// `Retry-After` counts if it is longer. Up to a quarter is added at random, so that many readers
/// do not return together.
#[must_use]
pub fn before_the_next_look(empty_looks: u32, asked: Option<Duration>, chance: u128) -> Duration {
    let step = usize::try_from(empty_looks.saturating_sub(1))
        .unwrap_or(usize::MAX)
        .min(QUIET.len() - 1);
    spread(
        Duration::from_secs(QUIET[step]).max(asked.unwrap_or_default()),
        chance,
    )
}

/// The pause plus up to a quarter at random.
fn spread(pause: Duration, chance: u128) -> Duration {
    let part = u32::try_from(chance % 1000).unwrap_or_default();
    pause + pause / 4 * part / 1000
}

/// How many seconds a throttled reader of logs is told to wait.
#[must_use]
pub fn throttled_seconds(chance: u128) -> u32 {
    let (least, most) = THROTTLED;
    u32::try_from(u128::from(least) + chance % u128::from(most - least + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(200),
        longest: Duration::from_secs(10),
    };

    #[test]
    fn it_doubles_up_to_the_longest() {
        let least: Vec<_> = (0..8)
            .map(|round| BACKOFF.pause(round, 0).as_millis())
            .collect();
        assert_eq!(least, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_quiet_log_is_looked_at_more_and_more_seldom() {
        let looks: Vec<_> = (0..6)
            .map(|looks| before_the_next_look(looks, None, 0).as_secs())
            .collect();
        assert_eq!(looks, [1, 1, 2, 5, 5, 5]);
        let asked =
            |seconds| before_the_next_look(2, Some(Duration::from_secs(seconds)), 0).as_secs();
        assert_eq!((asked(1), asked(9)), (2, 9));
    }

    proptest! {
        #[test]
        fn whoever_is_throttled_stays_away_for_5_to_15_seconds(chance: u128) {
            prop_assert!((5..=15).contains(&throttled_seconds(chance)));
        }

        #[test]
        fn a_look_comes_not_before_it_is_due(looks: u32, asked in 0..60_u64, chance: u128) {
            let asked = Duration::from_secs(asked);
            let due = before_the_next_look(looks, None, 0).max(asked);
            let pause = before_the_next_look(looks, Some(asked), chance);
            prop_assert!(due <= pause && pause <= due + due / 4);
        }

        #[test]
        fn it_is_between_half_and_the_whole(round: u32, chance: u128) {
            let pause = BACKOFF.pause(round, chance);
            let whole = BACKOFF.pause(round, 0) * 2;
            prop_assert!(whole / 2 <= pause && pause <= whole && whole <= BACKOFF.longest);
        }
    }
}
