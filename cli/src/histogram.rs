//! Histograms as Prometheus has them: how many values were at most this large, by the label `le`.

use std::collections::BTreeMap;

use crate::prometheus::{Labels, Point};

/// The label that holds a bucket's upper bound.
pub const BOUND: &str = "le";

/// How many values each bucket has.
///
/// Invariant: in the order of their bounds, each bound once, no count below 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: Vec<(f64, f64)>,
}

/// A value of which only a bound may be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// More than this: it is in the last bucket, which has no end.
    Above(f64),
}

/// Histograms by all labels but `le`. What has no `le` is left out.
pub fn by_group(points: &[Point]) -> BTreeMap<Labels, Histogram> {
    let mut cumulative: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for point in points {
        let mut labels = point.metric.clone();
        let bound = labels.remove(BOUND).and_then(|text| text.parse::<f64>().ok());
        if let Some(bound) = bound.filter(|bound| !bound.is_nan()) {
            cumulative.entry(labels).or_default().push((bound, point.value.value));
        }
    }
    cumulative.into_iter().map(|(labels, buckets)| (labels, Histogram::of(buckets))).collect()
}

impl Histogram {
    /// From cumulative counts by upper bound, in any order.
    pub fn of(mut cumulative: Vec<(f64, f64)>) -> Self {
        cumulative.sort_by(|left, right| left.0.total_cmp(&right.0));
        cumulative.dedup_by(|later, earlier| later.0 == earlier.0);
        let mut below = 0.0;
        let bucket = |(bound, count): (f64, f64)| {
            // Rates of counters that were read one after the other may fall a little.
            let own = if count > below { count - below } else { 0.0 };
            below += own;
            (bound, own)
        };
        Self { buckets: cumulative.into_iter().map(bucket).collect() }
    }

    /// Upper bounds and counts.
    pub fn buckets(&self) -> &[(f64, f64)] {
        &self.buckets
    }

    /// All values.
    pub fn count(&self) -> f64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The value below which a part of all values is, if there are values. Within a bucket values are taken to be
    /// evenly spread, as `histogram_quantile` of PromQL does.
    pub fn quantile(&self, quantile: f64) -> Option<Bound> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * count;
        let (mut seen, mut low) = (0.0, 0.0);
        for (bound, own) in &self.buckets {
            if seen + own >= rank && *own > 0.0 {
                return Some(if bound.is_finite() {
                    Bound::AtMost(low + (bound - low) * ((rank - seen) / own).clamp(0.0, 1.0))
                } else {
                    Bound::Above(low)
                });
            }
            seen += own;
            low = *bound;
        }
        self.largest()
    }

    /// The upper bound of the highest bucket that has values.
    pub fn largest(&self) -> Option<Bound> {
        let place = self.buckets.iter().rposition(|(_, count)| *count > 0.0)?;
        let (bound, _) = self.buckets[place];
        Some(if bound.is_finite() {
            Bound::AtMost(bound)
        } else {
            Bound::Above(place.checked_sub(1).map_or(0.0, |before| self.buckets[before].0))
        })
    }
}

impl Bound {
    /// In words, with a number written as `write` does.
    pub fn display(self, write: impl Fn(f64) -> String) -> String {
        match self {
            Bound::AtMost(value) => write(value),
            Bound::Above(value) => format!(">{}", write(value)),
        }
    }
}

#[cfg(test)]
mod tests;
