//! What a node decides for itself: which proposals it takes, which of its allocations have to end, and
//! which system jobs run here.

use std::collections::{BTreeMap, BTreeSet};

use crate::alloc::{AllocRow, Ending, Phase, Succession};
use crate::api;
use crate::clock::{Instant, Now};
use crate::id::{AllocId, JobName, NodeId, SlotId};
use crate::io::Output;
use crate::job::JobKind;
use crate::limits;
use crate::message::Message;
use crate::placement;
use crate::resources::Rejection;
use crate::supervisor::LocalAlloc;
use crate::table::{Key, SharedEntry, Value};

use super::copies::Conduct;
use super::rollout::is_vacated;
use super::{Brought, Canary, Node};

/// What ends on a node that was removed says so.
const REMOVED: &str = "this node was removed from the fabric";

/// Which of its allocations a node has to look at in the next tick: those for which a reason to end may have
/// come up.
#[derive(Debug, Default)]
pub(super) struct Duties {
    /// A member came or went, or this node itself changed: all of them.
    pub all: bool,
    /// When all of them are looked at, whatever seems to have changed.
    next: Instant,
    /// Those of jobs that changed.
    pub jobs: BTreeSet<JobName>,
    /// Those whose slot has a new row, of whomever.
    pub slots: BTreeSet<SlotId>,
}

impl Node {
    /// Looks after this node's own allocations.
    pub(super) fn do_duties(&mut self, now: Now, settled: bool) {
        let Duties { all, next, jobs, slots } = std::mem::take(&mut self.duties);
        let all = all || next <= now.at;
        self.duties.next = if all { now.at + limits::RECONCILE_INTERVAL } else { next };
        let due = |slot: &SlotId| all || jobs.contains(&slot.job) || slots.contains(slot);
        let locals: Vec<&LocalAlloc> = if all || !jobs.is_empty() {
            self.supervisor.locals().filter(|local| due(&local.id().slot)).collect()
        } else {
            slots.iter().filter_map(|slot| self.supervisor.local(slot)).collect()
        };
        let live: Vec<(SlotId, Conduct)> = locals
            .into_iter()
            .filter(|local| local.row().phase.is_live())
            .filter_map(|local| Some((local.id().slot.clone(), self.conduct_of(now, local)?)))
            .collect();
        for (slot, conduct) in live {
            match conduct {
                Conduct::End(ending) => {
                    tracing::debug!(%slot, %ending, "ending an allocation");
                    self.supervisor.retire(now, &slot, ending);
                }
                Conduct::Contest(epoch) => self.supervisor.contest(&slot, epoch),
                Conduct::Replace(earlier) => self.supervisor.replace(&slot, earlier),
            }
        }
        self.keep_quotas(now);
        self.welcome_newcomers(now, settled);
        if settled {
            self.start_system_jobs(now);
        }
    }

    /// Why an allocation of ours should not be there any more, or what it has to tell other copies of its slot.
    /// Never because peers are silent.
    fn conduct_of(&self, now: Now, local: &LocalAlloc) -> Option<Conduct> {
        let slot = &local.id().slot;
        let retired = |reason: &str| Some(Conduct::End(Ending::Retired { reason: reason.into() }));
        if self.is_removed() {
            return retired(REMOVED);
        }
        let Some(entry) = self.replica.entry(&Key::Job(slot.job.clone())) else {
            // Its record survived and its job did not: the others hold copies, if it still exists.
            let waited = now.at.since(self.timers.started) > limits::ABSENT_GRACE;
            return if waited { retired("the job is unknown to the fabric") } else { None };
        };
        let Value::Job(job) = &entry.value else { return retired("the job was stopped") };
        let (spec, ..) = job.effective();
        match spec.kind {
            JobKind::Service if slot.index >= spec.count => return retired("scaled down"),
            JobKind::System if slot.index > 0 => return retired("the job became a system job"),
            JobKind::System => {
                if self.info.draining {
                    return retired("the node is draining");
                }
                if let Some(constraint) =
                    spec.placement.constraints.iter().find(|c| !c.holds(self.id(), &self.info))
                    // A version that is for no node at all stops nothing.
                    && (local.row().spec == job.hash() || self.nodes_for(spec).next().is_some())
                {
                    return retired(&format!("{constraint} does not hold here"));
                }
                return None;
            }
            JobKind::Service => {}
        }
        self.conduct(now, local, job.hash())
    }

    fn start_system_jobs(&mut self, now: Now) {
        let due: Vec<(JobName, SharedEntry)> = self
            .replica
            .system_jobs()
            .filter(|name| {
                let slot = SlotId { job: (*name).clone(), index: 0 };
                let local = self.supervisor.local(&slot);
                let avoided = self.avoided(now, &slot);
                // That it failed is known to all who avoid the node once its row says so, and not before.
                let told = |epoch| {
                    let row = self.replica.alloc(&slot, &self.config.id);
                    row.is_some_and(|row| row.epoch == epoch && row.phase == Phase::Ended)
                };
                local
                    .is_none_or(|local| local.row().phase == Phase::Ended && told(local.id().epoch))
                    && !avoided.iter().any(|(node, _)| *node == self.config.id)
            })
            .filter_map(|name| {
                Some((name.clone(), self.replica.entry(&Key::Job(name.clone()))?.clone()))
            })
            .collect();
        self.keep_turns(&due);
        for (name, entry) in due {
            let slot = SlotId { job: name, index: 0 };
            let Value::Job(job) = &entry.value else { continue };
            if !self.is_its_turn(now, &slot, job.effective().0) {
                tracing::trace!(%slot, "not its turn");
                continue;
            }
            let last = self.replica.alloc(&slot, &self.config.id).map_or(0, |row| row.epoch);
            let alloc = self.newborn(slot, last + 1);
            if let Err(reason) = self.admit(now, &alloc, &entry, None, None) {
                tracing::trace!(%alloc, %reason, "not here");
            }
        }
    }

    pub(super) fn handle_propose(
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
                Phase::Pending | Phase::Reserved => {}
                Phase::Preparing | Phase::Starting | Phase::Running => {
                    self.send(from, Message::Accept { alloc })
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
        match self.admit(now, &alloc, &entry, Some(from), succession) {
            // A slot that is placed by itself waits for no gang.
            Ok(()) => self.supervisor.commit(&alloc.slot),
            Err(reason) => {
                self.counters.rejected += 1;
                self.send(from, Message::Reject { alloc, reason });
            }
        }
    }

    /// Claims what an allocation needs, or says why not. Only this node gives away what is its own.
    pub(super) fn admit(
        &mut self,
        now: Now,
        alloc: &AllocId,
        entry: &SharedEntry,
        proposer: Option<NodeId>,
        succession: Option<Box<Succession>>,
    ) -> Result<(), Rejection> {
        if self.is_removed() {
            return Err(Rejection::Outdated);
        }
        let Value::Job(job) = &entry.value else { return Err(Rejection::Outdated) };
        let (spec, version, _) = job.effective();
        let slot = &alloc.slot;
        if spec.kind == JobKind::Service && slot.index >= spec.count {
            return Err(Rejection::Outdated);
        }
        let busy = self.supervisor.local(slot).is_some_and(|local| {
            local.row().phase.holds_claim() || local.id().epoch >= alloc.epoch
        });
        let me = self.config.id;
        let newest = self
            .replica
            .allocs_in(slot)
            .filter(|(_, node, ..)| spec.kind == JobKind::Service || *node == me)
            // Its own row, while it waited for others to make room.
            .filter(|(_, node, row, _)| {
                row.phase != Phase::Pending || *node != me || !row.is_of(alloc)
            })
            .map(|(_, _, row, _)| row.epoch)
            .max();
        if busy || newest.is_some_and(|epoch| epoch >= alloc.epoch) {
            return Err(Rejection::Outdated);
        }
        if self.supervisor.holding() >= limits::ALLOCS_PER_NODE_MAX {
            return Err(Rejection::Full);
        }
        // What the others cannot know of does not start.
        if !self.replica.has_room(&Key::Alloc(slot.clone(), me)) {
            let reason = "the table of the fabric is full".to_owned();
            return Err(Rejection::Impaired { reason });
        }
        let claim = placement::check(spec, self.id(), &self.info, self.supervisor.ledger())?;
        let vacant = self.is_vacant(slot, spec.kind);
        self.check_quota(spec, slot, self.config.id, &claim, false)?;
        self.leave_room(alloc, spec, &claim)?;
        self.counters.accepted += 1;
        let forget = self.config.canary == Some(Canary::ForgetsAClaim);
        let (spec, hash, sequence) =
            (spec.clone(), job.hash(), self.replica.disk().next_sequence());
        self.supervisor.reserve(
            now,
            alloc.clone(),
            &spec,
            hash,
            version,
            claim,
            proposer,
            sequence,
            forget,
        );
        self.supervisor.succeed(slot, succession, vacant);
        if let Some(local) = self.supervisor.local(slot) {
            self.replica.account_for_claim(slot, local.row(), &self.info.topology);
        }
        self.timers.soon = true;
        Ok(())
    }

    pub(super) fn handle_retire(&mut self, now: Now, alloc: &AllocId, reason: String) {
        let ours = self.supervisor.local(&alloc.slot).is_some_and(|local| local.id() == alloc);
        if ours {
            self.supervisor.retire(now, &alloc.slot, Ending::Retired { reason });
            self.timers.soon = true;
        }
    }

    /// Carries the supervisor's wishes out: rows for the table, commands for the unit manager, answers for
    /// the coordinators.
    pub(super) fn flush_supervisor(&mut self, now: Now) {
        let mut news: BTreeMap<NodeId, Vec<SharedEntry>> = BTreeMap::new();
        for slot in self.supervisor.take_changed() {
            let Some(local) = self.supervisor.local(&slot) else { continue };
            let (mut row, record) = (local.row().clone(), local.record().clone());
            // By what a roll-out has emptied it counts how much more it may, whatever the job says.
            row.keep_s = if is_vacated(&row) { 0 } else { self.keep_of(&slot) };
            let (keep, durable) = (row.phase.holds_claim(), row.phase > Phase::Reserved);
            let proposer =
                local.proposer().filter(|proposer| durable && *proposer != self.config.id);
            self.replica.disk_mut().set_record(&slot, keep.then_some(&record));
            if self.replica.alloc(&slot, &self.config.id) == Some(&row) {
                // An adopted unit is as it was: nothing to tell.
                continue;
            }
            let key = Key::Alloc(slot, self.config.id);
            self.write(now, key.clone(), Value::Alloc(Box::new(row)));
            if let (Some(proposer), Some(entry)) = (proposer, self.replica.entry(&key)) {
                news.entry(proposer).or_default().push(entry.clone());
            }
        }
        let mut outputs = self.supervisor.take_outputs();
        if self.config.canary == Some(Canary::StartsUnprepared) {
            for output in &mut outputs {
                if let Output::Prepare(launch) = output {
                    *output = Output::Start(launch.clone());
                }
            }
        }
        self.outputs.extend(outputs);
        for (proposer, alloc) in self.supervisor.take_accepted() {
            self.send(proposer, Message::Accept { alloc });
        }
        // The coordinator waits for these rows; push would bring them when it gets to them.
        for (proposer, entries) in news {
            for part in entries.chunks(limits::NEWS_MAX) {
                self.send(proposer, Message::News { entries: part.to_vec() });
            }
        }
    }

    /// For how many seconds an allocation of this slot is remembered once it has ended: as the job says, also when it is
    /// gone by then.
    fn keep_of(&self, slot: &SlotId) -> u32 {
        match self.replica.job(&slot.job) {
            Some(job) => match job.effective().0.keep.ended {
                limits::ENDED_KEEP => 0,
                keep => keep.as_secs() as u32,
            },
            None => self.replica.alloc(slot, &self.config.id).map_or(0, |row| row.keep_s),
        }
    }

    /// An allocation's row changed, ours or another's.
    pub(super) fn follow_alloc(
        &mut self,
        now: Now,
        slot: &SlotId,
        node: NodeId,
        before: Option<SharedEntry>,
    ) {
        let before = match before.as_deref().map(|entry| &entry.value) {
            Some(Value::Alloc(row)) => Some(row),
            _ => None,
        };
        if let Some(before) = before {
            let after = self.replica.alloc(slot, &node);
            let same = after.is_some_and(|row| {
                (row.epoch, row.birth) == (before.epoch, before.birth) && row.phase.holds_claim()
            });
            if before.phase.holds_claim() && !same {
                // Somebody may have waited for this room.
                let waiting = self.coordinator.unplaceable.iter().map(|slot| &slot.job);
                let waiting = waiting.chain(self.coordinator.stuck.keys()).cloned();
                self.replica.look_at_each(waiting);
            }
        }
        let Some(row) = self.replica.alloc(slot, &node).cloned() else { return };
        let alloc = row.of(slot.clone());
        if node == self.config.id {
            self.supervisor.recall(now, slot, &row);
            let local = self.supervisor.local(slot).filter(|local| *local.id() == alloc);
            if row.phase != Phase::Ended && local.is_some_and(|local| *local.row() != row) {
                // Another machine with our key wrote it: what runs here is what we say.
                self.supervisor.tell_again(slot);
            }
        }
        self.note_failure(&alloc, node, &row);
        match row.ending {
            Some(Ending::Failed { .. }) => {
                self.coordinator.hear_of_failure(now.at, &alloc, node);
            }
            Some(Ending::Unleased { .. }) if moved_to(before.map(|row| &**row), &row) => {
                self.coordinator.hear_of_no_lease(now.at, slot);
            }
            _ => {}
        }
        let ours = self.supervisor.local(slot).is_some_and(|local| *local.id() == alloc)
            || self.waits_here(&alloc);
        if node == self.config.id && row.phase != Phase::Ended && !ours {
            // An old row of ours came back from a node that was away, or the disk lost our record.
            let ending = Some(Ending::Lost);
            let ended =
                AllocRow { phase: Phase::Ended, healthy: false, pid: None, ending, ..row.clone() };
            self.write(now, Key::Alloc(slot.clone(), node), Value::Alloc(Box::new(ended)));
            return;
        }
        let moved = before.as_ref().is_none_or(|before| {
            (before.epoch, before.phase, before.healthy, before.restarts)
                != (row.epoch, row.phase, row.healthy, row.restarts)
        });
        if moved {
            let message = match (&row.ending, &row.trouble) {
                (Some(ending), _) => ending.to_string(),
                (None, Some(trouble)) if !row.healthy => trouble.clone(),
                _ => String::new(),
            };
            let (phase, healthy) = (row.phase, row.healthy);
            let entry = self.replica.entry(&Key::Alloc(slot.clone(), node));
            let at = entry.map_or(now.wall, |entry| entry.stamp.wall());
            self.event_of(at, api::EventKind::Alloc { alloc, on: node, phase, healthy, message });
        }
    }
}

/// Whether the row says something else of how far the allocation has come.
fn moved_to(before: Option<&AllocRow>, row: &AllocRow) -> bool {
    before.is_none_or(|before| (before.epoch, before.phase) != (row.epoch, row.phase))
}
