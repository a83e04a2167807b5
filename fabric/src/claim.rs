//! What a node has given to an allocation, by name: which cores, how many bytes of memory and disk, which devices and ports.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::cpuset::CpuSet;
use crate::level::evolving;

/// Cores, memory, disk, devices and ports that a node has given to an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Claim {
    /// Logical CPUs that belong to this allocation alone. Empty: it runs on the shared ones.
    pub cpus: CpuSet,
    /// Thousandths of a CPU on the shared CPUs. 0 with exclusive ones.
    pub shared_millis: u32,
    /// Memory nodes it is bound to. Empty: any.
    pub mems: CpuSet,
    /// Bytes of memory, counted against the one bound memory node when there is exactly one.
    pub memory: u64,
    /// Huge pages: (KiB a page, memory node, pages).
    pub hugepages: Vec<(u32, u16, u32)>,
    /// Paths of devices.
    pub devices: Vec<String>,
    /// Port numbers by name.
    pub ports: BTreeMap<String, u16>,
    /// Bytes of the pool of disk [`DEFAULT`](crate::topology::DiskPool::DEFAULT).
    #[serde(default)]
    pub disk: u64,
}

evolving!(Claim { cpus, shared_millis, mems, memory, hugepages, devices, ports } 3 { disk });
