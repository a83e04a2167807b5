//! One node of the fabric: all of its cluster state, and none of its sockets, clocks or disks.
//!
//! Call [`Node::handle`] with what happened, then [`Node::poll`] until it returns `None`, then wait
//! until [`Node::next_deadline`] or the next input, whichever comes first; at the deadline hand in
//! [`Input::Tick`].

use crate::api;
use crate::clock::{Instant, Now};
use crate::id::{FabricKey, JobName, NodeId};
use crate::io::{Input, Output};
use crate::job::JobSpec;
use crate::table::{Entry, Keyring, RosterEntry};
use crate::topology::NodeInfo;

/// What a node is told about itself when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its key.
    pub id: NodeId,
    /// What it tells the others.
    pub info: NodeInfo,
    /// The fabric it belongs to.
    pub fabric: FabricKey,
    /// The fabric's name, for people.
    pub fabric_name: String,
    /// Grows with every start of this node's agent: tells a restarted member from its former self.
    pub generation: u64,
    /// Seeds every random choice.
    pub seed: u64,
    /// Plants a bug, so that the simulator can show that it would have found it.
    pub canary: Option<Canary>,
}

/// Bugs on request. Never set outside the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Admission forgets the claim it gave last.
    ForgetsAClaim,
}

/// Where a node's table comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// It is the first node of a new fabric.
    Founded {
        /// The first gossip key: fresh random bytes.
        gossip_key: [u8; 32],
    },
    /// It was let in, and these came with the welcome: roster and keyring.
    Joined {
        /// From [`Answer::Enrolled`](crate::io::Answer::Enrolled).
        entries: Vec<Entry>,
    },
    /// It was here before: everything that [`Output::Persist`] wrote.
    Restored {
        /// Encoded key and encoded entry.
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    },
}

/// Counts since the start, for `/metrics` and for the simulator's checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams and messages that could not be read, or that nobody should have sent.
    pub malformed: u64,
    /// Placements proposed as coordinator.
    pub proposed: u64,
    /// Proposals accepted as target.
    pub accepted: u64,
    /// Proposals rejected as target.
    pub rejected: u64,
    /// Ticks.
    pub ticks: u64,
    /// Outputs dropped because nobody polled.
    pub outputs_dropped: u64,
}

/// One node. See the module's words for the calling order.
#[derive(Debug)]
pub struct Node {
    config: Config,
}

impl Node {
    /// A node at its start. Rows that cannot be read are left out, with a warning in the log: the
    /// others hold copies.
    pub fn new(_now: Now, config: Config, _origin: Origin) -> Self {
        Self { config }
    }

    /// Takes in what happened. The consequences come out of [`Node::poll`].
    pub fn handle(&mut self, _now: Now, _input: Input) {}

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        None
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// This node's key.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Whether `node` belongs to the fabric. Nobody else is listened to.
    pub fn is_member(&self, _node: &NodeId) -> bool {
        false
    }

    /// The nodes that belong to the fabric.
    pub fn roster(&self) -> Vec<(NodeId, RosterEntry)> {
        Vec::new()
    }

    /// The gossip keys.
    pub fn keyring(&self) -> Keyring {
        Keyring::default()
    }

    /// Where a member said it can be reached, best first.
    pub fn addresses(&self, _node: &NodeId) -> Vec<std::net::SocketAddr> {
        Vec::new()
    }

    /// The fabric at a glance.
    pub fn status(&self) -> api::FabricStatus {
        api::FabricStatus {
            name: self.config.fabric_name.clone(),
            key: self.config.fabric,
            nodes: Default::default(),
            jobs: 0,
            wanted: 0,
            healthy: 0,
            unplaceable: 0,
            fingerprint: String::new(),
            local_health: 0,
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> Vec<api::NodeView> {
        Vec::new()
    }

    /// Finds a node by name, key, or the first digits of its key.
    pub fn find_node(&self, name: &str) -> Result<NodeId, api::Problem> {
        Err(api::Problem::new(api::ProblemKind::NotFound, "no such node", name))
    }

    /// Every job, by name.
    pub fn jobs(&self) -> Vec<api::JobView> {
        Vec::new()
    }

    /// Allocations: those that hold a claim, or with `ended` all that are still remembered.
    pub fn allocs(&self, _job: Option<&JobName>, _ended: bool) -> Vec<api::AllocView> {
        Vec::new()
    }

    /// What a submit of `spec` would do. Changes nothing.
    pub fn plan(&self, _now: Now, spec: &JobSpec) -> Result<api::Plan, api::Problem> {
        Err(api::Problem::new(api::ProblemKind::Invalid, "no plan", spec.name.as_str()))
    }

    /// Why each slot of `job` is where it is.
    pub fn explain(&self, _now: Now, job: &JobName) -> Result<api::Explanation, api::Problem> {
        Err(api::Problem::new(api::ProblemKind::NotFound, "no such job", job.as_str()))
    }

    /// Tokens that still work.
    pub fn tokens(&self, _now: Now) -> Vec<api::TokenView> {
        Vec::new()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
