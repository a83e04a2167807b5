//! From a view of the fleet to a choice: pure functions, no side effects, no clock.
//!
//! # How a node is chosen
//!
//! 1. **Candidates** are looked at in a random order: all of them in a small fleet, in a large one until
//!    [`SAMPLE`] of them may fit. A walk that finds fewer has seen every node, so a job that fits
//!    anywhere is never refused.
//! 2. **Scores**, each outweighing the next: few slots of the job with the same value of the `spread`
//!    attribute; few slots of the job on the node; affinities that hold; leaving nodes with rare
//!    devices to those who need them; one memory node for `numa = "prefer"`; and the strategy, over
//!    the node's scarcest resource.
//! 3. **The choice** is random among the best few, the closer to the best the likelier: coordinators
//!    with the same view do not all run to the same node.
//! 4. **[`Candidate::check`]** has the last word, with the same function that the node itself uses.
//!    A node that it refuses is passed over.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::admission::Ledger;
use crate::claim::Claim;
use crate::id::NodeId;
use crate::io::Verdict;
use crate::job::JobSpec;
use crate::resources::Rejection;
use crate::topology::NodeInfo;

mod fleet;
mod score;
#[cfg(test)]
mod tests;

pub use fleet::{Candidate, Fleet};
use score::{LOAD, Needs, Standing};

/// Fleets up to this size are looked at as a whole.
pub const SCAN_NODES: usize = 64;
/// Candidates that are scored in a larger one.
pub const SAMPLE: usize = 32;
/// One of so many best is chosen.
const BEST: usize = 4;
/// As long as its score is that close to the best one.
const CLOSE: i64 = LOAD / 10;

/// Whether the node that `info` and `ledger` describe could take an allocation of `spec` now, and what
/// it would get. The filters in order: draining, impaired, constraints, what its kernel enforces and
/// what it has left. Coordinator, target and `explain` all ask this.
pub fn check(spec: &JobSpec, info: &NodeInfo, ledger: &Ledger) -> Result<Claim, Rejection> {
    if info.draining {
        return Err(Rejection::Draining);
    }
    if let Some(reason) = &info.impaired {
        return Err(Rejection::Impaired { reason: reason.clone() });
    }
    if let Some(constraint) = spec.placement.constraints.iter().find(|c| !c.holds(info)) {
        return Err(Rejection::Constraint {
            constraint: constraint.to_string(),
            actual: constraint.attribute().of(info).map(|actual| actual.into_owned()),
        });
    }
    ledger.admit(spec)
}

/// Where an allocation should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which node.
    pub node: NodeId,
    /// What it would get there.
    pub claim: Claim,
    /// How good the node is; only means something beside other scores of the same job.
    pub score: i64,
}

/// A node to stay away from because the slot failed there, and for how much longer.
pub type Avoid = (NodeId, Duration);

/// Places the slots of one job, one after the other. Make one when there is something to place; it
/// remembers what it found out about nodes as long as their rows do not change.
#[derive(Clone, Debug)]
pub struct Placer<'s> {
    spec: &'s JobSpec,
    needs: Needs,
    taken: BTreeMap<NodeId, u32>,
    /// Slots of the job by value of the spread attribute; nodes without it have one value in common.
    spread: BTreeMap<Option<String>, usize>,
    spread_counts: Vec<u32>,
    /// What the node's row means to the job, by the node's place in the fleet.
    memo: Vec<Memo>,
    /// Whether the job asks for anything that needs the memo.
    is_particular: bool,
    ranked: Vec<(i64, usize)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Memo {
    /// Of the row that this was found out from; 0 is none.
    version: u64,
    constraints_hold: bool,
    affinities: u16,
    /// Index into `spread_counts`.
    value: u32,
}

impl<'s> Placer<'s> {
    /// A placer for `spec`, whose slots are on the nodes in `taken` already, so many on each.
    pub fn new(fleet: &Fleet, spec: &'s JobSpec, taken: &BTreeMap<NodeId, u32>) -> Self {
        let placement = &spec.placement;
        let mut placer = Self {
            spec,
            needs: Needs::new(spec),
            taken: BTreeMap::new(),
            spread: BTreeMap::new(),
            spread_counts: Vec::new(),
            memo: Vec::new(),
            is_particular: !placement.constraints.is_empty()
                || !placement.affinity.is_empty()
                || placement.spread.is_some(),
            ranked: Vec::new(),
        };
        for (node, &slots) in taken {
            placer.took(fleet, node, slots);
        }
        placer
    }

    /// Takes note that so many more slots of the job are on `node`.
    pub fn took(&mut self, fleet: &Fleet, node: &NodeId, slots: u32) {
        if slots == 0 {
            return;
        }
        *self.taken.entry(*node).or_default() += slots;
        if let (Some(index), true) = (fleet.index_of(node), self.spec.placement.spread.is_some()) {
            let value = self.memo(fleet, index).value;
            self.spread_counts[value as usize] += slots;
        }
    }

    /// Chooses a node for one more slot, which stays away from the nodes in `avoid`. The choice is
    /// counted at once as by [`Placer::took`]. `None`: no node can take it, [`Placer::verdicts`] says why.
    /// Equal fleets, placers and random numbers give equal choices.
    pub fn choose<R: Rng + ?Sized>(
        &mut self,
        fleet: &Fleet,
        avoid: &[Avoid],
        random: &mut R,
    ) -> Option<Choice> {
        let nodes = fleet.len();
        if nodes == 0 {
            return None;
        }
        let (sample, start, stride) = if nodes <= SCAN_NODES {
            (nodes, 0, 1)
        } else {
            (SAMPLE, random.random_range(0..nodes), coprime(nodes, random))
        };
        let scarce = fleet.scarce_classes();
        let mut ranked = std::mem::take(&mut self.ranked);
        let mut at = start;
        let mut left = nodes;
        let choice = loop {
            ranked.clear();
            while left > 0 && ranked.len() < sample {
                left -= 1;
                if let Some(score) = self.rate(fleet, at, scarce, avoid) {
                    ranked.push((score, at));
                }
                at += stride;
                if at >= nodes {
                    at -= nodes;
                }
            }
            ranked.sort_unstable_by_key(|&(score, index)| (Reverse(score), index));
            let choice = self.pick(fleet, &mut ranked, random);
            if choice.is_some() || left == 0 {
                break choice;
            }
        };
        self.ranked = ranked;
        if let Some(choice) = &choice {
            self.took(fleet, &choice.node, 1);
        }
        choice
    }

    /// What each node says to one more slot: a score or a rejection. Best first, then the rejections,
    /// by name.
    pub fn verdicts(&mut self, fleet: &Fleet, avoid: &[Avoid]) -> Vec<Verdict> {
        let scarce = fleet.scarce_classes();
        let mut verdicts: Vec<Verdict> = (0..fleet.len())
            .map(|index| {
                let candidate = fleet.at(index);
                let node = candidate.id();
                let avoided = avoid.iter().find(|(avoided, _)| *avoided == node);
                let outcome = match (candidate.check(self.spec), avoided) {
                    (Ok(_), Some(&(_, for_another))) => Err(Rejection::FailedHere { for_another }),
                    (outcome, _) => outcome,
                };
                let score = outcome.is_ok().then(|| self.score(fleet, index, scarce));
                let name = candidate.info().map_or_else(|| node.short(), |info| info.name.clone());
                Verdict { node, name, rejection: outcome.err(), score }
            })
            .collect();
        verdicts.sort_by(|a, b| {
            let key = |v: &Verdict| (v.score.is_none(), Reverse(v.score));
            key(a).cmp(&key(b)).then_with(|| (&a.name, a.node).cmp(&(&b.name, b.node)))
        });
        verdicts
    }

    /// The score of a node that may fit, at a glance.
    fn rate(&mut self, fleet: &Fleet, index: usize, scarce: u64, avoid: &[Avoid]) -> Option<i64> {
        if !self.needs.may_fit(&fleet.glances()[index]) {
            return None;
        }
        if self.is_particular && !self.memo(fleet, index).constraints_hold {
            return None;
        }
        if !avoid.is_empty() && avoid.iter().any(|(node, _)| *node == fleet.at(index).id()) {
            return None;
        }
        Some(self.score(fleet, index, scarce))
    }

    fn score(&mut self, fleet: &Fleet, index: usize, scarce: u64) -> i64 {
        let mut standing = Standing::default();
        if self.is_particular {
            let memo = self.memo(fleet, index);
            standing.affinities = memo.affinities;
            standing.same_value = self.spread_counts.get(memo.value as usize).copied().unwrap_or(0);
        }
        if !self.taken.is_empty() {
            standing.same_node = self.taken.get(&fleet.at(index).id()).copied().unwrap_or(0);
        }
        self.needs.score(&fleet.glances()[index].summary, scarce, standing)
    }

    /// Takes one of the best that really fits; those that do not are struck off.
    fn pick<R: Rng + ?Sized>(
        &self,
        fleet: &Fleet,
        ranked: &mut Vec<(i64, usize)>,
        random: &mut R,
    ) -> Option<Choice> {
        while let Some(&(best, _)) = ranked.first() {
            let weight = |score: i64| (CLOSE - (best - score)).max(0);
            let few = &ranked[..ranked.len().min(BEST)];
            let mut point = random.random_range(0..few.iter().map(|few| weight(few.0)).sum());
            let chosen = few.iter().position(|few| {
                point -= weight(few.0);
                point < 0
            });
            let (score, index) = ranked.remove(chosen.unwrap_or(0));
            let candidate = fleet.at(index);
            if let Ok(claim) = candidate.check(self.spec) {
                return Some(Choice { node: candidate.id(), claim, score });
            }
        }
        None
    }

    /// What the row of the node at `index` means to the job.
    fn memo(&mut self, fleet: &Fleet, index: usize) -> Memo {
        if self.memo.len() < fleet.len() {
            self.memo.resize(fleet.len(), Memo::default());
        }
        let version = fleet.glances()[index].version;
        let memo = self.memo[index];
        if memo.version == version && version != 0 {
            return memo;
        }
        let placement = &self.spec.placement;
        let info = fleet.at(index).info();
        let holds = |c: &crate::constraint::Constraint| info.is_some_and(|info| c.holds(info));
        let memo = Memo {
            version,
            constraints_hold: placement.constraints.iter().all(holds),
            affinities: placement.affinity.iter().filter(|c| holds(c)).count() as u16,
            value: match &placement.spread {
                None => 0,
                Some(attribute) => {
                    let value = info.and_then(|info| attribute.of(info)).map(|v| v.into_owned());
                    let next = self.spread.len();
                    let index = *self.spread.entry(value).or_insert(next);
                    if index == next {
                        self.spread_counts.push(0);
                    }
                    index as u32
                }
            },
        };
        self.memo[index] = memo;
        memo
    }
}

/// A step that visits each of `nodes` once before it comes back to where it began.
fn coprime<R: Rng + ?Sized>(nodes: usize, random: &mut R) -> usize {
    loop {
        let step = random.random_range(1..nodes.max(2));
        let (mut a, mut b) = (nodes, step);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        if a == 1 {
            return step;
        }
    }
}
