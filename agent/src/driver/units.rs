//! Carries out what the core decides about units, in order, beside the loop: the executor may have to
//! wait until the loop takes an event. Preparations take their time beside all others.

use anyhow::Context;
use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent, UnitFound};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

use super::checks::Checks;
use crate::clock::Clock;
use crate::config::Config;
use crate::executor::{Events, Executor};
use crate::health::Checker;
use crate::helpers::Helpers;
use crate::listeners::Listeners;

/// Commands on their way. What finds no place is dropped: the core gives each command again until it sees that it has
/// worked, but for an extended lease, of which the next renewal says more.
const COMMANDS_MAX: usize = 1024;
/// Events of units that wait for the loop; the executor waits for a place.
const UNIT_EVENTS_MAX: usize = 512;

/// Units of this machine, and who looks after them.
///
/// Invariants: a command that changes a unit goes through `commands`, in order, and `checks` hears of it first. What `adopted` holds
/// runs, and no core knows of it.
pub(super) struct Work {
    pub(super) executor: Executor,
    /// What it starts besides units.
    pub(super) helpers: Helpers,
    /// Why this one.
    pub(super) reason: String,
    pub(super) commands: mpsc::Sender<UnitCommand>,
    pub(super) checks: Checks,
    /// Units of the agent before, until a core takes them.
    pub(super) adopted: Option<Vec<UnitFound>>,
}

/// What comes of the start beside it.
pub(super) struct WorkFound {
    /// The folder of cgroups that units have theirs in.
    pub(super) folder: Option<PathBuf>,
    pub(super) listeners: Listeners,
    /// What runs of the agent before.
    pub(super) running: Vec<Launch>,
    pub(super) events: mpsc::Receiver<(AllocId, u32, UnitEvent)>,
    pub(super) checked: mpsc::Receiver<(AllocId, u32, Result<(), String>)>,
}

impl Work {
    /// Chooses an executor, and looks after what the agent before has left running.
    ///
    /// # Errors
    /// When no executor works here.
    pub(super) async fn start(config: &Config, clock: Clock) -> anyhow::Result<(Self, WorkFound)> {
        let (events, received) = mpsc::channel(UNIT_EVENTS_MAX);
        let choice = Executor::choose(config.executor.kind, &config.state, clock, events.clone())
            .await
            .context("no executor works here")?;
        let (executor, reason) = (choice.executor, choice.reason);
        let adopted = executor.adopt().await.context("cannot look for units that run")?;
        let folder = executor.units_folder().await;
        let listeners = Listeners::new(folder.clone());
        let (outcomes, checked) = mpsc::channel(UNIT_EVENTS_MAX);
        let mut checks = Checks::new(Checker::new(outcomes, listeners.clone()));
        let mut running = Vec::new();
        for found in &adopted {
            if matches!(found.event, UnitEvent::Running { .. })
                && let Some(launch) = executor.launch_of(&found.alloc).await
            {
                checks.launched(&launch);
                checks.event(&found.alloc, found.run, &found.event);
                running.push(launch);
            }
        }
        let (commands, given) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(carry_out(executor.clone(), listeners.clone(), events, given));
        let helpers = Helpers::new(executor.clone());
        let work = Self { executor, helpers, reason, commands, checks, adopted: Some(adopted) };
        Ok((work, WorkFound { folder, listeners, running, events: received, checked }))
    }
}

/// One thing to do about a unit.
#[derive(Debug)]
pub(super) enum UnitCommand {
    /// Make ready what it needs.
    Prepare(Box<Launch>),
    /// Start it.
    Start(Box<Launch>),
    /// End it.
    Stop {
        /// Which.
        alloc: AllocId,
        /// Of which run.
        run: u32,
    },
    /// Move it to other CPUs.
    Confine {
        /// Which.
        alloc: AllocId,
        /// Of which run.
        run: u32,
        /// Where to.
        cpus: CpuSet,
    },
    /// Its lease was renewed.
    Extend {
        /// Which.
        alloc: AllocId,
        /// Of which run.
        run: u32,
        /// Until when it may run.
        until: Instant,
    },
}

/// Carries out commands until the loop is gone.
async fn carry_out(
    executor: Executor,
    listeners: Listeners,
    events: Events,
    mut commands: mpsc::Receiver<UnitCommand>,
) {
    let preparations = Preparations { executor, listeners, events, under_way: Arc::default() };
    let executor = &preparations.executor;
    while let Some(command) = commands.recv().await {
        match command {
            UnitCommand::Prepare(launch) => preparations.begin(*launch),
            UnitCommand::Start(launch) => executor.start(*launch).await,
            UnitCommand::Stop { alloc, run } => {
                let is_prepared = !executor.knows(&alloc, run);
                executor.stop(&alloc, run).await;
                if is_prepared && !preparations.stop(&alloc, run) {
                    executor.unprepare(&alloc).await;
                }
            }
            UnitCommand::Confine { alloc, run, cpus } => executor.confine(&alloc, run, cpus),
            UnitCommand::Extend { alloc, run, until } => executor.extend(&alloc, run, until),
        }
    }
}

/// Preparations: beside each other and beside everything else, since what a unit needs may take long to come. Clones are the
/// same ones.
#[derive(Clone)]
struct Preparations {
    executor: Executor,
    listeners: Listeners,
    events: Events,
    /// Of which run, and whether it is still wanted.
    under_way: Arc<Mutex<BTreeMap<AllocId, (u32, bool)>>>,
}

impl Preparations {
    /// Begins one, unless it is under way.
    fn begin(&self, launch: Launch) {
        let (alloc, run) = (launch.alloc.clone(), launch.run);
        match self.lock().get_mut(&alloc) {
            Some((known, wanted)) if *known == run => return *wanted = true,
            // Of an earlier run: it ends, and this one is asked for again.
            Some(_) => return,
            None => {}
        }
        self.lock().insert(alloc.clone(), (run, true));
        let preparations = self.clone();
        tokio::spawn(async move {
            let event = preparations.prepare(launch).await;
            if event != UnitEvent::Prepared {
                // Another attempt makes it anew, and there may be none: nobody else would remove it.
                preparations.executor.unprepare(&alloc).await;
            }
            let wanted = preparations.lock().remove(&alloc).is_some_and(|(_, wanted)| wanted);
            if wanted {
                // An error means that the loop is gone.
                let _ = preparations.events.send((alloc, run, event)).await;
            } else {
                preparations.executor.unprepare(&alloc).await;
            }
        });
    }

    /// What a preparation under way makes is removed as soon as it has ended. False: none is.
    fn stop(&self, alloc: &AllocId, run: u32) -> bool {
        match self.lock().get_mut(alloc) {
            Some((known, wanted)) if *known == run => {
                *wanted = false;
                true
            }
            _ => false,
        }
    }

    async fn prepare(&self, launch: Launch) -> UnitEvent {
        if let Some(taken) = self.in_its_way(&launch).await {
            return taken;
        }
        match self.executor.prepare(launch).await {
            Ok(()) => UnitEvent::Prepared,
            Err(reason) => UnitEvent::Refused { reason },
        }
    }

    /// Whoever listens on a port of a unit that is about to start.
    async fn in_its_way(&self, launch: &Launch) -> Option<UnitEvent> {
        let ports = &launch.claim.ports;
        if ports.is_empty() || self.executor.knows(&launch.alloc, launch.run) {
            return None;
        }
        let (listeners, ports) = (self.listeners.clone(), ports.clone());
        let looking = tokio::task::spawn_blocking(move || listeners.in_the_way(&ports));
        let (port, by) = looking.await.ok().flatten()?;
        Some(UnitEvent::PortTaken { port, by })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AllocId, (u32, bool)>> {
        // Nothing panics while holding it.
        self.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
