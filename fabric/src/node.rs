//! One node of the fabric: all of its cluster state, and none of its sockets, clocks or disks.
//!
//! Call [`Node::handle`] with what happened, then [`Node::poll`] until it returns `None`, then wait
//! until [`Node::next_deadline`] or the next input, whichever comes first; at the deadline hand in
//! [`Input::Tick`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::admission::Ledger;
use crate::api::{self, NodeState};
use crate::clock::{Instant, Now, WallTime};
use crate::gossip::{self, Parcel};
use crate::id::{FabricKey, JobName, NodeId};
use crate::io::{Answer, Input, Output, UnitEvent};
use crate::limits;
use crate::membership::{Change, Formed, Identity, Membership};
use crate::message::{Datagram, Message};
use crate::signature::Signer;
use crate::stamp::HybridClock;
use crate::supervisor::{Record, Supervisor};
use crate::table::{Bounds, Entry, Key, Keyring, Order, RosterEntry, SharedEntry, Table, Value};
use crate::timekeeper::Timekeeper;
use crate::topology::NodeInfo;

mod clocks;
mod coordinate;
mod copies;
mod detours;
mod doubt;
mod duties;
mod failures;
mod flaps;
mod gangs;
mod informed;
mod leases;
mod levels;
mod pending;
mod persistence;
mod preempt;
mod quotas;
mod rebalance;
mod replica;
mod requests;
mod rollout;
mod slots;
mod snapshot;
mod tombstones;
mod views;
mod writers;

use coordinate::Coordinator;
use detours::Detours;
use duties::Duties;
use informed::Informed;
pub use informed::Waits;
pub use leases::Handover;
use leases::Leases;
use levels::Levels;
pub use persistence::{disk_on_disk, level_on_disk};
use preempt::Preemption;
use quotas::Quotas;
use replica::{Changed, Replica};
use requests::Requests;
pub use snapshot::Snapshot;
use writers::{Brought, Writers};

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
    /// Signs in this node's name.
    pub signer: Arc<dyn Signer>,
    /// Grows with every start of this node's agent: tells a restarted member from its former self.
    pub generation: u64,
    /// Seeds every random choice.
    pub seed: u64,
    /// Plants a bug, so that the simulator can show that it would have found it.
    pub canary: Option<Canary>,
    /// Up to which level it reads and writes: [`crate::level::LEVEL`], or less to act as an older agent.
    pub level: u8,
    /// How much its table holds. Smaller ones than the default are for the simulator.
    pub bounds: Bounds,
}

/// Bugs on request. Never set outside the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Allocations have no birth: slot and epoch are all that tells them apart.
    KnowsNoBirths,
    /// Admission forgets the claim it gave last.
    ForgetsAClaim,
    /// A holder keeps a lease one drift bound too long.
    HoldsALeaseTooLong,
    /// A voter answers at once after its restart.
    VoterForgets,
    /// Of two copies of a slot the one with the higher epoch goes on, whatever it came after.
    HigherEpochWins,
    /// What nobody that was heard since the start runs is placed at once.
    PlacesUnheard,
    /// A node whose link is back believes at once that whoever it has not found is gone, and one that has just heard
    /// another what others say of it.
    TakesOverUnmet,
    /// A node that was removed does not listen to whoever says so.
    DeafToRemoval,
    /// An agent hands in what was sealed for another node.
    IgnoresReceivers,
    /// A roll-out stops what runs without a look at where its successor could go.
    RetiresWithoutAPlace,
    /// What cannot be said straight is not said at all.
    KnowsNoDetours,
    /// A node stamps with its own clock, whatever it shows, and takes whatever others stamp.
    BelievesEveryClock,
    /// A node writes whatever it can read itself.
    WritesAnyLevel,
    /// A tombstone leaves after ten seconds, whoever has seen it.
    ForgetsDeletions,
    /// A node takes every row for the writing of the node that it names.
    TakesUnsigned,
    /// Ledgers count disk that was given away as free.
    ForgetsDisk,
    /// A unit is started before what it needs is ready.
    StartsUnprepared,
    /// Rows of allocations that have ended stay.
    KeepsWhatEnded,
    /// What a full table refuses is answered as done.
    IgnoresFull,
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
        /// From [`Answer::Enrolled`].
        entries: Vec<Entry>,
    },
    /// It was here before: everything that [`Output::Persist`] wrote.
    Restored {
        /// Encoded key and encoded entry.
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        /// From [`Node::hand_over`] of the life before, aged since; `None`: nothing was kept.
        handover: Option<Handover>,
    },
    /// It is one of many that begin with the same table and know each other: for simulators.
    Formed {
        /// The table, this node's own rows included.
        table: Box<Table>,
        /// What this node's allocations in the table run.
        records: Vec<Record>,
        /// Everybody.
        members: Formed,
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
    /// Entries refused because their stamps are too far ahead.
    pub ahead: u64,
    /// Entries refused because the nodes that they name did not sign them.
    pub forged: u64,
    /// Entries left out because they came in a datagram and name no member as their writer.
    pub strange: u64,
}

/// One node. See the module's words for the calling order.
///
/// Architecture invariant: the table is changed by `merge_in`, to which `write` and `take_in` lead, together with everything
/// that is derived from it: `Replica` lets nobody change one without the other. `follow` then does what follows beside that.
pub struct Node {
    config: Config,
    /// What it says of itself.
    info: NodeInfo,
    /// The table, and what is derived from it.
    replica: Replica,
    time: Time,
    others: Others,
    rng: ChaCha8Rng,
    supervisor: Supervisor,
    coordinator: Coordinator,
    duties: Duties,
    preemption: Preemption,
    quotas: Quotas,
    requests: Requests,
    leases: Leases,
    writers: Writers,
    levels: Levels,
    outputs: VecDeque<Output>,
    counters: Counters,
    timers: Timers,
    standing: Standing,
}

/// What time it is.
#[derive(Clone, Debug)]
struct Time {
    /// Stamps.
    clock: HybridClock,
    timekeeper: Timekeeper,
    /// What this machine's wall clock showed last.
    own_wall: WallTime,
    /// When that was: now, for whoever only looks.
    looked: Instant,
}

/// What this node makes of the other members: who answers, who is believed to be gone, and what it can know of them.
struct Others {
    membership: Membership,
    doubt: doubt::Doubt,
    flaps: flaps::Flaps,
    informed: Informed,
    detours: Detours,
}

impl Others {
    /// Whether a node answers, if it is a member.
    fn answers(&self, node: &NodeId) -> bool {
        matches!(self.membership.state(node), NodeState::Alive | NodeState::Suspect)
    }
}

/// Whether what this node knows is good enough to act on.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// The table is as good as the others': set once, some time after the start.
    synced: bool,
    /// Repair under way.
    repairing: Option<Repairing>,
    /// The others listen to another machine with our key.
    superseded: bool,
}

/// A repair under way.
#[derive(Clone, Copy, Debug)]
struct Repairing {
    /// From whom entries are expected.
    from: NodeId,
    /// The tables differ in more than was described.
    in_part: bool,
}

/// What happens at times rather than on occasions.
#[derive(Clone, Debug)]
struct Timers {
    started: Instant,
    last_tick: Instant,
    repair: Instant,
    rejoin: Instant,
    reconcile: Instant,
    expire: Instant,
    purge: Instant,
    trim_keyring: Option<Instant>,
    /// When what is dated ahead is dated anew because somebody asked for it.
    restamp: Option<Instant>,
    /// There is something to do: the next tick comes as soon as it may.
    soon: bool,
}

impl Node {
    /// A node at its start. Rows that cannot be read are left out, with a warning in the log: the
    /// others hold copies.
    pub fn new(now: Now, config: Config, origin: Origin) -> Self {
        let seed = |salt: u64| config.seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let address = config.info.addresses.first().copied();
        let identity = Identity {
            node: config.id,
            generation: config.generation,
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        };
        let forgets_disk = config.canary == Some(Canary::ForgetsDisk);
        let ledger = Ledger::new(&config.info.topology).forgetting_disk(forgets_disk);
        let mut node = Self {
            info: config.info.clone(),
            replica: Replica::new(config.id, forgets_disk, config.bounds),
            time: Time {
                clock: HybridClock::new(config.id, 0),
                timekeeper: Timekeeper::new(config.canary == Some(Canary::BelievesEveryClock)),
                own_wall: now.wall,
                looked: now.at,
            },
            others: Others {
                membership: match &origin {
                    Origin::Formed { members, .. } => {
                        Membership::formed(now.at, identity, seed(2), members)
                    }
                    _ => Membership::new(now.at, identity, seed(2)),
                },
                doubt: doubt::Doubt::default(),
                flaps: flaps::Flaps::default(),
                informed: Informed::new(now.at),
                detours: Detours::default(),
            },
            rng: ChaCha8Rng::seed_from_u64(seed(1)),
            supervisor: Supervisor::new(now.at, config.info.name.clone(), ledger)
                .on_arch(&config.info.topology.arch),
            coordinator: Coordinator::default(),
            duties: Duties::default(),
            preemption: Preemption::default(),
            quotas: Quotas::default(),
            requests: Requests::default(),
            leases: Leases::new(now.at, &config, seed(3)),
            writers: Writers::default(),
            levels: Levels::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            timers: Timers {
                started: now.at,
                last_tick: now.at,
                repair: now.at + limits::REPAIR_INTERVAL,
                rejoin: now.at,
                reconcile: now.at + limits::RECONCILE_INTERVAL,
                expire: now.at + limits::TICK_MAX,
                purge: now.at + limits::PURGE_LOOK,
                trim_keyring: None,
                restamp: None,
                soon: true,
            },
            standing: Standing::default(),
            config,
        };
        node.take_origin(now, origin);
        node.outputs.push_back(Output::TrustChanged);
        node
    }

    fn take_origin(&mut self, own: Now, origin: Origin) {
        let mut now = own;
        self.info.incarnation = self.leases.incarnation();
        self.info.level = self.config.level;

        match origin {
            Origin::Founded { gossip_key } => {
                let me = RosterEntry {
                    name: self.info.name.clone(),
                    vouched_by: self.config.id,
                    joined: now.wall,
                };
                let keyring = Keyring { keys: BTreeMap::from([(1, gossip_key)]) };
                self.write(now, Key::Keyring, Value::Keyring(keyring));
                self.write(now, Key::Roster(self.config.id), Value::Roster(me));
                self.found_voters(now);
                self.standing.synced = true;
                self.others.informed.settle();
            }
            Origin::Joined { entries } => {
                // Whoever let us in knows the time, whatever the clock here shows.
                now = self.wake_up(own, entries.iter().cloned());
                for entry in entries.into_iter().map(SharedEntry::from) {
                    let welcome = Brought::WithWelcome;
                    if !entry.key.is_signed() || !self.refuses_writer(now, welcome, &entry) {
                        self.merge_in(now, entry, true);
                    }
                }
            }
            Origin::Restored { rows, handover } => {
                self.restore(now, rows);
                if let Some(handover) = handover {
                    self.take_over(now, handover);
                }
                self.open_accounts();
            }
            Origin::Formed { table, records, .. } => {
                self.begin_with(now, *table, records);
                self.open_accounts();
                if self.replica.node(&self.config.id) == Some(&self.readable_info()) {
                    return;
                }
            }
        }
        now = self.read_clocks(own);
        self.info.reached = self.levels.reached();
        self.publish_info(now);
        self.remember_voter();
    }

    /// Takes in what happened. The consequences come out of [`Node::poll`].
    pub fn handle(&mut self, now: Now, input: Input) {
        // From here on the wall clock is the fabric's.
        let now = self.read_clocks(now);
        match input {
            Input::Tick => {}
            Input::Datagram { from, payload } => {
                if from == self.config.id {
                    // Sent to a former self at our own address.
                } else if self.replica.is_member(&from) {
                    self.hear(now, from);
                    self.handle_datagram(now, from, &payload);
                } else {
                    self.counters.malformed += 1;
                }
            }
            Input::Heard { from, datagram } => {
                if from != self.config.id && self.replica.is_member(&from) {
                    self.hear(now, from);
                    self.take_datagram(now, from, datagram);
                }
            }
            Input::Message { from, message } => {
                if from == self.config.id {
                    // Sent to a former self at our own address.
                } else if self.replica.is_member(&from) {
                    self.hear(now, from);
                    self.hear_straight(&from);
                    self.handle_message(now, from, message);
                } else {
                    self.counters.malformed += 1;
                }
            }
            Input::Found { node, address } => self.handle_found(now, node, address),
            Input::Request { id, request } => self.handle_request(now, id, request),
            Input::Unit { alloc, run, event } => {
                match &event {
                    UnitEvent::Refused { reason } => {
                        tracing::warn!(%alloc, reason, "unit refused");
                    }
                    UnitEvent::PortTaken { port, by } => {
                        tracing::warn!(%alloc, port, by, "unit not started: another program listens on its port");
                    }
                    _ => {}
                }
                self.supervisor.unit(now, &alloc, run, event);
                self.timers.soon = true;
            }
            Input::Units(units) => {
                self.supervisor.units_found(now, units);
                self.timers.soon = true;
            }
            Input::Checked { alloc, run, outcome } => {
                self.supervisor.checked(now, &alloc, run, outcome);
                self.timers.soon = true;
            }
            Input::Leaving { ends } => self.say_goodbye(ends),
            Input::Persisted { through } => self.handle_persisted(now, through),
            Input::PersistFailed { sequence, reason } => {
                self.handle_persist_failed(now, sequence, reason);
            }
            Input::Changed { topology, addresses, connected } => {
                self.others.informed.link(now.at, connected);
                self.supervisor.topology_changed(&topology);
                self.info.topology = *topology;
                self.info.addresses = addresses;
                if let Some(address) = self.info.addresses.first() {
                    self.others.membership.relocate(now.at, *address);
                }
                self.publish_info(now);
            }
            Input::Superseded => self.standing.superseded = true,
            Input::Renewed { generation } => {
                // What is known of the others is from before: as after a start.
                (self.standing.superseded, self.standing.synced, self.timers.started) =
                    (false, false, now.at);
                let members = self.replica.roster().map(|(node, _)| node);
                let gone = members.filter(|it| self.others.membership.state(it) == NodeState::Dead);
                self.others.informed = Informed::anew(now.at, gone.collect());
                self.others.membership.renew(now.at, generation);
                self.leases.renew(now.at, generation);
                self.publish_info(now);
                self.timers.soon = true;
            }
        }
        if self.next_deadline().is_some_and(|deadline| deadline <= now.at) {
            self.tick(now);
        }
        self.flush_supervisor(now);
        self.deliver_to_self(now);
        self.flush_membership(now);
        self.flush_disk();
        while self.outputs.len() > limits::OUTPUTS_MAX {
            let oldest = self.outputs.iter().position(Output::may_be_lost);
            let Some(oldest) = oldest else { break };
            self.outputs.remove(oldest);
            self.counters.outputs_dropped += 1;
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = if self.timers.soon { limits::TICK_MIN } else { limits::TICK_MAX };
        let after_tick = self.timers.last_tick + limits::TICK_MIN;
        let tick = if self.others.doubt.is_awake() { tick.min(limits::DOUBT_TICK) } else { tick };
        if self.is_removed() {
            // It waits for its own units only, and for those who still wait for an answer.
            let units = self.supervisor.next_deadline().map(|at| at.max(after_tick));
            let asked = self.requests.next_deadline().map(|at| at.max(after_tick));
            let next = [Some(self.timers.last_tick + tick), units, asked];
            return next.into_iter().flatten().min();
        }
        [
            Some(self.timers.last_tick + tick),
            self.supervisor.next_deadline().map(|at| at.max(after_tick)),
            self.others.informed.next_deadline().map(|at| at.max(after_tick)),
            self.replica.next_push().map(|at| at.max(after_tick)),
            self.requests.next_deadline().map(|at| at.max(after_tick)),
            self.leases.next_deadline().map(|at| at.max(after_tick)),
            self.coordinator.next_deadline(&self.replica).map(|at| at.max(after_tick)),
            self.others.detours.next_deadline().map(|at| at.max(after_tick)),
            self.others.membership.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The one place where decisions are made: from state, not from what has just happened.
    fn tick(&mut self, now: Now) {
        self.counters.ticks += 1;
        self.timers.last_tick = now.at;
        self.timers.soon = false;
        self.others.membership.handle_timeout(now.at);
        self.flush_membership(now);
        if self.timers.expire <= now.at {
            // Each look walks over the table.
            let looks = 1 + self.replica.len() / limits::EXPIRE_ENTRIES;
            self.timers.expire = now.at + limits::TICK_MAX * looks.min(60) as u32;
            self.expire(now);
        }
        self.mend_stamps(now);
        self.review_levels(now);
        self.retry_disk(now);
        self.drop_unused_fleet(now);
        if self.is_removed() {
            // Nothing is left to do but to end what runs.
            self.do_duties(now, false);
            self.supervisor.tick(now, false, self.levels.reached());
            self.flush_supervisor(now);
            return self.expire_requests(now);
        }
        let settled = self.is_settled(now);
        self.review_losses(now);
        self.do_detours(now);
        self.do_duties(now, settled);
        self.do_leases(now, settled);
        self.supervisor.tick(now, settled, self.levels.reached());
        if settled {
            self.coordinate(now);
        }
        self.flush_supervisor(now);
        self.expire_requests(now);
        if self.timers.purge <= now.at {
            self.timers.purge = now.at + limits::PURGE_LOOK;
            self.purge(now);
        }
        self.do_gossip(now);
    }

    /// Decides whether the loss of many members at once is believed, and lifts the rest of members that came and went.
    fn review_losses(&mut self, now: Now) {
        let sight = doubt::Sight {
            up: self.others.membership.others_alive() + 1,
            suspects: self.others.membership.suspects(),
            local_health: self.others.membership.local_health(),
            deaf: self.others.membership.others_alive() > 0 && !self.others.informed.hears(now.at),
        };
        match self.others.doubt.review(now.at, sight) {
            doubt::Turn::None | doubt::Turn::Doubting => {}
            doubt::Turn::After => {
                let waiting = std::mem::take(&mut self.coordinator.doubtful);
                self.replica.look_at_each(waiting);
            }
            doubt::Turn::Begun => {
                let lost = self.others.doubt.about().unwrap_or(0);
                tracing::warn!(
                    "{lost} members are gone at once, {} are left, {} more do not answer: it may be this machine's network, \
                     so nothing is placed anew until that is clear",
                    sight.up,
                    sight.suspects
                );
                tracing::debug!(?sight, "in doubt");
            }
            doubt::Turn::Over => {
                tracing::warn!("they are really gone: their work is placed elsewhere");
                self.replica.look_at_all();
            }
        }
        for node in self.others.flaps.rested(now.at) {
            self.replica.refresh_fleet(node, &self.others);
            self.replica.look_at_all();
        }
    }

    /// Whether this node has waited long enough to start what is its own, and to place what nobody else can run.
    fn is_settled(&mut self, now: Now) -> bool {
        if self.is_removed() || self.standing.superseded || self.is_too_old() {
            return false;
        }
        let alone = self.replica.roster().take(2).count() < 2;
        let careless = self.config.canary == Some(Canary::PlacesUnheard);
        let waited = careless || now.at.since(self.timers.started) >= limits::BOOT_HOLD;
        if alone {
            self.be_informed();
        }
        let agreed = alone || !self.others.informed.is_settled() && self.others_agreed(now);
        let silent = self.others.informed.fallen_silent(now.at);
        if silent.iter().any(|node| !self.is_up(node)) {
            self.replica.look_at_all();
        }
        if self.others.informed.review(now.at, agreed) {
            self.standing.synced = true;
            self.replica.look_at_all();
        }
        if !self.standing.synced && (alone || waited) {
            self.standing.synced = true;
            self.replica.look_at_all();
        }
        self.standing.synced
    }

    /// Whether all other members compared tables with this node since its start, or were seen to die.
    fn others_agreed(&self, now: Now) -> bool {
        self.replica.roster().map(|(node, _)| node).all(|node| {
            node == self.config.id
                || self.others.informed.has_agreed(&node)
                || self.was_seen_to_die(now.at, &node)
        })
    }

    fn was_seen_to_die(&self, at: Instant, node: &NodeId) -> bool {
        self.others.membership.state(node) == NodeState::Dead
            && !self.others.informed.was_gone_before(at, node)
    }

    /// Members that were neither heard since this node's start nor seen to die.
    pub fn unheard(&self) -> Vec<NodeId> {
        let others = self.replica.roster().map(|(node, _)| node);
        let unheard = others.filter(|node| {
            *node != self.config.id
                && !self.others.informed.has_heard(node)
                && !self.was_seen_to_die(self.time.looked, node)
        });
        unheard.collect()
    }

    /// Somebody who knows says that this node knows as much.
    fn be_informed(&mut self) {
        let news = self.others.informed.settle();
        if news || !self.standing.synced {
            self.standing.synced = true;
            self.replica.look_at_all();
            self.timers.soon = true;
        }
    }

    /// Tables were compared with a member, and nothing is missing here.
    fn compared(&mut self, with: NodeId, settled: bool) {
        self.others.informed.agree(with);
        if settled || self.config.canary == Some(Canary::PlacesUnheard) {
            self.be_informed();
        }
        self.timers.soon = true;
    }

    /// What tells a node that it was thrown out, for those who refuse to listen to it.
    pub fn removal_of(&self, node: &NodeId) -> Option<Message> {
        let entry = self.replica.entry(&Key::Roster(*node))?;
        let removed = matches!(entry.value, Value::Tombstone { .. });
        removed.then(|| Message::News { entries: vec![entry.clone()] })
    }

    /// Whether a job runs on every node that fits.
    pub fn is_system_job(&self, job: &JobName) -> bool {
        self.replica.system_jobs().any(|name| name == job)
    }

    /// Everybody who was thrown out, and [`Node::removal_of`] them, encoded.
    pub fn removals(&self) -> BTreeMap<NodeId, Vec<u8>> {
        let removed = self.replica.removed();
        removed.filter_map(|node| Some((node, self.removal_of(&node)?.encode()))).collect()
    }

    /// Whether this node was thrown out of the fabric, as far as it knows.
    pub fn is_removed(&self) -> bool {
        self.replica.is_removed(&self.config.id)
    }

    /// Why this node places nothing that others may run.
    pub fn waits(&self, at: Instant) -> Option<Waits> {
        self.others.informed.waits(at).map(|waits| match waits {
            Waits::NotAllHeard if self.unheard().is_empty() => Waits::NotCompared,
            waits => waits,
        })
    }

    /// Does what follows from a change, beside what is derived from the table.
    fn follow(&mut self, now: Now, change: Changed) {
        let Changed { key, before } = change;
        match &key {
            Key::Roster(node) => {
                self.levels.stale = true;
                self.duties.all = true;
                self.time.timekeeper.forget(node);
                let member = self.replica.is_member(node);
                let message = if member { "joined" } else { "removed" }.to_owned();
                let name = self.name_of(node);
                self.event(now, api::EventKind::Roster { subject: *node, name, message });
                self.outputs.push_back(Output::TrustChanged);
            }
            Key::Node(node)
                if self.replica.says_only_what_it_saw(node, before.as_ref())
                    && (*node != self.config.id
                        || self.replica.node(node) == Some(&self.readable_info())) =>
            {
                self.timers.purge = self.timers.purge.min(self.look_at_what_was_seen(now.at));
            }
            Key::Node(node) => {
                self.timers.purge = self.timers.purge.min(self.look_at_what_was_seen(now.at));
                self.levels.stale = true;
                self.replica.look_at_all();
                self.duties.all |= *node == self.config.id;
                if *node == self.config.id && self.replica.node(node) != Some(&self.readable_info())
                {
                    // A former life of ours, with a clock that was ahead of this one.
                    self.publish_info(now);
                }
            }
            Key::Keyring => {
                if self.replica.keyring().keys.len() > 1 {
                    self.timers.trim_keyring = Some(now.at + limits::KEY_OVERLAP);
                }
                self.outputs.push_back(Output::TrustChanged);
            }
            Key::Token(_) => {}
            Key::Voters => self.learn_voters(now),
            Key::Quota(_) => {}
            Key::Job(name) => {
                self.duties.jobs.insert(name.clone());
                self.forget_failure(name);
                self.note_revert(name, before.as_ref().map(|entry| &entry.value));
                let message = match self.replica.job(name) {
                    Some(job) if job.reverted => match self.failure_of(job) {
                        Some(failure) => format!("reverted: {failure}"),
                        None => "reverted".into(),
                    },
                    Some(job) => format!("submitted by {}", job.by),
                    None => "stopped".into(),
                };
                let known = before.as_ref().map(|entry| &entry.value);
                let version = match (self.replica.entry(&key).map(|entry| &entry.value), known) {
                    (Some(Value::Job(job)), _) | (None, Some(Value::Job(job))) => job.version,
                    (Some(Value::Tombstone { rank }), _) => *rank,
                    _ => 0,
                };
                let moved = known != self.replica.entry(&key).map(|entry| &entry.value);
                // A tombstone that leaves, and one that takes the place of nothing, is no news.
                let is_job = |value: Option<&Value>| matches!(value, Some(Value::Job(_)));
                if moved && (is_job(known) || self.replica.job(name).is_some()) {
                    let job = self.replica.job(name);
                    let at = match (job.filter(|job| job.reverted), self.replica.entry(&key)) {
                        (Some(job), _) => self.failed_at(job),
                        (None, entry) => entry.map(|entry| entry.stamp.wall()),
                    };
                    let at = at.unwrap_or(now.wall);
                    self.event_of(at, api::EventKind::Job { job: name.clone(), version, message });
                }
            }
            Key::Alloc(slot, node) => {
                if self.supervisor.local(slot).is_some() {
                    self.duties.slots.insert(slot.clone());
                }
                self.follow_alloc(now, slot, *node, before);
            }
        }
    }

    /// Whether a node belongs to the fabric and answers.
    fn is_up(&self, node: &NodeId) -> bool {
        self.replica.is_up(node, &self.others)
    }

    /// A member was heard, whatever it says.
    fn hear(&mut self, now: Now, from: NodeId) {
        let is_up = self.is_up(&from);
        self.others.informed.hear(now.at, from, is_up);
    }

    /// Members that are up, without this node.
    fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.others.membership.others().filter(|node| self.replica.is_member(node))
    }

    /// A few random members that are up.
    fn some_peers(&mut self, count: usize) -> Vec<NodeId> {
        if self.others.membership.others_alive() > limits::FEW_PEERS {
            let table = &self.replica;
            let is_member = |node: &NodeId| table.is_member(node);
            let drawn = self.others.membership.draw(count, &mut self.rng, is_member);
            if drawn.len() == count {
                return drawn;
            }
        }
        let mut peers: Vec<NodeId> = self.peers().collect();
        match count {
            1 => peers.choose(&mut self.rng).copied().into_iter().collect(),
            _ => peers.partial_shuffle(&mut self.rng, count).0.to_vec(),
        }
    }

    fn event(&mut self, now: Now, what: api::EventKind) {
        self.event_of(now.wall, what);
    }

    /// An event of this time, which may be over long since: a node that was away hears of it when it is back.
    fn event_of(&mut self, at: WallTime, what: api::EventKind) {
        self.outputs.push_back(Output::Event(api::Event { at, node: self.config.id, what }));
    }

    /// Sends a message by no detour.
    fn send_straight(&mut self, to: NodeId, message: Message) {
        self.outputs.push_back(Output::Send { to, address: None, message });
    }

    /// What this node says to itself takes no detour.
    fn deliver_to_self(&mut self, now: Now) {
        let me = self.config.id;
        let to_self = |output: &Output| matches!(output, Output::Send { to, .. } if *to == me);
        while self.outputs.iter().any(to_self) {
            let (mine, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.outputs).into_iter().partition(to_self);
            self.outputs = others.into();
            for output in mine {
                if let Output::Send { message, .. } = output {
                    self.handle_message(now, me, message);
                }
            }
            self.flush_supervisor(now);
        }
    }

    fn handle_datagram(&mut self, now: Now, from: NodeId, payload: &[u8]) {
        match Datagram::decode(payload) {
            Ok(datagram) => self.take_datagram(now, from, datagram),
            Err(error) => {
                self.counters.malformed += 1;
                tracing::debug!(?from, %error, "datagram refused");
            }
        }
    }

    fn take_datagram(&mut self, now: Now, from: NodeId, datagram: Datagram) {
        match datagram {
            Datagram::Swim { packet, confirms } => {
                if !self.others.membership.handle_packet(now.at, &packet, &confirms) {
                    self.counters.malformed += 1;
                }
            }
            Datagram::Push(entries) => {
                for entry in entries {
                    if entry.key.may_gossip() {
                        self.take_in(now, Brought::ByDatagram(from), entry, true);
                    } else {
                        self.counters.malformed += 1;
                    }
                }
            }
            Datagram::Fingerprint { table: theirs, clock, purged_until } => {
                self.time.timekeeper.hear(now.at, from, clock);
                if self.is_up(&from) {
                    self.others.informed.find_comparing(now.at, &from);
                }
                if theirs == self.replica.fingerprint() {
                    self.equals(now, purged_until);
                    let answer = Datagram::InSync {
                        fingerprint: theirs,
                        purged_until: self.replica.purged_until(),
                        settled: self.others.informed.is_settled(),
                    };
                    self.transmit(from, answer);
                } else {
                    self.send(from, Message::Clock(self.clock_reading()));
                    self.send(from, Message::Buckets(self.replica.buckets()));
                }
            }
            Datagram::InSync { fingerprint, purged_until, settled } => {
                if fingerprint == self.replica.fingerprint() {
                    self.equals(now, purged_until);
                    if !self.others.informed.is_settled() {
                        self.compared(from, settled);
                    }
                }
            }
            Datagram::Leaving { ends } => {
                tracing::info!(node = %self.name_of(&from), ends, "its agent stops");
                if ends {
                    self.others.informed.part(&from);
                    // Others may have said so before it did: what waited for it need not wait any more.
                    self.replica.look_at_all();
                    self.timers.soon = true;
                    self.others.membership.believe_gone(now.at, from);
                } else if self.is_up(&from) {
                    // Said by one that is down already, it is an agent that dies again and again.
                    self.others.informed.leave(now.at, from);
                }
            }
            Datagram::Lease(message) => self.handle_lease(now, from, message),
        }
    }

    /// Tells a member which rows are in the buckets that differ from its own, or in a part of them.
    fn describe_rows(&mut self, from: NodeId, theirs: &[u64]) {
        let ours = self.replica.buckets();
        let differ = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
        let differ = differ.count();
        // Nothing random: another place each time is enough.
        let turn = self.counters.ticks.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let until = self.replica.purged_until();
        let Some(rows) = gossip::describe(&self.replica, theirs, until, turn) else { return };
        let described = match &rows {
            Message::Rows { buckets, .. } => buckets.len(),
            _ => 0,
        };
        // A part of one bucket brings nothing here, and the tables are not compared.
        let in_part = described < differ;
        self.standing.repairing = (described > 0).then_some(Repairing { from, in_part });
        self.send(from, Message::Clock(self.clock_reading()));
        self.send(from, rows);
    }

    fn handle_message(&mut self, now: Now, from: NodeId, message: Message) {
        let brought = Brought::ByStream(from);
        match message {
            Message::Buckets(theirs) => self.describe_rows(from, &theirs),
            Message::Rows { buckets, mut rows, purged_until: there } => {
                self.drop_deleted(now, there, &buckets, &rows);
                rows.retain(|(key, order)| !self.was_deleted(key, order, there));
                let (settled, until) =
                    (self.others.informed.is_settled(), self.replica.purged_until());
                let ahead = |order: &Order| self.is_ahead(now.at, order.stamp);
                let (entries, want) =
                    gossip::compare(&self.replica, &buckets, &rows, ahead, settled, until);
                self.send(from, entries);
                if !want.is_empty() {
                    self.send(from, Message::Want(want));
                }
            }
            Message::Want(keys) => {
                let (entries, more) = gossip::collect(&self.replica, keys.iter());
                let purged_until = self.replica.purged_until();
                let settled = self.others.informed.is_settled();
                self.send(from, Message::Entries { entries, more, purged_until, settled });
            }
            Message::Entries { entries, more, purged_until, settled } => {
                // What repair brings is old news to most: pushing it on would flood a newcomer's peers.
                let repairing = self.standing.repairing.filter(|repairing| repairing.from == from);
                for entry in entries {
                    self.take_in_from(now, brought, purged_until, entry, repairing.is_none());
                }
                if let Some(Repairing { in_part, .. }) = repairing {
                    self.standing.repairing = None;
                    if more || in_part {
                        self.timers.repair = now.at;
                    } else if !self.others.informed.is_settled() {
                        self.compared(from, settled);
                    }
                    self.timers.soon = true;
                }
            }
            Message::Hold { ticket, entries } => {
                let mut holds = true;
                for entry in entries {
                    let (key, order) = (entry.key.clone(), entry.order());
                    self.take_in(now, brought, entry, true);
                    holds &= self.replica.order(&key).is_some_and(|ours| ours >= order);
                }
                // What was refused is held by nobody.
                if holds {
                    self.owe_held(from, ticket);
                }
            }
            Message::Held { ticket } => self.handle_held(from, ticket),
            Message::Propose { alloc, job, succession } => {
                self.handle_propose(now, from, alloc, job, succession);
            }
            Message::Reserve { alloc, job, succession } => {
                self.handle_reserve(now, from, alloc, job, succession);
            }
            Message::Commit { alloc } => self.handle_commit(&alloc),
            Message::Displace { alloc, job, succession } => {
                self.handle_displace(now, from, alloc, job, succession);
            }
            Message::Accept { alloc } => self.handle_accept(now, from, &alloc),
            Message::Reject { alloc, reason } => self.handle_reject(now, from, &alloc, reason),
            Message::Retire { alloc, reason } => self.handle_retire(now, &alloc, reason),
            Message::Drain { on, by } => {
                tracing::info!(on, ?by, "drain asked for");
                self.set_draining(now, on);
            }
            Message::Voters(change) => self.handle_change(now, from, &change),
            Message::Move { alloc, from, to } => self.handle_move(now, alloc, from, to),
            Message::Reach { answer: false } => {
                self.send_straight(from, Message::Reach { answer: true });
            }
            Message::Reach { answer: true } => {}
            Message::PassOn { to, bytes } => self.pass_on(from, to, bytes),
            Message::PassedOn { from: origin, bytes } => {
                self.take_passed_on(now, from, origin, &bytes);
            }
            Message::News { entries } => {
                for entry in entries {
                    self.take_in(now, brought, entry, true);
                }
            }
            Message::Clock(reading) => self.time.timekeeper.hear(now.at, from, reading),
            Message::Reclock => {
                tracing::info!(?from, "what is dated ahead is to be dated anew");
                self.handle_reclock(now);
            }
            Message::Restart { alloc } => {
                if self.supervisor.local(&alloc.slot).is_some_and(|local| *local.id() == alloc) {
                    self.supervisor.restart(now, &alloc.slot);
                    self.timers.soon = true;
                }
            }
        }
    }

    fn handle_found(&mut self, now: Now, node: NodeId, address: SocketAddr) {
        if self.is_removed()
            || node == self.config.id
            || !self.replica.is_member(&node)
            || self.is_up(&node)
        {
            return;
        }
        self.others.membership.announce(now.at, Identity { node, generation: 0, address });
        // Our gossip key may be an old one; a stream needs none.
        for message in
            [Message::Clock(self.clock_reading()), Message::Buckets(self.replica.buckets())]
        {
            self.outputs.push_back(Output::Send { to: node, address: Some(address), message });
        }
    }

    /// Tells every member that this node's agent stops.
    fn say_goodbye(&mut self, ends: bool) {
        let peers: Vec<NodeId> = self.peers().take(limits::LEAVING_TOLD_MAX).collect();
        for peer in peers {
            self.transmit(peer, Datagram::Leaving { ends });
        }
        if ends {
            self.others.membership.leave();
        }
    }

    fn publish_info(&mut self, now: Now) {
        let info = Box::new(self.readable_info());
        self.write(now, Key::Node(self.config.id), Value::Node(info));
    }

    fn set_draining(&mut self, now: Now, on: bool) {
        if self.info.draining != on {
            self.info.draining = on;
            self.publish_info(now);
        }
    }

    /// Carries membership's wishes out and takes note of who came and went.
    fn flush_membership(&mut self, now: Now) {
        while let Some((to, address, datagram)) = self.others.membership.poll_datagram() {
            self.outputs.push_back(Output::Transmit { to, address, datagram });
        }
        while let Some(change) = self.others.membership.poll_change() {
            let (node, state) = match change {
                Change::Up(node) => (node, NodeState::Alive),
                Change::Down(node) => (node, NodeState::Dead),
            };
            tracing::debug!(?node, %state, "member");
            match change {
                Change::Up(_) => {
                    self.others.doubt.find(&node);
                    self.others.informed.find(&node);
                    self.others.flaps.find(now.at, &node);
                }
                Change::Down(_) => {
                    self.others.doubt.lose(now.at, node);
                    self.others.flaps.lose(node);
                }
            }
            self.replica.member_changed(node, &self.others);
            self.duties.all = true;
            self.timers.soon = true;
            let name = self.name_of(&node);
            self.event(now, api::EventKind::Node { subject: node, name, state });
            if state == NodeState::Alive {
                self.transmit(node, self.summary());
            }
        }
    }

    /// The whole table in one number, and what the clocks here show.
    fn summary(&self) -> Datagram {
        Datagram::Fingerprint {
            table: self.replica.fingerprint(),
            clock: self.clock_reading(),
            purged_until: self.replica.purged_until(),
        }
    }

    fn transmit(&mut self, to: NodeId, datagram: Datagram) {
        let known = self.replica.node(&to).and_then(|info| info.addresses.first().copied());
        let address = known.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        self.outputs.push_back(Output::Transmit { to, address, datagram });
    }

    /// Pushes what is fresh, repairs what was lost, looks for who is missing.
    fn do_gossip(&mut self, now: Now) {
        if self.replica.next_push().is_some_and(|at| at <= now.at) {
            let targets = self.some_peers(limits::PUSH_FANOUT);
            for parcel in self.replica.push(now.at, &targets) {
                match parcel {
                    Parcel::Datagram(to, datagram) => self.transmit(to, datagram),
                    Parcel::Stream(to, message) => self.send(to, message),
                }
            }
        }
        if self.timers.repair <= now.at {
            let jitter = self.rng.random_range(0.5..1.5);
            self.timers.repair = now.at + limits::REPAIR_INTERVAL.mul_f64(jitter);
            for peer in self.some_peers(1) {
                self.transmit(peer, self.summary());
            }
        }
        if self.timers.rejoin <= now.at {
            let jitter = self.rng.random_range(0.5..1.5);
            self.timers.rejoin = now.at + limits::REJOIN_INTERVAL.mul_f64(jitter);
            self.rejoin(now);
        }
        if self.timers.trim_keyring.is_some_and(|at| at <= now.at) {
            self.timers.trim_keyring = None;
            self.trim_keyring(now);
        }
    }

    fn rejoin(&mut self, now: Now) {
        let alive = self.others.membership.others_alive();
        let dead: Vec<NodeId> =
            self.others.membership.dead().filter(|node| self.replica.is_member(node)).collect();
        let others = self.replica.members().saturating_sub(1);
        if alive == others && dead.is_empty() {
            return;
        }
        // Walking the roster is for those who were never heard of.
        let candidates: Vec<NodeId> = if alive + dead.len() == others {
            dead
        } else {
            self.replica.roster().map(|(node, _)| node).collect()
        };
        let mut missing: Vec<(NodeId, SocketAddr)> = candidates
            .into_iter()
            .filter(|node| *node != self.config.id && self.replica.is_member(node))
            .filter(|node| !self.is_up(node))
            .filter_map(|node| Some((node, *self.replica.node(&node)?.addresses.first()?)))
            .collect();
        let (chosen, _) = missing.partial_shuffle(&mut self.rng, limits::REJOIN_FANOUT);
        for (index, (node, address)) in chosen.iter().copied().enumerate() {
            self.others.membership.announce(now.at, Identity { node, generation: 0, address });
            if index == 0 {
                // Our gossip key may be an old one; a stream needs none.
                self.send(node, Message::Clock(self.clock_reading()));
                self.send(node, Message::Buckets(self.replica.buckets()));
            }
        }
    }

    /// A rotation is over: the key that a removed node knows goes. The lowest member that is up does it.
    fn trim_keyring(&mut self, now: Now) {
        let mut keyring = self.replica.keyring();
        let lowest = self.peers().all(|peer| peer > self.config.id);
        if keyring.keys.len() > 1 {
            if lowest {
                let newest = keyring.keys.last_key_value().map(|(id, _)| *id).unwrap_or(0);
                keyring.keys.retain(|id, _| *id == newest);
                self.write(now, Key::Keyring, Value::Keyring(keyring));
            } else {
                self.timers.trim_keyring = Some(now.at + limits::KEY_OVERLAP);
            }
        }
    }

    fn expire(&mut self, now: Now) {
        let keeps = self.config.canary == Some(Canary::KeepsWhatEnded);
        let over = if keeps { Vec::new() } else { self.replica.expire(now.wall) };
        for key in over {
            if let Key::Alloc(slot, node) = &key
                && *node == self.config.id
            {
                self.supervisor.forget(slot);
            }
        }
        self.expire_tokens(now);
    }

    fn answer(&mut self, id: crate::io::RequestId, answer: Answer) {
        self.outputs.push_back(Output::Answer { id, answer });
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.config.id)
            .field("entries", &self.replica.len())
            .field("membership", &self.others.membership)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
