//! A summary of many lengths of time, from which quantiles can be told.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};

/// The largest relative error of a quantile: a little below the 2 % that are promised, since a
/// reader rounds it.
const ERROR: f64 = 0.018;

/// Counts of lengths of time in bins whose bounds grow by a constant factor, as in "`DDSketch`"
/// (Masson, Rim and Lee, 2019). Each value of a bin is at most 1.8 % from the middle of the bin.
/// Sketches are added bin by bin, in any order.
///
/// Its stored form is a text of some three characters for each bin that is not empty, since it is
/// written with each batch of ends. It is ours because no crate's sketch has a form as small and
/// as fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sketch(BTreeMap<u16, u64>);

/// A text that is not the stored form of a sketch.
#[derive(Debug, thiserror::Error)]
#[error("is not a sketch")]
pub struct NoSketch;

/// Writes a number as LEB128: seven bits in each byte, the lowest first.
fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    bytes.extend(u8::try_from(number));
}

/// Reads a number that [`write_number`] wrote.
fn read_number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl From<Sketch> for String {
    /// For each bin its distance from the bin before, and its count.
    fn from(sketch: Sketch) -> Self {
        let (mut bytes, mut before) = (Vec::new(), 0);
        for (bin, count) in sketch.0 {
            write_number(u64::from(bin - before), &mut bytes);
            write_number(count, &mut bytes);
            before = bin;
        }
        STANDARD_NO_PAD.encode(bytes)
    }
}

impl TryFrom<String> for Sketch {
    type Error = NoSketch;

    fn try_from(text: String) -> Result<Self, NoSketch> {
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| NoSketch)?;
        let (mut bytes, mut bin, mut bins) = (bytes.into_iter().peekable(), 0_u16, BTreeMap::new());
        while bytes.peek().is_some() {
            let mut next = || read_number(&mut bytes).ok_or(NoSketch);
            let (distance, count) = (next()?, next()?);
            let distance = u16::try_from(distance).map_err(|_| NoSketch)?;
            bin = bin.checked_add(distance).ok_or(NoSketch)?;
            bins.insert(bin, count);
        }
        Ok(Self(bins))
    }
}

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

    /// The smallest length that at least this part of all lengths does not exceed (nearest rank), in
    /// milliseconds; `part` is from 0 to 1.
    /// `None` if there are none. It is less than 2 % off, or half a millisecond more, as it is rounded.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between zero and the count"
    )]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let rank = (part.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut passed = 0;
        let found = self.0.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        found.map(|(bin, _)| middle(*bin).round() as u64)
    }
}

impl Extend<u64> for Sketch {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, lengths: I) {
        for millis in lengths {
            *self.0.entry(bin(millis)).or_default() += 1;
        }
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
            let off = (told as f64 - millis as f64).abs();
            // It is rounded to a millisecond.
            assert!(off < 0.019 * millis as f64 + 0.5, "{millis}: {told}");
            millis += 1 + millis / 97;
        }
    }

    #[test]
    fn quantiles_are_ranks_and_sketches_add_up() {
        let mut sketch = of(1..=50);
        sketch.merge(&of(51..=100));
        assert_eq!(sketch, of((1..=100).rev()));
        assert_eq!(sketch.count(), 100);
        for (part, rank) in [(0.0, 1_u64), (0.5, 50), (0.95, 95), (1.0, 100)] {
            let told = sketch.quantile(part).expect("there are some");
            assert!(told.abs_diff(rank) <= rank / 50 + 1, "{part}: {told}");
        }
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([0, 0, 7]).quantile(0.5), Some(0));
        let longest = of([1_000, 100_000]).quantile(0.95).expect("there are two");
        assert!(longest.abs_diff(100_000) < 1_900, "{longest}");
    }

    #[test]
    fn a_stored_sketch_is_small_and_read_as_it_was_written() {
        let mut sketch = of((1..=1_000).map(|second| second * 1_000));
        sketch.extend([0, u64::MAX]);
        let stored = String::from(sketch.clone());
        assert!(stored.len() < 3 * 200, "{stored}");
        assert_eq!(Sketch::try_from(stored).expect("it is one"), sketch);
        assert_eq!(String::from(Sketch::default()), "");
        for text in ["AQ", "!", "gICAgICAgICAgICAAQE", "//8HAQ"] {
            assert!(Sketch::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
