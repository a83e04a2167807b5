//! One machine's disk: writes take a while, in order; a crash loses those that were under way; a full
//! disk refuses.

use fabric::alloc::Phase;
use fabric::id::{AllocId, JobName, NodeId};
use fabric::limits;
use fabric::table::{Entry, Key, Order, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// First byte of the key of a table's row. What is under other keys is the agent's own business.
const ENTRY: u8 = 0;

/// How well the disk does right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskMode {
    /// A write takes milliseconds.
    #[default]
    Well,
    /// A write takes seconds.
    Slow,
    /// A write fails.
    Refusing,
}

/// A batch of changes on its way to the disk.
#[derive(Clone, Debug)]
pub struct Write {
    /// From [`Output::Persist`](fabric::io::Output::Persist).
    pub sequence: u64,
    /// What changes.
    pub changes: Vec<Change>,
}

/// Encoded key to encoded value, or `None` to delete.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// What became of a write that was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is on disk. Not yet known to the agent.
    Applied,
    /// It and everything queued behind it was refused.
    Refused {
        /// In words.
        reason: String,
    },
    /// It was lost in a crash, or refused together with an earlier one.
    Gone,
}

/// A row on disk.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the agent wrote it.
    pub bytes: Vec<u8>,
    /// What it says, if it is a row of the table.
    pub entry: Option<Entry>,
}

/// One machine's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// How well it does.
    pub mode: DiskMode,
    /// What survives a crash, by encoded key.
    rows: BTreeMap<Vec<u8>, Row>,
    /// Where each key lies.
    index: BTreeMap<Key, Vec<u8>>,
    /// Written by the agent, not yet on disk.
    pending: VecDeque<Write>,
    /// When the last queued write is due.
    busy_until: Duration,
    /// Rows that could not be read back, or that replaced a newer one: in words.
    pub wrongs: Vec<String>,
    /// Tombstones of jobs that were ever written here: the last of each.
    pub stopped: BTreeMap<JobName, Order>,
    /// Allocations that have ended, and on whose node, by rows that were ever written here.
    pub ended: BTreeSet<(NodeId, AllocId)>,
    /// Jobs that were deleted here, and not by a tombstone.
    pub dropped: Vec<(JobName, Order)>,
}

impl Disk {
    /// Takes a write; it is due at the returned time, which is `taking` from `time` or when the ones
    /// before it are done.
    pub fn write(&mut self, write: Write, time: Duration, taking: Duration) -> Duration {
        self.pending.push_back(write);
        self.busy_until = self.busy_until.max(time + taking);
        self.busy_until
    }

    /// The write with this sequence number is due.
    pub fn due(&mut self, sequence: u64) -> Written {
        if self.pending.front().is_none_or(|write| write.sequence != sequence) {
            return Written::Gone;
        }
        if self.mode == DiskMode::Refusing {
            self.pending.clear();
            return Written::Refused { reason: "no space left on device".into() };
        }
        self.apply_first();
        Written::Applied
    }

    /// The agent or the machine dies: the first `surviving` writes under way still make it, the rest
    /// is lost.
    pub fn crash(&mut self, surviving: usize) {
        if self.mode != DiskMode::Refusing {
            for _ in 0..surviving.min(self.pending.len()) {
                self.apply_first();
            }
        }
        self.pending.clear();
        self.busy_until = Duration::ZERO;
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&mut self) {
        // What was there once is for the judge.
        let (stopped, dropped) =
            (std::mem::take(&mut self.stopped), std::mem::take(&mut self.dropped));
        *self = Disk { mode: self.mode, stopped, dropped, ..Disk::default() };
    }

    /// How many writes are under way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Everything, for [`Origin::Restored`](fabric::node::Origin::Restored).
    pub fn restore(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows.iter().map(|(key, row)| (key.clone(), row.bytes.clone())).collect()
    }

    /// The entry under `key`.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.rows.get(self.index.get(key)?)?.entry.as_ref()
    }

    /// The entry under `key` as it will be once everything under way is on disk.
    pub fn entry_under_way(&self, key: &Key) -> Option<Entry> {
        let changes = self.pending.iter().rev().flat_map(|write| write.changes.iter().rev());
        let entries = changes.filter_map(entry_of);
        entries.into_iter().find(|entry| entry.key == *key).or_else(|| self.entry(key).cloned())
    }

    /// Every row of the table, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.values().filter_map(|row| row.entry.as_ref())
    }

    fn apply_first(&mut self) {
        let Some(write) = self.pending.pop_front() else { return };
        for (key, value) in write.changes {
            match value {
                Some(bytes) => self.put(key, bytes),
                None => self.delete(&key),
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, bytes: Vec<u8>) {
        if key.first() != Some(&ENTRY) {
            self.rows.insert(key, Row { bytes, entry: None });
            return;
        }
        let entry = match Entry::decode(&bytes) {
            Ok(entry) => entry,
            Err(error) => return self.wrongs.push(format!("an unreadable row: {error}")),
        };
        if let Some(before) = self.rows.get(&key).and_then(|row| row.entry.as_ref())
            && before.order() > entry.order()
            && !was_forgotten(before, &entry)
            && !was_dated_anew(before.order(), entry.order())
        {
            let (old, new) = (before.order(), entry.order());
            self.wrongs.push(format!("{:?} went back from {old:?} to {new:?}", entry.key));
        }
        if let (Key::Job(name), Value::Tombstone { .. }) = (&entry.key, &entry.value) {
            self.stopped.insert(name.clone(), entry.order());
        }
        if let (Key::Alloc(slot, node), Value::Alloc(row)) = (&entry.key, &entry.value)
            && row.phase == Phase::Ended
        {
            self.ended.insert((*node, row.of(slot.clone())));
        }
        self.index.insert(entry.key.clone(), key.clone());
        self.rows.insert(key, Row { bytes, entry: Some(entry) });
    }

    fn delete(&mut self, key: &[u8]) {
        let Some(entry) = self.rows.remove(key).and_then(|row| row.entry) else { return };
        self.index.remove(&entry.key);
        if let (Key::Job(name), Value::Job(_)) = (&entry.key, &entry.value) {
            self.dropped.push((name.clone(), entry.order()));
        }
    }
}

/// The row of the table that a change writes, if it writes one.
pub fn entry_of((coded, value): &Change) -> Option<Entry> {
    match coded.first() {
        Some(&ENTRY) => Entry::decode(value.as_ref()?).ok(),
        _ => None,
    }
}

/// An allocation that ended long ago, by the fabric's clock, leaves the table, and its slot begins anew. Its
/// end may not have reached this disk.
fn was_forgotten(before: &Entry, after: &Entry) -> bool {
    matches!(before.key, Key::Alloc(..))
        && after.stamp.wall().since(before.stamp.wall()) > limits::ENDED_KEEP
}

/// What is dated further ahead than any clock explains may be written again with a stamp of now, in the same rank.
pub fn was_dated_anew(before: Order, after: Order) -> bool {
    before.rank <= after.rank
        && before.stamp.wall().since(after.stamp.wall()) > limits::STAMP_AHEAD_MAX
}

#[cfg(test)]
mod tests;
