//! The allocations of a node, and which of them have something to do, and when: a node with thousands of
//! them at rest looks at none.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Local;
use crate::clock::Instant;
use crate::id::SlotId;

/// Allocations by slot. Invariant: every one for which a tick has something to do, now or at a time that
/// [`Local::due`] names, is `busy`; whoever can change one makes it so. A change of the shared CPUs
/// concerns the others too.
#[derive(Debug, Default)]
pub(super) struct Locals {
    all: BTreeMap<SlotId, Local>,
    busy: BTreeSet<SlotId>,
    dues: RefCell<Dues>,
}

/// When those that are busy are due. Invariant: right for all that are not `stale`.
#[derive(Debug, Default)]
struct Dues {
    by_slot: BTreeMap<SlotId, Instant>,
    by_time: BTreeSet<(Instant, SlotId)>,
    stale: BTreeSet<SlotId>,
}

impl Dues {
    fn set(&mut self, slot: SlotId, due: Option<Instant>) {
        let before = match due {
            Some(at) => self.by_slot.insert(slot.clone(), at),
            None => self.by_slot.remove(&slot),
        };
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, slot.clone()));
        }
        self.by_time.extend(due.map(|at| (at, slot)));
    }
}

impl Locals {
    pub(super) fn get(&self, slot: &SlotId) -> Option<&Local> {
        self.all.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: &SlotId) -> Option<&mut Local> {
        let local = self.all.get_mut(slot)?;
        if !self.busy.contains(slot) {
            self.busy.insert(slot.clone());
        }
        let dues = self.dues.get_mut();
        if !dues.stale.contains(slot) {
            dues.stale.insert(slot.clone());
        }
        Some(local)
    }

    pub(super) fn insert(&mut self, slot: SlotId, local: Local) {
        self.busy.insert(slot.clone());
        self.dues.get_mut().stale.insert(slot.clone());
        self.all.insert(slot, local);
    }

    pub(super) fn remove(&mut self, slot: &SlotId) {
        self.busy.remove(slot);
        self.dues.get_mut().stale.insert(slot.clone());
        self.all.remove(slot);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SlotId, &Local)> {
        self.all.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Local> {
        self.all.values()
    }

    /// Those that are not at rest, as of the last [`Locals::rest`], and those touched since.
    pub(super) fn busy(&self) -> impl Iterator<Item = &SlotId> {
        self.busy.iter()
    }

    /// When the first of them is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let mut dues = self.dues.borrow_mut();
        for slot in std::mem::take(&mut dues.stale) {
            let due = self.get(&slot).and_then(Local::due);
            dues.set(slot, due);
        }
        dues.by_time.first().map(|(at, _)| *at)
    }

    /// Takes those out for which there is nothing to do before something happens to them.
    pub(super) fn rest(&mut self) {
        let all = &self.all;
        self.busy.retain(|slot| all.get(slot).is_some_and(|local| !local.is_at_rest()));
    }
}
