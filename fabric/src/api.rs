//! What `/v1` speaks: the JSON types that the agent answers with and the command line reads.
//!
//! Every field is always present; `null` means 'not known' or 'none'. Times are milliseconds since
//! 1970, memory is bytes, CPU shares are thousandths of a CPU.

mod hardware;
mod trace;

pub use hardware::{BusDevice, Disk, Hardware, Interface, Sensor};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::alloc::{AllocRow, Phase};
use crate::clock::WallTime;
use crate::id::{AllocId, FabricKey, JobName, Namespace, NodeId, SlotId};
use crate::job::{JobKind, JobSpec};
use crate::quota::{Amount, Quota};
use crate::resources::Rejection;
use crate::table::TokenId;
use crate::topology::NodeInfo;

pub use trace::{TraceBody, TraceEvent, TraceWhat, Traced, TracedCall};

/// An error, as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// Names the kind of error: one of the [`ProblemKind`]s.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What went wrong, in a few words.
    pub title: String,
    /// Why, and what to do next.
    pub detail: String,
    /// HTTP status.
    pub status: u16,
}

/// Kinds of errors. The command line's exit codes follow from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request makes no sense: 400.
    Invalid,
    /// The caller may not do that: 403.
    Forbidden,
    /// There is no such thing: 404.
    NotFound,
    /// Not at this state: 409 (wrong version, already a member, not a member yet).
    Conflict,
    /// Too large: 413.
    TooLarge,
    /// A bug or a broken machine: 500.
    Internal,
    /// Another node is needed and does not answer: 502.
    Unreachable,
    /// This node cannot do it now: 503 (disk full, no fabric yet).
    Unavailable,
}

impl Problem {
    /// A problem of `kind`.
    pub fn new(kind: ProblemKind, title: impl Into<String>, detail: impl Into<String>) -> Self {
        let status = match kind {
            ProblemKind::Invalid => 400,
            ProblemKind::Forbidden => 403,
            ProblemKind::NotFound => 404,
            ProblemKind::Conflict => 409,
            ProblemKind::TooLarge => 413,
            ProblemKind::Internal => 500,
            ProblemKind::Unreachable => 502,
            ProblemKind::Unavailable => 503,
        };
        Self { kind, title: title.into(), detail: detail.into(), status }
    }
}

/// `GET /v1/status`: this node and its fabric at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The fabric it belongs to; `null` before `init` or `join`.
    pub fabric: Option<FabricStatus>,
    /// `systemd` or `direct`.
    pub executor: String,
    /// Why that one.
    pub executor_reason: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Things to look at, in words; empty when all is well.
    pub warnings: Vec<String>,
}

/// The fabric as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricStatus {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: FabricKey,
    /// Nodes by state.
    pub nodes: BTreeMap<NodeState, u32>,
    /// Jobs.
    pub jobs: u32,
    /// Slots that are wanted.
    pub wanted: u32,
    /// Slots with a healthy allocation.
    pub healthy: u32,
    /// Slots for which no node was found.
    pub unplaceable: u32,
    /// Fingerprint of the whole table: equal on nodes with equal views.
    pub fingerprint: String,
    /// Local health multiplier: 0 is well, more means that this node is slow to react.
    pub local_health: u32,
    /// The level that it has reached: what all of its agents can read.
    #[serde(default)]
    pub level: u8,
    /// Members whose agents hold it back from what this one can read, by name.
    #[serde(default)]
    pub held_back_by: Vec<String>,
    /// Who grants leases to at-most-one work.
    #[serde(default)]
    pub voters: VotersView,
    /// Members that are not up because their agents have stopped and will be back, as they said, and for which the others wait a
    /// little, by name. Their units run on.
    #[serde(default)]
    pub stopped_agents: Vec<String>,
    /// Slots that were healthy there and run on: at-most-one work does not, for longer than its lease.
    #[serde(default)]
    pub left_to_them: u32,
    /// The node that was asked was removed: what it knows of the others is from before.
    #[serde(default)]
    pub removed: bool,
}

/// Who grants leases to at-most-one work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotersView {
    /// Grows with each change of the set; 0: none is known.
    pub generation: u64,
    /// How many of them decide.
    pub majority: u32,
    /// The voters.
    pub members: Vec<VoterView>,
}

/// One voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterView {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// How it is doing, as gossip sees it; `dead` also for one that was removed or lost its disk.
    pub state: NodeState,
    /// It votes and runs nothing.
    pub witness: bool,
}

impl VotersView {
    /// How many of them answer.
    pub fn answering(&self) -> usize {
        let answers = |state| matches!(state, NodeState::Alive | NodeState::Suspect);
        self.members.iter().filter(|voter| answers(voter.state)).count()
    }

    /// Whether at-most-one work can start and go on, as far as gossip sees.
    pub fn can_decide(&self) -> bool {
        self.majority > 0 && self.answering() >= self.majority as usize
    }
}

/// How a node is doing, as gossip sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It answers.
    Alive,
    /// It did not answer the last time.
    Suspect,
    /// It is confirmed gone.
    Dead,
    /// It said goodbye.
    Left,
    /// In the roster, never seen by this node.
    Unknown,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NodeState::Alive => "alive",
            NodeState::Suspect => "suspect",
            NodeState::Dead => "dead",
            NodeState::Left => "left",
            NodeState::Unknown => "unknown",
        })
    }
}

/// One node. `GET /v1/nodes` answers a list of these, `GET /v1/nodes/{name or id}` one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its key.
    pub id: NodeId,
    /// Its name; made unique with the key's first digits where two nodes share a host name.
    pub name: String,
    /// How it is doing.
    pub state: NodeState,
    /// Whether this is the node that answers.
    pub local: bool,
    /// What it says of itself; `null` when it has not said anything yet.
    pub info: Option<NodeInfo>,
    /// What it has left.
    pub free: Free,
    /// Allocations that hold a claim on it.
    pub allocs: Vec<AllocView>,
}

/// What a node has left to give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// Physical cores that nobody holds.
    pub cores: u32,
    /// Their CPUs.
    pub cpus: crate::cpuset::CpuSet,
    /// Shared CPU in thousandths.
    pub shared_millis: u32,
    /// Bytes.
    pub memory: u64,
    /// Device paths.
    pub devices: Vec<String>,
    /// Bytes of disk.
    #[serde(default)]
    pub disk: u64,
}

/// One allocation. `GET /v1/allocs[?job=NAME][&all=true]` answers a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocView {
    /// Slot and epoch.
    pub id: AllocId,
    /// Its node.
    pub node: NodeId,
    /// Its node's name.
    pub node_name: String,
    /// How its node is doing.
    pub node_state: NodeState,
    /// Its node is not up because its agent has stopped and will be back, as it said: the unit runs on, as far as anybody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent_stopped: bool,
    /// An address of its node, for people who want to talk to one of its ports.
    pub address: Option<SocketAddr>,
    /// The unit's name.
    pub unit: String,
    /// Runs the spec that is in force.
    pub current: bool,
    /// What the node says.
    pub row: AllocRow,
}

/// One job. `GET /v1/jobs` answers a list of these, `GET /v1/jobs/{name}` one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub name: JobName,
    /// Its kind.
    pub kind: JobKind,
    /// The spec in force.
    pub spec: JobSpec,
    /// Version in force.
    pub version: u64,
    /// Who submitted it.
    pub by: String,
    /// When, by that node's clock.
    pub submitted: WallTime,
    /// Slots wanted (for a system job: matching nodes).
    pub wanted: u32,
    /// Slots with a running allocation.
    pub running: u32,
    /// Slots with a healthy allocation of the version in force.
    pub healthy: u32,
    /// The node that looks after it.
    pub coordinator: Option<NodeId>,
    /// Where it stands.
    pub state: JobState,
    /// Why it is not where it should be; `null` when it is.
    pub reason: Option<String>,
    /// The allocation that failed, where the version submitted last was reverted for it; absent where this node knows of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedVersion>,
    /// The version that comes back into force if the one that is being rolled out fails; absent: this one is not taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_to: Option<u64>,
}

/// An allocation of a version that was reverted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedVersion {
    /// The version.
    pub version: u64,
    /// One of its allocations that failed.
    pub alloc: AllocId,
    /// Where it was.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// Why it failed.
    pub reason: String,
}

/// A version of a job whose spec the fabric still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobVersion {
    /// Its number.
    pub version: u64,
    /// Whether it is the one that runs, or should.
    pub in_force: bool,
    /// What it says.
    pub spec: JobSpec,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Every slot has a healthy allocation of the version in force.
    Healthy,
    /// On its way.
    Progressing,
    /// Some slots have no node that could take them.
    Unplaceable,
    /// Allocations fail or are unhealthy.
    Failing,
    /// The last submit failed, and the version before is in force (and may be healthy again).
    Reverted,
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            JobState::Healthy => "healthy",
            JobState::Progressing => "progressing",
            JobState::Unplaceable => "unplaceable",
            JobState::Failing => "failing",
            JobState::Reverted => "reverted",
        })
    }
}

/// `PUT /v1/jobs/{name}`, and all else that writes a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its name.
    pub job: JobName,
    /// The version it has now.
    pub version: u64,
    /// False: it was like that already, nothing was written.
    pub changed: bool,
    /// Nodes that hold it on disk.
    pub held_by: u32,
    /// Nodes that could.
    pub members: u32,
}

/// `POST /v1/plan`: what an apply would do. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub job: JobName,
    /// The version in force; 0: new.
    pub version: u64,
    /// Lines of the spec that change: path, before, after.
    pub changes: Vec<SpecChange>,
    /// What happens to each slot.
    pub slots: Vec<SlotPlan>,
    /// Why slots cannot be placed, node by node; empty when all can.
    pub unplaceable: Vec<Verdict>,
    /// What will work and is worth knowing, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One difference between two specs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecChange {
    /// Where: `resources.memory`.
    pub path: String,
    /// As JSON text; `null`: was not there.
    pub before: Option<String>,
    /// As JSON text; `null`: will not be there.
    pub after: Option<String>,
}

/// What an apply would do to one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPlan {
    /// Which slot.
    pub index: u32,
    /// What happens.
    pub action: SlotAction,
    /// Where it would run by the view of the node that answers; `null`: nowhere.
    pub node: Option<String>,
    /// Less important allocations on that node that would have to make room first.
    pub displaces: Vec<AllocId>,
}

/// What happens to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotAction {
    /// Stays as it is.
    Keep,
    /// Is started.
    Start,
    /// Is replaced.
    Replace,
    /// Is stopped.
    Stop,
}

/// `GET /v1/jobs/{name}/explain`: why each slot is where it is, or why it is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its name.
    pub job: JobName,
    /// The node that looks after it.
    pub coordinator: Option<NodeId>,
    /// Its slots.
    pub slots: Vec<SlotExplanation>,
    /// Each node's answer to one more slot of this job, best first.
    pub nodes: Vec<Verdict>,
    /// Who grants its leases; `null` for a job that needs none.
    #[serde(default)]
    pub voters: Option<VotersView>,
}

/// One slot of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotExplanation {
    /// Which.
    pub index: u32,
    /// What fills it, and what filled it before, newest first.
    pub allocs: Vec<AllocView>,
    /// What is being done about it, in words.
    pub doing: String,
}

/// `GET /v1/quotas`: one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaView {
    /// Its name.
    pub namespace: Namespace,
    /// What it may have.
    pub quota: Quota,
    /// What it has, by the view of the node that answers.
    pub used: Amount,
}

/// `PUT /v1/quotas/{namespace}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetQuota {
    /// What it may have.
    pub quota: Quota,
    /// Also when something that it has would have to stop.
    #[serde(default)]
    pub force: bool,
}

/// Something that happened. `GET /v1/events` streams these as server-sent events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the clock of `node`.
    pub at: WallTime,
    /// Where it was seen.
    pub node: NodeId,
    /// What about.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum EventKind {
    /// A node changed its state.
    Node {
        /// Which.
        subject: NodeId,
        /// Its name.
        name: String,
        /// How it is doing now.
        state: NodeState,
    },
    /// A job was submitted, scaled, reverted or stopped.
    Job {
        /// Which.
        job: JobName,
        /// Which version.
        version: u64,
        /// In words.
        message: String,
    },
    /// An allocation moved on.
    Alloc {
        /// Which.
        alloc: AllocId,
        /// Where.
        on: NodeId,
        /// To where.
        phase: Phase,
        /// Healthy.
        healthy: bool,
        /// In words.
        message: String,
    },
    /// A node joined or was removed.
    Roster {
        /// Which.
        subject: NodeId,
        /// Its name.
        name: String,
        /// In words.
        message: String,
    },
}

/// `POST /v1/fabric/init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// A name for people; `weft` if absent.
    #[serde(default)]
    pub name: Option<String>,
}

/// `POST /v1/fabric/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// `weft1.<hash>.<id>.<secret>`.
    pub token: String,
    /// A member to ask; found by discovery if absent.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

/// The answer to `init` and `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The fabric's name.
    pub fabric: String,
    /// The fabric's key.
    pub key: FabricKey,
    /// This node.
    pub node: NodeId,
    /// The member that let it in; `null` for the first.
    pub by: Option<String>,
}

/// `POST /v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// `1h`; one hour if absent.
    #[serde(default)]
    pub lifetime: Option<String>,
    /// Labels for nodes that join with it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The answer: the only time the secret is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// `weft1.<hash>.<id>.<secret>`.
    pub token: String,
    /// For revoking it.
    pub id: TokenId,
    /// When it stops working.
    pub expires: WallTime,
}

/// `GET /v1/tokens`: one of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// When it stops working.
    pub expires: WallTime,
    /// Labels for nodes that join with it.
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/rebalance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RebalanceBody {
    /// Make the moves; otherwise they are only shown.
    pub apply: bool,
    /// How many at most.
    pub max_moves: u32,
    /// Also allocations of at-most-one jobs, which are stopped before they start elsewhere.
    pub at_most_one: bool,
}

impl Default for RebalanceBody {
    fn default() -> Self {
        Self { apply: false, max_moves: 10, at_most_one: false }
    }
}

/// The answer to [`RebalanceBody`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Whether the moves were asked for. They are made by and by: `max_parallel` of a job at a time.
    pub applied: bool,
    /// In the order in which they make sense.
    pub moves: Vec<MoveView>,
    /// The largest holes now.
    pub before: HolesView,
    /// And after all moves.
    pub after: HolesView,
}

/// One move of a [`Rebalance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveView {
    /// Which slot.
    pub slot: SlotId,
    /// From which node.
    pub from: NodeId,
    /// Its name.
    pub from_name: String,
    /// To which node.
    pub to: NodeId,
    /// Its name.
    pub to_name: String,
    /// What it is good for, in words.
    pub gain: String,
}

/// The largest holes of a fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolesView {
    /// Free whole cores on one memory node.
    pub cores: u64,
    /// Bytes of free memory of one node, rounded up to MiB.
    pub memory: u64,
}

/// `POST /v1/jobs/{name}/scale`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// To how many slots.
    pub count: u32,
}

/// `POST /v1/jobs/{name}/restart`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartBody {
    /// One slot, in place; all of them, as an update would, if absent.
    #[serde(default)]
    pub slot: Option<u32>,
}

/// `POST /v1/nodes/{name or id}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    /// False: take work again.
    pub on: bool,
}

/// `POST /v1/nodes/{name or id}/upgrade`: an update that is to be brought to a node that starts from an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBody {
    /// Of the update: 1 to 16 of letters, digits and `.~+-`.
    pub version: String,
    /// For which architecture: `x86_64` or `aarch64`.
    pub arch: String,
    /// Length of the file.
    pub bytes: u64,
    /// All of it is there: write it into the other slot and restart. Otherwise: begin, or go on with what is there.
    #[serde(default)]
    pub install: bool,
}

/// How far an update of a node has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeView {
    /// What runs: the version of its image.
    pub running: String,
    /// Bytes of the update that the node has.
    pub have: u64,
    /// What the last installation said, in words; empty: there was none since the start of the node.
    pub said: String,
}

/// `GET /v1/doctor`: one finding of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: `disk`, `clock`, `cgroup`, `discovery`, `peers`.
    pub check: String,
    /// Whether it is well.
    pub level: FindingLevel,
    /// What was seen.
    pub message: String,
    /// What to do about it; empty when all is well.
    pub advice: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingLevel {
    /// As it should be.
    Ok,
    /// Works, but less well than it could.
    Warning,
    /// Does not work.
    Error,
}

/// What a node makes of a slot: whether it would take it, and how gladly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Why it will not take the slot; `None`: it would.
    pub rejection: Option<Rejection>,
    /// How good it is, among those that would.
    pub score: Option<i64>,
}
