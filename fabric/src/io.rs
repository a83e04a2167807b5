//! The core's alphabet: everything that can happen to a node, and everything that it can do.
//!
//! Both are closed. The agent's event loop, the simulator and a replay journal speak exactly this.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::api;
use crate::claim::Claim;
use crate::clock::Instant;
use crate::cpuset::CpuSet;
use crate::id::{AllocId, JobName, Namespace, NodeId};
use crate::job::{Health, JobSpec, Task};
use crate::message::{Datagram, Message};
use crate::quota::Quota;
use crate::table::{Entry, TokenId};
use crate::topology::Topology;

/// Correlates a request with its answer. Chosen by the agent, unique while the request is open.
pub type RequestId = u64;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The deadline of [`Node::next_deadline`](crate::node::Node::next_deadline) has passed.
    Tick,
    /// A datagram came, and was opened with a key of this fabric.
    Datagram {
        /// Who sealed it.
        from: NodeId,
        /// What was inside.
        payload: Vec<u8>,
    },
    /// A datagram from a node of the same process came: for simulators, which need not encode it.
    Heard {
        /// Who sent it.
        from: NodeId,
        /// What it said.
        datagram: Datagram,
    },
    /// A message came over an authenticated stream.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it said.
        message: Message,
    },
    /// A member may be reachable at this address: discovery or a connection says so.
    Found {
        /// Who.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// A user wants something.
    Request {
        /// Comes back with the answer.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// The unit manager says something about one of our units.
    Unit {
        /// Which allocation.
        alloc: AllocId,
        /// From [`Launch::run`]; events of an earlier run are stale.
        run: u32,
        /// What happened.
        event: UnitEvent,
    },
    /// All units of ours that the unit manager has: said once after the start of the agent.
    Units(Vec<UnitFound>),
    /// A health check was made.
    Checked {
        /// Which allocation.
        alloc: AllocId,
        /// Of which run.
        run: u32,
        /// `Err` says why it failed.
        outcome: Result<(), String>,
    },
    /// Everything up to this [`Output::Persist`] is on disk.
    Persisted {
        /// The last sequence number that is safe.
        through: u64,
    },
    /// The disk refused. The node takes no new work until a later write succeeds.
    PersistFailed {
        /// The first sequence number that was refused.
        sequence: u64,
        /// In words.
        reason: String,
    },
    /// The hardware, the share of it, or the addresses changed.
    Changed {
        /// What there is now.
        topology: Box<Topology>,
        /// Where this node can be reached, best first.
        addresses: Vec<SocketAddr>,
        /// Whether any link of this machine has a carrier and an address. Without one, the others' silence is this
        /// machine's own.
        connected: bool,
    },
    /// The agent is about to stop.
    Leaving {
        /// The machine goes with it; otherwise its units run on, and the agent will be back.
        ends: bool,
    },
    /// The others listen to another machine with this node's key. This one places and starts nothing until it is
    /// [`Renewed`](Input::Renewed); what runs here runs on.
    Superseded,
    /// This node goes on as another start of itself, as if its agent had been started anew: the others listen
    /// to it again.
    Renewed {
        /// Greater than that of every start under this node's key.
        generation: u64,
    },
}

/// A user's wish that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run this job, or this version of it.
    Submit {
        /// What.
        spec: Box<JobSpec>,
        /// Who asks.
        by: String,
        /// Refuse unless the job is at this version (0: does not exist).
        expected_version: Option<u64>,
    },
    /// Change the number of slots.
    Scale {
        /// Which job.
        job: JobName,
        /// To how many.
        count: u32,
        /// Who asks.
        by: String,
    },
    /// Replace every allocation of a job, as an update would.
    RestartJob {
        /// Which.
        job: JobName,
        /// Who asks.
        by: String,
    },
    /// Restart one slot's unit in place.
    RestartSlot {
        /// Which job.
        job: JobName,
        /// Which slot.
        index: u32,
    },
    /// Stop a job and forget it.
    Stop {
        /// Which.
        job: JobName,
    },
    /// Drain a node, or let it take work again.
    Drain {
        /// Which.
        node: NodeId,
        /// True: drain.
        on: bool,
    },
    /// Find moves that restore broken wishes or enlarge the largest hole, and perhaps make them.
    Rebalance {
        /// How many, which, and whether to make them.
        wish: api::RebalanceBody,
    },
    /// Make a token known to the fabric.
    AddToken {
        /// Its id.
        id: TokenId,
        /// SHA-256 of its secret.
        secret_hash: [u8; 32],
        /// How long it works.
        lifetime: Duration,
        /// Labels for nodes that join with it.
        labels: BTreeMap<String, String>,
    },
    /// Make a token useless.
    RevokeToken {
        /// Which.
        id: TokenId,
    },
    /// A stranger presents a token, over a stream that proved its key.
    Enrol {
        /// The stranger's key.
        node: NodeId,
        /// Its host name.
        name: String,
        /// Up to which level its agent reads.
        level: u8,
        /// The token.
        token: TokenId,
        /// SHA-256 of the secret it showed.
        secret_hash: [u8; 32],
    },
    /// Limit what a namespace may have.
    SetQuota {
        /// Which.
        namespace: Namespace,
        /// To what.
        quota: Quota,
        /// Also when something that it has would have to stop.
        force: bool,
    },
    /// Let a namespace have whatever fits.
    RemoveQuota {
        /// Which.
        namespace: Namespace,
    },
    /// Lock a node out. `new_key` becomes the newest gossip key.
    Remove {
        /// Which.
        node: NodeId,
        /// Fresh random bytes from the agent.
        new_key: [u8; 32],
        /// Also when no majority of the voters is left; those that are become the voters by decree.
        force: bool,
    },
    /// Date anew what is dated further ahead than any clock explains, everywhere.
    Reclock,
}

/// What the unit manager says of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitEvent {
    /// All that it needs is there: it may be started.
    Prepared,
    /// It runs, and these are the limits that it really has.
    Running {
        /// Main process.
        pid: u32,
        /// Read back from the kernel.
        cpus: Option<CpuSet>,
        /// Read back from the kernel.
        mems: Option<CpuSet>,
    },
    /// It is gone: by itself, or because it was stopped.
    Exited {
        /// Exit status in words: `exit status 3`, `killed by SIGKILL`, `out of memory`.
        status: String,
        /// Exit status 0.
        success: bool,
        /// It had to be killed because it outlived its stop timeout.
        killed: bool,
    },
    /// It could not be started.
    Refused {
        /// In words.
        reason: String,
    },
    /// It was not started: a program that is not the fabric's listens on a port of its claim.
    PortTaken {
        /// Which.
        port: u16,
        /// Who: `nginx (pid 812)`.
        by: String,
    },
}

/// A unit of ours that was there when the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFound {
    /// Which allocation.
    pub alloc: AllocId,
    /// Of which run.
    pub run: u32,
    /// What it is doing.
    pub event: UnitEvent,
    /// Its guard is armed and asks it to stop at this moment. `None`: it has no guard.
    #[serde(default)]
    pub lease_until: Option<Instant>,
}

/// Something to do. Most of these may be lost, see [`Output::may_be_lost`]: the tick derives them again from the state.
#[derive(Clone, Debug)]
pub enum Output {
    /// Seal and send a datagram.
    Transmit {
        /// To whom.
        to: NodeId,
        /// Where, unless the agent knows better.
        address: SocketAddr,
        /// What.
        datagram: Datagram,
    },
    /// Send a message over an authenticated stream.
    Send {
        /// To whom.
        to: NodeId,
        /// Where, unless the agent knows better.
        address: Option<SocketAddr>,
        /// What.
        message: Message,
    },
    /// Write to disk, in order, all or nothing; then say [`Input::Persisted`].
    Persist {
        /// Grows by one.
        sequence: u64,
        /// Encoded key to encoded entry, or `None` to delete.
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// Make ready what a unit needs, and say [`UnitEvent::Prepared`], or why not. Said again for a run that is being prepared,
    /// or has been started, it changes nothing.
    Prepare(Box<Launch>),
    /// Start a unit that is prepared. Starting one that is there already changes nothing.
    Start(Box<Launch>),
    /// Stop a unit: its stop signal, then after its stop timeout, kill.
    Stop {
        /// Which allocation.
        alloc: AllocId,
        /// Of which run.
        run: u32,
    },
    /// Move a running unit of the shared pool to these CPUs.
    Confine {
        /// Which allocation.
        alloc: AllocId,
        /// Of which run.
        run: u32,
        /// Where to.
        cpus: CpuSet,
    },
    /// The lease of an at-most-one unit was renewed: its guard may wait until then. May be lost; the next
    /// renewal says it again.
    Extend {
        /// Which allocation.
        alloc: AllocId,
        /// Of which run.
        run: u32,
        /// When it is asked to stop if nothing more is said.
        until: Instant,
    },
    /// Answer a request.
    Answer {
        /// From the request.
        id: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Something that others can see has changed.
    Event(api::Event),
    /// The roster or the keyring changed: ask the node for them again.
    TrustChanged,
}

impl Output {
    /// Whether it is said again until it is seen to have worked, or is news that nobody waits for. What goes to the disk is
    /// said once, in order, and so is an answer; both are as few as what asks for them.
    pub fn may_be_lost(&self) -> bool {
        match self {
            Output::Transmit { .. }
            | Output::Send { .. }
            | Output::Prepare(_)
            | Output::Start(_)
            | Output::Stop { .. }
            | Output::Confine { .. }
            | Output::Extend { .. }
            | Output::Event(_) => true,
            Output::Persist { .. } | Output::Answer { .. } | Output::TrustChanged => false,
        }
    }
}

/// A unit to start: everything the executor needs, nothing left to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Which allocation; its [`AllocId::unit`] names the unit.
    pub alloc: AllocId,
    /// Counts the starts of this allocation on this node.
    pub run: u32,
    /// This node, by name and key, for the environment.
    pub node: String,
    /// Command, environment, files; placeholders already replaced.
    pub task: Task,
    /// Limits: memory and swap in bytes, shared CPU.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// A shared CPU request is a hard quota.
    pub cpu_hard: bool,
    /// What it holds.
    pub claim: Claim,
    /// CPUs it runs on: its own, or those nobody holds.
    pub cpus: CpuSet,
    /// How to check it.
    pub health: Option<Health>,
    /// How long it may run, for at-most-one work. An executor that cannot arm a guard refuses the start.
    #[serde(default)]
    pub lease: Option<Lease>,
}

/// How long at-most-one work may run. Whatever happens to the agent, the unit is asked to stop at `until`
/// and gone at `until + stop_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// On this node's clock.
    pub until: Instant,
    /// From the job.
    pub stop_timeout: Duration,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A job was written.
    Submitted(api::Submitted),
    /// It is done, or on its way.
    Done,
    /// Moves were found, and perhaps asked for.
    Rebalanced(api::Rebalance),
    /// A stranger is a member now.
    Enrolled {
        /// Labels that come with its token.
        labels: BTreeMap<String, String>,
        /// Roster, keyring, tokens, and where the nodes are: what the newcomer needs to be heard, and to let
        /// others in. All else comes by repair.
        entries: Vec<Entry>,
    },
    /// No: nothing was changed.
    Refused(api::Problem),
}
