//! Quantiles of classic histograms.

use std::collections::BTreeMap;

use super::{Context, Curve, Evaluated, Grid, absent, is_present, unique};
use crate::labels::Labels;
use crate::syntax::Expr;

impl Context<'_> {
    /// `histogram_quantile`: series that differ only in `le` are one histogram.
    pub fn histogram_quantile(&self, arguments: &[Expr], grid: &Grid) -> Evaluated<Vec<Curve>> {
        let quantiles = self.scalar(&arguments[0], grid)?;
        let mut histograms: BTreeMap<Labels, Vec<(f64, Vec<f64>)>> = BTreeMap::new();
        for curve in self.vector(&arguments[1], grid)? {
            let Some(bound) = parse_bound(curve.labels.value("le")) else { continue };
            let mut labels = curve.labels.without_name();
            labels.set("le", "");
            histograms.entry(labels).or_default().push((bound, curve.values));
        }
        let mut curves = Vec::with_capacity(histograms.len());
        for (labels, buckets) in histograms {
            self.look_at(buckets.len() * grid.len())?;
            let values = quantiles.iter().enumerate().map(|(index, quantile)| {
                let buckets = buckets.iter().map(|(bound, counts)| (*bound, counts[index]));
                let buckets: Vec<_> = buckets.filter(|(_, count)| is_present(*count)).collect();
                if buckets.is_empty() { absent() } else { bucket_quantile(*quantile, buckets) }
            });
            curves.push(Curve { labels, values: values.collect() });
        }
        unique(curves)
    }
}

/// The quantile of cumulative buckets (upper bound, count), by linear interpolation: `bucketQuantile` of
/// Prometheus's `promql/quantile.go`.
pub fn bucket_quantile(quantile: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    if quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if quantile > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
    // Several of the same bound are one; a count below the one before is noise of scraping.
    let mut merged: Vec<(f64, f64)> = Vec::with_capacity(buckets.len());
    for (bound, count) in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => merged.push((bound, count)),
        }
    }
    // A count that is no number stays: it is below nothing, and nothing is below it.
    let mut most = merged.first().map_or(0.0, |(_, count)| *count);
    for (_, count) in &mut merged {
        if *count > most {
            most = *count;
        } else if *count < most {
            *count = most;
        }
    }
    let [.., (before_last, _), (last, observations)] = merged[..] else { return f64::NAN };
    if last != f64::INFINITY || observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = quantile * observations;
    let enough = |(_, count): &(f64, f64)| *count >= rank;
    let bucket = merged[..merged.len() - 1].partition_point(|bucket| !enough(bucket));
    if bucket == merged.len() - 1 {
        return before_last;
    }
    let (end, mut count) = merged[bucket];
    if bucket == 0 && end <= 0.0 {
        return end;
    }
    let mut start = 0.0;
    if bucket > 0 {
        start = merged[bucket - 1].0;
        count -= merged[bucket - 1].1;
        rank -= merged[bucket - 1].1;
    }
    start + (end - start) * (rank / count)
}

fn parse_bound(text: &str) -> Option<f64> {
    // Rust reads 'infinity' and 'nan' too, as Go does.
    text.parse().ok()
}
