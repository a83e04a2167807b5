//! Reads from `/sys` and `/proc` what a machine is made of, and narrows it to the share that its
//! owner gives to the fabric.
//!
//! What the kernel does not say is taken as the simplest machine that fits: no NUMA folder is one
//! memory node with everything, no SMT files are cores of one thread, no cache files are one cache a
//! package. Boards and containers leave out any of them.

use fabric::cpuset::CpuSet;
use fabric::topology::{Core, HugepagePool, NumaNode, Topology};
use helper::files::Files;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

mod devices;
pub mod disk;
mod plugged;
mod share;

#[cfg(test)]
mod tests;

pub use plugged::{Plugged, Settling};
pub use share::{Share, ShareError, narrow};

/// The kernel's view of a machine, below a folder: `/`, or a recorded one in tests.
#[derive(Clone, Debug)]
pub struct Sysfs {
    files: Files,
    given_up: CpuSet,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Sysfs {
    /// The view below `root`, which holds `sys`, `proc`, `etc` and `dev`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { files: Files::at(root), given_up: CpuSet::new() }
    }

    /// The agent keeps itself off these CPUs: work may use them, although they are missing in its affinity.
    pub fn giving_up(self, cpus: CpuSet) -> Self {
        Self { given_up: cpus, ..self }
    }

    /// The same, but so many of the files that are read stay open: see [`Files::keeping`].
    pub fn keeping(self, descriptors_max: usize) -> Self {
        Self { files: self.files.keeping(descriptors_max), ..self }
    }

    /// Everything that this machine has and that the agent itself may use: CPUs that are offline or
    /// outside the agent's affinity are left out, memory is bounded by the agent's cgroup, and
    /// devices without a node in `/dev` are not usable. `enforced`, `ports` and `pools` are left empty.
    /// Blocks. Fails only when the CPUs cannot be found at all.
    pub fn read(&self) -> io::Result<Topology> {
        let cpus = self.cpus()?;
        let nodes = self.memory_nodes();
        let hugepages = self.hugepages(&nodes);
        let pooled = |pool: &HugepagePool| u64::from(pool.count) * u64::from(pool.size_kib) * 1024;
        // The pool's pages are part of the total, and good for nothing else.
        let total = self.meminfo("proc/meminfo").saturating_sub(hugepages.iter().map(pooled).sum());
        let memory = total.min(self.cgroup_memory_limit().unwrap_or(u64::MAX));
        let mut numa: Vec<NumaNode> = nodes
            .iter()
            .map(|(&id, node)| {
                let pools = hugepages.iter().filter(|pool| pool.numa == id);
                let memory = node.memory.saturating_sub(pools.map(pooled).sum());
                NumaNode { id, memory }
            })
            .collect();
        share::scale(&mut numa, memory);
        Ok(Topology {
            arch: self
                .line("proc/sys/kernel/arch")
                .unwrap_or_else(|| std::env::consts::ARCH.into()),
            kernel: self.line("proc/sys/kernel/osrelease").unwrap_or_default(),
            os: self.os(),
            cores: self.cores(&cpus, &nodes),
            housekeeping: CpuSet::new(),
            numa,
            memory,
            hugepages,
            devices: devices::read(self),
            ports: (0, 0),
            ports_used: Vec::new(),
            pools: Vec::new(),
            enforced: Default::default(),
        })
    }

    /// CPUs that are online and that the agent may run on.
    fn cpus(&self) -> io::Result<CpuSet> {
        let mut cpus: CpuSet = match self.line("sys/devices/system/cpu/online") {
            Some(list) => list.parse().map_err(io::Error::other)?,
            None => self
                .numbered("sys/devices/system/cpu", "cpu")
                .into_iter()
                .filter(|cpu| {
                    self.line(&format!("sys/devices/system/cpu/cpu{cpu}/online"))
                        .is_none_or(|on| on == "1")
                })
                .collect(),
        };
        let status = self.text("proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if let Some(mut allowed) = allowed.and_then(|list| list.parse::<CpuSet>().ok()) {
            allowed.insert_all(&self.given_up);
            cpus = cpus.intersection(&allowed);
        }
        if cpus.is_empty() {
            return Err(io::Error::other("no CPU is online that this agent may use"));
        }
        Ok(cpus)
    }

    fn cores(&self, cpus: &CpuSet, nodes: &BTreeMap<u16, MemoryNode>) -> Vec<Core> {
        let mut cores = Vec::new();
        let mut caches: BTreeMap<String, u16> = BTreeMap::new();
        let mut left = cpus.clone();
        let lowest = |left: &CpuSet| left.iter().next();
        while let Some(first) = lowest(&left) {
            let folder = format!("sys/devices/system/cpu/cpu{first}");
            let topology = |file: &str| self.line(&format!("{folder}/topology/{file}"));
            // Newer kernels say core_cpus_list, older ones thread_siblings_list.
            let siblings = topology("core_cpus_list").or_else(|| topology("thread_siblings_list"));
            let mut threads: CpuSet =
                siblings.and_then(|list| list.parse().ok()).unwrap_or_default();
            threads = threads.intersection(&left);
            threads.insert(first);
            left.remove_all(&threads);
            // Boards without sockets say -1.
            let package =
                topology("physical_package_id").and_then(|id| id.parse().ok()).unwrap_or(0);
            let numa = nodes.iter().find(|(_, node)| node.cpus.contains(first));
            let cache = self.last_cache(&folder).unwrap_or_else(|| format!("package {package}"));
            let next = caches.len() as u16;
            let cache = *caches.entry(cache).or_insert(next);
            let numa = numa.or(nodes.first_key_value()).map_or(0, |(&id, _)| id);
            cores.push(Core { package, numa, cache, cpus: threads });
        }
        cores
    }

    /// The CPUs that share the last level of cache with a CPU: its name.
    fn last_cache(&self, folder: &str) -> Option<String> {
        let indexes = self.numbered(&format!("{folder}/cache"), "index").into_iter();
        let caches = indexes.filter_map(|index| {
            let file = |name: &str| self.line(&format!("{folder}/cache/index{index}/{name}"));
            Some((file("level")?.parse::<u16>().ok()?, file("shared_cpu_list")?))
        });
        caches.max_by_key(|(level, _)| *level).map(|(_, shared)| shared)
    }

    /// Memory nodes that have memory; one when the kernel knows nothing of NUMA.
    fn memory_nodes(&self) -> BTreeMap<u16, MemoryNode> {
        let folder = "sys/devices/system/node";
        let mut nodes: BTreeMap<u16, MemoryNode> = self
            .numbered(folder, "node")
            .into_iter()
            .map(|id| {
                let cpus = self.line(&format!("{folder}/node{id}/cpulist")).unwrap_or_default();
                let cpus = cpus.parse().unwrap_or_default();
                (
                    id,
                    MemoryNode {
                        cpus,
                        memory: self.meminfo(&format!("{folder}/node{id}/meminfo")),
                    },
                )
            })
            .collect();
        let all: u64 = nodes.values().map(|node| node.memory).sum();
        if all == 0 {
            let cpus = self.cpus().unwrap_or_default();
            nodes = [(0, MemoryNode { cpus, memory: self.meminfo("proc/meminfo") })].into();
        }
        nodes
    }

    fn hugepages(&self, nodes: &BTreeMap<u16, MemoryNode>) -> Vec<HugepagePool> {
        let mut pools = Vec::new();
        for &numa in nodes.keys() {
            let of_node = format!("sys/devices/system/node/node{numa}/hugepages");
            let folder = match self.path(&of_node).is_dir() {
                true => of_node,
                false => "sys/kernel/mm/hugepages".into(),
            };
            for name in self.names(&folder) {
                let size = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB"));
                let Some(size_kib) = size.and_then(|size| size.parse().ok()) else { continue };
                // The whole pool, not what is free now: the ledger counts what is claimed, also by
                // allocations that hold their pages while the agent restarts.
                let count = self.line(&format!("{folder}/{name}/nr_hugepages"));
                let count = count.and_then(|count| count.parse().ok()).unwrap_or(0);
                if count > 0 {
                    pools.push(HugepagePool { size_kib, numa, count });
                }
            }
        }
        pools.sort_by_key(|pool| (pool.size_kib, pool.numa));
        pools
    }

    /// `MemTotal` in bytes, of the machine or of a node (whose lines begin with `Node 0 `).
    fn meminfo(&self, path: &str) -> u64 {
        let text = self.text(path).unwrap_or_default();
        let kib = text.lines().find_map(|line| {
            let (_, value) = line.split_once("MemTotal:")?;
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        kib.unwrap_or(0).saturating_mul(1024)
    }

    /// The lowest memory limit on the way from the agent's cgroup to the top, in bytes.
    fn cgroup_memory_limit(&self) -> Option<u64> {
        let own = self.text("proc/self/cgroup")?;
        let mut limits = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let (mounts, file): (&[&str], &str) = match controllers {
                "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
                named if named.split(',').any(|name| name == "memory") => {
                    (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
                }
                _ => continue,
            };
            for mount in mounts {
                let mut level = Some(Path::new(path.trim_start_matches('/')));
                while let Some(here) = level {
                    let file = Path::new(mount).join(here).join(file);
                    limits.extend(
                        file.to_str().and_then(|file| self.line(file)?.parse::<u64>().ok()),
                    );
                    level = here.parent();
                }
            }
        }
        limits.into_iter().min()
    }

    /// `ID` and `VERSION_ID` of os-release.
    fn os(&self) -> String {
        let text = self.text("etc/os-release").or_else(|| self.text("usr/lib/os-release"));
        let text = text.unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or("").trim_matches(['"', '\'']).to_owned()
        };
        format!("{} {}", field("ID"), field("VERSION_ID")).trim().to_owned()
    }
}

/// What it reads files with.
impl std::ops::Deref for Sysfs {
    type Target = Files;

    fn deref(&self) -> &Files {
        &self.files
    }
}

/// A memory node as the kernel lists it.
#[derive(Clone, Debug)]
struct MemoryNode {
    cpus: CpuSet,
    memory: u64,
}

/// A recorded machine, for tests.
#[cfg(test)]
pub(crate) fn recorded(fixture: &str) -> (tempfile::TempDir, Sysfs) {
    let folder = tempfile::tempdir().unwrap();
    helper::files::record(fixture, folder.path());
    let sysfs = Sysfs::at(folder.path());
    (folder, sysfs)
}
