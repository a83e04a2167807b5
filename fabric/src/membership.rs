//! Who is alive: SWIM with suspicion, by the `foca` crate, wrapped.
//!
//! Foca has no Lifeguard. Two of its three parts are added around it (Dadgar, Phillips, Currey:
//! "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2018):
//!
//! - *Local health* (section IV.A): a score that rises when our probes fail or others suspect us, and
//!   falls when probes succeed. Probe periods and timeouts are multiplied by it plus one, so that a
//!   node that is short of CPU blames itself first.
//! - *Suspicion shortened by confirmation* (IV.B): a suspicion starts long, and each member that
//!   failed to reach the suspect itself shortens it, down to the minimum at
//!   [`limits::CONFIRMATIONS`]. Confirmations ride on the datagrams that foca sends anyway.
//!
//! The third part, telling a suspect about its suspicion at once, is what foca's piggybacking does
//! whenever a suspect is probed.
//!
//! Everything goes through foca's one seam: `Effects` collects what it wants sent, scheduled and
//! announced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Foca, Notification, PeriodicParams, PostcardCodec, Timer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::api::NodeState;
use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;
use crate::message::{Confirm, Datagram};

/// A member in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub node: NodeId,
    /// Which life: grows with every start and with every return from the dead.
    pub generation: u64,
    /// Where it says it is.
    pub address: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation + 1, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

/// A member changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is alive, for the first time or again.
    Up(NodeId),
    /// It is confirmed gone.
    Down(NodeId),
}

/// The membership of one node.
pub struct Membership {
    foca: Foca<Identity, PostcardCodec, ChaCha8Rng, foca::NoCustomBroadcast>,
    effects: Effects,
}

/// What foca wants, and what Lifeguard remembers.
struct Effects {
    now: Instant,
    local: NodeId,
    members: usize,
    local_health: u32,
    /// By deadline; the sequence number keeps equal deadlines in order.
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    sequence: u64,
    suspicions: BTreeMap<NodeId, Suspicion>,
    /// Confirmations to pass on, and how many times more.
    confirms: VecDeque<(Confirm, u32)>,
    states: BTreeMap<NodeId, NodeState>,
    datagrams: VecDeque<(NodeId, SocketAddr, Datagram)>,
    changes: VecDeque<Change>,
    failed: Option<Identity>,
}

struct Suspicion {
    generation: u64,
    since: Instant,
    /// Where its timer is; `None` before foca starts one.
    timer: Option<(Instant, u64)>,
    confirmed_by: BTreeSet<NodeId>,
}

impl Membership {
    /// A member that knows nobody yet.
    pub fn new(now: Instant, identity: Identity, seed: u64) -> Self {
        let count = |n| NonZeroUsize::new(n).expect("not zero");
        let every = |frequency, n| Some(PeriodicParams { frequency, num_members: count(n) });
        let config = foca::Config {
            probe_period: limits::PROBE_PERIOD,
            probe_rtt: limits::PROBE_RTT,
            num_indirect_probes: count(3),
            max_transmissions: NonZeroU8::new(12).expect("not zero"),
            // Suspicion timers are set by `Effects`, which knows the confirmations.
            suspect_to_down_after: limits::SUSPICION_MIN,
            remove_down_after: Some(Duration::from_secs(24 * 3600)),
            max_packet_size: count(limits::SWIM_BYTES_MAX),
            notify_down_members: true,
            periodic_announce: every(Duration::from_secs(30), 1),
            periodic_announce_to_down_members: every(Duration::from_secs(5), 2),
            periodic_gossip: every(Duration::from_millis(100), 3),
        };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            foca: Foca::new(identity, config, rng, PostcardCodec),
            effects: Effects {
                now,
                local: identity.node,
                members: 1,
                local_health: 0,
                timers: BTreeMap::new(),
                sequence: 0,
                suspicions: BTreeMap::new(),
                confirms: VecDeque::new(),
                states: BTreeMap::new(),
                datagrams: VecDeque::new(),
                changes: VecDeque::new(),
                failed: None,
            },
        }
    }

    /// Takes in a packet of another member's. False: it could not be read, and changed nothing.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], confirms: &[Confirm]) -> bool {
        self.effects.now = now;
        for confirm in confirms.iter().take(limits::CONFIRMS_PER_DATAGRAM_MAX) {
            self.effects.confirm(*confirm, self.foca.identity().generation);
        }
        let outcome = self.foca.handle_data(packet, &mut self.effects);
        self.settle();
        match outcome {
            // An answer to a probe that is over, or talk of a former life of ours: late, not wrong.
            Ok(()) | Err(foca::Error::DataFromOurselves) => true,
            Err(error) => {
                tracing::trace!(%error, "packet refused");
                !matches!(
                    error,
                    foca::Error::Decode(_) | foca::Error::DataTooBig | foca::Error::MalformedPacket
                )
            }
        }
    }

    /// Says hello to somebody who may be there.
    pub fn announce(&mut self, now: Instant, to: Identity) {
        self.effects.now = now;
        // Cannot fail but for an identity that does not fit a packet, and ours does.
        let _ = self.foca.announce(to, &mut self.effects);
        self.settle();
    }

    /// Tells the others that this node can be reached elsewhere now.
    pub fn relocate(&mut self, now: Instant, address: SocketAddr) {
        let identity = *self.foca.identity();
        if identity.address != address {
            self.effects.now = now;
            let moved = Identity { address, generation: identity.generation + 1, ..identity };
            let _ = self.foca.change_identity(moved, &mut self.effects);
            self.settle();
        }
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.effects.timers.first_entry().filter(|due| due.key().0 <= now) {
            let timer = due.remove();
            self.effects.now = now;
            if let Timer::ProbeRandomMember(_) = timer {
                self.effects.failed = None;
            }
            let probing = matches!(timer, Timer::ProbeRandomMember(_));
            if let Timer::ChangeSuspectToDown { ref member_id, .. } = timer {
                self.effects.suspicions.remove(&member_id.node);
            }
            if let Err(error) = self.foca.handle_timer(timer, &mut self.effects) {
                tracing::trace!(%error, "timer refused");
            }
            if probing {
                self.learn_from_probe();
            }
            self.settle();
        }
    }

    /// The next timer.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.effects.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<(NodeId, SocketAddr, Datagram)> {
        self.effects.datagrams.pop_front()
    }

    /// The next change of a member's state.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.effects.changes.pop_front()
    }

    /// How a member is doing.
    pub fn state(&self, node: &NodeId) -> NodeState {
        if *node == self.effects.local {
            return NodeState::Alive;
        }
        match self.effects.states.get(node) {
            Some(NodeState::Alive) if self.effects.suspicions.contains_key(node) => {
                NodeState::Suspect
            }
            Some(state) => *state,
            None => NodeState::Unknown,
        }
    }

    /// Members that are alive or suspect, without this node.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        let up =
            |(node, state): (&NodeId, &NodeState)| (*state == NodeState::Alive).then_some(*node);
        self.effects.states.iter().filter_map(up)
    }

    /// This node as the others know it.
    pub fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    /// 0 is well; more means slower and more patient probes.
    pub fn local_health(&self) -> u32 {
        self.effects.local_health
    }

    /// Timers under way, for the simulator's bounds.
    pub fn timers(&self) -> usize {
        self.effects.timers.len()
    }

    /// A probe round has ended and the next begun.
    fn learn_from_probe(&mut self) {
        let health = &mut self.effects.local_health;
        match self.effects.failed.take() {
            Some(failed) => {
                *health = (*health + 1).min(limits::LOCAL_HEALTH_MAX);
                let confirm = Confirm {
                    subject: failed.node,
                    generation: failed.generation,
                    by: self.effects.local,
                };
                self.effects.confirm(confirm, 0);
            }
            None => *health = health.saturating_sub(1),
        }
    }

    /// Suspicions end when foca says so, by refutation or death.
    fn settle(&mut self) {
        self.effects.members = self.foca.num_members() + 1;
        if self.effects.suspicions.is_empty() {
            return;
        }
        let suspects: BTreeSet<NodeId> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(|member| member.id().node)
            .collect();
        let now = self.effects.now;
        self.effects.suspicions.retain(|node, suspicion| {
            // A confirmation may overtake the suspicion that it confirms.
            suspects.contains(node)
                || (suspicion.timer.is_none()
                    && now.since(suspicion.since) < limits::PROBE_PERIOD * 4)
        });
    }
}

impl Effects {
    fn schedule(&mut self, timer: Timer<Identity>, after: Duration) -> (Instant, u64) {
        self.sequence += 1;
        let key = (self.now + after, self.sequence);
        self.timers.insert(key, timer);
        key
    }

    /// Takes note of a confirmation, passes it on, and shortens the suspicion that it confirms.
    fn confirm(&mut self, confirm: Confirm, own_generation: u64) {
        if confirm.subject == self.local {
            // Somebody cannot reach us: it may be us who are slow.
            if confirm.generation == own_generation {
                self.local_health = (self.local_health + 1).min(limits::LOCAL_HEALTH_MAX);
            }
            return;
        }
        if self.states.get(&confirm.subject) != Some(&NodeState::Alive) {
            return;
        }
        let suspicion = self.suspicion_of(confirm.subject, confirm.generation);
        if suspicion.generation != confirm.generation || !suspicion.confirmed_by.insert(confirm.by)
        {
            return;
        }
        // As often as foca repeats an update at this size would be right; few are enough.
        self.confirms.push_back((confirm, 6));
        while self.confirms.len() > 4 * limits::CONFIRMS_PER_DATAGRAM_MAX {
            self.confirms.pop_front();
        }
        self.reschedule(confirm.subject);
    }

    fn suspicion_of(&mut self, node: NodeId, generation: u64) -> &mut Suspicion {
        let fresh =
            Suspicion { generation, since: self.now, timer: None, confirmed_by: BTreeSet::new() };
        let suspicion = self.suspicions.entry(node).or_insert(fresh);
        if suspicion.generation < generation {
            suspicion.generation = generation;
            suspicion.confirmed_by.clear();
            suspicion.timer = None;
        }
        suspicion
    }

    fn reschedule(&mut self, node: NodeId) {
        let members = self.members;
        let Some(suspicion) = self.suspicions.get_mut(&node) else { return };
        let Some(old) = suspicion.timer else { return };
        let Some(timer) = self.timers.remove(&old) else { return };
        let deadline = suspicion.since + suspicion_timeout(members, suspicion.confirmed_by.len());
        let key = (deadline.max(self.now), old.1);
        suspicion.timer = Some(key);
        self.timers.insert(key, timer);
    }
}

/// Lifeguard's suspicion timeout (section IV.B of the paper): from the maximum towards the minimum with
/// the logarithm of the confirmations.
fn suspicion_timeout(members: usize, confirmations: usize) -> Duration {
    let scale = (members.max(10) as f64).log10();
    let min = limits::SUSPICION_MIN.mul_f64(scale);
    // Others who could confirm: not the suspect, not ourselves.
    let expected = limits::CONFIRMATIONS.min(members.saturating_sub(2) as u32);
    if expected == 0 {
        return min;
    }
    // Our own failed probe is in the set as well and confirms nothing.
    let confirmed = (confirmations.saturating_sub(1) as f64).min(f64::from(expected));
    let max = min * limits::SUSPICION_FACTOR;
    let share = (confirmed + 1.0).ln() / (f64::from(expected) + 1.0).ln();
    (max - (max - min).mul_f64(share)).max(min)
}

impl foca::Runtime<Identity> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(member) => {
                self.suspicions.remove(&member.node);
                self.states.insert(member.node, NodeState::Alive);
                self.changes.push_back(Change::Up(member.node));
            }
            Notification::MemberDown(member) => {
                self.suspicions.remove(&member.node);
                self.states.insert(member.node, NodeState::Dead);
                self.changes.push_back(Change::Down(member.node));
            }
            Notification::ProbeFailed(_, member) => self.failed = Some(*member),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, packet: &[u8]) {
        let mut confirms = Vec::new();
        for _ in 0..self.confirms.len().min(limits::CONFIRMS_PER_DATAGRAM_MAX) {
            if let Some((confirm, left)) = self.confirms.pop_front() {
                confirms.push(confirm);
                if left > 1 {
                    self.confirms.push_back((confirm, left - 1));
                }
            }
        }
        let datagram = Datagram::Swim { packet: packet.to_vec(), confirms };
        self.datagrams.push_back((to.node, to.address, datagram));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        let patience = self.local_health + 1;
        match timer {
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                self.schedule(timer, after * patience);
            }
            Timer::ChangeSuspectToDown { member_id, .. } => {
                let members = self.members;
                let (node, now) = (member_id.node, self.now);
                let suspicion = self.suspicion_of(node, member_id.generation);
                if suspicion.timer.is_none() {
                    suspicion.since = now;
                }
                let timeout = suspicion_timeout(members, suspicion.confirmed_by.len());
                let key = self.schedule(timer, timeout);
                if let Some(suspicion) = self.suspicions.get_mut(&node) {
                    suspicion.timer = Some(key);
                }
            }
            _ => {
                self.schedule(timer, after);
            }
        }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("identity", self.foca.identity())
            .field("states", &self.effects.states)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
