//! The share of a machine that its owner gives to the fabric: `[resources]` in `weftd.toml`.

use fabric::cpuset::CpuSet;
use fabric::topology::{NumaNode, Topology};
use serde::{Deserialize, Deserializer, de};

/// Ports for dynamic requests: below the range that Linux gives to outgoing connections.
const PORTS: (u16, u16) = (20_000, 31_999);
/// The system keeps a twentieth of the memory, within these bounds, unless `memory` says otherwise.
const SYSTEM_MEMORY_BYTES: (u64, u64) = (64 << 20, 2 << 30);

/// What the owner gives. Everything that is not said has a default that suits a machine of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Share {
    /// Logical CPUs, housekeeping included: `"0-3"`. Default: all.
    pub cpus: Option<CpuSet>,
    /// Bytes of memory for work, as a number or as `"4GiB"`. Default: all but a twentieth (at least
    /// 64 MiB, at most 2 GiB), which stays with the system.
    #[serde(deserialize_with = "bytes")]
    pub memory: Option<u64>,
    /// Bytes of disk that claims may add up to. Default: what is free, less a reserve.
    #[serde(deserialize_with = "bytes")]
    pub disk: Option<u64>,
    /// CPUs that work never runs on: `"0"`, or `""` for none. Default: the first core of a machine
    /// that gives more than two, none otherwise.
    pub housekeeping: Option<CpuSet>,
    /// Ports for dynamic requests: `"20000-31999"`.
    #[serde(deserialize_with = "ports")]
    pub ports: Option<(u16, u16)>,
    /// Devices by class (`"gpu"`), identity (`"usb:1a86:7523"`) or path. Default: all; `[]`: none.
    pub devices: Option<Vec<String>>,
}

/// Why a share cannot be given. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Some CPUs are not there.
    #[error("resources.cpus = \"{wanted}\": this agent can use only {present}")]
    NoSuchCpus {
        /// As configured.
        wanted: CpuSet,
        /// Of this machine.
        present: CpuSet,
    },
    /// Nothing is left to run work on.
    #[error(
        "resources.housekeeping = \"{housekeeping}\" leaves no CPU for work: give fewer of {given}"
    )]
    NothingLeft {
        /// As configured.
        housekeeping: CpuSet,
        /// CPUs of the share.
        given: CpuSet,
    },
    /// More memory than there is.
    #[error("resources.memory = {wanted}: this agent can use only {present} bytes")]
    TooMuchMemory {
        /// Bytes.
        wanted: u64,
        /// Bytes.
        present: u64,
    },
    /// More disk than there is.
    #[error(
        "resources.disk = {wanted}: the file system with the state directory has only {present} bytes"
    )]
    TooMuchDisk {
        /// Bytes.
        wanted: u64,
        /// Bytes.
        present: u64,
    },
    /// Port 0, or a range that is upside down.
    #[error(
        "resources.ports = \"{0}-{1}\": write the lowest and the highest port, from 1 to 65535"
    )]
    Ports(u16, u16),
}

/// Reduces a machine to its owner's share.
pub fn narrow(machine: Topology, share: &Share) -> Result<Topology, ShareError> {
    let mut topology = machine;
    let mut present = CpuSet::new();
    topology.cores.iter().for_each(|core| present.insert_all(&core.cpus));
    let given = share.cpus.clone().unwrap_or_else(|| present.clone());
    if given.is_empty() || !present.contains_all(&given) {
        return Err(ShareError::NoSuchCpus { wanted: given, present });
    }
    keep_cpus(&mut topology, |cpus| cpus.intersection(&given));

    let housekeeping = match &share.housekeeping {
        Some(cpus) => cpus.intersection(&given),
        // The kernel's own work and interrupts gather on the first core. With two or fewer, half
        // of the machine would be too much to give up.
        None if topology.cores.len() > 2 => topology.cores[0].cpus.clone(),
        None => CpuSet::new(),
    };
    keep_cpus(&mut topology, |cpus| {
        let mut left = cpus.clone();
        left.remove_all(&housekeeping);
        left
    });
    if topology.cores.is_empty() {
        return Err(ShareError::NothingLeft { housekeeping, given });
    }
    topology.housekeeping = housekeeping;

    let all = topology.memory;
    topology.memory = match share.memory {
        Some(wanted) if wanted > all => {
            return Err(ShareError::TooMuchMemory { wanted, present: all });
        }
        Some(wanted) => wanted,
        None => {
            let system = (all / 20).clamp(SYSTEM_MEMORY_BYTES.0, SYSTEM_MEMORY_BYTES.1);
            // A machine so small that this would be most of it gives half.
            all - system.min(all / 2)
        }
    };
    scale(&mut topology.numa, topology.memory);

    let (first, last) = share.ports.unwrap_or(PORTS);
    if first == 0 || first > last {
        return Err(ShareError::Ports(first, last));
    }
    topology.ports = (first, last);
    if let Some(allowed) = &share.devices {
        topology.devices.retain(|device| {
            allowed.iter().any(|name| {
                *name == device.path
                    || *name == device.class
                    || Some(name) == device.hardware.as_ref()
            })
        });
    }
    Ok(topology)
}

/// Brings the sum of the nodes' memory down to `memory`, each node in proportion.
pub(super) fn scale(nodes: &mut [NumaNode], memory: u64) {
    let all: u64 = nodes.iter().map(|node| node.memory).sum();
    if all > memory {
        for node in nodes {
            // Rounded down: the sum never exceeds what there is.
            node.memory = (u128::from(node.memory) * u128::from(memory) / u128::from(all)) as u64;
        }
    }
}

fn keep_cpus(topology: &mut Topology, keep: impl Fn(&CpuSet) -> CpuSet) {
    for core in &mut topology.cores {
        core.cpus = keep(&core.cpus);
    }
    topology.cores.retain(|core| !core.cpus.is_empty());
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Bytes {
        Number(u64),
        Text(String),
    }
    match Bytes::deserialize(deserializer)? {
        Bytes::Number(bytes) => Ok(Some(bytes)),
        Bytes::Text(text) => match fabric::job::parse_bytes(&text) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(de::Error::custom(format!(
                "{text:?} is no size: write bytes or a unit, as in 512MiB or 4GiB"
            ))),
        },
    }
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(u16, u16)>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    range.map(Some).ok_or_else(|| {
        de::Error::custom(format!("{text:?} is not a range of ports: write one like 20000-31999"))
    })
}
