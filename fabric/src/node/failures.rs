//! Why versions of jobs failed, for who asks after the fact. The row of an allocation that failed is overwritten by the one that
//! comes after it on its node, and a version that was reverted leaves no rows at all. Where it had no place, the fleet may be
//! another one a minute later. So each node notes, in memory, what it has seen go wrong with the version that was submitted
//! last, and if that was nothing, why the version fitted nowhere in the moment in which it was taken back.

use super::Node;
use crate::alloc::{AllocRow, Ending};
use crate::api;
use crate::clock::WallTime;
use crate::id::{AllocId, JobName, NodeId};
use crate::limits;
use crate::table::{JobEntry, Key, Value};
use std::collections::BTreeMap;

/// What went wrong last with the version of each job that was submitted last.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(BTreeMap<JobName, Failure>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    version: u64,
    cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    Allocation {
        alloc: AllocId,
        node: NodeId,
        reason: String,
        /// When its row said so.
        at: WallTime,
        /// It ended, and is not only unwell.
        is_end: bool,
    },
    /// In words, after `it fits nowhere`.
    NoPlace(String),
}

impl Failure {
    /// What is known better goes before what is known less well.
    fn rank(&self) -> (u64, u8) {
        let rank = match &self.cause {
            Cause::Allocation { is_end: false, .. } => 0,
            Cause::NoPlace(_) => 1,
            Cause::Allocation { is_end: true, .. } => 2,
        };
        (self.version, rank)
    }
}

impl Failures {
    fn note(&mut self, job: &JobName, failure: Failure) {
        if self.0.get(job).is_some_and(|known| known.rank() > failure.rank()) {
            return;
        }
        if self.0.len() >= limits::REMEMBERED_FAILURES_MAX && !self.0.contains_key(job) {
            self.0.pop_first();
        }
        self.0.insert(job.clone(), failure);
    }

    /// An allocation is well again: what was wrong with it is nothing that a version fails for.
    fn recover(&mut self, of: &AllocId) {
        let known = self.0.get(&of.slot.job).map(|failure| &failure.cause);
        if let Some(Cause::Allocation { alloc, is_end: false, .. }) = known
            && alloc == of
        {
            self.0.remove(&of.slot.job);
        }
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
            (None, _) if row.healthy => return self.coordinator.failures.recover(alloc),
            (None, Some(trouble)) => (trouble, false),
            _ => return,
        };
        let name = &alloc.slot.job;
        let Some(job) = self.replica.job(name) else { return };
        if job.previous.is_some() && row.version == job.version {
            let (version, reason) = (job.version, reason.clone());
            let entry = self.replica.entry(&Key::Alloc(alloc.slot.clone(), node));
            let at = entry.map_or(WallTime(0), |entry| entry.stamp.wall());
            let cause = Cause::Allocation { alloc: alloc.clone(), node, reason, at, is_end };
            self.coordinator.failures.note(name, Failure { version, cause });
        }
    }

    /// A version was taken back just now: notes why it fitted nowhere, if nothing else is known against it. `before`: what
    /// the table said of the job until then.
    pub(super) fn note_revert(&mut self, name: &JobName, before: Option<&Value>) {
        let was = |job: &JobEntry| match before {
            Some(Value::Job(before)) => before.version == job.version && !before.reverted,
            _ => false,
        };
        let Some(job) = self.replica.job(name).filter(|job| job.reverted && was(job)) else {
            return;
        };
        if self.coordinator.failures.of(job).is_some() {
            return;
        }
        let hash = job.spec.hash(job.generation);
        if let Some(why) = self.why_nowhere(&job.spec, hash) {
            let failure = Failure { version: job.version, cause: Cause::NoPlace(why) };
            self.coordinator.failures.note(name, failure);
        }
    }

    /// The job is no more, or another version was submitted.
    pub(super) fn forget_failure(&mut self, name: &JobName) {
        let job = self.replica.job(name);
        if job.is_none_or(|job| self.coordinator.failures.of(job).is_none()) {
            self.coordinator.failures.0.remove(name);
        }
    }

    /// What went wrong with the version that was submitted last, in words: `web/0 on two: exit status 1`.
    pub(super) fn failure_of(&self, job: &JobEntry) -> Option<String> {
        Some(match &self.coordinator.failures.of(job)?.cause {
            Cause::Allocation { alloc, node, reason, .. } => {
                format!("{} on {}: {reason}", alloc.slot, self.name_of(node))
            }
            Cause::NoPlace(why) => format!("it fits nowhere{why}"),
        })
    }

    /// When that was, where an allocation said so.
    pub(super) fn failed_at(&self, job: &JobEntry) -> Option<WallTime> {
        match &self.coordinator.failures.of(job)?.cause {
            Cause::Allocation { at, .. } => Some(*at),
            Cause::NoPlace(_) => None,
        }
    }

    /// The allocation that tells why a job's last version was reverted.
    pub(super) fn failed_version(&self, job: &JobEntry) -> Option<api::FailedVersion> {
        let failure = self.coordinator.failures.of(job).filter(|_| job.reverted)?;
        let Cause::Allocation { alloc, node, reason, .. } = &failure.cause else { return None };
        Some(api::FailedVersion {
            version: failure.version,
            alloc: alloc.clone(),
            node: *node,
            node_name: self.name_of(node),
            reason: reason.clone(),
        })
    }
}
