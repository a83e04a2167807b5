//! One allocation of this node: what was given to it, its unit, its lease and its health.

use std::collections::VecDeque;
use std::time::Duration;

use super::Record;
use super::repeat::Retry;
use crate::alloc::{AllocRow, Phase};
use crate::clock::{Instant, Now};
use crate::cpuset::CpuSet;
use crate::id::{AllocId, NodeId};
use crate::io::Output;
use crate::job::{Guarantee, JobSpec};
use crate::limits;

/// One allocation of this node.
#[derive(Debug)]
pub struct LocalAlloc {
    pub(super) alloc: Allocation,
    pub(super) unit: UnitRun,
    pub(super) lease: Lease,
    pub(super) health: Health,
}

/// What was given to a slot, and what others are told of it.
#[derive(Debug)]
pub(super) struct Allocation {
    pub record: Record,
    pub row: AllocRow,
    /// Who proposed it; `None` after a restart, and for a system job.
    pub proposer: Option<NodeId>,
    /// The write to disk that makes the claim durable.
    pub reserved_in: u64,
    /// The proposer was told.
    pub told: bool,
    /// A slot of a gang that is not complete: it ends then.
    pub held_back: Option<Instant>,
}

/// Its unit: what is known of it, and what it was told.
#[derive(Debug)]
pub(super) struct UnitRun {
    pub state: Unit,
    /// Restarts within the policy's window.
    pub restarts: VecDeque<Instant>,
    pub start_at: Instant,
    /// It is being stopped in order to be started again; `Some(why)` counts as a failure.
    pub restarting: Option<Option<String>>,
    pub running_since: Instant,
    /// When the last command is given again.
    pub retry_at: Instant,
    pub retry_after: Duration,
    pub confined_to: CpuSet,
    /// It was told to move there, and was not seen there yet.
    pub moving: Option<Retry>,
    /// The agent was told how to check it, and has not reported it since.
    pub introduced: Option<Retry>,
}

/// What we believe of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
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

/// Its right to run.
#[derive(Debug)]
pub(super) struct Lease {
    pub state: LeaseState,
    /// The unit manager did not say for sure that the unit is gone.
    pub unsure: bool,
}

/// What an allocation knows of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// It needs none.
    Free,
    /// It needs one.
    Waiting,
    /// It had one in a former life of the agent, perhaps.
    Unknown,
    /// It has one until then.
    Until(Instant),
}

/// What its checks say.
#[derive(Debug)]
pub(super) struct Health {
    /// In a row.
    pub failed_checks: u32,
    /// In this run.
    pub passed_a_check: bool,
    /// Since when it is healthy, on this node's clock and in this life of its agent.
    pub well_since: Option<Instant>,
}

impl LocalAlloc {
    pub(super) fn new(
        now: Instant,
        record: Record,
        row: AllocRow,
        proposer: Option<NodeId>,
        unit: Unit,
        reserved_in: u64,
    ) -> Self {
        let waits = record.spec.guarantee == Guarantee::AtMostOne;
        // A reservation of a former life is not known to be committed.
        let held_back = record.spec.gang && row.phase == Phase::Reserved;
        let held_back = held_back.then(|| now + limits::GANG_HOLD);
        let state = if waits { LeaseState::Waiting } else { LeaseState::Free };
        Self {
            alloc: Allocation { record, row, proposer, reserved_in, told: false, held_back },
            unit: UnitRun {
                state: unit,
                restarts: VecDeque::new(),
                start_at: now,
                restarting: None,
                running_since: now,
                retry_at: now + limits::UNIT_RETRY,
                retry_after: limits::UNIT_RETRY,
                confined_to: CpuSet::new(),
                moving: None,
                introduced: None,
            },
            lease: Lease { state, unsure: false },
            health: Health { failed_checks: 0, passed_a_check: false, well_since: None },
        }
    }

    /// Slot and epoch.
    pub fn id(&self) -> &AllocId {
        &self.alloc.record.alloc
    }

    /// What it runs.
    pub fn spec(&self) -> &JobSpec {
        &self.alloc.record.spec
    }

    /// What others are told.
    pub fn row(&self) -> &AllocRow {
        &self.alloc.row
    }

    /// Who proposed it, as long as that is remembered.
    pub fn proposer(&self) -> Option<NodeId> {
        self.alloc.proposer
    }

    /// What is kept on disk beside the row.
    pub fn record(&self) -> &Record {
        &self.alloc.record
    }

    /// Whether it runs under a lease only, and how long a stop may take.
    pub fn needs_lease(&self) -> Option<Duration> {
        (self.lease.state != LeaseState::Free).then_some(self.spec().task.stop_timeout)
    }

    /// Until when it may run, if it has a lease.
    pub fn leased_until(&self) -> Option<Instant> {
        self.lease.until()
    }

    /// For how long it is known to be healthy.
    pub fn healthy_for(&self, now: Instant) -> Option<Duration> {
        self.health.well_since.map(|since| now.since(since))
    }

    /// Whether its proposer was told that the claim is on disk.
    pub fn was_accepted(&self) -> bool {
        self.alloc.told
    }

    pub(super) fn may_run(&self, now: Instant) -> bool {
        self.alloc.held_back.is_none() && self.lease.allows(now)
    }

    pub(super) fn enter(&mut self, now: Now, phase: Phase) {
        let row = &mut self.alloc.row;
        debug_assert!(phase > row.phase, "{} -> {phase}", row.phase);
        row.phase = phase;
        row.since = now.wall;
    }

    pub(super) fn set_healthy(&mut self, now: Now, healthy: bool) -> bool {
        let (row, health) = (&mut self.alloc.row, &mut self.health);
        let changed = row.healthy != healthy;
        if changed {
            row.healthy = healthy;
            row.healthy_since = now.wall;
        }
        health.well_since = if healthy { health.well_since.or(Some(now.at)) } else { None };
        changed
    }

    /// When a tick has something to do for it at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let (alloc, unit) = (&self.alloc, &self.unit);
        let command = match (alloc.row.phase, unit.state) {
            (Phase::Ended, _) => None,
            (Phase::Reserved, _) if alloc.held_back.is_some() && alloc.told => alloc.held_back,
            (Phase::Reserved, _) if self.lease.state == LeaseState::Waiting => None,
            (Phase::Stopping, state) if state != Unit::Absent => Some(unit.retry_at),
            (_, Unit::Absent | Unit::Prepared) => Some(unit.start_at),
            (_, Unit::Preparing | Unit::Asked) => Some(unit.retry_at),
            (Phase::Running, _) if unit.restarting.is_some() => Some(unit.retry_at),
            _ => None,
        };
        let lost = self.lease.until().filter(|_| alloc.row.phase.is_live());
        let told = [unit.moving, unit.introduced].into_iter().flatten();
        let told = told.filter(|_| self.is_there()).map(|retry| retry.at());
        command.into_iter().chain(lost).chain(told).min()
    }

    /// Whether it has a unit, as far as we know, and needs one.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.unit.state, Unit::Asked | Unit::Active) && self.alloc.row.phase.holds_claim()
    }

    /// Stops the unit.
    pub(super) fn command(&self) -> Output {
        let record = self.record();
        Output::Stop { alloc: record.alloc.clone(), run: record.run }
    }
}

impl UnitRun {
    /// A command was given for the first time.
    pub fn arm(&mut self, now: Instant) {
        self.retry_after = limits::UNIT_RETRY;
        self.retry_at = now + self.retry_after;
    }

    /// It was given again.
    pub fn rearm(&mut self, now: Instant) {
        self.retry_after = (self.retry_after * 2).min(limits::UNIT_RETRY_MAX);
        self.retry_at = now + self.retry_after;
    }

    /// The agent reports where it runs.
    pub fn seen_on(&mut self, cpus: Option<&CpuSet>) {
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

    pub fn is_gone(&mut self) {
        self.state = Unit::Absent;
        (self.moving, self.introduced) = (None, None);
    }
}

impl Lease {
    fn until(&self) -> Option<Instant> {
        match self.state {
            LeaseState::Until(until) => Some(until),
            _ => None,
        }
    }

    fn allows(&self, now: Instant) -> bool {
        match self.state {
            LeaseState::Free => true,
            LeaseState::Until(until) => now < until,
            LeaseState::Waiting | LeaseState::Unknown => false,
        }
    }
}
