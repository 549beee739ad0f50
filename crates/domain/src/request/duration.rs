//! How long a command may run.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::shown;

/// The longest timeout, unless the stack sets less, in seconds: 7 days. Longer work needs more than
/// one task.
pub const TIMEOUT_MAX: u32 = 7 * 86_400;

/// How long a command may run, in whole seconds, counted from the command's own start: 1 second to
/// [`TIMEOUT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Timeout(u32);

/// Why a text is not a [`Timeout`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimeoutError {
    /// Not a duration.
    #[error("{} is not a duration: write it like `90s`, `30m`, `1h30m` or `2d`, or as whole seconds", shown(.0))]
    Syntax(String),
    /// Zero seconds.
    #[error("is zero, and the minimum is 1s: leave it out for the default")]
    Zero,
    /// Longer than the limit.
    #[error("is longer than the limit of {0}: shorten it, or split the work")]
    TooLong(Timeout),
}

/// Units in the order they must appear, with their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Timeout {
    /// One hour: the default.
    pub const HOUR: Self = Self(3_600);
    /// The longest timeout: 7 days.
    pub const MAX: Self = Self(TIMEOUT_MAX);

    /// Returns a timeout of whole seconds.
    ///
    /// # Errors
    /// [`TimeoutError`] if it is zero or above [`TIMEOUT_MAX`].
    pub fn from_seconds(seconds: u32) -> Result<Self, TimeoutError> {
        Self::within(u64::from(seconds), Self::MAX)
    }

    /// Reads `90s`, `30m`, `1h30m`, `2d` or bare seconds, up to `max`.
    ///
    /// # Errors
    /// [`TimeoutError`] if it is not a duration, zero, or above `max`.
    pub fn parse(text: &str, max: Self) -> Result<Self, TimeoutError> {
        let seconds = seconds(text).ok_or_else(|| TimeoutError::Syntax(text.to_owned()))?;
        Self::within(seconds, max)
    }

    /// Returns the whole seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    fn within(seconds: u64, max: Self) -> Result<Self, TimeoutError> {
        match u32::try_from(seconds) {
            Ok(0) => Err(TimeoutError::Zero),
            Ok(seconds) if seconds <= max.0 => Ok(Self(seconds)),
            _ => Err(TimeoutError::TooLong(max)),
        }
    }
}

impl TryFrom<u32> for Timeout {
    type Error = TimeoutError;

    fn try_from(seconds: u32) -> Result<Self, Self::Error> {
        Self::from_seconds(seconds)
    }
}

impl From<Timeout> for u32 {
    fn from(timeout: Timeout) -> Self {
        timeout.0
    }
}

impl std::fmt::Display for Timeout {
    /// Writes the shortest spelling that [`Timeout::parse`] reads back: `1h30m`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = u64::from(self.0);
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// Returns the seconds that a text stands for. Absurdly large ones saturate, so that the error
/// names the limit and not the syntax.
fn seconds(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text);
    }
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, size) in UNITS {
        if let Some((count, after)) = rest.split_once(unit) {
            total = total.saturating_add(number(count)?.saturating_mul(size));
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Timeout::parse(text, Timeout::MAX).unwrap_err().to_string()
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("1", 1),
            ("90s", 90),
            ("30m", 1_800),
            ("1h30m", 5_400),
            ("2h", 7_200),
            ("1d2h3m4s", 93_784),
            ("7d", 604_800),
            ("604800", 604_800),
            ("0h5m", 300),
        ] {
            assert_eq!(
                Timeout::parse(text, Timeout::MAX).map(Timeout::seconds),
                Ok(seconds),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_shown_how_to_write_one() {
        for text in [
            "", "soon", "m", "1h30", "30m1h", "1.5h", "-5m", "+5", " 5m", "5 m", "1h1h", "5M",
            "５m",
        ] {
            let expected = format!(
                "`{text}` is not a duration: write it like `90s`, `30m`, `1h30m` or `2d`, or as whole seconds"
            );
            assert_eq!(fault(text), expected);
        }
    }

    #[test]
    fn the_limits_are_named() {
        assert_eq!(
            fault("0"),
            "is zero, and the minimum is 1s: leave it out for the default"
        );
        assert_eq!(
            fault("0h0m"),
            "is zero, and the minimum is 1s: leave it out for the default"
        );
        for text in [
            "604801",
            "8d",
            "7d1s",
            "4294967297s",
            "99999999999999999999d",
        ] {
            assert_eq!(
                fault(text),
                "is longer than the limit of 7d: shorten it, or split the work"
            );
        }
        let stack_limit = Timeout::parse("2h", Timeout::HOUR).unwrap_err();
        assert_eq!(
            stack_limit.to_string(),
            "is longer than the limit of 1h: shorten it, or split the work"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_timeout_reads_back_from_its_own_spelling(seconds in 1..=TIMEOUT_MAX) {
            let timeout = Timeout::from_seconds(seconds).unwrap();
            proptest::prop_assert_eq!(Timeout::parse(&timeout.to_string(), Timeout::MAX), Ok(timeout));
            proptest::prop_assert_eq!(Timeout::parse(&seconds.to_string(), Timeout::MAX), Ok(timeout));
        }
    }
}
