//! The fleet of a node that places something: built from the table when it is first needed, kept in step
//! while it is in use, and dropped when nothing was placed for a while.
//!
//! A ledger of every node takes kilobytes, and nearly all nodes of a large fabric place nothing most of the
//! time.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::{Instant, Now};
use crate::id::NodeId;
use crate::limits;
use crate::placement::Fleet;

use super::{Canary, Node};

/// Since when the fleet is not needed any more, if it is there at all.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetCache {
    /// When something was placed last; `None`: there is no fleet.
    used: Option<Instant>,
}

impl Node {
    /// Builds the fleet from the table unless it is there. Whoever reads `fleet` calls this first.
    pub(super) fn ensure_fleet(&mut self, now: Now) {
        if self.fleet_cache.used.replace(now.at).is_none() {
            self.fleet = self.counted(|_| true);
        }
    }

    /// The fleet for a question: the one in use, or one made for it.
    pub(super) fn current_fleet(&self) -> Cow<'_, Fleet> {
        match self.fleet_cache.used {
            Some(_) => Cow::Borrowed(&self.fleet),
            None => Cow::Owned(self.counted(|_| true)),
        }
    }

    /// The part of the fleet that is one node.
    pub(super) fn current_candidate(&self, node: NodeId) -> Cow<'_, Fleet> {
        match self.fleet_cache.used {
            Some(_) => Cow::Borrowed(&self.fleet),
            None => Cow::Owned(self.counted(|other| *other == node)),
        }
    }

    /// Whether `fleet` is there and has to be kept in step.
    pub(super) fn has_fleet(&self) -> bool {
        self.fleet_cache.used.is_some()
    }

    /// Drops the fleet when it was not needed for a while and no proposal depends on it.
    pub(super) fn drop_unused_fleet(&mut self, now: Now) {
        let idle = self.fleet_cache.used.is_some_and(|used| used + limits::FLEET_KEPT <= now.at);
        if idle && self.coordinator.has_no_proposals() {
            self.fleet_cache.used = None;
            self.fleet = self.no_fleet();
        }
    }

    fn no_fleet(&self) -> Fleet {
        Fleet::default().forgetting_disk(self.config.canary == Some(Canary::ForgetsDisk))
    }

    /// Everything that the table says of `wanted` nodes and of what they have given away.
    fn counted(&self, wanted: impl Fn(&NodeId) -> bool) -> Fleet {
        let mut fleet = self.no_fleet();
        for (node, _) in self.table.roster().filter(|(node, _)| wanted(node)) {
            if let Some(info) = self.table.node(&node) {
                fleet.upsert(node, Arc::new(info.clone()));
            }
            if self.is_up(&node) {
                fleet.set_alive(node, true);
                fleet.set_resting(node, self.flaps.rest_of(&node));
            }
        }
        if wanted(&self.config.id) {
            fleet.set_alive(self.config.id, true);
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
    pub(super) fn refresh_fleet(&mut self, node: NodeId) {
        if !self.has_fleet() {
            return;
        }
        if self.table.is_removed(&node) {
            return self.fleet.remove(&node);
        }
        if let Some(info) = self.table.node(&node).filter(|_| self.table.is_member(&node)) {
            let same =
                self.fleet.get(&node).and_then(|c| c.info()).is_some_and(|old| **old == *info);
            if !same {
                self.fleet.upsert(node, Arc::new(info.clone()));
            }
        }
        let alive = node == self.config.id || self.is_up(&node);
        self.fleet.set_alive(node, alive);
        self.fleet.set_resting(node, self.flaps.rest_of(&node));
    }
}
