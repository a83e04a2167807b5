//! Making room for what is more important: the coordinator looks for the node where least is lost, the target
//! decides who goes, and keeps the room until they are gone.
//!
//! A newcomer that waits has a row in the phase `pending` on its target: so every node knows that the slot is
//! looked after, also a coordinator that has just taken over. It holds no claim; what is kept for it is what
//! [`Node::leave_room`] refuses to others.

use std::collections::BTreeMap;

use crate::admission::Ledger;
use crate::alloc::{AllocRow, Ending, Phase, Succession};
use crate::claim::Claim;
use crate::clock::{Instant, Now};
use crate::id::{AllocId, JobName, NodeId, SlotId};
use crate::job::JobSpec;
use crate::limits;
use crate::message::Message;
use crate::placement::{self, Avoid, Fleet};
use crate::preempt::{self, Candidate, Victims};
use crate::resources::Rejection;
use crate::table::{Key, SharedEntry, Value};

use super::{Brought, Node};

/// What a node keeps of displacements.
#[derive(Clone, Debug, Default)]
pub(super) struct Preemption {
    /// Those that wait on this node, in the order in which they came.
    newcomers: Vec<Newcomer>,
    /// When this coordinator last looked for victims for a slot.
    looked: BTreeMap<SlotId, Instant>,
    /// The job for which it looked in vain last, with no node left out, and when: at that moment nobody makes room for
    /// any other slot of it either.
    vain: Option<(JobName, Instant)>,
    /// Whom this coordinator has asked to make room: they are not asked twice.
    marked: BTreeMap<AllocId, Instant>,
    /// Rows that a former life of this node left were looked through.
    cleared: bool,
}

#[derive(Clone, Debug)]
struct Newcomer {
    alloc: AllocId,
    spec: JobSpec,
    proposer: NodeId,
    victims: Vec<AllocId>,
    succession: Option<Box<Succession>>,
}

impl Node {
    /// The node where least is lost by making room for `spec`, and who would go there.
    pub(super) fn look_for_victims(
        &self,
        fleet: &Fleet,
        spec: &JobSpec,
        avoid: &[Avoid],
        spared: impl Fn(&AllocId) -> bool,
    ) -> Option<(NodeId, Victims)> {
        let mut best: Option<(NodeId, Victims)> = None;
        let mut looked_at = 0;
        for node in fleet.iter() {
            let Some(info) = node.info().filter(|info| {
                node.is_alive()
                    && !info.draining
                    && placement::check_kind(spec, node.id(), info).is_ok()
            }) else {
                continue;
            };
            if avoid.iter().any(|(avoided, _)| *avoided == node.id()) {
                continue;
            }
            let candidates = self.less_important(spec, node.id(), node.ledger(), &spared);
            if candidates.is_empty() {
                continue;
            }
            looked_at += 1;
            if looked_at > limits::PREEMPT_NODES_MAX {
                break;
            }
            let Some(found) = preempt::victims(spec, (node.id(), info), node.ledger(), &candidates)
            else {
                continue;
            };
            let better =
                |(other, best): &(NodeId, Victims)| (&found.loss, node.id()) < (&best.loss, *other);
            if best.as_ref().is_none_or(better) {
                best = Some((node.id(), found));
            }
        }
        best
    }

    /// Live allocations of a node, of strictly lower priority.
    fn less_important(
        &self,
        spec: &JobSpec,
        node: NodeId,
        ledger: &Ledger,
        spared: impl Fn(&AllocId) -> bool,
    ) -> Vec<Candidate> {
        let allocs = ledger.claims().map(|(alloc, _)| alloc);
        let candidates = allocs.filter(|alloc| !spared(alloc)).filter_map(|alloc| {
            let priority = self.priority_of(alloc)?;
            let row = self.replica.alloc(&alloc.slot, &node)?;
            let goes = priority < spec.priority && row.is_of(alloc) && row.phase.is_live();
            goes.then(|| Candidate { alloc: alloc.clone(), priority, since: row.since })
        });
        candidates.collect()
    }

    fn priority_of(&self, alloc: &AllocId) -> Option<u8> {
        Some(self.replica.job(&alloc.slot.job)?.effective().0.priority)
    }

    /// When no node can take a slot as things are: asks the one where least is lost to make room. True: it was
    /// asked.
    pub(super) fn displace(
        &mut self,
        now: Now,
        spec: &JobSpec,
        alloc: &AllocId,
        job: &SharedEntry,
        avoid: &[Avoid],
    ) -> bool {
        if spec.gang || spec.priority == limits::PRIORITY_MIN {
            return false;
        }
        let again = |at: &Instant| now.at.since(*at) < limits::PREEMPT_AGAIN;
        if self.preemption.looked.get(&alloc.slot).is_some_and(again) {
            return false;
        }
        let Some((node, victims)) = self.look_once(now, spec, &alloc.slot, avoid) else {
            return false;
        };
        if self.check_quota(spec, &alloc.slot, node, &victims.claim, true).is_err() {
            return false;
        }
        tracing::info!(%alloc, ?node, victims = victims.allocs.len(), "asks others to make room");
        self.replica.promise(alloc, node, &victims.claim);
        for victim in victims.allocs {
            self.preemption.marked.insert(victim, now.at);
        }
        self.note_proposal(now, alloc, node);
        let succession = self.succession_of(&alloc.slot);
        self.send(node, Message::Displace { alloc: alloc.clone(), job: job.clone(), succession });
        true
    }

    /// Whether some node could make room for a slot by ending what is less important. Asked once in a while only.
    pub(super) fn could_displace(
        &mut self,
        now: Now,
        spec: &JobSpec,
        slot: &SlotId,
        avoid: &[Avoid],
    ) -> bool {
        let again = |at: &Instant| now.at.since(*at) < limits::PREEMPT_AGAIN;
        if spec.priority == limits::PRIORITY_MIN
            || self.preemption.looked.get(slot).is_some_and(again)
        {
            return false;
        }
        self.look_once(now, spec, slot, avoid).is_some_and(|(node, victims)| {
            self.check_quota(spec, slot, node, &victims.claim, true).is_ok()
        })
    }

    /// Looks for victims for a slot, and not for each of ten thousand slots of one job in one go.
    fn look_once(
        &mut self,
        now: Now,
        spec: &JobSpec,
        slot: &SlotId,
        avoid: &[Avoid],
    ) -> Option<(NodeId, Victims)> {
        let in_vain = |(job, at): &(JobName, Instant)| *job == spec.name && *at == now.at;
        if self.preemption.vain.as_ref().is_some_and(in_vain) {
            return None;
        }
        self.preemption.looked.insert(slot.clone(), now.at);
        let marked = |alloc: &AllocId| self.preemption.marked.contains_key(alloc);
        let found = self.look_for_victims(self.replica.fleet(), spec, avoid, marked);
        if found.is_none() && avoid.is_empty() {
            self.preemption.vain = Some((spec.name.clone(), now.at));
        }
        found
    }

    /// A coordinator asks this node to run a slot, and to make room for it if it has to.
    pub(super) fn handle_displace(
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
        if self.waits_here(&alloc) {
            return;
        }
        let there = self.supervisor.local(&alloc.slot).is_some_and(|local| *local.id() == alloc);
        if there {
            return self.handle_propose(now, from, alloc, job, succession);
        }
        self.take_in(now, Brought::ByStream(from), job, true);
        let Some(entry) = self.replica.entry(&Key::Job(alloc.slot.job.clone())).cloned() else {
            return;
        };
        let refused = match self.admit(now, &alloc, &entry, Some(from), succession.clone()) {
            Ok(()) => return,
            Err(reason) if is_about_room(&reason) => {
                self.make_room(now, &alloc, &entry, from, succession)
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = refused {
            self.counters.rejected += 1;
            self.send(from, Message::Reject { alloc, reason });
        }
    }

    fn make_room(
        &mut self,
        now: Now,
        alloc: &AllocId,
        entry: &SharedEntry,
        proposer: NodeId,
        succession: Option<Box<Succession>>,
    ) -> Result<(), Rejection> {
        let Value::Job(job) = &entry.value else { return Err(Rejection::Outdated) };
        let (spec, version, _) = job.effective();
        if self.preemption.newcomers.len() >= limits::NEWCOMERS_MAX {
            return Err(Rejection::Full);
        }
        let ledger = self.prospect_of_room(None)?;
        let leaving = self.preemption.newcomers.iter().flat_map(|newcomer| &newcomer.victims);
        let leaving: Vec<&AllocId> = leaving.collect();
        let spared = |alloc: &AllocId| leaving.contains(&alloc);
        let candidates = self.less_important(spec, self.config.id, &ledger, spared);
        let found = preempt::victims(spec, (self.id(), &self.info), &ledger, &candidates);
        let Some(found) = found else {
            return placement::check(spec, self.id(), &self.info, &ledger).map(drop);
        };
        self.check_quota(spec, &alloc.slot, self.config.id, &found.claim, false)?;
        let row = AllocRow {
            epoch: alloc.epoch,
            birth: alloc.birth,
            phase: Phase::Pending,
            spec: job.hash(),
            version,
            since: now.wall,
            healthy_since: now.wall,
            trouble: Some(format!("waits until {} make room", found.allocs.len())),
            vacant: self.is_vacant(&alloc.slot, spec.kind),
            ..AllocRow::default()
        };
        for victim in &found.allocs {
            let over = self.priority_of(victim).unwrap_or(0);
            let ending = Ending::Preempted { by: alloc.clone(), priority: spec.priority, over };
            tracing::debug!(%victim, %ending, "ending an allocation");
            self.supervisor.retire(now, &victim.slot, ending);
        }
        let spec = spec.clone();
        let victims = found.allocs;
        let newcomer = Newcomer { alloc: alloc.clone(), spec, proposer, victims, succession };
        self.preemption.newcomers.push(newcomer);
        let key = Key::Alloc(alloc.slot.clone(), self.config.id);
        self.write(now, key, Value::Alloc(Box::new(row)));
        self.timers.soon = true;
        Ok(())
    }

    /// The ledger as it will be when everybody who was told to go is gone and every newcomer has come; `more`
    /// is an allocation that would be let in before them.
    fn prospect_of_room(
        &self,
        more: Option<(&AllocId, &JobSpec, &Claim)>,
    ) -> Result<Ledger, Rejection> {
        let mut ledger = self.supervisor.ledger().clone();
        if let Some((alloc, _, claim)) = more {
            ledger.hold(alloc, claim.clone()).map_err(|_| Rejection::Full)?;
        }
        for newcomer in &self.preemption.newcomers {
            let passes = more.is_some_and(|(alloc, spec, _)| {
                *alloc == newcomer.alloc || spec.priority > newcomer.spec.priority
            });
            if passes {
                continue;
            }
            for victim in &newcomer.victims {
                ledger.release(victim);
            }
            let kept = || Rejection::Kept { by: newcomer.alloc.clone() };
            let claim = placement::check(&newcomer.spec, self.id(), &self.info, &ledger)
                .map_err(|_| kept())?;
            ledger.hold(&newcomer.alloc, claim).map_err(|_| kept())?;
        }
        Ok(ledger)
    }

    /// Whether every newcomer that is at least as important would still find its room beside this claim.
    pub(super) fn leave_room(
        &self,
        alloc: &AllocId,
        spec: &JobSpec,
        claim: &Claim,
    ) -> Result<(), Rejection> {
        if self.preemption.newcomers.is_empty() {
            return Ok(());
        }
        self.prospect_of_room(Some((alloc, spec, claim))).map(drop)
    }

    /// Whether an allocation waits on this node until others have made room.
    pub(super) fn waits_here(&self, alloc: &AllocId) -> bool {
        self.preemption.newcomers.iter().any(|newcomer| newcomer.alloc == *alloc)
    }

    /// Lets those in for whom there is room by now, the most important first.
    pub(super) fn welcome_newcomers(&mut self, now: Now, settled: bool) {
        if settled && !std::mem::replace(&mut self.preemption.cleared, true) {
            self.clear_former_newcomers(now);
        }
        let forget = |at: &Instant| now.at.since(*at) < limits::ACCEPTED_TIMEOUT;
        self.preemption.looked.retain(|_, at| forget(at));
        self.preemption.marked.retain(|_, at| forget(at));
        let mut waiting: Vec<(std::cmp::Reverse<u8>, AllocId)> = self
            .preemption
            .newcomers
            .iter()
            .map(|newcomer| (std::cmp::Reverse(newcomer.spec.priority), newcomer.alloc.clone()))
            .collect();
        waiting.sort_by_key(|(priority, _)| *priority);
        for (_, alloc) in waiting {
            self.welcome(now, &alloc);
        }
    }

    fn welcome(&mut self, now: Now, alloc: &AllocId) {
        let newcomers = &self.preemption.newcomers;
        let Some(at) = newcomers.iter().position(|newcomer| newcomer.alloc == *alloc) else {
            return;
        };
        let (proposer, succession) = (newcomers[at].proposer, newcomers[at].succession.clone());
        let awaited = newcomers[at].victims.iter().any(|victim| {
            self.supervisor
                .local(&victim.slot)
                .is_some_and(|local| local.id() == victim && local.row().phase.holds_claim())
        });
        let entry = self.replica.entry(&Key::Job(alloc.slot.job.clone())).cloned();
        let outcome = match entry {
            Some(entry) => self.admit(now, alloc, &entry, Some(proposer), succession),
            None => Err(Rejection::Outdated),
        };
        match outcome {
            Ok(()) => {
                self.preemption.newcomers.remove(at);
            }
            Err(reason) if awaited && is_about_room(&reason) => {}
            Err(reason) => {
                self.preemption.newcomers.remove(at);
                self.turn_away(now, alloc, format!("room was made, but {reason}"));
                let alloc = alloc.clone();
                self.send(proposer, Message::Reject { alloc, reason });
            }
        }
    }

    fn turn_away(&mut self, now: Now, alloc: &AllocId, reason: String) {
        let known = self.replica.alloc(&alloc.slot, &self.config.id);
        let Some(row) = known.filter(|row| row.is_of(alloc) && row.phase == Phase::Pending) else {
            return;
        };
        let ending = Some(Ending::Retired { reason });
        let row = AllocRow { phase: Phase::Ended, ending, since: now.wall, ..row.clone() };
        let key = Key::Alloc(alloc.slot.clone(), self.config.id);
        self.write(now, key, Value::Alloc(Box::new(row)));
    }

    /// Newcomers are kept in memory only: those of a former life of this node are told off.
    fn clear_former_newcomers(&mut self, now: Now) {
        let mine = self
            .replica
            .allocs()
            .filter(|(_, node, row, _)| *node == self.config.id && row.phase == Phase::Pending);
        let mine: Vec<AllocId> = mine
            .map(|(slot, _, row, _)| row.of(slot.clone()))
            .filter(|alloc| !self.waits_here(alloc))
            .collect();
        for alloc in mine {
            self.turn_away(now, &alloc, "the node was restarted".into());
        }
    }
}

/// Whether a refusal may turn into an admission when others go.
fn is_about_room(reason: &Rejection) -> bool {
    matches!(
        reason,
        Rejection::Cores { .. }
            | Rejection::Cpu { .. }
            | Rejection::Memory { .. }
            | Rejection::Disk { .. }
            | Rejection::Numa
            | Rejection::Hugepages { .. }
            | Rejection::Device { .. }
            | Rejection::Port { .. }
            | Rejection::PortsUsed { .. }
            | Rejection::AntiAffinity { .. }
            | Rejection::Kept { .. }
    )
}
