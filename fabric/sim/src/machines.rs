//! Random machines: sockets, SMT, memory nodes, memory, disk, devices, ports and labels.

use fabric::cpuset::CpuSet;
use fabric::topology::{Core, Device, DiskPool, Enforced, HugepagePool, NumaNode, Topology};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// What a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// What its owner gives to the fabric.
    pub topology: Topology,
    /// Labels of its node.
    pub labels: BTreeMap<String, String>,
}

/// The shape of a machine, before it is spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sockets; each has a memory node of its own.
    pub packages: u16,
    /// Physical cores of each socket, housekeeping included.
    pub cores: u16,
    /// Hardware threads of a core.
    pub threads: u16,
    /// Memory that work may use, in GiB, all sockets together.
    pub memory_gib: u64,
}

impl Shape {
    /// Disk grows with memory, so that it is now this, now that of which there is too little.
    fn pool(self) -> DiskPool {
        let capacity = self.memory_gib * 3 * GIB;
        DiskPool { name: DiskPool::DEFAULT.into(), capacity, reserved: 2 * GIB, used: 8 * GIB }
    }

    /// Spells the machine out. Core 0 of the first socket is kept for housekeeping. Hardware threads
    /// are numbered as Linux does on x86: first threads of all cores, then second threads.
    pub fn topology(self) -> Topology {
        let all = self.packages * self.cores;
        let core = |index: u16| Core {
            package: index / self.cores,
            numa: index / self.cores,
            cache: index / self.cores,
            cpus: (0..self.threads).map(|thread| thread * all + index).collect(),
        };
        let memory = self.memory_gib * GIB;
        let numa = (0..self.packages)
            .map(|id| NumaNode { id, memory: memory / u64::from(self.packages) })
            .collect();
        let housekeeping: CpuSet = core(0).cpus;
        Topology {
            arch: "x86_64".into(),
            kernel: "6.12.0".into(),
            os: "debian 13".into(),
            cores: (1..all).map(core).collect(),
            housekeeping,
            numa,
            memory: memory / u64::from(self.packages) * u64::from(self.packages),
            hugepages: Vec::new(),
            devices: Vec::new(),
            ports: (20_000, 20_999),
            ports_used: Vec::new(),
            pools: vec![self.pool()],
            enforced: Enforced {
                pinning: true,
                cpuset: true,
                numa: true,
                cpu: true,
                memory: true,
                tasks: true,
                devices: true,
            },
        }
    }
}

/// A small machine without anything special: for scenarios, where every machine is the same.
pub fn plain() -> Hardware {
    let shape = Shape { packages: 1, cores: 5, threads: 1, memory_gib: 4 };
    Hardware { topology: shape.topology(), labels: BTreeMap::new() }
}

/// A machine such as people own.
pub fn random(random: &mut ChaCha8Rng) -> Hardware {
    let packages = if random.random_ratio(1, 4) { 2 } else { 1 };
    let shape = Shape {
        packages,
        cores: *[3, 4, 6, 8].choose(random).expect("not empty"),
        threads: if random.random_ratio(1, 2) { 2 } else { 1 },
        memory_gib: *[2, 4, 8, 16].choose(random).expect("not empty"),
    };
    let mut topology = shape.topology();
    if random.random_ratio(1, 4) {
        topology.arch = "aarch64".into();
    }
    for number in 0..random.random_range(0..3u16) {
        topology.devices.push(Device {
            path: format!("/dev/dri/renderD{}", 128 + number),
            class: "gpu".into(),
            hardware: Some("pci:10de:2204".into()),
            numa: Some(number % packages),
        });
    }
    if random.random_ratio(1, 3) {
        topology.devices.push(Device {
            path: "/dev/ttyUSB0".into(),
            class: "tty".into(),
            hardware: Some("usb:1a86:7523".into()),
            numa: None,
        });
    }
    if random.random_ratio(1, 3) {
        topology.hugepages =
            (0..packages).map(|numa| HugepagePool { size_kib: 2048, numa, count: 64 }).collect();
    }
    // Some machines have few dynamic ports, so that they run out.
    if random.random_ratio(1, 8) {
        topology.ports = (20_000, 20_007);
    }
    let rack = format!("r{}", random.random_range(1..=3u8));
    Hardware { topology, labels: [("rack".to_owned(), rack)].into() }
}

#[cfg(test)]
mod tests;
