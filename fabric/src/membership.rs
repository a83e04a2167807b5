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
use std::sync::Arc;
use std::time::Duration;

use foca::{Codec, Foca, Header, Member, Notification, PeriodicParams, PostcardCodec, Timer};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::api::NodeState;
use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;
use crate::message::{Confirm, Datagram};

mod index;

use index::{MemberIndex, MemberNumber, NumberCodec, SharedIndex};

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

/// A member changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is alive, for the first time or again.
    Up(NodeId),
    /// It is confirmed gone.
    Down(NodeId),
}

/// A fabric whose members all know each other already: for simulators of large ones, where joining one by
/// one would take longer than what is to be shown.
#[derive(Clone, Debug)]
pub struct Formed {
    index: Arc<MemberIndex>,
    members: Arc<[Identity]>,
}

impl Formed {
    /// A fabric of these members.
    pub fn new(members: &[Identity]) -> Self {
        let index = SharedIndex::default();
        for member in members {
            index.number(*member).expect("no more members than an index has room for");
        }
        Self { index: index.get(), members: members.into() }
    }
}

/// The membership of one node.
pub struct Membership {
    foca: Foca<MemberNumber, NumberCodec, ChaCha8Rng, foca::NoCustomBroadcast>,
    effects: Effects,
}

/// What foca wants, and what Lifeguard remembers.
struct Effects {
    now: Instant,
    local: NodeId,
    members: usize,
    local_health: u32,
    /// By deadline; the sequence number keeps equal deadlines in order.
    timers: BTreeMap<(Instant, u64), Timer<MemberNumber>>,
    sequence: u64,
    suspicions: BTreeMap<NodeId, Suspicion>,
    /// Confirmations to pass on, and how many times more.
    confirms: VecDeque<(Confirm, u32)>,
    index: SharedIndex,
    /// By number in the index; nothing is known of those past the end.
    states: Vec<NodeState>,
    /// How many of them are alive.
    alive: usize,
    datagrams: VecDeque<(NodeId, SocketAddr, Datagram)>,
    changes: VecDeque<Change>,
    failed: Option<MemberNumber>,
    /// Probes in a row that a member answered by others only.
    by_others: BTreeMap<NodeId, u32>,
    /// When suspicions were compared with foca's list.
    reviewed: Instant,
}

#[derive(Clone)]
struct Suspicion {
    generation: u64,
    /// Grows when the suspect denies it.
    incarnation: u16,
    since: Instant,
    /// Where its timer is; `None` before foca starts one.
    timer: Option<(Instant, u64)>,
    confirmed_by: BTreeSet<NodeId>,
}

impl Membership {
    /// A member that knows nobody yet.
    pub fn new(now: Instant, identity: Identity, seed: u64) -> Self {
        Self::with_index(now, identity, seed, SharedIndex::default())
    }

    /// A member that knows everybody in `formed`, of which it is one.
    pub fn formed(now: Instant, identity: Identity, seed: u64, formed: &Formed) -> Self {
        let index = SharedIndex::new(Arc::clone(&formed.index));
        let mut member = Self::with_index(now, identity, seed, index.clone());
        let others = formed.members.iter().filter(|other| other.node != identity.node);
        let others = others.filter_map(|other| index.number(*other));
        // Cannot fail: there is nothing to send yet.
        let _ = member.foca.apply_many(others.map(Member::alive), false, &mut member.effects);
        member.settle();
        member.effects.changes.clear();
        member.effects.datagrams.clear();
        member
    }

    fn with_index(now: Instant, identity: Identity, seed: u64, index: SharedIndex) -> Self {
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
        let number = index.number(identity).expect("the index has room for us");
        Self {
            foca: Foca::new(number, config, rng, NumberCodec(index.clone())),
            effects: Effects {
                now,
                index,
                local: identity.node,
                members: 1,
                local_health: 0,
                timers: BTreeMap::new(),
                sequence: 0,
                suspicions: BTreeMap::new(),
                confirms: VecDeque::new(),
                states: Vec::new(),
                alive: 0,
                reviewed: now,
                datagrams: VecDeque::new(),
                changes: VecDeque::new(),
                failed: None,
                by_others: BTreeMap::new(),
            },
        }
    }

    /// What this node believes of the members. It probes nobody and says nothing.
    pub fn snapshot(&self) -> Self {
        let known = &self.effects;
        let index = SharedIndex::new(known.index.get());
        let mut copy = Self::with_index(known.now, self.identity(), 0, index);
        copy.effects.members = known.members;
        copy.effects.local_health = known.local_health;
        copy.effects.suspicions = known.suspicions.clone();
        copy.effects.states = known.states.clone();
        copy.effects.alive = known.alive;
        copy
    }

    /// Takes in a packet of another member's. False: it could not be read, and changed nothing.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], confirms: &[Confirm]) -> bool {
        self.effects.now = now;
        for confirm in confirms.iter().take(limits::CONFIRMS_PER_DATAGRAM_MAX) {
            self.effects.confirm(*confirm, self.foca.identity().generation);
        }
        self.note_answer(packet);
        self.make_room();
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
        if let Some(to) = self.effects.index.number(to) {
            let _ = self.foca.announce(to, &mut self.effects);
        }
        self.settle();
    }

    /// Tells the others that this node can be reached elsewhere now.
    pub fn relocate(&mut self, now: Instant, address: SocketAddr) {
        let identity = self.identity();
        if identity.address != address {
            let generation = identity.generation + 1;
            self.become_another(now, Identity { address, generation, ..identity });
        }
    }

    /// Leaves for good: the others need not find out by themselves.
    pub fn leave(&mut self) {
        // Cannot fail but for an identity that does not fit a packet, and ours does.
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.settle();
    }

    /// A member said itself that it goes.
    pub fn believe_gone(&mut self, now: Instant, node: NodeId) {
        let index = self.effects.index.get();
        let numbers = self.foca.iter_members().map(|member| (*member.id(), member.incarnation()));
        let mut numbers = numbers.filter(|(number, _)| index.node(number.member) == node);
        let Some((number, incarnation)) = numbers.next() else { return };
        drop(numbers);
        self.effects.now = now;
        let gone = Member::new(number, incarnation, foca::State::Down);
        // Cannot fail but for an identity that does not fit a packet, and its own did.
        let _ = self.foca.apply_many(std::iter::once(gone), true, &mut self.effects);
        self.settle();
    }

    /// Tells the others that this node lives anew, in a later life than any before.
    pub fn renew(&mut self, now: Instant, generation: u64) {
        let identity = self.identity();
        let generation = generation.max(identity.generation + 1);
        self.become_another(now, Identity { generation, ..identity });
    }

    fn become_another(&mut self, now: Instant, identity: Identity) {
        self.effects.now = now;
        if let Some(number) = self.effects.index.number(identity) {
            let _ = self.foca.change_identity(number, &mut self.effects);
            // Foca stops probing then until it hears of somebody. It is to look now whether it knows
            // somebody: when the address goes with the cable, nobody is heard for a long time.
            let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        }
        self.settle();
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
                let node = self.effects.index.identity(*member_id).node;
                self.effects.suspicions.remove(&node);
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

    /// The next timer. Ten times a second foca looks whether there is something to gossip: where there is nothing, nobody
    /// has to wake up for that. What comes meanwhile finds its timer overdue, and is gossiped at once.
    pub fn next_deadline(&self) -> Option<Instant> {
        let idle = self.foca.updates_backlog() == 0;
        let mut timers = self.effects.timers.iter();
        let next = timers.find(|(_, timer)| !(idle && matches!(timer, Timer::PeriodicGossip(_))));
        next.map(|((at, _), _)| *at)
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
        match self.effects.state(node) {
            NodeState::Alive if self.effects.suspicions.contains_key(node) => NodeState::Suspect,
            state => state,
        }
    }

    /// Members that are alive or suspect, without this node, by key.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.members_in(NodeState::Alive)
    }

    /// The first of [`Membership::others`], in no order, that `fits`.
    pub fn find_other(&self, mut fits: impl FnMut(NodeId) -> bool) -> Option<NodeId> {
        let (index, states) = (self.effects.index.get(), &self.effects.states);
        let mut alive =
            (0..index.len()).filter(|number| states.get(*number) == Some(&NodeState::Alive));
        alive.find_map(|number| Some(index.node(number as u32)).filter(|node| fits(*node)))
    }

    /// How many members are suspected.
    pub fn suspects(&self) -> usize {
        let suspected = |(node, suspicion): &(&NodeId, &Suspicion)| {
            suspicion.timer.is_some() && self.effects.state(node) == NodeState::Alive
        };
        self.effects.suspicions.iter().filter(suspected).count()
    }

    /// Members that are dead, by key.
    pub fn dead(&self) -> impl Iterator<Item = NodeId> {
        self.members_in(NodeState::Dead)
    }

    fn members_in(&self, state: NodeState) -> impl Iterator<Item = NodeId> {
        let (index, states) = (self.effects.index.get(), &self.effects.states);
        let is_in = |number: u32| states.get(number as usize) == Some(&state);
        let members = index.members().filter(|(_, number)| is_in(*number));
        members.map(|(node, _)| node).collect::<Vec<_>>().into_iter()
    }

    /// How many [`Membership::others`] there are.
    pub fn others_alive(&self) -> usize {
        self.effects.alive
    }

    /// A few random members that are alive or suspect and `fit`, without a look at all of them. Fewer than
    /// `wanted` when they are hard to find.
    pub fn draw<R: Rng>(
        &self,
        wanted: usize,
        random: &mut R,
        fit: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let index = self.effects.index.get();
        let mut drawn = Vec::new();
        for _ in 0..32 * wanted {
            let number = random.random_range(0..index.len());
            if drawn.len() == wanted {
                break;
            }
            if self.effects.states.get(number) != Some(&NodeState::Alive) {
                continue;
            }
            let node = index.node(number as u32);
            if !drawn.contains(&node) && fit(&node) {
                drawn.push(node);
            }
        }
        drawn
    }

    /// This node as the others know it.
    pub fn identity(&self) -> Identity {
        self.effects.index.identity(*self.foca.identity())
    }

    /// 0 is well; more means slower and more patient probes.
    pub fn local_health(&self) -> u32 {
        self.effects.local_health
    }

    /// Timers under way, for the simulator's bounds.
    pub fn timers(&self) -> usize {
        self.effects.timers.len()
    }

    /// Members whose answers to the last few probes came by others only: alive, and perhaps not to be reached from
    /// here. Each is told once, and again after as many more.
    pub fn take_answered_by_others(&mut self) -> Vec<NodeId> {
        let enough = |count: &u32| *count >= limits::ANSWERED_BY_OTHERS;
        let counts = &mut self.effects.by_others;
        counts.extract_if(.., |_, count| enough(count)).map(|(node, _)| node).collect()
    }

    /// Whether a packet answers a probe of ours, and by whom.
    fn note_answer(&mut self, packet: &[u8]) {
        let header = PostcardCodec.decode_header(packet);
        let Ok(header): Result<Header<Identity>, _> = header else { return };
        match header.message {
            foca::Message::Ack(_) => {
                self.effects.by_others.remove(&header.src.node);
            }
            foca::Message::ForwardedAck { origin, .. }
                if self.effects.state(&origin.node) == NodeState::Alive =>
            {
                *self.effects.by_others.entry(origin.node).or_default() += 1;
            }
            _ => {}
        }
    }

    /// A probe round has ended and the next begun.
    fn learn_from_probe(&mut self) {
        let health = &mut self.effects.local_health;
        match self.effects.failed.take() {
            Some(failed) => {
                *health = (*health + 1).min(limits::LOCAL_HEALTH_MAX);
                let confirm = Confirm {
                    subject: self.effects.index.identity(failed).node,
                    generation: failed.generation,
                    by: self.effects.local,
                };
                self.effects.confirm(confirm, 0);
            }
            None => *health = health.saturating_sub(1),
        }
    }

    /// Drops members that foca has forgotten, when there are many.
    fn make_room(&mut self) {
        let (foca, timers) = (&self.foca, &self.effects.timers);
        let dropped = self.effects.index.make_room(|| {
            let of_timer = |timer: &Timer<MemberNumber>| match timer {
                Timer::SendIndirectProbe { probed_id, .. } => Some(*probed_id),
                Timer::ChangeSuspectToDown { member_id, .. } => Some(*member_id),
                Timer::RemoveDown(number) => Some(*number),
                _ => None,
            };
            let members = foca.iter_membership_state().map(|member| *member.id());
            members.chain(timers.values().filter_map(of_timer)).chain([*foca.identity()]).collect()
        });
        for number in dropped {
            self.effects.set_state(number, NodeState::Unknown);
        }
    }

    /// Suspicions end when foca says so, by refutation or death.
    fn settle(&mut self) {
        self.effects.members = self.foca.num_members() + 1;
        if self.effects.suspicions.is_empty() {
            return;
        }
        let now = self.effects.now;
        if self.effects.reviewed + limits::SUSPICION_REVIEW > now {
            return;
        }
        self.effects.reviewed = now;
        let index = self.effects.index.get();
        let suspects: BTreeSet<NodeId> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(|member| index.node(member.id().member))
            .collect();
        self.effects.suspicions.retain(|node, suspicion| {
            // A confirmation may overtake the suspicion that it confirms.
            suspects.contains(node)
                || (suspicion.timer.is_none()
                    && now.since(suspicion.since) < limits::PROBE_PERIOD * 4)
        });
    }
}

impl Effects {
    fn state(&self, node: &NodeId) -> NodeState {
        let number = self.index.number_of(node);
        let state = number.and_then(|number| self.states.get(number as usize));
        state.copied().unwrap_or(NodeState::Unknown)
    }

    fn set_state(&mut self, number: u32, state: NodeState) {
        let at = number as usize;
        if self.states.len() <= at {
            self.states.resize(at + 1, NodeState::Unknown);
        }
        let before = std::mem::replace(&mut self.states[at], state);
        self.alive += usize::from(state == NodeState::Alive);
        self.alive -= usize::from(before == NodeState::Alive);
    }

    fn schedule(&mut self, timer: Timer<MemberNumber>, after: Duration) -> (Instant, u64) {
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
        if self.state(&confirm.subject) != NodeState::Alive {
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
        let fresh = Suspicion {
            generation,
            incarnation: 0,
            since: self.now,
            timer: None,
            confirmed_by: BTreeSet::new(),
        };
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

impl foca::Runtime<MemberNumber> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, MemberNumber>) {
        match notification {
            Notification::MemberUp(member) => {
                let node = self.index.identity(*member).node;
                self.suspicions.remove(&node);
                self.set_state(member.member, NodeState::Alive);
                self.changes.push_back(Change::Up(node));
            }
            Notification::MemberDown(member) => {
                let node = self.index.identity(*member).node;
                self.suspicions.remove(&node);
                self.set_state(member.member, NodeState::Dead);
                self.changes.push_back(Change::Down(node));
            }
            Notification::ProbeFailed(_, member) => self.failed = Some(*member),
            _ => {}
        }
    }

    fn send_to(&mut self, to: MemberNumber, packet: &[u8]) {
        let to = self.index.identity(to);
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

    fn submit_after(&mut self, timer: Timer<MemberNumber>, after: Duration) {
        let patience = self.local_health + 1;
        match timer {
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                self.schedule(timer, after * patience);
            }
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                let members = self.members;
                let (node, now) = (self.index.identity(member_id).node, self.now);
                let suspicion = self.suspicion_of(node, member_id.generation);
                if suspicion.incarnation < incarnation {
                    // It denied the last one: this is another suspicion.
                    suspicion.incarnation = incarnation;
                    if suspicion.timer.take().is_some() {
                        suspicion.confirmed_by.clear();
                    }
                }
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
            .field("identity", &self.identity())
            .field("others", &self.others().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
