//! H2 histograms (<https://h2histogram.org>) with grouping power 3: values below 16 have a bucket each, above
//! that every power of two has eight, so a value is known to within 12.5 %.

/// Buckets that cover all of `u64`.
pub const BUCKETS: usize = 496;
const GROUPING_POWER: u32 = 3;

/// How often values fell into each bucket. Most buckets of most histograms are empty, so only the others
/// are kept.
///
/// Invariant: `counts` is sorted by bucket, without repetitions and without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<(u16, u64)>,
}

impl Histogram {
    /// From a count for every bucket; what is beyond [`BUCKETS`] is ignored.
    pub fn from_counts(counts: &[u64]) -> Self {
        let counts = counts
            .iter()
            .take(BUCKETS)
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| (bucket as u16, *count))
            .collect();
        Self { counts }
    }

    /// Buckets that are not empty, lowest first: `(bucket, count)`.
    pub fn counts(&self) -> &[(u16, u64)] {
        &self.counts
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// The upper bound of the bucket in which the `q`-th part of the values ends, `0.0 <= q <= 1.0`.
    /// `None` without values.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| bounds(*bucket).1)
        })
    }

    /// Adds the counts of another one.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len().max(other.counts.len()));
        let (mut ours, mut theirs) =
            (self.counts.iter().peekable(), other.counts.iter().peekable());
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some((a, n)), Some((b, m))) if a == b => {
                    let both = (*a, n + m);
                    ours.next();
                    theirs.next();
                    both
                }
                (Some((a, _)), Some((b, _))) if a < b => *ours.next().expect("peeked"),
                (_, Some(_)) => *theirs.next().expect("peeked"),
                (Some(_), None) => *ours.next().expect("peeked"),
                (None, None) => break,
            };
            merged.push(next);
        }
        self.counts = merged;
    }
}

/// The bucket that a value falls into.
pub fn bucket(value: u64) -> u16 {
    if value < 2 << GROUPING_POWER {
        return value as u16;
    }
    let shift = value.ilog2() - GROUPING_POWER;
    ((shift << GROUPING_POWER) as u64 + (value >> shift)) as u16
}

/// The lowest and the highest value of a bucket.
pub fn bounds(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < 2 << GROUPING_POWER {
        return (bucket, bucket);
    }
    let shift = (bucket >> GROUPING_POWER) - 1;
    let mantissa = (bucket & ((1 << GROUPING_POWER) - 1)) + (1 << GROUPING_POWER);
    let low = mantissa << shift;
    (low, low + ((1 << shift) - 1))
}

#[cfg(test)]
mod tests;
