//! A sample, or the summary of consecutive ones: what the store keeps and what functions look at.

/// The bits of Prometheus's stale marker: a NaN that says 'this series has ended'.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a value.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_BITS)
}

/// Whether a value is the stale marker, and not just any NaN.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}

/// Consecutive samples of one series.
///
/// Invariants: `count` is 0 only for a lone stale marker; a span of one sample has that sample in all
/// of `first`, `last`, `min`, `max` and `sum`; `first_ms <= last_ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When the first and the last sample were taken.
    pub first_ms: i64,
    /// See `first_ms`.
    pub last_ms: i64,
    /// The first sample.
    pub first: f64,
    /// The last sample.
    pub last: f64,
    /// The smallest one; NaN only if all are.
    pub min: f64,
    /// The largest one; NaN only if all are.
    pub max: f64,
    /// Of all samples.
    pub sum: f64,
    /// What a counter lost in its resets: the values just before each. The increase within the span
    /// is `last - first + lost`.
    pub lost: f64,
    /// Samples.
    pub count: u32,
    /// Samples that differ from the one before.
    pub changes: u32,
    /// Samples below the one before.
    pub resets: u32,
    /// Whether a stale marker follows `last`.
    pub stale: bool,
}

impl Span {
    /// One sample, which may be the stale marker.
    pub fn of(at_ms: i64, value: f64) -> Self {
        let stale = is_stale(value);
        Span {
            first_ms: at_ms,
            last_ms: at_ms,
            first: value,
            last: value,
            min: value,
            max: value,
            sum: value,
            lost: 0.0,
            count: u32::from(!stale),
            changes: 0,
            resets: 0,
            stale,
        }
    }

    /// Puts the samples of `later` behind these. Associative, up to the rounding of sums.
    pub fn append(&mut self, later: &Span) {
        if self.count == 0 {
            *self = *later;
            return;
        }
        self.stale = later.stale;
        if later.count == 0 {
            return;
        }
        if differ(self.last, later.first) {
            self.changes += 1;
        }
        if later.first < self.last {
            self.resets += 1;
            self.lost += self.last;
        }
        if later.min < self.min || self.min.is_nan() {
            self.min = later.min;
        }
        if later.max > self.max || self.max.is_nan() {
            self.max = later.max;
        }
        self.last_ms = later.last_ms;
        self.last = later.last;
        self.sum += later.sum;
        self.lost += later.lost;
        self.count = self.count.saturating_add(later.count);
        self.changes += later.changes;
        self.resets += later.resets;
    }

    /// The same samples, taken `by_ms` later.
    pub(crate) fn shifted(mut self, by_ms: i64) -> Self {
        self.first_ms = self.first_ms.saturating_add(by_ms);
        self.last_ms = self.last_ms.saturating_add(by_ms);
        self
    }

    /// The last sample alone.
    pub fn tail(&self) -> Span {
        Span { stale: self.stale, ..Span::of(self.last_ms, self.last) }
    }

    /// The first sample alone.
    pub fn head(&self) -> Span {
        Span::of(self.first_ms, self.first)
    }

    /// A sum of decimal numbers carries noise in its last bits that does not compress: where a decimal
    /// number is within that noise, it becomes the sum.
    pub(crate) fn settle(&mut self) {
        if self.changes == 0 {
            self.sum = self.last * f64::from(self.count);
            return;
        }
        for scale in [1.0, 1e3, 1e6, 1e9] {
            let rounded = (self.sum * scale).round() / scale;
            let noise = f64::EPSILON * f64::from(self.count) * self.sum.abs();
            if (rounded - self.sum).abs() <= noise {
                self.sum = rounded;
                return;
            }
        }
    }
}

/// Whether a sample is a change after another: NaN after NaN is none.
pub fn differ(before: f64, after: f64) -> bool {
    before != after && !(before.is_nan() && after.is_nan())
}
