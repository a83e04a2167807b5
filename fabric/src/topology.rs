//! What a node is made of, as far as the fabric may use it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::clock::WallTime;
use crate::cpuset::CpuSet;
use crate::level::evolving;

/// The share of a machine that its owner gives to the fabric, and what can be enforced there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Topology {
    /// As `uname -m` says it: `x86_64`, `aarch64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// `ID` and `VERSION_ID` of os-release: `debian 12`.
    pub os: String,
    /// Physical cores that work may use. Housekeeping cores are not in the list.
    pub cores: Vec<Core>,
    /// CPUs kept for the system slice; shared work may not use them either.
    pub housekeeping: CpuSet,
    /// Memory nodes.
    pub numa: Vec<NumaNode>,
    /// Bytes of memory that work may use in all.
    pub memory: u64,
    /// Pools of huge pages.
    pub hugepages: Vec<HugepagePool>,
    /// Devices that can be claimed.
    pub devices: Vec<Device>,
    /// Ports that dynamic requests are served from, first and last.
    pub ports: (u16, u16),
    /// Which limits bite on this machine.
    pub enforced: Enforced,
    /// Ports that programs listen on which are not the fabric's: those in the range above, and those that a job of the
    /// fabric asks for by number. In order, none of them twice, and at most
    /// [`PORTS_USED_MAX`](crate::limits::PORTS_USED_MAX) stretches.
    #[serde(default)]
    pub ports_used: Vec<PortsUsed>,
    /// Where disk is claimed from. Empty: jobs that ask for disk do not run here.
    #[serde(default)]
    pub pools: Vec<DiskPool>,
}

/// A part of the machine's disks that claims are made on: one file system. Its size is the sum of the three figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DiskPool {
    /// What it is called: [`DiskPool::DEFAULT`].
    pub name: String,
    /// Bytes that claims may add up to.
    pub capacity: u64,
    /// Bytes that are set aside: for the system, or because the owner gives less than there is.
    pub reserved: u64,
    /// Bytes that others than allocations used when the capacity was decided.
    pub used: u64,
}

evolving!(DiskPool { name, capacity, reserved, used });

impl DiskPool {
    /// The pool that a job's `disk` comes from: the file system with the agent's state directory.
    pub const DEFAULT: &'static str = "default";

    /// Bytes of the whole file system.
    pub fn size(&self) -> u64 {
        self.capacity.saturating_add(self.reserved).saturating_add(self.used)
    }
}

impl Topology {
    /// The pool that a job's `disk` comes from.
    pub fn disk(&self) -> Option<&DiskPool> {
        self.pools.iter().find(|pool| pool.name == DiskPool::DEFAULT)
    }
}

/// A stretch of ports that are not to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsUsed {
    /// The first of them.
    pub first: u16,
    /// The last of them.
    pub last: u16,
    /// Who listens: `nginx (pid 812)`.
    pub by: String,
}

impl std::fmt::Display for PortsUsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{} by {}", self.first, self.by),
            false => write!(f, "{}-{} by {}", self.first, self.last, self.by),
        }
    }
}

evolving!(Topology {
    arch, kernel, os, cores, housekeeping, numa, memory, hugepages, devices, ports, enforced,
    ports_used
} 3 { pools } within devices);

/// One physical core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Socket.
    pub package: u16,
    /// Memory node it is closest to.
    pub numa: u16,
    /// Last-level cache it shares: cores with the same number share one.
    pub cache: u16,
    /// Its logical CPUs (one, or its SMT siblings).
    pub cpus: CpuSet,
}

/// One memory node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// The kernel's number.
    pub id: u16,
    /// Bytes that work may use here.
    pub memory: u64,
}

/// Free huge pages of one size on one memory node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepagePool {
    /// Page size in KiB.
    pub size_kib: u32,
    /// Memory node.
    pub numa: u16,
    /// Pages.
    pub count: u32,
}

/// A device that one allocation can hold at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Device {
    /// Stable name on this node: the device path.
    pub path: String,
    /// What it is: `gpu`, `tty`, `video`, `net`, `usb`, `pci`.
    pub class: String,
    /// `usb:1a86:7523` or `pci:10de:2204`, where it has a bus identity.
    pub hardware: Option<String>,
    /// Memory node it is closest to, where the bus says.
    pub numa: Option<u16>,
}

evolving!(Device { path, class, hardware, numa });

/// Which limits the kernel and the unit manager really enforce here. A node advertises only what bites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// CPU affinity or cpusets hold.
    pub pinning: bool,
    /// Cgroup cpusets hold too (a task cannot widen its own affinity).
    pub cpuset: bool,
    /// Memory nodes can be bound.
    pub numa: bool,
    /// CPU quota and weight.
    pub cpu: bool,
    /// Memory limit.
    pub memory: bool,
    /// Limit of tasks.
    pub tasks: bool,
    /// Device access.
    pub devices: bool,
}

/// What a node tells the others about itself: the value of `node/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct NodeInfo {
    /// Host name at start. Two nodes may have the same.
    pub name: String,
    /// From `weftd.toml` and enrolment.
    pub labels: BTreeMap<String, String>,
    /// What it can give.
    pub topology: Topology,
    /// Where its agent can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// Version of its agent.
    pub version: String,
    /// `systemd` or `direct`.
    pub executor: String,
    /// Takes no new work, and hands over what it has.
    pub draining: bool,
    /// Why it takes no new work although nobody drained it: its disk is full or read-only.
    pub impaired: Option<String>,
    /// When its agent started.
    pub started: WallTime,
    /// It votes on leases and runs nothing.
    #[serde(default)]
    pub witness: bool,
    /// Which life of its disk this is: random, made with the node's table and kept with it.
    #[serde(default)]
    pub incarnation: u64,
    /// Up to which level its agent reads.
    #[serde(default)]
    pub level: u8,
    /// Which level the fabric has reached, as far as it knows.
    #[serde(default)]
    pub reached: u8,
    /// What it has seen, for tombstones to leave.
    #[serde(default)]
    pub seen: Option<Seen>,
}

evolving!(NodeInfo {
    name, labels, topology, addresses, version, executor, draining, impaired, started, witness,
    incarnation, level, reached, seen
} within topology);

/// 'Of what was written up to then, I hold this.'
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Up to when.
    pub until: WallTime,
    /// Of the roster, jobs, tokens and quotas, tombstones included.
    pub digest: u64,
}
