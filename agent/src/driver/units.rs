//! Carries out what the core decides about units, in order, beside the loop: the executor may have to
//! wait until the loop takes an event.

use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::Launch;
use tokio::sync::mpsc;

use crate::executor::Executor;

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
pub(super) async fn carry_out(executor: Executor, mut commands: mpsc::Receiver<UnitCommand>) {
    while let Some(command) = commands.recv().await {
        match command {
            UnitCommand::Start(launch) => executor.start(*launch).await,
            UnitCommand::Stop { alloc, run } => executor.stop(&alloc, run).await,
            UnitCommand::Confine { alloc, run, cpus } => executor.confine(&alloc, run, cpus),
            UnitCommand::Extend { alloc, run, until } => executor.extend(&alloc, run, until),
        }
    }
}
