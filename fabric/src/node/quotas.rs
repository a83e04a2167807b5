//! What namespaces may have: kept in step with the table, asked at every claim, and enforced by each node on its
//! own allocations.

use std::collections::BTreeMap;

use crate::alloc::{AllocRow, Ending};
use crate::api::{Problem, ProblemKind, QuotaView};
use crate::claim::Claim;
use crate::clock::{Instant, Now};
use crate::id::{AllocId, JobName, Namespace, NodeId, SlotId};
use crate::io::Answer;
use crate::job::{JobKind, JobSpec};
use crate::limits;
use crate::quota::{Accounts, Amount, Quota, Surplus};
use crate::resources::Rejection;
use crate::table::{Key, SharedEntry, Value};

use super::{Node, copies};

/// What a node keeps of quotas.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotas {
    /// Since when a namespace has more than it may.
    over: BTreeMap<Namespace, Instant>,
    /// System jobs that are to start here, and since when their namespaces have room for them.
    turns: BTreeMap<JobName, Instant>,
}

/// What would be left of a quota after slots that are not placed yet.
pub(super) struct Prospect<'n> {
    accounts: Accounts,
    node: &'n Node,
    spec: &'n JobSpec,
}

impl Prospect<'_> {
    /// Counts one more slot on `node`, if the namespace may have it.
    pub fn take(&mut self, slot: &SlotId, claim: &Claim, node: NodeId) -> Result<(), Rejection> {
        let topology = self.node.replica.node(&node).map(|info| &info.topology);
        let amount = Amount::of(claim, topology);
        let others: Vec<NodeId> =
            self.node.replica.allocs_in(slot).map(|(_, node, ..)| node).collect();
        let namespace = &self.spec.namespace;
        let checked = self.accounts.check(namespace, slot, &others, &amount, true);
        checked.map_err(|excess| Rejection::Quota { namespace: namespace.clone(), excess })?;
        let alloc = AllocId::first(slot.clone(), u64::MAX);
        self.accounts.promise(&alloc, amount);
        Ok(())
    }
}

impl Node {
    /// Whether the namespace of `spec` may have `claim` on `node` for `slot`. Coordinator and target both ask
    /// this; the coordinator counts what it has `promised` to others too.
    pub(super) fn check_quota(
        &self,
        spec: &JobSpec,
        slot: &SlotId,
        node: NodeId,
        claim: &Claim,
        promised: bool,
    ) -> Result<(), Rejection> {
        if self.replica.accounts().get(&spec.namespace).is_none() {
            return Ok(());
        }
        let topology = self.replica.node(&node).map(|info| &info.topology);
        self.check_amount(spec, slot, &Amount::of(claim, topology), promised)
    }

    /// The same before a node is chosen: by the least that one slot takes.
    pub(super) fn check_quota_anywhere(
        &self,
        spec: &JobSpec,
        slot: &SlotId,
    ) -> Result<(), Rejection> {
        if self.replica.accounts().get(&spec.namespace).is_none() {
            return Ok(());
        }
        self.check_amount(spec, slot, &Amount::least_of_one(spec), true)
    }

    fn check_amount(
        &self,
        spec: &JobSpec,
        slot: &SlotId,
        amount: &Amount,
        promised: bool,
    ) -> Result<(), Rejection> {
        let others: Vec<NodeId> = match spec.kind {
            JobKind::Service => self.replica.allocs_in(slot).map(|(_, node, ..)| node).collect(),
            JobKind::System => Vec::new(),
        };
        let accounts = &self.replica.accounts();
        accounts
            .check(&spec.namespace, slot, &others, amount, promised)
            .map_err(|excess| Rejection::Quota { namespace: spec.namespace.clone(), excess })
    }

    /// Whether a system job that is to start here may do so now. Every node that it runs on decides for itself; if
    /// all of them took a share of the quota as soon as it is free, they would be too many until
    /// [`limits::QUOTA_GRACE`] is over. So they take it in turn: who tried the fewest times first, and as many at a
    /// time as there is room for.
    pub(super) fn is_its_turn(&mut self, now: Now, slot: &SlotId, spec: &JobSpec) -> bool {
        let least = Amount::least_of_one(spec);
        let Some(room) = self.replica.accounts().room(&spec.namespace, &least) else { return true };
        if room == 0 {
            self.quotas.turns.remove(&slot.job);
            return false;
        }
        let since = *self.quotas.turns.entry(slot.job.clone()).or_insert(now.at);
        let me = self.config.id;
        let order = |node: NodeId, row: Option<&AllocRow>| {
            let tries = row.map_or(0, |row| row.epoch);
            (tries, copies::rank(slot, 0, node).1)
        };
        let mine = order(me, self.replica.alloc(slot, &me));
        let avoided = self.avoided(now, slot);
        let waits_before = |node: &NodeId| {
            let row = self.replica.alloc(slot, node);
            *node != me
                && row.is_none_or(|row| !row.phase.holds_claim())
                && order(*node, row) < mine
                && !avoided.iter().any(|(avoided, _)| avoided == node)
        };
        let before = self.nodes_for(spec).filter(waits_before).count() as u64;
        let turns = u32::try_from(before / room).unwrap_or(u32::MAX);
        now.at.since(since) >= limits::QUOTA_TURN.saturating_mul(turns)
    }

    /// Only these jobs are to start here.
    pub(super) fn keep_turns(&mut self, due: &[(JobName, SharedEntry)]) {
        self.quotas.turns.retain(|job, _| due.iter().any(|(name, _)| name == job));
    }

    /// Whether all of `spec` can ever be within its namespace's quota.
    pub(super) fn check_whole_job(&self, spec: &JobSpec) -> Result<(), Problem> {
        let Some(quota) = self.replica.quota(&spec.namespace) else { return Ok(()) };
        quota.check(&Amount::least(spec)).map_err(|excess| {
            Problem::new(
                ProblemKind::Conflict,
                format!("the quota of namespace {} can never meet it", spec.namespace),
                format!(
                    "the job takes {excess} that the namespace may have: make it smaller, or the quota larger with `weft quota set`"
                ),
            )
        })
    }

    /// Why the namespace of `spec` may not have one more slot of it; `None`: it may.
    pub(super) fn quota_refusal(&self, spec: &JobSpec) -> Option<Rejection> {
        let slot = SlotId { job: spec.name.clone(), index: u32::MAX };
        self.check_quota_anywhere(spec, &slot).err()
    }

    /// The accounts as they would be while `spec` is placed; `None`: its namespace has no quota.
    pub(super) fn prospect<'n>(&'n self, spec: &'n JobSpec) -> Option<Prospect<'n>> {
        self.replica.accounts().get(&spec.namespace)?;
        let mut accounts = self.replica.accounts().clone();
        accounts.enter(&spec.name, &spec.namespace);
        Some(Prospect { accounts, node: self, spec })
    }

    /// Opens every account, after the table came from elsewhere than through the doors.
    pub(super) fn open_accounts(&mut self) {
        self.quotas = Quotas::default();
        self.replica.open_accounts(&self.others);
    }

    /// Ends this node's part of what is beyond a quota, once it has been so for a while.
    pub(super) fn keep_quotas(&mut self, now: Now) {
        if self.replica.accounts().is_empty() {
            self.quotas.over.clear();
            return;
        }
        let exceeded: Vec<Namespace> = self.replica.accounts().exceeded().cloned().collect();
        self.quotas.over.retain(|namespace, _| exceeded.contains(namespace));
        for namespace in exceeded {
            let since = *self.quotas.over.entry(namespace.clone()).or_insert(now.at);
            if now.at.since(since) < limits::QUOTA_GRACE {
                continue;
            }
            let Some((quota, _)) = self.replica.accounts().get(&namespace) else { continue };
            let quota = quota.clone();
            for surplus in self.surplus(&namespace, &quota) {
                if surplus.node == self.config.id {
                    let reason = format!("namespace {namespace} has more than its quota");
                    let slot = &surplus.alloc.slot;
                    tracing::debug!(alloc = %surplus.alloc, %reason, "ending an allocation");
                    self.supervisor.retire(now, slot, Ending::Retired { reason });
                }
            }
            // Those that go first may have been another's; whoever is left over gets another while.
            self.quotas.over.insert(namespace, now.at);
        }
    }

    fn surplus(&self, namespace: &Namespace, quota: &Quota) -> Vec<Surplus> {
        self.replica.accounts().surplus(namespace, quota, |job| {
            let (spec, ..) = self.replica.job(job)?.effective();
            Some((spec.kind, spec.priority))
        })
    }

    pub(super) fn set_quota(
        &mut self,
        now: Now,
        namespace: Namespace,
        quota: Quota,
        force: bool,
    ) -> Result<Answer, Problem> {
        if let Err(reason) = quota.validate() {
            return Err(Problem::new(ProblemKind::Invalid, "the quota is not valid", reason));
        }
        let stopped = self.would_stop(&namespace, &quota);
        if !force && let [first, ..] = &stopped[..] {
            let shown: Vec<String> =
                stopped.iter().take(10).map(|surplus| surplus.alloc.slot.to_string()).collect();
            let more = stopped.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("namespace {namespace} has more than that"),
                format!(
                    "it would stop {}{more}, and first of all {} on {}: free some of it, or repeat with --force",
                    shown.join(", "),
                    first.alloc.slot,
                    self.name_of(&first.node),
                ),
            ));
        }
        self.write_wish(now, Key::Quota(namespace), Value::Quota(quota)).map(|()| Answer::Done)
    }

    /// What would have to go under `quota`.
    fn would_stop(&self, namespace: &Namespace, quota: &Quota) -> Vec<Surplus> {
        let job = |job: &JobName| {
            let (spec, ..) = self.replica.job(job)?.effective();
            Some((spec.kind, spec.priority))
        };
        if self.replica.accounts().get(namespace).is_some() {
            return self.replica.accounts().surplus(namespace, quota, job);
        }
        // No account is kept of a namespace without a quota: this one is opened for the question.
        let mut accounts = Accounts::default();
        accounts.open(namespace, quota.clone());
        for (name, entry, _) in self.replica.jobs() {
            if entry.effective().0.namespace == *namespace && accounts.enter(name, namespace) {
                for (slot, node, row, _) in self.replica.allocs_of(name) {
                    let topology = self.replica.node(&node).map(|info| &info.topology);
                    let is_up = node == self.config.id || self.is_up(&node);
                    accounts.put(slot, node, row, Amount::of(&row.claim, topology), is_up);
                }
            }
        }
        accounts.surplus(namespace, quota, job)
    }

    pub(super) fn remove_quota(
        &mut self,
        now: Now,
        namespace: Namespace,
    ) -> Result<Answer, Problem> {
        if self.replica.quota(&namespace).is_none() {
            return Err(Problem::new(
                ProblemKind::NotFound,
                format!("namespace {namespace} has no quota"),
                "`weft quota list` shows those that have one",
            ));
        }
        let gone = Value::Tombstone { rank: 0 };
        self.write_wish(now, Key::Quota(namespace), gone).map(|()| Answer::Done)
    }

    /// Every quota and what is used of it, by namespace.
    pub fn quotas(&self) -> Vec<QuotaView> {
        let accounts = self.replica.accounts().iter();
        accounts
            .map(|(namespace, quota, used)| QuotaView {
                namespace: namespace.clone(),
                quota: quota.clone(),
                used: used.clone(),
            })
            .collect()
    }
}
