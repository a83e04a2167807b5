//! Roll-outs: which allocations of another version may go, and what becomes of a version that has no place.
//!
//! Nothing that runs is stopped for what could not be placed then. Before an allocation is asked to go, its
//! successor is placed in a fleet in which it is gone, by the same functions that place it afterwards: its claim, its
//! cores, ports and devices are free there, and its share of a quota, and nothing else is. Then the fleet is put back.
//! Others may take the room in the meantime; the slot is looked after like any other that has none, and holds up
//! the roll-out.
//!
//! A roll-out that has had no place for as long as the job's `update.deadline` has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::alloc::{AllocRow, Ending, Phase};
use crate::api;
use crate::api::Verdict;
use crate::claim::Claim;
use crate::clock::{Instant, Now, WallTime};
use crate::id::{AllocId, JobName, NodeId, SlotId};
use crate::job::{JobKind, JobSpec, SpecHash};
use crate::limits;
use crate::placement::{self, Fleet, Placer};
use crate::table::{Entry, JobEntry, Value};

use super::slots::{Slot, taken};
use super::{Canary, Node};

/// Why an allocation ends that makes room for its successor.
pub(super) const REPLACED: &str = "a new version replaces it";

/// Since when the roll-outs that this node looks after have no place to go on, and for which version.
pub(super) type Stuck = BTreeMap<JobName, (u64, Instant)>;

/// What was changed in the fleet to see what would be.
#[derive(Default)]
struct Trial {
    gone: Vec<(NodeId, AllocId, Claim)>,
    placed: Vec<(NodeId, AllocId)>,
}

impl Trial {
    fn remove(&mut self, fleet: &mut Fleet, slot: &SlotId, node: NodeId, row: &AllocRow) {
        let alloc = row.of(slot.clone());
        fleet.release(&node, &alloc);
        self.gone.push((node, alloc, row.claim.clone()));
    }

    /// Puts back what was removed after the first `kept`.
    fn put_back(&mut self, fleet: &mut Fleet, kept: usize) {
        for (node, alloc, claim) in self.gone.drain(kept..) {
            fleet.hold(node, &alloc, &claim);
        }
    }

    fn undo(mut self, fleet: &mut Fleet) {
        for (node, alloc) in self.placed.drain(..) {
            fleet.release(&node, &alloc);
        }
        self.put_back(fleet, 0);
    }
}

impl Node {
    /// Retires allocations of another version, a few at a time, unhealthy ones first, and none whose successor
    /// has no place.
    pub(super) fn roll(&mut self, now: Now, spec: &JobSpec, job: &JobEntry, slots: &[Slot]) {
        let careless = self.config.canary == Some(Canary::RetiresWithoutAPlace);
        let in_progress = |slot: &&Slot| {
            // Where no node can take it the roll-out goes on, unless it was the roll-out that emptied it.
            let waits =
                self.coordinator.unplaceable.contains(&slot.id) && (!slot.begun || careless);
            slot.outdated.is_empty() && !slot.settled && !waits
        };
        let busy = slots.iter().filter(in_progress).count();
        let asked = slots.iter().filter(|slot| {
            let asked = |(_, row): &(NodeId, AllocRow)| {
                let alloc = row.of(slot.id.clone());
                self.coordinator.retired.contains_key(&alloc)
            };
            slot.outdated.iter().any(asked)
        });
        let asked: Vec<&Slot> = asked.collect();
        // A gang is stopped as a whole, and started as a whole.
        let parallel = if spec.gang { slots.len() } else { spec.update.max_parallel as usize };
        let room = parallel.saturating_sub(busy + asked.len());
        let mut outdated: Vec<(bool, &Slot)> = slots
            .iter()
            .filter(|slot| !slot.outdated.is_empty())
            .filter(|slot| asked.iter().all(|asked| asked.id != slot.id))
            .map(|slot| (slot.outdated.iter().any(|(_, row)| row.healthy), slot))
            .collect();
        outdated.sort_by_key(|(healthy, slot)| (*healthy, slot.id.index));
        let mut wanted: Vec<&Slot> = outdated.into_iter().map(|(_, slot)| slot).collect();
        let emptied =
            |slot: &Slot| slot.replaced && self.coordinator.unplaceable.contains(&slot.id);
        let mut is_stuck = slots.iter().any(emptied);
        if room > 0 && !wanted.is_empty() {
            let begun = spec.gang && (!asked.is_empty() || slots.iter().any(|slot| slot.replaced));
            if begun || careless {
                // What is left of a gang is of no use to anybody.
                wanted.truncate(room);
            } else {
                wanted = self.with_a_place(now, spec, slots, &wanted, room);
                is_stuck |= wanted.is_empty();
            }
            for slot in wanted {
                for (node, row) in slot.outdated.clone() {
                    let alloc = row.of(slot.id.clone());
                    self.ask_to_retire(now, node, alloc, REPLACED);
                }
            }
        }
        self.note_stuck(now, job, is_stuck);
    }

    /// Of the slots `wanted`, in this order, at most `room` that may give up what they have, because what comes
    /// after it has a place then. Of a gang all or none.
    fn with_a_place<'s>(
        &mut self,
        now: Now,
        spec: &JobSpec,
        slots: &'s [Slot],
        wanted: &[&'s Slot],
        room: usize,
    ) -> Vec<&'s Slot> {
        self.ensure_fleet(now);
        let mut trial = Trial::default();
        let mut placer = Placer::new(self.replica.fleet(), spec, &taken(slots));
        let mut chosen = Vec::new();
        // Who is on its way out already comes first: its successor takes room, too.
        let is_wanted = |slot: &Slot| wanted.iter().any(|wanted| wanted.id == slot.id);
        let leaving = slots.iter().filter(|slot| {
            let leaves = slot.stopping || !slot.outdated.is_empty() || spec.gang;
            slot.current.is_empty() && !slot.proposed && leaves && !is_wanted(slot)
        });
        let leaving: Vec<&Slot> = leaving.collect();
        let mut elsewhere = true;
        let mut fits = leaving
            .iter()
            .all(|slot| self.try_to_place(now, &mut trial, &mut placer, slot, &mut elsewhere));
        for slot in wanted.iter().filter(|_| fits) {
            if chosen.len() == room {
                break;
            }
            if self.try_to_place(now, &mut trial, &mut placer, slot, &mut elsewhere) {
                chosen.push(*slot);
            } else if spec.gang {
                break;
            }
        }
        fits &= !spec.gang || chosen.len() == wanted.len();
        if !fits {
            chosen.clear();
        }
        if let (true, [], Some(slot)) = (fits && !spec.gang, &chosen[..], wanted.first()) {
            // It may be more important than what is in its way.
            for (node, row) in &slot.outdated {
                trial.remove(self.replica.fleet_mut(), &slot.id, *node, row);
            }
            let avoid = self.avoided(now, &slot.id);
            if self.could_displace(now, spec, &slot.id, &avoid) {
                chosen.push(*slot);
            }
        }
        trial.undo(self.replica.fleet_mut());
        chosen
    }

    /// Places a slot in the fleet as it will be when what the slot has is gone: on the node that it leaves, or else
    /// anywhere. `elsewhere` is whether that is still worth a look. False: nowhere, and nothing was changed.
    fn try_to_place(
        &mut self,
        now: Now,
        trial: &mut Trial,
        placer: &mut Placer<'_>,
        slot: &Slot,
        elsewhere: &mut bool,
    ) -> bool {
        let before = trial.gone.len();
        let held = self.replica.allocs_in(&slot.id).filter(|(_, node, row, _)| {
            row.phase.holds_claim() && row.phase != Phase::Pending && self.is_up(node)
        });
        let held: Vec<(NodeId, AllocRow)> =
            held.map(|(_, node, row, _)| (node, row.clone())).collect();
        for (node, row) in &held {
            trial.remove(self.replica.fleet_mut(), &slot.id, *node, row);
        }
        let avoid = self.avoided(now, &slot.id);
        let fleet = self.replica.fleet();
        let mut choice = held.iter().find_map(|(node, _)| placer.choose_there(fleet, node, &avoid));
        if choice.is_none() && *elsewhere {
            // The choice is made when the slot is placed; this one must not move the dice for that.
            let mut random = ChaCha8Rng::seed_from_u64(0);
            choice = placer.choose(fleet, &avoid, &mut random);
            *elsewhere = choice.is_some() || !avoid.is_empty();
        }
        let choice = choice.filter(|choice| {
            self.check_quota(placer.spec(), &slot.id, choice.node, &choice.claim, true).is_ok()
        });
        let Some(choice) = choice else {
            trial.put_back(self.replica.fleet_mut(), before);
            return false;
        };
        let alloc = AllocId::first(slot.id.clone(), u64::MAX);
        self.replica.fleet_mut().propose(&choice.node, &alloc, choice.claim);
        trial.placed.push((choice.node, alloc));
        *elsewhere = true;
        true
    }

    /// Of copies of a system job, those that may go because their successors fit there then.
    pub(super) fn copies_with_a_place(
        &mut self,
        now: Now,
        spec: &JobSpec,
        copies: Vec<(bool, NodeId, AllocId)>,
    ) -> Vec<(bool, NodeId, AllocId)> {
        if copies.is_empty() || self.config.canary == Some(Canary::RetiresWithoutAPlace) {
            return copies;
        }
        self.ensure_fleet(now);
        let fits = |(_, node, alloc): &(bool, NodeId, AllocId)| {
            // One that has ended holds nothing, and gets nothing back.
            let row = self.replica.alloc(&alloc.slot, node).filter(|row| row.phase.holds_claim());
            let claim = row.map(|row| row.claim.clone());
            self.replica.fleet_mut().release(node, alloc);
            let found = self.replica.fleet().get(node).and_then(|it| it.check(spec).ok());
            if let Some(claim) = claim {
                self.replica.fleet_mut().hold(*node, alloc, &claim);
            }
            found.is_some_and(|claim| {
                self.check_quota(spec, &alloc.slot, *node, &claim, true).is_ok()
            })
        };
        copies.into_iter().filter(fits).collect()
    }

    /// Whether a roll-out has emptied a slot, or this node's copy of a system job, and no unit has run there since.
    pub(super) fn is_vacant(&self, slot: &SlotId, kind: JobKind) -> bool {
        let mut last = LastWork::default();
        let rows = self.replica.allocs_in(slot);
        rows.filter(|(_, node, ..)| kind == JobKind::Service || *node == self.config.id)
            .for_each(|(.., row, _)| last.look_at(row, row.spec));
        last.is_vacated()
    }

    /// Takes note of whether a roll-out has a place to go on; says so when it has none any more.
    pub(super) fn note_stuck(&mut self, now: Now, job: &JobEntry, is_stuck: bool) {
        let (spec, version, _) = job.effective();
        if !is_stuck {
            self.coordinator.stuck.remove(&spec.name);
            return;
        }
        // Time alone decides when it has failed, and whoever makes room is to be noticed.
        let known = self.coordinator.stuck.get(&spec.name).map(|(version, _)| *version);
        if known != Some(version) {
            self.coordinator.stuck.insert(spec.name.clone(), (version, now.at));
            let why = self.why_nowhere(spec, job.hash()).unwrap_or_default();
            let message = format!("version {version} {}{why}", self.unfit(spec, job.hash()));
            tracing::warn!(job = %spec.name, "{message}");
            self.event(now, api::EventKind::Job { job: spec.name.clone(), version, message });
        }
    }

    /// For how long the roll-out of the version in force has had no place to go on.
    pub(super) fn stuck_for(&self, now: Now, job: &JobEntry) -> Option<Duration> {
        let (spec, version, _) = job.effective();
        let (of, since) = self.coordinator.stuck.get(&spec.name)?;
        (*of == version).then(|| now.at.since(*since))
    }

    /// Why no node could take a slot of `spec`, or not all of a gang would fit, were none of the job's allocations of
    /// another version there: `: ` and the reasons. `None`: they would. Of a system job those nodes are asked that have
    /// another version.
    pub(super) fn why_nowhere(&self, spec: &JobSpec, hash: SpecHash) -> Option<String> {
        let mut fleet = self.current_fleet().into_owned();
        let mut outdated = BTreeSet::new();
        for (slot, node, row, _) in self.replica.allocs_of(&spec.name) {
            if row.spec != hash && row.phase.holds_claim() {
                let alloc = row.of(slot.clone());
                fleet.release(&node, &alloc);
                outdated.insert(node);
            }
        }
        let slot = SlotId { job: spec.name.clone(), index: 0 };
        if let Err(refusal) = self.check_quota_anywhere(spec, &slot) {
            return Some(format!(": {refusal}"));
        }
        let mut placer = Placer::new(&fleet, spec, &BTreeMap::new());
        let mut verdicts = placer.verdicts(&fleet, &[]);
        if spec.kind == JobKind::System {
            verdicts.retain(|verdict| outdated.contains(&verdict.node));
        }
        if verdicts.iter().all(|verdict| verdict.rejection.is_some()) {
            return Some(in_words(&verdicts));
        }
        let fit = if spec.gang { how_many_fit(&mut fleet, spec) } else { spec.count };
        (fit < spec.count).then(|| format!(": {fit} of {} of the gang fit", spec.count))
    }

    /// Whether what comes after an allocation of another version has a place: on its node when it is gone, or now on
    /// another one. `elsewhere` is whether there is such a one.
    fn has_successor(
        &self,
        fleet: &Fleet,
        spec: &JobSpec,
        alloc: &AllocId,
        node: NodeId,
        elsewhere: bool,
    ) -> bool {
        if elsewhere {
            return true;
        }
        let Some(candidate) = fleet.get(&node) else { return false };
        let Some(info) = candidate.info().filter(|_| candidate.is_alive()) else { return false };
        let mut ledger = candidate.ledger().clone();
        ledger.release(alloc);
        placement::check(spec, node, info, &ledger).is_ok()
    }

    /// Why the roll-out of the version in force has no place to go on, in words, by this node's own view: any node
    /// can be asked. `None`: it has one, or nothing of another version runs.
    pub(super) fn roll_out_without_a_place(&self, job: &JobEntry, fleet: &Fleet) -> Option<String> {
        let (spec, version, _) = job.effective();
        let hash = job.hash();
        let live = self
            .replica
            .allocs_of(&spec.name)
            .filter(|(_, node, row, _)| row.phase.is_live() && self.is_up(node));
        let outdated: Vec<(AllocId, NodeId, u64)> = live
            .filter(|(.., row, _)| row.spec != hash)
            .map(|(slot, node, row, _)| (row.of(slot.clone()), node, row.version))
            .collect();
        let (_, _, before) = outdated.first()?;
        let elsewhere = spec.kind == JobKind::Service
            && fleet.iter().any(|candidate| candidate.check(spec).is_ok());
        let fits = |(alloc, node, _): &_| self.has_successor(fleet, spec, alloc, *node, elsewhere);
        let why = match outdated.iter().any(fits) {
            true if spec.gang => self.why_nowhere(spec, hash)?,
            true => {
                let slot = &outdated.first()?.0.slot;
                format!(": {}", self.check_quota_anywhere(spec, slot).err()?)
            }
            false => self.why_nowhere(spec, hash).unwrap_or_default(),
        };
        let what = self.unfit(spec, hash);
        Some(format!("version {version} {what}{why}; version {before} runs on"))
    }

    /// What is said of a version that has no place for its next slot, some of which may run already.
    fn unfit(&self, spec: &JobSpec, hash: SpecHash) -> &'static str {
        let mut rows = self.replica.allocs_of(&spec.name);
        match spec.kind {
            JobKind::Service => {
                match rows.any(|(.., row, _)| row.spec == hash && row.phase.is_live()) {
                    true => "has no place for another slot",
                    false => "fits nowhere",
                }
            }
            JobKind::System => "fits on no node that has another one",
        }
    }

    /// Whether a version has failed: the coordinator's view of it, while the roll-out is under way.
    pub(super) fn has_no_place_in_time(&self, now: Now, job: &JobEntry) -> bool {
        self.stuck_for(now, job).is_some_and(|time| time > job.spec.update.deadline)
    }

    /// Takes a version of a system job back that has failed: a copy was given up, or is not healthy in time, or what it
    /// was stopped for has no place, or none of those that have another version have room for it.
    pub(super) fn revert_system_job(&mut self, now: Now, entry: &Entry) -> bool {
        let Value::Job(job) = &entry.value else { return false };
        if job.reverted || job.previous.is_none() || !job.spec.update.auto_revert {
            return false;
        }
        let hash = job.hash();
        let rows: Vec<(&SlotId, NodeId, &AllocRow)> = self
            .replica
            .allocs_of(&job.spec.name)
            .filter(|(_, node, ..)| self.is_up(node))
            .map(|(slot, node, row, _)| (slot, node, row))
            .collect();
        let runs = rows.iter().any(|(.., row)| row.spec == hash && row.phase.holds_claim());
        let under_way = rows.iter().any(|(.., row)| row.spec != hash && row.phase.is_live());
        // Where some nodes have the new version it has a place; those without room keep what they have.
        let is_stuck = self.stuck_for(now, job).is_some();
        let too_late = |slot: &SlotId, node: NodeId, row: &AllocRow| {
            let seen = self.coordinator.seen.get(&(slot.clone(), node));
            let late = |time: Duration| time > job.spec.update.deadline;
            row.spec == hash
                && row.phase.is_live()
                && seen.is_some_and(|it| it.healthy.is_none() && late(now.at.since(it.first)))
        };
        let failed = |(slot, node, row): &(&SlotId, NodeId, &AllocRow)| {
            has_failed(row, hash, job.version) || too_late(slot, *node, row)
        };
        // Other slots are of the time when the job had a count.
        let emptied = rows.iter().any(|(slot, _, row)| slot.index == 0 && is_vacated(row));
        let fails = under_way
            && (!is_stuck && rows.iter().any(failed)
                || (emptied || !runs) && self.has_no_place_in_time(now, job));
        if fails {
            self.revert(now, entry);
        }
        fails
    }
}

/// The row of an allocation of this version that was given up.
pub(super) fn has_failed(row: &AllocRow, of: SpecHash, version: u64) -> bool {
    row.spec == of && row.version >= version && matches!(row.ending, Some(Ending::Failed { .. }))
}

/// The row, if it is its slot's last, says that a roll-out stopped what was there, and that nothing has run since:
/// whether what should have come after it was refused, failed, or had no place, in this version or in one between.
pub(super) fn is_vacated(row: &AllocRow) -> bool {
    let replaced = matches!(&row.ending, Some(Ending::Retired { reason }) if reason == REPLACED);
    match row.phase {
        Phase::Ended => replaced || row.vacant && !row.ran,
        Phase::Pending => row.vacant,
        _ => false,
    }
}

/// Which of a slot's rows tells what became of its work: the one with the highest epoch, unless it had ended by when another
/// one was stopped for a new version. In two parts of a fabric a slot has two allocations, and once they have met it may be
/// the one with the lower epoch that goes on: a stand-in gives way to it, or had ended before for somebody more important.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastWork {
    /// Two coordinators may have given one epoch to two nodes.
    last: (u64, WallTime),
    has_ended: bool,
    vacated: bool,
    /// When the last allocation ended that a roll-out stopped.
    vacated_at: Option<WallTime>,
    /// The last one has the spec that was asked for.
    pub is_of_spec: bool,
}

impl LastWork {
    /// A row of the slot.
    pub fn look_at(&mut self, row: &AllocRow, spec: SpecHash) {
        if says_nothing(row) {
            return;
        }
        if is_vacated(row) {
            self.vacated_at = self.vacated_at.max(Some(row.since));
        }
        if (row.epoch, row.since) >= self.last {
            self.last = (row.epoch, row.since);
            self.has_ended = row.phase == Phase::Ended;
            self.vacated = is_vacated(row);
            self.is_of_spec = row.spec == spec;
        }
    }

    /// A roll-out has stopped what was there, and nothing has run since.
    pub fn is_vacated(&self) -> bool {
        let (_, since) = self.last;
        self.vacated || self.has_ended && self.vacated_at.is_some_and(|at| at >= since)
    }
}

/// The row says nothing of what became of its slot: the allocation ended for an earlier one, which went on, or before
/// its unit ran, beside one that may have gone on.
pub(super) fn says_nothing(row: &AllocRow) -> bool {
    let never_ran = row.phase == Phase::Ended && !row.ran && !is_vacated(row);
    matches!(row.ending, Some(Ending::Yielded { .. })) || never_ran
}

/// How many slots of a job a fleet would take, up to all of them.
pub(super) fn how_many_fit(fleet: &mut Fleet, spec: &JobSpec) -> u32 {
    let mut placer = Placer::new(fleet, spec, &BTreeMap::new());
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut fit = 0;
    while fit < spec.count {
        let Some(choice) = placer.choose(fleet, &[], &mut random) else { break };
        let alloc = AllocId::new(spec.name.clone(), fit, u64::MAX);
        fleet.propose(&choice.node, &alloc, choice.claim);
        fit += 1;
    }
    fit
}

/// Reasons with the number of nodes that give them, the most frequent first: `: 3 nodes: ...; 1 node: ...`.
fn in_words(verdicts: &[Verdict]) -> String {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for rejection in verdicts.iter().filter_map(|verdict| verdict.rejection.as_ref()) {
        *reasons.entry(rejection.to_string()).or_default() += 1;
    }
    let mut reasons: Vec<(String, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    let more = reasons.len().saturating_sub(limits::REASONS_MAX);
    let shown = reasons.into_iter().take(limits::REASONS_MAX);
    let mut shown: Vec<String> = shown
        .map(|(reason, nodes)| {
            format!("{nodes} node{}: {reason}", if nodes == 1 { "" } else { "s" })
        })
        .collect();
    if more > 0 {
        shown.push(format!("{more} other reasons"));
    }
    if shown.is_empty() { String::new() } else { format!(": {}", shown.join("; ")) }
}
