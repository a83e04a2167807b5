//! From a view of the fleet to a choice: pure functions, no side effects, no clock.
//!
//! # How a node is chosen
//!
//! 1. **Candidates** are looked at in a random order: all of them in a small fleet, in a large one until
//!    [`SAMPLE`] of them may fit, and, for a job that spreads, one of them is where it has the fewest
//!    slots. A walk that finds fewer has seen every node, so a job that fits anywhere is never refused.
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
mod walk;

pub use fleet::{Candidate, Fleet};
use score::{LOAD, Needs, Standing};
use walk::Walk;

/// Fleets up to this size are looked at as a whole.
pub const SCAN_NODES: usize = 64;
/// Candidates that are scored in a larger one.
pub const SAMPLE: usize = 32;
/// One of so many best is chosen.
const BEST: usize = 4;
/// As long as its score is that close to the best one.
const CLOSE: i64 = LOAD / 10;

/// Whether the node that `info` and `ledger` describe could take an allocation of `spec` now, and what
/// it would get. The filters in order: witness, draining, impaired, constraints, what its kernel enforces and
/// what it has left. Coordinator, target and `explain` all ask this.
pub fn check(spec: &JobSpec, info: &NodeInfo, ledger: &Ledger) -> Result<Claim, Rejection> {
    if info.witness {
        return Err(Rejection::Witness);
    }
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
    /// Slots of the job on each node that has any; by id, and by place as long as the arrangement of
    /// the fleet is the same.
    taken: BTreeMap<NodeId, u32>,
    taken_at: BTreeMap<usize, u32>,
    arrangement: u64,
    /// Values of the spread attribute; nodes without it have the empty value in common.
    values: BTreeMap<String, usize>,
    /// By index in `values`.
    groups: Vec<Group>,
    /// Whether every node of a large fleet was asked for its value.
    values_known: bool,
    /// What the node's row means to the job, by the node's place in the fleet.
    memo: Vec<Memo>,
    /// Whether the job asks for anything that needs the memo.
    is_particular: bool,
    ranked: Vec<Ranked>,
}

/// The nodes with one value of the spread attribute.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Slots of the job on them.
    slots: u32,
    /// None of them can take one more.
    is_exhausted: bool,
}

/// A node that may fit. Ordered by score.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    score: i64,
    index: usize,
    /// Slots of the job in its group.
    in_group: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Memo {
    /// Of the row that this was found out from; 0 is none.
    version: u32,
    constraints_hold: bool,
    affinities: u16,
    /// Index into `groups`.
    group: u32,
}

impl<'s> Placer<'s> {
    /// A placer for `spec`, whose slots are on the nodes in `taken` already, so many on each.
    pub fn new(fleet: &Fleet, spec: &'s JobSpec, taken: &BTreeMap<NodeId, u32>) -> Self {
        let placement = &spec.placement;
        let mut placer = Self {
            spec,
            needs: Needs::new(spec),
            taken: BTreeMap::new(),
            taken_at: BTreeMap::new(),
            arrangement: fleet.arrangement(),
            values: BTreeMap::new(),
            groups: Vec::new(),
            values_known: false,
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
        self.arrange(fleet);
        *self.taken.entry(*node).or_default() += slots;
        let Some(index) = fleet.index_of(node) else { return };
        *self.taken_at.entry(index).or_default() += slots;
        if self.spec.placement.spread.is_some() {
            let group = self.memo(fleet, index).group;
            self.groups[group as usize].slots += slots;
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
        self.arrange(fleet);
        let spreads = self.spec.placement.spread.is_some();
        let (sample, mut walk) = if fleet.len() <= SCAN_NODES {
            (usize::MAX, Walk::in_order(fleet.len()))
        } else {
            (SAMPLE, Walk::random(fleet.len(), random))
        };
        if spreads && !self.values_known {
            for index in 0..fleet.len() {
                self.memo(fleet, index);
            }
            self.values_known = true;
        }
        // Spreading needs a node of the group with the fewest slots, wherever it is.
        let open = self.groups.iter().filter(|group| !group.is_exhausted);
        let fewest = open.map(|group| group.slots).min().unwrap_or(0);
        let scarce = fleet.scarce_classes();
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        let mut in_smallest = 0;
        let choice = loop {
            while ranked.len() < sample || spreads && in_smallest == 0 {
                let Some(index) = walk.next() else { break };
                if let Some(rated) = self.rate(fleet, index, scarce, avoid) {
                    in_smallest += u32::from(rated.in_group <= fewest);
                    ranked.push(rated);
                }
            }
            ranked.sort_unstable_by_key(|ranked| (Reverse(ranked.score), ranked.index));
            let Some(chosen) = draw(&ranked, random) else { break None };
            let Ranked { score, index, in_group } = ranked.remove(chosen);
            in_smallest -= u32::from(in_group <= fewest);
            let candidate = fleet.at(index);
            if let Ok(claim) = candidate.check(self.spec) {
                if in_group > fewest && avoid.is_empty() {
                    self.exhaust_below(in_group);
                }
                break Some(Choice { node: candidate.id(), claim, score });
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
        self.arrange(fleet);
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
                let score = outcome.is_ok().then(|| {
                    let standing = self.standing(fleet, index);
                    self.needs.score(&fleet.glances()[index].summary, scarce, standing)
                });
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
    fn rate(
        &mut self,
        fleet: &Fleet,
        index: usize,
        scarce: u32,
        avoid: &[Avoid],
    ) -> Option<Ranked> {
        if !self.needs.may_fit(&fleet.glances()[index]) {
            return None;
        }
        if self.is_particular && !self.memo(fleet, index).constraints_hold {
            return None;
        }
        if !avoid.is_empty() && avoid.iter().any(|(node, _)| *node == fleet.at(index).id()) {
            return None;
        }
        let standing = self.standing(fleet, index);
        let score = self.needs.score(&fleet.glances()[index].summary, scarce, standing);
        Some(Ranked { score, index, in_group: standing.same_value })
    }

    fn standing(&mut self, fleet: &Fleet, index: usize) -> Standing {
        let mut standing = Standing::default();
        if self.is_particular {
            let memo = self.memo(fleet, index);
            standing.affinities = memo.affinities;
            standing.same_value = self.groups.get(memo.group as usize).map_or(0, |g| g.slots);
        }
        standing.same_node = self.taken_at.get(&index).copied().unwrap_or(0);
        standing
    }

    fn arrange(&mut self, fleet: &Fleet) {
        if self.arrangement != fleet.arrangement() {
            self.arrangement = fleet.arrangement();
            let taken = self.taken.iter();
            let at = |(node, slots): (&NodeId, &u32)| Some((fleet.index_of(node)?, *slots));
            self.taken_at = taken.filter_map(at).collect();
        }
    }

    /// Takes note that groups with fewer slots were searched through, and have no room.
    fn exhaust_below(&mut self, slots: u32) {
        for group in self.groups.iter_mut().filter(|group| group.slots < slots) {
            group.is_exhausted = true;
        }
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
            group: placement.spread.as_ref().map_or(0, |attribute| {
                let value = info.and_then(|info| attribute.of(info)).unwrap_or_default();
                match self.values.get(&*value) {
                    Some(group) => *group as u32,
                    None => {
                        let group = self.groups.len();
                        self.values.insert(value.into_owned(), group);
                        self.groups.push(Group::default());
                        group as u32
                    }
                }
            }),
        };
        self.memo[index] = memo;
        memo
    }
}

/// The place of one of the best, the closer to the best the likelier. `ranked` is sorted.
fn draw<R: Rng + ?Sized>(ranked: &[Ranked], random: &mut R) -> Option<usize> {
    let best = ranked.first()?.score;
    let few = &ranked[..ranked.len().min(BEST)];
    let weight = |ranked: &Ranked| (CLOSE - (best - ranked.score)).max(0);
    let mut point = random.random_range(0..few.iter().map(weight).sum());
    few.iter().position(|ranked| {
        point -= weight(ranked);
        point < 0
    })
}
