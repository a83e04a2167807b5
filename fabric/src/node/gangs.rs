//! Gangs: all slots of a job start, or none holds a claim.
//!
//! Two phases over reservations that expire. The coordinator reserves every slot; each target claims what its slot
//! needs, writes it to disk and says so, but starts nothing. Once all are reserved the coordinator commits
//! them. If one is refused, or they are not together within [`limits::GANG_GATHER`], all are released, and the next
//! attempt comes after a random back-off that grows; where two gangs are in each other's way, the less
//! important one waits until the other one's attempt is over.
//!
//! A gang has begun when the first of its units was asked to start. From then on each slot is looked after by itself:
//! a commit that was lost is given again, a slot whose reservation ran out or whose node died is placed again.
//!
//! Nothing of an attempt is on disk. A coordinator that takes over sees reservations in the table and waits until
//! they are committed or run out.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;

use crate::alloc::{Phase, Succession};
use crate::clock::{Instant, Now};
use crate::id::{AllocId, JobName, NodeId};
use crate::job::{JobSpec, SpecHash};
use crate::limits;
use crate::message::Message;
use crate::placement::Placer;
use crate::resources::Rejection;
use crate::table::{Key, SharedEntry, Value};

use super::rollout::how_many_fit;
use super::slots::Slot;
use super::{Brought, Node};

/// What a coordinator keeps of gangs.
#[derive(Clone, Debug, Default)]
pub(super) struct Gangs {
    attempts: BTreeMap<JobName, Attempt>,
    back_offs: BTreeMap<JobName, BackOff>,
    /// Commits given to slots of gangs that have begun, and when.
    committed: BTreeMap<AllocId, Instant>,
}

#[derive(Clone, Debug)]
struct Attempt {
    hash: SpecHash,
    started: Instant,
    /// When the targets were last asked.
    asked: Instant,
    members: Vec<Member>,
    /// A node refused; another gang that is more important was in the way there.
    refused: Option<bool>,
    committed: bool,
}

#[derive(Clone, Debug)]
struct Member {
    alloc: AllocId,
    node: NodeId,
    reserved: bool,
}

#[derive(Clone, Debug)]
struct BackOff {
    failures: u32,
    until: Instant,
}

impl Node {
    /// Looks after the slots of a gang that has not begun. False: it has begun, and each slot is placed by itself.
    pub(super) fn gather(
        &mut self,
        now: Now,
        spec: &JobSpec,
        hash: SpecHash,
        job: &SharedEntry,
        slots: &[Slot],
    ) -> bool {
        let live = || slots.iter().flat_map(|slot| &slot.current);
        if live().any(|(_, row)| row.phase > Phase::Reserved) {
            self.coordinator.gangs.attempts.remove(&spec.name);
            self.coordinator.gangs.back_offs.remove(&spec.name);
            self.commit_the_rest(now, slots);
            return false;
        }
        // Time alone moves it on: look again in the next tick.
        self.replica.look_at(spec.name.clone());
        if self.coordinator.gangs.attempts.contains_key(&spec.name) {
            self.go_on(now, spec, hash, job);
            return true;
        }
        let waits = |slot: &Slot| slot.stopping || slot.doubtful || !slot.outdated.is_empty();
        let backs_off =
            self.coordinator.gangs.back_offs.get(&spec.name).is_some_and(|b| b.until > now.at);
        let others = live().next().is_some();
        if slots.is_empty() || backs_off || others || slots.iter().any(waits) {
            return true;
        }
        self.begin_attempt(now, spec, hash, job, slots);
        true
    }

    /// A commit that was lost is given again.
    fn commit_the_rest(&mut self, now: Now, slots: &[Slot]) {
        self.coordinator.gangs.committed.retain(|_, at| now.at.since(*at) < limits::GANG_AGAIN);
        for slot in slots {
            for (node, row) in slot.current.iter().filter(|(_, row)| row.phase == Phase::Reserved) {
                let alloc = row.of(slot.id.clone());
                if !self.coordinator.gangs.committed.contains_key(&alloc) {
                    self.coordinator.gangs.committed.insert(alloc.clone(), now.at);
                    self.send(*node, Message::Commit { alloc });
                    self.miss(now, *node);
                }
                self.replica.look_at(slot.id.job.clone());
            }
        }
    }

    /// How many slots of a gang would fit, and how many there are, if that is fewer; of what is live already
    /// nothing is asked.
    pub(super) fn gang_that_does_not_fit(&self, spec: &JobSpec) -> Option<(u32, u32)> {
        if !spec.gang || self.replica.allocs_of(&spec.name).any(|(.., row, _)| row.phase.is_live())
        {
            return None;
        }
        let mut fleet = self.current_fleet().into_owned();
        let fit = how_many_fit(&mut fleet, spec);
        (fit < spec.count).then_some((fit, spec.count))
    }

    /// Chooses a node for every slot and asks all of them, if all fit by this node's view.
    fn begin_attempt(
        &mut self,
        now: Now,
        spec: &JobSpec,
        hash: SpecHash,
        job: &SharedEntry,
        slots: &[Slot],
    ) {
        self.ensure_fleet(now);
        let mut placer = Placer::new(self.replica.fleet(), spec, &BTreeMap::new());
        let mut members: Vec<Member> = Vec::new();
        for slot in slots {
            let avoid = self.avoided(now, &slot.id);
            let choice =
                placer.choose(self.replica.fleet(), &avoid, &mut self.rng).filter(|choice| {
                    self.check_quota(spec, &slot.id, choice.node, &choice.claim, true).is_ok()
                });
            let Some(choice) = choice else { break };
            let alloc = self.newborn(slot.id.clone(), slot.epoch.saturating_add(1));
            self.replica.promise(&alloc, choice.node, &choice.claim);
            self.replica.fleet_mut().propose(&choice.node, &alloc, choice.claim);
            members.push(Member { alloc, node: choice.node, reserved: false });
        }
        let fits = members.len() == slots.len();
        for slot in slots {
            match fits {
                true => self.coordinator.unplaceable.remove(&slot.id),
                false => self.coordinator.unplaceable.insert(slot.id.clone()),
            };
        }
        if !fits {
            for member in &members {
                self.replica.fleet_mut().release(&member.node, &member.alloc);
                self.replica.forget_promise(&member.alloc);
            }
            let until = now.at + limits::PREEMPT_AGAIN;
            let back_off = self.coordinator.gangs.back_offs.entry(spec.name.clone());
            back_off.or_insert(BackOff { failures: 0, until }).until = until;
            return;
        }
        for member in &members {
            let (alloc, job) = (member.alloc.clone(), job.clone());
            let succession = self.succession_of(&alloc.slot);
            self.send(member.node, Message::Reserve { alloc, job, succession });
        }
        let (started, asked) = (now.at, now.at);
        let attempt = Attempt { hash, started, asked, members, refused: None, committed: false };
        self.coordinator.gangs.attempts.insert(spec.name.clone(), attempt);
    }

    /// Commits an attempt that is complete, asks again whoever has not answered, or gives it up.
    fn go_on(&mut self, now: Now, spec: &JobSpec, hash: SpecHash, job: &SharedEntry) {
        let Some(attempt) = self.coordinator.gangs.attempts.get_mut(&spec.name) else { return };
        let age = now.at.since(attempt.started);
        let complete = attempt.members.iter().all(|member| member.reserved);
        let in_force = attempt.hash == hash && attempt.members.len() == spec.count as usize;
        let again = now.at.since(attempt.asked) >= limits::GANG_AGAIN;
        if attempt.committed {
            if age > limits::GANG_HOLD * 2 {
                // Every commit was lost, or everybody died: what is left has run out by now.
                self.give_up(now, spec, false);
            }
        } else if attempt.refused.is_some() || !in_force || age >= limits::GANG_GATHER {
            let yields = attempt.refused == Some(true);
            self.give_up(now, spec, yields);
        } else if complete {
            attempt.committed = true;
            let members = attempt.members.iter().map(|m| (m.node, m.alloc.clone()));
            let members: Vec<(NodeId, AllocId)> = members.collect();
            tracing::info!(job = %spec.name, "a gang is complete");
            for (node, alloc) in members {
                self.send(node, Message::Commit { alloc });
            }
        } else if again {
            attempt.asked = now.at;
            let silent = attempt.members.iter().filter(|member| !member.reserved);
            let silent: Vec<(NodeId, AllocId)> =
                silent.map(|member| (member.node, member.alloc.clone())).collect();
            for (node, alloc) in silent {
                let succession = self.succession_of(&alloc.slot);
                self.send(node, Message::Reserve { alloc, job: job.clone(), succession });
                self.miss(now, node);
            }
        }
    }

    /// Releases everything that an attempt reserved, and backs off. `yields`: somebody more important was in
    /// the way, and needs the time of an attempt.
    fn give_up(&mut self, now: Now, spec: &JobSpec, yields: bool) {
        let Some(attempt) = self.coordinator.gangs.attempts.remove(&spec.name) else { return };
        for member in attempt.members {
            self.replica.fleet_mut().release(&member.node, &member.alloc);
            self.replica.forget_promise(&member.alloc);
            let reason = "its gang did not come together".to_owned();
            self.send(member.node, Message::Retire { alloc: member.alloc, reason });
        }
        let failures = self
            .coordinator
            .gangs
            .back_offs
            .get(&spec.name)
            .map_or(0, |back_off| back_off.failures);
        let wait =
            (limits::GANG_BACK_OFF * 2u32.pow(failures.min(8))).min(limits::GANG_BACK_OFF_MAX);
        let wait = wait.mul_f64(self.rng.random_range(0.5..1.5));
        let longer = if yields { limits::GANG_HOLD } else { Duration::ZERO };
        let back_off = BackOff { failures: failures + 1, until: now.at + wait + longer };
        tracing::debug!(job = %spec.name, ?back_off, "a gang did not come together");
        self.coordinator.gangs.back_offs.insert(spec.name.clone(), back_off);
    }

    /// A target says that a slot is reserved.
    pub(super) fn note_reserved(&mut self, from: NodeId, alloc: &AllocId) {
        let Some(attempt) = self.coordinator.gangs.attempts.get_mut(&alloc.slot.job) else {
            return;
        };
        let member = attempt.members.iter_mut().find(|m| m.alloc == *alloc && m.node == from);
        if let Some(member) = member {
            member.reserved = true;
            self.replica.look_at(alloc.slot.job.clone());
            self.timers.soon = true;
        }
    }

    /// A target will not reserve a slot.
    pub(super) fn note_refused(&mut self, now: Now, from: NodeId, alloc: &AllocId) {
        let yields = self.more_important_gang_on(from, &alloc.slot.job);
        let Some(attempt) = self.coordinator.gangs.attempts.get_mut(&alloc.slot.job) else {
            return;
        };
        if !attempt.committed && attempt.members.iter().any(|m| m.alloc == *alloc && m.node == from)
        {
            attempt.refused = Some(yields);
            let until = now.at + limits::REJECTED_FOR;
            self.coordinator.reject_for(&alloc.slot, from, until);
            self.replica.look_at(alloc.slot.job.clone());
            self.timers.soon = true;
        }
    }

    /// Whether another gang that comes first has reserved something on a node: the one of higher priority, then
    /// the one whose name has the lower hash.
    fn more_important_gang_on(&self, node: NodeId, job: &JobName) -> bool {
        let rank = |job: &JobName| {
            let (spec, ..) = self.replica.job(job)?.effective();
            let hash = xxhash_rust::xxh3::xxh3_64(job.as_str().as_bytes());
            spec.gang.then_some((spec.priority, std::cmp::Reverse(hash)))
        };
        let Some(candidate) = self.replica.fleet().get(&node) else { return false };
        candidate.ledger().claims().map(|(alloc, _)| alloc).any(|alloc| {
            let row = self.replica.alloc(&alloc.slot, &node);
            alloc.slot.job != *job
                && row.is_some_and(|row| row.phase == Phase::Reserved)
                && rank(&alloc.slot.job) > rank(job)
        })
    }

    /// A coordinator asks this node to reserve a slot of a gang.
    pub(super) fn handle_reserve(
        &mut self,
        now: Now,
        from: NodeId,
        alloc: AllocId,
        job: SharedEntry,
        succession: Option<Box<Succession>>,
    ) {
        if job.key != Key::Job(alloc.slot.job.clone()) || !job.is_proper() {
            self.counters.malformed += 1;
            return;
        }
        self.take_in(now, Brought::ByStream(from), job, true);
        if let Some(local) = self.supervisor.local(&alloc.slot)
            && *local.id() == alloc
        {
            // Asked again: the answer was lost, or is still on its way to the disk.
            match local.row().phase {
                Phase::Reserved if !local.was_accepted() => {}
                Phase::Pending => {}
                Phase::Reserved | Phase::Preparing | Phase::Starting | Phase::Running => {
                    self.send(from, Message::Accept { alloc });
                }
                Phase::Stopping | Phase::Ended => {
                    self.send(from, Message::Reject { alloc, reason: Rejection::Outdated });
                }
            }
            return;
        }
        let Some(entry) = self.replica.entry(&Key::Job(alloc.slot.job.clone())).cloned() else {
            return;
        };
        let is_gang = matches!(&entry.value, Value::Job(job) if job.effective().0.gang);
        let admitted = match is_gang {
            true => self.admit(now, &alloc, &entry, Some(from), succession),
            false => Err(Rejection::Outdated),
        };
        match admitted {
            Ok(()) => self.supervisor.hold_back(&alloc.slot, now.at + limits::GANG_HOLD),
            Err(reason) => {
                self.counters.rejected += 1;
                self.send(from, Message::Reject { alloc, reason });
            }
        }
    }

    /// The gang is complete: what is reserved here starts.
    pub(super) fn handle_commit(&mut self, alloc: &AllocId) {
        if self.supervisor.local(&alloc.slot).is_some_and(|local| local.id() == alloc) {
            self.supervisor.commit(&alloc.slot);
            self.timers.soon = true;
        }
    }
}
