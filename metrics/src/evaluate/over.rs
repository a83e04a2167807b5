//! Functions of a window of samples. The formulas are Prometheus's (`promql/functions.go`, 2.42), so that
//! dashboards show the same numbers.

use super::absent;
use super::aggregate::{Sum, quantile};
use crate::span::Span;
use crate::syntax::Over;

/// The samples of one series from `from_ms` to `until_ms`, both included.
pub(crate) struct Window<'a> {
    /// At least one; none is a lone stale marker.
    pub spans: &'a [Span],
    /// Whether there were samples from the window's start on that are not seen, as part of a step.
    pub began: bool,
    /// The same at its end.
    pub goes_on: bool,
    pub from_ms: i64,
    pub until_ms: i64,
    /// When it is looked at: differs from `until_ms` by offset and `@`.
    pub time_ms: i64,
}

impl Window<'_> {
    /// Absent where there are not enough samples.
    pub fn value(&self, over: Over, [parameter, second]: [f64; 2]) -> f64 {
        let spans = self.spans;
        match over {
            Over::Count => self.count(),
            Over::Sum => spans.iter().map(|span| span.sum).collect::<Sum>().value(),
            Over::Avg => mean(spans.iter().map(|span| span.sum), self.count()),
            Over::Min => smallest(spans.iter().map(|span| span.min)),
            Over::Max => -smallest(spans.iter().map(|span| -span.max)),
            Over::Last => spans[spans.len() - 1].last,
            Over::Present => 1.0,
            Over::Changes => {
                let inner: u32 = spans.iter().map(|span| span.changes).sum();
                f64::from(inner) + self.borders(crate::span::differ)
            }
            Over::Resets => {
                let inner: u32 = spans.iter().map(|span| span.resets).sum();
                f64::from(inner) + self.borders(|before, after| after < before)
            }
            Over::Rate => self.extrapolated(true, true),
            Over::Increase => self.extrapolated(true, false),
            Over::Delta => self.extrapolated(false, false),
            Over::Irate => self.last_two(true),
            Over::Idelta => self.last_two(false),
            Over::Deriv => match spans {
                [_] => absent(),
                spans => self.regression(spans[0].last_ms).0,
            },
            Over::PredictLinear => match spans {
                [_] => absent(),
                _ => {
                    let (slope, intercept) = self.regression(self.time_ms);
                    slope * parameter + intercept
                }
            },
            Over::HoltWinters => self.smoothed(parameter, second),
            Over::Mad => {
                let values = || spans.iter().map(|span| span.last);
                let median = quantile(0.5, values().collect());
                quantile(0.5, values().map(|value| (value - median).abs()).collect())
            }
            Over::Quantile => quantile(parameter, spans.iter().map(|span| span.last).collect()),
            Over::Stdvar => self.variance(),
            Over::Stddev => self.variance().sqrt(),
        }
    }

    fn count(&self) -> f64 {
        spans_count(self.spans) as f64
    }

    /// How often two samples next to each other, of different spans, are such.
    fn borders(&self, such: impl Fn(f64, f64) -> bool) -> f64 {
        self.spans.windows(2).filter(|pair| such(pair[0].last, pair[1].first)).count() as f64
    }

    /// `extrapolatedRate`: what the difference of last and first sample would be over the whole window.
    fn extrapolated(&self, is_counter: bool, is_rate: bool) -> f64 {
        let (first, last) = (&self.spans[0], &self.spans[self.spans.len() - 1]);
        let count = self.count();
        if count < 2.0 {
            return absent();
        }
        let mut result = last.last - first.first;
        if is_counter {
            result += self.spans.iter().map(|span| span.lost).sum::<f64>();
            for pair in self.spans.windows(2).filter(|pair| pair[1].first < pair[0].last) {
                result += pair[0].last;
            }
        }
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let mut to_start = seconds(first.first_ms - self.from_ms);
        let to_end = seconds(self.until_ms - last.last_ms);
        let sampled = seconds(last.last_ms - first.first_ms);
        let average = sampled / (count - 1.0);
        if is_counter && !self.began && result > 0.0 && first.first >= 0.0 {
            // A counter was not below zero: it is not extrapolated beyond where it was zero.
            to_start = to_start.min(sampled * (first.first / result));
        }
        // A series that begins or ends well within the window is taken to do so between two samples.
        let threshold = average * 1.1;
        let start = if to_start < threshold || self.began { to_start } else { average / 2.0 };
        let end = if to_end < threshold || self.goes_on { to_end } else { average / 2.0 };
        let mut factor = (sampled + start + end) / sampled;
        if is_rate {
            factor /= seconds(self.until_ms - self.from_ms);
        }
        result * factor
    }

    fn last_two(&self, is_rate: bool) -> f64 {
        let [.., before, last] = self.spans else { return absent() };
        if last.last_ms == before.last_ms {
            return absent();
        }
        let difference = last.last - before.last;
        if !is_rate {
            return difference;
        }
        let increase = if last.last < before.last { last.last } else { difference };
        increase / ((last.last_ms - before.last_ms) as f64 / 1000.0)
    }

    /// Slope and intercept by least squares, seconds from `zero_ms` on.
    fn regression(&self, zero_ms: i64) -> (f64, f64) {
        let first = self.spans[0].last;
        if self.spans.iter().all(|span| span.last == first) {
            return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
        }
        let points = || {
            let seconds = move |span: &Span| (span.last_ms - zero_ms) as f64 / 1000.0;
            self.spans.iter().map(move |span| (seconds(span), span.last))
        };
        let count = self.spans.len() as f64;
        let x = points().map(|(x, _)| x).collect::<Sum>().value();
        let y = points().map(|(_, y)| y).collect::<Sum>().value();
        let xy = points().map(|(x, y)| x * y).collect::<Sum>().value();
        let xx = points().map(|(x, _)| x * x).collect::<Sum>().value();
        let slope = (xy - x * y / count) / (xx - x * x / count);
        (slope, y / count - slope * x / count)
    }

    /// Double exponential smoothing: what remains of the last value, and of the trend, at each step.
    fn smoothed(&self, smoothing: f64, trend: f64) -> f64 {
        let [first, second, ..] = self.spans else { return absent() };
        let (mut before, mut level) = (0.0, first.last);
        let mut slope = second.last - first.last;
        for (index, span) in self.spans[1..].iter().enumerate() {
            if index > 0 {
                slope = trend * (level - before) + (1.0 - trend) * slope;
            }
            let next = smoothing * span.last + (1.0 - smoothing) * (level + slope);
            (before, level) = (level, next);
        }
        level
    }

    fn variance(&self) -> f64 {
        let count = self.spans.len() as f64;
        let mean = mean(self.spans.iter().map(|span| span.last), count);
        let squares = self.spans.iter().map(|span| (span.last - mean) * (span.last - mean));
        squares.collect::<Sum>().value() / count
    }
}

fn spans_count(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.count)).sum()
}

/// Of `count` values that have these sums. Finite where they are, though their sum may not be.
fn mean(sums: impl Iterator<Item = f64> + Clone, count: f64) -> f64 {
    let sum = sums.clone().collect::<Sum>().value();
    match sum.is_finite() {
        true => sum / count,
        false => sums.map(|sum| sum / count).sum(),
    }
}

/// NaN only if all are.
fn smallest(values: impl Iterator<Item = f64>) -> f64 {
    values
        .reduce(|least, value| if value < least || least.is_nan() { value } else { least })
        .unwrap_or(f64::NAN)
}
