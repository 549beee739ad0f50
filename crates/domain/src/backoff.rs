//! How long to pause before something is tried again.

use std::time::Duration;

/// A pause that doubles from try to try, up to a longest one, less up to half of it by chance: so
/// that many who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before try number `round + 2`: after the first failure `round` is 0. Any evenly
    /// spread number will do as `chance`.
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

/// The pauses between looks at a log that says nothing, in seconds: after the first empty look, the
/// second, and all others. A quiet log is looked at seldom, because the calls are few: CloudWatch
/// Logs takes 10 to 25 a second of an account and region (AWS-FACTS §9).
const QUIET: [u64; 3] = [1, 2, 5];
/// How long whoever was throttled is asked to stay away, in seconds: the least and the most. So
/// many followers spread over that time.
const THROTTLED: (u64, u64) = (5, 15);

/// How long to pause before a log is looked at again, after so many looks in a row that brought
/// nothing. The server's `Retry-After` counts if it is more. Up to a quarter more by chance, so
/// that many followers do not come together.
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

/// The pause and up to a quarter more by chance.
fn spread(pause: Duration, chance: u128) -> Duration {
    let part = u32::try_from(chance % 1000).unwrap_or_default();
    pause + pause / 4 * part / 1000
}

/// How many seconds whoever reads logs too often is asked to stay away.
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
