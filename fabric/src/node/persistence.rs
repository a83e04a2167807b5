//! What goes to disk, and what comes back.
//!
//! On disk are the roster, the jobs, the secrets, every node's own words (their addresses lead back into the
//! fabric after a power cut), this node's allocations with what they run, and nothing about other nodes'
//! allocations: those change all the time, repair brings them back, and memory cards wear out.

use std::collections::BTreeMap;

use crate::clock::{Now, WallTime};
use crate::id::{NodeId, SlotId};
use crate::io::Output;
use crate::level::LEVEL_MIN;
use crate::limits;
use crate::message::{Message, decode_row, encode_row};
use crate::resources::Rejection;
use crate::supervisor::Record;
use crate::table::{Key, SharedEntry, Table, Value};
use crate::topology::DiskPool;

use super::Node;
use super::leases::VoterRecord;

/// First byte of a key on disk.
const ENTRY: u8 = 0;
const RECORD: u8 = 1;
const VOTER: u8 = 2;
const PURGED: u8 = 3;
const LEVEL: u8 = 4;

/// Changes on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    sequence: u64,
    persisted: u64,
    /// The disk refused: write everything again then.
    retry_at: Option<crate::clock::Instant>,
    /// Writing everything again is under way.
    rewrite: Option<Rewrite>,
    failing: bool,
}

/// How far it has come.
#[derive(Debug)]
enum Rewrite {
    /// Entries up to this one are written; `None`: none yet.
    Entries(Option<Key>),
    /// All entries are; what this node's allocations run is not.
    Records,
}

impl Disk {
    /// Keeps, or forgets, an entry.
    pub fn set_entry(&mut self, key: &Key, entry: Option<&SharedEntry>) {
        self.pending.insert(coded(ENTRY, key), entry.map(encode_row));
    }

    /// The number that the next write will have.
    pub fn next_sequence(&self) -> u64 {
        self.sequence + 1
    }

    /// Whether what was written with the number `sequence` is on disk.
    pub fn holds(&self, sequence: u64) -> bool {
        sequence <= self.persisted
    }

    /// Whether no write was refused that has not been made good since.
    pub fn is_whole(&self) -> bool {
        !self.failing
    }

    /// Keeps what this node may not forget as a voter.
    pub fn set_voter(&mut self, record: &VoterRecord) {
        self.pending.insert(vec![VOTER], Some(encode_row(record)));
    }

    /// Keeps up to when everything that was deleted is purged.
    pub fn set_purged(&mut self, until: WallTime) {
        self.pending.insert(vec![PURGED], Some(encode_row(&until)));
    }

    /// Keeps the level that the fabric has reached.
    pub fn set_level(&mut self, reached: u8) {
        self.pending.insert(vec![LEVEL], Some(encode_row(&reached)));
    }

    /// Keeps, or forgets, what an allocation runs.
    pub fn set_record(&mut self, slot: &SlotId, record: Option<&Record>) {
        self.pending.insert(coded(RECORD, slot), record.map(encode_row));
    }
}

fn coded<T: serde::Serialize>(kind: u8, key: &T) -> Vec<u8> {
    postcard::to_extend(key, vec![kind]).expect("a key encodes")
}

/// The level that a disk's fabric had reached, by what [`Output::Persist`] wrote; an agent that reads less must leave it alone.
pub fn level_on_disk(rows: &[(Vec<u8>, Vec<u8>)]) -> u8 {
    let row = rows.iter().find(|(key, _)| key.first() == Some(&LEVEL));
    row.and_then(|(_, value)| decode_row::<u8>(value).ok()).unwrap_or(LEVEL_MIN)
}

/// What node `id` said last of its pools of disk, and how many bytes of disk its claims add up to, by what [`Output::Persist`]
/// wrote.
pub fn disk_on_disk(rows: &[(Vec<u8>, Vec<u8>)], id: &NodeId) -> (Vec<DiskPool>, u64) {
    let (mut pools, mut claimed) = (Vec::new(), 0_u64);
    for (key, value) in rows {
        let Some((&ENTRY, key)) = key.split_first() else { continue };
        // Most rows are others': those are not read.
        let own = match postcard::from_bytes::<Key>(key) {
            Ok(Key::Node(node) | Key::Alloc(_, node)) => node == *id,
            _ => false,
        };
        if !own {
            continue;
        }
        match decode_row::<crate::table::Entry>(value).map(|entry| entry.value) {
            Ok(Value::Node(info)) => pools = info.topology.pools,
            Ok(Value::Alloc(row)) if row.phase.holds_claim() => {
                claimed = claimed.saturating_add(row.claim.disk);
            }
            _ => {}
        }
    }
    (pools, claimed)
}

impl Node {
    pub(super) fn flush_disk(&mut self) {
        let disk = self.replica.disk_mut();
        if disk.pending.is_empty() {
            return;
        }
        disk.sequence += 1;
        let changes = std::mem::take(&mut disk.pending).into_iter().collect();
        self.outputs.push_back(Output::Persist { sequence: disk.sequence, changes });
    }

    pub(super) fn handle_persisted(&mut self, now: Now, through: u64) {
        let disk = self.replica.disk_mut();
        disk.persisted = disk.persisted.max(through);
        self.supervisor.persisted(through);
        self.voter_is_on_disk();
        let disk = self.replica.disk_mut();
        let complete = disk.retry_at.is_none() && disk.rewrite.is_none();
        if disk.failing && complete && through == disk.sequence {
            disk.failing = false;
            self.info.impaired = None;
            tracing::info!("the disk takes writes again");
            self.publish_info(now);
        }
        self.answer_held();
        self.timers.soon = true;
    }

    pub(super) fn handle_persist_failed(&mut self, now: Now, sequence: u64, reason: String) {
        tracing::error!(sequence, reason, "the disk refused a write: no new work is taken");
        let disk = self.replica.disk_mut();
        disk.retry_at = Some(now.at + limits::PERSIST_RETRY);
        disk.rewrite = None;
        self.disown(sequence);
        self.leases.disown(sequence);
        let told = self.supervisor.unpersisted(now);
        let impaired = format!("its disk refuses writes: {reason}");
        for (proposer, alloc) in told {
            let reason = Rejection::Impaired { reason: impaired.clone() };
            self.send(proposer, Message::Reject { alloc, reason });
        }
        if !std::mem::replace(&mut self.replica.disk_mut().failing, true) {
            self.info.impaired = Some(impaired);
            self.publish_info(now);
        }
        self.timers.soon = true;
    }

    /// After a refusal, writes everything again, a part in each tick: what was refused is not known one by
    /// one.
    pub(super) fn retry_disk(&mut self, now: Now) {
        let disk = self.replica.disk_mut();
        if disk.retry_at.is_some_and(|at| at <= now.at) {
            disk.retry_at = None;
            disk.rewrite = Some(Rewrite::Entries(None));
            self.remember_voter();
        }
        match self.replica.disk_mut().rewrite.take() {
            None => {}
            Some(Rewrite::Entries(after)) => {
                let part = self.replica.keys_after(after.as_ref()).take(limits::REWRITE_ENTRIES);
                let part: Vec<Key> = part.cloned().collect();
                for key in &part {
                    self.replica.remember(key);
                }
                self.replica.disk_mut().rewrite = Some(match part.last() {
                    Some(last) => Rewrite::Entries(Some(last.clone())),
                    None => Rewrite::Records,
                });
                self.timers.soon = true;
            }
            Some(Rewrite::Records) => {
                for local in self.supervisor.locals() {
                    let held = local.row().phase.holds_claim();
                    self.replica
                        .disk_mut()
                        .set_record(&local.id().slot, held.then(|| local.record()));
                }
                // Also when nothing is left to write, one more write shows that the disk takes it.
                self.replica.remember(&Key::Roster(self.config.id));
                let purged = self.replica.purged_until();
                self.replica.disk_mut().set_purged(purged);
                self.replica.disk_mut().set_level(self.levels.reached());
            }
        }
    }

    /// Begins with a table that is on disk already.
    pub(super) fn begin_with(&mut self, now: Now, table: Table, records: Vec<Record>) {
        self.replica.begin_with(table);
        self.standing.synced = true;
        if let Some(info) = self.replica.node(&self.config.id) {
            self.info.incarnation = info.incarnation;
            self.levels.restore(info.reached);
            self.leases.be(info.incarnation);
        }
        self.learn_voters(now);
        let latest = self.replica.entries().map(|entry| entry.stamp).max_by_key(|s| s.reading);
        if let Some(latest) = latest {
            self.time.clock.observe(latest);
        }
        for record in records {
            let row = self.replica.alloc(&record.alloc.slot, &self.config.id).cloned();
            if let Some(row) = row {
                self.supervisor.restore(now.at, record, row);
            }
        }
    }

    /// Takes back what the disk kept.
    pub(super) fn restore(&mut self, own: Now, rows: Vec<(Vec<u8>, Vec<u8>)>) {
        // First of all what time it may be: what follows may be dated.
        let entries = rows.iter().filter(|(key, _)| key.first() == Some(&ENTRY));
        let now = self.wake_up(own, entries.filter_map(|(_, value)| decode_row(value).ok()));
        let (mut records, mut purged, mut lost) = (Vec::new(), WallTime(0), false);
        for (key, value) in rows {
            match key.first() {
                Some(&ENTRY) => match decode_row::<crate::table::Entry>(&value) {
                    Ok(entry) => {
                        if let (Key::Node(node), Value::Node(info)) = (&entry.key, &entry.value)
                            && *node == self.config.id
                        {
                            self.info.draining = info.draining;
                        }
                        let change = self.replica.load(entry, &self.others);
                        // Rows of our own allocations follow their records, below.
                        if !matches!(change.key, Key::Alloc(..)) {
                            self.follow(now, change);
                        }
                    }
                    Err(error) => {
                        lost = true;
                        tracing::warn!(%error, "an entry on disk cannot be read");
                    }
                },
                Some(&RECORD) => match decode_row::<Record>(&value) {
                    Ok(record) => records.push(record),
                    Err(error) => tracing::warn!(%error, "a record on disk cannot be read"),
                },
                Some(&VOTER) => match decode_row::<VoterRecord>(&value) {
                    Ok(record) => self.restore_voter(now, record),
                    Err(error) => tracing::warn!(%error, "what this voter promised cannot be read"),
                },
                Some(&PURGED) => match decode_row::<WallTime>(&value) {
                    Ok(until) => purged = until,
                    Err(error) => tracing::warn!(%error, "what was purged cannot be read"),
                },
                Some(&LEVEL) => match decode_row::<u8>(&value) {
                    Ok(reached) => self.levels.restore(reached),
                    Err(error) => tracing::warn!(%error, "the level of the fabric cannot be read"),
                },
                _ => tracing::warn!("something on disk is not ours"),
            }
        }
        if !lost {
            // Otherwise what is missing here was not deleted.
            self.replica.restore_purged_until(purged);
        }
        // Once it is known which life of the disk this is.
        self.learn_voters(now);
        for record in records {
            let row = self.replica.alloc(&record.alloc.slot, &self.config.id).cloned();
            if let Some(row) = row {
                self.supervisor.restore(now.at, record, row);
            }
        }
        for change in self.replica.loaded_own(&self.others) {
            self.follow(now, change);
        }
        self.outputs.retain(|output| !matches!(output, Output::Event(_)));
    }
}
