//! From a view of the fleet to a choice: pure functions, no side effects, no clock.
//!
//! # How a node is chosen
//!
//! 1. **Candidates** are looked at in a random order: all of them in a small fleet, in a large one until
//!    [`SAMPLE`] of them may fit, and, for a job that spreads, one of them is where it has the fewest
//!    slots. A walk that finds fewer has seen every node, so a job that fits anywhere is never refused.
//! 2. **The order**, each point outweighing the next: few slots of the job with the same value of the
//!    first `spread` attribute, then with the same values of the first two, and so on; few slots of
//!    the job on the node; the weights of affinities that hold; leaving nodes with rare devices to
//!    those who need them; one memory node for `numa = "prefer"`; and the strategy: over the node's
//!    scarcest resource, or, for the best fit of exclusive cores, over what is left of the memory
//!    node's hole that they come from.
//! 3. **The choice** is random among the best few, the closer to the best the likelier: coordinators
//!    with the same view do not all run to the same node.
//! 4. **[`Candidate::check`]** has the last word, with the same function that the node itself uses.
//!    A node that it refuses is passed over.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::admission::Ledger;
use crate::api::Verdict;
use crate::claim::Claim;
use crate::constraint::Constraint;
use crate::id::NodeId;
use crate::job::JobSpec;
use crate::limits::SPREAD_LEVELS_MAX;
use crate::resources::Rejection;
use crate::topology::NodeInfo;

mod fleet;
pub mod rebalance;
mod score;
#[cfg(test)]
mod tests;
mod walk;

pub use fleet::{Candidate, Fleet};
use score::{Crowd, LOAD, Needs, Standing, shown};
use walk::Walk;

/// Fleets up to this size are looked at as a whole.
pub const SCAN_NODES: usize = 64;
/// Candidates that are scored in a larger one.
pub const SAMPLE: usize = 32;
/// One of so many best is chosen.
const BEST: usize = 4;
/// As long as its score is that close to the best one.
const CLOSE: i64 = LOAD / 10;

/// Whether the node that `id`, `info` and `ledger` describe could take an allocation of `spec` now, and what
/// it would get. The filters in order: witness, draining, impaired, constraints, what its kernel enforces and
/// what it has left. Coordinator, target and `explain` all ask this.
pub fn check(
    spec: &JobSpec,
    id: NodeId,
    info: &NodeInfo,
    ledger: &Ledger,
) -> Result<Claim, Rejection> {
    if info.witness {
        return Err(Rejection::Witness);
    }
    if info.draining {
        return Err(Rejection::Draining);
    }
    if let Some(reason) = &info.impaired {
        return Err(Rejection::Impaired { reason: reason.clone() });
    }
    check_kind(spec, id, info)?;
    if let Some(job) = spec.placement.anti_affinity.iter().find(|job| ledger.holds_job(job)) {
        return Err(Rejection::AntiAffinity { job: job.to_string() });
    }
    ledger.admit(spec)
}

/// Whether what a node is, whatever it has left, suits the job.
pub(crate) fn check_kind(spec: &JobSpec, id: NodeId, info: &NodeInfo) -> Result<(), Rejection> {
    if !spec.task.runs_on(&info.topology.arch) {
        let commands = spec.task.arch.iter().filter(|(_, variant)| !variant.command.is_empty());
        return Err(Rejection::Architecture {
            actual: info.topology.arch.clone(),
            tasks: commands.map(|(arch, _)| arch.clone()).collect(),
        });
    }
    if let Some(constraint) = spec.placement.constraints.iter().find(|c| !c.holds(id, info)) {
        return Err(Rejection::Constraint {
            constraint: constraint.to_string(),
            actual: constraint.actual(id, info).map(|actual| actual.into_owned()),
        });
    }
    Ok(())
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
    /// The group of each value within the group above it; nodes without the attribute have the empty
    /// value in common.
    values: BTreeMap<(u32, String), u32>,
    /// Of all levels of the spread.
    groups: Vec<Group>,
    /// Whether every node of a large fleet was asked for its value.
    values_known: bool,
    /// What the node's row means to the job, by the node's place in the fleet.
    memo: Vec<Memo>,
    /// Whether the job asks for anything that needs the memo.
    is_particular: bool,
    ranked: Vec<Ranked>,
}

/// The nodes with the same values on the first few levels of the spread.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Slots of the job on them.
    slots: u32,
    /// On the last level: none of them can take one more.
    is_exhausted: bool,
    /// How many levels it is about, and the groups that it lies in, level by level, itself last.
    levels: u8,
    path: [u32; SPREAD_LEVELS_MAX],
}

/// A node that may fit.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    /// Less is better, before all else.
    crowd: Crowd,
    score: i64,
    index: usize,
}

/// Where a node stands in the order; `None` for one that cannot take it.
type Place = Option<(Crowd, Reverse<i64>)>;

#[derive(Clone, Copy, Debug, Default)]
struct Memo {
    /// Of the row that this was found out from; 0 is none.
    version: u32,
    constraints_hold: bool,
    affinity: i32,
    /// The group on the last level.
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
                || !placement.spread.is_empty()
                || spec.task.command.is_empty(),
            ranked: Vec::new(),
        };
        for (node, &slots) in taken {
            placer.took(fleet, node, slots);
        }
        placer
    }

    /// The job whose slots it places.
    pub fn spec(&self) -> &'s JobSpec {
        self.spec
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
        if !self.spec.placement.spread.is_empty() {
            let group = self.memo(fleet, index).group;
            let group = self.groups[group as usize];
            for &outer in &group.path[..usize::from(group.levels)] {
                self.groups[outer as usize].slots += slots;
            }
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
        let spreads = !self.spec.placement.spread.is_empty();
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
        let levels = self.spec.placement.spread.len();
        let last = |group: &&Group| usize::from(group.levels) == levels && !group.is_exhausted;
        let open = self.groups.iter().filter(last);
        let fewest = open.map(|group| self.crowd(group)).min().unwrap_or_default();
        let scarce = fleet.scarce_classes();
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        let mut in_smallest = 0;
        let choice = loop {
            while ranked.len() < sample || spreads && in_smallest == 0 {
                let Some(index) = walk.next() else { break };
                if let Some(rated) = self.rate(fleet, index, scarce, avoid) {
                    in_smallest += u32::from(rated.crowd <= fewest);
                    ranked.push(rated);
                }
            }
            ranked.sort_unstable_by_key(|node| (node.crowd, Reverse(node.score), node.index));
            let Some(chosen) = draw(&ranked, random) else { break None };
            let Ranked { crowd, score, index } = ranked.remove(chosen);
            in_smallest -= u32::from(crowd <= fewest);
            let candidate = fleet.at(index);
            if let Ok(claim) = candidate.check(self.spec) {
                if crowd > fewest && avoid.is_empty() {
                    self.exhaust_below(crowd);
                }
                break Some(Choice { node: candidate.id(), claim, score: shown(crowd, score) });
            }
        };
        self.ranked = ranked;
        if let Some(choice) = &choice {
            self.took(fleet, &choice.node, 1);
        }
        choice
    }

    /// The same for one node alone: `None` where that one cannot take it.
    pub fn choose_there(
        &mut self,
        fleet: &Fleet,
        node: &NodeId,
        avoid: &[Avoid],
    ) -> Option<Choice> {
        self.arrange(fleet);
        let index = fleet.index_of(node)?;
        if avoid.iter().any(|(avoided, _)| avoided == node) {
            return None;
        }
        let claim = fleet.at(index).check(self.spec).ok()?;
        let (crowd, score) = self.rank(fleet, index, fleet.scarce_classes());
        self.took(fleet, node, 1);
        Some(Choice { node: *node, claim, score: shown(crowd, score) })
    }

    /// Slots of the job that share the values of a node, level by level.
    fn crowd_of(&mut self, fleet: &Fleet, node: &NodeId) -> Option<Crowd> {
        self.arrange(fleet);
        let index = fleet.index_of(node)?;
        Some(self.rank(fleet, index, 0).0)
    }

    /// Whether no value of any level has two slots more than another one beside it.
    fn is_even(&mut self, fleet: &Fleet) -> bool {
        self.arrange(fleet);
        for index in 0..fleet.len() {
            self.memo(fleet, index);
        }
        // Groups lie beside each other that have the same one around them.
        let mut counts: BTreeMap<(u8, u32), (u32, u32)> = BTreeMap::new();
        for group in &self.groups {
            let outer =
                group.levels.checked_sub(2).map_or(u32::MAX, |at| group.path[usize::from(at)]);
            let (least, most) =
                counts.entry((group.levels, outer)).or_insert((group.slots, group.slots));
            (*least, *most) = ((*least).min(group.slots), (*most).max(group.slots));
        }
        counts.values().all(|(least, most)| most - least < 2)
    }

    /// What each node says to one more slot: a score or a rejection. Best first, then the rejections,
    /// by name.
    pub fn verdicts(&mut self, fleet: &Fleet, avoid: &[Avoid]) -> Vec<Verdict> {
        self.arrange(fleet);
        let scarce = fleet.scarce_classes();
        let mut verdicts: Vec<(Place, Verdict)> = (0..fleet.len())
            .map(|index| {
                let candidate = fleet.at(index);
                let node = candidate.id();
                let avoided = avoid.iter().find(|(avoided, _)| *avoided == node);
                let outcome = match (candidate.check(self.spec), avoided) {
                    (Ok(_), Some(&(_, for_another))) => Err(Rejection::FailedHere { for_another }),
                    (outcome, _) => outcome,
                };
                let rank = outcome.is_ok().then(|| self.rank(fleet, index, scarce));
                let score = rank.map(|(crowd, score)| shown(crowd, score));
                let name = candidate.info().map_or_else(|| node.short(), |info| info.name.clone());
                let place = rank.map(|(crowd, score)| (crowd, Reverse(score)));
                (place, Verdict { node, name, rejection: outcome.err(), score })
            })
            .collect();
        verdicts.sort_by(|(place_a, a), (place_b, b)| {
            let places = (place_a.is_none(), place_a).cmp(&(place_b.is_none(), place_b));
            places.then_with(|| (&a.name, a.node).cmp(&(&b.name, b.node)))
        });
        verdicts.into_iter().map(|(_, verdict)| verdict).collect()
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
        let away = &self.spec.placement.anti_affinity;
        if !away.is_empty() && away.iter().any(|job| fleet.at(index).ledger().holds_job(job)) {
            return None;
        }
        let (crowd, score) = self.rank(fleet, index, scarce);
        Some(Ranked { crowd, score, index })
    }

    /// Where a node that may fit stands: how crowded, and how good.
    fn rank(&mut self, fleet: &Fleet, index: usize, scarce: u32) -> (Crowd, i64) {
        let mut standing = Standing::default();
        if self.is_particular {
            let memo = self.memo(fleet, index);
            standing.affinity = memo.affinity;
            let group = self.groups.get(memo.group as usize);
            standing.crowd = group.map_or_else(Crowd::default, |group| self.crowd(group));
        }
        standing.same_node = self.taken_at.get(&index).copied().unwrap_or(0);
        let left_over = if self.needs.minds_holes() {
            fleet.at(index).ledger().cores_left_over(self.spec)
        } else {
            None
        };
        let summary = &fleet.glances()[index].summary;
        (standing.crowd, self.needs.score(summary, left_over, scarce, standing))
    }

    /// Slots of the job in the group and in those that it lies in.
    fn crowd(&self, group: &Group) -> Crowd {
        let mut crowd = Crowd::default();
        for (slots, &outer) in crowd.iter_mut().zip(&group.path[..usize::from(group.levels)]) {
            *slots = self.groups[outer as usize].slots;
        }
        crowd
    }

    fn arrange(&mut self, fleet: &Fleet) {
        if self.arrangement != fleet.arrangement() {
            self.arrangement = fleet.arrangement();
            let taken = self.taken.iter();
            let at = |(node, slots): (&NodeId, &u32)| Some((fleet.index_of(node)?, *slots));
            self.taken_at = taken.filter_map(at).collect();
        }
    }

    /// Takes note that less crowded groups were searched through, and have no room.
    fn exhaust_below(&mut self, crowd: Crowd) {
        for index in 0..self.groups.len() {
            let is_below = self.crowd(&self.groups[index]) < crowd;
            self.groups[index].is_exhausted |= is_below;
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
        let id = fleet.at(index).id();
        let holds = |condition: &Constraint| info.is_some_and(|info| condition.holds(id, info));
        let weights = placement.affinity.iter().filter(|affinity| holds(&affinity.condition));
        let memo = Memo {
            version,
            constraints_hold: placement.constraints.iter().all(holds)
                && info.is_some_and(|info| self.spec.task.runs_on(&info.topology.arch)),
            affinity: weights.map(|affinity| i32::from(affinity.weight)).sum(),
            group: self.group_of(id, info.map(|info| &**info)),
        };
        self.memo[index] = memo;
        memo
    }

    /// The group on the last level of the spread that a node belongs to.
    fn group_of(&mut self, id: NodeId, info: Option<&NodeInfo>) -> u32 {
        let mut inner = Group::default();
        let mut group = u32::MAX;
        for attribute in &self.spec.placement.spread {
            let value = info.and_then(|info| attribute.of(id, info)).unwrap_or_default();
            let next = self.groups.len() as u32;
            group = *self.values.entry((group, value.into_owned())).or_insert(next);
            inner.path[usize::from(inner.levels)] = group;
            inner.levels += 1;
            if group == next {
                self.groups.push(inner);
            }
        }
        group
    }
}

/// The place of one of the best, the closer to the best the likelier. `ranked` is sorted.
fn draw<R: Rng + ?Sized>(ranked: &[Ranked], random: &mut R) -> Option<usize> {
    let Ranked { crowd, score: best, .. } = *ranked.first()?;
    let few = &ranked[..ranked.len().min(BEST)];
    let few = &few[..few.iter().take_while(|ranked| ranked.crowd == crowd).count()];
    let weight = |ranked: &Ranked| (CLOSE - (best - ranked.score)).max(0);
    let mut point = random.random_range(0..few.iter().map(weight).sum());
    few.iter().position(|ranked| {
        point -= weight(ranked);
        point < 0
    })
}
