//! Reasons why a node cannot take an allocation, in one list for coordinator, target and `explain`.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::id::{AllocId, Namespace};
use crate::job::duration;
use crate::level::{LEVEL_MIN, Leveled};

/// Why a node will not run an allocation. The same type answers a proposal and fills `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// A constraint of the job does not hold.
    Constraint {
        /// Which.
        constraint: String,
        /// What the node has instead.
        actual: Option<String>,
    },
    /// Fewer exclusive cores are free than asked for.
    Cores {
        /// Asked for.
        wanted: u32,
        /// Free.
        free: u32,
    },
    /// Less shared CPU is free than asked for, in thousandths of a CPU.
    Cpu {
        /// Asked for.
        wanted: u32,
        /// Free.
        free: u32,
    },
    /// Less memory is free than asked for, in bytes.
    Memory {
        /// Asked for.
        wanted: u64,
        /// Free.
        free: u64,
    },
    /// No single memory node has all of it free.
    Numa,
    /// Too few huge pages are free.
    Hugepages {
        /// Page size.
        size_kib: u32,
        /// Asked for.
        wanted: u32,
        /// Free.
        free: u32,
    },
    /// No such device is free.
    Device {
        /// As asked for.
        device: String,
    },
    /// A fixed port is taken, or no dynamic one is left.
    Port {
        /// Its name.
        port: String,
        /// Its number, if fixed.
        number: Option<u16>,
    },
    /// The node cannot enforce what the job needs.
    NotEnforced {
        /// Which limit.
        limit: String,
    },
    /// The node is draining.
    Draining,
    /// The node takes no new work: its disk is full or read-only.
    Impaired {
        /// In words.
        reason: String,
    },
    /// The node is not alive.
    NotAlive,
    /// The node knows a newer epoch, or a deletion, of what was proposed.
    Outdated,
    /// This slot failed on this node a short time ago.
    FailedHere {
        /// How long it is avoided.
        #[serde(with = "duration")]
        for_another: std::time::Duration,
    },
    /// The node has as many allocations as it can look after.
    Full,
    /// The node is a witness: it votes on leases and runs nothing.
    Witness,
    /// The voters promised a higher epoch of this slot before.
    Epoch {
        /// The lowest epoch that they may grant.
        at_least: u64,
    },
    /// The job has a task for other architectures only.
    Architecture {
        /// The node's.
        actual: String,
        /// Those that there is a task for.
        tasks: Vec<String>,
    },
    /// A job that this one stays away from has an allocation here.
    AntiAffinity {
        /// Its name.
        job: String,
    },
    /// The node came back from the dead a short time ago, perhaps not for the first time.
    Returned {
        /// How long after its return it gets work again.
        #[serde(with = "duration")]
        after: std::time::Duration,
    },
    /// The namespace would have more than its quota.
    Quota {
        /// Which.
        namespace: Namespace,
        /// The limit that would be exceeded.
        excess: Excess,
    },
    /// What is left is kept for a more important allocation that others made room for.
    Kept {
        /// Which.
        by: AllocId,
    },
    /// A program that is not the fabric's listens on a fixed port.
    PortUsed {
        /// Its number.
        port: u16,
        /// Who listens.
        by: String,
    },
    /// No dynamic port is left, and programs that are not the fabric's listen on some.
    PortsUsed {
        /// The name of the port.
        port: String,
        /// How many of the dynamic ports they listen on.
        used: u32,
        /// How many there are.
        of: u32,
    },
    /// Less disk is free than asked for, in bytes.
    Disk {
        /// The pool that it would come from.
        pool: String,
        /// Asked for.
        wanted: u64,
        /// Not promised to anybody.
        free: u64,
        /// What claims may add up to. 0: the node has no such pool, or gives nothing of it.
        of: u64,
    },
}

/// The first limit that would be exceeded, in words and figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excess {
    /// `CPU`, `memory`, `disk`, `allocations`, or a class of devices.
    pub what: String,
    /// What it would be, with its unit.
    pub wanted: String,
    /// What may be, with its unit.
    pub limit: String,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} {}", self.wanted, self.limit, self.what)
    }
}

impl Leveled for Rejection {
    fn level(&self) -> u8 {
        match self {
            Rejection::Disk { .. } => 3,
            Rejection::Constraint { .. }
            | Rejection::Cores { .. }
            | Rejection::Cpu { .. }
            | Rejection::Memory { .. }
            | Rejection::Numa
            | Rejection::Hugepages { .. }
            | Rejection::Device { .. }
            | Rejection::Port { .. }
            | Rejection::NotEnforced { .. }
            | Rejection::Draining
            | Rejection::Impaired { .. }
            | Rejection::NotAlive
            | Rejection::Outdated
            | Rejection::FailedHere { .. }
            | Rejection::Full
            | Rejection::Witness
            | Rejection::Epoch { .. }
            | Rejection::Architecture { .. }
            | Rejection::AntiAffinity { .. }
            | Rejection::Returned { .. }
            | Rejection::Quota { .. }
            | Rejection::Kept { .. }
            | Rejection::PortUsed { .. }
            | Rejection::PortsUsed { .. } => LEVEL_MIN,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Constraint { constraint, actual: Some(actual) } => {
                write!(f, "{constraint} does not hold: it has {actual:?}")
            }
            Rejection::Constraint { constraint, actual: None } => {
                write!(f, "{constraint} does not hold: it has none")
            }
            Rejection::Cores { wanted, free } => write!(f, "{wanted} cores wanted, {free} free"),
            Rejection::Cpu { wanted, free } => {
                write!(f, "{} CPU wanted, {} free", millis(*wanted), millis(*free))
            }
            Rejection::Memory { wanted, free } => {
                write!(f, "{} memory wanted, {} free", bytes(*wanted), bytes(*free))
            }
            Rejection::Disk { pool, wanted, of: 0, .. } => {
                write!(f, "{} disk wanted, and pool {pool} has none to give", bytes(*wanted))
            }
            Rejection::Disk { pool, wanted, free, of } => {
                let (wanted, free, of) = (bytes(*wanted), bytes(*free), bytes(*of));
                write!(f, "{wanted} disk wanted, {free} free of {of} in pool {pool}")
            }
            Rejection::Numa => f.write_str("no single memory node has all of it free"),
            Rejection::Hugepages { size_kib, wanted, free } => {
                write!(f, "{wanted} huge pages of {size_kib} KiB wanted, {free} free")
            }
            Rejection::Device { device } => write!(f, "no device {device} is free"),
            Rejection::Port { port, number: Some(number) } => {
                write!(f, "port {number} ({port}) is taken")
            }
            Rejection::Port { port, number: None } => write!(f, "no port is left for {port}"),
            Rejection::NotEnforced { limit } => write!(f, "it cannot enforce {limit}"),
            Rejection::Draining => f.write_str("it is draining"),
            Rejection::Impaired { reason } => write!(f, "it takes no new work: {reason}"),
            Rejection::NotAlive => f.write_str("it is not alive"),
            Rejection::Outdated => f.write_str("it knows a newer state of this slot"),
            Rejection::FailedHere { for_another } => {
                write!(f, "this slot failed here, avoided for {}", duration::display(*for_another))
            }
            Rejection::Quota { namespace, excess } => {
                write!(f, "namespace {namespace} would have {excess}")
            }
            Rejection::PortUsed { port, by } => write!(f, "port {port} is used by {by}"),
            Rejection::PortsUsed { port, used, of } => {
                write!(
                    f,
                    "no port is left for {port}: other programs listen on {used} of the {of} that it could be"
                )
            }
            Rejection::Kept { by } => write!(f, "what is left is kept for {by}"),
            Rejection::Full => f.write_str("it looks after as many allocations as it can"),
            Rejection::Witness => f.write_str("it is a witness: it votes and runs nothing"),
            Rejection::Epoch { at_least } => {
                write!(f, "the voters grant this slot no epoch below {at_least}")
            }
            Rejection::Architecture { actual, tasks } => {
                write!(f, "the job has no task for {actual}, only for {}", tasks.join(", "))
            }
            Rejection::AntiAffinity { job } => {
                write!(f, "{job} runs here, and the job stays away from it")
            }
            Rejection::Returned { after } => {
                let after = duration::display(*after);
                write!(f, "it came back from the dead, and gets new work {after} after that")
            }
        }
    }
}

fn millis(millis: u32) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// `64MiB`: the largest unit that leaves at most one decimal.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() < 0.05 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}
