//! Token buckets: how AWS says "too fast".

use domain::Timestamp;

/// How many calls at once, and how many a second after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The most tokens there can be.
    pub burst: u32,
    /// Tokens that come back each second.
    pub per_second: u32,
}

/// A token bucket, counted exactly: in thousandths of a token and whole milliseconds.
///
/// It is not the domain's: what the launcher's own measure is held against must not be that
/// measure.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    shape: Shape,
    thousandths: u64,
    at: Timestamp,
}

const TOKEN: u64 = 1000;

impl Bucket {
    /// A full one.
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            thousandths: u64::from(shape.burst) * TOKEN,
            at: Timestamp::default(),
        }
    }

    /// Takes that many tokens, or none at all if there are fewer.
    pub(super) fn take(&mut self, tokens: u32, now: Timestamp) -> bool {
        let millis = u64::try_from((now - self.at).num_milliseconds()).unwrap_or_default();
        let back = millis.saturating_mul(u64::from(self.shape.per_second));
        self.thousandths = self
            .thousandths
            .saturating_add(back)
            .min(u64::from(self.shape.burst) * TOKEN);
        self.at = self.at.max(now);
        let left = self.thousandths.checked_sub(u64::from(tokens) * TOKEN);
        self.thousandths = left.unwrap_or(self.thousandths);
        left.is_some()
    }
}
