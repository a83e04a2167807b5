//! How entries travel: fresh ones are pushed, and what got lost is repaired.
//!
//! *Push.* An entry that is new here goes to [`limits::PUSH_FANOUT`] random members, in a few rounds; each
//! of them does the same when it is new there. A datagram carries as many as fit; an entry too large
//! for one, or one that may not travel in one, goes over a stream.
//!
//! *Repair.* Two members compare their tables in one number. If they differ: the fingerprints of all
//! buckets, then keys and orders in the buckets that differ, then the entries that one of them lacks. Of a bucket
//! that is too large for one message a part is told each time, and the other one gets what it lacks of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Instant, WallTime};
use crate::id::NodeId;
use crate::limits;
use crate::message::{Datagram, Message};
use crate::table::{BUCKETS, Key, Order, SharedEntry, Table};

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
    /// Those that travel in datagrams.
    datagrams: Queue,
    /// Those that are too large for one, or may not travel in one.
    streams: Queue,
    last_push: Option<Instant>,
}

/// Fresh entries, those with the most rounds left first. Invariant: both fields say the same.
#[derive(Debug, Default)]
struct Queue {
    left: BTreeMap<Key, u32>,
    order: BTreeSet<(Reverse<u32>, Key)>,
}

impl Queue {
    fn insert(&mut self, key: Key, rounds: u32) {
        if let Some(before) = self.left.insert(key.clone(), rounds) {
            self.order.remove(&(Reverse(before), key.clone()));
        }
        self.order.insert((Reverse(rounds), key));
    }

    fn remove(&mut self, key: &Key) {
        if let Some((key, rounds)) = self.left.remove_entry(key) {
            self.order.remove(&(Reverse(rounds), key));
        }
    }

    /// One round of this entry is over.
    fn sent(&mut self, key: Key) {
        let Some((key, rounds)) = self.left.remove_entry(&key) else { return };
        self.order.remove(&(Reverse(rounds), key.clone()));
        if rounds > 1 {
            self.insert(key, rounds - 1);
        }
    }

    fn clear(&mut self) {
        self.left.clear();
        self.order.clear();
    }
}

impl Gossip {
    /// An entry is new here: push it.
    pub fn enqueue(&mut self, entry: &SharedEntry, members: usize) {
        let fits =
            entry.encoded_bytes() + 8 <= limits::DATAGRAM_BYTES_MAX && entry.key.may_gossip();
        let (queue, other) = match fits {
            true => (&mut self.datagrams, &mut self.streams),
            false => (&mut self.streams, &mut self.datagrams),
        };
        other.remove(&entry.key);
        queue.insert(entry.key.clone(), rounds(members));
    }

    /// When the next push may go out; `None`: nothing to push.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.backlog() == 0 {
            return None;
        }
        Some(self.last_push.map_or(Instant::default(), |last| last + limits::PUSH_INTERVAL))
    }

    /// Entries that are still being pushed.
    pub fn backlog(&self) -> usize {
        self.datagrams.left.len() + self.streams.left.len()
    }

    /// One round: fresh entries to each of `targets`.
    pub fn push(&mut self, now: Instant, table: &Table, targets: &[NodeId]) -> Vec<Parcel> {
        self.last_push = Some(now);
        if targets.is_empty() {
            // Whoever comes later gets everything by repair.
            self.datagrams.clear();
            self.streams.clear();
            return Vec::new();
        }
        let (datagrams, streamed) = (self.fill_datagrams(table), self.fill_stream(table));
        let mut parcels = Vec::new();
        for target in targets {
            for entries in &datagrams {
                parcels.push(Parcel::Datagram(*target, Datagram::Push(entries.clone())));
            }
            if !streamed.is_empty() {
                let message = Message::News { entries: streamed.clone() };
                parcels.push(Parcel::Stream(*target, message));
            }
        }
        parcels
    }

    fn fill_datagrams(&mut self, table: &Table) -> Vec<Vec<SharedEntry>> {
        let mut datagrams: Vec<Vec<SharedEntry>> = Vec::new();
        let (mut room, mut passed_over) = (0, 0);
        let (mut sent, mut gone) = (Vec::new(), Vec::new());
        for (_, key) in &self.datagrams.order {
            let Some(entry) = table.entry(key) else {
                gone.push(key.clone());
                continue;
            };
            let bytes = entry.encoded_bytes();
            if bytes > room {
                if datagrams.len() == limits::PUSH_DATAGRAMS_MAX {
                    // A smaller one may fit still; a long queue is not searched for it.
                    passed_over += 1;
                    if passed_over > limits::PUSH_PASSED_OVER_MAX {
                        break;
                    }
                    continue;
                }
                datagrams.push(Vec::new());
                room = limits::DATAGRAM_BYTES_MAX - 8;
            }
            room -= bytes;
            if let Some(datagram) = datagrams.last_mut() {
                datagram.push(entry.clone());
                sent.push(key.clone());
            }
        }
        for key in gone {
            self.datagrams.remove(&key);
        }
        for key in sent {
            self.datagrams.sent(key);
        }
        datagrams
    }

    fn fill_stream(&mut self, table: &Table) -> Vec<SharedEntry> {
        let mut streamed: Vec<SharedEntry> = Vec::new();
        let (mut bytes, mut gone) = (0, Vec::new());
        for (_, key) in &self.streams.order {
            match table.entry(key) {
                Some(entry) if bytes + entry.encoded_bytes() <= limits::ENTRIES_BYTES_MAX => {
                    bytes += entry.encoded_bytes();
                    streamed.push(entry.clone());
                }
                Some(_) => {}
                None => gone.push(key.clone()),
            }
        }
        for key in gone {
            self.streams.remove(&key);
        }
        for entry in &streamed {
            self.streams.sent(entry.key.clone());
        }
        streamed
    }
}

/// Rounds of pushing after which everybody has an entry with high probability: with a fanout of three,
/// `log4` of the members reach all of them, one more makes up for loss.
fn rounds(members: usize) -> u32 {
    (members.max(2) as f64).log(4.0).ceil() as u32 + 1
}

/// The buckets in which `theirs` differ from ours, described completely, as many as fit. `None`: none differ,
/// or it is not a description of buckets.
///
/// Where not even one fits, a part of its rows, from one that `turn` chooses, and no bucket: what is not among the rows says nothing
/// then, and whoever reads it asks for what it lacks.
pub fn describe(
    table: &Table,
    theirs: &[u64],
    purged_until: WallTime,
    turn: u64,
) -> Option<Message> {
    if theirs.len() != BUCKETS {
        return None;
    }
    let mut buckets = Vec::new();
    let mut total = 0;
    for ((bucket, ours), theirs) in (0..=u8::MAX).zip(table.buckets()).zip(theirs) {
        let count = table.len_of(bucket);
        if ours != *theirs && (buckets.is_empty() || total + count <= limits::REPAIR_ROWS_MAX) {
            buckets.push(bucket);
            total += count;
        }
    }
    if buckets.is_empty() {
        return None;
    }
    let mut rows: Vec<(Key, Order)> = buckets
        .iter()
        .flat_map(|bucket| table.entries_in(*bucket))
        .map(|entry| (entry.key.clone(), entry.order()))
        .collect();
    rows.sort_unstable();
    let bytes = |rows: &[(Key, Order)]| rows.iter().map(|(key, _)| row_bytes(key)).sum::<usize>();
    if bytes(&rows) > limits::ROWS_BYTES_MAX {
        let first = turn % rows.len() as u64;
        rows.rotate_left(first as usize);
        let mut room = limits::ROWS_BYTES_MAX;
        let fits = |(key, _): &&(Key, Order)| {
            let left = room.checked_sub(row_bytes(key));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let fitting = rows.iter().take_while(fits).count();
        rows.truncate(fitting);
        buckets.clear();
    }
    let buckets = buckets.into_iter().map(u16::from).collect();
    Some(Message::Rows { buckets, rows, purged_until })
}

/// Bytes of a described row, or a few more.
fn row_bytes(key: &Key) -> usize {
    match key {
        Key::Token(id) => limits::ROW_BYTES_MAX + id.0.len(),
        _ => limits::ROW_BYTES_MAX,
    }
}

/// What the other lacks of the described buckets, and what we lack. What is `ahead`, by its stamp, counts for nothing,
/// here and there: it would be refused. `settled`: the node whose table this is knows what the others run.
pub fn compare(
    table: &Table,
    buckets: &[u16],
    rows: &[(Key, Order)],
    ahead: impl Fn(&Order) -> bool,
    settled: bool,
    purged_until: WallTime,
) -> (Message, Vec<Key>) {
    let described: BTreeSet<u8> =
        buckets.iter().filter_map(|bucket| u8::try_from(*bucket).ok()).collect();
    let theirs: BTreeMap<&Key, &Order> = rows.iter().map(|(key, order)| (key, order)).collect();
    let mut newer_here: Vec<&Key> = described
        .iter()
        .flat_map(|bucket| table.entries_in(*bucket))
        .filter(|entry| !ahead(&entry.order()))
        .filter(|entry| {
            theirs.get(&entry.key).is_none_or(|their| **their < entry.order() || ahead(their))
        })
        .map(|entry| &entry.key)
        .collect();
    newer_here.sort_unstable();
    let (entries, more) = collect(table, newer_here.into_iter());
    let want = rows
        .iter()
        .filter(|(_, order)| !ahead(order))
        .filter(|(key, order)| table.order(key).is_none_or(|ours| ours < *order || ahead(&ours)))
        .map(|(key, _)| key.clone())
        .take(limits::REPAIR_ROWS_MAX)
        .collect();
    (Message::Entries { entries, more, purged_until, settled }, want)
}

/// The entries of these keys, as many as fit into one message.
pub fn collect<'a>(table: &Table, keys: impl Iterator<Item = &'a Key>) -> (Vec<SharedEntry>, bool) {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in keys.filter_map(|key| table.entry(key)) {
        bytes += entry.encoded_bytes();
        if bytes > limits::ENTRIES_BYTES_MAX && !entries.is_empty() {
            return (entries, true);
        }
        entries.push(entry.clone());
    }
    (entries, false)
}
