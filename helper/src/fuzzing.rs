//! What the fuzzers reach: each function takes whatever bytes come.

use crate::order::{Frame, HEAD_BYTES, Order};
use crate::signature;

/// Who signed an update: a key of an image in PEM, a byte of zero, and the lines with signatures.
pub fn update_signature(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pem, signatures) = text.split_once('\0').unwrap_or((&text, ""));
    let key = signature::Key::parse("image", pem);
    match signature::verify(key.as_slice(), b"what nobody has signed", signatures) {
        Ok(key) => panic!("{key} has signed it"),
        Err(refusal) => drop(refusal.to_string()),
    }
}

/// What agent and helper say to each other: an order, or the frames of an answer. What is read is written as it was.
pub fn helper(bytes: &[u8]) {
    if let Ok(order) = Order::decode(bytes) {
        let _ = (order.verb.name(), order.verb.rights(), order.verb.takes(), order.verb.memory());
        let written = order.encode();
        assert_eq!(Order::decode(&written[HEAD_BYTES..]).ok(), Some(order));
    }
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let Ok(length) = Frame::length(*head) else { return };
        let (body, after) = after.split_at(length.min(after.len()));
        if let Ok(frame) = Frame::decode(head[0], body.to_vec()) {
            let written = frame.encode();
            assert_eq!(Frame::decode(written[0], written[HEAD_BYTES..].to_vec()).ok(), Some(frame));
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests;
