//! Who looks after which job: remembered, and brought up to date when somebody comes or goes, so that no job
//! is compared with every member again and again.

use std::collections::BTreeMap;

use crate::id::{JobName, NodeId};
use crate::limits;

use super::Node;

/// The member with the greatest weight for each job that was asked about. Invariant: what is remembered
/// here is what [`Node::coordinator_of`] says, once [`Node::reappoint`] was told of every change.
#[derive(Debug, Default)]
pub(super) struct Appointments {
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
        match self.appointments.by_job.get(job) {
            Some((_, node)) => *node,
            None => self.best_for(job).1,
        }
    }

    fn best_for(&self, job: &JobName) -> Weight {
        let me = weight(self.config.id, job);
        // A weight costs less than a look into the table, and few are better than all before them.
        self.membership.others().fold(me, |best, node| {
            let candidate = weight(node, job);
            if candidate > best && self.table.is_member(&node) { candidate } else { best }
        })
    }

    /// Whether this node looks after a job; remembered.
    pub(super) fn is_coordinator_of(&mut self, job: &JobName) -> bool {
        if let Some((_, node)) = self.appointments.by_job.get(job) {
            return *node == self.config.id;
        }
        let best = self.best_for(job);
        self.appointments.by_job.insert(job.clone(), best);
        best.1 == self.config.id
    }

    /// Whether this node looks after a job, or has not found out yet.
    pub(super) fn may_coordinate(&self, job: &JobName) -> bool {
        self.appointments.by_job.get(job).is_none_or(|(_, node)| *node == self.config.id)
    }

    /// `node` came or went.
    pub(super) fn reappoint(&mut self, node: NodeId) {
        let me = self.config.id;
        if node == me {
            return;
        }
        if !self.is_up(&node) {
            self.appointments.by_job.retain(|_, (_, appointed)| *appointed != node);
            return;
        }
        for (job, appointed) in &mut self.appointments.by_job {
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
    pub(super) fn dismiss(&mut self, job: &JobName) {
        self.appointments.by_job.remove(job);
    }
}
