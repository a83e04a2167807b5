//! A topology, put in order for counting: cores sorted by memory node and cache, everything named twice
//! left out. Topologies come from other nodes, so nothing in them is taken for granted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::cpuset::CpuSet;
use crate::limits;
use crate::topology::{Enforced, PortsUsed, Topology};

/// Marks a CPU that belongs to no core of the layout.
pub(super) const NO_CORE: u16 = u16::MAX;
const _: () = assert!(limits::CPUS_MAX < NO_CORE as usize);

#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Sorted by memory node, then by cache, then by first CPU.
    pub cores: Vec<Core>,
    /// CPU numbers, core by core.
    pub threads: Vec<u16>,
    /// Index of the core of each CPU, or [`NO_CORE`].
    pub core_of: Vec<u16>,
    /// In the order of the cores.
    pub caches: Vec<Cache>,
    /// Sorted by id.
    pub nodes: Vec<MemoryNode>,
    /// How many sockets there are. A memory node belongs to the socket of its first core.
    pub sockets: u16,
    /// All CPUs of all cores.
    pub cpus: CpuSet,
    pub cpu_count: u32,
    /// Fewest and most hardware threads of a core.
    pub core_threads: (u16, u16),
    pub memory: u64,
    /// Bytes of the pool of disk that claims are made on.
    pub disk: u64,
    /// Sorted by size and memory node; the numbers of pages of equal ones are added up.
    pub pools: Vec<Pool>,
    pub devices: Vec<Device>,
    /// Index of each device by its path.
    pub device_of: BTreeMap<String, u16>,
    /// Range of dynamic ports; empty when the first is greater than the last.
    pub ports: (u16, u16),
    /// Stretches of ports that others use, in order.
    pub ports_used: Vec<PortsUsed>,
    pub enforced: Enforced,
}

#[derive(Clone, Debug)]
pub(super) struct Core {
    /// Indices.
    pub cache: u16,
    pub node: u16,
    /// Of [`Layout::threads`].
    pub threads: Range<u16>,
}

#[derive(Clone, Debug)]
pub(super) struct Cache {
    pub cores: Range<u16>,
}

#[derive(Clone, Debug)]
pub(super) struct MemoryNode {
    pub id: u16,
    pub memory: u64,
    /// Index of its socket.
    pub socket: u16,
    /// Indices of its caches.
    pub caches: Range<u16>,
}

#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub size_kib: u32,
    pub numa: u16,
    pub count: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Device {
    pub path: String,
    pub class: String,
    pub hardware: Option<String>,
    pub numa: Option<u16>,
    /// One bit of 64 for each of its names: see [`name_bit`].
    pub names: u64,
    /// One bit of 32 for its class.
    pub class_bit: u32,
}

impl Device {
    /// Whether `wanted` (a path, a bus identity or a class) may be served by this device.
    pub fn is(&self, wanted: &str) -> bool {
        self.path == wanted || self.class == wanted || self.hardware.as_deref() == Some(wanted)
    }
}

/// The bit that stands for a device's name in a set of names. Different names may share a bit: a bit
/// that is not set says that the name is not there, a bit that is set says nothing.
pub(crate) fn name_bit(name: &str) -> u64 {
    1 << (xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % 64)
}

/// The same for a class of devices.
fn class_bit(class: &str) -> u32 {
    1 << (xxhash_rust::xxh3::xxh3_64(class.as_bytes()) % 32)
}

impl Core {
    pub fn thread_count(&self) -> u16 {
        self.threads.end - self.threads.start
    }
}

impl Layout {
    pub fn new(topology: &Topology) -> Self {
        let mut layout = Layout {
            memory: topology.memory,
            disk: topology.disk().map_or(0, |pool| pool.capacity),
            ports: (topology.ports.0.max(1), topology.ports.1),
            enforced: topology.enforced,
            ..Layout::default()
        };
        layout.take_cores(topology);
        layout.take_pools(topology);
        layout.take_devices(topology);
        layout.take_ports_used(topology);
        layout
    }

    /// The index of the memory node that the kernel calls `id`.
    pub fn node(&self, id: u16) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }

    fn take_cores(&mut self, topology: &Topology) {
        let mut seen = CpuSet::new();
        let mut cores: Vec<(u16, u16, Vec<u16>)> = Vec::new();
        let mut packages: BTreeMap<u16, u16> = BTreeMap::new();
        for core in &topology.cores {
            let mut cpus = core.cpus.clone();
            cpus.remove_all(&topology.housekeeping);
            cpus.remove_all(&seen);
            if !cpus.is_empty() {
                seen.insert_all(&cpus);
                packages.entry(core.numa).or_insert(core.package);
                cores.push((core.numa, core.cache, cpus.iter().collect()));
            }
        }
        cores.sort();

        // A machine that says nothing of memory nodes has one for all that it has. A memory node that
        // only a core knows of has cores but no memory to bind to.
        let of_unknown_node = if topology.numa.is_empty() { topology.memory } else { 0 };
        let mut memory: BTreeMap<u16, u64> = BTreeMap::new();
        for node in &topology.numa {
            memory.entry(node.id).or_insert(node.memory);
        }
        for (numa, _, _) in &cores {
            memory.entry(*numa).or_insert(of_unknown_node);
        }

        let mut sockets: Vec<u16> = packages.values().copied().collect();
        sockets.sort_unstable();
        sockets.dedup();
        let socket_of = |id| {
            let package = packages.get(&id)?;
            sockets.binary_search(package).ok()
        };
        self.sockets = sockets.len().max(1) as u16;

        self.cpu_count = seen.len() as u32;
        self.cpus = seen;
        self.core_of = vec![NO_CORE; self.cpus.iter().last().map_or(0, |cpu| usize::from(cpu) + 1)];
        let mut left = cores.into_iter().peekable();
        for (id, memory) in memory {
            let first_cache = self.caches.len() as u16;
            while let Some((_, cache, _)) = left.peek().filter(|(numa, _, _)| *numa == id) {
                let cache = *cache;
                let first_core = self.cores.len() as u16;
                while let Some((_, _, cpus)) =
                    left.next_if(|(numa, of, _)| *numa == id && *of == cache)
                {
                    self.take_core(cpus);
                }
                self.caches.push(Cache { cores: first_core..self.cores.len() as u16 });
            }
            self.nodes.push(MemoryNode {
                id,
                memory,
                socket: socket_of(id).unwrap_or(0) as u16,
                caches: first_cache..self.caches.len() as u16,
            });
        }
        let counts = || self.cores.iter().map(Core::thread_count);
        self.core_threads = (counts().min().unwrap_or(1), counts().max().unwrap_or(1));
    }

    fn take_core(&mut self, cpus: Vec<u16>) {
        let first = self.threads.len() as u16;
        for cpu in cpus {
            self.core_of[usize::from(cpu)] = self.cores.len() as u16;
            self.threads.push(cpu);
        }
        self.cores.push(Core {
            cache: self.caches.len() as u16,
            node: self.nodes.len() as u16,
            threads: first..self.threads.len() as u16,
        });
    }

    fn take_ports_used(&mut self, topology: &Topology) {
        let mut used: Vec<&PortsUsed> = topology.ports_used.iter().collect();
        used.truncate(limits::PORTS_USED_MAX);
        used.sort_by_key(|used| (used.first, used.last));
        let mut next = Some(1);
        for one in used {
            let first = next.map(|next| one.first.max(next));
            if let Some(first) = first.filter(|first| *first <= one.last) {
                self.ports_used.push(PortsUsed { first, last: one.last, by: one.by.clone() });
                next = one.last.checked_add(1);
            }
        }
    }

    fn take_pools(&mut self, topology: &Topology) {
        let mut pools: BTreeMap<(u32, u16), u64> = BTreeMap::new();
        for pool in &topology.hugepages {
            *pools.entry((pool.size_kib, pool.numa)).or_default() += u64::from(pool.count);
        }
        self.pools = pools
            .into_iter()
            .map(|((size_kib, numa), count)| Pool { size_kib, numa, count })
            .collect();
    }

    fn take_devices(&mut self, topology: &Topology) {
        let mut seen = BTreeSet::new();
        let devices = topology.devices.iter().filter(|device| seen.insert(device.path.as_str()));
        for device in devices.take(limits::DEVICES_PER_NODE_MAX) {
            let hardware = device.hardware.as_deref().map_or(0, name_bit);
            self.device_of.insert(device.path.clone(), self.devices.len() as u16);
            self.devices.push(Device {
                names: name_bit(&device.path) | name_bit(&device.class) | hardware,
                class_bit: class_bit(&device.class),
                path: device.path.clone(),
                class: device.class.clone(),
                hardware: device.hardware.clone(),
                numa: device.numa,
            });
        }
    }
}
