//! What a node has, what it has given away, and whether a job still fits: one feasibility function for
//! coordinator and target. Two copies that disagree would propose and reject forever.
//!
//! # Rules
//!
//! - **Exclusive cores** are whole physical cores: every hardware thread of a core must be free. With
//!   `smt = "share"` they are single hardware threads, taken from cores that are broken up already as
//!   long as there are any. Cores come from as few memory nodes and caches as possible, and among
//!   those that hold all of them from the fullest, of equal ones that of the fullest socket, so that
//!   large holes stay. What no memory node holds comes from one socket if that is possible.
//! - **Shared CPU** is time on the CPUs that nobody holds. The sum of what was promised never exceeds
//!   what these CPUs have, so an exclusive claim may not shrink the pool below it, nor take the pool's
//!   last CPU while anybody uses it.
//! - **Memory nodes**: `require` takes cores, memory, huge pages and devices from one memory node and
//!   binds the claim to it; a device whose memory node is unknown fits any. `prefer` does the same
//!   where possible and otherwise takes what there is, unbound. Work on shared CPUs runs on all of
//!   them; for it only the memory, pages and devices count.
//! - **Memory** counts against the whole, and against a memory node when the claim is bound to it.
//! - **Disk** counts against the node's one pool. It is promised and not enforced: what a task really keeps there, nobody
//!   stops.
//! - **Devices** have one holder at a time. **Ports** are fixed, whatever the number, or picked from
//!   the node's range, each after the one before, so that a freed port is not reused at once. One that a program
//!   listens on which is not the fabric's is given to nobody.
//! - **Limits that do not bite**: exclusive cores need `enforced.pinning` and `numa = "require"` needs
//!   `enforced.numa`, else the job is rejected. Where memory or CPU limits do not bite the job still
//!   runs: the ledger keeps the sums right, and the node says what it does not enforce.

use std::collections::{BTreeMap, BTreeSet};

use crate::api;
use crate::claim::Claim;
use crate::cpuset::CpuSet;
use crate::id::{AllocId, JobName};
use crate::job::{CpuRequest, JobSpec};
use crate::resources::Rejection;
use crate::topology::Topology;

mod devices;
mod fit;
mod layout;
mod ports;
#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use layout::name_bit;
use layout::{Layout, NO_CORE};

/// What a node has, and what it has given to whom.
///
/// Invariants, as the property tests check them: no CPU, device or port is in two claims; the sums of
/// claimed memory, disk, huge pages and shared CPU stay within what there is (except after
/// [`Ledger::adopt`] and [`Ledger::topology_changed`], when nothing more is given away until they do);
/// exclusive CPUs and the shared pool are disjoint; a release restores exactly what the hold took.
#[derive(Clone, Debug)]
pub struct Ledger {
    layout: Layout,
    claims: BTreeMap<AllocId, Claim>,
    cpus: CpuSet,
    /// Free hardware threads of each core.
    cores: Vec<u16>,
    /// Of each cache, of each memory node, of each socket, and in all.
    caches: Vec<Count>,
    nodes: Vec<Count>,
    sockets: Vec<Count>,
    total: Count,
    /// Bytes bound to each memory node, and in all. Wide, because claims come from other nodes too.
    bound: Vec<u128>,
    memory: u128,
    /// Bytes claimed of the pool of disk.
    disk: u128,
    /// Plants a bug: disk that was given away counts as free.
    forgets_disk: bool,
    shared_millis: u64,
    /// Claims that run on the shared CPUs.
    shared_claims: u32,
    /// Pages claimed of each pool.
    pages: Vec<u64>,
    device_free: Vec<bool>,
    devices: BTreeSet<String>,
    ports: BTreeSet<u16>,
    /// How many of `ports` lie in the dynamic range.
    ports_in_range: u32,
    /// Where the search for a dynamic port begins.
    next_port: u16,
}

/// What is free of some cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Cores with all hardware threads free.
    whole: u32,
    /// Hardware threads of these.
    whole_threads: u32,
    /// Free hardware threads of all cores.
    threads: u32,
}

impl Count {
    /// Free hardware threads of cores that are broken up.
    fn broken(&self) -> u32 {
        self.threads - self.whole_threads
    }
}

/// Why a claim cannot be held. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The allocation holds another claim already.
    #[error("{0} holds another claim: release that first")]
    Holder(AllocId),
    /// CPUs are held by somebody else, or are not there.
    #[error("CPUs {0:?} are held by another allocation or are not the fabric's")]
    Cpus(CpuSet),
    /// The shared CPUs would be too few for what was promised on them.
    #[error("the shared CPUs cannot carry it: {free} thousandths of a CPU are free")]
    Shared {
        /// Thousandths of a CPU that are not promised.
        free: u64,
    },
    /// Less memory is free, in all or on the memory node that the claim is bound to.
    #[error("{wanted} bytes of memory wanted, {free} free")]
    Memory {
        /// Bytes claimed.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// Less disk is free.
    #[error("{wanted} bytes of disk wanted, {free} free")]
    Disk {
        /// Bytes claimed.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// Fewer huge pages are free there.
    #[error("huge pages of {size_kib} KiB on memory node {numa} are not free")]
    Hugepages {
        /// Page size.
        size_kib: u32,
        /// Memory node.
        numa: u16,
    },
    /// A device is held by somebody else, claimed twice, or not there.
    #[error("device {0} is held by another allocation or is not there")]
    Device(String),
    /// A port is held by somebody else, claimed twice, or 0.
    #[error("port {0} is held by another allocation")]
    Port(u16),
}

/// What is true of a node or not, before any number counts: beside its [`Summary`] in the same cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    pub pinning: bool,
    pub numa_binding: bool,
    pub full: bool,
}

/// What a placement needs to know of a node before it looks closely, in one cache line with what else
/// it needs. Derived from a ledger in time that does not grow with the number of claims. Nothing here is
/// less than what is really free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Free cores and hardware threads, in all and on the memory node with the most.
    pub cores: u16,
    pub cores_of_one_node: u16,
    pub threads: u16,
    pub threads_of_one_node: u16,
    /// CPUs that the shared pool can spare.
    pub spare_cpus: u16,
    /// Fewest hardware threads of a core.
    pub core_threads: u16,
    pub shared_free_millis: u32,
    /// One bit for each name of each free device: see [`name_bit`].
    pub device_names: u64,
    /// One bit for each class of free devices.
    pub device_classes: u32,
    pub cpu_millis_used: u32,
    pub cpu_millis_total: u32,
    /// Free memory, rounded up: see [`mib`].
    pub memory_mib: u32,
    pub memory_of_one_node_mib: u32,
    pub memory_used_mib: u32,
    pub memory_total_mib: u32,
    /// Free disk, rounded up.
    pub disk_mib: u32,
}

/// Bytes as MiB, rounded up, at most 4 PiB: whoever asks for more bytes never asks for fewer MiB.
pub(crate) fn mib(bytes: u64) -> u32 {
    clamp(bytes.div_ceil(1 << 20))
}

fn clamp(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

impl Ledger {
    /// A ledger of everything in `topology`, all of it free.
    pub fn new(topology: &Topology) -> Self {
        let mut ledger = Ledger {
            layout: Layout::default(),
            claims: BTreeMap::new(),
            cpus: CpuSet::new(),
            cores: Vec::new(),
            caches: Vec::new(),
            nodes: Vec::new(),
            sockets: Vec::new(),
            total: Count::default(),
            bound: Vec::new(),
            memory: 0,
            disk: 0,
            forgets_disk: false,
            shared_millis: 0,
            shared_claims: 0,
            pages: Vec::new(),
            device_free: Vec::new(),
            devices: BTreeSet::new(),
            ports: BTreeSet::new(),
            ports_in_range: 0,
            next_port: topology.ports.0,
        };
        ledger.lay_out(topology);
        ledger
    }

    /// The same with a planted bug or without: see [`Canary::ForgetsDisk`](crate::node::Canary::ForgetsDisk).
    pub(crate) fn forgetting_disk(self, forgets_disk: bool) -> Self {
        Self { forgets_disk, ..self }
    }

    /// Picks what an allocation of `spec` would get: the exact cores, memory node, devices and ports.
    /// Changes nothing; equal ledgers pick equal claims. [`Ledger::hold`] accepts the claim as long as
    /// nothing else was held in between.
    pub fn admit(&self, spec: &JobSpec) -> Result<Claim, Rejection> {
        let fit = self.fit(spec)?;
        Ok(self.pick(spec, fit))
    }

    /// Gives `claim` to `alloc`. Refuses whatever is not free: no core, byte, device or port is ever
    /// claimed twice. Holding an equal claim again changes nothing.
    pub fn hold(&mut self, alloc: &AllocId, claim: Claim) -> Result<(), Conflict> {
        if self.claims.get(alloc) == Some(&claim) {
            return Ok(());
        }
        self.check_overlap(alloc, &claim)?;
        self.check_capacity(&claim)?;
        self.count(&claim);
        self.claims.insert(alloc.clone(), claim);
        Ok(())
    }

    /// Takes note of a claim that is a fact already: of a unit that runs, or of a row in the table. It
    /// may exceed what there is now (the share of the machine has shrunk), but like every other it
    /// may not overlap with one that is held.
    pub fn adopt(&mut self, alloc: &AllocId, claim: Claim) -> Result<(), Conflict> {
        if self.claims.get(alloc) == Some(&claim) {
            return Ok(());
        }
        self.check_overlap(alloc, &claim)?;
        self.count(&claim);
        self.claims.insert(alloc.clone(), claim);
        Ok(())
    }

    /// Takes back what `alloc` holds.
    pub fn release(&mut self, alloc: &AllocId) -> Option<Claim> {
        let claim = self.claims.remove(alloc)?;
        self.uncount(&claim);
        Some(claim)
    }

    /// Goes on with another topology. Claims stay held, also of things that are gone.
    pub fn topology_changed(&mut self, topology: &Topology) {
        self.lay_out(topology);
    }

    /// CPUs of the fabric that nobody holds for himself: what work of the shared pool runs on.
    pub fn shared_cpus(&self) -> CpuSet {
        let mut cpus = self.layout.cpus.clone();
        cpus.remove_all(&self.cpus);
        cpus
    }

    /// CPUs that somebody holds for himself.
    pub fn exclusive_cpus(&self) -> &CpuSet {
        &self.cpus
    }

    /// What is left.
    pub fn free(&self) -> api::Free {
        let whole = self.layout.cores.iter().zip(&self.cores);
        let whole = whole.filter(|(core, free)| **free == core.thread_count());
        api::Free {
            cores: self.total.whole,
            cpus: whole.flat_map(|(core, _)| self.threads_of(core)).collect(),
            shared_millis: self.shared_free().try_into().unwrap_or(u32::MAX),
            memory: self.memory_free(),
            devices: self.free_devices().map(|device| device.path.clone()).collect(),
            disk: self.disk_free(),
        }
    }

    /// What `alloc` holds.
    pub fn claim(&self, alloc: &AllocId) -> Option<&Claim> {
        self.claims.get(alloc)
    }

    /// Free cores (with `smt = "share"`: hardware threads) that would be left of the hole that the job's
    /// exclusive ones come from: the least of any memory node that holds all of them, and of a whole
    /// machine that they are spread over. `None`: it asks for no exclusive ones, or they are not free.
    pub(crate) fn cores_left_over(&self, spec: &JobSpec) -> Option<u32> {
        let CpuRequest::Exclusive { cores, smt } = spec.resources.cpu else { return None };
        let wanted = u32::from(cores);
        let left = |count: &Count| count.of(smt).checked_sub(wanted);
        self.nodes.iter().filter_map(left).min().or_else(|| left(&self.total))
    }

    /// Whether any allocation of `job` holds a claim.
    pub fn holds_job(&self, job: &JobName) -> bool {
        let first = AllocId::new(job.clone(), 0, 0);
        let next = self.claims.range(first..).next();
        next.is_some_and(|(alloc, _)| alloc.slot.job == *job)
    }

    /// How many allocations of `job` hold a claim.
    pub(crate) fn claims_of(&self, job: &JobName) -> usize {
        let claims = self.claims.range(AllocId::new(job.clone(), 0, 0)..);
        claims.take_while(|(alloc, _)| alloc.slot.job == *job).count()
    }

    /// Every claim that is held, by allocation.
    pub fn claims(&self) -> impl ExactSizeIterator<Item = (&AllocId, &Claim)> {
        self.claims.iter()
    }

    /// The numbers that decide most placements.
    pub(crate) fn summary(&self) -> Summary {
        // A node has no more CPUs than `CPUS_MAX`, so none of these numbers is cut.
        let most = |of: fn(&Count) -> u32| self.nodes.iter().map(of).max().unwrap_or(0) as u16;
        let exclusive = u64::from(self.layout.cpu_count - self.total.threads);
        let on_one_node = (0..self.nodes.len()).map(|node| self.memory_free_on(node)).max();
        Summary {
            cores: self.total.whole as u16,
            cores_of_one_node: most(|count| count.whole),
            threads: self.total.threads as u16,
            threads_of_one_node: most(|count| count.threads),
            spare_cpus: self.spare_cpus() as u16,
            core_threads: self.layout.core_threads.0,
            shared_free_millis: clamp(self.shared_free()),
            device_names: self.free_devices().fold(0, |bits, device| bits | device.names),
            device_classes: self.free_devices().fold(0, |bits, device| bits | device.class_bit),
            cpu_millis_used: clamp((exclusive * 1000).saturating_add(self.shared_millis)),
            cpu_millis_total: self.layout.cpu_count * 1000,
            memory_mib: mib(self.memory_free()),
            memory_of_one_node_mib: mib(on_one_node.unwrap_or(0)),
            memory_used_mib: mib(self.memory.try_into().unwrap_or(u64::MAX)),
            memory_total_mib: mib(self.layout.memory),
            disk_mib: mib(self.disk_free()),
        }
    }

    /// What decides before these numbers.
    pub(crate) fn switches(&self) -> Switches {
        Switches {
            pinning: self.layout.enforced.pinning,
            numa_binding: self.layout.enforced.numa,
            full: self.is_full(),
        }
    }

    /// One bit for each class of devices that the node has, free or not.
    pub(crate) fn device_classes(&self) -> u32 {
        self.layout.devices.iter().fold(0, |bits, device| bits | device.class_bit)
    }

    fn is_full(&self) -> bool {
        self.claims.len() >= crate::limits::ALLOCS_PER_NODE_MAX
    }

    /// Thousandths of a CPU of the shared pool that are not promised.
    fn shared_free(&self) -> u64 {
        (u64::from(self.total.threads) * 1000).saturating_sub(self.shared_millis)
    }

    /// CPUs that may leave the shared pool: what was promised stays covered, and a pool in use keeps
    /// at least one.
    fn spare_cpus(&self) -> u32 {
        let covered = self.shared_millis.div_ceil(1000).max(u64::from(self.shared_claims > 0));
        u64::from(self.total.threads).saturating_sub(covered) as u32
    }

    fn memory_free(&self) -> u64 {
        u128::from(self.layout.memory).saturating_sub(self.memory) as u64
    }

    fn disk_free(&self) -> u64 {
        u128::from(self.layout.disk).saturating_sub(self.disk) as u64
    }

    /// Bytes that can be bound to the memory node with this index.
    fn memory_free_on(&self, node: usize) -> u64 {
        let here = u128::from(self.layout.nodes[node].memory).saturating_sub(self.bound[node]);
        self.memory_free().min(here as u64)
    }

    fn pages_free(&self, pool: usize) -> u64 {
        self.layout.pools[pool].count.saturating_sub(self.pages[pool])
    }

    fn free_devices(&self) -> impl Iterator<Item = &layout::Device> {
        let devices = self.layout.devices.iter().zip(&self.device_free);
        devices.filter(|(_, free)| **free).map(|(device, _)| device)
    }

    fn threads_of(&self, core: &layout::Core) -> impl Iterator<Item = u16> + '_ {
        let threads = usize::from(core.threads.start)..usize::from(core.threads.end);
        self.layout.threads[threads].iter().copied()
    }

    /// Whether the claim names something that is held.
    fn check_overlap(&self, alloc: &AllocId, claim: &Claim) -> Result<(), Conflict> {
        if self.claims.contains_key(alloc) {
            return Err(Conflict::Holder(alloc.clone()));
        }
        if self.cpus.intersects(&claim.cpus) {
            return Err(Conflict::Cpus(self.cpus.intersection(&claim.cpus)));
        }
        for (index, device) in claim.devices.iter().enumerate() {
            if self.devices.contains(device) || claim.devices[..index].contains(device) {
                return Err(Conflict::Device(device.clone()));
            }
        }
        let mut numbers = BTreeSet::new();
        for &port in claim.ports.values() {
            if port == 0 || self.ports.contains(&port) || !numbers.insert(port) {
                return Err(Conflict::Port(port));
            }
        }
        Ok(())
    }

    /// Whether what the claim names is there, and the sums allow it.
    fn check_capacity(&self, claim: &Claim) -> Result<(), Conflict> {
        if !self.layout.cpus.contains_all(&claim.cpus) {
            let mut missing = claim.cpus.clone();
            missing.remove_all(&self.layout.cpus);
            return Err(Conflict::Cpus(missing));
        }
        let free = self.shared_free();
        let fits = if claim.cpus.is_empty() {
            self.total.threads > 0 && u64::from(claim.shared_millis) <= free
        } else {
            claim.cpus.len() as u32 <= self.spare_cpus() && claim.shared_millis == 0
        };
        if !fits {
            return Err(Conflict::Shared { free });
        }
        let free = self.bound_node(claim).map_or(self.memory_free(), |n| self.memory_free_on(n));
        if claim.memory > free {
            return Err(Conflict::Memory { wanted: claim.memory, free });
        }
        let free = self.disk_free();
        if claim.disk > free {
            return Err(Conflict::Disk { wanted: claim.disk, free });
        }
        let mut pages: BTreeMap<(u32, u16), u64> = BTreeMap::new();
        for &(size_kib, numa, count) in &claim.hugepages {
            *pages.entry((size_kib, numa)).or_default() += u64::from(count);
        }
        for ((size_kib, numa), count) in pages {
            let free = self.pool(size_kib, numa).map_or(0, |pool| self.pages_free(pool));
            if count > free {
                return Err(Conflict::Hugepages { size_kib, numa });
            }
        }
        match claim.devices.iter().find(|path| !self.layout.device_of.contains_key(*path)) {
            Some(path) => Err(Conflict::Device(path.clone())),
            None => Ok(()),
        }
    }

    /// The index of the memory node that the claim's memory counts against.
    fn bound_node(&self, claim: &Claim) -> Option<usize> {
        let mut mems = claim.mems.iter();
        match (mems.next(), mems.next()) {
            (Some(id), None) => self.layout.node(id),
            _ => None,
        }
    }

    fn pool(&self, size_kib: u32, numa: u16) -> Option<usize> {
        self.layout.pools.binary_search_by_key(&(size_kib, numa), |p| (p.size_kib, p.numa)).ok()
    }

    /// Bytes of disk that a claim takes out of the pool.
    fn disk_of(&self, claim: &Claim) -> u128 {
        if self.forgets_disk { 0 } else { claim.disk.into() }
    }

    fn count(&mut self, claim: &Claim) {
        self.cpus.insert_all(&claim.cpus);
        for cpu in claim.cpus.iter() {
            self.move_thread(cpu, false);
        }
        if claim.cpus.is_empty() {
            self.shared_claims += 1;
        }
        self.shared_millis += u64::from(claim.shared_millis);
        self.memory += u128::from(claim.memory);
        self.disk += self.disk_of(claim);
        if let Some(node) = self.bound_node(claim) {
            self.bound[node] += u128::from(claim.memory);
        }
        for &(size_kib, numa, count) in &claim.hugepages {
            if let Some(pool) = self.pool(size_kib, numa) {
                self.pages[pool] += u64::from(count);
            }
        }
        for path in &claim.devices {
            if let Some(&device) = self.layout.device_of.get(path) {
                self.device_free[usize::from(device)] = false;
            }
            self.devices.insert(path.clone());
        }
        // The furthest of the claim's ports, seen from where the search began, is the last one given.
        let (first, last) = self.layout.ports;
        let from = self.next_port;
        let mut furthest = None;
        for &port in claim.ports.values() {
            self.ports.insert(port);
            if (first..=last).contains(&port) {
                self.ports_in_range += 1;
                furthest = furthest.max(Some(self.distance(from, port)));
            }
        }
        if let Some(furthest) = furthest {
            let size = u32::from(last - first) + 1;
            let next = (u32::from(from - first) + furthest + 1) % size;
            self.next_port = first + next as u16;
        }
    }

    fn uncount(&mut self, claim: &Claim) {
        self.cpus.remove_all(&claim.cpus);
        for cpu in claim.cpus.iter() {
            self.move_thread(cpu, true);
        }
        if claim.cpus.is_empty() {
            self.shared_claims -= 1;
        }
        self.shared_millis -= u64::from(claim.shared_millis);
        self.memory -= u128::from(claim.memory);
        self.disk -= self.disk_of(claim);
        if let Some(node) = self.bound_node(claim) {
            self.bound[node] -= u128::from(claim.memory);
        }
        for &(size_kib, numa, count) in &claim.hugepages {
            if let Some(pool) = self.pool(size_kib, numa) {
                self.pages[pool] -= u64::from(count);
            }
        }
        for path in &claim.devices {
            if let Some(&device) = self.layout.device_of.get(path) {
                self.device_free[usize::from(device)] = true;
            }
            self.devices.remove(path);
        }
        let (first, last) = self.layout.ports;
        for port in claim.ports.values() {
            self.ports.remove(port);
            self.ports_in_range -= u32::from((first..=last).contains(port));
        }
    }

    /// Steps from one dynamic port to another, round the end of the range. Both lie in it.
    fn distance(&self, from: u16, to: u16) -> u32 {
        let (first, last) = self.layout.ports;
        let size = u32::from(last - first) + 1;
        (u32::from(to) + size - u32::from(from)) % size
    }

    /// Moves one CPU between its core's free threads and a claim.
    fn move_thread(&mut self, cpu: u16, to_free: bool) {
        let core = self.layout.core_of.get(usize::from(cpu)).copied().unwrap_or(NO_CORE);
        if core == NO_CORE {
            return;
        }
        let (core, free) =
            (&self.layout.cores[usize::from(core)], &mut self.cores[usize::from(core)]);
        let all = core.thread_count();
        let was_whole = *free == all;
        *free = if to_free { *free + 1 } else { *free - 1 };
        let is_whole = *free == all;
        let (cache, node) = (usize::from(core.cache), usize::from(core.node));
        let socket = usize::from(self.layout.nodes[node].socket);
        let counts = [
            &mut self.caches[cache],
            &mut self.nodes[node],
            &mut self.sockets[socket],
            &mut self.total,
        ];
        for count in counts {
            count.threads = if to_free { count.threads + 1 } else { count.threads - 1 };
            if is_whole && !was_whole {
                count.whole += 1;
                count.whole_threads += u32::from(all);
            } else if was_whole && !is_whole {
                count.whole -= 1;
                count.whole_threads -= u32::from(all);
            }
        }
    }

    /// Starts from a topology with everything free, then counts every claim that is held.
    fn lay_out(&mut self, topology: &Topology) {
        self.layout = Layout::new(topology);
        let (first, last) = self.layout.ports;
        if !(first..=last).contains(&self.next_port) {
            self.next_port = first;
        }
        self.cpus = CpuSet::new();
        self.cores = self.layout.cores.iter().map(layout::Core::thread_count).collect();
        self.caches = vec![Count::default(); self.layout.caches.len()];
        self.nodes = vec![Count::default(); self.layout.nodes.len()];
        self.sockets = vec![Count::default(); usize::from(self.layout.sockets)];
        self.total = Count::default();
        for core in &self.layout.cores {
            let (cache, node) = (usize::from(core.cache), usize::from(core.node));
            let socket = usize::from(self.layout.nodes[node].socket);
            let counts = [
                &mut self.caches[cache],
                &mut self.nodes[node],
                &mut self.sockets[socket],
                &mut self.total,
            ];
            for count in counts {
                count.whole += 1;
                count.whole_threads += u32::from(core.thread_count());
                count.threads += u32::from(core.thread_count());
            }
        }
        self.bound = vec![0; self.layout.nodes.len()];
        (self.memory, self.disk) = (0, 0);
        (self.shared_millis, self.shared_claims) = (0, 0);
        self.pages = vec![0; self.layout.pools.len()];
        self.device_free = vec![true; self.layout.devices.len()];
        self.devices.clear();
        self.ports.clear();
        self.ports_in_range = 0;
        let next_port = self.next_port;
        let claims = std::mem::take(&mut self.claims);
        for claim in claims.values() {
            self.count(claim);
        }
        self.claims = claims;
        self.next_port = next_port;
    }
}
