//! The replicated map of a fabric: a last-writer-wins map ordered by [`Order`].
//!
//! Laws, in the words of the property tests: merging is commutative, associative and idempotent;
//! the fingerprint depends on the entries only, not on how they came; equal fingerprints mean equal
//! tables.
//!
//! An ended allocation's row leaves the table [`limits::ENDED_KEEP`] after it was written, by the
//! fabric's hybrid clock, on every node at about the same time, and is not taken in again. That needs
//! no tombstone: if an older row of that allocation comes back from a node that was away, its owner
//! sees it and ends it again. Tombstones of jobs stay (at most [`limits::JOBS_MAX`] with the jobs): an
//! expired one could let a node that was away bring the job back.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::alloc::{AllocRow, Phase};
use crate::clock::WallTime;
use crate::id::{JobName, NodeId, SlotId};
use crate::limits;
use crate::topology::NodeInfo;

mod entry;
pub use entry::*;

/// Buckets whose fingerprints are compared when two tables differ: 2 KiB of fingerprints, and with
/// 100,000 entries a bucket describes 400.
pub const BUCKETS: usize = 256;

/// What became of an entry that was handed to [`Table::merge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It was newer and is in the table now.
    Taken,
    /// The table had it, or a newer one. Nothing changed.
    Known,
    /// It may not be in the table: wrong kind, wrong writer, a removed node's, expired, or no room.
    Refused,
}

/// The map. Invariants: `buckets[b]` is the exclusive or of the fingerprints of all entries in bucket
/// `b`, and `root` that of all buckets; every entry is proper.
#[derive(Debug)]
pub struct Table {
    rows: BTreeMap<Key, Row>,
    buckets: Vec<u64>,
    root: u64,
    jobs: usize,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    order: Order,
    bucket: u8,
    fingerprint: u64,
}

impl Row {
    fn new(entry: Entry) -> Self {
        let order = entry.order();
        let key = postcard::to_stdvec(&entry.key).expect("a key encodes");
        let bucket = (xxhash_rust::xxh3::xxh3_64(&key) >> 56) as u8;
        let bytes = postcard::to_extend(&order, key).expect("an order encodes");
        let fingerprint = xxhash_rust::xxh3::xxh3_64(&bytes);
        Self { entry, order, bucket, fingerprint }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), buckets: vec![0; BUCKETS], root: 0, jobs: 0 }
    }
}

impl Table {
    /// Takes in an entry if it is newer than what is there. `horizon` is the wall time of the
    /// fabric's hybrid clock: ended allocations older than [`limits::ENDED_KEEP`] before it stay out.
    pub fn merge(&mut self, entry: Entry, horizon: WallTime) -> Merge {
        if !entry.is_proper() || has_expired(&entry, horizon) || self.owner_is_removed(&entry.key) {
            return Merge::Refused;
        }
        match self.rows.get(&entry.key) {
            Some(row) if entry.order() <= row.order => return Merge::Known,
            Some(_) => {}
            None if self.rows.len() >= limits::ENTRIES_MAX => return Merge::Refused,
            None if matches!(entry.key, Key::Job(_)) && self.jobs >= limits::JOBS_MAX => {
                return Merge::Refused;
            }
            None => {}
        }
        if let (Key::Roster(node), Value::Tombstone { .. }) = (&entry.key, &entry.value) {
            self.remove_rows_of(*node);
        }
        self.insert(entry);
        Merge::Taken
    }

    /// Drops ended allocations that are older than [`limits::ENDED_KEEP`]; returns their keys.
    pub fn expire(&mut self, horizon: WallTime) -> Vec<Key> {
        let expired = |row: &&Row| has_expired(&row.entry, horizon);
        let keys: Vec<Key> =
            self.rows.values().filter(expired).map(|row| row.entry.key.clone()).collect();
        for key in &keys {
            self.remove(key);
        }
        keys
    }

    fn insert(&mut self, entry: Entry) {
        let row = Row::new(entry);
        self.toggle(row.bucket, row.fingerprint);
        if matches!(row.entry.key, Key::Job(_)) {
            self.jobs += 1;
        }
        if let Some(old) = self.rows.insert(row.entry.key.clone(), row) {
            self.forget(&old);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.rows.remove(key) {
            self.forget(&old);
        }
    }

    fn forget(&mut self, old: &Row) {
        self.toggle(old.bucket, old.fingerprint);
        if matches!(old.entry.key, Key::Job(_)) {
            self.jobs -= 1;
        }
    }

    fn toggle(&mut self, bucket: u8, fingerprint: u64) {
        self.buckets[usize::from(bucket)] ^= fingerprint;
        self.root ^= fingerprint;
    }

    fn owner_is_removed(&self, key: &Key) -> bool {
        key.owner().is_some_and(|owner| self.is_removed(&owner))
    }

    fn remove_rows_of(&mut self, node: NodeId) {
        let owned: Vec<Key> =
            self.rows.keys().filter(|key| key.owner() == Some(node)).cloned().collect();
        for key in owned {
            self.remove(&key);
        }
    }

    /// The entry of `key`.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.rows.get(key).map(|row| &row.entry)
    }

    /// The order of `key`'s entry.
    pub fn order(&self, key: &Key) -> Option<Order> {
        self.rows.get(key).map(|row| row.order)
    }

    /// Every entry, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.values().map(|row| &row.entry)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing in the table.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole table in one number.
    pub fn fingerprint(&self) -> u64 {
        self.root
    }

    /// The fingerprint of each bucket.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// Key and order of every entry in the buckets for which `wanted` is true.
    pub fn rows_in(&self, wanted: impl Fn(u8) -> bool) -> impl Iterator<Item = (&Key, u8, Order)> {
        self.rows
            .iter()
            .filter(move |(_, row)| wanted(row.bucket))
            .map(|(key, row)| (key, row.bucket, row.order))
    }

    /// A job that is not deleted.
    pub fn job(&self, name: &JobName) -> Option<&JobEntry> {
        match self.entry(&Key::Job(name.clone()))?.value {
            Value::Job(ref job) => Some(job),
            _ => None,
        }
    }

    /// Every job that is not deleted.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobName, &JobEntry, &Entry)> {
        let first = JobName::new("0").expect("a digit is a name");
        self.rows
            .range((Bound::Included(Key::Job(first)), Bound::Unbounded))
            .map_while(|(key, row)| match (key, &row.entry.value) {
                (Key::Job(name), Value::Job(job)) => Some(Some((name, &**job, &row.entry))),
                (Key::Job(_), _) => Some(None),
                _ => None,
            })
            .flatten()
    }

    /// What a node says of itself.
    pub fn node(&self, node: &NodeId) -> Option<&NodeInfo> {
        match self.entry(&Key::Node(*node))?.value {
            Value::Node(ref info) => Some(info),
            _ => None,
        }
    }

    /// Every node that belongs to the fabric.
    pub fn roster(&self) -> impl Iterator<Item = (NodeId, &RosterEntry)> {
        self.rows.range(..Key::Node(NodeId([0; 32]))).filter_map(|(key, row)| {
            match (key, &row.entry.value) {
                (Key::Roster(node), Value::Roster(entry)) => Some((*node, entry)),
                _ => None,
            }
        })
    }

    /// Whether `node` belongs to the fabric.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.entry(&Key::Roster(*node)).is_some_and(|entry| matches!(entry.value, Value::Roster(_)))
    }

    /// Whether `node` was thrown out.
    pub fn is_removed(&self, node: &NodeId) -> bool {
        self.entry(&Key::Roster(*node))
            .is_some_and(|entry| matches!(entry.value, Value::Tombstone { .. }))
    }

    /// An allocation's row.
    pub fn alloc(&self, slot: &SlotId, node: &NodeId) -> Option<&AllocRow> {
        match self.entry(&Key::Alloc(slot.clone(), *node))?.value {
            Value::Alloc(ref row) => Some(row),
            _ => None,
        }
    }

    /// Every row of a job, by slot and node.
    pub fn allocs_of(
        &self,
        job: &JobName,
    ) -> impl Iterator<Item = (&SlotId, NodeId, &AllocRow, Stamped)> {
        let key = |index, node| Key::Alloc(SlotId { job: job.clone(), index }, NodeId([node; 32]));
        self.rows.range(key(0, 0)..=key(u32::MAX, 0xff)).filter_map(alloc_of)
    }

    /// Every row of one slot, by node.
    pub fn allocs_in(
        &self,
        slot: &SlotId,
    ) -> impl Iterator<Item = (&SlotId, NodeId, &AllocRow, Stamped)> {
        let key = |node| Key::Alloc(slot.clone(), NodeId([node; 32]));
        self.rows.range(key(0)..=key(0xff)).filter_map(alloc_of)
    }

    /// Every allocation row.
    pub fn allocs(&self) -> impl Iterator<Item = (&SlotId, NodeId, &AllocRow, Stamped)> {
        let first = SlotId { job: JobName::new("0").expect("a digit is a name"), index: 0 };
        self.rows.range(Key::Alloc(first, NodeId([0; 32]))..Key::Keyring).filter_map(alloc_of)
    }

    /// The gossip keys.
    pub fn keyring(&self) -> Keyring {
        match self.entry(&Key::Keyring).map(|entry| &entry.value) {
            Some(Value::Keyring(keyring)) => keyring.clone(),
            _ => Keyring::default(),
        }
    }
}

/// The wall time of a row's write.
pub type Stamped = WallTime;

fn alloc_of<'a>(
    (key, row): (&'a Key, &'a Row),
) -> Option<(&'a SlotId, NodeId, &'a AllocRow, Stamped)> {
    match (key, &row.entry.value) {
        (Key::Alloc(slot, node), Value::Alloc(alloc)) => {
            Some((slot, *node, alloc, row.entry.stamp.wall()))
        }
        _ => None,
    }
}

fn has_expired(entry: &Entry, horizon: WallTime) -> bool {
    let over = match &entry.value {
        Value::Alloc(row) => row.phase == Phase::Ended,
        Value::Tombstone { .. } => matches!(entry.key, Key::Alloc(..)),
        _ => false,
    };
    over && horizon.since(entry.stamp.wall()) > limits::ENDED_KEEP
}

#[cfg(test)]
mod tests;
