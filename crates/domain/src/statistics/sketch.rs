//! A summary of many lengths of time, from which quantiles can be told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest relative error of a quantile: a little below the 2 % that are promised, since a
/// reader rounds it.
const ERROR: f64 = 0.018;

/// Counts of lengths of time in bins whose bounds grow by a constant factor, as in "`DDSketch`"
/// (Masson, Rim and Lee, 2019). Each value of a bin is at most 1.8 % from the middle of the bin.
/// Sketches are added bin by bin, in any order.
///
/// It is ours because a store adds to single bins in place, which no crate's form allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch(BTreeMap<u16, u64>);

/// The factor from one bound to the next.
fn factor() -> f64 {
    (1.0 + ERROR) / (1.0 - ERROR)
}

/// The bin of a length: 0 for nothing, else 1 to 1,234. Seven days are in bin 563.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a logarithm of a positive integer, rounded up, and far below 2^16"
)]
fn bin(millis: u64) -> u16 {
    match millis {
        0 => 0,
        millis => ((millis as f64).ln() / factor().ln()).ceil() as u16 + 1,
    }
}

/// The middle of a bin, in milliseconds.
fn middle(bin: u16) -> f64 {
    match bin {
        0 => 0.0,
        bin => 2.0 * factor().powi(i32::from(bin) - 1) / (factor() + 1.0),
    }
}

impl Sketch {
    /// The number of lengths.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds the lengths of another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (bin, count) in &other.0 {
            *self.0.entry(*bin).or_default() += count;
        }
    }

    /// The bins that are not empty, with their counts.
    pub fn bins(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(bin, count)| (*bin, *count))
    }

    /// The smallest length that at least this part of all lengths does not exceed (nearest rank), in
    /// milliseconds; `part` is from 0 to 1.
    /// `None` if there are none. It is less than 2 % off.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between zero and the count"
    )]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = (part.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut passed = 0;
        let found = self.0.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        found.map(|(bin, _)| middle(*bin))
    }
}

impl Extend<u64> for Sketch {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, lengths: I) {
        for millis in lengths {
            *self.0.entry(bin(millis)).or_default() += 1;
        }
    }
}

impl FromIterator<(u16, u64)> for Sketch {
    /// Reads the bins of a stored sketch.
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(bins: I) -> Self {
        Self(bins.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lengths: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        sketch.extend(lengths);
        sketch
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn a_quantile_is_at_most_two_percent_off() {
        // From a millisecond to seven days, and each in the middle of its bin and at its bounds.
        let mut millis = 1;
        while millis < 604_800_000 {
            let told = of([millis]).quantile(0.5).expect("there is one");
            let off = (told / millis as f64 - 1.0).abs();
            assert!(off < 0.019, "{millis}: {told}");
            millis += 1 + millis / 97;
        }
    }

    #[test]
    fn quantiles_are_ranks_and_sketches_add_up() {
        let mut sketch = of(1..=50);
        sketch.merge(&of(51..=100));
        assert_eq!(sketch, of((1..=100).rev()));
        assert_eq!(sketch.count(), 100);
        for (part, rank) in [(0.0, 1.0), (0.5, 50.0), (0.95, 95.0), (1.0, 100.0)] {
            let told = sketch.quantile(part).expect("there are some");
            assert!((told / rank - 1.0).abs() < 0.019, "{part}: {told}");
        }
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([0, 0, 7]).quantile(0.5), Some(0.0));
        let longest = of([1_000, 100_000]).quantile(0.95).expect("there are two");
        assert!((longest / 100_000.0 - 1.0).abs() < 0.019, "{longest}");
        assert_eq!(sketch.bins().collect::<Sketch>(), sketch);
    }
}
