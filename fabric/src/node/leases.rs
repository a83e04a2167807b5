//! At-most-one work: this node as holder of leases, as voter, and as one of those who choose the voters.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::alloc::Ending;
use crate::api::{Problem, ProblemKind};
use crate::clock::{Instant, Now};
use crate::id::NodeId;
use crate::job::{Guarantee, JobSpec};
use crate::lease::{self, Answer, Ask, Holder, LeaseMessage, Outcome, Standing, Voter};
use crate::level::Leveled;
use crate::limits;
use crate::message::{Datagram, Message};
use crate::resources::Rejection;
use crate::table::{Key, Value};
use crate::voters::{Acceptor, Change, Member, Proposer, VoterSet, Wish};

use super::{Canary, Config, Node};

/// What a node keeps in memory about leases and voters.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    pub holder: Holder,
    pub voter: Voter,
    /// The newest set that is known.
    pub set: VoterSet,
    /// Since when; `None`: no lease was in force before it.
    known_since: Option<Instant>,
    me: Member,
    acceptor: Acceptor,
    proposer: Option<Proposer>,
    /// The highest number of an attempt that was seen.
    attempts: u64,
    /// When to say again what the proposer says, or to look whether the set should change.
    change_at: Instant,
    /// Since when this voter has accepted a set that it does not know to be chosen.
    bound_since: Option<Instant>,
    /// Since when voters are not up.
    down_since: BTreeMap<NodeId, Instant>,
    /// Since when the set has an even number of voters.
    even_since: Option<Instant>,
    /// The write under way, and the ceiling in it.
    writing: Option<(u64, u64)>,
    /// Answers that leave when a write is on disk.
    owed: Vec<(u64, NodeId, Change)>,
    forgets: bool,
    random: ChaCha8Rng,
}

impl Leveled for VoterRecord {}

/// What a node may not forget as a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoterRecord {
    /// Which life of the disk it is.
    incarnation: u64,
    /// No epoch above it was ever promised.
    ceiling: u64,
    /// What was promised and accepted of the next set.
    acceptor: Acceptor,
}

/// What a voter knows that its disk does not, or what of that has changed, for the next life of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Of the voter set that it knows.
    generation: u64,
    voter: lease::Handover,
}

/// How long an even number of voters lasts when there is nobody to make it odd.
const EVEN_MAX: Duration = Duration::from_secs(60);
/// A voter that is bound by a change that nobody finishes finishes it itself after this.
const BOUND_MAX: Duration = Duration::from_secs(3);
/// Answers about changes that wait for the disk.
const OWED_MAX: usize = 64;

impl Handover {
    /// As it is so much later.
    pub fn age(&mut self, by: Duration) {
        self.voter.age(by);
    }

    /// Takes in what has changed since, bit by bit.
    pub fn absorb(&mut self, later: Vec<Handover>) {
        self.generation = later.last().map_or(self.generation, |last| last.generation);
        self.voter.absorb(later.into_iter().map(|later| later.voter));
    }
}

impl Leases {
    pub fn new(now: Instant, config: &Config, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let incarnation = random.random_range(1..1 << 53);
        let holds_too_long = config.canary == Some(Canary::HoldsALeaseTooLong);
        Self {
            holder: Holder::new(config.generation, holds_too_long),
            voter: Voter::default(),
            set: VoterSet::default(),
            known_since: None,
            me: Member { node: config.id, incarnation },
            acceptor: Acceptor::default(),
            proposer: None,
            attempts: 0,
            change_at: now,
            bound_since: None,
            down_since: BTreeMap::new(),
            even_since: None,
            writing: None,
            owed: Vec::new(),
            forgets: config.canary == Some(Canary::VoterForgets),
            random,
        }
    }

    /// Which life of its disk this is.
    pub fn incarnation(&self) -> u64 {
        self.me.incarnation
    }

    /// Goes on in a later life of this node.
    pub fn renew(&mut self, now: Instant, life: u64) {
        self.holder.renew(life);
        // Another machine may have voted in this one's name meanwhile.
        if self.voter.ceiling() > 0 {
            self.voter.silence(now);
        }
    }

    /// Takes over the incarnation that its own row tells.
    pub fn be(&mut self, incarnation: u64) {
        self.me.incarnation = incarnation;
    }

    /// The disk refused what these wait for.
    pub fn disown(&mut self, sequence: u64) {
        self.owed.retain(|(owed, ..)| *owed < sequence);
        self.writing = self.writing.filter(|(writing, _)| *writing < sequence);
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.holder.next_deadline()
    }

    fn is_voter(&self) -> bool {
        self.set.members.contains(&self.me)
    }

    /// Whether leases are granted here under the set that is known.
    fn is_granting(&self) -> bool {
        self.is_voter() && !self.acceptor.is_bound(&self.set)
    }

    fn record(&self) -> VoterRecord {
        VoterRecord {
            incarnation: self.me.incarnation,
            ceiling: self.voter.ceiling(),
            acceptor: self.acceptor.clone(),
        }
    }
}

impl Node {
    /// How far the lease of a slot of this node's has come.
    pub(super) fn standing_of(&self, now: Now, slot: &crate::id::SlotId) -> Option<Standing> {
        self.leases.holder.standing(now.at, slot)
    }

    /// Whether the voters can look after one lease for each slot of `spec` besides those of all other jobs.
    pub(super) fn room_for_leases(&self, spec: &JobSpec) -> Result<(), Problem> {
        if spec.guarantee != Guarantee::AtMostOne {
            return Ok(());
        }
        let others = self.replica.jobs().filter(|(name, ..)| **name != spec.name);
        let others = others.map(|(_, job, _)| job.effective().0);
        let others = others.filter(|other| other.guarantee == Guarantee::AtMostOne);
        let taken: u64 = others.map(|other| u64::from(other.count)).sum();
        if taken + u64::from(spec.count) <= limits::LEASES_MAX as u64 {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Invalid,
            "more slots than the voters can look after",
            format!(
                "{taken} at-most-one slots are wanted by other jobs, {} by this one, and {} in all may be: \
                 leave out the guarantee where two at a time do no harm",
                spec.count,
                limits::LEASES_MAX
            ),
        ))
    }

    /// Whether a node may leave the roster, and the voter set that is declared when it is forced out.
    pub(super) fn voters_without(
        &self,
        node: &NodeId,
        force: bool,
    ) -> Result<Option<VoterSet>, Problem> {
        let set = &self.leases.set;
        let alive = |member: &&Member| {
            let info = self.replica.node(&member.node);
            let same = info.is_none_or(|info| info.incarnation == member.incarnation);
            member.node == self.config.id || same && self.is_up(&member.node)
        };
        let left = set.members.iter().filter(|member| member.node != *node).filter(alive);
        let mut left: Vec<Member> = left.copied().collect();
        if !set.contains(node) || left.len() >= set.majority() {
            return Ok(None);
        }
        if !force {
            return Err(Problem::new(
                ProblemKind::Conflict,
                "no majority of the voters would be left",
                format!(
                    "{} is one of {} voters, {} decide and {} others answer: at-most-one work would stop and \
                     not start again. Bring voters back or let the fabric choose another first. With force \
                     the voters that are left decide alone: if the others are not gone for good, what they \
                     still run is not fenced off, and two may run at once",
                    self.name_of(node),
                    set.members.len(),
                    set.majority(),
                    left.len()
                ),
            ));
        }
        if left.is_empty() {
            left.push(self.leases.me);
        }
        let rows = self.replica.allocs().map(|(_, _, row, _)| row.epoch.min(limits::EPOCH_MAX));
        let floor = rows.max().unwrap_or(0).max(self.leases.voter.ceiling());
        Ok(Some(set.declared(left, floor)))
    }

    /// A new fabric has one voter.
    pub(super) fn found_voters(&mut self, now: Now) {
        let set = VoterSet::founded(self.leases.me);
        self.write(now, Key::Voters, Value::Voters(set));
    }

    /// What the disk kept of this node as a voter.
    pub(super) fn restore_voter(&mut self, now: Now, record: VoterRecord) {
        let leases = &mut self.leases;
        leases.me.incarnation = record.incarnation;
        self.info.incarnation = record.incarnation;
        leases.attempts = record.acceptor.promised.map_or(0, |attempt| attempt.number);
        leases.acceptor = record.acceptor;
        if record.ceiling > 0 {
            leases.voter = Voter::restored(now.at, record.ceiling, leases.forgets);
        }
    }

    /// What the next life has to know besides the disk, should this one end now: all of it, or what has changed since this
    /// was asked. To be kept, where a crash of the agent does not reach it and a restart of the machine does, before any
    /// output is carried out. `None`: nothing.
    pub fn hand_over(&mut self, now: Now, all: bool) -> Option<Handover> {
        let Leases { voter, set, .. } = &mut self.leases;
        if voter.ceiling() == 0 {
            return None;
        }
        let voter = voter.changes(now.at, all)?;
        Some(Handover { generation: set.generation, voter })
    }

    /// Goes on as the voter that the life before has been.
    pub(super) fn take_over(&mut self, now: Now, handover: Handover) {
        let leases = &mut self.leases;
        let known = VoterSet { generation: handover.generation, ..VoterSet::default() };
        if leases.set.is_of_another_era(&known) || leases.voter.ceiling() == 0 {
            return;
        }
        if !leases.voter.take_over(now.at, handover.voter) {
            tracing::warn!(
                "what the agent before has granted is not on this disk, which is an older one: this voter says nothing until all of it \
                 has run out"
            );
        } else if leases.is_voter() {
            leases.voter.raise_floor(leases.set.floor);
        }
    }

    /// Writes down what this node may not forget as a voter.
    pub(super) fn remember_voter(&mut self) {
        let record = self.leases.record();
        self.replica.disk_mut().set_voter(&record);
        self.leases.writing = Some((self.replica.disk().next_sequence(), record.ceiling));
    }

    /// Something is on disk.
    pub(super) fn voter_is_on_disk(&mut self) {
        if let Some((sequence, ceiling)) = self.leases.writing
            && self.replica.disk().holds(sequence)
        {
            self.leases.writing = None;
            self.leases.voter.ceiling_is_on_disk(ceiling);
        }
        let owed = std::mem::take(&mut self.leases.owed);
        let (due, waiting) =
            owed.into_iter().partition(|(sequence, ..)| self.replica.disk().holds(*sequence));
        self.leases.owed = waiting;
        for (_, to, change) in due {
            self.send(to, Message::Voters(change));
        }
    }

    /// The table has a newer voter set.
    pub(super) fn learn_voters(&mut self, now: Now) {
        let Some(set) = self.replica.voters().cloned() else { return };
        let leases = &mut self.leases;
        if set.generation > leases.set.generation {
            let known_one = leases.set.generation > 0;
            if set.is_of_another_era(&leases.set) && (known_one || leases.voter.ceiling() > 0) {
                leases.voter.silence(now.at);
            }
            leases.known_since = (!set.quiet).then_some(now.at);
            leases.proposer = None;
            leases.bound_since = None;
            leases.even_since = None;
            self.coordinator.hear_of_voters();
            self.replica.look_at_all();
            self.timers.soon = true;
        }
        let leases = &mut self.leases;
        leases.acceptor.learn(&set);
        leases.set = set;
        if leases.is_voter() {
            tracing::info!(
                generation = leases.set.generation,
                "this node is a voter: it grants leases"
            );
            leases.voter.raise_floor(leases.set.floor);
            self.remember_voter();
        }
    }

    /// Asks, renews, gives back, and looks after the voter set.
    pub(super) fn do_leases(&mut self, now: Now, settled: bool) {
        for (alloc, surely_gone) in self.supervisor.take_ended() {
            let leases = &mut self.leases;
            if !leases
                .holder
                .slots()
                .any(|(slot, epoch)| (slot, epoch) == (&alloc.slot, alloc.epoch))
            {
                continue;
            }
            if surely_gone {
                leases.holder.release(now.at, &alloc.slot, &leases.set);
            } else {
                leases.holder.forget(&alloc.slot);
            }
        }
        let holder = &mut self.leases.holder;
        for local in self.supervisor.leased() {
            let (alloc, stop_timeout) = (local.id(), local.spec().task.stop_timeout);
            if !local.row().phase.is_live() {
                holder.let_run_out(&alloc.slot);
            } else if let Some(until) = local.leased_until() {
                // Only after a restart is there anything to adopt.
                holder.adopt(now.at, &alloc.slot, alloc.epoch, stop_timeout, until);
            }
        }
        if settled {
            for local in self.supervisor.waiting_for_a_lease() {
                let (alloc, stop_timeout) = (local.id(), local.spec().task.stop_timeout);
                holder.acquire(now.at, &alloc.slot, alloc.epoch, stop_timeout);
            }
        }
        self.ask_voters(now);
        self.take_outcomes(now);
        self.choose_voters(now);
    }

    fn ask_voters(&mut self, now: Now) {
        let generation = self.leases.set.generation;
        let mut by_voter: BTreeMap<NodeId, Vec<Ask>> = BTreeMap::new();
        for (voter, ask) in self.leases.holder.tick(now.at, &self.leases.set) {
            by_voter.entry(voter).or_default().push(ask);
        }
        for (voter, asks) in by_voter {
            for asks in asks.chunks(limits::LEASE_ENTRIES_MAX) {
                let message = LeaseMessage::Asks { generation, asks: asks.to_vec() };
                if voter == self.config.id {
                    self.handle_lease(now, voter, message);
                } else {
                    self.transmit(voter, Datagram::Lease(message));
                }
            }
        }
    }

    fn take_outcomes(&mut self, now: Now) {
        for outcome in self.leases.holder.take_outcomes() {
            match outcome {
                Outcome::Owned { slot, epoch, until } => {
                    self.supervisor.granted(&slot, epoch, until);
                }
                Outcome::Below { slot, epoch, at_least } => {
                    let reason = format!("the voters grant this slot no epoch below {at_least}");
                    let ending = Ending::Retired { reason };
                    if let Some((alloc, to)) = self.supervisor.unleased(now, &slot, epoch, ending) {
                        let reason = Rejection::Epoch { at_least };
                        self.send(to, Message::Reject { alloc, reason });
                    }
                }
                Outcome::GaveUp { slot, epoch, reason } => {
                    tracing::info!(%slot, epoch, reason, "no lease was to be had for it: it is tried again");
                    self.supervisor.unleased(now, &slot, epoch, Ending::Unleased { reason });
                }
            }
        }
    }

    /// A holder asks, or a voter answers.
    pub(super) fn handle_lease(&mut self, now: Now, from: NodeId, message: LeaseMessage) {
        match message {
            LeaseMessage::Asks { generation, asks } if asks.len() <= limits::LEASE_ENTRIES_MAX => {
                let answers = self.answer_holder(now, from, generation, &asks);
                let generation = self.leases.set.generation;
                let message = LeaseMessage::Answers { generation, answers };
                if from == self.config.id {
                    self.handle_lease(now, from, message);
                } else {
                    self.transmit(from, Datagram::Lease(message));
                }
            }
            LeaseMessage::Answers { generation, answers }
                if answers.len() <= limits::LEASE_ENTRIES_MAX =>
            {
                if generation < self.leases.set.generation {
                    self.tell_of_voters(from);
                } else if generation == self.leases.set.generation {
                    for answer in answers {
                        self.leases.holder.handle(now.at, from, answer, &self.leases.set);
                    }
                    self.timers.soon = true;
                }
            }
            _ => self.counters.malformed += 1,
        }
    }

    /// Without answers: this node is no voter of that generation, or acts under another one.
    fn answer_holder(
        &mut self,
        now: Now,
        from: NodeId,
        generation: u64,
        asks: &[Ask],
    ) -> Vec<Answer> {
        let leases = &mut self.leases;
        if generation < leases.set.generation {
            self.tell_of_voters(from);
            return Vec::new();
        }
        if generation != leases.set.generation || !leases.is_granting() {
            return Vec::new();
        }
        let voter = &mut leases.voter;
        let answers = asks.iter().filter_map(|ask| voter.handle(now.at, from, ask)).collect();
        let wanted = voter.wanted_ceiling();
        if wanted.is_some_and(|wanted| leases.writing.is_none_or(|(_, under)| under < wanted)) {
            self.remember_voter();
        }
        answers
    }

    /// Somebody acts under a voter set that is over.
    fn tell_of_voters(&mut self, to: NodeId) {
        if to != self.config.id
            && let Some(entry) = self.replica.entry(&Key::Voters)
        {
            let entry = entry.clone();
            self.transmit(to, Datagram::Push(vec![entry]));
        }
    }

    /// Somebody takes part in choosing the next voter set.
    pub(super) fn handle_change(&mut self, now: Now, from: NodeId, change: &Change) {
        let leases = &mut self.leases;
        let (Change::Prepare { generation, .. }
        | Change::Promise { generation, .. }
        | Change::Accept { generation, .. }
        | Change::Accepted { generation, .. }
        | Change::Refused { generation, .. }) = change;
        if *generation != leases.set.generation {
            if *generation < leases.set.generation {
                self.tell_of_voters(from);
            }
            return;
        }
        match change {
            Change::Prepare { attempt, .. } | Change::Accept { attempt, .. } => {
                if !leases.is_voter() {
                    return;
                }
                leases.attempts = leases.attempts.max(attempt.number);
                let quiet = leases.voter.mute_for(now.at).is_none()
                    && leases.voter.locked(now.at).next().is_none();
                let ceiling = leases.voter.ceiling();
                let (set, since) = (&leases.set, leases.known_since);
                let answer = leases.acceptor.handle(now.at, change, set, since, ceiling, quiet);
                match answer {
                    Some(refused @ Change::Refused { .. }) => {
                        self.send(from, Message::Voters(refused));
                    }
                    Some(answer) => {
                        self.remember_voter();
                        let sequence = self.replica.disk().next_sequence();
                        if self.leases.owed.len() < OWED_MAX {
                            self.leases.owed.push((sequence, from, answer));
                        }
                    }
                    None => {}
                }
            }
            Change::Refused { promised, .. } => {
                leases.attempts = leases.attempts.max(promised.number);
                if leases.proposer.as_ref().is_some_and(|own| own.attempt() < *promised) {
                    leases.proposer = None;
                }
            }
            Change::Promise { .. } | Change::Accepted { .. } => {
                let Some(proposer) = &mut leases.proposer else { return };
                let before = proposer.say();
                if let Some(next) = proposer.hear(from, change, &leases.set) {
                    tracing::debug!(generation = next.generation, "the next voter set is chosen");
                    leases.proposer = None;
                    self.write(now, Key::Voters, Value::Voters(next));
                } else if proposer.say() != before {
                    leases.change_at = now.at;
                    self.timers.soon = true;
                }
            }
        }
    }

    /// Begins a change of the voter set, or goes on with it.
    fn choose_voters(&mut self, now: Now) {
        if self.leases.change_at > now.at {
            return;
        }
        let jitter = self.leases.random.random_range(1.0..1.5);
        self.leases.change_at = now.at + limits::VOTERS_RESEND.mul_f64(jitter);
        if !self.leases.is_voter() {
            return;
        }
        let leases = &mut self.leases;
        let set = &leases.set;
        if leases.proposer.as_ref().is_some_and(|proposer| {
            proposer.deadline <= now.at || proposer.generation() != set.generation
        }) {
            leases.proposer = None;
            // Whoever else tries goes first.
            let pause = leases.random.random_range(1.0..4.0);
            leases.change_at = now.at + limits::VOTERS_RESEND.mul_f64(pause);
            return;
        }
        if leases.proposer.is_none() {
            let Some(wish) = self.wished_change(now) else { return };
            let leases = &mut self.leases;
            leases.attempts += 1;
            let proposer =
                Proposer::new(now.at, leases.me.node, leases.attempts, &leases.set, wish);
            leases.proposer = Some(proposer);
        }
        if let Some(proposer) = &self.leases.proposer {
            let change = proposer.say();
            let voters: Vec<NodeId> = self.leases.set.members.iter().map(|m| m.node).collect();
            for voter in voters {
                self.send(voter, Message::Voters(change.clone()));
            }
        }
    }

    /// How the voter set should change, if this node is the one to see to it.
    fn wished_change(&mut self, now: Now) -> Option<Wish> {
        let up: Vec<NodeId> = {
            let voters = self.leases.set.members.iter().map(|member| member.node);
            voters.filter(|voter| *voter == self.config.id || self.is_up(voter)).collect()
        };
        let leases = &mut self.leases;
        leases.down_since.retain(|voter, _| !up.contains(voter));
        for member in leases.set.members.iter().filter(|member| !up.contains(&member.node)) {
            leases.down_since.entry(member.node).or_insert(now.at);
        }
        if let Some((_, members)) = &leases.acceptor.accepted {
            let since = *leases.bound_since.get_or_insert(now.at);
            let added = members.iter().find(|member| !leases.set.members.contains(member));
            let dropped = leases.set.members.iter().find(|member| !members.contains(member));
            let wish = added.map(|m| Wish::Add(*m)).or(dropped.map(|m| Wish::Drop(m.node)));
            return wish.filter(|_| now.at.since(since) >= BOUND_MAX);
        }
        let waited = lease::longest_hold();
        let early = leases.known_since.is_some_and(|since| now.at.since(since) < waited);
        if early || up.len() < leases.set.majority() || up.first() != Some(&self.config.id) {
            return None;
        }
        let size = leases.set.members.len();
        let even = size.is_multiple_of(2);
        let even_since = leases.even_since.get_or_insert(now.at);
        if !even {
            *even_since = now.at;
        }
        let even_for = now.at.since(*even_since);
        let set = &self.leases.set;
        // Lost for good: removed, or without the disk that it voted with.
        let is_lost = |member: &&Member| {
            let reborn = |info: &crate::topology::NodeInfo| info.incarnation != member.incarnation;
            member.node != self.config.id
                && (!self.replica.is_member(&member.node)
                    || self.replica.node(&member.node).is_some_and(reborn))
        };
        if let Some(lost) = set.members.iter().find(is_lost) {
            return (size > 1).then_some(Wish::Drop(lost.node));
        }
        let spare = self.spare_voter();
        let is_gone = |member: &&Member| {
            let since = self.leases.down_since.get(&member.node);
            since.is_some_and(|since| now.at.since(*since) >= limits::VOTER_GONE)
        };
        if let Some(gone) = set.members.iter().find(is_gone)
            && (spare.is_some() || even)
        {
            return Some(Wish::Drop(gone.node));
        }
        let members = self.peers().take(limits::VOTERS_MAX).count() + 1;
        let target = match members {
            5.. => 5,
            3.. => 3,
            _ => 1,
        };
        if size < target {
            return spare.map(Wish::Add);
        }
        if even && even_for >= EVEN_MAX {
            let worst = set.members.iter().filter(|member| member.node != self.config.id);
            let witness = |node: &NodeId| self.replica.node(node).is_some_and(|info| info.witness);
            let worst = worst.max_by_key(|m| (!up.contains(&m.node), !witness(&m.node), m.node))?;
            return Some(Wish::Drop(worst.node));
        }
        None
    }

    /// The member that votes next: a witness first, then one that stays.
    fn spare_voter(&self) -> Option<Member> {
        self.peers()
            .filter(|node| !self.leases.set.contains(node))
            .filter_map(|node| {
                let info = self.replica.node(&node)?;
                let rank = (!info.witness, info.draining || info.impaired.is_some(), node);
                let member = Member { node, incarnation: info.incarnation };
                (info.incarnation != 0).then_some((rank, member))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, member)| member)
    }
}

#[cfg(test)]
mod tests;
