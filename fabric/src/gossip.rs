//! How entries travel: fresh ones are pushed, and what got lost is repaired.
//!
//! *Push.* An entry that is new here goes to [`limits::PUSH_FANOUT`] random members, in a few rounds; each
//! of them does the same when it is new there. A datagram carries as many as fit; an entry too large
//! for one, or one that may not travel in one, goes over a stream.
//!
//! *Repair.* Two members compare their tables in one number. If they differ: the fingerprints of all
//! buckets, then keys and orders in the buckets that differ, then the entries that one of them lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;
use crate::message::{Datagram, Message};
use crate::table::{BUCKETS, Entry, Key, Order, Table};

/// What one member should get.
#[derive(Debug)]
pub enum Parcel {
    /// In a datagram.
    Datagram(NodeId, Datagram),
    /// Over a stream.
    Stream(NodeId, Message),
}

/// Entries that are still being pushed.
#[derive(Debug, Default)]
pub struct Gossip {
    /// Rounds left for each fresh entry.
    fresh: BTreeMap<Key, u32>,
    last_push: Option<Instant>,
}

impl Gossip {
    /// An entry is new here: push it.
    pub fn enqueue(&mut self, key: Key, members: usize) {
        self.fresh.insert(key, rounds(members));
    }

    /// When the next push may go out; `None`: nothing to push.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.fresh.is_empty() {
            return None;
        }
        Some(self.last_push.map_or(Instant::default(), |last| last + limits::PUSH_INTERVAL))
    }

    /// Entries that are still being pushed.
    pub fn backlog(&self) -> usize {
        self.fresh.len()
    }

    /// One round: fresh entries to each of `targets`.
    pub fn push(&mut self, now: Instant, table: &Table, targets: &[NodeId]) -> Vec<Parcel> {
        self.last_push = Some(now);
        if targets.is_empty() {
            // Whoever comes later gets everything by repair.
            self.fresh.clear();
            return Vec::new();
        }
        let mut datagrams: Vec<Vec<Entry>> = Vec::new();
        let mut room = 0;
        let mut streamed = Vec::new();
        let mut streamed_bytes = 0;
        let mut sent = Vec::new();
        // The freshest first: they have the most rounds left.
        let mut queue: Vec<(u32, Key)> =
            self.fresh.iter().map(|(key, left)| (*left, key.clone())).collect();
        queue.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (_, key) in queue {
            let Some(entry) = table.entry(&key) else {
                self.fresh.remove(&key);
                continue;
            };
            let bytes = entry.encode().len();
            if bytes + 8 > limits::DATAGRAM_BYTES_MAX || !key.may_gossip() {
                if streamed_bytes + bytes <= limits::ENTRIES_BYTES_MAX {
                    streamed_bytes += bytes;
                    streamed.push(entry.clone());
                    sent.push(key);
                }
                continue;
            }
            if bytes > room {
                if datagrams.len() == limits::PUSH_DATAGRAMS_MAX {
                    continue;
                }
                datagrams.push(Vec::new());
                room = limits::DATAGRAM_BYTES_MAX - 8;
            }
            room -= bytes;
            if let Some(datagram) = datagrams.last_mut() {
                datagram.push(entry.clone());
                sent.push(key);
            }
        }
        for key in sent {
            if let Some(left) = self.fresh.get_mut(&key) {
                *left -= 1;
                if *left == 0 {
                    self.fresh.remove(&key);
                }
            }
        }
        let mut parcels = Vec::new();
        for target in targets {
            for entries in &datagrams {
                parcels.push(Parcel::Datagram(*target, Datagram::Push(entries.clone())));
            }
            if !streamed.is_empty() {
                let message = Message::Entries { entries: streamed.clone(), more: false };
                parcels.push(Parcel::Stream(*target, message));
            }
        }
        parcels
    }
}

/// Rounds of pushing after which everybody has an entry with high probability: with a fanout of three,
/// `log4` of the members reach all of them, one more makes up for loss.
fn rounds(members: usize) -> u32 {
    (members.max(2) as f64).log(4.0).ceil() as u32 + 1
}

/// The buckets in which `theirs` differ from ours, described completely, as many as fit. `None`: none differ,
/// or it is not a description of buckets.
pub fn describe(table: &Table, theirs: &[u64]) -> Option<Message> {
    if theirs.len() != BUCKETS {
        return None;
    }
    let mut counts = BTreeMap::new();
    let differs: Vec<bool> = table.buckets().iter().zip(theirs).map(|(a, b)| a != b).collect();
    for (_, bucket, _) in table.rows_in(|bucket| differs[usize::from(bucket)]) {
        *counts.entry(bucket).or_insert(0usize) += 1;
    }
    let mut buckets = BTreeSet::new();
    let mut total = 0;
    for (bucket, differs) in (0..=u8::MAX).zip(&differs) {
        let count = counts.get(&bucket).copied().unwrap_or(0);
        if *differs && (buckets.is_empty() || total + count <= limits::REPAIR_ROWS_MAX) {
            buckets.insert(bucket);
            total += count;
        }
    }
    if buckets.is_empty() {
        return None;
    }
    let rows = table
        .rows_in(|bucket| buckets.contains(&bucket))
        .map(|(key, _, order)| (key.clone(), order))
        .collect();
    Some(Message::Rows { buckets: buckets.into_iter().map(u16::from).collect(), rows })
}

/// What the other lacks of the described buckets, and what we lack.
pub fn compare(table: &Table, buckets: &[u16], rows: &[(Key, Order)]) -> (Message, Vec<Key>) {
    let described: BTreeSet<u16> = buckets.iter().copied().collect();
    let theirs: BTreeMap<&Key, &Order> = rows.iter().map(|(key, order)| (key, order)).collect();
    let newer_here = table
        .rows_in(|bucket| described.contains(&u16::from(bucket)))
        .filter(|(key, _, order)| theirs.get(key).is_none_or(|their| *their < order))
        .map(|(key, ..)| key);
    let (entries, more) = collect(table, newer_here);
    let want = rows
        .iter()
        .filter(|(key, order)| table.order(key).is_none_or(|ours| ours < *order))
        .map(|(key, _)| key.clone())
        .take(limits::REPAIR_ROWS_MAX)
        .collect();
    (Message::Entries { entries, more }, want)
}

/// The entries of these keys, as many as fit into one message.
pub fn collect<'a>(table: &Table, keys: impl Iterator<Item = &'a Key>) -> (Vec<Entry>, bool) {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in keys.filter_map(|key| table.entry(key)) {
        bytes += entry.encode().len();
        if bytes > limits::ENTRIES_BYTES_MAX && !entries.is_empty() {
            return (entries, true);
        }
        entries.push(entry.clone());
    }
    (entries, false)
}
