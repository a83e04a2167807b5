//! Why versions of jobs failed, for who asks after the fact. The row of an allocation that failed is overwritten by the one that
//! comes after it on its node, and a version that was reverted leaves no rows at all. So each node notes, in memory, what it
//! has seen go wrong with the version that was submitted last.

use super::Node;
use crate::alloc::{AllocRow, Ending};
use crate::api;
use crate::clock::WallTime;
use crate::id::{AllocId, JobName, NodeId};
use crate::limits;
use crate::table::{JobEntry, Key};
use std::collections::BTreeMap;

/// What went wrong last with the version of each job that was submitted last.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<JobName, Failure>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    version: u64,
    alloc: AllocId,
    node: NodeId,
    reason: String,
    /// When its row said so.
    at: WallTime,
    /// It ended, and is not only unwell.
    is_end: bool,
}

impl Failures {
    fn note(&mut self, job: &JobName, failure: Failure) {
        if let Some(known) = self.0.get(job)
            && (known.version, known.is_end) > (failure.version, failure.is_end)
        {
            return;
        }
        if self.0.len() >= limits::REMEMBERED_FAILURES_MAX && !self.0.contains_key(job) {
            self.0.pop_first();
        }
        self.0.insert(job.clone(), failure);
    }

    fn of(&self, job: &JobEntry) -> Option<&Failure> {
        self.0.get(&job.spec.name).filter(|failure| failure.version == job.version)
    }
}

impl Node {
    /// A row has come: notes what it says is wrong with a version that may be reverted.
    pub(super) fn note_failure(&mut self, alloc: &AllocId, node: NodeId, row: &AllocRow) {
        let (reason, is_end) = match (&row.ending, &row.trouble) {
            (Some(Ending::Failed { reason }), _) => (reason, true),
            (None, Some(trouble)) => (trouble, false),
            _ => return,
        };
        let name = &alloc.slot.job;
        let Some(job) = self.table.job(name) else { return };
        if job.previous.is_some() && row.version == job.version {
            let (version, reason) = (job.version, reason.clone());
            let entry = self.table.entry(&Key::Alloc(alloc.slot.clone(), node));
            let at = entry.map_or(WallTime(0), |entry| entry.stamp.wall());
            let failure = Failure { version, alloc: alloc.clone(), node, reason, at, is_end };
            self.coordinator.failures.note(name, failure);
        }
    }

    /// The job is no more, or another version was submitted.
    pub(super) fn forget_failure(&mut self, name: &JobName) {
        let job = self.table.job(name);
        if job.is_none_or(|job| self.coordinator.failures.of(job).is_none()) {
            self.coordinator.failures.0.remove(name);
        }
    }

    /// What went wrong with the version that was submitted last, in words: `web/0 on two: exit status 1`.
    pub(super) fn failure_of(&self, job: &JobEntry) -> Option<String> {
        let failure = self.coordinator.failures.of(job)?;
        let (slot, node) = (&failure.alloc.slot, self.name_of(&failure.node));
        Some(format!("{slot} on {node}: {}", failure.reason))
    }

    /// When that was.
    pub(super) fn failed_at(&self, job: &JobEntry) -> Option<WallTime> {
        self.coordinator.failures.of(job).map(|failure| failure.at)
    }

    /// The allocation that tells why a job's last version was reverted.
    pub(super) fn failed_version(&self, job: &JobEntry) -> Option<api::FailedVersion> {
        let failure = self.coordinator.failures.of(job).filter(|_| job.reverted)?;
        Some(api::FailedVersion {
            version: failure.version,
            alloc: failure.alloc.clone(),
            node: failure.node,
            node_name: self.name_of(&failure.node),
            reason: failure.reason.clone(),
        })
    }
}
