//! Token buckets: how AWS throttles.

use domain::Timestamp;

/// The burst and the sustained rate of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The most tokens there can be.
    pub burst: u32,
    /// Tokens that come back each second.
    pub per_second: u32,
}

/// A token bucket, counted exactly: in thousandths of a token and whole milliseconds.
///
/// It is not the domain's bucket, because the launcher's own bucket is tested against this one.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    shape: Shape,
    thousandths: u64,
    at: Timestamp,
}

const TOKEN: u64 = 1000;

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            thousandths: u64::from(shape.burst) * TOKEN,
            at: Timestamp::default(),
        }
    }

    /// Takes this many tokens, or none if there are fewer.
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
