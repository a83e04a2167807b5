//! What a namespace may have, and what it has: kept in step row by row, never by a walk over the table.
//!
//! # Rules
//!
//! - A quota is a ceiling over the claims of all jobs of a namespace on nodes that are up, stopping ones
//!   included. CPU counts in thousandths of a logical CPU: a shared claim what it asks for, an exclusive one
//!   every hardware thread that it holds.
//! - A second claim of one slot is a move, or a copy from the other side of a split: a claim is admitted as if
//!   the slot's others were gone already, and of the live claims of one slot only the one with the highest epoch
//!   counts against what may be kept.
//! - [`Accounts::surplus`] is what has to go when a namespace has more than it may: claims are kept by priority,
//!   the higher first, then by epoch, the older first, then by slot and node, each that still fits beside those
//!   kept before it. Equal views give equal answers, and each node ends only its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::alloc::AllocRow;
use crate::claim::Claim;
use crate::id::{AllocId, Birth, JobName, Namespace, NodeId, SlotId};
use crate::job::{CpuRequest, JobKind, JobSpec};
use crate::level::evolving;
use crate::limits;
use crate::resources::{self, Excess};
use crate::topology::Topology;

/// The value of `quota/<namespace>`: what is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Quota {
    /// Thousandths of a logical CPU.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Devices by class: `gpu`. A class that is absent is not limited.
    pub devices: BTreeMap<String, u32>,
    /// Allocations.
    pub allocs: Option<u32>,
    /// Bytes of disk.
    pub disk: Option<u64>,
}

evolving!(Quota { cpu_millis, memory, devices, allocs } 3 { disk });

/// What claims add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Thousandths of a logical CPU.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory: u64,
    /// Devices by class. No class has 0.
    pub devices: BTreeMap<String, u32>,
    /// Allocations.
    pub allocs: u32,
    /// Bytes of disk.
    #[serde(default)]
    pub disk: u64,
}

impl Quota {
    /// Whether `amount` is within the quota; the first limit that it exceeds otherwise.
    pub fn check(&self, amount: &Amount) -> Result<(), Excess> {
        let cpus = |millis: u64| format!("{}", millis as f64 / 1000.0);
        let number = |number: u32| number.to_string();
        let excess = |what: &str, wanted, limit| Err(Excess { what: what.into(), wanted, limit });
        match self {
            Quota { cpu_millis: Some(most), .. } if amount.cpu_millis > *most => {
                return excess("CPUs", cpus(amount.cpu_millis), cpus(*most));
            }
            Quota { memory: Some(most), .. } if amount.memory > *most => {
                let bytes = resources::bytes;
                return excess("memory", bytes(amount.memory), bytes(*most));
            }
            Quota { disk: Some(most), .. } if amount.disk > *most => {
                let bytes = resources::bytes;
                return excess("disk", bytes(amount.disk), bytes(*most));
            }
            Quota { allocs: Some(most), .. } if amount.allocs > *most => {
                return excess("allocations", number(amount.allocs), number(*most));
            }
            _ => {}
        }
        for (class, most) in &self.devices {
            let wanted = amount.devices.get(class).copied().unwrap_or(0);
            if wanted > *most {
                return excess(class, number(wanted), number(*most));
            }
        }
        Ok(())
    }

    /// Whether a quota may be in the table: it says something, and no more than it may.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn validate(&self) -> Result<(), String> {
        if *self == Quota::default() {
            return Err(
                "it limits nothing: give cores, memory, disk, devices or allocations, or remove it"
                    .into(),
            );
        }
        if self.devices.len() > limits::JOB_LIST_MAX {
            return Err(format!(
                "{} classes of devices, {} are allowed",
                self.devices.len(),
                limits::JOB_LIST_MAX
            ));
        }
        let fine = |class: &String| {
            (1..=64).contains(&class.len())
                && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match self.devices.keys().find(|class| !fine(class)) {
            Some(class) => Err(format!(
                "{:?} is not a class of devices: they are called gpu, tty, usb and so on",
                class.chars().take(80).collect::<String>()
            )),
            None => Ok(()),
        }
    }
}

impl Amount {
    /// What `claim` takes on a node that has `topology`.
    pub fn of(claim: &Claim, topology: Option<&Topology>) -> Self {
        let mut devices = BTreeMap::new();
        for path in &claim.devices {
            let known = topology.and_then(|t| t.devices.iter().find(|device| device.path == *path));
            if let Some(device) = known {
                *devices.entry(device.class.clone()).or_default() += 1;
            }
        }
        Self {
            cpu_millis: claim.cpus.len() as u64 * 1000 + u64::from(claim.shared_millis),
            memory: claim.memory,
            devices,
            allocs: 1,
            disk: claim.disk,
        }
    }

    /// The least that all slots of `spec` take, whatever nodes they run on. Of a system job: one copy.
    pub fn least(spec: &JobSpec) -> Self {
        Self::least_of(spec, if spec.kind == JobKind::System { 1 } else { spec.count })
    }

    fn least_of(spec: &JobSpec, count: u32) -> Self {
        let cpu_millis = match spec.resources.cpu {
            CpuRequest::Shared { millis, .. } => u64::from(millis),
            CpuRequest::Exclusive { cores, .. } => u64::from(cores) * 1000,
        };
        let mut devices: BTreeMap<String, u32> = BTreeMap::new();
        for device in spec.resources.devices.iter().filter(|d| !d.contains([':', '/'])) {
            *devices.entry(device.clone()).or_default() += count;
        }
        devices.retain(|_, number| *number > 0);
        Self {
            cpu_millis: cpu_millis.saturating_mul(u64::from(count)),
            memory: spec.resources.memory.saturating_mul(u64::from(count)),
            devices,
            allocs: count,
            disk: spec.resources.disk.saturating_mul(u64::from(count)),
        }
    }

    /// The least that one slot of `spec` takes.
    pub fn least_of_one(spec: &JobSpec) -> Self {
        Self::least_of(spec, 1)
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Amount) {
        self.cpu_millis = self.cpu_millis.saturating_add(other.cpu_millis);
        self.memory = self.memory.saturating_add(other.memory);
        self.disk = self.disk.saturating_add(other.disk);
        self.allocs = self.allocs.saturating_add(other.allocs);
        for (class, number) in &other.devices {
            let sum = self.devices.entry(class.clone()).or_default();
            *sum = sum.saturating_add(*number);
        }
    }

    /// Takes `other` away, which was added before.
    pub fn subtract(&mut self, other: &Amount) {
        self.cpu_millis = self.cpu_millis.saturating_sub(other.cpu_millis);
        self.memory = self.memory.saturating_sub(other.memory);
        self.disk = self.disk.saturating_sub(other.disk);
        self.allocs = self.allocs.saturating_sub(other.allocs);
        for (class, number) in &other.devices {
            if let Some(sum) = self.devices.get_mut(class) {
                *sum = sum.saturating_sub(*number);
            }
        }
        self.devices.retain(|_, number| *number > 0);
    }
}

/// The namespaces that have a quota, and what each of them uses. Others cost nothing.
///
/// Invariant: `used` of an account is the sum of its rows on nodes that are up, `promised` that of its proposals.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    accounts: BTreeMap<Namespace, Account>,
    /// Jobs with rows or a spec in one of the accounts.
    jobs: BTreeMap<JobName, Namespace>,
}

/// One namespace.
#[derive(Clone, Debug, Default)]
struct Account {
    quota: Quota,
    rows: BTreeMap<(NodeId, SlotId), Row>,
    used: Amount,
    proposals: BTreeMap<AllocId, Amount>,
    promised: Amount,
}

#[derive(Clone, Debug)]
struct Row {
    epoch: u64,
    birth: Birth,
    amount: Amount,
    /// Not on its way out.
    live: bool,
    /// Its node is up: it is in `used`.
    counted: bool,
}

/// A claim that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surplus {
    /// Which allocation.
    pub alloc: AllocId,
    /// Where.
    pub node: NodeId,
}

impl Accounts {
    /// Whether there is any quota.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Opens an account, or changes its quota. True: it is new, and has to be told of the namespace's jobs.
    pub fn open(&mut self, namespace: &Namespace, quota: Quota) -> bool {
        let is_new = !self.accounts.contains_key(namespace);
        self.accounts.entry(namespace.clone()).or_default().quota = quota;
        is_new
    }

    /// The quota is gone.
    pub fn close(&mut self, namespace: &Namespace) {
        self.accounts.remove(namespace);
        self.jobs.retain(|_, other| other != namespace);
    }

    /// The job is in `namespace` now. True: its rows have to be told again.
    pub fn enter(&mut self, job: &JobName, namespace: &Namespace) -> bool {
        if self.jobs.get(job) == Some(namespace) {
            return false;
        }
        if let Some(before) = self.jobs.remove(job)
            && let Some(account) = self.accounts.get_mut(&before)
        {
            let rows: Vec<_> =
                account.rows.keys().filter(|(_, slot)| slot.job == *job).cloned().collect();
            for key in rows {
                account.remove(&key);
            }
            let first = SlotId { job: job.clone(), index: 0 };
            account.forget_proposals(&first, u32::MAX, |_| true);
        }
        if !self.accounts.contains_key(namespace) {
            return false;
        }
        self.jobs.insert(job.clone(), namespace.clone());
        true
    }

    /// The row of `slot` on `node` says this now; `is_up`: the node is up.
    pub fn put(
        &mut self,
        slot: &SlotId,
        node: NodeId,
        row: &AllocRow,
        amount: Amount,
        is_up: bool,
    ) {
        let Some(account) = self.account_of(&slot.job) else { return };
        let key = (node, slot.clone());
        account.remove(&key);
        account.forget_proposals(slot, slot.index, |alloc| alloc.epoch <= row.epoch);
        if !row.phase.holds_claim() {
            return;
        }
        if is_up {
            account.used.add(&amount);
        }
        let live = row.phase.is_live();
        account
            .rows
            .insert(key, Row { epoch: row.epoch, birth: row.birth, amount, live, counted: is_up });
    }

    /// The row of `slot` on `node` is gone.
    pub fn take(&mut self, slot: &SlotId, node: NodeId) {
        if let Some(account) = self.account_of(&slot.job) {
            account.remove(&(node, slot.clone()));
        }
    }

    /// A node came or went.
    pub fn set_up(&mut self, node: NodeId, is_up: bool) {
        for account in self.accounts.values_mut() {
            let (rows, used) = (&mut account.rows, &mut account.used);
            for (_, row) in rows.range_mut(of_node(node)).filter(|(_, row)| row.counted != is_up) {
                row.counted = is_up;
                match is_up {
                    true => used.add(&row.amount),
                    false => used.subtract(&row.amount),
                }
            }
        }
    }

    /// A node was thrown out: its rows are.
    pub fn remove_node(&mut self, node: NodeId) {
        for account in self.accounts.values_mut() {
            let rows: Vec<_> =
                account.rows.range(of_node(node)).map(|(key, _)| key.clone()).collect();
            for key in rows {
                account.remove(&key);
            }
        }
    }

    /// Slots with a claim on `node`, in any account.
    pub fn slots_on(&self, node: NodeId) -> Vec<SlotId> {
        let rows = self.accounts.values().flat_map(|account| account.rows.range(of_node(node)));
        rows.map(|((_, slot), _)| slot.clone()).collect()
    }

    /// Sets aside what a proposal of this node's asks for, until its row comes or it is forgotten.
    pub fn promise(&mut self, alloc: &AllocId, amount: Amount) {
        let Some(account) = self.account_of(&alloc.slot.job) else { return };
        account.forget_proposals(&alloc.slot, alloc.slot.index, |_| true);
        account.promised.add(&amount);
        account.proposals.insert(alloc.clone(), amount);
    }

    /// A proposal came to nothing.
    pub fn forget(&mut self, alloc: &AllocId) {
        if let Some(account) = self.account_of(&alloc.slot.job) {
            account.forget_proposals(&alloc.slot, alloc.slot.index, |other| other == alloc);
        }
    }

    /// Whether the namespace may have `amount` more for `slot`, whose claims on the nodes in `others` it
    /// replaces. `promised`: this node's proposals count too.
    ///
    /// # Errors
    /// The first limit that would be exceeded.
    pub fn check(
        &self,
        namespace: &Namespace,
        slot: &SlotId,
        others: &[NodeId],
        amount: &Amount,
        promised: bool,
    ) -> Result<(), Excess> {
        let Some(account) = self.accounts.get(namespace) else { return Ok(()) };
        let mut sum = account.used.clone();
        if promised {
            sum.add(&account.promised);
            let alloc = |epoch| AllocId::first(slot.clone(), epoch);
            for (_, other) in account.proposals.range(alloc(0)..=alloc(u64::MAX)) {
                sum.subtract(other);
            }
        }
        for node in others {
            let row = account.rows.get(&(*node, slot.clone()));
            if let Some(row) = row.filter(|row| row.counted) {
                sum.subtract(&row.amount);
            }
        }
        account.quota.check(&with(&sum, amount))
    }

    /// How many times `amount` fits into what is left of a namespace's quota; `None`: it has none.
    pub fn room(&self, namespace: &Namespace, amount: &Amount) -> Option<u64> {
        let Account { quota, used, .. } = self.accounts.get(namespace)?;
        let fits = |most: u64, used: u64, each: u64| most.saturating_sub(used).checked_div(each);
        let class = |amount: &Amount, class: &String| {
            u64::from(amount.devices.get(class).copied().unwrap_or(0))
        };
        let devices = quota
            .devices
            .iter()
            .map(|(name, most)| fits(u64::from(*most), class(used, name), class(amount, name)));
        let cpus = quota.cpu_millis.map(|most| fits(most, used.cpu_millis, amount.cpu_millis));
        let memory = quota.memory.map(|most| fits(most, used.memory, amount.memory));
        let disk = quota.disk.map(|most| fits(most, used.disk, amount.disk));
        let (allocs, each) = (u64::from(used.allocs), u64::from(amount.allocs));
        let allocs = quota.allocs.map(|most| fits(u64::from(most), allocs, each));
        let limits = devices.chain([cpus, memory, disk, allocs].into_iter().flatten());
        Some(limits.flatten().min().unwrap_or(u64::MAX))
    }

    /// What a namespace with a quota may have and what it uses.
    pub fn get(&self, namespace: &Namespace) -> Option<(&Quota, &Amount)> {
        self.accounts.get(namespace).map(|account| (&account.quota, &account.used))
    }

    /// Every namespace with a quota, what it may have and what it uses.
    pub fn iter(&self) -> impl Iterator<Item = (&Namespace, &Quota, &Amount)> {
        self.accounts.iter().map(|(name, account)| (name, &account.quota, &account.used))
    }

    /// Namespaces that use more than they may, moves included: [`Accounts::surplus`] looks closer.
    pub fn exceeded(&self) -> impl Iterator<Item = &Namespace> {
        let exceeded = |account: &Account| account.quota.check(&account.used).is_err();
        self.accounts.iter().filter(move |(_, account)| exceeded(account)).map(|(name, _)| name)
    }

    /// The claims of a namespace that have to go so that the rest is within `quota`, by the rule in the module
    /// doc. `job` says kind and priority of a job; jobs that it does not know come last.
    pub fn surplus(
        &self,
        namespace: &Namespace,
        quota: &Quota,
        job: impl Fn(&JobName) -> Option<(JobKind, u8)>,
    ) -> Vec<Surplus> {
        let Some(account) = self.accounts.get(namespace) else { return Vec::new() };
        let mut newest: BTreeMap<&SlotId, u64> = BTreeMap::new();
        let live = || account.rows.iter().filter(|(_, row)| row.live && row.counted);
        for ((_, slot), row) in live() {
            let epoch = newest.entry(slot).or_default();
            *epoch = row.epoch.max(*epoch);
        }
        let mut claims = Vec::new();
        let mut seen = BTreeSet::new();
        for ((node, slot), row) in live() {
            let (kind, priority) = job(&slot.job).unwrap_or((JobKind::Service, 0));
            let is_newest = newest.get(slot) == Some(&row.epoch) && seen.insert(slot);
            if kind == JobKind::System || is_newest {
                claims.push((std::cmp::Reverse(priority), row.epoch, slot, *node, row));
            }
        }
        claims.sort_by_key(|claim| (claim.0, claim.1, claim.2, claim.3));
        let mut kept = Amount::default();
        let mut surplus = Vec::new();
        for (_, epoch, slot, node, row) in claims {
            let more = with(&kept, &row.amount);
            if quota.check(&more).is_ok() {
                kept = more;
            } else {
                let alloc = AllocId { slot: slot.clone(), epoch, birth: row.birth };
                surplus.push(Surplus { alloc, node });
            }
        }
        surplus
    }

    fn account_of(&mut self, job: &JobName) -> Option<&mut Account> {
        let namespace = self.jobs.get(job)?;
        self.accounts.get_mut(namespace)
    }
}

impl Account {
    fn remove(&mut self, key: &(NodeId, SlotId)) {
        if let Some(row) = self.rows.remove(key)
            && row.counted
        {
            self.used.subtract(&row.amount);
        }
    }

    /// Of `first` and the slots after it up to the index `last`.
    fn forget_proposals(&mut self, first: &SlotId, last: u32, forget: impl Fn(&AllocId) -> bool) {
        let alloc = |index, epoch| AllocId::new(first.job.clone(), index, epoch);
        let gone: Vec<AllocId> = self
            .proposals
            .range(alloc(first.index, 0)..=alloc(last, u64::MAX))
            .map(|(alloc, _)| alloc)
            .filter(|alloc| forget(alloc))
            .cloned()
            .collect();
        for alloc in gone {
            if let Some(amount) = self.proposals.remove(&alloc) {
                self.promised.subtract(&amount);
            }
        }
    }
}

fn with(sum: &Amount, more: &Amount) -> Amount {
    let mut sum = sum.clone();
    sum.add(more);
    sum
}

fn of_node(node: NodeId) -> std::ops::RangeInclusive<(NodeId, SlotId)> {
    let slot = |name: &str, index| SlotId { job: JobName::new(name).expect("a label"), index };
    let last = "z".repeat(limits::JOB_NAME_BYTES_MAX);
    (node, slot("0", 0))..=(node, slot(&last, u32::MAX))
}

#[cfg(test)]
mod tests;
