//! The allocations of this node: what was given to them, what their units do, when they are started
//! again and when they are given up.
//!
//! ```text
//!   reserve ──► Reserved ──on disk──► Preparing ──► Starting ──unit runs──► Running ──retire──► Stopping ──unit gone──► Ended
//!                                         │            │                     │  ▲                                      ▲
//!                                         │            │   exit, bad health  ▼  │ after a delay                        │
//!                                         └────────────┴─────────────────► (no unit) ──too many restarts──────────────┘
//! ```
//!
//! Each run is prepared before it is started, also those in place, which leave neither `Starting` nor `Running`.
//!
//! An at-most-one allocation waits for a lease in `Reserved`, starts and restarts only while it is unexpired, and
//! is retired the moment it runs out.
//!
//! Commands to the unit manager may be lost: while one shows no effect it is given again, each time
//! after twice the wait. That holds for preparations and starts, for stops, also of units that no record explains, and for moves to other
//! CPUs. An extended lease is not repeated: the next renewal says more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::admission::Ledger;
use crate::alloc::{AllocRow, Ending, Phase, Succession};
use crate::claim::Claim;
use crate::clock::{Instant, Now};
use crate::cpuset::CpuSet;
use crate::id::{AllocId, Birth, NodeId, SlotId};
use crate::io::{Launch, Lease, Output, UnitEvent, UnitFound};
use crate::job::placeholder::Placeholders;
use crate::job::{CpuRequest, JobSpec, SpecHash};
use crate::level::Leveled;
use crate::limits;
use crate::resources::Rejection;

mod local_alloc;
mod locals;
mod repeat;

pub use local_alloc::LocalAlloc;
use local_alloc::{LeaseState, Unit};
use locals::Locals;
use repeat::{Retry, Strays};

/// What a node keeps on its disk about an allocation besides the row: enough to restart it without
/// asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Slot and epoch.
    pub alloc: AllocId,
    /// What it runs; the job may have moved on.
    pub spec: JobSpec,
    /// Starts so far.
    pub run: u32,
}

impl Leveled for Record {
    fn level(&self) -> u8 {
        self.spec.level()
    }
}

/// What concerns all allocations: when it changes, a tick looks at each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Circumstances {
    /// The shared CPUs.
    shared: CpuSet,
    may_start: bool,
    /// Units that nobody has spoken of are gone.
    all_units_known: bool,
}

/// All allocations of this node.
pub struct Supervisor {
    node: String,
    /// This node's architecture: which of a job's tasks it runs.
    arch: String,
    locals: Locals,
    /// Those of them that run under a lease and have not ended.
    leased: BTreeSet<SlotId>,
    strays: Strays,
    ledger: Ledger,
    /// As of the last tick.
    circumstances: Option<Circumstances>,
    /// Everything up to this write is on disk.
    persisted: u64,
    /// The agent has said which units there are.
    listed: bool,
    started: Instant,
    /// Slots whose row changed.
    changed: BTreeSet<SlotId>,
    outputs: Vec<Output>,
    accepted: Vec<(NodeId, AllocId)>,
    /// At-most-one allocations that ended, and whether nothing of them is left for sure.
    ended: Vec<(AllocId, bool)>,
}

impl Supervisor {
    /// No allocations yet. `node` is this node's name, for the units' environment.
    pub fn new(now: Instant, node: String, ledger: Ledger) -> Self {
        Self {
            node,
            arch: String::new(),
            locals: Locals::default(),
            leased: BTreeSet::new(),
            strays: Strays::default(),
            ledger,
            circumstances: None,
            persisted: 0,
            listed: false,
            started: now,
            changed: BTreeSet::new(),
            outputs: Vec::new(),
            accepted: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The same on a machine of this architecture.
    pub fn on_arch(self, arch: &str) -> Self {
        Self { arch: arch.to_owned(), ..self }
    }

    /// Takes back an allocation from the disk. Its unit is unknown until [`Supervisor::units_found`].
    pub fn restore(&mut self, now: Instant, record: Record, row: AllocRow) {
        if !row.phase.holds_claim() || !row.is_of(&record.alloc) {
            return;
        }
        if self.ledger.adopt(&record.alloc, row.claim.clone()).is_err() {
            tracing::error!(alloc = %record.alloc, "its claim overlaps with another one's");
        }
        let slot = record.alloc.slot.clone();
        let mut local = LocalAlloc::new(now, record, row, None, Unit::Unknown, 0);
        if local.lease.state == LeaseState::Waiting {
            local.lease.state = LeaseState::Unknown;
            local.lease.unsure = true;
            self.leased.insert(slot.clone());
        }
        self.locals.insert(slot, local);
    }

    /// Writes down a claim. It starts when the write `sequence` is on disk.
    #[expect(clippy::too_many_arguments, reason = "one call, everything that an allocation is")]
    pub fn reserve(
        &mut self,
        now: Now,
        alloc: AllocId,
        spec: &JobSpec,
        hash: SpecHash,
        version: u64,
        claim: Claim,
        proposer: Option<NodeId>,
        sequence: u64,
        forget_claim: bool,
    ) {
        if !forget_claim && self.ledger.hold(&alloc, claim.clone()).is_err() {
            debug_assert!(false, "a claim that was just found free is not");
            return;
        }
        let row = AllocRow {
            epoch: alloc.epoch,
            birth: alloc.birth,
            phase: Phase::Reserved,
            spec: hash,
            version,
            claim,
            since: now.wall,
            healthy_since: now.wall,
            ..AllocRow::default()
        };
        let slot = alloc.slot.clone();
        let record = Record { alloc, spec: spec.clone(), run: 0 };
        let local = LocalAlloc::new(now.at, record, row, proposer, Unit::Absent, sequence);
        if local.lease.state != LeaseState::Free {
            self.leased.insert(slot.clone());
        }
        self.locals.insert(slot.clone(), local);
        self.changed.insert(slot);
    }

    /// Notes what was there of the slot of an allocation that has just been written down.
    pub fn succeed(&mut self, slot: &SlotId, succession: Option<Box<Succession>>, vacant: bool) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.alloc.row.succession = succession;
            local.alloc.row.vacant = vacant;
        }
    }

    /// Tells a later copy of the slot that this one is there.
    pub fn contest(&mut self, slot: &SlotId, epoch: u64) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.alloc.row.contests = epoch;
            self.changed.insert(slot.clone());
        }
    }

    /// Tells the copy of the slot of this epoch and birth to end.
    pub fn replace(&mut self, slot: &SlotId, earlier: (u64, Birth)) {
        if let Some(local) = self.locals.get_mut(slot) {
            let succession = local.alloc.row.succession.get_or_insert_default();
            succession.replace(earlier);
            // Whom it stands in for is another question, unless it is that one.
            succession.stands_in.take_if(|known| known.epoch == earlier.0);
            self.changed.insert(slot.clone());
        }
    }

    /// Ends an allocation, gracefully. False: there is nothing to end.
    pub fn retire(&mut self, now: Now, slot: &SlotId, ending: Ending) -> bool {
        let Some(local) = self.locals.get_mut(slot) else { return false };
        if !local.alloc.row.phase.is_live() {
            return false;
        }
        local.alloc.row.ending = Some(ending);
        self.changed.insert(slot.clone());
        if local.unit.state == Unit::Absent {
            self.end(now, slot);
            return true;
        }
        local.enter(now, Phase::Stopping);
        local.unit.restarting = None;
        local.set_healthy(now, false);
        local.unit.arm(now.at);
        if local.unit.state != Unit::Unknown {
            self.outputs.push(local.command());
        }
        true
    }

    /// The others remember more of an allocation of ours than our disk did: its last rows were told to
    /// them and lost here. What was over stays over, and no phase is gone through twice.
    pub fn recall(&mut self, now: Now, slot: &SlotId, known: &AllocRow) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        let (mine, theirs) =
            ((local.alloc.row.epoch, local.alloc.row.phase), (known.epoch, known.phase));
        if !local.alloc.row.phase.is_live() || theirs <= mine {
            return;
        }
        if known.epoch > local.alloc.row.epoch {
            self.retire(now, slot, Ending::Superseded { epoch: known.epoch });
        } else if known.phase.is_live() {
            local.enter(now, known.phase);
            self.changed.insert(slot.clone());
        } else {
            let ending = known.ending.clone().unwrap_or(Ending::Lost);
            self.retire(now, slot, ending);
        }
    }

    /// Restarts an allocation's unit in place. False: it is not running.
    pub fn restart(&mut self, now: Now, slot: &SlotId) -> bool {
        match self.locals.get_mut(slot) {
            Some(local)
                if local.alloc.row.phase == Phase::Running && local.unit.state == Unit::Active =>
            {
                local.unit.restarting = Some(None);
                local.unit.arm(now.at);
                self.outputs.push(local.command());
                true
            }
            _ => false,
        }
    }

    /// Everything up to `through` is on disk.
    pub fn persisted(&mut self, through: u64) {
        self.persisted = self.persisted.max(through);
        self.locals.written(through);
    }

    /// An allocation of a gang starts only when it is committed; if it is not by `until`, it ends.
    pub fn hold_back(&mut self, slot: &SlotId, until: Instant) {
        if let Some(local) = self.locals.get_mut(slot)
            && local.alloc.row.phase == Phase::Reserved
        {
            local.alloc.held_back = Some(until);
        }
    }

    /// The gang of an allocation is complete.
    pub fn commit(&mut self, slot: &SlotId) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.alloc.held_back = None;
        }
    }

    /// The disk refused: claims that it does not hold are given back, unstarted.
    pub fn unpersisted(&mut self, now: Now) -> Vec<(NodeId, AllocId)> {
        let lost: Vec<SlotId> = self
            .locals
            .iter()
            .filter(|(_, l)| {
                l.alloc.row.phase == Phase::Reserved && l.alloc.reserved_in > self.persisted
            })
            .map(|(slot, _)| slot.clone())
            .collect();
        let mut told = Vec::new();
        for slot in lost {
            if let Some(local) = self.locals.get_mut(&slot) {
                let reason = "the claim could not be written to disk".to_owned();
                // Not the slot's failure: once the disk takes writes again it is welcome here.
                local.alloc.row.ending = Some(Ending::Retired { reason });
                told.extend(
                    local
                        .alloc
                        .proposer
                        .map(|proposer| (proposer, local.alloc.record.alloc.clone())),
                );
            }
            self.end(now, &slot);
        }
        told
    }

    /// The unit manager said something.
    pub fn unit(&mut self, now: Now, alloc: &AllocId, run: u32, event: UnitEvent) {
        let is_over = !matches!(event, UnitEvent::Prepared | UnitEvent::Running { .. });
        if is_over {
            self.strays.gone(alloc, run);
        }
        let Some(local) = self.locals.get_mut(&alloc.slot) else { return };
        if local.alloc.record.alloc != *alloc
            || local.alloc.record.run != run
            || !local.alloc.row.phase.holds_claim()
        {
            return;
        }
        if is_over && local.unit.state == Unit::Absent {
            // Said again because a start was given again: it counts once.
            return;
        }
        local.lease.unsure = matches!(event, UnitEvent::Refused { .. });
        match event {
            UnitEvent::Prepared if local.unit.state == Unit::Preparing => {
                local.unit.state = Unit::Prepared;
                local.unit.start_at = now.at;
            }
            UnitEvent::Prepared => {}
            UnitEvent::Running { pid, cpus, mems } => {
                let fresh = local.unit.state != Unit::Active;
                local.unit.state = Unit::Active;
                local.unit.seen_on(cpus.as_ref());
                if fresh && cpus.as_ref() != Some(&local.unit.confined_to) {
                    // The shared CPUs changed while it was starting: tell it once more.
                    local.unit.confined_to = CpuSet::new();
                }
                local.alloc.row.pid = Some(pid);
                local.alloc.row.effective_cpus = cpus;
                local.alloc.row.effective_mems = mems;
                if local.alloc.row.phase < Phase::Running {
                    local.enter(now, Phase::Running);
                    local.alloc.row.ran = true;
                }
                if local.alloc.row.phase == Phase::Stopping {
                    // It was asked to stop before it was known to run.
                    local.unit.arm(now.at);
                    self.outputs.push(local.command());
                } else if fresh {
                    local.unit.running_since = now.at;
                    local.health.failed_checks = 0;
                    local.health.passed_a_check = false;
                    if local.alloc.record.spec.health.is_none() {
                        local.set_healthy(now, true);
                    }
                }
                self.changed.insert(alloc.slot.clone());
            }
            UnitEvent::Exited { status, killed, .. } => {
                local.unit.is_gone();
                local.alloc.row.pid = None;
                if killed {
                    local.alloc.row.trouble = Some(format!("did not stop in time: {status}"));
                }
                self.changed.insert(alloc.slot.clone());
                match (local.alloc.row.phase, local.unit.restarting.take()) {
                    (Phase::Stopping, _) => self.end(now, &alloc.slot),
                    (_, Some(None)) => {
                        local.set_healthy(now, false);
                        local.alloc.row.restarts += 1;
                        local.unit.start_at = now.at;
                    }
                    (_, Some(Some(reason))) => self.fail(now, &alloc.slot, reason),
                    (_, None) => self.fail(now, &alloc.slot, status),
                }
            }
            UnitEvent::Refused { reason } => {
                local.unit.is_gone();
                self.changed.insert(alloc.slot.clone());
                if local.alloc.row.phase == Phase::Stopping {
                    self.end(now, &alloc.slot);
                } else {
                    self.fail(now, &alloc.slot, reason);
                }
            }
            UnitEvent::PortTaken { port, by } => {
                local.unit.is_gone();
                if local.alloc.row.phase != Phase::Stopping {
                    // Another start would find the same. The slot has not failed: it is placed again, with another port or
                    // on another node.
                    let reason = Rejection::PortUsed { port, by }.to_string();
                    local.alloc.row.trouble = Some(reason.clone());
                    local.alloc.row.ending = Some(Ending::Retired { reason });
                }
                self.end(now, &alloc.slot);
            }
        }
    }

    /// The agent lists the units that it found when it started.
    pub fn units_found(&mut self, now: Now, units: Vec<UnitFound>) {
        self.listed = true;
        for found in units {
            match self.locals.get_mut(&found.alloc.slot) {
                Some(local)
                    if local.alloc.record.alloc == found.alloc
                        && local.alloc.row.phase.holds_claim() =>
                {
                    // The last start may not have reached the disk; the unit itself knows better.
                    local.alloc.record.run = local.alloc.record.run.max(found.run);
                    if let (LeaseState::Unknown, Some(until)) =
                        (local.lease.state, found.lease_until)
                    {
                        local.lease.state = LeaseState::Until(until);
                    }
                    let still_healthy = local.alloc.row.healthy;
                    self.unit(now, &found.alloc, found.run, found.event);
                    if let Some(local) = self.locals.get_mut(&found.alloc.slot)
                        && local.unit.state == Unit::Active
                        && local.alloc.row.phase == Phase::Running
                        && local.may_run(now.at)
                    {
                        local.set_healthy(
                            now,
                            still_healthy || local.alloc.record.spec.health.is_none(),
                        );
                        let launch =
                            launch(&self.node, &self.arch, local, self.ledger.shared_cpus());
                        // Starting what is there changes nothing, but the agent learns how to check it.
                        local.unit.introduced = Some(Retry::new(now.at, limits::UNIT_RETRY));
                        self.outputs.push(Output::Start(Box::new(launch)));
                    }
                }
                _ => {
                    if let UnitEvent::Running { .. } = found.event {
                        tracing::warn!(alloc = %found.alloc, "stopping a unit that no record explains");
                        let stop = self.strays.found(now.at, found.alloc, found.run);
                        self.outputs.push(stop);
                    }
                }
            }
        }
        for slot in self.slots() {
            self.give_up_unknown(now, &slot);
        }
    }

    /// A unit that was there when the agent stopped is gone.
    fn give_up_unknown(&mut self, now: Now, slot: &SlotId) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        if local.unit.state != Unit::Unknown {
            return;
        }
        local.unit.is_gone();
        local.alloc.row.pid = None;
        local.set_healthy(now, false);
        self.changed.insert(slot.clone());
        if local.alloc.row.phase == Phase::Stopping {
            self.end(now, slot);
        } else if local.alloc.row.phase > Phase::Preparing {
            // A machine that was switched off is not the unit's failure: this start does not count.
            local.alloc.row.trouble = Some("the unit was gone when the agent came back".into());
            local.unit.start_at = now.at;
        }
    }

    /// A health check was made.
    pub fn checked(&mut self, now: Now, alloc: &AllocId, run: u32, outcome: Result<(), String>) {
        let Some(local) = self.locals.get_mut(&alloc.slot) else { return };
        let current = local.alloc.record.alloc == *alloc && local.alloc.record.run == run;
        if !current || local.alloc.row.phase != Phase::Running || local.unit.state != Unit::Active {
            return;
        }
        let Some(health) = &local.alloc.record.spec.health else { return };
        match outcome {
            Ok(()) => {
                local.health.failed_checks = 0;
                local.health.passed_a_check = true;
                if local.set_healthy(now, true) {
                    local.alloc.row.trouble = None;
                    self.changed.insert(alloc.slot.clone());
                }
            }
            Err(reason) => {
                let in_grace = now.at.since(local.unit.running_since) < health.grace;
                if in_grace && !local.health.passed_a_check {
                    return;
                }
                local.health.failed_checks += 1;
                if local.health.failed_checks >= health.failures && local.unit.restarting.is_none()
                {
                    let reason = format!("health check failed: {reason}");
                    local.alloc.row.trouble = Some(reason.clone());
                    local.set_healthy(now, false);
                    local.unit.restarting = Some(Some(reason));
                    local.unit.arm(now.at);
                    self.outputs.push(local.command());
                    self.changed.insert(alloc.slot.clone());
                }
            }
        }
    }

    /// The unit is gone although nobody wanted that: start it again later, or give up.
    fn fail(&mut self, now: Now, slot: &SlotId, reason: String) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        let policy = &local.alloc.record.spec.restart;
        while local.unit.restarts.front().is_some_and(|at| now.at.since(*at) > policy.within) {
            local.unit.restarts.pop_front();
        }
        local.alloc.row.pid = None;
        if local.unit.restarts.len() as u32 >= policy.attempts {
            local.alloc.row.trouble = Some(reason.clone());
            local.alloc.row.ending = Some(Ending::Failed { reason });
            self.end(now, slot);
            return;
        }
        let doublings = local.unit.restarts.len().min(16) as u32;
        let delay = policy.delay.max(limits::RESTART_DELAY_MIN) * 2u32.pow(doublings);
        let delay = delay.min(limits::UNIT_RETRY_MAX);
        local.unit.start_at = now.at + delay;
        local.unit.restarts.push_back(now.at);
        local.alloc.row.restarts += 1;
        local.alloc.row.trouble = Some(reason);
        local.set_healthy(now, false);
        self.changed.insert(slot.clone());
    }

    fn end(&mut self, now: Now, slot: &SlotId) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        local.enter(now, Phase::Ended);
        local.set_healthy(now, false);
        local.alloc.row.pid = None;
        self.ledger.release(&local.alloc.record.alloc);
        self.changed.insert(slot.clone());
        if local.lease.state != LeaseState::Free {
            self.ended.push((local.alloc.record.alloc.clone(), !local.lease.unsure));
            self.leased.remove(slot);
        }
    }

    /// A lease was granted, or renewed.
    pub fn granted(&mut self, slot: &SlotId, epoch: u64, until: Instant) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        if local.alloc.record.alloc.epoch != epoch || !local.alloc.row.phase.is_live() {
            return;
        }
        match local.lease.state {
            LeaseState::Waiting => local.lease.state = LeaseState::Until(until),
            LeaseState::Until(before) if before < until => {
                local.lease.state = LeaseState::Until(until)
            }
            _ => return,
        }
        if matches!(local.unit.state, Unit::Asked | Unit::Active) {
            let (alloc, run) = (local.alloc.record.alloc.clone(), local.alloc.record.run);
            self.outputs.push(Output::Extend { alloc, run, until });
        }
    }

    /// No lease is to be had: the claim is given back. Returns the allocation, and who proposed it.
    pub fn unleased(
        &mut self,
        now: Now,
        slot: &SlotId,
        epoch: u64,
        ending: Ending,
    ) -> Option<(AllocId, NodeId)> {
        let local = self.locals.get(slot)?;
        if local.alloc.record.alloc.epoch != epoch || local.lease.state != LeaseState::Waiting {
            return None;
        }
        let (alloc, proposer) = (local.alloc.record.alloc.clone(), local.alloc.proposer);
        self.retire(now, slot, ending);
        Some((alloc, proposer?))
    }

    /// At-most-one allocations whose claim is on disk and that wait for a lease.
    pub fn waiting_for_a_lease(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.leased().filter(|local| {
            local.lease.state == LeaseState::Waiting
                && local.alloc.row.phase == Phase::Reserved
                && local.alloc.reserved_in <= self.persisted
        })
    }

    /// At-most-one allocations that have not ended.
    pub fn leased(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.leased.iter().filter_map(|slot| self.locals.get(slot))
    }

    /// Ends what runs without a right to: its lease has run out, or it had one in a former life only.
    fn end_without_lease(&mut self, now: Now, slot: &SlotId) {
        let Some(local) = self.locals.get(slot) else { return };
        if !local.alloc.row.phase.is_live() {
            return;
        }
        match local.lease.state {
            LeaseState::Until(until) if until <= now.at => {
                self.retire(now, slot, Ending::LeaseLost);
            }
            LeaseState::Unknown if local.unit.state != Unit::Unknown => {
                self.retire(now, slot, Ending::Lost);
            }
            _ => {}
        }
    }

    /// At-most-one allocations that ended since the last call, and whether nothing is left of them for sure.
    pub fn take_ended(&mut self) -> Vec<(AllocId, bool)> {
        std::mem::take(&mut self.ended)
    }

    /// Does what is due. Units are started only when `may_start`: a node that has just come back first
    /// learns whether its slots went elsewhere. `level`: what the fabric can read.
    pub fn tick(&mut self, now: Now, may_start: bool, level: u8) {
        let late = now.at.since(self.started) > limits::ADOPT_TIMEOUT;
        let all_units_known = self.listed || late;
        let shared = self.ledger.shared_cpus();
        let circumstances = Some(Circumstances { shared, may_start, all_units_known });
        let slots = if self.circumstances == circumstances {
            self.locals.take_due(now.at)
        } else {
            self.slots()
        };
        self.circumstances = circumstances;
        self.outputs.extend(self.strays.due(now.at));
        for slot in slots {
            if self.locals.get(&slot).is_none_or(|local| local.alloc.row.phase == Phase::Ended) {
                continue;
            }
            if all_units_known {
                self.give_up_unknown(now, &slot);
            }
            self.end_without_lease(now, &slot);
            let shared = self.ledger.shared_cpus();
            if self.move_on(now, &slot, may_start, level) {
                self.confine(now, &slot, &shared);
                self.start_when_due(now, &slot, shared, may_start);
            }
        }
        self.locals.looked_at();
        // Shared units leave an exclusive core before its new owner starts on it.
        self.outputs.sort_by_key(|output| !matches!(output, Output::Confine { .. }));
    }

    /// Takes an allocation to its next phase if it is time for that, and repeats what it was told in this one. False: it was
    /// ended instead.
    fn move_on(&mut self, now: Now, slot: &SlotId, may_start: bool, level: u8) -> bool {
        let Some(local) = self.locals.get_mut(slot) else { return false };
        let again = local.unit.retry_at <= now.at;
        match local.alloc.row.phase {
            Phase::Reserved if local.alloc.reserved_in <= self.persisted && may_start => {
                let told = local.proposer().map(|proposer| (proposer, local.id().clone()));
                if !std::mem::replace(&mut local.alloc.told, true) {
                    self.accepted.extend(told);
                }
                if local.alloc.held_back.is_some_and(|until| until <= now.at) {
                    let reason = "its gang was not complete in time".to_owned();
                    self.retire(now, slot, Ending::Retired { reason });
                    return false;
                }
                if local.may_run(now.at) {
                    let can_be_said = Phase::Preparing.level() <= level;
                    local.enter(now, if can_be_said { Phase::Preparing } else { Phase::Starting });
                    local.unit.start_at = now.at;
                    self.changed.insert(slot.clone());
                }
            }
            Phase::Stopping if local.unit.state == Unit::Absent => self.end(now, slot),
            Phase::Stopping if again && local.unit.state != Unit::Unknown => {
                self.outputs.push(local.command());
                local.unit.rearm(now.at);
            }
            Phase::Running if again && local.unit.restarting.is_some() => {
                self.outputs.push(local.command());
                local.unit.rearm(now.at);
            }
            _ => {}
        }
        true
    }

    /// Moves a unit without cores of its own to the shared CPUs.
    fn confine(&mut self, now: Now, slot: &SlotId, shared: &CpuSet) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        if !local.is_there() || !local.alloc.row.claim.cpus.is_empty() {
            return;
        }
        let moves = local.unit.confined_to != *shared;
        if moves {
            local.unit.confined_to = shared.clone();
            local.unit.moving = Some(Retry::new(now.at, limits::CONFINE_RETRY));
        }
        if moves || local.unit.moving.as_mut().is_some_and(|retry| retry.is_due(now.at)) {
            let (alloc, run) = (local.id().clone(), local.alloc.record.run);
            self.outputs.push(Output::Confine { alloc, run, cpus: shared.clone() });
        }
    }

    /// Has a unit prepared, and then started, or says so again.
    fn start_when_due(&mut self, now: Now, slot: &SlotId, shared: CpuSet, may_start: bool) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        let phase = local.alloc.row.phase;
        if !phase.is_live() || phase == Phase::Reserved || !local.may_run(now.at) {
            return;
        }
        let output: fn(Box<Launch>) -> Output = match local.unit.state {
            Unit::Absent if local.unit.start_at <= now.at && may_start => {
                local.alloc.record.run += 1;
                local.unit.state = Unit::Preparing;
                local.unit.arm(now.at);
                self.changed.insert(slot.clone());
                Output::Prepare
            }
            Unit::Preparing if local.unit.retry_at <= now.at => {
                local.unit.rearm(now.at);
                Output::Prepare
            }
            Unit::Prepared if may_start => {
                if phase == Phase::Preparing {
                    local.enter(now, Phase::Starting);
                    self.changed.insert(slot.clone());
                }
                local.unit.state = Unit::Asked;
                local.unit.arm(now.at);
                (local.unit.confined_to, local.unit.moving) = (shared.clone(), None);
                Output::Start
            }
            Unit::Asked if local.unit.retry_at <= now.at => {
                local.unit.rearm(now.at);
                (local.unit.confined_to, local.unit.moving) = (shared.clone(), None);
                Output::Start
            }
            Unit::Active
                if local.unit.introduced.as_mut().is_some_and(|retry| retry.is_due(now.at)) =>
            {
                Output::Start
            }
            _ => return,
        };
        let launch = launch(&self.node, &self.arch, local, shared);
        self.outputs.push(output(Box::new(launch)));
    }

    /// When [`Supervisor::tick`] has something to do at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.locals.next_deadline().into_iter().chain(self.strays.next_deadline()).min()
    }

    fn slots(&self) -> BTreeSet<SlotId> {
        let live = |(slot, local): (&SlotId, &LocalAlloc)| {
            (local.alloc.row.phase != Phase::Ended).then(|| slot.clone())
        };
        self.locals.iter().filter_map(live).collect()
    }

    /// Slots whose row changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<SlotId> {
        std::mem::take(&mut self.changed)
    }

    /// Has the row of this slot's allocation written once more.
    pub fn tell_again(&mut self, slot: &SlotId) {
        self.changed.insert(slot.clone());
    }

    /// Commands for the unit manager since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Proposals whose claim is on disk since the last call, and who made them.
    pub fn take_accepted(&mut self) -> Vec<(NodeId, AllocId)> {
        std::mem::take(&mut self.accepted)
    }

    /// Forgets an allocation that has ended.
    pub fn forget(&mut self, slot: &SlotId) {
        if self.locals.get(slot).is_some_and(|local| local.alloc.row.phase == Phase::Ended) {
            self.locals.remove(slot);
        }
    }

    /// The allocation in a slot.
    pub fn local(&self, slot: &SlotId) -> Option<&LocalAlloc> {
        self.locals.get(slot)
    }

    /// Every allocation, also ended ones that are still remembered.
    pub fn locals(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.locals.values()
    }

    /// How many allocations hold a claim.
    pub fn holding(&self) -> usize {
        self.locals.values().filter(|local| local.alloc.row.phase.holds_claim()).count()
    }

    /// What this node has and has given away.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The hardware or the share of it changed.
    pub fn topology_changed(&mut self, topology: &crate::topology::Topology) {
        self.arch.clone_from(&topology.arch);
        self.ledger.topology_changed(topology);
    }
}

fn launch(node: &str, arch: &str, local: &LocalAlloc, shared: CpuSet) -> Launch {
    let (spec, claim) = (local.spec(), local.alloc.row.claim.clone());
    let cpus = if claim.cpus.is_empty() { shared } else { claim.cpus.clone() };
    let values =
        Placeholders { alloc: &local.alloc.record.alloc, node, cpus: &cpus, ports: &claim.ports };
    // A validated spec has no placeholder that cannot be filled; one that came from a newer agent
    // may, and then the command's own error is clearer than no start at all.
    let task = spec.task.on_arch(arch);
    let task = task.substitute(&values).unwrap_or_else(|_| task.clone().into_owned());
    let health = spec
        .health
        .as_ref()
        .map(|health| health.substitute(&values).unwrap_or_else(|_| health.clone()));
    Launch {
        alloc: local.alloc.record.alloc.clone(),
        run: local.alloc.record.run,
        node: node.to_owned(),
        task,
        memory: spec.resources.memory,
        swap: spec.resources.swap,
        cpu_hard: matches!(spec.resources.cpu, CpuRequest::Shared { hard: true, .. }),
        claim,
        cpus,
        health,
        lease: local
            .leased_until()
            .map(|until| Lease { until, stop_timeout: spec.task.stop_timeout }),
    }
}

#[cfg(test)]
mod tests;
