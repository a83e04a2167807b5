//! Samples as receivers of Prometheus's remote-write 1.0 take them: a message of protobuf, compressed with snappy
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).
//!
//! What a message has is four structures of protobuf with seven fields, which are written here:
//!
//! ```text
//! WriteRequest { repeated TimeSeries timeseries = 1; }
//! TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; }
//! Label        { string name = 1; string value = 2; }
//! Sample       { double value = 1; int64 timestamp = 2; }
//! ```

#[cfg(test)]
mod tests;

use snap::raw::Encoder;

use crate::limits::{BATCH_BYTES_MAX, BATCH_SAMPLES_MAX};
use crate::store::Store;

/// Protobuf's types of fields on the wire.
const VARINT: u8 = 0;
const DOUBLE: u8 = 1;
const BYTES: u8 = 2;

/// One message: the body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The message, compressed.
    pub body: Vec<u8>,
    /// Samples in it, each of another series.
    pub samples: u64,
}

/// The newest sample of each series that has one after `since_ms`, stale markers among them, in as many messages
/// as it takes.
pub fn newest(store: &Store, since_ms: i64, mut give: impl FnMut(Batch)) {
    let mut message = Message { bytes: Vec::new(), samples: 0, encoder: Encoder::new() };
    let mut series = Vec::new();
    for (labels, at_ms, value) in store.newest(since_ms) {
        series.clear();
        put_series(&mut series, labels, at_ms, value);
        // With the field's number and length before it.
        if message.samples == BATCH_SAMPLES_MAX
            || message.bytes.len() + series.len() + 4 > BATCH_BYTES_MAX
        {
            message.finish(&mut give);
        }
        put_bytes(&mut message.bytes, 1, &series);
        message.samples += 1;
    }
    message.finish(&mut give);
}

/// A message in the making.
struct Message {
    bytes: Vec<u8>,
    samples: usize,
    encoder: Encoder,
}

impl Message {
    /// Gives it away unless it is empty, and begins the next.
    fn finish(&mut self, give: &mut impl FnMut(Batch)) {
        if self.samples == 0 {
            return;
        }
        // Fails for 4 GiB or more alone.
        if let Ok(body) = self.encoder.compress_vec(&self.bytes) {
            give(Batch { body, samples: self.samples as u64 });
        }
        self.bytes.clear();
        self.samples = 0;
    }
}

fn put_series<'a>(
    into: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    at_ms: i64,
    value: f64,
) {
    let mut part = Vec::new();
    for (name, text) in labels {
        part.clear();
        put_bytes(&mut part, 1, name.as_bytes());
        put_bytes(&mut part, 2, text.as_bytes());
        put_bytes(into, 1, &part);
    }
    part.clear();
    put_key(&mut part, 1, DOUBLE);
    part.extend(value.to_le_bytes());
    put_key(&mut part, 2, VARINT);
    // Negative numbers have ten bytes, as their two's complement.
    put_varint(&mut part, at_ms as u64);
    put_bytes(into, 2, &part);
}

fn put_bytes(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_key(into, field, BYTES);
    put_varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

fn put_key(into: &mut Vec<u8>, field: u8, kind: u8) {
    into.push(field << 3 | kind);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}
