//! Starts weft-helper in a cgroup of its own: as a transient service of systemd, or as a child of the agent.
//!
//! What it may do it gives up itself, the same way here and there (`helper::confine`). Its memory, its tasks and its time are bounded
//! from outside, and under systemd it sees no more of the machine's files than it reads.

use helper::order::Verb;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};

use super::bus::Bus;
use super::direct::Direct;
use super::output::blocking;
use super::properties;
use super::systemd::Systemd;
use super::{Executor, properties::OfHelper};
use crate::{cgroup, program};

/// The program, beside this one.
const PROGRAM: &str = "weft-helper";
/// Tasks that it may have: it has one thread.
pub(super) const TASKS_MAX: u64 = 8;
/// It ends by itself when nobody listens to it any more; after this it is ended.
const GOES_WITHIN: Duration = Duration::from_secs(2);
/// Attempts to remove its cgroup, and the time between two.
const REMOVALS_MAX: u32 = 50;
const REMOVAL_PERIOD: Duration = Duration::from_millis(20);
/// Numbers those that this agent starts.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// A helper that was started. It ends when this is dropped, or before.
#[derive(Debug)]
pub struct Started {
    name: String,
    runs: Option<Runs>,
}

#[derive(Debug)]
enum Runs {
    Unit(Bus),
    Child(Child, Option<PathBuf>),
}

impl Started {
    /// What it is called: in the journal, or by its number.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let (name, Some(runs)) = (self.name.clone(), self.runs.take()) else { return };
        // Without a runtime the agent ends, and with it its end of the socket.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            match runs {
                Runs::Unit(bus) => {
                    tokio::time::sleep(GOES_WITHIN).await;
                    // Refused when it has ended and is forgotten, as it should be.
                    let _ = bus.stop(&name).await;
                }
                Runs::Child(mut child, cgroup) => {
                    if tokio::time::timeout(GOES_WITHIN, child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    remove(cgroup).await;
                }
            }
        });
    }
}

impl Executor {
    /// Starts a helper with this socket as its standard input.
    pub async fn start_helper(&self, verb: &Verb, socket: OwnedFd) -> io::Result<Started> {
        let program = helper();
        if !program.is_file() {
            let what = format!("{} is missing: it belongs beside weftd", program.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        match self {
            Executor::Systemd(systemd) => systemd.start_helper(program, verb, socket, number).await,
            Executor::Direct(direct) => direct.start_helper(program, verb, socket, number).await,
        }
    }
}

impl Systemd {
    async fn start_helper(
        &self,
        program: PathBuf,
        verb: &Verb,
        socket: OwnedFd,
        number: u64,
    ) -> io::Result<Started> {
        // Another agent of this machine counts its own.
        let name = format!("weft-helper-{}-{}-{number}.service", verb.name(), std::process::id());
        let of = OfHelper { program, verb, socket };
        let properties = properties::of_helper(of).map_err(io::Error::other)?;
        let mut jobs = self.bus().jobs(&name);
        let started = async {
            let job = self.bus().start_transient(&name, properties).await?;
            Ok::<_, zbus::Error>(jobs.outcome(&job).await)
        };
        match started.await.map_err(io::Error::other)?.as_deref() {
            Some("done") => Ok(Started { name, runs: Some(Runs::Unit(self.bus().clone())) }),
            outcome => {
                let outcome = outcome.unwrap_or("lost");
                Err(io::Error::other(format!("{name}: {outcome}: its journal says why")))
            }
        }
    }
}

impl Direct {
    async fn start_helper(
        &self,
        program: PathBuf,
        verb: &Verb,
        socket: OwnedFd,
        number: u64,
    ) -> io::Result<Started> {
        let place = self.units_folder().map(|folder| folder.join(format!("helper-{number}")));
        let memory = verb.memory();
        let cgroup = blocking(move || Ok(place.and_then(|place| bounded(place, memory)))).await?;
        let shown = program.clone();
        let child = Command::new(program)
            .stdin(socket)
            .stdout(Stdio::null())
            .env_clear()
            .current_dir("/")
            .kill_on_drop(true)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                remove(cgroup).await;
                let what = format!("{}: {error}", shown.display());
                return Err(io::Error::new(error.kind(), what));
            }
        };
        let name = format!("helper process {}", child.id().unwrap_or(0));
        // It does nothing before it has its order.
        if let (Some(cgroup), Some(pid)) = (&cgroup, child.id()) {
            std::fs::write(cgroup.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(Started { name, runs: Some(Runs::Child(child, cgroup)) })
    }
}

/// Removes a helper's cgroup, which is busy for a moment after its last process.
async fn remove(cgroup: Option<PathBuf>) {
    let Some(cgroup) = cgroup else { return };
    for _ in 0..REMOVALS_MAX {
        let path = cgroup.clone();
        if blocking(move || cgroup::remove(&path)).await.is_ok() {
            return;
        }
        tokio::time::sleep(REMOVAL_PERIOD).await;
    }
}

/// A cgroup with bounds, as far as there are such; `None`: there is none for it.
fn bounded(place: PathBuf, memory: u64) -> Option<PathBuf> {
    std::fs::create_dir_all(&place).ok()?;
    for (file, value) in [
        ("memory.max", memory.to_string()),
        ("memory.swap.max", "0".into()),
        ("pids.max", TASKS_MAX.to_string()),
    ] {
        // Without a controller there is no file.
        let _ = std::fs::write(place.join(file), value);
    }
    Some(place)
}

fn helper() -> PathBuf {
    program::weftd().with_file_name(PROGRAM)
}
