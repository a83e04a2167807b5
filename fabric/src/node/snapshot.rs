//! What a node knows at one moment, to be read beside its loop.
//!
//! An answer about two thousand slots takes some hundred times as long to build and to spell as this copy: rows are
//! shared and not copied. So whoever asks is served elsewhere, and the loop goes on.

use std::collections::VecDeque;
use std::ops::Deref;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Node;
use crate::supervisor::Supervisor;

/// A node as it was, which only answers: nothing can be told to it. Of what it does itself (its own allocations' units, what
/// it sends and writes) it knows nothing; its rows say what there is to be said of that.
pub struct Snapshot(Node);

impl Deref for Snapshot {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl Node {
    /// What it knows now.
    pub fn snapshot(&self) -> Snapshot {
        let own =
            Supervisor::new(self.looked, self.info.name.clone(), self.supervisor.ledger().clone());
        Snapshot(Self {
            config: self.config.clone(),
            info: self.info.clone(),
            clock: self.clock,
            timekeeper: self.timekeeper.clone(),
            own_wall: self.own_wall,
            looked: self.looked,
            rng: ChaCha8Rng::seed_from_u64(0),
            table: self.table.clone(),
            membership: self.membership.snapshot(),
            gossip: Default::default(),
            fleet: self.fleet.clone(),
            fleet_cache: self.fleet_cache.clone(),
            supervisor: own,
            coordinator: self.coordinator.clone(),
            coordinators: self.coordinators.clone(),
            doubt: self.doubt.clone(),
            flaps: self.flaps.clone(),
            informed: self.informed.clone(),
            duties: Default::default(),
            gangs: self.gangs.clone(),
            preemption: self.preemption.clone(),
            quotas: self.quotas.clone(),
            requests: Default::default(),
            leases: self.leases.clone(),
            detours: self.detours.clone(),
            writers: Default::default(),
            purged: self.purged.clone(),
            levels: self.levels.clone(),
            disk: Default::default(),
            outputs: VecDeque::new(),
            counters: self.counters,
            timers: self.timers.clone(),
            synced: self.synced,
            repairing: self.repairing,
            superseded: self.superseded,
            dirty: false,
        })
    }
}

/// It is read in another thread.
const _: fn() = || {
    fn can_go<T: Send>() {}
    can_go::<Snapshot>();
};
