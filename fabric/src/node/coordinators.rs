//! Who looks after which job: remembered, and brought up to date when somebody comes or goes, so that no job
//! is compared with every member again and again.

use std::collections::BTreeMap;

use crate::id::{JobName, NodeId};
use crate::limits;

use super::Node;

/// For each job that was asked about, this node if nobody suits it better, or somebody who does: not always who
/// suits it best, for a node only has to know whether it is the one, and most find somebody better at once.
/// Invariant: it is this node exactly when [`Node::coordinator_of`] says so, once [`Node::refresh_coordinator`] was told of
/// every change.
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
    pub(super) fn coordinator_of(&self, job: &JobName) -> NodeId {
        let me = weight(self.config.id, job);
        match self.coordinators.by_job.get(job) {
            Some((_, node)) if *node == me.1 => me.1,
            _ => self.membership.others().fold(me, |best, node| self.better(node, job, best)).1,
        }
    }

    /// The weight of `node` if it is greater than `than` and the roster has it; `than` otherwise.
    fn better(&self, node: NodeId, job: &JobName, than: Weight) -> Weight {
        let candidate = weight(node, job);
        // A weight costs less than a look into the table.
        if candidate > than && self.table.is_member(&node) { candidate } else { than }
    }

    /// Whether this node looks after a job; remembered.
    pub(super) fn is_coordinator_of(&mut self, job: &JobName) -> bool {
        let me = weight(self.config.id, job);
        if let Some((_, node)) = self.coordinators.by_job.get(job) {
            return *node == me.1;
        }
        let found = self.membership.find_other(|node| self.better(node, job, me) != me);
        let best = found.map_or(me, |node| weight(node, job));
        self.coordinators.by_job.insert(job.clone(), best);
        best == me
    }

    /// Whether this node looks after a job, or has not found out yet.
    pub(super) fn may_coordinate(&self, job: &JobName) -> bool {
        self.coordinators.by_job.get(job).is_none_or(|(_, node)| *node == self.config.id)
    }

    /// `node` came or went.
    pub(super) fn refresh_coordinator(&mut self, node: NodeId) {
        let me = self.config.id;
        if node == me {
            return;
        }
        if !self.is_up(&node) {
            self.coordinators.by_job.retain(|_, (_, appointed)| *appointed != node);
            return;
        }
        for (job, appointed) in &mut self.coordinators.by_job {
            let candidate = weight(node, job);
            if candidate > *appointed {
                if appointed.1 == me {
                    self.coordinator.dirty.insert(job.clone());
                }
                *appointed = candidate;
            }
        }
    }

    /// A job is gone: who looked after it need not be remembered.
    pub(super) fn forget_coordinator(&mut self, job: &JobName) {
        self.coordinators.by_job.remove(job);
    }
}
