//! The coordinator: for each job that this node looks after, the difference between the slots that are
//! wanted and the allocations that there are.
//!
//! Nothing here is remembered on disk. Whoever becomes a job's coordinator derives the same steps from
//! the table; what is kept in memory only saves repetition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::alloc::{AllocRow, Phase};
use crate::clock::{Instant, Now};
use crate::id::{AllocId, Birth, JobName, NodeId, SlotId};
use crate::job::{Guarantee, JobKind, JobSpec, SpecHash};
use crate::limits;
use crate::message::Message;
use crate::placement::{self, Avoid, Choice, Placer};
use crate::resources::Rejection;
use crate::table::{Entry, JobEntry, Key, SharedEntry, Value};

use xxhash_rust::xxh3::Xxh3;

use super::failures::Failures;
use super::gangs::Gangs;
use super::rebalance::Relocation;
use super::replica::Replica;
use super::rollout::{LastWork, REPLACED, Stuck, has_failed, is_vacated};
use super::slots::{Slot, taken};
use super::{Canary, Node};

/// What a coordinator keeps in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinator {
    /// Large jobs that were looked at a moment ago, and until when they are left alone.
    resting: BTreeMap<JobName, Instant>,
    /// Proposals under way.
    proposals: BTreeMap<SlotId, Proposal>,
    /// Nodes that said no a moment ago.
    rejected: BTreeMap<(SlotId, NodeId), Instant>,
    /// Allocations that failed for good, and when we heard of it. The hybrid clock alone cannot
    /// say how long ago that was: it stands still while it is ahead of every wall clock.
    failed: BTreeMap<(SlotId, NodeId), ((u64, Birth), Instant)>,
    /// What went wrong with the version of a job that was submitted last.
    pub failures: Failures,
    /// Since when an allocation is seen healthy, or is seen at all.
    pub seen: BTreeMap<(SlotId, NodeId), Seen>,
    /// Retirements asked for, and when to ask again.
    pub retired: BTreeMap<AllocId, (NodeId, Instant)>,
    /// The lowest epoch that the voters may grant a slot, as far as anybody was told.
    floors: BTreeMap<SlotId, u64>,
    /// Slots for which no lease was to be had, and when to try again.
    unleased: BTreeMap<SlotId, Instant>,
    /// Slots that no node can take.
    pub unplaceable: BTreeSet<SlotId>,
    /// Roll-outs that have no place to go on.
    pub stuck: Stuck,
    /// Proposals that may still be made in this tick.
    budget: u32,
    /// Jobs that have more to propose than that.
    put_off: BTreeSet<JobName>,
    /// Jobs with slots that wait for a doubt to end, or for more important ones after it.
    pub doubtful: BTreeSet<JobName>,
    /// How many allocations were proposed in this life.
    born: u64,
    /// Moves that somebody asked for.
    pub moves: BTreeMap<SlotId, Relocation>,
    pub gangs: Gangs,
}

#[derive(Clone, Debug)]
struct Proposal {
    alloc: AllocId,
    node: NodeId,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Epoch and birth.
    which: (u64, Birth),
    pub first: Instant,
    pub healthy: Option<Instant>,
}

impl Node {
    pub(super) fn coordinate(&mut self, now: Now) {
        if self.timers.reconcile <= now.at {
            self.timers.reconcile = now.at + limits::RECONCILE_INTERVAL;
            self.replica.look_at_all();
        }
        let mut silent = Vec::new();
        self.coordinator.proposals.retain(|_, proposal| {
            let expired = proposal.deadline <= now.at;
            if expired {
                silent.push(proposal.node);
                self.replica.forget_promise(&proposal.alloc);
                self.replica.look_at(proposal.alloc.slot.job.clone());
                self.replica.fleet_mut().release(&proposal.node, &proposal.alloc);
            }
            !expired
        });
        self.coordinator.moves.retain(|_, wish| wish.until > now.at);
        self.coordinator.rejected.retain(|_, until| *until > now.at);
        self.coordinator.unleased.retain(|_, until| *until > now.at);
        let remembered = limits::FAILED_FOR.max(limits::SLOT_BACKOFF_MAX);
        self.coordinator.failed.retain(|_, (_, heard)| *heard + remembered > now.at);
        let table = &self.replica;
        self.coordinator.retired.retain(|alloc, (node, again)| {
            let waits = *again + limits::RETIRE_RETRY > now.at;
            let same = |row: &AllocRow| row.is_of(alloc) && row.phase.is_live();
            if !waits && table.alloc(&alloc.slot, node).is_some_and(same) {
                silent.push(*node);
            }
            waits
        });
        for node in silent {
            self.miss(now, node);
        }
        if self.replica.take_all_jobs() {
            let jobs = self.replica.jobs().map(|(name, ..)| name);
            let jobs: Vec<JobName> =
                jobs.filter(|name| self.replica.may_coordinate(name)).cloned().collect();
            self.replica.look_at_each(jobs);
            let table = &self.replica;
            self.coordinator.seen.retain(|(slot, node), seen| {
                table.alloc(slot, node).is_some_and(|row| (row.epoch, row.birth) == seen.which)
            });
            self.coordinator.unplaceable.retain(|slot| table.job(&slot.job).is_some());
            self.coordinator.stuck.retain(|job, _| table.job(job).is_some());
            self.coordinator.floors.retain(|slot, _| table.job(&slot.job).is_some());
        }
        self.coordinator.resting.retain(|_, until| *until > now.at);
        self.coordinator.budget = limits::PROPOSALS_PER_TICK;
        let jobs = self.replica.take_jobs();
        let importance =
            |name: &JobName| self.replica.job(name).map_or(0, |job| job.effective().0.priority);
        let mut names: Vec<_> =
            jobs.into_iter().map(|name| (std::cmp::Reverse(importance(&name)), name)).collect();
        names.sort();
        for (_, name) in names {
            if self.coordinator.resting.contains_key(&name) {
                self.replica.look_at(name);
            } else if self.is_coordinator_of(&name) {
                self.reconcile(now, &name);
                let slots = self.replica.job(&name).map_or(0, |job| job.effective().0.count);
                let rest = limits::RECONCILE_REST * slots;
                if rest > limits::TICK_MIN && !self.coordinator.put_off.contains(&name) {
                    self.coordinator.resting.insert(name, now.at + rest);
                }
            } else {
                self.coordinator.unplaceable.retain(|slot| slot.job != name);
                self.coordinator.stuck.remove(&name);
            }
        }
        if !self.coordinator.put_off.is_empty() {
            let put_off = std::mem::take(&mut self.coordinator.put_off);
            self.replica.look_at_each(put_off);
            self.timers.soon = true;
        }
    }

    fn reconcile(&mut self, now: Now, name: &JobName) {
        let Some(entry) = self.replica.entry(&Key::Job(name.clone())).cloned() else { return };
        let Value::Job(job) = &entry.value else {
            self.coordinator.unplaceable.retain(|slot| slot.job != *name);
            self.replica.forget_coordinator(name);
            return;
        };
        let (spec, ..) = job.effective();
        let hash = job.hash();
        if spec.kind == JobKind::System {
            if !self.revert_system_job(now, &entry) {
                self.update_system_job(now, name, job, hash);
            }
            return;
        }
        let mut slots = self.view_slots(now, name, job, hash);
        if self.should_revert(now, job, hash, &slots) {
            self.revert(now, &entry);
            return;
        }
        if !spec.gang || !self.gather(now, spec, hash, &entry, &slots) {
            self.place_missing(now, spec, &entry, &mut slots);
        }
        self.move_from_draining(now, spec, &entry, &slots);
        self.make_moves(now, spec, &entry, &slots);
        self.roll(now, spec, job, &slots);
    }

    /// Gathers what the table says of each wanted slot.
    fn view_slots(
        &mut self,
        now: Now,
        name: &JobName,
        job: &JobEntry,
        hash: SpecHash,
    ) -> Vec<Slot> {
        let (spec, version, _) = job.effective();
        let mut slots: Vec<Slot> = (0..spec.count)
            .map(|index| Slot {
                id: SlotId { job: name.clone(), index },
                current: Vec::new(),
                outdated: Vec::new(),
                stopping: false,
                doubtful: false,
                epoch: 0,
                proposed: false,
                settled: false,
                replaced: false,
                begun: false,
            })
            .collect();
        let rows: Vec<(SlotId, NodeId, AllocRow)> = self
            .replica
            .allocs_of(name)
            .map(|(slot, node, row, _)| (slot.clone(), node, row.clone()))
            .collect();
        let mut last = vec![LastWork::default(); slots.len()];
        let mut failed = vec![false; slots.len()];
        for (id, node, row) in rows {
            let at = id.index as usize;
            let (Some(slot), Some(last)) = (slots.get_mut(at), last.get_mut(at)) else { continue };
            failed[at] |= has_failed(&row, hash, version);
            last.look_at(&row, hash);
            (slot.replaced, slot.begun) = (last.is_vacated(), last.is_vacated() || last.is_of_spec);
            slot.epoch = slot.epoch.max(row.epoch);
            if !self.is_up(&node) {
                slot.doubtful |= row.phase.holds_claim() && self.holds_back(now, &node, spec);
                continue;
            }
            if matches!(row.phase, Phase::Pending | Phase::Stopping) {
                // Pending: it waits there until others have made room.
                slot.stopping = true;
            } else if row.phase.is_live() {
                if row.spec == hash {
                    let seen = self.coordinator.observe(now.at, &id, node, &row);
                    let healthy_for = seen.healthy.map(|since| now.at.since(since));
                    slot.settled |= healthy_for.is_some_and(|time| time >= spec.update.min_healthy);
                    slot.current.push((node, row));
                } else {
                    slot.outdated.push((node, row));
                }
            }
        }
        for slot in &mut slots {
            match self.coordinator.proposals.get(&slot.id) {
                Some(proposal) if proposal.alloc.epoch > slot.epoch => {
                    slot.proposed = true;
                    slot.epoch = proposal.alloc.epoch;
                }
                Some(proposal) => {
                    // A row has overtaken it: its own, or another coordinator's.
                    let row = self.replica.alloc(&slot.id, &proposal.node);
                    if row.is_none_or(|row| !row.is_of(&proposal.alloc)) {
                        self.replica.fleet_mut().release(&proposal.node, &proposal.alloc);
                    }
                    self.coordinator.proposals.remove(&slot.id);
                }
                None => {}
            }
        }
        for (slot, failed) in slots.iter_mut().zip(failed) {
            slot.begun |= failed;
            let is_empty = slot.current.is_empty() && slot.outdated.is_empty();
            slot.doubtful |= is_empty && self.may_be_run_unheard(&slot.id);
        }
        if slots.iter().any(|slot| slot.doubtful) {
            self.coordinator.doubtful.insert(name.clone());
        }
        if slots.iter().any(|slot| !slot.settled && !slot.current.is_empty()) {
            // Time alone settles it: look again in the next tick.
            self.replica.look_at(name.clone());
        }
        slots
    }

    /// Whether what a member that is not up runs is not to be placed elsewhere yet.
    fn holds_back(&self, now: Now, node: &NodeId, spec: &JobSpec) -> bool {
        self.held_back(now, node, spec).is_some()
    }

    /// Whether somebody who was not heard may run a slot of which nothing live is known here.
    pub(super) fn may_be_run_unheard(&self, slot: &SlotId) -> bool {
        let careless = self.config.canary == Some(Canary::PlacesUnheard);
        let others = self.replica.members() > 1 && !careless;
        let Some(since) = self.others.informed.uninformed_since().filter(|_| others) else {
            return false;
        };
        // By the fabric's time: what this machine's clock showed then may have been wrong.
        let since = self.time.timekeeper.fabric(Now { at: since, wall: self.time.own_wall }).wall;
        let job = self.replica.entry(&Key::Job(slot.job.clone())).map(|entry| entry.stamp.wall());
        let newest = self.replica.allocs_in(slot).max_by_key(|(_, _, row, _)| row.epoch);
        let own = newest.filter(|(_, node, ..)| *node == self.config.id);
        job.max(own.map(|(.., written)| written)).is_some_and(|written| written <= since)
    }

    /// Slots without a live allocation get one.
    fn place_missing(&mut self, now: Now, spec: &JobSpec, job: &SharedEntry, slots: &mut [Slot]) {
        let mut placer = None;
        for at in 0..slots.len() {
            let slot = &slots[at];
            let filled = !slot.current.is_empty() || !slot.outdated.is_empty();
            let no_lease = self.coordinator.unleased.contains_key(&slot.id);
            let waits = slot.stopping || slot.doubtful || no_lease;
            if filled || waits || slot.proposed {
                self.coordinator.unplaceable.remove(&slot.id);
                continue;
            }
            if self.back_off(now, &slot.id).is_some() {
                continue;
            }
            if !self.coordinator.may_propose(&slot.id.job) {
                break;
            }
            if placer.is_none() {
                self.ensure_fleet(now);
            }
            let placer = placer
                .get_or_insert_with(|| Placer::new(self.replica.fleet(), spec, &taken(slots)));
            let slot = &mut slots[at];
            slot.proposed = self.propose(now, placer, slot, job);
        }
    }

    /// Slots on draining nodes get a second allocation elsewhere; the first ends when that is healthy.
    fn move_from_draining(&mut self, now: Now, spec: &JobSpec, job: &SharedEntry, slots: &[Slot]) {
        let draining = |node: &NodeId| self.replica.node(node).is_some_and(|info| info.draining);
        let leaving = |slot: &Slot| {
            let mut live = slot.current.iter().chain(&slot.outdated).peekable();
            live.peek().is_some() && live.all(|(node, _)| draining(node))
        };
        let moving = slots.iter().filter(|slot| slot.current.len() > 1 || slot.proposed).count();
        let room = (spec.update.max_parallel as usize).saturating_sub(moving);
        let leaving: Vec<usize> = (0..slots.len())
            .filter(|at| leaving(&slots[*at]) && !slots[*at].proposed)
            .take(room)
            .collect();
        if leaving.is_empty() {
            return;
        }
        self.ensure_fleet(now);
        let mut placer = Placer::new(self.replica.fleet(), spec, &taken(slots));
        for at in leaving {
            if spec.guarantee == Guarantee::AtMostOne {
                self.retire_before_moving(now, &mut placer, &slots[at]);
            } else {
                self.propose(now, &mut placer, &slots[at], job);
            }
        }
    }

    /// At-most-one work cannot be there twice: it is stopped first, if another node can take it.
    fn retire_before_moving(&mut self, now: Now, placer: &mut Placer<'_>, slot: &Slot) {
        let avoid = self.avoided(now, &slot.id);
        if placer.choose(self.replica.fleet(), &avoid, &mut self.rng).is_none() {
            return;
        }
        for (node, row) in slot.current.iter().chain(&slot.outdated) {
            let alloc = row.of(slot.id.clone());
            self.ask_to_retire(now, *node, alloc, "the node is draining");
        }
    }

    pub(super) fn ask_to_retire(&mut self, now: Now, node: NodeId, alloc: AllocId, reason: &str) {
        if self.coordinator.retired.contains_key(&alloc) {
            return;
        }
        self.coordinator.retired.insert(alloc.clone(), (node, now.at));
        if node == self.config.id {
            self.handle_retire(now, &alloc, reason.to_owned());
        } else {
            self.send(node, Message::Retire { alloc, reason: reason.to_owned() });
        }
    }

    /// Nodes start a system job's allocations themselves; the coordinator only paces the update.
    fn update_system_job(&mut self, now: Now, name: &JobName, job: &JobEntry, hash: SpecHash) {
        let spec = job.effective().0;
        let rows: Vec<(SlotId, NodeId, AllocRow)> = self
            .replica
            .allocs_of(name)
            // One that is soon back has what it had: it is not asked for more, and waited for.
            .filter(|(_, node, ..)| self.is_up(node) || self.holds_back(now, node, spec))
            .map(|(slot, node, row, _)| (slot.clone(), node, row.clone()))
            .collect();
        let mut busy = 0;
        let (mut outdated, mut emptied) = (Vec::new(), Vec::new());
        for (slot, node, row) in rows {
            if row.phase == Phase::Stopping {
                busy += 1;
            } else if row.phase == Phase::Ended {
                // Other slots are of the time when the job had a count.
                let is_empty = is_vacated(&row) || has_failed(&row, hash, job.effective().1);
                if is_empty && slot.index == 0 {
                    emptied.push((false, node, row.of(slot)));
                }
            } else if row.phase.is_live() && row.spec != hash {
                outdated.push((row.healthy, node, row.of(slot)));
            } else if row.phase.is_live() {
                let seen = self.coordinator.observe(now.at, &slot, node, &row);
                let healthy_for = seen.healthy.map(|since| now.at.since(since));
                if healthy_for.is_none_or(|time| time < spec.update.min_healthy) {
                    busy += 1;
                }
            }
        }
        busy += outdated.iter().filter(|o| self.coordinator.retired.contains_key(&o.2)).count();
        outdated.retain(|(_, node, _)| self.is_up(node));
        outdated.sort();
        if !outdated.is_empty() {
            // Time alone makes room: look again in the next tick.
            self.replica.look_at(name.clone());
        }
        // Copies that the roll-out has stopped, and those of the new version that failed: it waits for them.
        let is_for = |node: &NodeId| {
            self.replica.node(node).is_some_and(|info| {
                !info.draining && placement::check_kind(spec, *node, info).is_ok()
            })
        };
        emptied.retain(|(_, node, _)| is_for(node));
        busy += emptied.len();
        let room = (spec.update.max_parallel as usize).saturating_sub(busy);
        let mut is_stuck = false;
        // Whether one that is away has room is for later.
        emptied.retain(|(_, node, _)| self.is_up(node));
        if !emptied.is_empty() && !outdated.is_empty() {
            let stopped = emptied.len();
            is_stuck = self.copies_with_a_place(now, spec, emptied).len() < stopped;
        }
        if room > 0 && !outdated.is_empty() {
            let outdated = self.copies_with_a_place(now, spec, outdated);
            is_stuck |= outdated.is_empty();
            for (_, node, alloc) in outdated.into_iter().take(room) {
                self.ask_to_retire(now, node, alloc, REPLACED);
            }
        }
        self.note_stuck(now, job, is_stuck);
    }

    /// A new version has failed if an allocation of it was given up, is not healthy in time, or has had no place for
    /// that time, while the roll-out is still under way: another version still runs, or was stopped for this one and
    /// nothing is there instead, or none of this one has ever settled.
    fn should_revert(&self, now: Now, job: &JobEntry, hash: SpecHash, slots: &[Slot]) -> bool {
        let update = &job.spec.update;
        if job.reverted || job.previous.is_none() || !update.auto_revert {
            return false;
        }
        let under_way = slots.iter().any(|slot| !slot.outdated.is_empty() || slot.replaced)
            || !slots.iter().any(|slot| slot.settled);
        if !under_way {
            return false;
        }
        let mut rows = self.replica.allocs_of(&job.spec.name);
        let given_up = rows.any(|(.., row, _)| has_failed(row, hash, job.version));
        let too_late = slots.iter().any(|slot| {
            slot.current.iter().any(|(node, _)| {
                let key = (slot.id.clone(), *node);
                self.coordinator.seen.get(&key).is_some_and(|seen| {
                    seen.healthy.is_none() && now.at.since(seen.first) > update.deadline
                })
            })
        });
        given_up || too_late || self.has_no_place_in_time(now, job)
    }

    /// Marks the version as failed. The stamp stays the submitter's, so that a newer submit that we have
    /// not heard of yet beats the mark.
    pub(super) fn revert(&mut self, now: Now, entry: &Entry) {
        let mut entry = entry.clone();
        let Value::Job(job) = &mut entry.value else { return };
        job.reverted = true;
        self.merge_in(now, entry.into(), true);
    }

    pub(super) fn handle_accept(&mut self, now: Now, from: NodeId, alloc: &AllocId) {
        if let Some(proposal) = self.coordinator.proposals.get_mut(&alloc.slot)
            && proposal.alloc == *alloc
            && proposal.node == from
        {
            proposal.deadline = now.at + limits::ACCEPTED_TIMEOUT;
        }
        self.note_reserved(from, alloc);
    }

    pub(super) fn handle_reject(
        &mut self,
        now: Now,
        from: NodeId,
        alloc: &AllocId,
        reason: Rejection,
    ) {
        tracing::debug!(%alloc, ?from, %reason, "rejected");
        self.note_refused(now, from, alloc);
        if let Rejection::Epoch { at_least } = reason
            && at_least <= limits::EPOCH_MAX
            && self
                .replica
                .job(&alloc.slot.job)
                .is_some_and(|job| alloc.slot.index < job.effective().0.count)
        {
            // Nothing is wrong with the node: the next epoch is what was missing.
            let floor = self.coordinator.floors.entry(alloc.slot.clone()).or_default();
            *floor = at_least.max(*floor);
            self.replica.look_at(alloc.slot.job.clone());
            self.timers.soon = true;
            return;
        }
        let ours = |proposal: &Proposal| proposal.alloc == *alloc && proposal.node == from;
        if self.coordinator.proposals.get(&alloc.slot).is_some_and(ours) {
            self.coordinator.proposals.remove(&alloc.slot);
            self.replica.fleet_mut().release(&from, alloc);
            self.replica.forget_promise(alloc);
            let until = now.at + limits::REJECTED_FOR;
            self.coordinator.rejected.insert((alloc.slot.clone(), from), until);
            self.replica.look_at(alloc.slot.job.clone());
            self.timers.soon = true;
        }
    }

    /// Chooses a node for a slot and asks it. False: no node can take it, or enough is under way.
    fn propose(
        &mut self,
        now: Now,
        placer: &mut Placer<'_>,
        slot: &Slot,
        job: &SharedEntry,
    ) -> bool {
        if !self.coordinator.may_propose(&slot.id.job) {
            return false;
        }
        let avoid = self.avoided(now, &slot.id);
        let is_empty = slot.current.is_empty() && slot.outdated.is_empty();
        if self.check_quota_anywhere(placer.spec(), &slot.id).is_err() {
            self.coordinator.unplaceable.insert(slot.id.clone());
            return false;
        }
        let moved = self.coordinator.moves.get(&slot.id).map(|wish| wish.to);
        let home = moved.or_else(|| self.home_of(placer.spec(), &slot.id)).filter(|_| is_empty);
        let back = home.and_then(|home| placer.choose_there(self.replica.fleet(), &home, &avoid));
        let choice = back.or_else(|| placer.choose(self.replica.fleet(), &avoid, &mut self.rng));
        let Some(choice) = choice else {
            self.coordinator.unplaceable.insert(slot.id.clone());
            let alloc = self.next_alloc(slot);
            return is_empty && self.displace(now, placer.spec(), &alloc, job, &avoid);
        };
        self.offer(now, placer.spec(), choice, slot, job)
    }

    /// Asks a node to take a slot. False: the namespace's quota is used up.
    pub(super) fn offer(
        &mut self,
        now: Now,
        spec: &JobSpec,
        choice: Choice,
        slot: &Slot,
        job: &SharedEntry,
    ) -> bool {
        if self.check_quota(spec, &slot.id, choice.node, &choice.claim, true).is_err() {
            self.coordinator.unplaceable.insert(slot.id.clone());
            return false;
        }
        let alloc = self.next_alloc(slot);
        self.coordinator.unplaceable.remove(&slot.id);
        self.replica.promise(&alloc, choice.node, &choice.claim);
        self.replica.fleet_mut().propose(&choice.node, &alloc, choice.claim);
        self.note_proposal(now, &alloc, choice.node);
        let succession = self.succession_of(&slot.id);
        self.send(choice.node, Message::Propose { alloc, job: job.clone(), succession });
        true
    }

    /// The allocation that a slot gets next.
    fn next_alloc(&mut self, slot: &Slot) -> AllocId {
        let floor = self.coordinator.floors.get(&slot.id).copied().unwrap_or(0);
        let epoch = floor.max(slot.epoch.saturating_add(1));
        self.newborn(slot.id.clone(), epoch)
    }

    /// A node is removed, and its rows leave with it: what comes after them counts on from there.
    pub(super) fn keep_epochs_of(&mut self, node: NodeId) {
        for (slot, of, row, _) in self.replica.allocs() {
            if of == node {
                let floor = self.coordinator.floors.entry(slot.clone()).or_default();
                *floor = row.epoch.saturating_add(1).min(limits::EPOCH_MAX).max(*floor);
            }
        }
    }

    /// An allocation that has never been before, and never will be again.
    pub(super) fn newborn(&mut self, slot: SlotId, epoch: u64) -> AllocId {
        if self.config.canary == Some(Canary::KnowsNoBirths) {
            return AllocId::first(slot, epoch);
        }
        self.coordinator.born += 1;
        let (config, mut hash) = (&self.config, Xxh3::new());
        hash.update(&config.id.0);
        for number in [config.seed, config.generation, self.coordinator.born] {
            hash.update(&number.to_le_bytes());
        }
        AllocId { slot, epoch, birth: Birth(hash.digest() as u32) }
    }

    /// Takes note that a node was asked to run a slot.
    pub(super) fn note_proposal(&mut self, now: Now, alloc: &AllocId, node: NodeId) {
        self.counters.proposed += 1;
        self.coordinator.budget = self.coordinator.budget.saturating_sub(1);
        let deadline = now.at + limits::PROPOSE_TIMEOUT;
        let proposal = Proposal { alloc: alloc.clone(), node, deadline };
        self.coordinator.proposals.insert(alloc.slot.clone(), proposal);
    }

    /// The node that had a slot of a sticky job last: what the slot wrote is there.
    pub(super) fn home_of(&self, spec: &JobSpec, slot: &SlotId) -> Option<NodeId> {
        let rows = || self.replica.allocs_in(slot).map(|(_, node, row, _)| (row.epoch, node));
        if spec.placement.sticky { rows().max().map(|(_, node)| node) } else { None }
    }

    /// Nodes on which a slot failed for good with the version in force, and how long ago. Failures that are
    /// too long ago to matter are left out.
    fn failures(&self, now: Now, slot: &SlotId) -> Vec<(NodeId, Duration)> {
        let in_force = self.replica.job(&slot.job).map(|job| (job.hash(), job.effective().1));
        let failed = self.replica.allocs_in(slot).filter_map(|(_, node, row, written)| {
            // What another version did there says nothing about this one; nor what the same did before somebody
            // asked for it again.
            let failed = in_force.is_some_and(|(hash, version)| has_failed(row, hash, version));
            let (which, heard) = self.coordinator.failed.get(&(slot.clone(), node))?;
            let ago = now.wall.since(written).max(now.at.since(*heard));
            (failed && *which == (row.epoch, row.birth)).then_some((node, ago))
        });
        failed.collect()
    }

    /// On how many nodes a slot failed of late, and how long it waits before it is tried on another one. After
    /// one failure not at all: that node may be to blame.
    pub(super) fn back_off(&self, now: Now, slot: &SlotId) -> Option<(usize, Duration)> {
        let failures = self.failures(now, slot);
        let last = failures.iter().map(|(_, ago)| *ago).min()?;
        let doublings = u32::try_from(failures.len()).unwrap_or(u32::MAX).checked_sub(2)?;
        let wait = limits::SLOT_BACKOFF_MIN * (1 << doublings.min(16));
        let left = wait.min(limits::SLOT_BACKOFF_MAX).saturating_sub(last);
        (left > Duration::ZERO).then_some((failures.len(), left))
    }

    /// Nodes to stay away from for a slot: those where it failed for good a short time ago, and those
    /// that rejected it a moment ago.
    pub(super) fn avoided(&self, now: Now, slot: &SlotId) -> Vec<Avoid> {
        let failed = self.failures(now, slot).into_iter().filter_map(|(node, ago)| {
            let left = limits::FAILED_FOR.saturating_sub(ago);
            (left > Duration::ZERO).then_some((node, left))
        });
        let any_node = (slot.clone(), NodeId([0; 32]))..=(slot.clone(), NodeId([0xff; 32]));
        let rejected = self.coordinator.rejected.range(any_node);
        failed.chain(rejected.map(|((_, node), until)| (*node, until.since(now.at)))).collect()
    }
}

impl Coordinator {
    /// Whether one more proposal for `job` can be made now; otherwise the next tick makes it.
    fn may_propose(&mut self, job: &JobName) -> bool {
        let may = self.budget > 0 && self.proposals.len() < limits::PROPOSALS_MAX;
        // What waits for answers is looked at when one comes, or when a proposal expires.
        if self.budget == 0 {
            self.put_off.insert(job.clone());
        }
        may
    }

    /// A node said no: it is not asked again for this slot for a while.
    pub fn reject_for(&mut self, slot: &SlotId, node: NodeId, until: Instant) {
        self.rejected.insert((slot.clone(), node), until);
    }

    /// When a job has rested that is to be looked at again.
    pub fn next_deadline(&self, replica: &Replica) -> Option<Instant> {
        let resting = self.resting.iter().filter(|(name, _)| replica.is_to_be_looked_at(name));
        resting.map(|(_, until)| *until).min()
    }

    /// The node that was asked to run a slot and has not answered yet.
    pub fn asked_for(&self, slot: &SlotId) -> Option<NodeId> {
        self.proposals.get(slot).map(|proposal| proposal.node)
    }

    /// Whether nothing that it proposed is under way.
    pub fn has_no_proposals(&self) -> bool {
        self.proposals.is_empty()
    }

    /// An allocation's row says that it failed for good.
    pub fn hear_of_failure(&mut self, now: Instant, alloc: &AllocId, node: NodeId) {
        let which = (alloc.epoch, alloc.birth);
        let known = self.failed.entry((alloc.slot.clone(), node)).or_insert((which, now));
        if known.0 != which {
            *known = (which, now);
        }
    }

    /// No lease was to be had for an allocation: the slot waits a little.
    pub fn hear_of_no_lease(&mut self, now: Instant, slot: &SlotId) {
        self.unleased.insert(slot.clone(), now + limits::LEASE_RETRY);
    }

    /// Others grant leases now: slots that could have none need not wait any longer.
    pub fn hear_of_voters(&mut self) {
        self.unleased.clear();
    }

    fn observe(&mut self, now: Instant, slot: &SlotId, node: NodeId, row: &AllocRow) -> Seen {
        let fresh = Seen { which: (row.epoch, row.birth), first: now, healthy: None };
        let seen = self.seen.entry((slot.clone(), node)).or_insert(fresh);
        if seen.which != fresh.which {
            *seen = fresh;
        }
        seen.healthy = match (row.healthy, seen.healthy) {
            (true, None) => Some(now),
            (true, since) => since,
            (false, _) => None,
        };
        *seen
    }
}
