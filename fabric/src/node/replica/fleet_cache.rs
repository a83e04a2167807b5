//! The fleet of a node that places something: built from the table when it is first needed, kept in step
//! while it is in use, and dropped when nothing was placed for a while.
//!
//! A ledger of every node takes kilobytes, and nearly all nodes of a large fabric place nothing most of the
//! time.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::{Instant, Now};
use crate::id::{NodeId, SlotId};
use crate::limits;
use crate::placement::Fleet;
use crate::table::{SharedEntry, Value};

use super::{Node, Others, Replica};

/// The fleet, if it is there, and since when it is not needed any more.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetCache {
    /// Valid while it is in use.
    fleet: Fleet,
    /// When something was placed last; `None`: there is no fleet.
    used: Option<Instant>,
    /// A bug on request: disk that was given away counts as free.
    forgets_disk: bool,
}

impl FleetCache {
    pub(super) fn new(forgets_disk: bool) -> Self {
        Self { fleet: no_fleet(forgets_disk), used: None, forgets_disk }
    }

    pub(super) fn get(&self) -> &Fleet {
        &self.fleet
    }

    pub(super) fn get_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }
}

fn no_fleet(forgets_disk: bool) -> Fleet {
    Fleet::default().forgetting_disk(forgets_disk)
}

impl Node {
    /// Builds the fleet from the table unless it is there. Whoever reads [`Replica::fleet`] calls this first.
    pub(in crate::node) fn ensure_fleet(&mut self, now: Now) {
        if self.replica.fleet.used.replace(now.at).is_none() {
            self.replica.fleet.fleet = self.replica.counted(&self.others, |_| true);
        }
    }

    /// The fleet for a question: the one in use, or one made for it.
    pub(in crate::node) fn current_fleet(&self) -> Cow<'_, Fleet> {
        match self.replica.has_fleet() {
            true => Cow::Borrowed(self.replica.fleet()),
            false => Cow::Owned(self.replica.counted(&self.others, |_| true)),
        }
    }

    /// The part of the fleet that is one node.
    pub(in crate::node) fn current_candidate(&self, node: NodeId) -> Cow<'_, Fleet> {
        match self.replica.has_fleet() {
            true => Cow::Borrowed(self.replica.fleet()),
            false => Cow::Owned(self.replica.counted(&self.others, |other| *other == node)),
        }
    }

    /// Drops the fleet when it was not needed for a while and no proposal depends on it.
    pub(in crate::node) fn drop_unused_fleet(&mut self, now: Now) {
        let cache = &mut self.replica.fleet;
        let idle = cache.used.is_some_and(|used| used + limits::FLEET_KEPT <= now.at);
        if idle && self.coordinator.has_no_proposals() {
            *cache = FleetCache::new(cache.forgets_disk);
        }
    }
}

impl Replica {
    /// Whether there is a fleet, which has to be kept in step.
    fn has_fleet(&self) -> bool {
        self.fleet.used.is_some()
    }

    /// Everything that the table says of `wanted` nodes and of what they have given away.
    fn counted(&self, others: &Others, wanted: impl Fn(&NodeId) -> bool) -> Fleet {
        let mut fleet = no_fleet(self.fleet.forgets_disk);
        for (node, _) in self.table.roster().filter(|(node, _)| wanted(node)) {
            if let Some(info) = self.table.node(&node) {
                fleet.upsert(node, Arc::new(info.clone()));
            }
            if self.is_up(&node, others) {
                fleet.set_alive(node, true);
                fleet.set_resting(node, others.flaps.rest_of(&node));
            }
        }
        if wanted(&self.me) {
            fleet.set_alive(self.me, true);
        }
        for (slot, node, row, _) in self.table.allocs() {
            if row.phase.holds_claim() && wanted(&node) {
                let alloc = row.of(slot.clone());
                fleet.hold(node, &alloc, &row.claim);
            }
        }
        fleet
    }

    /// A node became known, says something new of itself, came or went.
    pub fn refresh_fleet(&mut self, node: NodeId, others: &Others) {
        if !self.has_fleet() {
            return;
        }
        let alive = node == self.me || self.is_up(&node, others);
        let (table, fleet) = (&self.table, &mut self.fleet.fleet);
        if table.is_removed(&node) {
            return fleet.remove(&node);
        }
        if let Some(info) = table.node(&node).filter(|_| table.is_member(&node)) {
            let same = fleet.get(&node).and_then(|c| c.info()).is_some_and(|old| **old == *info);
            if !same {
                fleet.upsert(node, Arc::new(info.clone()));
            }
        }
        fleet.set_alive(node, alive);
        fleet.set_resting(node, others.flaps.rest_of(&node));
    }

    /// An allocation's row changed: what it claims.
    pub(super) fn refresh_claim(
        &mut self,
        slot: &SlotId,
        node: NodeId,
        before: Option<&SharedEntry>,
    ) {
        if !self.has_fleet() {
            // Built from the table when it is needed.
            return;
        }
        let (row, fleet) = (self.table.alloc(slot, &node), &mut self.fleet.fleet);
        if let Some(Value::Alloc(before)) = before.map(|entry| &entry.value) {
            let alloc = before.of(slot.clone());
            let same = row.is_some_and(|row| row.is_of(&alloc) && row.phase.holds_claim());
            if before.phase.holds_claim() && !same {
                fleet.release(&node, &alloc);
            }
        }
        let Some(row) = row else { return };
        let alloc = row.of(slot.clone());
        if row.phase.holds_claim() {
            fleet.hold(node, &alloc, &row.claim);
        } else {
            fleet.release(&node, &alloc);
        }
    }
}
