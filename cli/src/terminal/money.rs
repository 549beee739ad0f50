//! Amounts of money, as people read them.

use domain::api::CostView;

/// Formats dollars: two digits of what is less than a dollar, cents of what is more.
pub(crate) fn dollars(usd: f64) -> String {
    if usd <= 0.0 {
        return "$0".into();
    }
    // The second significant digit: of 0.000164 that is the fifth decimal.
    let second = (1..=9).find(|decimals| usd * 10_f64.powi(*decimals) >= 9.95);
    let decimals = usize::try_from(second.unwrap_or(9)).unwrap_or(2).max(2);
    format!("${usd:.decimals$}")
}

/// Formats a range: `about $0.00016`, `about $0.00013 to $0.00025`.
pub(crate) fn about(low: f64, high: f64) -> String {
    let (low, high) = (dollars(low), dollars(high));
    if low == high {
        format!("about {high}")
    } else {
        format!("about {low} to {high}")
    }
}

/// Formats a cost and the basis of its prices.
pub(crate) fn cost(cost: &CostView) -> String {
    format!("{}, at {}", about(cost.usd_low, cost.usd_high), cost.basis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_amounts_have_two_digits_and_large_ones_cents() {
        for (usd, expected) in [
            (0.0, "$0"),
            (0.000_164_583, "$0.00016"),
            (0.000_099_9, "$0.00010"),
            (0.0123, "$0.012"),
            (0.05, "$0.050"),
            (0.994, "$0.99"),
            (0.999, "$1.00"),
            (12.345, "$12.35"),
            (1234.5, "$1234.50"),
            (0.000_000_000_4, "$0.000000000"),
        ] {
            assert_eq!(dollars(usd), expected, "{usd}");
        }
    }

    #[test]
    fn a_range_is_told_only_if_it_can_be_seen() {
        assert_eq!(about(0.000_13, 0.000_25), "about $0.00013 to $0.00025");
        assert_eq!(about(0.000_130_1, 0.000_130_2), "about $0.00013");
    }
}
