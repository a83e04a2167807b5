//! One node of the simulated fabric: a machine with its clocks, disk and unit manager, and an agent that
//! may be running or not.

use fabric::clock::Instant;
use fabric::id::{AllocId, NodeId};
use fabric::level::LEVEL;
use fabric::limits;
use fabric::node::Handover;
use fabric::table::{Bounds, Keyring};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::VirtualClock;
use crate::disk::Disk;
use crate::gate::Gate;
use crate::machines::Hardware;
use crate::units::{Unit, UnitManager};

/// The agent's port on every machine.
const PORT: u16 = 7474;

/// A machine and its agent. What is not in `agent` survives the agent; `disk` and what stands above it
/// survive the machine's power.
pub struct SimNode {
    /// Host name.
    pub name: String,
    /// What it is made of.
    pub hardware: Hardware,
    /// Where its agent listens, whatever its identity.
    pub address: SocketAddr,
    /// Its key. A machine that loses its disk gets another one.
    pub identity: NodeId,
    /// It was let into the fabric under this identity.
    pub joined: bool,
    /// Up to which level its agent reads: as new as it is, or older until it is upgraded.
    pub level: u8,
    /// How much its table holds.
    pub bounds: Bounds,
    /// Starts of its agent, over all identities.
    pub generation: u64,
    /// Both clocks.
    pub clock: VirtualClock,
    /// What it wrote.
    pub disk: Disk,
    /// What an agent that ended in good order has left in memory for the next one, and when.
    pub handover: Option<(Handover, Instant)>,
    /// Gone when the power goes.
    pub units: UnitManager,
    /// Whether the machine is on.
    pub powered: bool,
    /// Gone when the agent dies.
    pub agent: Option<Agent>,
    /// The agent does nothing before this: the machine is too busy to run it.
    pub paused_until: Duration,
    /// The whole machine does nothing before this, its units neither: somebody stopped it.
    pub frozen_until: Duration,
    /// Whether its cable is plugged in.
    pub connected: bool,
    /// Commands to the unit manager that get lost, in thousandths.
    pub lost_commands_permille: u32,
}

/// A running agent: the core, and what the real agent keeps beside it.
pub struct Agent {
    /// The real thing.
    pub core: fabric::node::Node,
    /// Whom it listens to, as of the last [`TrustChanged`](fabric::io::Output::TrustChanged).
    pub roster: BTreeSet<NodeId>,
    /// Which keys it seals and opens with, likewise.
    pub keyring: Keyring,
    /// What it remembers of those who send to it.
    pub gate: Gate,
    /// Datagrams that it has sealed.
    pub sealed: u64,
    /// When it will be woken, and which wake-up that is: later ones make earlier ones void.
    pub wake: Option<(Duration, u64)>,
    /// When it started.
    pub started: Duration,
    /// Last sequence number of a write.
    pub sequence: Option<u64>,
    /// Units that it checks: the run that the last start command was about.
    pub checks: BTreeMap<AllocId, u32>,
    /// Allocations that it claimed something for in this life.
    pub claimed: BTreeSet<AllocId>,
}

impl Agent {
    /// Around a core that has just started.
    pub fn new(core: fabric::node::Node, started: Duration) -> Self {
        let (roster, keyring) = (BTreeSet::new(), Keyring::default());
        let mut agent = Self {
            core,
            roster,
            keyring,
            gate: Gate::default(),
            sealed: 0,
            wake: None,
            started,
            sequence: None,
            checks: BTreeMap::new(),
            claimed: BTreeSet::new(),
        };
        agent.trust_changed();
        agent
    }

    /// Asks the core again whom to trust.
    pub fn trust_changed(&mut self) {
        self.roster = self.core.roster().into_iter().map(|(node, _)| node).collect();
        self.keyring = self.core.keyring();
    }

    /// The id of the key that seals.
    pub fn sealing_key(&self) -> Option<u32> {
        self.keyring.keys.keys().next_back().copied()
    }
}

impl SimNode {
    /// The machine with this index, switched off, with an empty disk.
    pub fn new(index: usize, name: String, hardware: Hardware, random: &mut ChaCha8Rng) -> Self {
        Self {
            name,
            hardware,
            address: address(index),
            identity: fresh_identity(random),
            joined: false,
            level: LEVEL,
            bounds: Bounds::default(),
            generation: 0,
            clock: VirtualClock::new(Duration::from_secs(100 * (1 + index as u64))),
            disk: Disk::default(),
            handover: None,
            units: UnitManager::new(ChaCha8Rng::from_rng(random)),
            powered: true,
            agent: None,
            paused_until: Duration::ZERO,
            frozen_until: Duration::ZERO,
            connected: true,
            lost_commands_permille: 0,
        }
    }

    /// The core, while the agent runs.
    pub fn core(&self) -> Option<&fabric::node::Node> {
        self.agent.as_ref().map(|agent| &agent.core)
    }

    /// Whether a unit there could do something at this moment. A machine that stands still does nothing,
    /// and what it does in the moment between its resuming and its guards' kill is what fencing tokens
    /// are for.
    pub fn is_live(&self, unit: &Unit, time: Duration) -> bool {
        let at = self.clock.read(time).at;
        let overdue = unit.guard.is_some_and(|guard| guard.kill_at() <= at);
        let resumed = time < self.frozen_until + limits::LEASE_SLACK;
        unit.is_there() && self.frozen_until <= time && !(overdue && resumed)
    }

    /// Whether its agent runs and gets to do something.
    pub fn is_awake(&self, time: Duration) -> bool {
        self.agent.is_some() && self.paused_until <= time
    }
}

/// The address with this number, in a network large enough for all.
pub fn address(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number as u32), PORT))
}

/// A key that nobody had before.
pub fn fresh_identity(random: &mut ChaCha8Rng) -> NodeId {
    let mut key = [0; 32];
    rand::Rng::fill_bytes(random, &mut key);
    NodeId(key)
}
