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

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admission::Ledger;
use crate::alloc::{AllocRow, Ending, Phase, Succession};
use crate::claim::Claim;
use crate::clock::{Instant, Now};
use crate::cpuset::CpuSet;
use crate::id::{AllocId, Birth, NodeId, SlotId};
use crate::io::{Launch, Lease, Output, UnitEvent, UnitFound};
use crate::job::placeholder::Placeholders;
use crate::job::{CpuRequest, Guarantee, JobSpec, SpecHash};
use crate::level::Leveled;
use crate::limits;
use crate::resources::Rejection;

mod locals;
mod repeat;

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

/// What we believe of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// The agent has just started and has not said yet.
    Unknown,
    /// There is none.
    Absent,
    /// The agent was asked to make ready what it needs.
    Preparing,
    /// That is there, and nothing else yet.
    Prepared,
    /// It was asked to start.
    Asked,
    /// It runs.
    Active,
}

/// One allocation of this node.
#[derive(Debug)]
pub struct LocalAlloc {
    record: Record,
    row: AllocRow,
    /// Who proposed it; `None` after a restart, and for a system job.
    proposer: Option<NodeId>,
    /// The write to disk that makes the claim durable.
    reserved_in: u64,
    /// The proposer was told.
    told: bool,
    /// A slot of a gang that is not complete: it ends then.
    held_back: Option<Instant>,
    unit: Unit,
    /// Restarts within the policy's window.
    restarts: VecDeque<Instant>,
    start_at: Instant,
    /// The unit is being stopped in order to be started again; `Some(why)` counts as a failure.
    restarting: Option<Option<String>>,
    failed_checks: u32,
    passed_a_check: bool,
    running_since: Instant,
    /// Since when it is healthy, on this node's clock and in this life of its agent.
    well_since: Option<Instant>,
    /// When the last command is given again.
    retry_at: Instant,
    retry_after: Duration,
    confined_to: CpuSet,
    /// It was told to move there, and was not seen there yet.
    moving: Option<Retry>,
    /// The agent was told how to check it, and has not reported it since.
    introduced: Option<Retry>,
    /// How far at-most-one work has a right to run.
    lease: LeaseState,
    /// The unit manager did not say for sure that the unit is gone.
    unsure: bool,
}

/// What an allocation knows of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    /// It needs none.
    Free,
    /// It needs one.
    Waiting,
    /// It had one in a former life of the agent, perhaps.
    Unknown,
    /// It has one until then.
    Until(Instant),
}

impl LocalAlloc {
    /// Slot and epoch.
    pub fn id(&self) -> &AllocId {
        &self.record.alloc
    }

    /// What it runs.
    pub fn spec(&self) -> &JobSpec {
        &self.record.spec
    }

    /// What others are told.
    pub fn row(&self) -> &AllocRow {
        &self.row
    }

    /// Who proposed it, as long as that is remembered.
    pub fn proposer(&self) -> Option<NodeId> {
        self.proposer
    }

    /// What is kept on disk beside the row.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether it runs under a lease only, and how long a stop may take.
    pub fn needs_lease(&self) -> Option<Duration> {
        (self.lease != LeaseState::Free).then_some(self.record.spec.task.stop_timeout)
    }

    /// Until when it may run, if it has a lease.
    pub fn leased_until(&self) -> Option<Instant> {
        match self.lease {
            LeaseState::Until(until) => Some(until),
            _ => None,
        }
    }

    /// For how long it is known to be healthy.
    pub fn healthy_for(&self, now: Instant) -> Option<Duration> {
        self.well_since.map(|since| now.since(since))
    }

    /// Whether its proposer was told that the claim is on disk.
    pub fn was_accepted(&self) -> bool {
        self.told
    }

    fn may_run(&self, now: Instant) -> bool {
        if self.held_back.is_some() {
            return false;
        }
        match self.lease {
            LeaseState::Free => true,
            LeaseState::Until(until) => now < until,
            LeaseState::Waiting | LeaseState::Unknown => false,
        }
    }

    fn arm(&mut self, now: Instant) {
        self.retry_after = limits::UNIT_RETRY;
        self.retry_at = now + self.retry_after;
    }

    fn rearm(&mut self, now: Instant) {
        self.retry_after = (self.retry_after * 2).min(limits::UNIT_RETRY_MAX);
        self.retry_at = now + self.retry_after;
    }

    fn enter(&mut self, now: Now, phase: Phase) {
        debug_assert!(phase > self.row.phase, "{} -> {phase}", self.row.phase);
        self.row.phase = phase;
        self.row.since = now.wall;
    }

    fn set_healthy(&mut self, now: Now, healthy: bool) -> bool {
        let changed = self.row.healthy != healthy;
        if changed {
            self.row.healthy = healthy;
            self.row.healthy_since = now.wall;
        }
        self.well_since = if healthy { self.well_since.or(Some(now.at)) } else { None };
        changed
    }

    /// When a tick has something to do for it at the latest.
    fn due(&self) -> Option<Instant> {
        let command = match (self.row.phase, self.unit) {
            (Phase::Ended, _) => None,
            (Phase::Reserved, _) if self.held_back.is_some() && self.told => self.held_back,
            (Phase::Reserved, _) if self.lease == LeaseState::Waiting => None,
            (Phase::Stopping, unit) if unit != Unit::Absent => Some(self.retry_at),
            (_, Unit::Absent | Unit::Prepared) => Some(self.start_at),
            (_, Unit::Preparing | Unit::Asked) => Some(self.retry_at),
            (Phase::Running, _) if self.restarting.is_some() => Some(self.retry_at),
            _ => None,
        };
        let lost = self.leased_until().filter(|_| self.row.phase.is_live());
        let told = [self.moving, self.introduced].into_iter().flatten();
        let told = told.filter(|_| self.is_there()).map(|retry| retry.at());
        command.into_iter().chain(lost).chain(told).min()
    }

    /// Whether it has a unit, as far as we know, and needs one.
    fn is_there(&self) -> bool {
        matches!(self.unit, Unit::Asked | Unit::Active) && self.row.phase.holds_claim()
    }

    /// The agent reports where it runs.
    fn seen_on(&mut self, cpus: Option<&CpuSet>) {
        self.introduced = None;
        let has_moved = |moving: &Retry| match cpus {
            None => true,
            Some(cpus) if *cpus == self.confined_to => true,
            // It keeps itself to fewer. Or it has more now than it had, and the report is older than the command.
            Some(cpus) => self.confined_to.contains_all(cpus) && moving.times() > 1,
        };
        if self.moving.as_ref().is_some_and(has_moved) {
            self.moving = None;
        }
    }

    fn is_gone(&mut self) {
        self.unit = Unit::Absent;
        (self.moving, self.introduced) = (None, None);
    }

    fn command(&self) -> Output {
        Output::Stop { alloc: self.record.alloc.clone(), run: self.record.run }
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
        let mut local = fresh(now, record, row, None, Unit::Unknown, 0);
        if local.lease == LeaseState::Waiting {
            local.lease = LeaseState::Unknown;
            local.unsure = true;
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
        let local = fresh(now.at, record, row, proposer, Unit::Absent, sequence);
        if local.lease != LeaseState::Free {
            self.leased.insert(slot.clone());
        }
        self.locals.insert(slot.clone(), local);
        self.changed.insert(slot);
    }

    /// Notes what was there of the slot of an allocation that has just been written down.
    pub fn succeed(&mut self, slot: &SlotId, succession: Option<Box<Succession>>, vacant: bool) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.row.succession = succession;
            local.row.vacant = vacant;
        }
    }

    /// Tells a later copy of the slot that this one is there.
    pub fn contest(&mut self, slot: &SlotId, epoch: u64) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.row.contests = epoch;
            self.changed.insert(slot.clone());
        }
    }

    /// Tells the copy of the slot of this epoch and birth to end.
    pub fn replace(&mut self, slot: &SlotId, earlier: (u64, Birth)) {
        if let Some(local) = self.locals.get_mut(slot) {
            let succession = local.row.succession.get_or_insert_default();
            succession.replace(earlier);
            // Whom it stands in for is another question, unless it is that one.
            succession.stands_in.take_if(|known| known.epoch == earlier.0);
            self.changed.insert(slot.clone());
        }
    }

    /// Ends an allocation, gracefully. False: there is nothing to end.
    pub fn retire(&mut self, now: Now, slot: &SlotId, ending: Ending) -> bool {
        let Some(local) = self.locals.get_mut(slot) else { return false };
        if !local.row.phase.is_live() {
            return false;
        }
        local.row.ending = Some(ending);
        self.changed.insert(slot.clone());
        if local.unit == Unit::Absent {
            self.end(now, slot);
            return true;
        }
        local.enter(now, Phase::Stopping);
        local.restarting = None;
        local.set_healthy(now, false);
        local.arm(now.at);
        if local.unit != Unit::Unknown {
            self.outputs.push(local.command());
        }
        true
    }

    /// The others remember more of an allocation of ours than our disk did: its last rows were told to
    /// them and lost here. What was over stays over, and no phase is gone through twice.
    pub fn recall(&mut self, now: Now, slot: &SlotId, known: &AllocRow) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        let (mine, theirs) = ((local.row.epoch, local.row.phase), (known.epoch, known.phase));
        if !local.row.phase.is_live() || theirs <= mine {
            return;
        }
        if known.epoch > local.row.epoch {
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
            Some(local) if local.row.phase == Phase::Running && local.unit == Unit::Active => {
                local.restarting = Some(None);
                local.arm(now.at);
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
            && local.row.phase == Phase::Reserved
        {
            local.held_back = Some(until);
        }
    }

    /// The gang of an allocation is complete.
    pub fn commit(&mut self, slot: &SlotId) {
        if let Some(local) = self.locals.get_mut(slot) {
            local.held_back = None;
        }
    }

    /// The disk refused: claims that it does not hold are given back, unstarted.
    pub fn unpersisted(&mut self, now: Now) -> Vec<(NodeId, AllocId)> {
        let lost: Vec<SlotId> = self
            .locals
            .iter()
            .filter(|(_, l)| l.row.phase == Phase::Reserved && l.reserved_in > self.persisted)
            .map(|(slot, _)| slot.clone())
            .collect();
        let mut told = Vec::new();
        for slot in lost {
            if let Some(local) = self.locals.get_mut(&slot) {
                let reason = "the claim could not be written to disk".to_owned();
                // Not the slot's failure: once the disk takes writes again it is welcome here.
                local.row.ending = Some(Ending::Retired { reason });
                told.extend(local.proposer.map(|proposer| (proposer, local.record.alloc.clone())));
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
        if local.record.alloc != *alloc || local.record.run != run || !local.row.phase.holds_claim()
        {
            return;
        }
        if is_over && local.unit == Unit::Absent {
            // Said again because a start was given again: it counts once.
            return;
        }
        local.unsure = matches!(event, UnitEvent::Refused { .. });
        match event {
            UnitEvent::Prepared if local.unit == Unit::Preparing => {
                local.unit = Unit::Prepared;
                local.start_at = now.at;
            }
            UnitEvent::Prepared => {}
            UnitEvent::Running { pid, cpus, mems } => {
                let fresh = local.unit != Unit::Active;
                local.unit = Unit::Active;
                local.seen_on(cpus.as_ref());
                if fresh && cpus.as_ref() != Some(&local.confined_to) {
                    // The shared CPUs changed while it was starting: tell it once more.
                    local.confined_to = CpuSet::new();
                }
                local.row.pid = Some(pid);
                local.row.effective_cpus = cpus;
                local.row.effective_mems = mems;
                if local.row.phase < Phase::Running {
                    local.enter(now, Phase::Running);
                    local.row.ran = true;
                }
                if local.row.phase == Phase::Stopping {
                    // It was asked to stop before it was known to run.
                    local.arm(now.at);
                    self.outputs.push(local.command());
                } else if fresh {
                    local.running_since = now.at;
                    local.failed_checks = 0;
                    local.passed_a_check = false;
                    if local.record.spec.health.is_none() {
                        local.set_healthy(now, true);
                    }
                }
                self.changed.insert(alloc.slot.clone());
            }
            UnitEvent::Exited { status, killed, .. } => {
                local.is_gone();
                local.row.pid = None;
                if killed {
                    local.row.trouble = Some(format!("did not stop in time: {status}"));
                }
                self.changed.insert(alloc.slot.clone());
                match (local.row.phase, local.restarting.take()) {
                    (Phase::Stopping, _) => self.end(now, &alloc.slot),
                    (_, Some(None)) => {
                        local.set_healthy(now, false);
                        local.row.restarts += 1;
                        local.start_at = now.at;
                    }
                    (_, Some(Some(reason))) => self.fail(now, &alloc.slot, reason),
                    (_, None) => self.fail(now, &alloc.slot, status),
                }
            }
            UnitEvent::Refused { reason } => {
                local.is_gone();
                self.changed.insert(alloc.slot.clone());
                if local.row.phase == Phase::Stopping {
                    self.end(now, &alloc.slot);
                } else {
                    self.fail(now, &alloc.slot, reason);
                }
            }
            UnitEvent::PortTaken { port, by } => {
                local.is_gone();
                if local.row.phase != Phase::Stopping {
                    // Another start would find the same. The slot has not failed: it is placed again, with another port or
                    // on another node.
                    let reason = Rejection::PortUsed { port, by }.to_string();
                    local.row.trouble = Some(reason.clone());
                    local.row.ending = Some(Ending::Retired { reason });
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
                    if local.record.alloc == found.alloc && local.row.phase.holds_claim() =>
                {
                    // The last start may not have reached the disk; the unit itself knows better.
                    local.record.run = local.record.run.max(found.run);
                    if let (LeaseState::Unknown, Some(until)) = (local.lease, found.lease_until) {
                        local.lease = LeaseState::Until(until);
                    }
                    let still_healthy = local.row.healthy;
                    self.unit(now, &found.alloc, found.run, found.event);
                    if let Some(local) = self.locals.get_mut(&found.alloc.slot)
                        && local.unit == Unit::Active
                        && local.row.phase == Phase::Running
                        && local.may_run(now.at)
                    {
                        local.set_healthy(now, still_healthy || local.record.spec.health.is_none());
                        let spec = &local.record.spec;
                        let launch =
                            launch(&self.node, &self.arch, local, self.ledger.shared_cpus(), spec);
                        // Starting what is there changes nothing, but the agent learns how to check it.
                        local.introduced = Some(Retry::new(now.at, limits::UNIT_RETRY));
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
        if local.unit != Unit::Unknown {
            return;
        }
        local.is_gone();
        local.row.pid = None;
        local.set_healthy(now, false);
        self.changed.insert(slot.clone());
        if local.row.phase == Phase::Stopping {
            self.end(now, slot);
        } else if local.row.phase > Phase::Preparing {
            // A machine that was switched off is not the unit's failure: this start does not count.
            local.row.trouble = Some("the unit was gone when the agent came back".into());
            local.start_at = now.at;
        }
    }

    /// A health check was made.
    pub fn checked(&mut self, now: Now, alloc: &AllocId, run: u32, outcome: Result<(), String>) {
        let Some(local) = self.locals.get_mut(&alloc.slot) else { return };
        let current = local.record.alloc == *alloc && local.record.run == run;
        if !current || local.row.phase != Phase::Running || local.unit != Unit::Active {
            return;
        }
        let Some(health) = &local.record.spec.health else { return };
        match outcome {
            Ok(()) => {
                local.failed_checks = 0;
                local.passed_a_check = true;
                if local.set_healthy(now, true) {
                    local.row.trouble = None;
                    self.changed.insert(alloc.slot.clone());
                }
            }
            Err(reason) => {
                let in_grace = now.at.since(local.running_since) < health.grace;
                if in_grace && !local.passed_a_check {
                    return;
                }
                local.failed_checks += 1;
                if local.failed_checks >= health.failures && local.restarting.is_none() {
                    let reason = format!("health check failed: {reason}");
                    local.row.trouble = Some(reason.clone());
                    local.set_healthy(now, false);
                    local.restarting = Some(Some(reason));
                    local.arm(now.at);
                    self.outputs.push(local.command());
                    self.changed.insert(alloc.slot.clone());
                }
            }
        }
    }

    /// The unit is gone although nobody wanted that: start it again later, or give up.
    fn fail(&mut self, now: Now, slot: &SlotId, reason: String) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        let policy = &local.record.spec.restart;
        while local.restarts.front().is_some_and(|at| now.at.since(*at) > policy.within) {
            local.restarts.pop_front();
        }
        local.row.pid = None;
        if local.restarts.len() as u32 >= policy.attempts {
            local.row.trouble = Some(reason.clone());
            local.row.ending = Some(Ending::Failed { reason });
            self.end(now, slot);
            return;
        }
        let doublings = local.restarts.len().min(16) as u32;
        let delay = policy.delay.max(limits::RESTART_DELAY_MIN) * 2u32.pow(doublings);
        let delay = delay.min(limits::UNIT_RETRY_MAX);
        local.start_at = now.at + delay;
        local.restarts.push_back(now.at);
        local.row.restarts += 1;
        local.row.trouble = Some(reason);
        local.set_healthy(now, false);
        self.changed.insert(slot.clone());
    }

    fn end(&mut self, now: Now, slot: &SlotId) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        local.enter(now, Phase::Ended);
        local.set_healthy(now, false);
        local.row.pid = None;
        self.ledger.release(&local.record.alloc);
        self.changed.insert(slot.clone());
        if local.lease != LeaseState::Free {
            self.ended.push((local.record.alloc.clone(), !local.unsure));
            self.leased.remove(slot);
        }
    }

    /// A lease was granted, or renewed.
    pub fn granted(&mut self, slot: &SlotId, epoch: u64, until: Instant) {
        let Some(local) = self.locals.get_mut(slot) else { return };
        if local.record.alloc.epoch != epoch || !local.row.phase.is_live() {
            return;
        }
        match local.lease {
            LeaseState::Waiting => local.lease = LeaseState::Until(until),
            LeaseState::Until(before) if before < until => local.lease = LeaseState::Until(until),
            _ => return,
        }
        if matches!(local.unit, Unit::Asked | Unit::Active) {
            let (alloc, run) = (local.record.alloc.clone(), local.record.run);
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
        if local.record.alloc.epoch != epoch || local.lease != LeaseState::Waiting {
            return None;
        }
        let (alloc, proposer) = (local.record.alloc.clone(), local.proposer);
        self.retire(now, slot, ending);
        Some((alloc, proposer?))
    }

    /// At-most-one allocations whose claim is on disk and that wait for a lease.
    pub fn waiting_for_a_lease(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.leased().filter(|local| {
            local.lease == LeaseState::Waiting
                && local.row.phase == Phase::Reserved
                && local.reserved_in <= self.persisted
        })
    }

    /// At-most-one allocations that have not ended.
    pub fn leased(&self) -> impl Iterator<Item = &LocalAlloc> {
        self.leased.iter().filter_map(|slot| self.locals.get(slot))
    }

    /// Ends what runs without a right to: its lease has run out, or it had one in a former life only.
    fn end_without_lease(&mut self, now: Now, slot: &SlotId) {
        let Some(local) = self.locals.get(slot) else { return };
        if !local.row.phase.is_live() {
            return;
        }
        match local.lease {
            LeaseState::Until(until) if until <= now.at => {
                self.retire(now, slot, Ending::LeaseLost);
            }
            LeaseState::Unknown if local.unit != Unit::Unknown => {
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
            if self.locals.get(&slot).is_none_or(|local| local.row.phase == Phase::Ended) {
                continue;
            }
            if all_units_known {
                self.give_up_unknown(now, &slot);
            }
            self.end_without_lease(now, &slot);
            let shared = self.ledger.shared_cpus();
            let Some(local) = self.locals.get_mut(&slot) else { continue };
            match local.row.phase {
                Phase::Reserved if local.reserved_in <= self.persisted && may_start => {
                    let told =
                        local.proposer.map(|proposer| (proposer, local.record.alloc.clone()));
                    if !std::mem::replace(&mut local.told, true) {
                        self.accepted.extend(told);
                    }
                    if local.held_back.is_some_and(|until| until <= now.at) {
                        let reason = "its gang was not complete in time".to_owned();
                        self.retire(now, &slot, Ending::Retired { reason });
                        continue;
                    }
                    if local.may_run(now.at) {
                        let can_be_said = Phase::Preparing.level() <= level;
                        local.enter(
                            now,
                            if can_be_said { Phase::Preparing } else { Phase::Starting },
                        );
                        local.start_at = now.at;
                        self.changed.insert(slot.clone());
                    }
                }
                Phase::Stopping if local.unit == Unit::Absent => self.end(now, &slot),
                Phase::Stopping if local.retry_at <= now.at && local.unit != Unit::Unknown => {
                    self.outputs.push(local.command());
                    local.rearm(now.at);
                }
                Phase::Running if local.restarting.is_some() && local.retry_at <= now.at => {
                    self.outputs.push(local.command());
                    local.rearm(now.at);
                }
                _ => {}
            }
            let Some(local) = self.locals.get_mut(&slot) else { continue };
            if local.is_there() && local.row.claim.cpus.is_empty() {
                let moves = local.confined_to != shared;
                if moves {
                    local.confined_to = shared.clone();
                    local.moving = Some(Retry::new(now.at, limits::CONFINE_RETRY));
                }
                if moves || local.moving.as_mut().is_some_and(|retry| retry.is_due(now.at)) {
                    let (alloc, run) = (local.record.alloc.clone(), local.record.run);
                    self.outputs.push(Output::Confine { alloc, run, cpus: shared.clone() });
                }
            }
            if !local.row.phase.is_live() || local.row.phase == Phase::Reserved {
                continue;
            }
            match local.unit {
                Unit::Absent if local.start_at <= now.at && may_start && local.may_run(now.at) => {
                    local.record.run += 1;
                    local.unit = Unit::Preparing;
                    local.arm(now.at);
                    let launch = launch(&self.node, &self.arch, local, shared, &local.record.spec);
                    self.outputs.push(Output::Prepare(Box::new(launch)));
                    self.changed.insert(slot.clone());
                }
                Unit::Preparing if local.retry_at <= now.at => {
                    local.rearm(now.at);
                    let launch = launch(&self.node, &self.arch, local, shared, &local.record.spec);
                    self.outputs.push(Output::Prepare(Box::new(launch)));
                }
                Unit::Prepared if may_start && local.may_run(now.at) => {
                    if local.row.phase == Phase::Preparing {
                        local.enter(now, Phase::Starting);
                        self.changed.insert(slot.clone());
                    }
                    local.unit = Unit::Asked;
                    local.arm(now.at);
                    (local.confined_to, local.moving) = (shared.clone(), None);
                    let launch = launch(&self.node, &self.arch, local, shared, &local.record.spec);
                    self.outputs.push(Output::Start(Box::new(launch)));
                }
                Unit::Asked if local.retry_at <= now.at => {
                    local.rearm(now.at);
                    (local.confined_to, local.moving) = (shared.clone(), None);
                    let launch = launch(&self.node, &self.arch, local, shared, &local.record.spec);
                    self.outputs.push(Output::Start(Box::new(launch)));
                }
                Unit::Active
                    if local.introduced.as_mut().is_some_and(|retry| retry.is_due(now.at)) =>
                {
                    let launch = launch(&self.node, &self.arch, local, shared, &local.record.spec);
                    self.outputs.push(Output::Start(Box::new(launch)));
                }
                _ => {}
            }
        }
        self.locals.looked_at();
        // Shared units leave an exclusive core before its new owner starts on it.
        self.outputs.sort_by_key(|output| !matches!(output, Output::Confine { .. }));
    }

    /// When [`Supervisor::tick`] has something to do at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.locals.next_deadline().into_iter().chain(self.strays.next_deadline()).min()
    }

    fn slots(&self) -> BTreeSet<SlotId> {
        let live = |(slot, local): (&SlotId, &LocalAlloc)| {
            (local.row.phase != Phase::Ended).then(|| slot.clone())
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
        if self.locals.get(slot).is_some_and(|local| local.row.phase == Phase::Ended) {
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
        self.locals.values().filter(|local| local.row.phase.holds_claim()).count()
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

fn fresh(
    now: Instant,
    record: Record,
    row: AllocRow,
    proposer: Option<NodeId>,
    unit: Unit,
    reserved_in: u64,
) -> LocalAlloc {
    let waits = record.spec.guarantee == Guarantee::AtMostOne;
    LocalAlloc {
        lease: if waits { LeaseState::Waiting } else { LeaseState::Free },
        unsure: false,
        // A reservation of a former life is not known to be committed.
        held_back: (record.spec.gang && row.phase == Phase::Reserved)
            .then(|| now + limits::GANG_HOLD),
        record,
        row,
        proposer,
        reserved_in,
        told: false,
        unit,
        restarts: VecDeque::new(),
        start_at: now,
        restarting: None,
        failed_checks: 0,
        passed_a_check: false,
        running_since: now,
        well_since: None,
        retry_at: now + limits::UNIT_RETRY,
        retry_after: limits::UNIT_RETRY,
        confined_to: CpuSet::new(),
        moving: None,
        introduced: None,
    }
}

fn launch(node: &str, arch: &str, local: &LocalAlloc, shared: CpuSet, spec: &JobSpec) -> Launch {
    let claim = local.row.claim.clone();
    let cpus = if claim.cpus.is_empty() { shared } else { claim.cpus.clone() };
    let values =
        Placeholders { alloc: &local.record.alloc, node, cpus: &cpus, ports: &claim.ports };
    // A validated spec has no placeholder that cannot be filled; one that came from a newer agent
    // may, and then the command's own error is clearer than no start at all.
    let task = spec.task.on_arch(arch);
    let task = task.substitute(&values).unwrap_or_else(|_| task.clone().into_owned());
    let health = spec
        .health
        .as_ref()
        .map(|health| health.substitute(&values).unwrap_or_else(|_| health.clone()));
    Launch {
        alloc: local.record.alloc.clone(),
        run: local.record.run,
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
