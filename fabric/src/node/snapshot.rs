//! What a node knows at one moment, to be read beside its loop.
//!
//! An answer about two thousand slots takes some hundred times as long to build and to spell as this copy: rows are
//! shared and not copied. So whoever asks is served elsewhere, and the loop goes on.

use std::collections::VecDeque;
use std::ops::Deref;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Node, Others, Timers};
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
        let own = Supervisor::new(
            self.time.looked,
            self.info.name.clone(),
            self.supervisor.ledger().clone(),
        );
        Snapshot(Self {
            config: self.config.clone(),
            info: self.info.clone(),
            replica: self.replica.snapshot(),
            time: self.time.clone(),
            others: Others {
                membership: self.others.membership.snapshot(),
                doubt: self.others.doubt.clone(),
                flaps: self.others.flaps.clone(),
                informed: self.others.informed.clone(),
                detours: self.others.detours.clone(),
            },
            rng: ChaCha8Rng::seed_from_u64(0),
            supervisor: own,
            coordinator: self.coordinator.clone(),
            duties: Default::default(),
            preemption: self.preemption.clone(),
            quotas: self.quotas.clone(),
            requests: Default::default(),
            leases: self.leases.clone(),
            writers: Default::default(),
            levels: self.levels.clone(),
            outputs: VecDeque::new(),
            counters: self.counters,
            timers: Timers { soon: false, ..self.timers.clone() },
            standing: self.standing,
        })
    }
}

/// It is read in another thread.
const _: fn() = || {
    fn can_go<T: Send>() {}
    can_go::<Snapshot>();
};
