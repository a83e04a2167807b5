//! Defragmentation on request: a few moves that restore what a job's placement asks for, or that enlarge the
//! largest free hole. A pure function of a fleet and of what may be moved; nothing calls it by itself.
//!
//! # How moves are found
//!
//! 1. **Broken wishes** first: an allocation where a constraint does not hold any more or no task fits, beside a job
//!    that its own stays away from, or on a value of the spread that has at least two slots more than
//!    another place that could take it. One move each.
//! 2. **Cores**: the largest number of free whole cores on one memory node anywhere. On each of the most promising
//!    nodes it is looked how large a hole becomes when allocations leave, the one that frees most first. The node
//!    with the largest hole is emptied that far, if every allocation finds a place elsewhere, and if the hole is
//!    by an eighth larger than the largest one before.
//! 3. **Memory**: the same for the free memory of one node, as long as it costs no hole of cores.
//!
//! Allocations go where they fit best, so that they break no other hole, and where they make no spread less even.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Choice, Fleet, Placer, check_kind};
use crate::admission::Ledger;
use crate::id::{AllocId, JobName, NodeId};
use crate::job::{JobSpec, Strategy};
use crate::resources;

/// Nodes whose holes are looked at more closely.
const NODES_LOOKED_AT: usize = 32;
/// Allocations of one node that are tried.
const ALLOCS_LOOKED_AT: usize = 64;
/// A hole has to grow by one part of so many to be worth a move.
const GAIN_PART: u64 = 8;

/// An allocation that may be moved.
#[derive(Clone, Debug)]
pub struct Movable<'s> {
    /// Which.
    pub alloc: AllocId,
    /// Where it is.
    pub node: NodeId,
    /// What it runs.
    pub spec: &'s JobSpec,
}

/// One allocation goes elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub alloc: AllocId,
    /// From where.
    pub from: NodeId,
    /// To where.
    pub to: NodeId,
    /// What is gained by it.
    pub gain: Gain,
}

/// What a move is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gain {
    /// A constraint holds, or there is a task for the architecture.
    Constraint(String),
    /// It is not beside this job any more.
    Apart(JobName),
    /// So many slots fewer share the value of this level of the spread.
    Spread {
        /// The attribute.
        level: String,
        /// Slots with the value that it leaves, itself included.
        from: u32,
        /// Slots with the value that it joins, itself included.
        to: u32,
    },
    /// The hole of free cores on one memory node of the node that it leaves.
    Cores {
        /// Before the move.
        before: u64,
        /// After it.
        after: u64,
    },
    /// The free memory of the node that it leaves, in MiB.
    Memory {
        /// Before the move.
        before: u64,
        /// After it.
        after: u64,
    },
}

impl std::fmt::Display for Gain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Gain::Constraint(rejection) => write!(f, "where it is, {rejection}"),
            Gain::Apart(job) => write!(f, "away from {job}"),
            Gain::Spread { level, from, to } => {
                write!(f, "{level}: one of {to} slots instead of one of {from}")
            }
            Gain::Cores { before, after } => {
                write!(f, "free cores on one memory node there: {before} -> {after}")
            }
            Gain::Memory { before, after } => {
                let size = |mib: &u64| resources::bytes(mib << 20);
                write!(f, "free memory there: {} -> {}", size(before), size(after))
            }
        }
    }
}

/// The largest holes of a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    /// Free whole cores on one memory node.
    pub cores: u64,
    /// Free memory of one node, in MiB.
    pub memory: u64,
}

#[derive(Clone, Copy)]
enum Measure {
    Cores,
    Memory,
}

/// The largest holes of the nodes that take work.
pub fn holes(fleet: &Fleet) -> Holes {
    let open = || fleet.glances().iter().filter(|glance| glance.open).map(|glance| &glance.summary);
    Holes {
        cores: open().map(|node| u64::from(node.cores_of_one_node)).max().unwrap_or(0),
        memory: open().map(|node| u64::from(node.memory_mib)).max().unwrap_or(0),
    }
}

/// At most `max` moves, in the order in which they are to be made. `fleet` becomes what it is after them. Equal
/// fleets and lists give equal moves.
pub fn rebalance(fleet: &mut Fleet, movable: &[Movable<'_>], max: usize) -> Vec<Move> {
    let mut bench = Bench {
        fleet,
        movable: movable.to_vec(),
        taken: BTreeMap::new(),
        random: ChaCha8Rng::seed_from_u64(0),
        moves: Vec::new(),
        max,
    };
    for one in movable {
        let of_job = bench.taken.entry(&one.spec.name).or_default();
        *of_job.entry(one.node).or_default() += 1;
    }
    bench.restore_wishes();
    bench.enlarge(Measure::Cores);
    bench.enlarge(Measure::Memory);
    bench.moves
}

struct Bench<'f, 's> {
    fleet: &'f mut Fleet,
    /// As it is after the moves so far.
    movable: Vec<Movable<'s>>,
    /// Slots of each job on each node.
    taken: BTreeMap<&'s JobName, BTreeMap<NodeId, u32>>,
    random: ChaCha8Rng,
    moves: Vec<Move>,
    max: usize,
}

impl<'s> Bench<'_, 's> {
    fn restore_wishes(&mut self) {
        let mut even: BTreeMap<&JobName, bool> = BTreeMap::new();
        for at in 0..self.movable.len() {
            if self.moves.len() >= self.max {
                return;
            }
            let one = self.movable[at].clone();
            if self.moves.iter().any(|made| made.alloc == one.alloc) {
                continue;
            }
            let Some(broken) = self.broken(&one) else { continue };
            if let Broken::PerhapsSpread = broken {
                let taken = self.taken.get(&one.spec.name).cloned().unwrap_or_default();
                let is_even = even.entry(&one.spec.name).or_insert_with(|| {
                    Placer::new(self.fleet, one.spec, &taken).is_even(self.fleet)
                });
                if *is_even {
                    continue;
                }
            }
            let others = self.without(&one);
            let Some(choice) = self.choose(&one, &others, one.spec) else { continue };
            if let Some(gain) = self.gain(&one, broken, &others, choice.node) {
                self.make(at, choice, gain);
            }
        }
    }

    /// What an allocation's place breaks of its job's wishes, or might.
    fn broken(&self, one: &Movable<'s>) -> Option<Broken> {
        let candidate = self.fleet.get(&one.node)?;
        let info = candidate.info()?;
        if let Err(rejection) = check_kind(one.spec, one.node, info) {
            return Some(Broken::Kind(rejection.to_string()));
        }
        let placement = &one.spec.placement;
        let ledger = candidate.ledger();
        let here = |job: &&JobName| {
            if **job == one.alloc.slot.job {
                ledger.claims_of(job) > 1
            } else {
                ledger.holds_job(job)
            }
        };
        if let Some(job) = placement.anti_affinity.iter().find(here) {
            return Some(Broken::Together(job.clone()));
        }
        (!placement.spread.is_empty()).then_some(Broken::PerhapsSpread)
    }

    fn gain(
        &self,
        one: &Movable<'s>,
        broken: Broken,
        others: &BTreeMap<NodeId, u32>,
        to: NodeId,
    ) -> Option<Gain> {
        Some(match broken {
            Broken::Kind(rejection) => Gain::Constraint(rejection),
            Broken::Together(job) => Gain::Apart(job),
            Broken::PerhapsSpread => {
                let placer = &mut Placer::new(self.fleet, one.spec, others);
                let (from, to) =
                    (placer.crowd_of(self.fleet, &one.node)?, placer.crowd_of(self.fleet, &to)?);
                let level = (0..from.len()).find(|level| from[*level] != to[*level])?;
                // With one slot more the difference only changes sides.
                if from[level] <= to[level] {
                    return None;
                }
                let name = one.spec.placement.spread.get(level)?.to_string();
                Gain::Spread { level: name, from: from[level] + 1, to: to[level] + 1 }
            }
        })
    }

    fn enlarge(&mut self, measure: Measure) {
        while self.moves.len() < self.max {
            let before = holes(self.fleet);
            let largest = measure.of(before);
            let left = self.max - self.moves.len();
            let mut plans: Vec<(u64, usize, NodeId, Vec<usize>)> = Vec::new();
            for node in self.promising(measure) {
                if let Some((hole, leaving)) = self.hole_without(measure, node, left)
                    && hole >= largest + (largest / GAIN_PART).max(1)
                {
                    plans.push((hole, leaving.len(), node, leaving));
                }
            }
            plans.sort_by_key(|(hole, moves, node, _)| (std::cmp::Reverse(*hole), *moves, *node));
            if !plans.into_iter().any(|(.., leaving)| self.try_out(measure, before, &leaving)) {
                return;
            }
        }
    }

    /// Nodes that have the most of what is wanted, taken or not, and that take work.
    fn promising(&self, measure: Measure) -> Vec<NodeId> {
        let glances = self.fleet.glances().iter().zip(self.fleet.iter());
        let mut nodes: Vec<(u64, NodeId)> = glances
            .filter(|(glance, _)| glance.open)
            .map(|(glance, candidate)| (measure.hole(&glance.summary), candidate.id()))
            .collect();
        nodes.sort_by(|a, b| b.cmp(a));
        nodes.truncate(NODES_LOOKED_AT);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// How large a node's hole becomes when at most `most` allocations leave, and which.
    fn hole_without(
        &self,
        measure: Measure,
        node: NodeId,
        most: usize,
    ) -> Option<(u64, Vec<usize>)> {
        let mut ledger = self.fleet.get(&node)?.ledger().clone();
        let here = |at: &usize| {
            let one = &self.movable[*at];
            one.node == node && !self.moves.iter().any(|made| made.alloc == one.alloc)
        };
        let mut here: Vec<usize> =
            (0..self.movable.len()).filter(here).take(ALLOCS_LOOKED_AT).collect();
        let mut leaving = Vec::new();
        let mut best = (measure.hole(&ledger.summary()), 0);
        while leaving.len() < most && !here.is_empty() {
            let after = |at: usize, ledger: &mut Ledger| {
                let alloc = &self.movable[at].alloc;
                let claim = ledger.release(alloc)?;
                let hole = (measure.hole(&ledger.summary()), std::cmp::Reverse(claim.cpus.len()));
                // It fits again: nothing was held in between.
                ledger.adopt(alloc, claim).ok()?;
                Some(hole)
            };
            let ranked = here.iter().enumerate().filter_map(|(index, at)| {
                Some((after(*at, &mut ledger)?, std::cmp::Reverse(index)))
            });
            let Some((_, std::cmp::Reverse(index))) = ranked.max() else { break };
            let at = here.remove(index);
            ledger.release(&self.movable[at].alloc);
            leaving.push(at);
            let hole = measure.hole(&ledger.summary());
            if hole > best.0 {
                best = (hole, leaving.len());
            }
        }
        leaving.truncate(best.1);
        (!leaving.is_empty()).then_some((best.0, leaving))
    }

    /// Makes the moves, or takes them back if one is not possible or the holes are not better afterwards.
    fn try_out(&mut self, measure: Measure, before: Holes, leaving: &[usize]) -> bool {
        let undo = (self.fleet.clone(), self.movable.clone(), self.taken.clone(), self.moves.len());
        let mut is_possible = true;
        for &at in leaving {
            let one = self.movable[at].clone();
            let hole = |fleet: &Fleet| {
                let glance = fleet.index_of(&one.node).map(|index| fleet.glances()[index].summary);
                glance.map_or(0, |summary| measure.hole(&summary))
            };
            let fitting = JobSpec {
                placement: crate::job::Placement {
                    strategy: Strategy::BestFit,
                    ..one.spec.placement.clone()
                },
                ..one.spec.clone()
            };
            let others = self.without(&one);
            let choice = self.choose(&one, &others, &fitting);
            // A hole is not made at the price of a spread: the next rebalancing would undo it.
            let keeps_spread = |choice: &Choice| {
                let mut placer = Placer::new(self.fleet, one.spec, &others);
                placer.crowd_of(self.fleet, &choice.node) <= placer.crowd_of(self.fleet, &one.node)
            };
            let Some(choice) = choice.filter(keeps_spread) else {
                is_possible = false;
                break;
            };
            let before = hole(self.fleet);
            self.make(at, choice, Gain::Cores { before, after: before });
            let after = hole(self.fleet);
            if let Some(made) = self.moves.last_mut() {
                made.gain = measure.gain(before, after);
            }
        }
        let after = holes(self.fleet);
        let is_better = match measure {
            Measure::Cores => after.cores > before.cores,
            Measure::Memory => after.memory > before.memory && after.cores >= before.cores,
        };
        if !is_possible || !is_better {
            let (fleet, movable, taken, moves) = undo;
            *self.fleet = fleet;
            (self.movable, self.taken) = (movable, taken);
            self.moves.truncate(moves);
            return false;
        }
        true
    }

    /// Slots of the job on each node but for this one.
    fn without(&self, one: &Movable<'s>) -> BTreeMap<NodeId, u32> {
        let mut others = self.taken.get(&one.spec.name).cloned().unwrap_or_default();
        if let Some(slots) = others.get_mut(&one.node) {
            *slots = slots.saturating_sub(1);
        }
        others
    }

    /// The best other place. Its second allocation will be there before the first one goes.
    fn choose(
        &mut self,
        one: &Movable<'s>,
        others: &BTreeMap<NodeId, u32>,
        spec: &JobSpec,
    ) -> Option<Choice> {
        let avoid = [(one.node, std::time::Duration::ZERO)];
        Placer::new(self.fleet, spec, others).choose(self.fleet, &avoid, &mut self.random)
    }

    fn make(&mut self, at: usize, choice: Choice, gain: Gain) {
        let one = &mut self.movable[at];
        let (from, to) = (one.node, choice.node);
        self.fleet.release(&from, &one.alloc);
        self.fleet.hold(to, &one.alloc, &choice.claim);
        one.node = to;
        let of_job = self.taken.entry(&one.spec.name).or_default();
        if let Some(slots) = of_job.get_mut(&from) {
            *slots = slots.saturating_sub(1);
        }
        *of_job.entry(to).or_default() += 1;
        self.moves.push(Move { alloc: one.alloc.clone(), from, to, gain });
    }
}

enum Broken {
    Kind(String),
    Together(JobName),
    PerhapsSpread,
}

impl Measure {
    fn of(self, holes: Holes) -> u64 {
        match self {
            Measure::Cores => holes.cores,
            Measure::Memory => holes.memory,
        }
    }

    fn hole(self, node: &crate::admission::Summary) -> u64 {
        match self {
            Measure::Cores => u64::from(node.cores_of_one_node),
            Measure::Memory => u64::from(node.memory_mib),
        }
    }

    fn gain(self, before: u64, after: u64) -> Gain {
        match self {
            Measure::Cores => Gain::Cores { before, after },
            Measure::Memory => Gain::Memory { before, after },
        }
    }
}

#[cfg(test)]
mod tests;
