//! Two allocations of one slot: which of them goes on.
//!
//! A coordinator places a slot again when the node that ran it stopped answering, and cannot know whether that node
//! is gone or only cut off. If it was cut off, two copies are there once they hear of each other. Each proposal
//! therefore says what was there of the slot ([`Succession`]), and the later copy decides, by its row alone:
//!
//! - **It was meant to take over** (a drain, a move): the earlier one ends once the later one is healthy.
//! - **It stands in** for a copy that was healthy when its node stopped answering: if that copy says the same
//!   again, healthy since the same moment, it ran all along, and the stand-in ends. Only a stand-in that has been healthy
//!   for [`limits::STAND_IN_MAX`], and was placed by somebody who saw more than half of the fabric, stays.
//! - **It stands in for one that was not healthy then**, and may have become so since, or that says it has been healthy since
//!   another moment: whichever has been healthy for longer goes on.
//! - **Nobody knew of the other one**: the lower epoch goes on; of two equal ones the one that was healthy first.
//!
//! The earlier copy never ends by itself while it is healthy. It says that it is there ([`AllocRow::contests`]), so that
//! an old row of a node that has just come back is not taken for a running unit, and waits for the other one's
//! decision. One side decides, so two healthy copies never give way to each other, and what it decides is in
//! its row.

use crate::alloc::{AllocRow, Ending, Phase, StandIn, Succession};
use crate::clock::Now;
use crate::id::{Birth, NodeId, SlotId};
use crate::job::{Guarantee, SpecHash};
use crate::limits;
use crate::supervisor::LocalAlloc;

use super::{Canary, Node};

/// The level from which on a copy says by its birth, too, whom it replaces.
const BIRTHS: u8 = 3;

/// What an allocation does about the other copies of its slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// It ends.
    End(Ending),
    /// It tells a later copy that it is there, and healthy.
    Contest(u64),
    /// It tells the earlier copy of this epoch and birth to end.
    Replace((u64, Birth)),
}

impl Node {
    /// What is there of a slot for which an allocation is about to be proposed.
    pub(super) fn succession_of(&self, slot: &SlotId) -> Option<Box<Succession>> {
        let mut succession = Succession::default();
        let mut replaces = None;
        for (_, node, row, _) in self.replica.allocs_in(slot) {
            if !row.phase.is_live() {
                continue;
            }
            let ran_well = row.phase == Phase::Running && row.healthy;
            let stands_in = if self.is_up(&node) || node == self.config.id {
                replaces = replaces.max(Some(self.naming(row)));
                // Whoever takes over from a stand-in stands in for the same one.
                row.stands_in().filter(|known| !self.is_up(&known.node))
            } else {
                let by_most =
                    2 * (self.others.membership.others_alive() + 1) > self.replica.members();
                let epoch = row.epoch;
                let healthy_since = if ran_well { row.healthy_since } else { StandIn::UNWELL };
                Some(StandIn { node, epoch, healthy_since, by_most })
            };
            let epoch = |known: &StandIn| known.epoch;
            succession.stands_in =
                succession.stands_in.into_iter().chain(stands_in).max_by_key(epoch);
        }
        if let Some(earlier) = replaces {
            succession.replace(earlier);
        }
        (succession != Succession::default()).then(|| Box::new(succession))
    }

    /// What an allocation of ours does about the other copies of its slot, if anything.
    pub(super) fn conduct(
        &self,
        now: Now,
        local: &LocalAlloc,
        in_force: SpecHash,
    ) -> Option<Conduct> {
        let (slot, row) = (&local.id().slot, local.row());
        let me = self.config.id;
        let mine = rank(slot, row.epoch, me);
        let runs_well = row.phase == Phase::Running && row.healthy;
        let (mut contests, mut replaces) = (None, None);
        let mut is_telling = false;
        for (_, node, other, _) in self.replica.allocs_in(slot) {
            if node == me || !other.phase.is_live() || !self.is_up(&node) {
                continue;
            }
            if rank(slot, other.epoch, node) > mine {
                let took_over = other.phase == Phase::Running && other.healthy;
                let wins = self.config.canary == Some(Canary::HigherEpochWins);
                if took_over && (!runs_well || other.replaces(row) || wins) {
                    return Some(Conduct::End(Ending::Superseded { epoch: other.epoch }));
                }
                contests = contests.max(Some(other.epoch));
            } else if row.replaces(other) {
                is_telling = true;
            } else if other.contests >= row.epoch && other.healthy {
                if self.yields(now, local, node, other, in_force) {
                    return Some(Conduct::End(Ending::Yielded { epoch: other.epoch }));
                }
                replaces = replaces.max(Some(self.naming(other)));
            }
        }
        match (contests.filter(|epoch| *epoch > row.contests), replaces) {
            (Some(epoch), _) if runs_well => Some(Conduct::Contest(epoch)),
            // One after the other: a row names one of them.
            (_, Some(earlier)) if runs_well && !is_telling => Some(Conduct::Replace(earlier)),
            _ => None,
        }
    }

    /// What a later copy says to name this one: an epoch and, once all can read it, a birth.
    fn naming(&self, row: &AllocRow) -> (u64, Birth) {
        let birth = if self.level() >= BIRTHS { row.birth } else { Birth(0) };
        (row.epoch, birth)
    }

    /// Whether an allocation of ours ends for an earlier copy that is there and healthy.
    fn yields(
        &self,
        now: Now,
        local: &LocalAlloc,
        node: NodeId,
        earlier: &AllocRow,
        in_force: SpecHash,
    ) -> bool {
        let row = local.row();
        if local.spec().guarantee == Guarantee::AtMostOne {
            // It runs by a lease; whatever ran before has none.
            return false;
        }
        if row.spec != earlier.spec {
            return earlier.spec == in_force;
        }
        if self.replica.node(&node).is_some_and(|info| info.draining) {
            return false;
        }
        let is_old =
            local.healthy_for(now.at).is_some_and(|healthy| healthy >= limits::STAND_IN_MAX);
        match row.stands_in() {
            Some(known) if known.node == node && known.epoch == earlier.epoch => {
                match known.healthy_since {
                    StandIn::UNWELL => earlier.healthy_since <= row.healthy_since,
                    since => {
                        let ran_all_along = since == earlier.healthy_since
                            || earlier.healthy_since <= row.healthy_since;
                        ran_all_along && !(known.by_most && is_old)
                    }
                }
            }
            // It stands in for another stand-in, which is gone.
            Some(known) if known.epoch > earlier.epoch => !(known.by_most && is_old),
            _ if row.epoch == earlier.epoch => earlier.healthy_since <= row.healthy_since,
            _ => true,
        }
    }
}

/// The order of two allocations of one slot: by epoch, then the lower hash is the later one.
pub(super) fn rank(slot: &SlotId, epoch: u64, node: NodeId) -> (u64, std::cmp::Reverse<u64>) {
    let mut bytes = slot.to_string().into_bytes();
    bytes.extend_from_slice(&node.0);
    (epoch, std::cmp::Reverse(xxhash_rust::xxh3::xxh3_64(&bytes)))
}
