//! What a node says about itself in its TXT record (RFC 6763, section 6).
//!
//! `v=1`, `node=<64 hex digits>` and, unless the node waits to join, `fabric=<16 hex digits>`.
//! Anyone can write anything there: it is a hint whom to ask, never a proof. The handshake decides.

use crate::limits;

/// The version of the record that is written and understood.
pub const VERSION: &str = "1";

/// What a TXT record says, as far as it makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The node's id: 64 lower-case hex digits. `None` when the record is not one of ours.
    pub node: Option<String>,
    /// Hash of the fabric's key: 16 lower-case hex digits. `None` while the node waits to join.
    pub fabric: Option<String>,
}

impl Hint {
    /// The record's keys and values.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut properties = vec![("v", VERSION.to_owned())];
        properties.extend(self.node.clone().map(|node| ("node", node)));
        properties.extend(self.fabric.clone().map(|fabric| ("fabric", fabric)));
        properties
    }

    /// Reads a record. Of another version, or larger than ours ever is, it says nothing.
    ///
    /// The first of several equal keys counts, keys in any case (RFC 6763, section 6.4).
    pub fn read<'a>(strings: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut version, mut node, mut fabric) = (None, None, None);
        let mut bytes = 0;
        for (index, (key, value)) in strings.enumerate() {
            bytes += key.len() + value.len();
            if index >= limits::TXT_STRINGS_MAX || bytes > limits::TXT_BYTES_MAX {
                return Self::default();
            }
            let place = match key.to_ascii_lowercase().as_slice() {
                b"v" => &mut version,
                b"node" => &mut node,
                b"fabric" => &mut fabric,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        if version != Some(VERSION.as_bytes()) {
            return Self::default();
        }
        let Some(node) = node.and_then(|value| hex(value, limits::NODE_DIGITS)) else {
            return Self::default();
        };
        match fabric {
            None => Self { node: Some(node), fabric: None },
            Some(value) => match hex(value, limits::FABRIC_DIGITS) {
                Some(fabric) => Self { node: Some(node), fabric: Some(fabric) },
                None => Self::default(),
            },
        }
    }

    /// Reads the strings of a TXT record as they are on the wire: `key=value` each.
    pub fn read_strings<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::read(strings.map(|string| {
            let split = string.iter().position(|byte| *byte == b'=');
            match split {
                Some(at) => (&string[..at], &string[at + 1..]),
                None => (string, &[][..]),
            }
        }))
    }
}

/// Exactly `digits` hex digits, in lower case.
pub(crate) fn hex(text: &[u8], digits: usize) -> Option<String> {
    let fine = text.len() == digits && text.iter().all(u8::is_ascii_hexdigit);
    fine.then(|| text.iter().map(|byte| byte.to_ascii_lowercase() as char).collect())
}

#[cfg(test)]
mod tests;
