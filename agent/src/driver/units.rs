//! Carries out what the core decides about units, in order, beside the loop: the executor may have to
//! wait until the loop takes an event.

use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent};
use tokio::sync::mpsc;

use crate::executor::{Events, Executor};
use crate::listeners::Listeners;

/// Commands on their way. What finds no place is dropped: the core gives each command again until it sees that it has
/// worked, but for an extended lease, of which the next renewal says more.
pub(super) const COMMANDS_MAX: usize = 1024;

/// One thing to do about a unit.
#[derive(Debug)]
pub(super) enum UnitCommand {
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
pub(super) async fn carry_out(
    executor: Executor,
    listeners: Listeners,
    events: Events,
    mut commands: mpsc::Receiver<UnitCommand>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            UnitCommand::Start(launch) => match in_its_way(&executor, &listeners, &launch).await {
                Some(taken) => {
                    // An error means that the loop is gone.
                    let _ = events.send((launch.alloc, launch.run, taken)).await;
                }
                None => executor.start(*launch).await,
            },
            UnitCommand::Stop { alloc, run } => executor.stop(&alloc, run).await,
            UnitCommand::Confine { alloc, run, cpus } => executor.confine(&alloc, run, cpus),
            UnitCommand::Extend { alloc, run, until } => executor.extend(&alloc, run, until),
        }
    }
}

/// Whoever listens on a port of a unit that is about to start.
async fn in_its_way(
    executor: &Executor,
    listeners: &Listeners,
    launch: &Launch,
) -> Option<UnitEvent> {
    let ports = &launch.claim.ports;
    if ports.is_empty() || executor.knows(&launch.alloc, launch.run) {
        return None;
    }
    let (listeners, ports) = (listeners.clone(), ports.clone());
    let looking = tokio::task::spawn_blocking(move || listeners.in_the_way(&ports));
    let (port, by) = looking.await.ok().flatten()?;
    Some(UnitEvent::PortTaken { port, by })
}
