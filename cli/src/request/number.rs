//! Whole numbers on the command line.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

/// Returns a clap parser for a whole number in a range. Its error names the range, where clap's own
/// would say that a digit is invalid.
pub(crate) fn whole<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        let number = text
            .parse::<T>()
            .ok()
            .filter(|number| range.contains(number));
        number.ok_or_else(|| format!("write a whole number, {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_the_range_is_told_the_range() {
        let priority = whole(-100..=100);
        assert_eq!(
            (priority("-100"), priority("+7"), priority("100")),
            (Ok(-100), Ok(7), Ok(100))
        );
        for wrong in ["", "x", "1.5", "101", "9999999999999999999999", " 1"] {
            assert_eq!(
                priority(wrong),
                Err("write a whole number, -100 to 100".to_owned()),
                "{wrong:?}"
            );
        }
    }
}
