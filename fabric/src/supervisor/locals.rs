//! The allocations of a node, and which of them have something to do, and when: a tick of a node with thousands of
//! them looks at those that are due, and at those to which something has happened.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::LocalAlloc;
use crate::clock::Instant;
use crate::id::SlotId;

/// Allocations by slot. Invariant: every one for which a tick has something to do, now or at a time that
/// [`LocalAlloc::due`] names, is due or `touched`; whoever can change one touches it. What concerns all of them
/// ([`super::Circumstances`]) and what is on disk is not theirs: who learns of that has them looked at.
#[derive(Debug, Default)]
pub(super) struct Locals {
    all: BTreeMap<SlotId, LocalAlloc>,
    /// Those that may have changed since the last tick.
    touched: BTreeSet<SlotId>,
    /// Claims that wait for the disk, by the write that holds them.
    unwritten: BTreeMap<u64, Vec<SlotId>>,
    dues: RefCell<Dues>,
}

/// When each is due. Invariant: right for all that are not `stale`.
#[derive(Debug, Default)]
struct Dues {
    by_slot: BTreeMap<SlotId, Instant>,
    by_time: BTreeSet<(Instant, SlotId)>,
    stale: BTreeSet<SlotId>,
}

impl Dues {
    fn refresh(&mut self, all: &BTreeMap<SlotId, LocalAlloc>) {
        for slot in std::mem::take(&mut self.stale) {
            let due = all.get(&slot).and_then(LocalAlloc::due);
            self.set(slot, due);
        }
    }

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
    pub(super) fn get(&self, slot: &SlotId) -> Option<&LocalAlloc> {
        self.all.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: &SlotId) -> Option<&mut LocalAlloc> {
        let local = self.all.get_mut(slot)?;
        for touched in [&mut self.touched, &mut self.dues.get_mut().stale] {
            if !touched.contains(slot) {
                touched.insert(slot.clone());
            }
        }
        Some(local)
    }

    pub(super) fn insert(&mut self, slot: SlotId, local: LocalAlloc) {
        self.touched.insert(slot.clone());
        self.dues.get_mut().stale.insert(slot.clone());
        self.unwritten.entry(local.alloc.reserved_in).or_default().push(slot.clone());
        self.all.insert(slot, local);
    }

    pub(super) fn remove(&mut self, slot: &SlotId) {
        self.touched.remove(slot);
        self.dues.get_mut().stale.insert(slot.clone());
        self.all.remove(slot);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SlotId, &LocalAlloc)> {
        self.all.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.all.values()
    }

    /// When the first of them is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let mut dues = self.dues.borrow_mut();
        dues.refresh(&self.all);
        dues.by_time.first().map(|(at, _)| *at)
    }

    /// Everything up to this write is on disk: the claims that waited for it have something to do.
    pub(super) fn written(&mut self, through: u64) {
        let waiting = self.unwritten.split_off(&through.saturating_add(1));
        let written = std::mem::replace(&mut self.unwritten, waiting);
        self.touched.extend(written.into_values().flatten());
    }

    /// Those that are due, and those that were touched since [`Locals::looked_at`].
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeSet<SlotId> {
        let dues = self.dues.get_mut();
        dues.refresh(&self.all);
        let due = dues.by_time.iter().take_while(|(at, _)| *at <= now);
        let due = due.map(|(_, slot)| slot.clone());
        std::mem::take(&mut self.touched).into_iter().chain(due).collect()
    }

    /// A tick has looked at them: what it has done to them is nothing to look at.
    pub(super) fn looked_at(&mut self) {
        self.touched.clear();
    }
}
