//! This node's copy of the table, and everything that is derived from it: they change together.
//!
//! Whoever reads has the [`Table`] and what is derived from it at hand, by reference. To change the table there is
//! [`Node::write`] for this node's own entries and [`Node::take_in`] for what others send, which end in
//! [`Node::merge_in`]. Besides, what is over or was deleted leaves ([`Replica::forget_over`], [`Replica::drop_deleted`]),
//! and a start begins with what is on disk ([`Replica::load`], [`Replica::begin_with`]).

use std::collections::BTreeSet;
use std::ops::Deref;

use crate::clock::{Instant, Now, WallTime};
use crate::gossip::{Gossip, Parcel};
use crate::id::{JobName, NodeId};
use crate::placement::Fleet;
use crate::quota::Accounts;
use crate::table::{Bounds, Entry, Key, Merge, SharedEntry, Table, Value};
use crate::topology::NodeInfo;

use super::persistence::Disk;
use super::writers::Brought;
use super::{Canary, Node, Others};

mod accounts;
mod coordinators;
mod fleet_cache;

use coordinators::Coordinators;
use fleet_cache::FleetCache;

/// The table and what is derived from it. Invariants: what the table has news of is on its way to the others
/// (`gossip`) and to the disk (`disk`); a fleet that is there holds what the rows of the table claim, and what is promised;
/// `accounts` count the rows of the namespaces with a quota; `coordinators` and `fleet` say who is up as `Others` did when
/// [`Replica::member_changed`] was called last; the coordinator looks at every job of which a row has changed.
pub(super) struct Replica {
    me: NodeId,
    table: Table,
    gossip: Gossip,
    disk: Disk,
    /// Up to when everything that was deleted is purged here.
    purged_until: WallTime,
    fleet: FleetCache,
    accounts: Accounts,
    coordinators: Coordinators,
    /// Jobs that their coordinator looks at in the next tick.
    jobs: BTreeSet<JobName>,
    /// It looks at every job.
    all_jobs: bool,
}

/// An entry has changed: what follows from it, beyond what is derived from the table, is for [`Node::follow`].
#[derive(Debug)]
#[must_use]
pub(super) struct Changed {
    pub key: Key,
    /// What was there of a job, an allocation or a node.
    pub before: Option<SharedEntry>,
}

/// Reading is free.
impl Deref for Replica {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl Replica {
    pub fn new(me: NodeId, forgets_disk: bool, bounds: Bounds) -> Self {
        let mut table = Table::default();
        table.set_bounds(bounds);
        Self {
            me,
            table,
            gossip: Gossip::default(),
            disk: Disk::default(),
            purged_until: WallTime(0),
            fleet: FleetCache::new(forgets_disk),
            accounts: Accounts::default(),
            coordinators: Coordinators::default(),
            jobs: BTreeSet::new(),
            all_jobs: false,
        }
    }

    /// To be read only: nothing of it is on its way.
    pub fn snapshot(&self) -> Self {
        Self {
            me: self.me,
            table: self.table.clone(),
            gossip: Gossip::default(),
            disk: Disk::default(),
            purged_until: self.purged_until,
            fleet: self.fleet.clone(),
            accounts: self.accounts.clone(),
            coordinators: self.coordinators.clone(),
            jobs: self.jobs.clone(),
            all_jobs: self.all_jobs,
        }
    }

    /// Takes in an entry that is newer than what is there. `in_place`: what is there gives way to it whatever its order;
    /// `push`: tell others.
    fn merge(
        &mut self,
        entry: SharedEntry,
        horizon: WallTime,
        in_place: bool,
        push: bool,
        others: &Others,
    ) -> Result<Changed, Merge> {
        let key = entry.key.clone();
        let before = match &key {
            Key::Alloc(..) | Key::Job(_) | Key::Node(_) => self.table.entry(&key).cloned(),
            _ => None,
        };
        if in_place {
            self.table.discard(&key);
        }
        match self.table.merge(entry.clone(), horizon) {
            Merge::Taken => {}
            refused => return Err(refused),
        }
        if push {
            self.gossip.enqueue(&entry, others.membership.others_alive() + 1);
        }
        self.remember(&key);
        self.derive(&key, before.as_ref(), others);
        Ok(Changed { key, before })
    }

    /// Brings everything that is derived from an entry up to date.
    fn derive(&mut self, key: &Key, before: Option<&SharedEntry>, others: &Others) {
        match key {
            Key::Roster(node) => self.member_changed(*node, others),
            Key::Node(node) if self.says_only_what_it_saw(node, before) => {}
            Key::Node(node) => {
                self.refresh_fleet(*node, others);
                self.account_for_node(*node, others);
                self.all_jobs = true;
            }
            Key::Job(name) => {
                self.jobs.insert(name.clone());
                self.account_for_job(name, others);
            }
            Key::Quota(namespace) => self.account_for_quota(namespace, others),
            Key::Alloc(slot, node) => {
                if self.may_coordinate(&slot.job) {
                    self.jobs.insert(slot.job.clone());
                }
                self.account_for(slot, *node, others);
                self.refresh_claim(slot, *node, before);
            }
            Key::Keyring | Key::Token(_) | Key::Voters => {}
        }
    }

    /// A node was let in, removed, came or went.
    pub fn member_changed(&mut self, node: NodeId, others: &Others) {
        self.refresh_fleet(node, others);
        self.account_for_node(node, others);
        self.refresh_coordinator(node, others);
        self.all_jobs = true;
    }

    /// Whether a node belongs to the fabric and answers.
    pub fn is_up(&self, node: &NodeId, others: &Others) -> bool {
        self.table.is_member(node) && others.answers(node)
    }

    /// Whether a node's row differs from the one before in what it has seen only, so that nothing follows from it.
    pub fn says_only_what_it_saw(&self, node: &NodeId, before: Option<&SharedEntry>) -> bool {
        let (Some(Value::Node(before)), Some(info)) =
            (before.map(|it| &it.value), self.table.node(node))
        else {
            return false;
        };
        NodeInfo { seen: info.seen, ..(**before).clone() } == *info
    }

    /// Takes in an entry that is on disk, of whatever time: what is old goes once it is known what time it is. Nothing is
    /// derived from rows of allocations yet: see [`Replica::loaded_own`].
    pub fn load(&mut self, entry: Entry, others: &Others) -> Changed {
        let key = entry.key.clone();
        self.table.merge(entry, WallTime(0));
        if !matches!(key, Key::Alloc(..)) {
            self.derive(&key, None, others);
        }
        Changed { key, before: None }
    }

    /// The rows of this node's own allocations that came with [`Replica::load`].
    pub fn loaded_own(&mut self, others: &Others) -> Vec<Changed> {
        let own = self
            .table
            .entries()
            .filter(|entry| matches!(&entry.key, Key::Alloc(_, node) if *node == self.me));
        let own: Vec<Key> = own.map(|entry| entry.key.clone()).collect();
        for key in &own {
            self.derive(key, None, others);
        }
        own.into_iter().map(|key| Changed { key, before: None }).collect()
    }

    /// Begins with a table that is on disk already. Whoever calls this opens the accounts.
    pub fn begin_with(&mut self, table: Table) {
        self.table = table;
    }

    /// Drops rows that leave the table by their age; their keys.
    pub fn expire(&mut self, horizon: WallTime) -> Vec<Key> {
        let keys = self.table.expire(horizon);
        for key in &keys {
            self.remember(key);
        }
        keys
    }

    /// Drops a row that is over, or a tombstone: nothing is derived from those.
    pub fn forget_over(&mut self, key: &Key) {
        self.table.discard(key);
        self.remember(key);
    }

    /// Drops an entry that was deleted while this node was away.
    pub fn drop_deleted(&mut self, key: Key, others: &Others) -> Changed {
        let before = self.table.entry(&key).cloned();
        self.forget_over(&key);
        self.derive(&key, before.as_ref(), others);
        Changed { key, before }
    }

    /// An entry changed, or is to be written again: it goes to the disk if it belongs there.
    pub fn remember(&mut self, key: &Key) {
        if !matches!(key, Key::Alloc(_, node) if *node != self.me) {
            self.disk.set_entry(key, self.table.entry(key));
        }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// For what else goes to the disk.
    pub fn disk_mut(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// Up to when no tombstones are kept.
    pub fn purged_until(&self) -> WallTime {
        self.purged_until
    }

    pub fn set_purged_until(&mut self, until: WallTime) {
        self.purged_until = until;
        self.disk.set_purged(until);
    }

    /// From the disk.
    pub fn restore_purged_until(&mut self, until: WallTime) {
        self.purged_until = self.purged_until.max(until);
    }

    /// One round of what is fresh, to each of `targets`.
    pub fn push(&mut self, at: Instant, targets: &[NodeId]) -> Vec<Parcel> {
        self.gossip.push(at, &self.table, targets)
    }

    /// When the next round may go out; `None`: nothing to push.
    pub fn next_push(&self) -> Option<Instant> {
        self.gossip.next_deadline()
    }

    /// Entries that are still being pushed.
    pub fn to_push(&self) -> usize {
        self.gossip.backlog()
    }

    /// The fleet that is in use: see [`Node::ensure_fleet`].
    pub fn fleet(&self) -> &Fleet {
        self.fleet.get()
    }

    /// The same, for promises and trials. Who makes one takes it back.
    pub fn fleet_mut(&mut self) -> &mut Fleet {
        self.fleet.get_mut()
    }

    /// What the namespaces with a quota have.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// A job's coordinator looks at it in the next tick.
    pub fn look_at(&mut self, job: JobName) {
        self.jobs.insert(job);
    }

    pub fn look_at_each(&mut self, jobs: impl IntoIterator<Item = JobName>) {
        self.jobs.extend(jobs);
    }

    pub fn look_at_all(&mut self) {
        self.all_jobs = true;
    }

    pub fn is_to_be_looked_at(&self, job: &JobName) -> bool {
        self.jobs.contains(job)
    }

    /// Jobs to look at, which count as looked at.
    pub fn take_jobs(&mut self) -> BTreeSet<JobName> {
        std::mem::take(&mut self.jobs)
    }

    /// Whether that is all of them.
    pub fn take_all_jobs(&mut self) -> bool {
        std::mem::take(&mut self.all_jobs)
    }

    /// Past all doors.
    #[cfg(test)]
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

/// What an entry that comes is beside the one that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Nothing new.
    Known,
    /// Greater.
    Newer,
    /// Not greater, but what is here is dated ahead and gives way to it.
    InPlace,
}

impl Node {
    /// Writes an entry of this node's.
    pub(super) fn write(&mut self, now: Now, key: Key, value: Value) -> Merge {
        let stamp = self.time.clock.tick(now.wall);
        let entry = self.written(stamp, key, value);
        self.merge_in(now, entry.into(), true)
    }

    /// Merges an entry that somebody else sent, unless it is dated ahead or forged. `push`: tell others.
    pub(super) fn take_in(
        &mut self,
        now: Now,
        brought: Brought,
        entry: impl Into<SharedEntry>,
        push: bool,
    ) -> Merge {
        self.take_in_from(now, brought, WallTime(0), entry.into(), push)
    }

    /// As [`Node::take_in`], from a node that has purged up to `purged_there`.
    pub(super) fn take_in_from(
        &mut self,
        now: Now,
        brought: Brought,
        purged_there: WallTime,
        entry: SharedEntry,
        push: bool,
    ) -> Merge {
        if self.was_deleted(&entry.key, &entry.order(), purged_there) {
            return Merge::Refused;
        }
        if self.config.canary == Some(Canary::DeafToRemoval)
            && entry.key == Key::Roster(self.config.id)
        {
            return Merge::Known;
        }
        // That it was removed a node believes whatever the date: it hears no clocks any more.
        let ends_us = entry.key == Key::Roster(self.config.id)
            && matches!(entry.value, Value::Tombstone { .. });
        if !ends_us && self.refuses_stamp(now, &entry) {
            return Merge::Refused;
        }
        // A signature costs more than all else here: it is checked once, where it matters.
        if entry.key.is_signed()
            && self.weigh(now, &entry) != Weight::Known
            && self.refuses_writer(now, brought, &entry)
        {
            return Merge::Refused;
        }
        self.merge_in(now, entry, push)
    }

    /// What an entry is beside the one that is here.
    fn weigh(&self, now: Now, entry: &SharedEntry) -> Weight {
        let known = self.replica.entry(&entry.key);
        let Some(known) = known.filter(|known| known.order() >= entry.order()) else {
            return Weight::Newer;
        };
        // What is dated ahead gives way to what is not, in the same rank.
        let gives_way = self.is_ahead(now.at, known.stamp)
            && !self.is_ahead(now.at, entry.stamp)
            && entry.order().rank >= known.order().rank;
        if gives_way { Weight::InPlace } else { Weight::Known }
    }

    /// Merges an entry and, if it is news, keeps all that follows from it in step.
    pub(super) fn merge_in(&mut self, now: Now, entry: SharedEntry, push: bool) -> Merge {
        let weight = self.weigh(now, &entry);
        if weight == Weight::Known {
            // Most of what gossip brings was brought before.
            return Merge::Known;
        }
        if let (Key::Roster(node), Value::Tombstone { .. }) = (&entry.key, &entry.value) {
            self.keep_epochs_of(*node);
        }
        let (stamp, in_place) = (entry.stamp, weight == Weight::InPlace);
        match self.replica.merge(entry, now.wall, in_place, push, &self.others) {
            Ok(change) => {
                self.time.clock.observe(stamp);
                self.timers.soon = true;
                self.follow(now, change);
                Merge::Taken
            }
            Err(refused) => refused,
        }
    }
}
