//! The replicated map of a fabric: a last-writer-wins map ordered by [`Order`].
//!
//! Laws, in the words of the property tests: merging is commutative, associative and idempotent;
//! the fingerprint depends on the entries only, not on how they came; equal fingerprints mean equal
//! tables.
//!
//! An ended allocation's row leaves the table some time after it was written ([`AllocRow::keep`]), by the
//! fabric's time, on every node at about the same time, and is not taken in again. That needs
//! no tombstone: if an older row of that allocation comes back from a node that was away, its owner
//! sees it and ends it again. Tombstones of jobs, tokens and quotas do not expire, since a node that was away could
//! bring back what was deleted: they leave when all members have seen them (`node/tombstones.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::alloc::AllocRow;
use crate::clock::WallTime;
use crate::id::{JobName, Namespace, NodeId, SlotId};
use crate::job::JobKind;
use crate::limits;
use crate::quota::Quota;
use crate::topology::NodeInfo;
use crate::voters::VoterSet;

mod buckets;
mod entry;
mod shared;
pub use buckets::BUCKETS;
use buckets::Buckets;
pub use entry::*;
use shared::Row;
pub use shared::SharedEntry;

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

/// How many entries of a kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of any kind.
    pub entries: usize,
    /// Jobs and their tombstones.
    pub jobs: usize,
    /// Quotas and their tombstones.
    pub quotas: usize,
}

/// The map. Invariants: `buckets` has the same rows as `nodes` and `rows`; every entry is proper; `jobs` counts jobs
/// and their tombstones, `quotas` quotas and theirs, `members` the nodes that belong to the fabric; `system_jobs` are the jobs whose
/// spec in force is one of a system job; no row expires before `may_expire`; `names`
/// counts the members of each name.
///
/// A clone shares its entries, and what is in an [`Arc`] until one of the two changes it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The roster, and what nodes say of themselves: rarely changed.
    nodes: Arc<BTreeSet<Row>>,
    /// All else. Its keys come after those in `nodes`.
    rows: BTreeSet<Row>,
    names: Arc<BTreeMap<String, u32>>,
    buckets: Buckets,
    jobs: usize,
    quotas: usize,
    members: usize,
    system_jobs: BTreeSet<JobName>,
    may_expire: Option<WallTime>,
    bounds: Bounds,
}

/// How many entries members may make, and of them jobs and quotas.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of any kind.
    pub entries: usize,
    /// Tombstones included.
    pub jobs: usize,
    /// Tombstones included.
    pub quotas: usize,
    /// What others made is taken in beyond that, by so many sixteenths.
    pub spare: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let (entries, jobs) = (limits::ENTRIES_MAX, limits::JOBS_MAX);
        Bounds { entries, jobs, quotas: limits::QUOTAS_MAX, spare: 1 }
    }
}

impl Bounds {
    /// How many of `bound` are taken in.
    fn taken(&self, bound: usize) -> usize {
        bound + bound * self.spare / 16
    }
}

impl Table {
    /// Whether an entry may be made that was not there before. What others made is taken in a little beyond that: several
    /// members may each make the last one.
    pub(crate) fn has_room(&self, key: &Key) -> bool {
        self.order(key).is_some() || self.is_below(key, |bound| bound)
    }

    /// Whether one more of the key's kind is below the bounds, `by` how they are taken.
    fn is_below(&self, key: &Key, by: impl Fn(usize) -> usize) -> bool {
        self.len() < by(self.bounds.entries)
            && match key {
                Key::Job(_) => self.jobs < by(self.bounds.jobs),
                Key::Quota(_) => self.quotas < by(self.bounds.quotas),
                _ => true,
            }
    }

    /// As if this were all that fits. What is there stays.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Takes in an entry if it is newer than what is there. `horizon` is the
    /// fabric's time: ended allocations that left by then stay out.
    pub fn merge(&mut self, entry: impl Into<SharedEntry>, horizon: WallTime) -> Merge {
        let entry: SharedEntry = entry.into();
        if !entry.is_proper() || has_expired(&entry, horizon) || self.owner_is_removed(&entry.key) {
            return Merge::Refused;
        }
        match self.order(&entry.key) {
            Some(ours) if entry.order() <= ours => return Merge::Known,
            Some(_) => {}
            None if self.is_below(&entry.key, |bound| self.bounds.taken(bound)) => {}
            None => return Merge::Refused,
        }
        if let (Key::Roster(node), Value::Tombstone { .. }) = (&entry.key, &entry.value) {
            self.remove_rows_of(*node);
        }
        self.insert(entry);
        Merge::Taken
    }

    /// Drops allocations that ended long enough ago; returns their keys.
    pub fn expire(&mut self, horizon: WallTime) -> Vec<Key> {
        if self.may_expire.is_none_or(|earliest| horizon <= earliest) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        self.may_expire = None;
        for Row(entry) in &self.rows {
            if has_expired(entry, horizon) {
                keys.push(entry.key.clone());
            } else if let Some(expires) = expires(entry) {
                self.may_expire = Some(self.may_expire.map_or(expires, |first| first.min(expires)));
            }
        }
        for key in &keys {
            self.remove(key);
        }
        keys
    }

    /// Drops an entry for good, or for another that may not have beaten it.
    pub fn discard(&mut self, key: &Key) {
        self.remove(key);
    }

    fn insert(&mut self, entry: SharedEntry) {
        if let Some(expires) = expires(&entry) {
            self.may_expire = Some(self.may_expire.map_or(expires, |first| first.min(expires)));
        }
        let subject = subject_of(&entry.key);
        self.count_name(subject, false);
        let old = match subject {
            Some(_) => Arc::make_mut(&mut self.nodes).replace(Row(entry.clone())),
            None => self.rows.replace(Row(entry.clone())),
        };
        if let Some(Row(old)) = old {
            self.forget(&old);
        }
        self.count_name(subject, true);
        match (&entry.key, &entry.value) {
            (Key::Roster(_), Value::Roster(_)) => self.members += 1,
            (Key::Job(_), Value::Job(job)) => {
                self.jobs += 1;
                if job.effective().0.kind == JobKind::System {
                    self.system_jobs.insert(job.spec.name.clone());
                }
            }
            (Key::Job(_), _) => self.jobs += 1,
            (Key::Quota(_), _) => self.quotas += 1,
            _ => {}
        }
        self.buckets.insert(entry);
    }

    fn remove(&mut self, key: &Key) {
        let subject = subject_of(key);
        self.count_name(subject, false);
        let old = match subject {
            Some(_) => Arc::make_mut(&mut self.nodes).take(key),
            None => self.rows.take(key),
        };
        if let Some(Row(old)) = old {
            self.forget(&old);
        }
        self.count_name(subject, true);
    }

    /// Takes a member's name into account, or out of it while its rows change.
    fn count_name(&mut self, node: Option<NodeId>, add: bool) {
        let Some(node) = node.filter(|node| self.is_member(node)) else { return };
        let Some(name) = self.name(&node).map(str::to_owned) else { return };
        let names = Arc::make_mut(&mut self.names);
        let count = names.entry(name.clone()).or_insert(0);
        *count = if add { *count + 1 } else { *count - 1 };
        if *count == 0 {
            names.remove(&name);
        }
    }

    fn forget(&mut self, old: &SharedEntry) {
        self.buckets.remove(old);
        match (&old.key, &old.value) {
            (Key::Roster(_), Value::Roster(_)) => self.members -= 1,
            (Key::Job(name), _) => {
                self.jobs -= 1;
                self.system_jobs.remove(name);
            }
            (Key::Quota(_), _) => self.quotas -= 1,
            _ => {}
        }
    }

    fn owner_is_removed(&self, key: &Key) -> bool {
        key.owner().is_some_and(|owner| self.is_removed(&owner))
    }

    fn remove_rows_of(&mut self, node: NodeId) {
        let owned: Vec<Key> =
            self.keys().filter(|key| key.owner() == Some(node)).cloned().collect();
        for key in owned {
            self.remove(&key);
        }
    }

    /// The entry of `key`.
    pub fn entry(&self, key: &Key) -> Option<&SharedEntry> {
        let rows = if subject_of(key).is_some() { &self.nodes } else { &self.rows };
        rows.get(key).map(|row| &row.0)
    }

    /// The order of `key`'s entry.
    pub fn order(&self, key: &Key) -> Option<Order> {
        self.entry(key).map(SharedEntry::order)
    }

    /// Every entry, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = &SharedEntry> {
        self.nodes.iter().chain(&self.rows).map(|row| &row.0)
    }

    /// Every entry that says nothing of nodes, from `first` on, in the order of the keys.
    pub fn entries_from(&self, first: Key) -> impl Iterator<Item = &SharedEntry> {
        self.rows.range::<Key, _>(first..).map(|row| &row.0)
    }

    /// The keys that come after `key`, or all of them, in their order.
    pub fn keys_after(&self, key: Option<&Key>) -> impl Iterator<Item = &Key> {
        let first = key.map_or(Bound::Unbounded, Bound::Excluded);
        let (nodes, rows) = (&self.nodes, &self.rows);
        let nodes = nodes.range::<Key, _>((first, Bound::Unbounded));
        nodes.chain(rows.range::<Key, _>((first, Bound::Unbounded))).map(Row::key)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.nodes.iter().chain(&self.rows).map(Row::key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.rows.len()
    }

    /// Whether there is nothing in the table.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole table in one number.
    pub fn fingerprint(&self) -> u64 {
        self.buckets.root()
    }

    /// The fingerprint of each bucket.
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.fingerprints()
    }

    /// How many entries a bucket has.
    pub fn len_of(&self, bucket: u8) -> usize {
        self.buckets.rows(bucket)
    }

    /// The entries of a bucket, in no order that means anything.
    pub fn entries_in(&self, bucket: u8) -> impl Iterator<Item = &SharedEntry> {
        self.buckets.rows_of(bucket)
    }

    /// A job that is not deleted.
    pub fn job(&self, name: &JobName) -> Option<&JobEntry> {
        match self.entry(&Key::Job(name.clone()))?.value {
            Value::Job(ref job) => Some(job),
            _ => None,
        }
    }

    /// Every job that is not deleted.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobName, &JobEntry, &SharedEntry)> {
        let first = JobName::new("0").expect("a digit is a name");
        self.entries_from(Key::Job(first))
            .map_while(|entry| match (&entry.key, &entry.value) {
                (Key::Job(name), Value::Job(job)) => Some(Some((name, &**job, entry))),
                (Key::Job(_), _) => Some(None),
                _ => None,
            })
            .flatten()
    }

    /// Names of the jobs that run on every node that fits.
    pub fn system_jobs(&self) -> impl Iterator<Item = &JobName> {
        self.system_jobs.iter()
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
        self.nodes.range::<Key, _>(..Key::Node(NodeId([0; 32]))).filter_map(|Row(entry)| {
            match (&entry.key, &entry.value) {
                (Key::Roster(node), Value::Roster(entry)) => Some((*node, entry)),
                _ => None,
            }
        })
    }

    /// Every node that was thrown out.
    pub fn removed(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.range::<Key, _>(..Key::Node(NodeId([0; 32]))).filter_map(|Row(entry)| {
            match (&entry.key, &entry.value) {
                (Key::Roster(node), Value::Tombstone { .. }) => Some(*node),
                _ => None,
            }
        })
    }

    /// Jobs, tokens and quotas, and their tombstones.
    fn deletable(&self) -> impl Iterator<Item = &SharedEntry> {
        let first = JobName::new("0").expect("a digit is a name");
        let jobs = self.entries_from(Key::Job(first));
        let jobs = jobs.take_while(|entry| matches!(entry.key, Key::Job(_)));
        jobs.chain(self.entries_from(Key::Keyring))
            .filter(|entry| matches!(entry.key, Key::Job(_) | Key::Token(_) | Key::Quota(_)))
    }

    /// Keys of the deleted jobs, tokens and quotas whose tombstones are not younger than `until`.
    pub fn tombstones(&self, until: WallTime) -> impl Iterator<Item = &Key> {
        let tombstones =
            self.deletable().filter(|entry| matches!(entry.value, Value::Tombstone { .. }));
        tombstones.filter(move |entry| entry.stamp.wall() <= until).map(|entry| &entry.key)
    }

    /// What of the roster, the jobs, the tokens and the quotas, tombstones included, was written up to `until`, in one
    /// number.
    pub fn digest_until(&self, until: WallTime) -> u64 {
        let first_node = Key::Node(NodeId([0; 32]));
        let roster = self.nodes.range::<Key, _>(..first_node).map(|Row(entry)| entry);
        roster
            .chain(self.deletable())
            .filter(|entry| entry.stamp.wall() <= until)
            .fold(0, |sum, entry| u64::wrapping_add(sum, entry.fingerprint()))
    }

    /// How many entries there are of each kind that has a bound of its own, tombstones included.
    pub fn counts(&self) -> Counts {
        Counts { entries: self.len(), jobs: self.jobs, quotas: self.quotas }
    }

    /// A node's host name, by its own words or else by the roster's.
    pub fn name(&self, node: &NodeId) -> Option<&str> {
        if let Some(info) = self.node(node) {
            return Some(&info.name);
        }
        match &self.entry(&Key::Roster(*node))?.value {
            Value::Roster(entry) => Some(&entry.name),
            _ => None,
        }
    }

    /// How many members have this host name.
    pub fn members_named(&self, name: &str) -> u32 {
        self.names.get(name).copied().unwrap_or(0)
    }

    /// How many nodes belong to the fabric.
    pub fn members(&self) -> usize {
        self.members
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
        self.rows.range::<Key, _>(key(0, 0)..=key(u32::MAX, 0xff)).filter_map(alloc_of)
    }

    /// Every row of one slot, by node.
    pub fn allocs_in(
        &self,
        slot: &SlotId,
    ) -> impl Iterator<Item = (&SlotId, NodeId, &AllocRow, Stamped)> {
        let key = |node| Key::Alloc(slot.clone(), NodeId([node; 32]));
        self.rows.range::<Key, _>(key(0)..=key(0xff)).filter_map(alloc_of)
    }

    /// Every allocation row.
    pub fn allocs(&self) -> impl Iterator<Item = (&SlotId, NodeId, &AllocRow, Stamped)> {
        let first = SlotId { job: JobName::new("0").expect("a digit is a name"), index: 0 };
        let first = Key::Alloc(first, NodeId([0; 32]));
        self.rows.range::<Key, _>(first..Key::Keyring).filter_map(alloc_of)
    }

    /// Who grants leases.
    pub fn voters(&self) -> Option<&VoterSet> {
        match self.entry(&Key::Voters).map(|entry| &entry.value) {
            Some(Value::Voters(set)) => Some(set),
            _ => None,
        }
    }

    /// Every quota.
    pub fn quotas(&self) -> impl Iterator<Item = (&Namespace, &Quota)> {
        let first = Key::Quota(Namespace::new("0").expect("a digit is a name"));
        self.entries_from(first).filter_map(|entry| match (&entry.key, &entry.value) {
            (Key::Quota(namespace), Value::Quota(quota)) => Some((namespace, quota)),
            _ => None,
        })
    }

    /// A namespace's quota.
    pub fn quota(&self, namespace: &Namespace) -> Option<&Quota> {
        match self.entry(&Key::Quota(namespace.clone()))?.value {
            Value::Quota(ref quota) => Some(quota),
            _ => None,
        }
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

/// The node that a roster entry or a node's own words are about.
fn subject_of(key: &Key) -> Option<NodeId> {
    match key {
        Key::Roster(node) | Key::Node(node) => Some(*node),
        _ => None,
    }
}

fn alloc_of(Row(entry): &Row) -> Option<(&SlotId, NodeId, &AllocRow, Stamped)> {
    match (&entry.key, &entry.value) {
        (Key::Alloc(slot, node), Value::Alloc(alloc)) => {
            Some((slot, *node, alloc, entry.stamp.wall()))
        }
        _ => None,
    }
}

fn has_expired(entry: &Entry, horizon: WallTime) -> bool {
    expires(entry).is_some_and(|expires| horizon > expires)
}

/// Until when an entry may be in the table; `None`: it does not leave by the clock.
fn expires(entry: &Entry) -> Option<WallTime> {
    let keep = match &entry.value {
        Value::Alloc(row) => row.keep(),
        _ => limits::ENDED_KEEP,
    };
    let written = entry.stamp.wall().0;
    entry.is_over().then(|| WallTime(written.saturating_add(keep.as_millis() as u64)))
}

#[cfg(test)]
mod tests;
