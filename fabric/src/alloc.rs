//! One run of a slot on one node: the value of `alloc/<job>/<slot>/<node>`.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::claim::Claim;
use crate::clock::WallTime;
use crate::cpuset::CpuSet;
use crate::id::AllocId;
use crate::job::SpecHash;

/// How far an allocation has come. A lattice: within one epoch it only ever moves down this list.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Wanted, and proposed to a node.
    #[default]
    Pending,
    /// The node has written the claim to its disk.
    Reserved,
    /// The unit manager was asked to start it.
    Starting,
    /// The unit is active; restarts in place do not leave this phase.
    Running,
    /// The unit was asked to end.
    Stopping,
    /// It is over; the claim is free.
    Ended,
}

impl Phase {
    /// Whether the slot counts as filled and the claim as held by its slot.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::Reserved | Phase::Starting | Phase::Running)
    }

    /// Whether the claim is still held: a stopping unit uses its cores until it is gone.
    pub fn holds_claim(self) -> bool {
        self.is_live() || self == Phase::Stopping
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Pending => "pending",
            Phase::Reserved => "reserved",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Ended => "ended",
        })
    }
}

/// Why an allocation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The job was stopped, scaled down, updated or drained away: as wanted.
    Retired {
        /// In words.
        reason: String,
    },
    /// It failed more often than its restart policy allows, or could not be started.
    Failed {
        /// In words, with the exit status.
        reason: String,
    },
    /// Another allocation of the same slot took over.
    Superseded {
        /// Its epoch.
        epoch: u64,
    },
    /// The unit was gone when the agent or the machine came back, and the slot was filled elsewhere.
    Lost,
    /// No majority of the voters renewed its lease in time.
    LeaseLost,
    /// No lease was to be had for it.
    Unleased {
        /// In words.
        reason: String,
    },
    /// Something more important needed its room.
    Preempted {
        /// What.
        by: AllocId,
        /// The priority of that.
        priority: u8,
        /// The priority of this one, at that time.
        over: u8,
    },
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Retired { reason } => write!(f, "retired: {reason}"),
            Ending::Failed { reason } => write!(f, "failed: {reason}"),
            Ending::Superseded { epoch } => write!(f, "superseded by epoch {epoch}"),
            Ending::Preempted { by, priority, over } => {
                write!(f, "made room for {by} (priority {priority} over {over})")
            }
            Ending::Lost => f.write_str("lost"),
            Ending::Unleased { reason } => write!(f, "no lease: {reason}"),
            Ending::LeaseLost => f.write_str("no majority of the voters renewed its lease"),
        }
    }
}

/// What a node says of an allocation it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocRow {
    /// Grows with every placement of the slot.
    pub epoch: u64,
    /// How far it has come.
    pub phase: Phase,
    /// Which spec it runs.
    pub spec: SpecHash,
    /// The spec's version, for people.
    pub version: u64,
    /// What it holds.
    pub claim: Claim,
    /// Running and, where there is a check, passing it.
    pub healthy: bool,
    /// When `healthy` last changed.
    pub healthy_since: WallTime,
    /// When the phase last changed.
    pub since: WallTime,
    /// Restarts in place so far.
    pub restarts: u32,
    /// Main process, while running.
    pub pid: Option<u32>,
    /// CPUs that the running unit really has, read back after its start.
    pub effective_cpus: Option<CpuSet>,
    /// Memory nodes that the running unit really has.
    pub effective_mems: Option<CpuSet>,
    /// Why it ended.
    pub ending: Option<Ending>,
    /// The last thing that went wrong.
    pub trouble: Option<String>,
}
