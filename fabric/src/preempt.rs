//! Which allocations of a node would have to go so that a more important one fits: pure functions, asked by
//! coordinator, target and `plan` alike.
//!
//! # Rules
//!
//! - Only allocations of strictly lower priority go. So a chain of displacements goes down in priority with
//!   every step: it ends, and nobody is displaced by whom he displaced.
//! - Of all sets that make enough room the one that loses least goes: the sum of size times priority, then the
//!   number, then the youngest. A thousandth of a logical CPU, a MiB of memory, a GiB of disk and a thousandth of a
//!   device are of the same size.
//! - Looked at are all single victims, all pairs among the first `PAIRS_AMONG`, and the set that is found by
//!   taking the cheapest one after the other and giving back whom it does without.

use std::cmp::Reverse;

use crate::admission::Ledger;
use crate::claim::Claim;
use crate::clock::WallTime;
use crate::id::{AllocId, NodeId};
use crate::job::JobSpec;
use crate::placement;
use crate::topology::NodeInfo;

/// Pairs are tried among so many of the cheapest: 276 of them.
const PAIRS_AMONG: usize = 24;

/// An allocation that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub alloc: AllocId,
    /// Its job's priority.
    pub priority: u8,
    /// When it came to where it is now.
    pub since: WallTime,
}

/// Who goes, and what is lost by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victims {
    /// In no order that means anything.
    pub allocs: Vec<AllocId>,
    /// The lesser the better.
    pub loss: Loss,
    /// What the newcomer gets.
    pub claim: Claim,
}

/// Size times priority, how many, and since when the oldest of them has been there.
pub type Loss = (u64, usize, Reverse<WallTime>);

/// Who of `candidates`, which all hold a claim in `ledger` and are less important, has to go so that `spec` fits.
/// `None`: it does not fit even without them.
pub fn victims(
    spec: &JobSpec,
    (id, info): (NodeId, &NodeInfo),
    ledger: &Ledger,
    candidates: &[Candidate],
) -> Option<Victims> {
    let mut ledger = ledger.clone();
    let mut held: Vec<(&Candidate, Claim, u64)> = candidates
        .iter()
        .filter_map(|candidate| {
            let claim = ledger.claim(&candidate.alloc)?.clone();
            let cost = size(&claim).saturating_mul(u64::from(candidate.priority));
            Some((candidate, claim, cost))
        })
        .collect();
    held.sort_by_key(|(candidate, _, cost)| {
        (*cost, Reverse(candidate.since), candidate.alloc.clone())
    });
    let all: Vec<usize> = (0..held.len()).collect();
    let mut search = Search { spec, id, info, held: &held, ledger: &mut ledger, best: None };
    if all.is_empty() || !search.suffices(&all) {
        return None;
    }
    for one in 0..held.len() {
        search.consider(&[one]);
    }
    for one in 0..held.len().min(PAIRS_AMONG) {
        for other in one + 1..held.len().min(PAIRS_AMONG) {
            search.consider(&[one, other]);
        }
    }
    search.consider_greedily();
    search.best
}

/// How much a claim takes, whatever of.
fn size(claim: &Claim) -> u64 {
    let cpu = claim.cpus.len() as u64 * 1000 + u64::from(claim.shared_millis);
    let bytes = (claim.memory >> 20).saturating_add(claim.disk >> 30);
    cpu.saturating_add(bytes).saturating_add(claim.devices.len() as u64 * 1000)
}

struct Search<'s> {
    spec: &'s JobSpec,
    id: NodeId,
    info: &'s NodeInfo,
    held: &'s [(&'s Candidate, Claim, u64)],
    ledger: &'s mut Ledger,
    best: Option<Victims>,
}

impl Search<'_> {
    /// What the newcomer would get without these. The ledger is as before.
    fn without(&mut self, set: &[usize]) -> Option<Claim> {
        for &index in set {
            self.ledger.release(&self.held[index].0.alloc);
        }
        let claim = placement::check(self.spec, self.id, self.info, self.ledger).ok();
        for &index in set {
            let (candidate, claim, _) = &self.held[index];
            let back = self.ledger.adopt(&candidate.alloc, claim.clone());
            debug_assert!(back.is_ok(), "what was released is free");
        }
        claim
    }

    fn suffices(&mut self, set: &[usize]) -> bool {
        self.without(set).is_some()
    }

    fn consider(&mut self, set: &[usize]) {
        let cost = set.iter().map(|&index| self.held[index].2).fold(0, u64::saturating_add);
        let oldest = set.iter().map(|&index| self.held[index].0.since).min().unwrap_or_default();
        let loss = (cost, set.len(), Reverse(oldest));
        if self.best.as_ref().is_some_and(|best| best.loss <= loss) {
            return;
        }
        if let Some(claim) = self.without(set) {
            let allocs = set.iter().map(|&index| self.held[index].0.alloc.clone()).collect();
            self.best = Some(Victims { allocs, loss, claim });
        }
    }

    /// The cheapest one after the other until it fits; then back with the dearest that are not needed.
    fn consider_greedily(&mut self) {
        let mut set = Vec::new();
        for index in 0..self.held.len() {
            set.push(index);
            if self.suffices(&set) {
                break;
            }
        }
        for index in (0..set.len()).rev() {
            let mut fewer = set.clone();
            fewer.remove(index);
            if !fewer.is_empty() && self.suffices(&fewer) {
                set = fewer;
            }
        }
        self.consider(&set);
    }
}

#[cfg(test)]
mod tests;
