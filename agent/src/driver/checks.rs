//! Which units are asked whether they work: those that run and whose job has a check.

use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent};
use std::collections::BTreeMap;

use crate::health::Checker;

/// Invariant: holds a launch for each unit with a check from its start until its end.
pub(super) struct Checks {
    checker: Checker,
    launches: BTreeMap<AllocId, Launch>,
}

impl Checks {
    /// Checks nothing yet.
    pub(super) fn new(checker: Checker) -> Self {
        Self { checker, launches: BTreeMap::new() }
    }

    /// A unit is about to start, or was found running.
    pub(super) fn launched(&mut self, launch: &Launch) {
        if launch.health.is_some() {
            self.launches.insert(launch.alloc.clone(), launch.clone());
        }
    }

    /// A unit is asked to end: whether it still works is of no interest.
    pub(super) fn stopping(&mut self, alloc: &AllocId, run: u32) {
        self.checker.stop(alloc, run);
        if self.launches.get(alloc).is_some_and(|launch| launch.run <= run) {
            self.launches.remove(alloc);
        }
    }

    /// A unit did something.
    pub(super) fn event(&mut self, alloc: &AllocId, run: u32, event: &UnitEvent) {
        match event {
            UnitEvent::Prepared => {}
            UnitEvent::Running { pid, .. } => {
                if let Some(launch) = self.launches.get(alloc).filter(|launch| launch.run == run) {
                    self.checker.start(launch, *pid);
                }
            }
            UnitEvent::Exited { .. } | UnitEvent::Refused { .. } | UnitEvent::PortTaken { .. } => {
                self.stopping(alloc, run)
            }
        }
    }
}
