//! Times and spans, as people write and read them.

use chrono::{Local, NaiveDate, TimeDelta, Utc};
use domain::Timestamp;

/// Reads a point in time: how long ago (`30m`, `2h`, `7d`), a date in the user's time zone, or RFC
/// 3339.
///
/// # Errors
/// The text has none of these forms; the message names them.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    let ago = || {
        TimeDelta::from_std(humantime::parse_duration(text).ok()?)
            .ok()
            .and_then(|ago| Utc::now().checked_sub_signed(ago))
    };
    let date = || {
        text.parse::<NaiveDate>()
            .ok()?
            .and_hms_opt(0, 0, 0)?
            .and_local_timezone(Local)
            .earliest()
    };
    let exact = || text.parse::<Timestamp>().ok();
    let moment = ago()
        .or_else(|| date().map(|date| date.to_utc()))
        .or_else(exact);
    moment.ok_or_else(|| {
        "write how long ago (30m, 2h, 7d), a date (2026-01-31) or a time (2026-01-31T12:00:00Z)"
            .into()
    })
}

/// Reads a day of UTC: a date, or the day of any other point in time that [`since`] reads.
///
/// # Errors
/// The text has none of these forms; the message names them.
pub(crate) fn day(text: &str) -> Result<NaiveDate, String> {
    let date = text.parse().ok();
    date.map_or_else(|| since(text).map(|moment| moment.date_naive()), Ok)
}

/// Reads a span: `90s`, `30m`, `12h`, `30d`.
///
/// # Errors
/// The text is not a span, or the span is too long.
pub(crate) fn span(text: &str) -> Result<TimeDelta, String> {
    let span = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as in 12h or 30d"))?;
    TimeDelta::from_std(span).map_err(|_| "that is too long".into())
}

/// Formats a time with milliseconds, in UTC.
pub(crate) fn exact(moment: Timestamp) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Formats a time to the second, in the user's time zone.
pub(crate) fn shown(moment: Timestamp) -> String {
    moment
        .with_timezone(&Local)
        .format("%Y-%m-%d %H:%M:%S %:z")
        .to_string()
}

/// Formats a span in its one or two largest units: `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4
/// d 1 h`.
pub(crate) fn words(span: TimeDelta) -> String {
    let seconds = span.num_seconds();
    match seconds {
        ..0 => "0 s".into(),
        0 => format!("{} ms", span.num_milliseconds().max(0)),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

fn two(large: i64, unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {unit}")
    } else {
        format!("{large} {unit} {small} {small_unit}")
    }
}

/// Formats a span in its largest unit: `12s`, `3m`, `2h`, `400d`. Up to 999 days that is at most
/// four characters.
pub(crate) fn short(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_their_largest_units() {
        let said = [
            (0, "0 ms"),
            (59, "59 s"),
            (60, "1 min"),
            (185, "3 min 5 s"),
            (7800, "2 h 10 min"),
            (349_200, "4 d 1 h"),
            (-5, "0 s"),
        ];
        for (seconds, expected) in said {
            assert_eq!(words(TimeDelta::seconds(seconds)), expected);
        }
        for (seconds, expected) in [
            (-1, "0s"),
            (59, "59s"),
            (119, "1m"),
            (7199, "1h"),
            (864_000, "10d"),
        ] {
            assert_eq!(short(TimeDelta::seconds(seconds)), expected);
        }
    }

    #[test]
    fn a_moment_is_given_in_three_forms() {
        let ago = Utc::now() - since("2h").unwrap();
        assert!((ago - TimeDelta::hours(2)).abs() < TimeDelta::minutes(1));
        assert_eq!(
            since("2026-01-31T12:00:00+01:00").unwrap().to_rfc3339(),
            "2026-01-31T11:00:00+00:00"
        );
        let midnight = since("2026-01-31").unwrap().with_timezone(&Local);
        assert_eq!(midnight.format("%F %T").to_string(), "2026-01-31 00:00:00");
        for wrong in ["", "yesterday", "2026-13-01", "99999999999y"] {
            assert!(since(wrong).unwrap_err().contains("30m"), "{wrong}");
        }
    }
}
