//! The holder's side: from a claim to a lease, renewal, and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Answer, Ask, Ballot, Verdict, Wish, attempt_max, hold};
use crate::clock::Instant;
use crate::id::{NodeId, SlotId};
use crate::limits;
use crate::voters::VoterSet;

/// What became of a slot's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Owned until then; said again with each renewal.
    Owned {
        /// Which slot.
        slot: SlotId,
        /// Of which allocation.
        epoch: u64,
        /// On this node's clock.
        until: Instant,
    },
    /// The voters grant the slot no epoch as low as this one.
    Below {
        /// Which slot.
        slot: SlotId,
        /// Of which allocation.
        epoch: u64,
        /// The lowest that may be granted.
        at_least: u64,
    },
    /// No majority in time, or somebody else holds it and renews it.
    GaveUp {
        /// Which slot.
        slot: SlotId,
        /// Of which allocation.
        epoch: u64,
        /// In words.
        reason: String,
    },
}

/// How far a slot's lease has come, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Owned until then.
    pub until: Option<Instant>,
    /// What each voter said last.
    pub heard: BTreeMap<NodeId, Verdict>,
}

/// Every lease that this node has, wants or gives back.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    leases: BTreeMap<SlotId, HeldLease>,
    releases: BTreeMap<(SlotId, u64), Release>,
    outcomes: Vec<Outcome>,
    /// Which life of this node it is, in the upper half, and no less than every round of leases that are over.
    rounds: u64,
    /// A bug on request: leases last one drift bound longer than they do.
    holds_too_long: bool,
}

#[derive(Clone, Debug)]
struct HeldLease {
    epoch: u64,
    stop_timeout: Duration,
    /// When it was first asked for.
    since: Instant,
    /// Of the voter set that the round asks.
    generation: u64,
    round: u64,
    stage: Stage,
    /// Owned until then. Invariant: a majority of one voter set has it locked until after this and the stop
    /// timeout; never set again once it has passed.
    until: Option<Instant>,
    said_yes: BTreeSet<NodeId>,
    heard: BTreeMap<NodeId, Verdict>,
    /// Until when each voter is locked for somebody else, as far as it said at first, and when that was.
    taken: BTreeMap<NodeId, (Ballot, Instant, Instant)>,
    ask_at: Instant,
    is_ending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Asking whether the slot is free.
    Preparing,
    /// Asking for it since then.
    Proposing(Instant),
    /// Owned; the next renewal is due then.
    Resting(Instant),
}

#[derive(Clone, Debug)]
struct Release {
    round: u64,
    left: u32,
    ask_at: Instant,
    waiting: BTreeSet<NodeId>,
}

/// The first round of a life: after all of every earlier one. Lives are numbered by milliseconds, and no node asks four
/// million times in one; the highest number is that of the year 2109.
pub(super) fn first_round(life: u64) -> u64 {
    life << 22
}

impl Holder {
    /// A holder without leases, in this life of its node.
    pub fn new(life: u64, holds_too_long: bool) -> Self {
        Self { rounds: first_round(life), holds_too_long, ..Self::default() }
    }

    /// Goes on in a later life of its node: rounds only grow.
    pub fn renew(&mut self, life: u64) {
        self.rounds = self.rounds.max(first_round(life));
    }

    /// Asks for the lease of a slot, for the allocation `epoch`. Asking again changes nothing.
    pub fn acquire(&mut self, now: Instant, slot: &SlotId, epoch: u64, stop_timeout: Duration) {
        if self.leases.get(slot).is_some_and(|lease| lease.epoch == epoch) {
            return;
        }
        self.forget(slot);
        let lease = HeldLease {
            epoch,
            stop_timeout,
            since: now,
            generation: 0,
            round: self.rounds,
            stage: Stage::Preparing,
            until: None,
            said_yes: BTreeSet::new(),
            heard: BTreeMap::new(),
            taken: BTreeMap::new(),
            ask_at: now,
            is_ending: false,
        };
        self.leases.insert(slot.clone(), lease);
    }

    /// Takes over what a former life of this node owned until then, as the unit's guard says.
    pub fn adopt(
        &mut self,
        now: Instant,
        slot: &SlotId,
        epoch: u64,
        stop_timeout: Duration,
        until: Instant,
    ) {
        let known = self.leases.get(slot).is_some_and(|lease| lease.epoch == epoch);
        if known || until <= now {
            return;
        }
        self.acquire(now, slot, epoch, stop_timeout);
        if let Some(lease) = self.leases.get_mut(slot) {
            lease.until = Some(until);
            lease.stage = Stage::Resting(now);
        }
    }

    /// The allocation has ended and nothing of it runs: a successor need not wait.
    pub fn release(&mut self, now: Instant, slot: &SlotId, set: &VoterSet) {
        let Some(lease) = self.leases.remove(slot) else { return };
        let round = lease.round + 1;
        self.rounds = self.rounds.max(round);
        if self.releases.len() >= limits::ALLOCS_PER_NODE_MAX {
            return;
        }
        let release = Release {
            round,
            left: limits::LEASE_RELEASES,
            ask_at: now,
            waiting: set.members.iter().map(|member| member.node).collect(),
        };
        self.releases.insert((slot.clone(), lease.epoch), release);
    }

    /// The allocation is about to end: its lease is not renewed any more.
    pub fn let_run_out(&mut self, slot: &SlotId) {
        if let Some(lease) = self.leases.get_mut(slot) {
            lease.is_ending = true;
        }
    }

    /// The allocation is over, and what it started may still be there: the lease runs out by itself.
    pub fn forget(&mut self, slot: &SlotId) {
        if let Some(lease) = self.leases.remove(slot) {
            self.rounds = self.rounds.max(lease.round);
        }
    }

    /// Every slot with a lease that is owned or asked for, and of which allocation.
    pub fn slots(&self) -> impl Iterator<Item = (&SlotId, u64)> {
        self.leases.iter().map(|(slot, lease)| (slot, lease.epoch))
    }

    /// How far a slot's lease has come.
    pub fn standing(&self, now: Instant, slot: &SlotId) -> Option<Standing> {
        let lease = self.leases.get(slot)?;
        Some(Standing {
            until: lease.until.filter(|until| now < *until),
            heard: lease.heard.clone(),
        })
    }

    /// What became of leases since the last call.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// When [`Holder::tick`] has something to do at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let leases = self.leases.values().filter(|lease| !lease.is_ending);
        let leases = leases.map(|lease| lease.ask_at);
        leases.chain(self.releases.values().map(|release| release.ask_at)).min()
    }

    /// What to ask of which voter now.
    pub fn tick(&mut self, now: Instant, set: &VoterSet) -> Vec<(NodeId, Ask)> {
        let mut asks = Vec::new();
        let mut over = Vec::new();
        for (slot, lease) in &mut self.leases {
            // Whoever runs under it knows when it ends, and says so.
            lease.is_ending |= lease.until.is_some_and(|until| until <= now);
            if lease.is_ending {
                continue;
            }
            if lease.until.is_none() && now.since(lease.since) > attempt_max(lease.stop_timeout) {
                self.outcomes.push(Outcome::GaveUp {
                    slot: slot.clone(),
                    epoch: lease.epoch,
                    reason: "no majority of the voters answered".into(),
                });
                over.push(slot.clone());
                continue;
            }
            lease.advance(now, set, slot, &mut asks);
        }
        for slot in over {
            // Nothing runs where nothing was owned.
            self.release(now, &slot, set);
        }
        self.releases.retain(|(slot, epoch), release| {
            if release.ask_at <= now {
                release.left -= 1;
                release.ask_at = now + limits::LEASE_RESEND;
                let (epoch, round) = (*epoch, release.round);
                let ask = Ask { slot: slot.clone(), epoch, round, wish: Wish::Release };
                asks.extend(release.waiting.iter().map(|voter| (*voter, ask.clone())));
            }
            release.left > 0 && !release.waiting.is_empty()
        });
        asks
    }

    /// A voter of `set` answered, acting under that set.
    pub fn handle(&mut self, now: Instant, from: NodeId, answer: Answer, set: &VoterSet) {
        let key = (answer.slot, answer.epoch);
        if let Some(release) = self.releases.get_mut(&key)
            && release.round == answer.round
        {
            if answer.verdict == Verdict::Released {
                release.waiting.remove(&from);
            }
            return;
        }
        let Some(lease) = self.leases.get_mut(&key.0) else { return };
        let current = lease.epoch == key.1
            && lease.round == answer.round
            && lease.generation == set.generation
            && set.contains(&from);
        if !current || lease.is_ending || lease.until.is_some_and(|until| until <= now) {
            return;
        }
        let extra = if self.holds_too_long {
            hold(lease.stop_timeout) - limits::LEASE - lease.stop_timeout
        } else {
            Duration::ZERO
        };
        if let Some(outcome) = lease.hear(now, from, answer.verdict, set, &key.0, extra) {
            if !matches!(outcome, Outcome::Owned { .. }) {
                self.release(now, &key.0, set);
            }
            self.outcomes.push(outcome);
        }
    }
}

impl HeldLease {
    fn begin(&mut self, now: Instant, stage: Stage, set: &VoterSet) {
        self.round = self.round.wrapping_add(1);
        self.generation = set.generation;
        self.said_yes.clear();
        self.stage = stage;
        self.ask_at = now;
    }

    fn advance(
        &mut self,
        now: Instant,
        set: &VoterSet,
        slot: &SlotId,
        asks: &mut Vec<(NodeId, Ask)>,
    ) {
        let changed = self.generation != set.generation;
        match self.stage {
            Stage::Resting(due) if due <= now || changed => {
                self.begin(now, Stage::Proposing(now), set);
            }
            Stage::Preparing if changed => {
                self.heard.clear();
                self.begin(now, Stage::Preparing, set);
            }
            Stage::Proposing(since) if changed || now.since(since) > limits::LEASE_RENEWAL => {
                // What was locked for it stays so; the lease is counted from now.
                let owned = self.until.is_some();
                let stage = if owned { Stage::Proposing(now) } else { Stage::Preparing };
                self.begin(now, stage, set);
            }
            _ => {}
        }
        if self.ask_at > now {
            return;
        }
        let wish = match self.stage {
            Stage::Preparing => Wish::Prepare,
            Stage::Proposing(_) => {
                Wish::Propose { stop_timeout: self.stop_timeout, renewal: self.until.is_some() }
            }
            Stage::Resting(due) => {
                self.ask_at = due;
                return;
            }
        };
        self.ask_at = now + limits::LEASE_RESEND;
        let ask = Ask { slot: slot.clone(), epoch: self.epoch, round: self.round, wish };
        for member in set.members.iter().filter(|member| !self.said_yes.contains(&member.node)) {
            asks.push((member.node, ask.clone()));
        }
    }

    fn hear(
        &mut self,
        now: Instant,
        from: NodeId,
        verdict: Verdict,
        set: &VoterSet,
        slot: &SlotId,
        extra: Duration,
    ) -> Option<Outcome> {
        self.heard.insert(from, verdict.clone());
        let majority = |voters: &BTreeSet<NodeId>| voters.len() >= set.majority();
        match (self.stage, verdict) {
            (Stage::Preparing, Verdict::Promised) => {
                self.said_yes.insert(from);
                if majority(&self.said_yes) {
                    self.begin(now, Stage::Proposing(now), set);
                }
                None
            }
            (Stage::Proposing(asked), Verdict::Accepted) => {
                self.said_yes.insert(from);
                if !majority(&self.said_yes) {
                    return None;
                }
                let until = asked + limits::LEASE + extra;
                if until <= now {
                    return None;
                }
                self.until = Some(until);
                self.stage = Stage::Resting(asked + limits::LEASE_RENEWAL);
                self.ask_at = asked + limits::LEASE_RENEWAL;
                Some(Outcome::Owned { slot: slot.clone(), epoch: self.epoch, until })
            }
            (_, Verdict::Held { by, for_another }) if self.until.is_none() => {
                self.hear_of_another(now, from, by, for_another, slot)
            }
            (Stage::Preparing, Verdict::Below { at_least }) => {
                // Higher epochs cost nothing. A majority without this voter may need one that does not answer.
                Some(Outcome::Below { slot: slot.clone(), epoch: self.epoch, at_least })
            }
            (_, Verdict::Below { .. }) if self.until.is_none() => {
                let below = |voter: &NodeId| match self.heard.get(voter) {
                    Some(Verdict::Below { at_least }) => Some(*at_least),
                    _ => None,
                };
                let nodes = || set.members.iter().map(|member| member.node);
                let open = nodes().filter(|voter| below(voter).is_none()).count();
                if open >= set.majority() {
                    return None;
                }
                let at_least = nodes().filter_map(|voter| below(&voter)).max()?;
                Some(Outcome::Below { slot: slot.clone(), epoch: self.epoch, at_least })
            }
            _ => None,
        }
    }

    /// Somebody else has it. Its lease runs out, or it is renewed: then there is no point in waiting.
    fn hear_of_another(
        &mut self,
        now: Instant,
        from: NodeId,
        by: Ballot,
        for_another: Duration,
        slot: &SlotId,
    ) -> Option<Outcome> {
        let until = now + for_another.min(hold(limits::LEASE_STOP_MAX));
        let (known, before, then) = *self.taken.entry(from).or_insert((by, until, now));
        // Two clocks drift apart by this much.
        let drift = now.since(then) * 2 * limits::DRIFT_PPM_MAX / 1_000_000;
        let renewed = known == by && until.since(before) > limits::LEASE_RENEWAL / 2 + drift;
        if known != by {
            self.taken.insert(from, (by, until, now));
        }
        renewed.then(|| Outcome::GaveUp {
            slot: slot.clone(),
            epoch: self.epoch,
            reason: format!("the allocation with epoch {} holds the lease and renews it", by.epoch),
        })
    }
}
