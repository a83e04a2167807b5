//! Who looks after which job: remembered, and brought up to date when somebody comes or goes, so that no job
//! is compared with every member again and again.

use std::collections::BTreeMap;

use crate::id::{JobName, NodeId};
use crate::limits;

use super::{Node, Others, Replica};

/// For each job that was asked about, this node if nobody suits it better, or somebody who does: not always who
/// suits it best, for a node only has to know whether it is the one, and most find somebody better at once.
/// Invariant: it is this node exactly when [`Node::coordinator_of`] says so, once [`Replica::refresh_coordinator`]
/// was told of every change.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinators {
    by_job: BTreeMap<JobName, Weight>,
}

/// How well a member suits a job; the greatest wins.
type Weight = (u64, NodeId);

fn weight(node: NodeId, job: &JobName) -> Weight {
    let (name, mut bytes) = (job.as_str().as_bytes(), [0; 32 + limits::JOB_NAME_BYTES_MAX]);
    bytes[..32].copy_from_slice(&node.0);
    bytes[32..32 + name.len()].copy_from_slice(name);
    (xxhash_rust::xxh3::xxh3_64(&bytes[..32 + name.len()]), node)
}

impl Node {
    /// Who looks after a job: the highest random weight among the members that are up (Thaler and
    /// Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998), so that it moves only
    /// when that member goes or a better one comes.
    pub(in crate::node) fn coordinator_of(&self, job: &JobName) -> NodeId {
        let (replica, me) = (&self.replica, weight(self.config.id, job));
        match replica.coordinators.by_job.get(job) {
            Some((_, node)) if *node == me.1 => me.1,
            _ => {
                let others = self.others.membership.others();
                others.fold(me, |best, node| replica.better(node, job, best)).1
            }
        }
    }

    /// Whether this node looks after a job; remembered.
    pub(in crate::node) fn is_coordinator_of(&mut self, job: &JobName) -> bool {
        let (replica, me) = (&mut self.replica, weight(self.config.id, job));
        if let Some((_, node)) = replica.coordinators.by_job.get(job) {
            return *node == me.1;
        }
        let is_better = |node| replica.better(node, job, me) != me;
        let found = self.others.membership.find_other(is_better);
        let best = found.map_or(me, |node| weight(node, job));
        replica.coordinators.by_job.insert(job.clone(), best);
        best == me
    }
}

impl Replica {
    /// The weight of `node` if it is greater than `than` and the roster has it; `than` otherwise.
    fn better(&self, node: NodeId, job: &JobName, than: Weight) -> Weight {
        let candidate = weight(node, job);
        // A weight costs less than a look into the table.
        if candidate > than && self.table.is_member(&node) { candidate } else { than }
    }

    /// Whether this node looks after a job, or has not found out yet.
    pub fn may_coordinate(&self, job: &JobName) -> bool {
        self.coordinators.by_job.get(job).is_none_or(|(_, node)| *node == self.me)
    }

    /// `node` came or went.
    pub(super) fn refresh_coordinator(&mut self, node: NodeId, others: &Others) {
        if node == self.me {
            return;
        }
        if !self.is_up(&node, others) {
            self.coordinators.by_job.retain(|_, (_, appointed)| *appointed != node);
            return;
        }
        for (job, appointed) in &mut self.coordinators.by_job {
            let candidate = weight(node, job);
            if candidate > *appointed {
                if appointed.1 == self.me {
                    self.jobs.insert(job.clone());
                }
                *appointed = candidate;
            }
        }
    }

    /// A job is gone: who looked after it need not be remembered.
    pub fn forget_coordinator(&mut self, job: &JobName) {
        self.coordinators.by_job.remove(job);
    }
}
