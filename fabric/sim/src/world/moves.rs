//! What units do by themselves, and what their guards do to them.

use fabric::id::AllocId;
use fabric::io::{Input, UnitEvent};
use fabric::limits;
use rand::RngExt;
use std::time::Duration;

use super::{Event, World};
use crate::invariants;
use crate::units::{Behaviour, Guarded, NextStep, UnitState};

impl World {
    pub(super) fn unit(&mut self, node: usize, step: NextStep) {
        let heard = self.nodes[node].agent.is_some();
        let Some((run, event, next)) = self.nodes[node].units.step(&step, self.time, heard) else {
            return;
        };
        if let Some(next) = next {
            self.push(next.after, Event::Unit { node, step: next });
        }
        let ended = !matches!(event, UnitEvent::Prepared | UnitEvent::Running { .. });
        self.unit_says(node, step.alloc.clone(), run, event);
        if ended {
            self.start_what_waited(node, &step.alloc);
        }
    }

    pub(super) fn unit_says(&mut self, node: usize, alloc: AllocId, run: u32, event: UnitEvent) {
        self.book.progress(node, &alloc);
        if let (UnitEvent::Exited { .. }, Some(agent)) = (&event, &mut self.nodes[node].agent) {
            agent.checks.remove(&alloc);
        }
        self.book.unit(self.time, node, &alloc, &event);
        if event == UnitEvent::Prepared {
            return self.pass_on(node, alloc, run, event);
        }
        self.tell(|world| {
            let name = &world.nodes[node].name;
            match &event {
                UnitEvent::Prepared => String::new(),
                UnitEvent::Running { .. } => format!("{alloc} runs on {name}"),
                UnitEvent::Exited { status, .. } => format!("{alloc} ended on {name}: {status}"),
                UnitEvent::Refused { reason } => format!("{alloc} refused on {name}: {reason}"),
                UnitEvent::PortTaken { port, by } => {
                    format!("{alloc} not started on {name}: {by} listens on its port {port}")
                }
            }
        });
        self.pass_on(node, alloc, run, event);
    }

    /// The agent hears what the unit manager says.
    pub(super) fn pass_on(&mut self, node: usize, alloc: AllocId, run: u32, event: UnitEvent) {
        if self.nodes[node].agent.is_some() {
            let after = Duration::from_micros(self.random.random_range(50..2000));
            self.pass_on_after(node, after, alloc, run, event);
        }
    }

    /// The same, that long after it was said.
    pub(super) fn pass_on_after(
        &mut self,
        node: usize,
        after: Duration,
        alloc: AllocId,
        run: u32,
        event: UnitEvent,
    ) {
        self.nodes[node].units.said(&alloc, run, &event);
        let (life, input) = (self.life(node), Box::new(Input::Unit { alloc, run, event }));
        self.push(after, Event::Input { node, life, input });
    }

    pub(super) fn check(&mut self, node: usize, life: u64, alloc: AllocId, run: u32) {
        if !self.lives(node, life) {
            return;
        }
        let unit = self.nodes[node].units.units.get(&alloc).filter(|unit| unit.launch.run == run);
        let Some(unit) = unit else { return };
        let Some(health) = &unit.launch.health else { return };
        let (interval, running) = (health.interval, unit.state == UnitState::Running);
        let failed = Behaviour::of(&unit.launch.task).unhealthy;
        let outcome = if failed { Err("connection refused".into()) } else { Ok(()) };
        self.push(interval, Event::Check { node, life, alloc: alloc.clone(), run });
        if running {
            self.feed(node, Input::Checked { alloc, run, outcome });
        }
    }

    /// From now on the machine does nothing until `until`, agent and units alike, as when somebody stops a
    /// virtual machine. Its clocks go on.
    pub fn freeze(&mut self, node: usize, until: Duration) {
        let frozen = &mut self.nodes[node];
        frozen.frozen_until = frozen.frozen_until.max(until);
        frozen.paused_until = frozen.paused_until.max(until);
        let after = frozen.frozen_until + limits::LEASE_SLACK - self.time;
        self.tell(|world| {
            let lasting = world.nodes[node].frozen_until - world.time;
            format!("{} stands still for {lasting:?}", world.nodes[node].name)
        });
        self.push(after, Event::Thawed);
    }

    /// Sees to it that the guard of a unit looks at its clock when it has something to do.
    pub(super) fn watch(&mut self, node: usize, alloc: &AllocId) {
        let Some((life, at)) = self.nodes[node].units.guard_due(alloc) else { return };
        let due = self.nodes[node].clock.when(at, self.time);
        self.push(due - self.time, Event::Guard { node, alloc: alloc.clone(), life });
    }

    /// Only for tests that start a unit past the agent.
    #[cfg(test)]
    pub(crate) fn guard_from_now_on(&mut self, node: usize, alloc: &AllocId) {
        self.watch(node, alloc);
    }

    /// A clock changed: what guards wait for comes sooner or later.
    pub(super) fn watch_all(&mut self, node: usize) {
        let units = self.nodes[node].units.there();
        let guarded = units.filter(|(_, unit)| unit.guard.is_some());
        for alloc in guarded.map(|(alloc, _)| alloc.clone()).collect::<Vec<_>>() {
            self.watch(node, &alloc);
        }
    }

    /// A guard looks at its clock. It needs nobody's agent for that.
    pub(super) fn guard(&mut self, node: usize, alloc: &AllocId, life: u64) {
        let at = self.nodes[node].clock.read(self.time).at;
        let heard = self.nodes[node].agent.is_some();
        match self.nodes[node].units.guard(alloc, life, at, self.time, heard) {
            Guarded::Nothing => {}
            Guarded::Waits => self.watch(node, alloc),
            Guarded::Asked(step) => {
                self.tell(|world| {
                    format!("the guard of {alloc} on {} asks it to stop", world.nodes[node].name)
                });
                self.book.progress(node, alloc);
                if let Some(step) = step {
                    self.push(step.after, Event::Unit { node, step });
                }
                self.watch(node, alloc);
            }
            Guarded::Killed(run, event) => {
                self.unit_says(node, alloc.clone(), run, event);
                self.start_what_waited(node, alloc);
            }
        }
    }

    /// A run that waited for an earlier one begins, unless its lease has run out by now.
    pub(super) fn start_what_waited(&mut self, node: usize, alloc: &AllocId) {
        let at = self.nodes[node].clock.read(self.time).at;
        if let Some((run, started)) = self.nodes[node].units.start_waiting(alloc, at, self.time) {
            self.unit_started(node, alloc, run, started);
        }
    }

    /// After a freeze the guards have had their moment.
    pub(super) fn thawed(&mut self) {
        invariants::leases::observe(self);
    }
}
