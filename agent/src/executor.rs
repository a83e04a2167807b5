//! Runs units: by systemd where it is PID 1, as plain processes otherwise.
//!
//! Nothing here waits for a unit: every call returns at once, and what happens comes back as
//! `(allocation, run, event)` over the channel that the executor was opened with. One task of the
//! runtime looks after each unit, one more rotates the output of all.
//!
//! Starting a run that is there changes nothing; its last event is said again. Stopping a run that
//! is not there says that it is gone.
//!
//! A unit with a lease is started only once the guard ([`crate::guard`]) watches it, and refused otherwise.

use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::id::{AllocId, SlotId};
use fabric::io::{Launch, UnitEvent, UnitFound};
use fabric::topology::Enforced;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::guard::{self, Leases};
use crate::process;

mod bus;
pub mod direct;
mod exclusive;
pub mod exec;
mod helper_process;
mod mount_points;
pub mod output;
mod properties;
pub(crate) mod record;
mod sandbox;
mod spawn;
pub mod systemd;
mod unit_table;

#[cfg(test)]
mod on_systemd;
#[cfg(test)]
pub mod tests;

pub use exclusive::others;
pub use helper_process::Started;
pub use output::{Channel, LogQuery, LogStream};
pub use record::ENDED_OF_JOB_MAX;
use systemd::Unusable;
pub use unit_table::Events;

/// Which executor the owner of the machine wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// systemd where it is PID 1 and lets us start units, plain processes otherwise.
    #[default]
    Auto,
    /// systemd, or none at all.
    Systemd,
    /// Plain processes.
    Direct,
}

/// What runs the units of this node. Clones are the same one.
#[derive(Clone, Debug)]
pub enum Executor {
    /// Transient units of systemd.
    Systemd(systemd::Systemd),
    /// Plain processes.
    Direct(direct::Direct),
}

/// An executor and why it was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which.
    pub executor: Executor,
    /// Why that one, in words.
    pub reason: String,
}

impl Executor {
    /// Chooses by what the machine has. Records and output are kept under `state`; `events` should
    /// hold a few hundred.
    pub async fn choose(
        preference: Preference,
        state: &Path,
        clock: Clock,
        events: Events,
    ) -> io::Result<Choice> {
        let leases = Leases::open(guard::folder_of(&std::path::absolute(state)?), clock);
        let reason = match preference {
            Preference::Direct => "the configuration says so".to_owned(),
            Preference::Auto | Preference::Systemd => {
                match systemd::Systemd::open(state, leases.clone(), events.clone()).await {
                    Ok(systemd) => {
                        let reason = format!("systemd {} is PID 1", systemd.version());
                        return Ok(Choice { executor: Executor::Systemd(systemd), reason });
                    }
                    Err(reason) if preference == Preference::Systemd => {
                        return Err(io::Error::other(format!("executor = \"systemd\": {reason}")));
                    }
                    // Its units may run: processes beside them would be a second copy of the work.
                    Err(Unusable::Now(reason)) => {
                        let advice = "see systemctl status, or set executor = \"direct\"";
                        return Err(io::Error::other(format!("{reason}: {advice}")));
                    }
                    Err(Unusable::Here(reason)) => reason,
                }
            }
        };
        let executor = Executor::Direct(direct::Direct::open(state, leases, events)?);
        Ok(Choice { executor, reason })
    }

    /// `systemd` or `direct`.
    pub fn name(&self) -> &'static str {
        match self {
            Executor::Systemd(_) => "systemd",
            Executor::Direct(_) => "direct",
        }
    }

    /// Whether the processes of a unit are held together by a cgroup, which nothing escapes.
    pub fn has_cgroups(&self) -> bool {
        match self {
            Executor::Systemd(_) => true,
            Executor::Direct(direct) => direct.has_cgroups(),
        }
    }

    /// The folder in which each unit has its cgroup, if there are cgroups.
    pub async fn units_folder(&self) -> Option<PathBuf> {
        match self {
            Executor::Systemd(systemd) => systemd.units_folder().await,
            Executor::Direct(direct) => direct.units_folder(),
        }
    }

    /// Whether this machine is about to be switched off, as far as systemd says.
    pub async fn is_shutting_down(&self) -> bool {
        match self {
            Executor::Systemd(systemd) => systemd.is_shutting_down().await,
            Executor::Direct(_) => false,
        }
    }

    /// Keeps these CPUs, which jobs have for themselves, free of everything else on this machine. Where systemd does not run
    /// the units, or has no cpusets, nothing is done.
    pub async fn keep_free(&self, cpus: &CpuSet) -> io::Result<()> {
        match self {
            Executor::Systemd(systemd) => systemd.keep_free(cpus).await,
            Executor::Direct(_) => Ok(()),
        }
    }

    /// CPUs that the agent keeps itself off.
    pub fn kept_free(&self) -> CpuSet {
        match self {
            Executor::Systemd(systemd) => systemd.kept_free(),
            Executor::Direct(_) => CpuSet::new(),
        }
    }

    /// The limits that hold for units here. Measured, not assumed.
    pub fn enforced(&self) -> Enforced {
        match self {
            Executor::Systemd(systemd) => systemd.enforced(),
            Executor::Direct(direct) => direct.enforced(),
        }
    }

    /// Starts a unit. Like [`Executor::stop`] and [`Executor::confine`] it waits for nothing, not
    /// even for room in the channel of events; call them within the runtime.
    pub async fn start(&self, launch: Launch) {
        if let Some(lease) = launch.lease {
            // Said twice of a run that is there, it may know more than the first time.
            self.extend(&launch.alloc, launch.run, lease.until);
        }
        match self {
            Executor::Systemd(systemd) => systemd.start(launch),
            Executor::Direct(direct) => direct.start(launch),
        }
    }

    /// Makes ready what a unit needs before it is started; nothing for a run that was started before. The error says in words
    /// what is missing.
    pub async fn prepare(&self, launch: Launch) -> Result<(), String> {
        if self.knows(&launch.alloc, launch.run) {
            return Ok(());
        }
        let store = self.store().clone();
        // Of systemd's units, systemd knows whether there is their user.
        let starts_it = matches!(self, Executor::Direct(_));
        let prepared = output::blocking(move || {
            let user = launch.task.user.as_deref().filter(|_| starts_it);
            let user = user.map(spawn::Identity::of).transpose();
            Ok(user.and_then(|_| {
                let said = |error| format!("its files cannot be written: {error}");
                store.prepare(&launch).map_err(said)
            }))
        });
        prepared.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Removes what was prepared for a unit that is not to be started any more.
    pub async fn unprepare(&self, alloc: &AllocId) {
        let (store, alloc) = (self.store().clone(), alloc.clone());
        let _ = output::blocking(move || {
            store.unprepare(&alloc);
            Ok(())
        })
        .await;
    }

    /// Whether this run of a unit, or a later one, was started before: then [`Executor::start`] starts nothing.
    pub fn knows(&self, alloc: &AllocId, run: u32) -> bool {
        match self {
            Executor::Systemd(systemd) => systemd.knows(alloc, run),
            Executor::Direct(direct) => direct.knows(alloc, run),
        }
    }

    /// Ends a unit: its stop signal to every process of it, and after its stop timeout, kill.
    pub async fn stop(&self, alloc: &AllocId, run: u32) {
        match self {
            Executor::Systemd(systemd) => systemd.stop(alloc, run),
            Executor::Direct(direct) => direct.stop(alloc, run),
        }
    }

    /// Moves a running unit to other CPUs. [`UnitEvent::Running`] comes again and says where it is.
    pub fn confine(&self, alloc: &AllocId, run: u32, cpus: CpuSet) {
        match self {
            Executor::Systemd(systemd) => systemd.confine(alloc, run, cpus),
            Executor::Direct(direct) => direct.confine(alloc, run, cpus),
        }
    }

    /// The lease of a unit was renewed: the guard may wait until then.
    pub fn extend(&self, alloc: &AllocId, run: u32, until: Instant) {
        match self {
            Executor::Systemd(systemd) => systemd.extend(alloc, run, until),
            Executor::Direct(_) => self.leases().extend(alloc, run, until),
        }
    }

    /// The leases of its units.
    pub fn leases(&self) -> &Leases {
        match self {
            Executor::Systemd(systemd) => systemd.leases(),
            Executor::Direct(direct) => direct.leases(),
        }
    }

    /// Finds the units that the agent before left, running or ended. Call it once, before anything
    /// is started.
    pub async fn adopt(&self) -> io::Result<Vec<UnitFound>> {
        match self {
            Executor::Systemd(systemd) => systemd.adopt().await,
            Executor::Direct(direct) => direct.adopt().await,
        }
    }

    /// What an allocation printed. The error is `NotFound` when it never ran here, or so long ago
    /// that its output is gone.
    pub async fn logs(&self, alloc: &AllocId, query: LogQuery) -> io::Result<LogStream> {
        output::read(self.store().folder(alloc), query).await
    }

    /// Allocations of a slot whose output is still here, those that began last first.
    pub async fn kept_logs(&self, slot: &SlotId) -> Vec<AllocId> {
        let (store, slot) = (self.store().clone(), slot.clone());
        output::blocking(move || Ok(store.of_slot(&slot))).await.unwrap_or_default()
    }

    /// How a unit was started, from its record: what a health check of an adopted unit needs.
    pub async fn launch_of(&self, alloc: &AllocId) -> Option<Launch> {
        let (store, alloc) = (self.store().clone(), alloc.clone());
        output::blocking(move || store.read(&alloc)).await.ok().map(|record| record.launch)
    }

    fn store(&self) -> &record::Store {
        match self {
            Executor::Systemd(systemd) => systemd.store(),
            Executor::Direct(direct) => direct.store(),
        }
    }
}

/// What a task finds in its environment; its own variables win, except over `WEFT_*`.
pub fn environment(launch: &Launch) -> BTreeMap<String, String> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut all = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    all.extend(launch.task.env.clone());
    let AllocId { slot, epoch, .. } = &launch.alloc;
    let ours = [
        ("WEFT_JOB", slot.job.to_string()),
        ("WEFT_SLOT", slot.index.to_string()),
        ("WEFT_EPOCH", epoch.to_string()),
        ("WEFT_RUN", launch.run.to_string()),
        ("WEFT_NODE", launch.node.clone()),
        ("WEFT_CPUS", launch.cpus.to_string()),
        ("WEFT_UNIT", launch.alloc.unit()),
    ];
    all.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    if !launch.claim.devices.is_empty() {
        // In the order that the job asks for them.
        all.insert("WEFT_DEVICES".into(), launch.claim.devices.join(" "));
    }
    all.extend(launch.claim.ports.iter().map(|(name, port)| {
        let name = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        (format!("WEFT_PORT_{name}"), port.to_string())
    }));
    all
}

/// A pin that did not take is a failed start. A task may have narrowed itself already; it may never
/// be wider than its claim.
fn check_pins(launch: &Launch, event: &UnitEvent) -> Result<(), String> {
    let UnitEvent::Running { cpus, mems, .. } = event else { return Ok(()) };
    let check = |what: &str, wanted: &CpuSet, has: &Option<CpuSet>| match has {
        Some(has) if !wanted.is_empty() && !wanted.contains_all(has) => {
            Err(format!("the pin did not take: {what} {wanted} wanted, it has {has}"))
        }
        _ => Ok(()),
    };
    check("CPUs", &launch.cpus, cpus)?;
    check("memory nodes", &launch.claim.mems, mems)
}

/// How a unit ended whose lease the guard saw running out: not by itself, whatever it says.
fn fired(event: UnitEvent, fired: Option<guard::Fired>) -> UnitEvent {
    match (event, fired) {
        (UnitEvent::Exited { status, killed, .. }, Some(fired)) => UnitEvent::Exited {
            status: format!("its lease ran out: {status}"),
            success: false,
            killed: killed || fired.killed.is_some(),
        },
        (event, _) => event,
    }
}

/// That it runs, with what the kernel really gave it.
fn running_event(pid: u32) -> UnitEvent {
    let status = process::status(pid);
    let mems = status.as_ref().map(|status| process::memory_nodes(pid, &status.mems));
    UnitEvent::Running { pid, cpus: status.map(|status| status.cpus), mems }
}

/// A unit that nobody knows any more.
fn gone() -> UnitEvent {
    UnitEvent::Exited { status: "gone".into(), success: false, killed: false }
}

/// The signal that asks a task to end; the job file's check lets only real ones through.
fn signal(name: &str) -> Signal {
    name.parse().unwrap_or(Signal::SIGTERM)
}
