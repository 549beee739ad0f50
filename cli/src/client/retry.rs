//! When to ask again, and after how long.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::backoff::Backoff;
use reqwest::{StatusCode, header::HeaderValue};

/// The pauses between tries. Ours.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };
/// The longest that an API's `Retry-After` is obeyed; beyond it the user had better know.
const OBEYED: Duration = Duration::from_secs(60);

/// For how long a call is tried. Ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// One try: what was done cannot be told from what is done again.
    Once,
    /// Five tries, three seconds in all: somebody waits for an answer.
    Short,
    /// About five minutes: a run is followed, and outlives a lost network.
    Long,
}

impl Patience {
    fn tries(self) -> u32 {
        match self {
            Self::Once => 1,
            Self::Short => 5,
            Self::Long => 35,
        }
    }

    /// How long to pause after try number `tried` (from 1), which the server answered with `asked` if it did; `None` to give up.
    pub(crate) fn pause(self, tried: u32, asked: Option<Duration>, chance: u32) -> Option<Duration> {
        if tried >= self.tries() || asked.is_some_and(|asked| asked > OBEYED) {
            return None;
        }
        Some(asked.unwrap_or_else(|| PAUSES.pause(tried.saturating_sub(1), u128::from(chance))))
    }
}

/// Whether a later try may end otherwise.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Reads `Retry-After`, in either of its forms: seconds, or a date.
pub(crate) fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - Utc::now()).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (1..9).map_while(|tried| Patience::Short.pause(tried, None, 0)).collect();
        assert_eq!(pauses, [100, 200, 400, 800].map(Duration::from_millis));
        assert_eq!(Patience::Long.pause(20, None, 0), Some(PAUSES.longest / 2));
    }

    #[test]
    fn the_server_s_own_wish_is_kept_but_not_for_ever() {
        let asked = |seconds| Patience::Short.pause(1, Some(Duration::from_secs(seconds)), 300);
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(61), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text| retry_after(&HeaderValue::from_static(text));
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
