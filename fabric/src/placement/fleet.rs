//! The nodes as one coordinator sees them: who they are, whether they live, and what they have left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Ledger, Summary, Switches};
use crate::claim::Claim;
use crate::id::{AllocId, NodeId};
use crate::job::JobSpec;
use crate::resources::Rejection;
use crate::topology::NodeInfo;

/// One node as a coordinator sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    id: NodeId,
    info: Option<Arc<NodeInfo>>,
    alive: bool,
    /// It came back from the dead and gets no new work for this long.
    resting: Option<Duration>,
    ledger: Ledger,
    /// Allocations whose claims are our own guesses: they are proposed, and no row confirms them yet.
    proposed: BTreeSet<AllocId>,
    /// Claims that overlap with held ones. Rows arrive in any order: the new holder of a core may be
    /// heard of before the end of the old one. Tried again whenever something is released.
    contested: BTreeMap<AllocId, Claim>,
}

/// What a placement looks at first: one cache line for each node.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct Glance {
    pub summary: Summary,
    pub switches: Switches,
    /// Alive, known, and neither draining nor impaired.
    pub open: bool,
    /// Differs for every [`NodeInfo`] of the last four thousand million that the fleet has seen; never 0
    /// for a node that is known.
    pub version: u32,
}

const _: () = assert!(size_of::<Glance>() == 64);

/// All nodes that a coordinator knows, with their ledgers.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    index: BTreeMap<NodeId, usize>,
    candidates: Vec<Candidate>,
    /// One for each candidate, in the same order.
    glances: Vec<Glance>,
    versions: u32,
    /// Grows whenever a node gets another place.
    arrangement: u64,
    /// How many nodes have a class of devices, by the class's bit.
    nodes_with_class: [u32; 32],
    /// Plants a bug in all ledgers.
    forgets_disk: bool,
}

impl Candidate {
    /// Its key.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What it says of itself; `None` until its row was seen.
    pub fn info(&self) -> Option<&Arc<NodeInfo>> {
        self.info.as_ref()
    }

    /// Whether gossip takes it for alive.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// What it has given away, proposals under way included.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether this node could take an allocation of `spec` now, and what it would get. The filters in
    /// order: alive; not back for a short time only; then those of [`check`](super::check).
    pub fn check(&self, spec: &JobSpec) -> Result<Claim, Rejection> {
        if let Some(after) = self.resting.filter(|_| self.alive) {
            return Err(Rejection::Returned { after });
        }
        match &self.info {
            Some(info) if self.alive => super::check(spec, self.id, info, &self.ledger),
            _ => Err(Rejection::NotAlive),
        }
    }

    fn adopt(&mut self, alloc: &AllocId, claim: Claim) {
        if self.ledger.adopt(alloc, claim.clone()).is_ok() {
            return;
        }
        // A fact beats our guesses: take them back, and see which of them still hold.
        let guesses: Vec<_> = std::mem::take(&mut self.proposed)
            .into_iter()
            .filter_map(|guess| self.ledger.release(&guess).map(|claim| (guess, claim)))
            .collect();
        if self.ledger.adopt(alloc, claim.clone()).is_err() {
            self.contested.insert(alloc.clone(), claim);
        }
        for (guess, claim) in guesses {
            if self.ledger.hold(&guess, claim).is_ok() {
                self.proposed.insert(guess);
            }
        }
    }

    fn settle_contested(&mut self) {
        let ledger = &mut self.ledger;
        self.contested.retain(|alloc, claim| ledger.adopt(alloc, claim.clone()).is_err());
    }

    fn glance(&self, version: u32) -> Glance {
        let willing = |info: &Arc<NodeInfo>| !info.draining && info.impaired.is_none();
        Glance {
            summary: self.ledger.summary(),
            switches: self.ledger.switches(),
            open: self.alive && self.resting.is_none() && self.info.as_ref().is_some_and(willing),
            version,
        }
    }
}

impl Fleet {
    /// No nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a planted bug or without: see [`Canary::ForgetsDisk`](crate::node::Canary::ForgetsDisk).
    pub(crate) fn forgetting_disk(self, forgets_disk: bool) -> Self {
        Self { forgets_disk, ..self }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// One node.
    pub fn get(&self, node: &NodeId) -> Option<&Candidate> {
        self.index.get(node).map(|&index| &self.candidates[index])
    }

    /// All nodes, in no order that means anything.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Candidate> {
        self.candidates.iter()
    }

    /// Takes in what a node says of itself. A new node is not alive until [`Fleet::set_alive`] says so.
    /// Its claims stay held.
    pub fn upsert(&mut self, node: NodeId, info: Arc<NodeInfo>) {
        let index = self.place_of(node);
        self.count_classes(index, false);
        let candidate = &mut self.candidates[index];
        if candidate.info.as_ref().is_none_or(|old| old.topology != info.topology) {
            candidate.ledger.topology_changed(&info.topology);
        }
        candidate.info = Some(info);
        self.versions = self.versions.wrapping_add(1).max(1);
        self.glances[index] = candidate.glance(self.versions);
        self.count_classes(index, true);
    }

    /// Takes note of what gossip says of a node.
    pub fn set_alive(&mut self, node: NodeId, alive: bool) {
        let index = self.place_of(node);
        self.candidates[index].alive = alive;
        self.look(index);
    }

    /// Takes note that a node came back from the dead and gets no new work for this long, or does again.
    pub fn set_resting(&mut self, node: NodeId, resting: Option<Duration>) {
        let index = self.place_of(node);
        if self.candidates[index].resting != resting {
            self.candidates[index].resting = resting;
            self.look(index);
        }
    }

    /// Forgets a node and its claims.
    pub fn remove(&mut self, node: &NodeId) {
        let Some(index) = self.index.remove(node) else { return };
        self.count_classes(index, false);
        self.arrangement += 1;
        self.candidates.swap_remove(index);
        self.glances.swap_remove(index);
        if let Some(moved) = self.candidates.get(index) {
            self.index.insert(moved.id, index);
        }
    }

    /// Takes note of a row that holds a claim: a fact, whatever we proposed or believed. Where it
    /// contradicts another row it waits until that one is released. The node need not be known yet.
    /// Saying it again changes nothing and costs little.
    pub fn hold(&mut self, node: NodeId, alloc: &AllocId, claim: &Claim) {
        let index = self.place_of(node);
        let candidate = &mut self.candidates[index];
        candidate.proposed.remove(alloc);
        if candidate.ledger.claim(alloc).or_else(|| candidate.contested.get(alloc)) == Some(claim) {
            return;
        }
        candidate.contested.remove(alloc);
        let released = candidate.ledger.release(alloc).is_some();
        candidate.adopt(alloc, claim.clone());
        if released {
            candidate.settle_contested();
        }
        self.look(index);
    }

    /// Sets aside what a proposal under way asks for, so that the next one does not ask for it too.
    /// False when something else holds part of it by now: choose again. [`Fleet::hold`] makes it a
    /// fact, [`Fleet::release`] takes it back.
    pub fn propose(&mut self, node: &NodeId, alloc: &AllocId, claim: Claim) -> bool {
        let Some(&index) = self.index.get(node) else { return false };
        let candidate = &mut self.candidates[index];
        if candidate.ledger.hold(alloc, claim).is_err() {
            return false;
        }
        candidate.proposed.insert(alloc.clone());
        self.look(index);
        true
    }

    /// Takes note that an allocation holds nothing on a node: it has ended, or was not accepted.
    pub fn release(&mut self, node: &NodeId, alloc: &AllocId) {
        let Some(&index) = self.index.get(node) else { return };
        let candidate = &mut self.candidates[index];
        candidate.proposed.remove(alloc);
        candidate.contested.remove(alloc);
        if candidate.ledger.release(alloc).is_some() {
            candidate.settle_contested();
            self.look(index);
        }
    }

    pub(super) fn at(&self, index: usize) -> &Candidate {
        &self.candidates[index]
    }

    pub(super) fn glances(&self) -> &[Glance] {
        &self.glances
    }

    pub(super) fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.index.get(node).copied()
    }

    /// Differs when an index may mean another node than before.
    pub(super) fn arrangement(&self) -> u64 {
        self.arrangement
    }

    /// Bits of the classes of devices that few nodes have: one, or at most a quarter of them.
    pub(super) fn scarce_classes(&self) -> u32 {
        let few = (self.candidates.len() / 4).max(1) as u32;
        let counts = self.nodes_with_class.iter().enumerate();
        counts
            .filter(|(_, nodes)| (1..=few).contains(*nodes))
            .fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    fn place_of(&mut self, node: NodeId) -> usize {
        let next = self.candidates.len();
        let index = *self.index.entry(node).or_insert(next);
        if index == next {
            self.arrangement += 1;
            self.candidates.push(Candidate {
                id: node,
                info: None,
                alive: false,
                resting: None,
                ledger: Ledger::new(&Default::default()).forgetting_disk(self.forgets_disk),
                proposed: BTreeSet::new(),
                contested: BTreeMap::new(),
            });
            self.glances.push(Glance::default());
        }
        index
    }

    fn look(&mut self, index: usize) {
        self.glances[index] = self.candidates[index].glance(self.glances[index].version);
    }

    fn count_classes(&mut self, index: usize, add: bool) {
        let classes = self.candidates[index].ledger.device_classes();
        for (bit, count) in self.nodes_with_class.iter_mut().enumerate() {
            let one = classes >> bit & 1;
            *count = if add { *count + one } else { *count - one };
        }
    }
}
