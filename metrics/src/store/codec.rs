//! How samples and steps become bits.
//!
//! Times are a difference of differences, as in Gorilla (Pelkonen et al., 'Gorilla: a fast, scalable,
//! in-memory time series database', VLDB 2015, section 4.1.1). Values are better than its XOR where they
//! are decimal numbers, as nearly all metrics are (the observation of Afroozeh et al., 'ALP: adaptive
//! lossless floating-point compression', SIGMOD 2024): a value that is exactly an integer divided by a
//! power of ten, or whole KiB, is predicted, and the difference is written in Rice's code with a parameter that
//! follows the data. Other values fall back to XOR with the one before (Gorilla, section 4.1.2).
//! Everything is lossless, to the bit of a NaN.

use super::bits::{Bits, Record, unzigzag, zigzag};
use crate::span::Span;

/// What a block may scale by: whole KiB, as memory is counted, and powers of ten.
const SCALES: [f64; 8] = [1.0 / 1024.0, 1.0, 1e1, 1e2, 1e3, 1e4, 1e6, 1e9];
/// The code of 'no decimal number': the values are XORed.
const XOR: u8 = SCALES.len() as u8;
/// Before the first value: it chooses the scale.
const UNSET: u8 = XOR + 1;
/// Scaled values beyond this are not exact in a double.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
/// Ones that leave Rice's code: a quotient this large costs more than the plain number.
const ESCAPE: usize = 16;
/// Bits of a plain difference of two scaled values, with its sign.
const PLAIN_BITS: usize = 56;

/// What both sides know of a stream of values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    last: f64,
    /// `last` minus the one before.
    trend: f64,
    /// Sixteen times the mean of what was written: chooses Rice's parameter.
    mean: u64,
    /// Above 0: values go on as they went; else they stay.
    bias: i8,
    /// Into [`SCALES`], or [`XOR`].
    scale: u8,
    /// Gorilla's window: zeros before and behind.
    leading: u8,
    trailing: u8,
}

impl Values {
    pub const fn new() -> Self {
        Values { last: 0.0, trend: 0.0, mean: 0, bias: 1, scale: UNSET, leading: 255, trailing: 0 }
    }

    /// What comes next if the stream goes on as it did.
    pub fn expected(&self) -> f64 {
        if self.bias > 0 { self.last + self.trend } else { self.last }
    }

    /// Writes `value`; `expected` must be what the reader will say too.
    pub fn put(&mut self, record: &mut Record, value: f64, expected: f64) {
        if self.scale == UNSET {
            self.put_scale(record, value, expected, 0);
        } else if self.scale == XOR {
            self.put_other(record, value);
        } else {
            self.put_decimal(record, value, expected);
        }
        self.follow(value);
    }

    /// The reader of [`Values::put`].
    pub fn take(&mut self, bits: &mut Bits, expected: f64) -> f64 {
        let value = match self.scale {
            UNSET => self.take_scale(bits, expected),
            XOR => self.take_other(bits),
            _ => self.take_decimal(bits, expected),
        };
        self.follow(value);
        value
    }

    fn put_decimal(&mut self, record: &mut Record, value: f64, expected: f64) {
        if let Some(integer) = scaled(value, self.scale) {
            let difference = zigzag(integer - nearest(expected, self.scale));
            let low = self.parameter();
            let quotient = difference >> low;
            if quotient < ESCAPE as u64 {
                record.ones(quotient as usize);
                record.put(0, 1);
                record.put(difference, low);
            } else {
                record.ones(ESCAPE);
                record.put(0, 1);
                record.put(difference, PLAIN_BITS);
            }
            self.learn(difference);
            return;
        }
        record.ones(ESCAPE + 1);
        self.put_scale(record, value, expected, self.scale + 1);
    }

    /// A new scale and the value by it.
    fn put_scale(&mut self, record: &mut Record, value: f64, expected: f64, lowest: u8) {
        self.scale = scale_of(value, lowest);
        record.put(u64::from(self.scale), 4);
        if self.scale == XOR {
            self.leading = 255;
            self.put_other(record, value);
        } else {
            self.put_plain(record, value, expected);
        }
    }

    fn take_decimal(&mut self, bits: &mut Bits, expected: f64) -> f64 {
        let ones = bits.ones(ESCAPE);
        if ones < ESCAPE {
            let low = self.parameter();
            let difference = ((ones as u64) << low) | bits.take(low);
            self.learn(difference);
            return value_of(nearest(expected, self.scale) + unzigzag(difference), self.scale);
        }
        if !bits.bit() {
            return self.take_plain(bits, expected);
        }
        self.take_scale(bits, expected)
    }

    fn take_scale(&mut self, bits: &mut Bits, expected: f64) -> f64 {
        self.scale = (bits.take(4) as u8).min(XOR);
        if self.scale == XOR {
            self.leading = 255;
            self.take_other(bits)
        } else {
            self.take_plain(bits, expected)
        }
    }

    fn put_plain(&mut self, record: &mut Record, value: f64, expected: f64) {
        let integer = scaled(value, self.scale).unwrap_or_default();
        let difference = zigzag(integer - nearest(expected, self.scale));
        record.put(difference, PLAIN_BITS);
        self.learn(difference);
    }

    fn take_plain(&mut self, bits: &mut Bits, expected: f64) -> f64 {
        let difference = bits.take(PLAIN_BITS);
        self.learn(difference);
        value_of(nearest(expected, self.scale) + unzigzag(difference), self.scale)
    }

    /// `0` the same; `10` within the window; `110` with a new window; `111` decimal again.
    fn put_other(&mut self, record: &mut Record, value: f64) {
        let xor = value.to_bits() ^ self.last.to_bits();
        if xor == 0 {
            record.put(0, 1);
            return;
        }
        // One decimal number among others is a coincidence: zero, or an infinity's neighbour.
        let scale = scale_of(value, 0);
        if scale != XOR && scale_of(self.last, 0) != XOR {
            record.ones(3);
            record.put(u64::from(scale), 3);
            self.scale = scale;
            self.mean = 0;
            self.put_plain(record, value, 0.0);
            return;
        }
        let leading = (xor.leading_zeros() as u8).min(31);
        let trailing = xor.trailing_zeros() as u8;
        if self.leading <= leading && self.trailing <= trailing {
            record.put(0b10, 2);
            let length = 64 - self.leading - self.trailing;
            record.put(xor >> self.trailing, usize::from(length));
        } else {
            (self.leading, self.trailing) = (leading, trailing);
            let length = 64 - leading - trailing;
            record.put(0b110, 3);
            record.put(u64::from(leading), 5);
            record.put(u64::from(length - 1), 6);
            record.put(xor >> trailing, usize::from(length));
        }
    }

    fn take_other(&mut self, bits: &mut Bits) -> f64 {
        match bits.ones(3) {
            0 => self.last,
            1 => {
                let length = 64u8.saturating_sub(self.leading).saturating_sub(self.trailing);
                let xor = bits.take(usize::from(length)) << (self.trailing & 63);
                f64::from_bits(self.last.to_bits() ^ xor)
            }
            2 => {
                self.leading = bits.take(5) as u8;
                let length = bits.take(6) as u8 + 1;
                self.trailing = 64u8.saturating_sub(self.leading).saturating_sub(length);
                let xor = bits.take(usize::from(length)) << (self.trailing & 63);
                f64::from_bits(self.last.to_bits() ^ xor)
            }
            _ => {
                self.scale = bits.take(3) as u8;
                self.mean = 0;
                self.take_plain(bits, 0.0)
            }
        }
    }

    fn parameter(&self) -> usize {
        let mean = self.mean / 16;
        if mean == 0 { 0 } else { (63 - mean.leading_zeros()) as usize }
    }

    fn learn(&mut self, difference: u64) {
        let difference = difference.min(1 << PLAIN_BITS);
        self.mean = self.mean - self.mean / 4 + difference * 4;
    }

    fn follow(&mut self, value: f64) {
        let (stay, go) = ((value - self.last).abs(), (value - self.last - self.trend).abs());
        if go < stay {
            self.bias = (self.bias + 1).min(4);
        } else if stay < go {
            self.bias = (self.bias - 1).max(-3);
        }
        self.trend = value - self.last;
        self.last = value;
    }
}

/// `value` times the scale, if that is an integer and leads back to exactly `value`.
fn scaled(value: f64, scale: u8) -> Option<i64> {
    let factor = SCALES[usize::from(scale)];
    let integer = (value * factor).round();
    let integer = (integer.abs() <= INTEGER_MAX).then_some(integer as i64)?;
    (value_of(integer, scale).to_bits() == value.to_bits()).then_some(integer)
}

/// The first scale from `lowest` on that holds `value`.
fn scale_of(value: f64, lowest: u8) -> u8 {
    (lowest..XOR).find(|scale| scaled(value, *scale).is_some()).unwrap_or(XOR)
}

fn value_of(integer: i64, scale: u8) -> f64 {
    integer as f64 / SCALES[usize::from(scale) & 7]
}

/// What is expected, as an integer of the scale. Saturates, and a NaN is 0.
fn nearest(expected: f64, scale: u8) -> i64 {
    (expected * SCALES[usize::from(scale)]).round().clamp(-INTEGER_MAX, INTEGER_MAX) as i64
}

/// The state of a tier's open block of raw samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples {
    last_ms: i64,
    interval_ms: i64,
    values: Values,
}

impl Samples {
    /// A block whose header says when its first sample was taken.
    pub fn new(first_ms: i64) -> Self {
        Samples { last_ms: first_ms, interval_ms: 0, values: Values::new() }
    }

    pub fn put(&mut self, record: &mut Record, at_ms: i64, value: f64) {
        let interval = at_ms - self.last_ms;
        record.signed(interval - self.interval_ms);
        (self.last_ms, self.interval_ms) = (at_ms, interval);
        self.values.put(record, value, self.values.expected());
    }

    pub fn take(&mut self, bits: &mut Bits) -> (i64, f64) {
        self.interval_ms = self.interval_ms.wrapping_add(bits.signed());
        self.last_ms = self.last_ms.wrapping_add(self.interval_ms);
        (self.last_ms, self.values.take(bits, self.values.expected()))
    }

    /// What was put or taken last.
    pub fn last(&self) -> f64 {
        self.values.last
    }
}

/// The state of a block of steps. `last` and `first` of a step are a stream each, the other fields
/// are written only where they do not follow from these two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    step_ms: i64,
    number: i64,
    from_ms: i64,
    until_ms: i64,
    count: u32,
    changes: u32,
    last: Values,
    first: Values,
    lowest: Values,
    highest: Values,
    sum: Values,
    lost: Values,
}

impl Steps {
    pub fn new(first_ms: i64, step_ms: i64) -> Self {
        Steps {
            step_ms,
            number: first_ms.div_euclid(step_ms) - 1,
            from_ms: 0,
            until_ms: 0,
            count: 0,
            changes: 0,
            last: Values::new(),
            first: Values::new(),
            lowest: Values::new(),
            highest: Values::new(),
            sum: Values::new(),
            lost: Values::new(),
        }
    }

    pub fn put(&mut self, record: &mut Record, span: &Span) {
        let number = span.first_ms.div_euclid(self.step_ms);
        record.signed(number - self.number - 1);
        let from = span.first_ms - number * self.step_ms;
        let until = span.last_ms - number * self.step_ms;
        record.signed(from - self.from_ms);
        record.signed(until - self.until_ms);
        record.put(u64::from(span.stale), 1);
        record.signed(i64::from(span.count) - i64::from(self.count));
        (self.number, self.from_ms, self.until_ms, self.count) = (number, from, until, span.count);
        if span.count == 0 {
            return;
        }
        record.signed(i64::from(span.changes) - i64::from(self.changes));
        self.changes = span.changes;
        let before = self.last.last;
        self.last.put(record, span.last, self.last.expected());
        if span.changes == 0 {
            return;
        }
        self.first.put(record, span.first, before);
        let (low, high) = ends(span.first, span.last);
        record.put(u64::from(!same(span.min, low)), 1);
        if !same(span.min, low) {
            self.lowest.put(record, span.min, low);
        }
        record.put(u64::from(!same(span.max, high)), 1);
        if !same(span.max, high) {
            self.highest.put(record, span.max, high);
        }
        self.sum.put(record, span.sum, middle(span));
        record.gamma(u64::from(span.resets));
        if span.resets > 0 {
            self.lost.put(record, span.lost, span.max);
        }
    }

    pub fn take(&mut self, bits: &mut Bits) -> Span {
        self.number = self.number.wrapping_add(bits.signed()).wrapping_add(1);
        self.from_ms = self.from_ms.wrapping_add(bits.signed());
        self.until_ms = self.until_ms.wrapping_add(bits.signed());
        let start = self.number.wrapping_mul(self.step_ms);
        let stale = bits.bit();
        self.count = i64::from(self.count).wrapping_add(bits.signed()) as u32;
        let mut span = Span::of(start.wrapping_add(self.from_ms), crate::span::stale_marker());
        span.last_ms = start.wrapping_add(self.until_ms);
        (span.count, span.stale) = (self.count, stale);
        if self.count == 0 {
            return span;
        }
        self.changes = i64::from(self.changes).wrapping_add(bits.signed()) as u32;
        span.changes = self.changes;
        let before = self.last.last;
        span.last = self.last.take(bits, self.last.expected());
        if span.changes == 0 {
            (span.first, span.min, span.max) = (span.last, span.last, span.last);
            span.sum = span.last * f64::from(span.count);
            return span;
        }
        span.first = self.first.take(bits, before);
        (span.min, span.max) = ends(span.first, span.last);
        if bits.bit() {
            span.min = self.lowest.take(bits, span.min);
        }
        if bits.bit() {
            span.max = self.highest.take(bits, span.max);
        }
        span.sum = self.sum.take(bits, middle(&span));
        span.resets = bits.gamma() as u32;
        if span.resets > 0 {
            span.lost = self.lost.take(bits, span.max);
        }
        span
    }
}

/// The smaller and the larger one; a NaN is neither, unless both are.
fn ends(first: f64, last: f64) -> (f64, f64) {
    (first.min(last), first.max(last))
}

fn same(left: f64, right: f64) -> bool {
    left.to_bits() == right.to_bits()
}

/// What the sum would be on a straight line.
fn middle(span: &Span) -> f64 {
    (span.first + span.last) / 2.0 * f64::from(span.count)
}
