//! An entry as it is held and handed on: once in memory, however many hold it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::level::Leveled;

use super::{Entry, Key, Order};

/// An entry that does not change any more. The table, the push queue and every message under way point at
/// the same one; what is derived from it is derived once. On the wire it is an [`Entry`].
#[derive(Clone)]
pub struct SharedEntry(Arc<Held>);

struct Held {
    entry: Entry,
    order: Order,
    prints: OnceLock<Prints>,
}

/// What the table's fingerprints are made of.
#[derive(Clone, Copy)]
struct Prints {
    /// Of the key alone: says where the row lies among the buckets.
    place: u64,
    /// Of key and order.
    fingerprint: u64,
    /// Of the encoded entry, version byte included.
    bytes: u32,
}

impl SharedEntry {
    /// Its place among all entries of its key.
    pub fn order(&self) -> Order {
        self.0.order
    }

    /// Bytes of [`Entry::encode`].
    pub fn encoded_bytes(&self) -> usize {
        self.prints().bytes as usize
    }

    /// A hash of the key: its highest bits are the bucket.
    pub(super) fn place(&self) -> u64 {
        self.prints().place
    }

    /// A hash of key and order.
    pub(super) fn fingerprint(&self) -> u64 {
        self.prints().fingerprint
    }

    fn prints(&self) -> &Prints {
        self.0.prints.get_or_init(|| {
            let entry = &self.0.entry;
            let key = postcard::to_stdvec(&entry.key).expect("a key encodes");
            let place = xxhash_rust::xxh3::xxh3_64(&key);
            let bytes = postcard::to_extend(&self.0.order, key).expect("an order encodes");
            let fingerprint = xxhash_rust::xxh3::xxh3_64(&bytes);
            let size =
                postcard::serialize_with_flavor(entry, postcard::ser_flavors::Size::default());
            Prints { place, fingerprint, bytes: 1 + size.expect("our own types encode") as u32 }
        })
    }
}

impl Leveled for SharedEntry {
    fn level(&self) -> u8 {
        self.0.entry.level()
    }
}

impl From<Entry> for SharedEntry {
    fn from(entry: Entry) -> Self {
        let order = entry.order();
        Self(Arc::new(Held { entry, order, prints: OnceLock::new() }))
    }
}

impl Deref for SharedEntry {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0.entry
    }
}

impl PartialEq for SharedEntry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for SharedEntry {}

impl std::fmt::Debug for SharedEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for SharedEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Entry::deserialize(deserializer).map(Self::from)
    }
}

/// An entry in a set that is ordered by key.
#[derive(Clone, Debug)]
pub(super) struct Row(pub SharedEntry);

impl Row {
    pub fn key(&self) -> &Key {
        &self.0.key
    }
}

impl Borrow<Key> for Row {
    fn borrow(&self) -> &Key {
        self.key()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}
