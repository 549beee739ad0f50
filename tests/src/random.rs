//! Random numbers that depend on their purpose only.

use std::ops::RangeInclusive;

use chrono::TimeDelta;

/// A stream of random numbers (SplitMix64).
///
/// Each stream is keyed by its purpose, so a draw does not depend on other draws before it. Two
/// launchers that start the same tasks in different order get the same tasks.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed for this purpose.
    #[must_use]
    pub fn keyed(seed: u64, purpose: &str, number: u64) -> Self {
        // FNV-1a, which gives the same values on every machine.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        let mut random =
            Self(seed ^ hash.rotate_left(17) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.bits();
        random
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether something of this probability happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits, which a float holds exactly"
        )]
        let drawn = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }

    /// A duration in this range, to the millisecond.
    pub fn within(&mut self, range: &RangeInclusive<TimeDelta>) -> TimeDelta {
        let (least, most) = (
            range.start().num_milliseconds(),
            range.end().num_milliseconds(),
        );
        let span = u64::try_from(most - least).unwrap_or_default() + 1;
        TimeDelta::milliseconds(least + i64::try_from(self.bits() % span).unwrap_or_default())
    }

    /// A number below `count`, which must not be 0.
    pub fn below(&mut self, count: u64) -> u64 {
        self.bits() % count.max(1)
    }

    /// One of these choices.
    ///
    /// # Panics
    /// When there are none.
    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or_default()].clone()
    }
}
