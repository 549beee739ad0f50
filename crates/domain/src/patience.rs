//! For how long a client tries a call that fails, and how long it pauses in between.

use std::time::Duration;

use crate::backoff::Backoff;

/// The pauses between tries. Ours.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};
/// The longest that an API's `Retry-After` is obeyed; beyond it the user had better know.
const OBEYED: Duration = Duration::from_secs(60);

/// For how long a call is tried. Ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// One try: what was done cannot be told from what is done again.
    Once,
    /// Somebody waits for an answer.
    Short,
    /// Lines of a submission are handed in. A busy server takes them later, and the same request is
    /// right then; one that is not there is told soon.
    HandingIn,
    /// A run is followed, which outlives a lost network.
    Long,
}

/// Why a try failed that may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// Nobody answered.
    Unreachable,
    /// The server answered that it cannot do it now, and perhaps after how long to ask again.
    NotNow(Option<Duration>),
}

impl Patience {
    /// How long it is tried. A server that says it is busy is worth a longer wait than one that
    /// does not answer.
    fn limit(self, setback: Setback) -> Duration {
        Duration::from_secs(match (self, setback) {
            (Self::Once, _) => 0,
            (Self::Short | Self::HandingIn, Setback::Unreachable) => 4,
            (Self::Short, Setback::NotNow(_)) => 45,
            (Self::HandingIn, Setback::NotNow(_)) | (Self::Long, _) => 300,
        })
    }

    /// How long to pause after try number `tried` (from 1), `spent` after the first one began;
    /// `None` to give up. It is the larger of what the server asked for and our own backoff, and up
    /// to a quarter of that more by chance where the server named a time: it named the same to
    /// others.
    #[must_use]
    pub fn pause(
        self,
        tried: u32,
        spent: Duration,
        setback: Setback,
        chance: u32,
    ) -> Option<Duration> {
        let own = PAUSES.pause(tried.saturating_sub(1), u128::from(chance));
        let pause = match setback {
            Setback::NotNow(Some(asked)) if asked > OBEYED => return None,
            Setback::NotNow(Some(asked)) => own.max(asked + asked / 4 * (chance % 1000) / 1000),
            Setback::NotNow(None) | Setback::Unreachable => own,
        };
        (spent + pause <= self.limit(setback)).then_some(pause)
    }
}

/// Whether a later try may end otherwise than with this status of HTTP: 429, and those of a server
/// or gateway that is busy.
#[must_use]
pub fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pauses, where each try takes no time.
    fn pauses(patience: Patience, setback: Setback) -> Vec<Duration> {
        let mut pauses: Vec<Duration> = Vec::new();
        while let Some(pause) =
            patience.pause(pauses.len() as u32 + 1, pauses.iter().sum(), setback, 0)
        {
            pauses.push(pause);
        }
        pauses
    }

    #[test]
    fn pauses_grow_and_patience_ends_with_time() {
        assert_eq!(
            pauses(Patience::Short, Setback::Unreachable),
            [100, 200, 400, 800, 1600].map(Duration::from_millis)
        );
        assert!(pauses(Patience::Once, Setback::NotNow(None)).is_empty());
        for (patience, setback, most) in [
            (Patience::Short, Setback::NotNow(None), 45),
            (
                Patience::Short,
                Setback::NotNow(Some(Duration::from_secs(9))),
                45,
            ),
            (
                Patience::HandingIn,
                Setback::NotNow(Some(Duration::from_secs(1))),
                300,
            ),
            (Patience::Long, Setback::Unreachable, 300),
        ] {
            let all: Duration = pauses(patience, setback).iter().sum();
            assert!(
                (most - 10..=most).contains(&all.as_secs()),
                "{patience:?} {setback:?}: {all:?}"
            );
        }
        // A try that takes long counts too.
        let late = Duration::from_secs(299);
        assert_eq!(
            Patience::Long.pause(2, late, Setback::NotNow(Some(Duration::from_secs(5))), 0),
            None
        );
    }

    #[test]
    fn the_larger_of_both_wishes_counts() {
        let asked = |tried, seconds, chance| {
            let setback = Setback::NotNow(Some(Duration::from_secs(seconds)));
            Patience::Long.pause(tried, Duration::ZERO, setback, chance)
        };
        assert_eq!(asked(1, 8, 0), Some(Duration::from_secs(8)));
        assert_eq!(asked(1, 8, 500), Some(Duration::from_secs(9)));
        assert_eq!(
            asked(20, 1, 0),
            Some(PAUSES.longest / 2),
            "our own is longer by then"
        );
        assert_eq!(asked(1, 61, 0), None, "the user had better know");
    }
}
