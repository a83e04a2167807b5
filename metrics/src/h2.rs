//! Histograms of integers with a bounded relative error, as the probes count them.
//!
//! H2: values below 16 have a bucket each; above, every power of two has 8 buckets of equal width. A value
//! is known to 1/8 of itself, and 496 buckets reach to the largest 64-bit number. (The grouping power 3 of
//! the `histogram` crate; 'H2 Histogram', IOP Systems.)

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Buckets of every histogram.
pub const BUCKETS: usize = 496;
/// Each power of two has two to the power of this many buckets.
const GROUPING_POWER: u32 = 3;
const GROUP: usize = 1 << GROUPING_POWER;

/// Counts of buckets, those that are not zero.
///
/// Invariants: in the order of their indices, each below [`BUCKETS`] and at most once.
///
/// Laws: merging is commutative and associative, and an empty histogram is neutral.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct H2(Vec<(u16, u64)>);

/// Why buckets are no histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buckets of a histogram must be in order and below {BUCKETS}, each once")]
pub struct NoHistogram;

impl TryFrom<Vec<(u16, u64)>> for H2 {
    type Error = NoHistogram;

    fn try_from(buckets: Vec<(u16, u64)>) -> Result<Self, NoHistogram> {
        let ordered = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside = buckets.last().is_none_or(|(index, _)| usize::from(*index) < BUCKETS);
        if ordered && inside { Ok(H2(buckets)) } else { Err(NoHistogram) }
    }
}

impl From<H2> for Vec<(u16, u64)> {
    fn from(histogram: H2) -> Self {
        histogram.0
    }
}

impl H2 {
    /// Of all buckets, as a probe has them. Those beyond [`BUCKETS`] do not count.
    pub fn of_counts(counts: &[u64]) -> Self {
        let counts = counts.iter().take(BUCKETS).enumerate().filter(|(_, count)| **count > 0);
        H2(counts.map(|(index, count)| (index as u16, *count)).collect())
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64, count: u64) {
        let index = bucket_of(value) as u16;
        match self.0.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(place) => self.0[place].1 = self.0[place].1.saturating_add(count),
            Err(place) => self.0.insert(place, (index, count)),
        }
    }

    /// Puts another histogram to this one.
    pub fn merge(&mut self, other: &H2) {
        let mut merged = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(one), Some(two)) if one.0 == two.0 => {
                    let both = (one.0, one.1.saturating_add(two.1));
                    left.next();
                    right.next();
                    both
                }
                (Some(one), Some(two)) if one.0 > two.0 => *right.next().expect("peeked"),
                (Some(_), _) => *left.next().expect("peeked"),
                (None, Some(_)) => *right.next().expect("peeked"),
                (None, None) => break,
            };
            merged.push(next);
        }
        self.0 = merged;
    }

    /// All counts together.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The bucket, as its smallest and largest value, that holds the value of a rank: 0 the smallest, 1 the
    /// largest. Nothing if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<(u64, u64)> {
        let rank = (quantile.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0);
        let mut seen = 0u64;
        for (index, count) in &self.0 {
            seen = seen.saturating_add(*count);
            if seen as f64 >= rank {
                return Some(bounds(usize::from(*index)));
            }
        }
        self.0.last().map(|(index, _)| bounds(usize::from(*index)))
    }

    /// As a classic histogram with a bucket for each power of two of `powers`, for those who scrape. Values
    /// are multiplied with `unit`. Exact but for values that are a bound: they are in the bucket above it.
    pub fn classic(&self, powers: std::ops::RangeInclusive<u32>, unit: f64) -> Vec<(f64, u64)> {
        let below = |bound: u64| {
            let inside = self.0.iter().filter(|(index, _)| bounds(usize::from(*index)).1 < bound);
            inside.fold(0u64, |sum, (_, count)| sum.saturating_add(*count))
        };
        let powers = powers.filter(|power| *power < u64::BITS).map(|power| 1u64 << power);
        let mut buckets: Vec<_> = powers.map(|bound| (bound as f64 * unit, below(bound))).collect();
        buckets.push((f64::INFINITY, self.count()));
        buckets
    }

    /// The buckets that are not empty: smallest value, largest value, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.0.iter().map(|(index, count)| {
            let (low, high) = bounds(usize::from(*index));
            (low, high, *count)
        })
    }
}

/// The index of the bucket that a value is in.
pub fn bucket_of(value: u64) -> usize {
    if value < 2 * GROUP as u64 {
        return value as usize;
    }
    let power = value.ilog2();
    let shift = power - GROUPING_POWER;
    (shift as usize) * GROUP + (value >> shift) as usize
}

/// The smallest and the largest value of a bucket.
pub fn bounds(index: usize) -> (u64, u64) {
    if index < 2 * GROUP {
        return (index as u64, index as u64);
    }
    let shift = (index / GROUP - 1).min(60) as u32;
    let low = ((index % GROUP + GROUP) as u64) << shift;
    (low, low + ((1 << shift) - 1))
}
