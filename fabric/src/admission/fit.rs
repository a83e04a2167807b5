//! Whether a job fits, and then what exactly it gets.

use std::cmp::Reverse;
use std::ops::Range;

use super::devices::Matching;
use super::{Count, Ledger};
use crate::claim::Claim;
use crate::cpuset::CpuSet;
use crate::job::{CpuRequest, JobSpec, NumaPolicy, Smt};
use crate::resources::Rejection;
use crate::topology::DiskPool;

/// How a job fits: what [`Ledger::pick`] needs to come to the same end again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    /// Everything comes from the memory node with this index.
    node: Option<usize>,
    /// And its memory is bound to it.
    bind: bool,
    /// Take cores with few hardware threads, because the shared pool can spare no more.
    thrifty: bool,
}

/// Why a job does not fit, before anything was allocated to say so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Obstacle<'a> {
    Cores { wanted: u32, free: u32 },
    Cpu { wanted: u32, free: u32 },
    Memory { wanted: u64, free: u64 },
    Disk { wanted: u64, free: u64, of: u64 },
    Numa,
    Hugepages { size_kib: u32, wanted: u32, free: u32 },
    Device(&'a str),
    Port(&'a str, Option<u16>),
    PortUsed(u16, &'a str),
    PortsUsed { port: &'a str, used: u32, of: u32 },
    NotEnforced(&'static str),
    Full,
}

impl From<Obstacle<'_>> for Rejection {
    fn from(obstacle: Obstacle<'_>) -> Rejection {
        match obstacle {
            Obstacle::Cores { wanted, free } => Rejection::Cores { wanted, free },
            Obstacle::Cpu { wanted, free } => Rejection::Cpu { wanted, free },
            Obstacle::Memory { wanted, free } => Rejection::Memory { wanted, free },
            Obstacle::Disk { wanted, free, of } => {
                Rejection::Disk { pool: DiskPool::DEFAULT.into(), wanted, free, of }
            }
            Obstacle::Numa => Rejection::Numa,
            Obstacle::Hugepages { size_kib, wanted, free } => {
                Rejection::Hugepages { size_kib, wanted, free }
            }
            Obstacle::Device(device) => Rejection::Device { device: device.into() },
            Obstacle::Port(port, number) => Rejection::Port { port: port.into(), number },
            Obstacle::PortUsed(port, by) => Rejection::PortUsed { port, by: by.into() },
            Obstacle::PortsUsed { port, used, of } => {
                Rejection::PortsUsed { port: port.into(), used, of }
            }
            Obstacle::NotEnforced(limit) => Rejection::NotEnforced { limit: limit.into() },
            Obstacle::Full => Rejection::Full,
        }
    }
}

impl Ledger {
    /// Whether `spec` fits, and how. Allocates nothing.
    pub(super) fn fit<'a>(&'a self, spec: &'a JobSpec) -> Result<Fit, Obstacle<'a>> {
        if self.is_full() {
            return Err(Obstacle::Full);
        }
        self.fit_enforced(spec)?;
        self.fit_cpu(spec)?;
        let (wanted, free) = (spec.resources.memory, self.memory_free());
        if wanted > free {
            return Err(Obstacle::Memory { wanted, free });
        }
        let (wanted, free) = (spec.resources.disk, self.disk_free());
        if wanted > free {
            return Err(Obstacle::Disk { wanted, free, of: self.layout.disk });
        }
        for (&size_kib, &wanted) in &spec.resources.hugepages {
            let free = self.pages_free_of(size_kib, None);
            if u64::from(wanted) > free {
                let free = free.try_into().unwrap_or(u32::MAX);
                return Err(Obstacle::Hugepages { size_kib, wanted, free });
            }
        }
        let wanted = &spec.resources.devices;
        if !wanted.is_empty() {
            self.match_devices(wanted, None).map_err(|want| Obstacle::Device(&wanted[want]))?;
        }
        self.fit_ports(spec)?;
        self.fit_node(spec)
    }

    /// Picks what a job gets that [`Ledger::fit`] found to fit.
    pub(super) fn pick(&self, spec: &JobSpec, fit: Fit) -> Claim {
        let mut claim =
            Claim { memory: spec.resources.memory, disk: spec.resources.disk, ..Claim::default() };
        match spec.resources.cpu {
            CpuRequest::Shared { millis, .. } => claim.shared_millis = millis,
            CpuRequest::Exclusive { cores, smt } => {
                claim.cpus = self.pick_cpus(u32::from(cores), smt, fit);
            }
        }
        if let (Some(node), true) = (fit.node, fit.bind) {
            claim.mems.insert(self.layout.nodes[node].id);
        }
        self.pick_pages(spec, fit, &mut claim);
        let wanted = &spec.resources.devices;
        if !wanted.is_empty()
            && let Ok(matching) = self.match_devices(wanted, fit.node)
        {
            let device = |want| self.layout.devices[matching.device(want)].path.clone();
            claim.devices = (0..wanted.len()).map(device).collect();
        }
        self.pick_ports(spec, &mut claim);
        claim
    }

    fn fit_enforced<'a>(&self, spec: &'a JobSpec) -> Result<(), Obstacle<'a>> {
        let enforced = &self.layout.enforced;
        if matches!(spec.resources.cpu, CpuRequest::Exclusive { .. }) && !enforced.pinning {
            return Err(Obstacle::NotEnforced("pinning"));
        }
        if spec.resources.numa == NumaPolicy::Require && !enforced.numa {
            return Err(Obstacle::NotEnforced("numa"));
        }
        Ok(())
    }

    fn fit_cpu<'a>(&self, spec: &'a JobSpec) -> Result<(), Obstacle<'a>> {
        match spec.resources.cpu {
            CpuRequest::Shared { millis: wanted, .. } => {
                let free = self.shared_free();
                if u64::from(wanted) > free || self.total.threads == 0 {
                    let free = free.try_into().unwrap_or(u32::MAX);
                    return Err(Obstacle::Cpu { wanted, free });
                }
            }
            CpuRequest::Exclusive { cores, smt } => {
                let (wanted, free) = (u32::from(cores), self.total.of(smt));
                // None is not a number of cores; validation refuses it before it gets here.
                if wanted > free || wanted == 0 {
                    return Err(Obstacle::Cores { wanted, free });
                }
            }
        }
        Ok(())
    }

    /// The last question: on one memory node, or anywhere, without starving the shared pool.
    fn fit_node<'a>(&self, spec: &'a JobSpec) -> Result<Fit, Obstacle<'a>> {
        let policy = spec.resources.numa;
        if policy != NumaPolicy::None {
            let bind = self.layout.enforced.numa;
            let fits =
                (0..self.layout.nodes.len()).filter_map(|node| self.fit_one(spec, node, bind));
            // The fullest node that still has room, on the fullest socket; for work on shared CPUs
            // the one with most memory.
            let best = fits.min_by_key(|fit| {
                let node = fit.node.unwrap_or(0);
                let left = match spec.resources.cpu {
                    CpuRequest::Exclusive { smt, .. } => self.nodes[node].of(smt),
                    CpuRequest::Shared { .. } => 0,
                };
                let of_socket = match spec.resources.cpu {
                    CpuRequest::Exclusive { smt, .. } => self.free_on_socket_of(node, smt),
                    CpuRequest::Shared { .. } => 0,
                };
                (left, of_socket, Reverse(self.memory_free_on(node)))
            });
            match best {
                Some(fit) => return Ok(fit),
                None if policy == NumaPolicy::Require => return Err(Obstacle::Numa),
                None => {}
            }
        }
        let anywhere = Fit { node: None, bind: false, thrifty: false };
        self.spare_pool(spec, anywhere).ok_or_else(|| {
            let CpuRequest::Exclusive { cores, smt } = spec.resources.cpu else {
                return Obstacle::Numa;
            };
            let threads = match smt {
                Smt::Whole => u32::from(self.layout.core_threads.0),
                Smt::Share => 1,
            };
            let free = (self.spare_cpus() / threads).min(u32::from(cores).saturating_sub(1));
            Obstacle::Cores { wanted: u32::from(cores), free }
        })
    }

    /// Whether all of it fits on one memory node.
    fn fit_one(&self, spec: &JobSpec, node: usize, bind: bool) -> Option<Fit> {
        if let CpuRequest::Exclusive { cores, smt } = spec.resources.cpu
            && self.nodes[node].of(smt) < u32::from(cores)
        {
            return None;
        }
        if bind && self.memory_free_on(node) < spec.resources.memory {
            return None;
        }
        let numa = self.layout.nodes[node].id;
        let mut pages = spec.resources.hugepages.iter();
        if pages.any(|(size, count)| self.pages_free_of(*size, Some(numa)) < u64::from(*count)) {
            return None;
        }
        let wanted = &spec.resources.devices;
        if !wanted.is_empty() && self.match_devices(wanted, Some(node)).is_err() {
            return None;
        }
        self.spare_pool(spec, Fit { node: Some(node), bind, thrifty: false })
    }

    /// Whether the shared pool can spare the CPUs that `fit` takes, if need be by taking other cores.
    fn spare_pool(&self, spec: &JobSpec, fit: Fit) -> Option<Fit> {
        let CpuRequest::Exclusive { cores, smt } = spec.resources.cpu else { return Some(fit) };
        let (cores, spare) = (u32::from(cores), self.spare_cpus());
        let (fewest, most) = self.layout.core_threads;
        if smt == Smt::Share || fewest == most {
            let threads = if smt == Smt::Share { 1 } else { u32::from(fewest) };
            return (cores * threads <= spare).then_some(fit);
        }
        [fit, Fit { thrifty: true, ..fit }].into_iter().find(|fit| {
            let mut cpus = 0;
            self.pick_cores(cores, *fit, &mut |core| {
                cpus += u32::from(self.layout.cores[core].thread_count());
            });
            cpus <= spare
        })
    }

    /// The index of the name in `wanted` that no device is left for, or which device serves which.
    fn match_devices(&self, wanted: &[String], node: Option<usize>) -> Result<Matching, usize> {
        let numa = node.map(|node| self.layout.nodes[node].id);
        let usable = |device: usize| {
            let at = self.layout.devices[device].numa;
            self.device_free[device] && (numa.is_none() || at.is_none() || at == numa)
        };
        Matching::find(wanted, &self.layout.devices, usable)
    }

    fn pages_free_of(&self, size_kib: u32, numa: Option<u16>) -> u64 {
        let pools = self.layout.pools.iter().enumerate();
        let pools = pools
            .filter(|(_, pool)| pool.size_kib == size_kib && numa.is_none_or(|id| pool.numa == id));
        pools.map(|(index, _)| self.pages_free(index)).sum()
    }

    fn pick_cpus(&self, cores: u32, smt: Smt, fit: Fit) -> CpuSet {
        let mut cpus = CpuSet::new();
        match smt {
            Smt::Whole => self.pick_cores(cores, fit, &mut |core| {
                for cpu in self.threads_of(&self.layout.cores[core]) {
                    cpus.insert(cpu);
                }
            }),
            Smt::Share => self.pick_threads(cores, fit.node, &mut cpus),
        }
        cpus
    }

    /// Calls `take` with the index of each whole core that is picked.
    fn pick_cores(&self, cores: u32, fit: Fit, take: &mut impl FnMut(usize)) {
        if fit.thrifty {
            return self.pick_small_cores(cores, fit, take);
        }
        self.each_cache(cores, fit.node, Smt::Whole, &mut |cache, count| {
            let whole = self.cores_of_cache(cache).filter(|&core| self.is_whole(core));
            whole.take(count as usize).for_each(&mut *take);
        });
    }

    fn pick_small_cores(&self, cores: u32, fit: Fit, take: &mut impl FnMut(usize)) {
        let (fewest, most) = self.layout.core_threads;
        let sizes = fewest..=most;
        let of_size = |size| {
            (0..self.layout.cores.len()).filter(move |&index| {
                let core = &self.layout.cores[index];
                core.thread_count() == size
                    && fit.node.is_none_or(|node| usize::from(core.node) == node)
                    && self.is_whole(index)
            })
        };
        sizes.flat_map(of_size).take(cores as usize).for_each(take);
    }

    fn pick_threads(&self, threads: u32, node: Option<usize>, cpus: &mut CpuSet) {
        self.each_cache(threads, node, Smt::Share, &mut |cache, count| {
            // Broken cores first, the fullest of them first; then whole ones.
            let most = self.layout.core_threads.1;
            let broken = (1..=most).flat_map(|free| {
                let cores = self.cores_of_cache(cache);
                cores.filter(move |&core| self.cores[core] == free && !self.is_whole(core))
            });
            let whole = self.cores_of_cache(cache).filter(|&core| self.is_whole(core));
            let threads = broken.chain(whole).flat_map(|core| {
                let threads = self.threads_of(&self.layout.cores[core]);
                threads.filter(|cpu| !self.cpus.contains(*cpu))
            });
            for cpu in threads.take(count as usize) {
                cpus.insert(cpu);
            }
        });
    }

    /// Splits a number of cores (or threads) over memory nodes, then over their caches.
    fn each_cache(
        &self,
        wanted: u32,
        node: Option<usize>,
        smt: Smt,
        take: &mut dyn FnMut(usize, u32),
    ) {
        let mut of_node = |node: usize, wanted: u32| {
            let caches = &self.layout.nodes[node].caches;
            let caches = usize::from(caches.start)..usize::from(caches.end);
            over_few(&self.caches, caches, smt, wanted, &|_| 0, take);
        };
        if let Some(node) = node {
            return of_node(node, wanted);
        }
        let socket_of = |node: usize| usize::from(self.layout.nodes[node].socket);
        let of_socket = |node: usize| self.free_on_socket_of(node, smt);
        let nodes = 0..self.nodes.len();
        if self.sockets.len() < 2 || nodes.clone().any(|node| self.nodes[node].of(smt) >= wanted) {
            return over_few(&self.nodes, nodes, smt, wanted, &of_socket, &mut of_node);
        }
        let sockets = 0..self.sockets.len();
        over_few(&self.sockets, sockets, smt, wanted, &|_| 0, &mut |socket, wanted| {
            let nodes = nodes.clone().filter(|&node| socket_of(node) == socket);
            over_few(&self.nodes, nodes, smt, wanted, &of_socket, &mut of_node);
        });
    }

    /// What can be given away of the socket that a memory node belongs to.
    fn free_on_socket_of(&self, node: usize, smt: Smt) -> u32 {
        self.sockets[usize::from(self.layout.nodes[node].socket)].of(smt)
    }

    fn cores_of_cache(&self, cache: usize) -> Range<usize> {
        let cores = &self.layout.caches[cache].cores;
        usize::from(cores.start)..usize::from(cores.end)
    }

    fn is_whole(&self, core: usize) -> bool {
        self.cores[core] == self.layout.cores[core].thread_count()
    }

    fn pick_pages(&self, spec: &JobSpec, fit: Fit, claim: &mut Claim) {
        // Without a memory node to keep to, begin where the cores are.
        let first = claim.cpus.iter().next().map(|cpu| self.layout.core_of[usize::from(cpu)]);
        let home = first.map(|core| usize::from(self.layout.cores[usize::from(core)].node));
        let home = fit.node.or(home).map(|node| self.layout.nodes[node].id);
        for (&size_kib, &wanted) in &spec.resources.hugepages {
            let mut left = u64::from(wanted);
            for at_home in [true, false] {
                for (index, pool) in self.layout.pools.iter().enumerate() {
                    let here = (Some(pool.numa) == home) == at_home;
                    let count = self.pages_free(index).min(left);
                    if pool.size_kib == size_kib && here && count > 0 {
                        left -= count;
                        claim.hugepages.push((size_kib, pool.numa, count as u32));
                    }
                }
            }
        }
    }
}

impl Count {
    /// What can be given away: whole cores, or single hardware threads.
    pub(super) fn of(&self, smt: Smt) -> u32 {
        match smt {
            Smt::Whole => self.whole,
            Smt::Share => self.threads,
        }
    }
}

/// Splits `wanted` over as few of `bins[range]` as possible: a bin that holds the whole rest, and among
/// those the fullest (for single threads: the one with most in broken cores); failing that everything
/// in the emptiest bin, and again. There is enough in all of them together. Among equally full bins that
/// hold all, the one with the least `tie`.
fn over_few(
    bins: &[Count],
    range: impl Iterator<Item = usize> + Clone,
    smt: Smt,
    wanted: u32,
    tie: &dyn Fn(usize) -> u32,
    take: &mut dyn FnMut(usize, u32),
) {
    let mut rest = wanted;
    // Whole bins go in this order, so that whoever comes before the last one is used up.
    let order = |bin: usize| (Reverse(bins[bin].of(smt)), bin);
    let mut last = None;
    while rest > 0 {
        let open = || range.clone().filter(|&bin| last.is_none_or(|last| order(bin) > last));
        let enough = open().filter(|&bin| bins[bin].of(smt) >= rest).min_by_key(|&bin| {
            let broken = if smt == Smt::Share { bins[bin].broken().min(rest) } else { 0 };
            (Reverse(broken), bins[bin].of(smt), tie(bin), bin)
        });
        if let Some(bin) = enough {
            return take(bin, rest);
        }
        let Some(bin) = open().min_by_key(|&bin| order(bin)) else { return };
        let all = bins[bin].of(smt);
        if all == 0 {
            return;
        }
        take(bin, all);
        rest -= all;
        last = Some(order(bin));
    }
}
