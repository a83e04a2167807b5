//! One run of a slot on one node: the value of `alloc/<job>/<slot>/<node>`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::claim::Claim;
use crate::clock::WallTime;
use crate::cpuset::CpuSet;
use crate::id::{AllocId, Birth, NodeId, SlotId};
use crate::job::SpecHash;
use crate::level::{self, LEVEL_MIN, Leveled, evolving};
use crate::limits;

/// How far an allocation has come. A lattice: within one epoch it only ever moves down this list. The numbers are those on
/// disk and on the wire, with room between them for phases to come; people read the names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Wanted, and proposed to a node.
    #[default]
    Pending = 0x10,
    /// The node has written the claim to its disk.
    Reserved = 0x20,
    /// The node makes ready what the unit needs. Since level 3; below, it is said to be starting.
    Preparing = 0x30,
    /// The unit manager was asked to start it.
    Starting = 0x40,
    /// The unit is active; restarts in place do not leave this phase.
    Running = 0x60,
    /// The unit was asked to end.
    Stopping = 0x80,
    /// It is over; the claim is free.
    Ended = 0xa0,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Phase; 7] = [
        Phase::Pending,
        Phase::Reserved,
        Phase::Preparing,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Ended,
    ];

    /// Whether the slot counts as filled and the claim as held by its slot.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::Reserved | Phase::Preparing | Phase::Starting | Phase::Running)
    }

    /// Whether the claim is still held: a stopping unit uses its cores until it is gone.
    pub fn holds_claim(self) -> bool {
        self.is_live() || self == Phase::Stopping
    }
}

impl Leveled for Phase {
    fn level(&self) -> u8 {
        if *self == Phase::Preparing { 3 } else { LEVEL_MIN }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Pending => "pending",
            Phase::Reserved => "reserved",
            Phase::Preparing => "preparing",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Ended => "ended",
        })
    }
}

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => serializer.serialize_u8(*self as u8),
        }
    }
}

impl<'de> Deserialize<'de> for Phase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let find = |is: &dyn Fn(&Phase) -> bool| Phase::ALL.into_iter().find(is);
        if deserializer.is_human_readable() {
            let name = Cow::<str>::deserialize(deserializer)?;
            let known = find(&|phase| phase.to_string() == *name);
            return known.ok_or_else(|| D::Error::custom(format!("there is no phase {name:?}")));
        }
        let number = u8::deserialize(deserializer)?;
        let known = find(&|phase| *phase as u8 == number);
        known.ok_or_else(|| D::Error::custom(format!("there is no phase {number}")))
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
    /// It stood in for an allocation whose node had not answered, and that one had run all along.
    Yielded {
        /// The epoch of the one that goes on.
        epoch: u64,
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
            Ending::Yielded { epoch } => {
                write!(f, "stood in for epoch {epoch}, which had run all along")
            }
            Ending::Lost => f.write_str("lost"),
            Ending::Unleased { reason } => write!(f, "no lease: {reason}"),
            Ending::LeaseLost => f.write_str("no majority of the voters renewed its lease"),
        }
    }
}

/// What was there of a slot when an allocation was proposed for it: decides which of two copies goes on when
/// they meet. See `docs/PROTOCOL.md`, 'Two allocations of one slot'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Succession {
    /// The copy of this epoch ends once this one is healthy: it was meant to take over from it, or has decided so when they met. Of
    /// earlier ones it says nothing: one that nobody could see then may have run all along. The one that it stands in for is
    /// none of them. 0: none.
    pub replaces: u64,
    /// The birth of that copy: both sides of a split may have given one epoch. 0: not said, whichever it is. Since level 3.
    #[serde(default)]
    pub replaces_birth: Birth,
    /// A copy whose node stopped answering.
    pub stands_in: Option<StandIn>,
}

impl Succession {
    /// Says which copy ends for this one.
    pub fn replace(&mut self, (epoch, birth): (u64, Birth)) {
        (self.replaces, self.replaces_birth) = (epoch, birth);
    }

    /// Whether this copy ends for this one.
    fn replaces(&self, earlier: &AllocRow) -> bool {
        self.replaces == earlier.epoch
            && match self.replaces_birth {
                Birth(0) => self.stands_in.is_none_or(|known| known.epoch != earlier.epoch),
                birth => birth == earlier.birth,
            }
    }
}

/// What follows `replaces` in binary formats. The first two are written as the option is that was there before.
#[derive(Serialize, Deserialize)]
enum Rest {
    Nothing,
    StandsIn(StandIn),
    Born(Birth, Option<StandIn>),
}

impl Serialize for Succession {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Succession::serialize(self, serializer);
        }
        let rest = match (self.replaces_birth, self.stands_in) {
            (Birth(0), None) => Rest::Nothing,
            (Birth(0), Some(stands_in)) => Rest::StandsIn(stands_in),
            (birth, stands_in) => Rest::Born(birth, stands_in),
        };
        (self.replaces, rest).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Succession {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Succession::deserialize(deserializer);
        }
        let (replaces, rest) = Deserialize::deserialize(deserializer)?;
        let (replaces_birth, stands_in) = match rest {
            Rest::Nothing => (Birth(0), None),
            Rest::StandsIn(stands_in) => (Birth(0), Some(stands_in)),
            Rest::Born(birth, stands_in) => (birth, stands_in),
        };
        Ok(Self { replaces, replaces_birth, stands_in })
    }
}

impl Leveled for Succession {
    fn level(&self) -> u8 {
        if level::is_default(&self.replaces_birth) { LEVEL_MIN } else { 3 }
    }
}

/// A copy that may run on, though nobody who was asked could see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Where it runs.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: u64,
    /// Since when it said that it was healthy. If it still says the same, it ran all along. [`StandIn::UNWELL`]: it had
    /// not said so.
    pub healthy_since: WallTime,
    /// Whoever proposed the stand-in saw more than half of the fabric.
    pub by_most: bool,
}

impl StandIn {
    /// Of a copy that was not healthy when its node stopped answering.
    pub const UNWELL: WallTime = WallTime(0);
}

/// What a node says of an allocation it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AllocRow {
    /// Grows with every placement of the slot.
    pub epoch: u64,
    /// See [`AllocId::birth`].
    pub birth: Birth,
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
    /// What it comes after; `None`: nothing was there.
    #[serde(default)]
    pub succession: Option<Box<Succession>>,
    /// It runs and is healthy although a copy of this epoch is there, which it knows of. 0: it knows of none.
    #[serde(default)]
    pub contests: u64,
    /// Its unit has run.
    #[serde(default)]
    pub ran: bool,
    /// What was there of the slot had been stopped for a new version, and no unit had run since, when this was placed.
    #[serde(default)]
    pub vacant: bool,
    /// Once it has ended, it leaves the table after so many seconds; 0: after [`limits::ENDED_KEEP`].
    #[serde(default)]
    pub keep_s: u32,
}

evolving!(AllocRow {
    epoch, birth, phase, spec, version, claim, healthy, healthy_since, since, restarts, pid,
    effective_cpus, effective_mems, ending, trouble, succession, contests, ran, vacant
} 2 { keep_s } within claim, succession, phase);

impl AllocRow {
    /// How long it is remembered once it has ended.
    pub fn keep(&self) -> Duration {
        match self.keep_s {
            0 => limits::ENDED_KEEP,
            seconds => Duration::from_secs(seconds.into()).min(limits::ENDED_KEEP_MAX),
        }
    }

    /// Whose row it is, if it is one of this slot.
    pub fn of(&self, slot: SlotId) -> AllocId {
        AllocId { slot, epoch: self.epoch, birth: self.birth }
    }

    /// Whether it is the row of `alloc`, if it is one of its slot.
    pub fn is_of(&self, alloc: &AllocId) -> bool {
        (self.epoch, self.birth) == (alloc.epoch, alloc.birth)
    }

    /// Whether that copy of its slot ends for this one.
    pub fn replaces(&self, earlier: &AllocRow) -> bool {
        self.succession.as_ref().is_some_and(|succession| succession.replaces(earlier))
    }

    /// The copy that it stands in for.
    pub fn stands_in(&self) -> Option<StandIn> {
        self.succession.as_ref().and_then(|succession| succession.stands_in)
    }
}
