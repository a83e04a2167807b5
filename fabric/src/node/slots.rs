//! The slots of a job as its coordinator sees them.

use std::collections::BTreeMap;

use crate::alloc::AllocRow;
use crate::id::{NodeId, SlotId};

/// One slot as the coordinator sees it.
#[derive(Debug)]
pub(super) struct Slot {
    pub id: SlotId,
    /// Live on a node that is up, with the version in force.
    pub current: Vec<(NodeId, AllocRow)>,
    /// Live on a node that is up, with another version.
    pub outdated: Vec<(NodeId, AllocRow)>,
    /// On its way out on a node that is up.
    pub stopping: bool,
    /// Live on a node that is gone, unless it is this node that is: see `doubt`.
    pub doubtful: bool,
    /// The highest epoch of any row.
    pub epoch: u64,
    pub proposed: bool,
    /// Current, healthy for as long as the update policy asks.
    pub settled: bool,
    /// Its last unit made room for a new version, and none has run since.
    pub replaced: bool,
    /// The same, or its last allocation had the version in force: if nothing is there now, the roll-out waits for it.
    pub begun: bool,
}

/// How many live allocations each node has.
pub(super) fn taken(slots: &[Slot]) -> BTreeMap<NodeId, u32> {
    let mut taken = BTreeMap::new();
    for (node, _) in slots.iter().flat_map(|slot| slot.current.iter().chain(&slot.outdated)) {
        *taken.entry(*node).or_insert(0) += 1;
    }
    taken
}
