//! How long to pause before something is tried again.

use std::time::Duration;

/// A pause that doubles from try to try, up to a longest one, less up to half of it by chance: so that many who failed together do not come
/// back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before try number `round + 2`: after the first failure `round` is 0. Any evenly spread number will do as `chance`.
    #[must_use]
    pub fn pause(self, round: u32, chance: u128) -> Duration {
        const PARTS: u32 = 1000;
        let doubled = self.first.saturating_mul(1_u32.checked_shl(round).unwrap_or(u32::MAX));
        let whole = doubled.min(self.longest);
        let part = u32::try_from(chance % u128::from(PARTS)).unwrap_or_default();
        whole / 2 + whole / 2 * part / PARTS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };

    #[test]
    fn it_doubles_up_to_the_longest() {
        let least: Vec<_> = (0..8).map(|round| BACKOFF.pause(round, 0).as_millis()).collect();
        assert_eq!(least, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    proptest! {
        #[test]
        fn it_is_between_half_and_the_whole(round: u32, chance: u128) {
            let pause = BACKOFF.pause(round, chance);
            let whole = BACKOFF.pause(round, 0) * 2;
            prop_assert!(whole / 2 <= pause && pause <= whole && whole <= BACKOFF.longest);
        }
    }
}
