//! How long a client repeats a failing call, and how long it pauses in between.

use std::time::Duration;

use crate::backoff::Backoff;

/// The pauses between tries. They start short because most faults pass at once, and end at 10 s so
/// that a server that has recovered is used soon.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};
/// The longest `Retry-After` that is obeyed. Beyond it the user should learn of the fault instead.
const OBEYED: Duration = Duration::from_secs(60);

/// How long a call is repeated. Each limit follows how long the caller can wait: seconds or less
/// than a minute for an answer, five minutes for lines of a submission and for a run that is
/// followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// One try, because a repetition might do the same thing twice.
    Once,
    /// A person waits for the answer.
    Short,
    /// Lines of a submission are sent. A busy server can accept the same request later, so it is
    /// retried for long. A server that does not answer is reported soon.
    HandingIn,
    /// A run is followed, and it goes on while the network is down.
    Long,
}

/// The reason of a failed try that may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// No answer came.
    Unreachable,
    /// The server answered that it cannot do it now, with the `Retry-After` if it gave one.
    NotNow(Option<Duration>),
}

impl Patience {
    /// How long a call is repeated. A server that says it is busy is worth a longer wait than one
    /// that does not answer.
    fn limit(self, setback: Setback) -> Duration {
        Duration::from_secs(match (self, setback) {
            (Self::Once, _) => 0,
            (Self::Short | Self::HandingIn, Setback::Unreachable) => 4,
            (Self::Short, Setback::NotNow(_)) => 45,
            (Self::HandingIn, Setback::NotNow(_)) | (Self::Long, _) => 300,
        })
    }

    /// How long to pause after try number `tried` (from 1), `spent` after the first one began;
    /// `None` to give up. The pause is the larger of the server's `Retry-After` and the client's
    /// own backoff. Up to a quarter is added at random to the `Retry-After`, because the server
    /// gave others the same one.
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

/// Whether a later try may succeed after this HTTP status: 429, or the statuses of a busy server or
/// gateway.
#[must_use]
pub fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pauses, when each try takes no time.
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
        // The duration of a try counts too.
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
