//! What the namespaces with a quota have: counted from the rows of the table, and from what is promised.

use crate::alloc::AllocRow;
use crate::claim::Claim;
use crate::id::{AllocId, JobName, Namespace, NodeId, SlotId};
use crate::quota::{Accounts, Amount};
use crate::topology::Topology;

use super::{Others, Replica};

impl Replica {
    /// Sets aside what a proposal asks for.
    pub fn promise(&mut self, alloc: &AllocId, node: NodeId, claim: &Claim) {
        if !self.accounts.is_empty() {
            let topology = self.table.node(&node).map(|info| &info.topology);
            self.accounts.promise(alloc, Amount::of(claim, topology));
        }
    }

    /// A proposal came to nothing.
    pub fn forget_promise(&mut self, alloc: &AllocId) {
        self.accounts.forget(alloc);
    }

    /// A quota was set, changed or removed.
    pub(super) fn account_for_quota(&mut self, namespace: &Namespace, others: &Others) {
        self.all_jobs = true;
        let Some(quota) = self.table.quota(namespace).cloned() else {
            self.accounts.close(namespace);
            return;
        };
        if self.accounts.open(namespace, quota) {
            let jobs: Vec<JobName> = self
                .table
                .jobs()
                .filter(|(_, job, _)| job.effective().0.namespace == *namespace)
                .map(|(name, ..)| name.clone())
                .collect();
            for job in jobs {
                self.account_for_job(&job, others);
            }
        }
    }

    /// A job changed: it may be in another namespace now. The rows of a stopped one stay where they were.
    pub(super) fn account_for_job(&mut self, name: &JobName, others: &Others) {
        if self.accounts.is_empty() {
            return;
        }
        let Some(job) = self.table.job(name) else { return };
        let namespace = job.effective().0.namespace.clone();
        if self.accounts.enter(name, &namespace) {
            let rows: Vec<(SlotId, NodeId)> =
                self.table.allocs_of(name).map(|(slot, node, ..)| (slot.clone(), node)).collect();
            for (slot, node) in rows {
                self.account_for(&slot, node, others);
            }
        }
    }

    /// An allocation's row changed.
    pub(super) fn account_for(&mut self, slot: &SlotId, node: NodeId, others: &Others) {
        if self.accounts.is_empty() {
            return;
        }
        let Some(row) = self.table.alloc(slot, &node) else {
            return self.accounts.take(slot, node);
        };
        let topology = self.table.node(&node).map(|info| &info.topology);
        let amount = Amount::of(&row.claim, topology);
        let is_up = node == self.me || self.is_up(&node, others);
        self.accounts.put(slot, node, row, amount, is_up);
    }

    /// This node claimed something for `slot`. The row is written when the supervisor's wishes are carried out; what
    /// asks before that has to see the claim too.
    pub fn account_for_claim(&mut self, slot: &SlotId, row: &AllocRow, topology: &Topology) {
        if !self.accounts.is_empty() {
            let amount = Amount::of(&row.claim, Some(topology));
            self.accounts.put(slot, self.me, row, amount, true);
        }
    }

    /// A node came, went, or says something new of its devices.
    pub(super) fn account_for_node(&mut self, node: NodeId, others: &Others) {
        if self.accounts.is_empty() {
            return;
        }
        if self.table.is_removed(&node) {
            return self.accounts.remove_node(node);
        }
        for slot in self.accounts.slots_on(node) {
            self.account_for(&slot, node, others);
        }
    }

    /// Opens every account anew.
    pub fn open_accounts(&mut self, others: &Others) {
        self.accounts = Accounts::default();
        let namespaces: Vec<Namespace> =
            self.table.quotas().map(|(name, _)| name.clone()).collect();
        for namespace in namespaces {
            self.account_for_quota(&namespace, others);
        }
    }
}
