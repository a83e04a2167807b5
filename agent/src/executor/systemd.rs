//! Runs units as transient services of systemd.
//!
//! A unit is `weft-<job>-<slot>-<epoch>-<birth>.service` in `weft.slice`. systemd is the memory: the units and
//! their environment say which allocation and which run they are, so that the next agent adopts them
//! without files of its own (those hold the output, and the launch for health checks). What systemd executes
//! is `weftd exec`, which becomes the task ([`super::exec`]): its words are the one thing that systemd has from us.
//!
//! Who is in systemd's list is never said to have ended because systemd did not answer: it is asked again, and an
//! agent that gets no answer at its start ends, to be started again.
//!
//! A unit stays loaded until its result was read: `RemainAfterExit` keeps one that ended well, failed
//! ones stay by themselves, and a reference holds one that was stopped.

use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent, UnitFound};
use fabric::topology::Enforced;
use futures_util::StreamExt;
use nix::libc;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zbus::MessageStream;

use super::bus::{Bus, State};
use super::exclusive::Exclusive;
use super::exec::{self, Words};
use super::mount_points::View;
use super::output::{Channel, blocking};
use super::properties::{self, Surroundings};
use super::record::{Record, Store};
use super::running_event;
use super::spawn;
use super::unit_table::{Command, Events, UnitTask, Units};
use crate::guard::{self, LeaseOf, Leases, Reach};
use crate::process::{self, ExitStatus, Members};

/// The oldest systemd that has every property that is required (`append:` over D-Bus).
const VERSION_MIN: u32 = 246;
/// A start that takes longer has failed. Longer than systemd's own timeout for it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// At the agent's start, systemd may be busy starting everything else. Less than its own patience with the agent (90 s).
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Units that run are adopted within this, or the agent ends. Half of what systemd gives it to start.
const ADOPTS_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 45 });
/// A task that has not been executed after this, in a sandbox that is ready, hangs.
const EXECUTED_WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks whether it was; doubled each time.
const EXECUTED_PERIOD: Duration = Duration::from_millis(1);
const EXECUTED_PERIOD_MAX: Duration = Duration::from_millis(50);
/// Wait before systemd is asked again after the bus was lost.
const RECONNECT_PERIOD: Duration = Duration::from_secs(1);

/// The executor for machines with systemd. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Systemd {
    bus: Bus,
    units: Units,
    store: Store,
    agent: Arc<str>,
    boot: Arc<str>,
    enforced: Enforced,
    version: Arc<str>,
    leases: Leases,
    words: exec::Folder,
    exclusive: Exclusive,
}

/// Why systemd cannot be used, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// This machine has none that would start our units.
    Here(String),
    /// It has one, which may hold units of ours, and something is the matter with it.
    Now(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Unusable::Here(why) | Unusable::Now(why)) = self;
        f.write_str(why)
    }
}

impl Systemd {
    /// Connects to systemd.
    pub async fn open(state: &Path, leases: Leases, events: Events) -> Result<Self, Unusable> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(Unusable::Here("systemd is not PID 1".into()));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Unusable::Here("systemd starts system units only for root".into()));
        }
        let bus = Bus::new(None);
        let version = version(&bus, ANSWERS_WITHIN).await?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
        let major: u32 = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        if major < VERSION_MIN {
            return Err(Unusable::Here(format!("systemd {version} is older than {VERSION_MIN}")));
        }
        Self::on(bus, version, state, leases, events)
            .map_err(|error| Unusable::Now(format!("{}: {error}", state.display())))
    }

    /// The executor on the systemd behind a bus.
    pub fn on(
        bus: Bus,
        version: String,
        state: &Path,
        leases: Leases,
        events: Events,
    ) -> io::Result<Self> {
        let store = Store::open(state, View::Machine)?;
        let state = std::path::absolute(state)?;
        Ok(Self {
            bus,
            units: Units::new(events),
            store,
            agent: format!("{:016x}", crate::hash::fnv1a(state.as_os_str().as_encoded_bytes()))
                .into(),
            boot: process::boot_id().into(),
            enforced: enforced(),
            version: version.into(),
            words: exec::Folder::new(leases.folder().path()),
            leases,
            exclusive: Exclusive::default(),
        })
    }

    /// systemd's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Services of the machine that are loaded, by name, and the state of each: `active`, `failed` and so on.
    pub async fn services(&self) -> zbus::Result<Vec<(String, String)>> {
        self.bus.list("*.service").await
    }

    /// The bus that systemd is reached by.
    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Starts a unit that is not one of its own.
    pub async fn begin(&self, unit: &str) -> zbus::Result<()> {
        self.bus.begin(unit).await
    }

    /// The limits that hold for its units.
    pub fn enforced(&self) -> Enforced {
        self.enforced
    }

    /// See [`Executor::keep_free`](super::Executor::keep_free).
    pub async fn keep_free(&self, cpus: &CpuSet) -> io::Result<()> {
        match self.enforced.cpuset {
            true => self.exclusive.keep(&self.bus, cpus).await,
            false => Ok(()),
        }
    }

    /// CPUs that the agent keeps itself off.
    pub fn kept_free(&self) -> CpuSet {
        self.exclusive.cpus()
    }

    /// Where records and output are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The leases of its units.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Starts a unit, unless this run of it is there.
    pub fn start(&self, launch: Launch) {
        if let Some(mut unit_task) = self.units.take(&launch.alloc, launch.run) {
            let systemd = self.clone();
            tokio::spawn(async move {
                unit_task.wait_for_earlier_run().await;
                let _rotated = systemd.store.rotated(&unit_task.alloc);
                match systemd.launch(&launch).await {
                    Ok((changes, state)) => {
                        systemd.keep(launch, changes, state, unit_task, true).await
                    }
                    Err(reason) => {
                        systemd.remove_words(&launch.alloc.unit()).await;
                        // Its lease, if it has one, stays: the guard ends what may be left of it.
                        let event = UnitEvent::Refused { reason };
                        systemd.write_end(&launch, event.clone()).await;
                        unit_task.end(event).await;
                    }
                }
            });
        }
    }

    /// Whether another start of this run starts nothing.
    pub fn knows(&self, alloc: &AllocId, run: u32) -> bool {
        self.units.knows(alloc, run)
    }

    /// Ends a unit. One that nobody knows is reported as gone, if it is.
    pub fn stop(&self, alloc: &AllocId, run: u32) {
        if self.units.command(alloc, run, Command::Stop) || self.leases.still_runs(alloc, run) {
            return;
        }
        if let Some(event) = self.units.last(alloc, run) {
            return self.units.say_at_once(alloc, run, event);
        }
        let (systemd, alloc) = (self.clone(), alloc.clone());
        tokio::spawn(async move {
            // Only systemd can say that it is gone. While it says nothing, neither do we: a stop is asked for again.
            let unit = alloc.unit();
            let runs = async {
                let has = systemd.run_of(&unit).await?;
                Ok::<_, zbus::Error>(has == Some(run) && !systemd.bus.state(&unit).await?.is_over())
            };
            match runs.await {
                Ok(false) => systemd.units.say_at_once(&alloc, run, super::gone()),
                Ok(true) => {
                    tracing::warn!(unit, "a unit that nobody looks after is stopped");
                    let _ = systemd.bus.stop(&unit).await;
                }
                Err(error) => {
                    tracing::warn!(unit, %error, "systemd does not say whether a unit runs")
                }
            }
        });
    }

    /// Which run of ours a unit is by its properties.
    async fn run_of(&self, unit: &str) -> zbus::Result<Option<u32>> {
        let environment = self.bus.environment(unit).await?;
        let ours = variable(&environment, "WEFT_AGENT") == Some(&*self.agent);
        Ok(variable(&environment, "WEFT_RUN").and_then(|run| run.parse().ok()).filter(|_| ours))
    }

    /// The lease of a unit was renewed: the guard may wait until then, and whoever starts the unit by hand may do so
    /// until then. The guard first: nothing is executed that it would not end.
    pub fn extend(&self, alloc: &AllocId, run: u32, until: fabric::clock::Instant) {
        self.leases.extend(alloc, run, until);
        if let Some(until) = self.leases.until_boot_time(alloc, run)
            && let Err(error) = self.words.extend(&alloc.unit(), run, until)
        {
            tracing::warn!(%alloc, %error, "the words of a unit keep their time");
        }
    }

    /// Moves a unit to these CPUs, and reports where it then is.
    pub fn confine(&self, alloc: &AllocId, run: u32, cpus: CpuSet) {
        self.units.command(alloc, run, Command::Confine(cpus));
    }

    /// Finds the units of the agent before, and keeps those that still run.
    pub async fn adopt(&self) -> io::Result<Vec<UnitFound>> {
        let mut found = Vec::new();
        self.leases.adopt();
        self.leases.end_other_version();
        if self.leases.any()
            && let Err(error) = self.ensure_guard().await
        {
            tracing::error!(%error, "the guard cannot be started");
        }
        self.adopt_listed(&mut found).await?;
        // Units that systemd does not have any more.
        let store = self.store.clone();
        for record in blocking(move || store.all()).await? {
            let (alloc, run) = (record.launch.alloc.clone(), record.launch.run);
            if found.iter().any(|one: &UnitFound| one.alloc == alloc) {
                continue;
            }
            if record.boot != *self.boot {
                // The machine went down under it: that is not an exit, there is simply no unit.
                if record.ended.is_none() {
                    self.finish(&record.launch, &super::gone()).await;
                }
                continue;
            }
            let Some(unit_task) = self.units.take(&alloc, run) else { continue };
            let event = record.ended.clone().unwrap_or_else(|| {
                let status = "exited while the agent was away".into();
                let event = UnitEvent::Exited { status, success: false, killed: false };
                super::fired(event, self.leases.fired(&record.launch))
            });
            if record.ended.is_none() {
                self.finish(&record.launch, &event).await;
            }
            unit_task.close(&event);
            found.push(UnitFound { alloc, run, event, lease_until: None });
        }
        let kept = self.units.with_tasks();
        self.leases.forget_others(&kept);
        let kept: BTreeSet<String> = kept.iter().map(AllocId::unit).collect();
        let (store, running) = (self.store.clone(), kept.clone());
        blocking(move || {
            store.release_mount_points(&running);
            Ok(())
        })
        .await?;
        for unit in self.words.units().into_iter().filter(|unit| !kept.contains(unit)) {
            self.remove_words(&unit).await;
        }
        Ok(found)
    }

    /// Adopts every unit of ours that systemd lists. One of which it does not tell all is asked about again while it is in
    /// the list, and then it is an error.
    async fn adopt_listed(&self, found: &mut Vec<UnitFound>) -> io::Result<()> {
        let mut settled = BTreeSet::new();
        let mut last = None;
        let adopting = async {
            loop {
                let mut trouble = None;
                let listed = self.bus.list("weft-*.service").await.unwrap_or_else(|error| {
                    trouble = Some(format!("systemd does not list its units: {error}"));
                    Vec::new()
                });
                for (unit, _) in listed {
                    let Some(alloc) = AllocId::from_unit(&unit) else { continue };
                    if settled.contains(&unit) {
                        continue;
                    }
                    match self.adopt_one(&alloc, &unit).await {
                        Ok(one) => {
                            found.extend(one);
                            settled.insert(unit);
                        }
                        Err(error) => trouble = Some(format!("{unit} cannot be adopted: {error}")),
                    }
                }
                let Some(reason) = trouble else { return };
                tracing::warn!("{reason}: asking again");
                last = Some(reason);
                tokio::time::sleep(RECONNECT_PERIOD).await;
            }
        };
        let done = tokio::time::timeout(ADOPTS_WITHIN, adopting).await;
        done.map_err(|_| io::Error::other(last.unwrap_or_else(|| "systemd does not answer".into())))
    }

    async fn adopt_one(&self, alloc: &AllocId, unit: &str) -> zbus::Result<Option<UnitFound>> {
        let environment = self.bus.environment(unit).await?;
        let store = self.store.clone();
        let id = alloc.clone();
        let record = match blocking(move || store.read(&id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Not read is not gone: it is asked for again.
                return Err(zbus::Error::InputOutput(Arc::new(error)));
            }
            read => read.ok(),
        };
        let by_record = || {
            // Its file was taken away, and systemd has read all files again: it runs, and says nothing of itself.
            let record = record.as_ref()?;
            (record.boot == *self.boot && record.ended.is_none()).then_some(record.launch.run)
        };
        let run = match variable(&environment, "WEFT_AGENT") {
            Some(agent) if agent != &*self.agent => None,
            Some(_) => variable(&environment, "WEFT_RUN").and_then(|run| run.parse().ok()),
            None => by_record(),
        };
        let Some(run) = run else { return Ok(None) };
        self.bus.hold(unit).await?;
        let changes = self.bus.changes(unit).await?;
        let state = self.bus.state(unit).await?;
        let Some(unit_task) = self.units.take(alloc, run) else { return Ok(None) };
        let launch = record.map(|record| record.launch).filter(|launch| launch.run == run);
        let lease_until = self.leases.until(alloc, run);
        let ended = || {
            let fired = launch.as_ref().and_then(|launch| self.leases.fired(launch));
            super::fired(self.ended(alloc, &state, false), fired)
        };
        let event = if state.is_over() {
            let event = ended();
            self.bus.forget(unit).await;
            if let Some(launch) = &launch {
                self.finish(launch, &event).await;
            }
            unit_task.close(&event);
            event
        } else if state.sub == "exited" {
            // It ended well, and was kept for us. What it left behind goes in the background.
            let event = ended();
            if let Some(launch) = &launch {
                self.write_end(launch, event.clone()).await;
            }
            unit_task.close(&event);
            let (systemd, unit) = (self.clone(), unit.to_owned());
            tokio::spawn(async move {
                if let Err(error) = systemd.clear(&unit).await {
                    tracing::warn!(unit, %error, "a unit that has ended cannot be removed");
                }
            });
            event
        } else {
            let event = running_event(state.pid);
            unit_task.note(&event);
            let systemd = self.clone();
            let launch = launch.unwrap_or_else(|| bare_launch(alloc, run));
            let rotated = self.store.rotated(alloc);
            tokio::spawn(async move {
                systemd.keep(launch, changes, state, unit_task, false).await;
                drop(rotated);
            });
            event
        };
        Ok(Some(UnitFound { alloc: alloc.clone(), run, event, lease_until }))
    }

    /// Starts the unit and waits until it was executed or refused.
    async fn launch(&self, launch: &Launch) -> Result<(MessageStream, State), String> {
        let unit = launch.alloc.unit();
        let around = self.surroundings(launch).await?;
        let on_bus = |error: zbus::Error| format!("systemd: {error}");
        let cgroup = match LeaseOf::of(launch) {
            Some(lease) => {
                let (below, path) = self.cgroup_of(&unit).await?;
                let reach = Reach::Cgroup(path);
                self.leases.arm(&lease, reach, || self.ensure_guard()).await?;
                Some(below)
            }
            None => None,
        };
        let changes = self.bus.changes(&unit).await.map_err(on_bus)?;
        let mut jobs = self.bus.jobs(&unit);
        self.write_words(launch).await?;
        let job = match self.bus.start_transient(&unit, properties::of(launch, &around)?).await {
            Err(error) if error.to_string().contains("already") || is_there(&error) => {
                // From an earlier run, whose end this agent did not see.
                self.clear(&unit).await.map_err(on_bus)?;
                self.bus.start_transient(&unit, properties::of(launch, &around)?).await
            }
            started => started,
        };
        let started = match job {
            Ok(job) => self.started(launch, &around, &mut jobs, &job, cgroup.as_deref()).await,
            // It has read what we want, and does not do it.
            Err(error) if is_refused(&error) => return Err(on_bus(error)),
            Err(error) => Err(on_bus(error)),
        };
        match started {
            Ok(state) => {
                if !launch
                    .task
                    .files
                    .iter()
                    .all(|file| properties::is_read_back(Path::new(&file.path)))
                {
                    // Started again after a reload, it would find its files elsewhere: then rather nothing.
                    self.remove_words(&unit).await;
                }
                Ok((changes, state))
            }
            Err(reason) => {
                self.end_for_sure(&unit).await;
                Err(reason)
            }
        }
    }

    /// What became of a start that systemd has taken on.
    async fn started(
        &self,
        launch: &Launch,
        around: &Surroundings,
        jobs: &mut super::bus::Jobs,
        job: &zbus::OwnedObjectPath,
        cgroup: Option<&str>,
    ) -> Result<State, String> {
        let unit = launch.alloc.unit();
        let on_bus = |error: zbus::Error| format!("systemd: {error}");
        let outcome = tokio::time::timeout(START_TIMEOUT, jobs.outcome(job)).await;
        let mut state = self.bus.state(&unit).await.map_err(on_bus)?;
        if let Some(wanted) = cgroup {
            let has = self.bus.cgroup(&unit).await.map_err(on_bus)?;
            // Empty: it is over already.
            if !has.is_empty() && has != wanted {
                return Err(format!(
                    "the guard cannot reach it: its cgroup is {has}, and not {wanted}"
                ));
            }
        }
        let is_done = match &outcome {
            Ok(Some(outcome)) => outcome == "done",
            // The bus was lost meanwhile: the state says what became of it.
            Ok(None) => state.active == "active",
            Err(_) => return Err("systemd did not start it in time".into()),
        };
        if is_done {
            state = self.executed(&unit, around, state).await?;
        }
        if state.code == libc::CLD_EXITED {
            let why_not = (state.status == exec::FAILED)
                .then(|| exec::reason(&Channel::Stderr.path(&around.folder), around.said));
            if let Some(reason) = why_not.flatten() {
                return Err(reason);
            }
            if let (false, Some(reason)) = (is_done, properties::exec_failure(state.status, launch))
            {
                return Err(reason);
            }
        }
        match outcome {
            // It was executed, and may have ended before systemd took note of that.
            _ if is_done || state.code != 0 => Ok(state),
            Ok(Some(outcome)) if state.result != "success" && !state.result.is_empty() => {
                Err(format!("systemd says {outcome}: {}", state.result))
            }
            Ok(Some(outcome)) => Err(format!("systemd says {outcome}")),
            _ => Err("systemd did not start it".into()),
        }
    }

    /// Waits until what systemd has executed has become the task, or has ended. systemd itself cannot tell.
    async fn executed(
        &self,
        unit: &str,
        around: &Surroundings,
        mut state: State,
    ) -> Result<State, String> {
        let mut in_its_sandbox = around.command.clone();
        in_its_sandbox[0] = properties::PROGRAM_HERE.into();
        let ours = [around.command.clone(), in_its_sandbox];
        let mut period = EXECUTED_PERIOD;
        let waiting = async {
            while state.pid > 0 && state.code == 0 && !state.is_over() {
                let there =
                    process::start_time(state.pid).is_some() && !process::is_zombie(state.pid);
                if exec::is_a_task(state.pid, &ours) {
                    break;
                }
                tokio::time::sleep(period).await;
                period = (period * 2).min(EXECUTED_PERIOD_MAX);
                if !there {
                    // How it ended, systemd knows in a moment.
                    state =
                        self.bus.state(unit).await.map_err(|error| format!("systemd: {error}"))?;
                }
            }
            Ok(state)
        };
        let waited = tokio::time::timeout(EXECUTED_WITHIN, waiting).await;
        waited.unwrap_or_else(|_| Err("it was not executed in time".into()))
    }

    /// Sees to it that nothing runs of a unit whose start has failed, however long it takes systemd to say so.
    async fn end_for_sure(&self, unit: &str) {
        self.remove_words(unit).await;
        loop {
            // Refused when there is no such unit: its state tells.
            let _ = self.bus.kill(unit, libc::SIGKILL).await;
            let _ = self.bus.stop(unit).await;
            match self.bus.state(unit).await {
                Ok(state) if state.is_over() => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(unit, %error, "systemd does not say what became of a start");
                }
            }
            tokio::time::sleep(RECONNECT_PERIOD).await;
        }
        self.bus.forget(unit).await;
    }

    /// Writes what the unit becomes once it is executed.
    async fn write_words(&self, launch: &Launch) -> Result<(), String> {
        let mut environment = super::environment(launch);
        environment.insert("WEFT_AGENT".into(), self.agent.to_string());
        let until = launch.lease.map(|lease| self.leases.end_of(&lease));
        let mems = match process::memory_policy_works() {
            true => launch.claim.mems.clone(),
            false => CpuSet::new(),
        };
        let command = launch.task.command.clone();
        let words = Words::new(launch.run, until, command, environment, mems);
        let (folder, unit) = (self.words.clone(), launch.alloc.unit());
        let written = blocking(move || folder.write(&unit, &words)).await;
        written.map_err(|error| format!("its words cannot be written: {error}"))
    }

    /// Nobody starts it by hand any more.
    async fn remove_words(&self, unit: &str) {
        let (folder, name) = (self.words.clone(), unit.to_owned());
        if let Err(error) = blocking(move || folder.remove(&name)).await {
            tracing::warn!(unit, %error, "the words of a unit stay");
        }
    }

    /// Whether this machine is about to be switched off.
    pub async fn is_shutting_down(&self) -> bool {
        self.bus.system_state().await.is_ok_and(|state| state == "stopping")
    }

    /// The folder in which each unit has its cgroup.
    pub async fn units_folder(&self) -> Option<PathBuf> {
        let top = self.bus.top_cgroup().await.ok()?;
        Some(crate::cgroup::mount()?.join(top.trim_start_matches('/')).join("weft.slice"))
    }

    /// The cgroup that systemd gives a unit: below the mount, and as a path.
    async fn cgroup_of(&self, unit: &str) -> Result<(String, PathBuf), String> {
        let top = self.bus.top_cgroup().await.map_err(|error| format!("systemd: {error}"))?;
        let below = format!("{}/weft.slice/{unit}", top.trim_end_matches('/'));
        let mount = crate::cgroup::mount().ok_or("the guard cannot reach it: no cgroups here")?;
        let path = mount.join(below.trim_start_matches('/'));
        Ok((below, path))
    }

    /// Has systemd start the guard, and start it again whenever it dies.
    async fn ensure_guard(&self) -> Result<(), String> {
        let unit = format!("weft-guard-{}.service", self.agent);
        let text = |text: std::ffi::OsString| {
            text.into_string().map_err(|text| format!("{} is not UTF-8", text.display()))
        };
        let (command, environment) = guard::command(self.leases.folder().path());
        let command = command.into_iter().map(text).collect::<Result<_, _>>()?;
        let environment = environment
            .into_iter()
            .map(|(name, value)| Ok(format!("{name}={}", text(value)?)))
            .collect::<Result<_, String>>()?;
        let properties = properties::of_guard(command, environment)?;
        match self.bus.start_transient(&unit, properties).await {
            Ok(_) => Ok(()),
            // It runs, or is being started again.
            Err(error) if is_there(&error) || error.to_string().contains("already") => Ok(()),
            Err(error) => Err(format!("systemd: {error}")),
        }
    }

    /// Writes what systemd and the next agent need on disk.
    async fn surroundings(&self, launch: &Launch) -> Result<Surroundings, String> {
        let systemd = self.clone();
        let launch = launch.clone();
        let prepared = blocking(move || {
            let folder = systemd.store.folder(&launch.alloc);
            let record = Record {
                boot: systemd.boot.to_string(),
                process: None,
                user: None,
                ended: None,
                launch,
            };
            systemd.store.write(&record)?;
            let files = systemd.store.files(&record.launch)?;
            for channel in Channel::ALL {
                spawn::open_append(&channel.path(&folder))?;
            }
            let command = exec::command().map_err(io::Error::other)?;
            let points =
                properties::mount_points(&record.launch.task, &files, Path::new(&command[0]));
            systemd.store.claim_mount_points(&record.launch.alloc, &points)?;
            Ok(Surroundings {
                words: systemd.words.path(&record.launch.alloc.unit()),
                said: std::fs::metadata(Channel::Stderr.path(&folder))?.len(),
                folder,
                files,
                agent: systemd.agent.to_string(),
                enforced: systemd.enforced,
                command,
            })
        });
        prepared.await.map_err(|error| format!("its files cannot be written: {error}"))
    }

    /// Removes a unit of the same name.
    async fn clear(&self, unit: &str) -> zbus::Result<()> {
        let mut changes = self.bus.changes(unit).await?;
        let _ = self.bus.stop(unit).await;
        let gone = async {
            while !self.bus.state(unit).await?.is_over() {
                changes.next().await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(START_TIMEOUT, gone).await;
        self.bus.forget(unit).await;
        waited.unwrap_or_else(|_| Err(zbus::Error::Failure("an earlier run does not end".into())))
    }

    /// Looks after a unit until it is gone.
    async fn keep(
        &self,
        launch: Launch,
        mut changes: MessageStream,
        mut state: State,
        mut unit_task: UnitTask,
        fresh: bool,
    ) {
        let unit = launch.alloc.unit();
        let mut stopping = false;
        let mut refused = None;
        if fresh && state.pid > 0 && !state.is_over() {
            let event = running_event(state.pid);
            match super::check_pins(&launch, &event) {
                // It may have ended between the two looks: then there is nothing to compare.
                Err(reason) if process::start_time(state.pid).is_some() => {
                    refused = Some(reason);
                    let _ = self.bus.kill(&unit, libc::SIGKILL).await;
                }
                _ => unit_task.tell(event).await,
            }
        }
        let mut cleaning = false;
        // systemd has not answered: it is asked again.
        let (mut look, mut unheard) = (false, false);
        loop {
            if state.is_over() {
                // Whoever starts it by hand from here on finds no words. Somebody may have done so before.
                self.remove_words(&unit).await;
                let again = self.state_for_sure(&unit).await;
                if again.is_over() {
                    break;
                }
                tracing::warn!(unit, "a unit was started by hand while it ended: it is stopped");
                (state, unheard) = (again, self.bus.stop(&unit).await.is_err());
                continue;
            }
            // Ended well, and kept by `RemainAfterExit`: what it left behind goes too.
            if state.active == "active" && state.sub == "exited" && !cleaning {
                cleaning = true;
                unheard = self.bus.stop(&unit).await.is_err();
            }
            tokio::select! {
                change = changes.next() => {
                    if !matches!(change, Some(Ok(_))) {
                        changes = self.reconnect(&unit).await;
                        unheard |= stopping || cleaning;
                    }
                    look = true;
                }
                () = tokio::time::sleep(RECONNECT_PERIOD), if look || unheard => look = true,
                Some(command) = unit_task.commands.recv() => match command {
                    // The guard has asked it already: once is enough. Told again, it is stopped again.
                    Command::Stop if !stopping && self.leases.fired(&launch).is_some() => {
                        stopping = true;
                    }
                    Command::Stop => (stopping, unheard) = (true, true),
                    Command::Confine(cpus) => {
                        if let Err(error) = self.confine_now(&unit, &cpus).await {
                            tracing::warn!(unit, %error, "a unit could not be moved to other CPUs");
                        }
                        if state.pid > 0 {
                            unit_task.tell(running_event(state.pid)).await;
                        }
                    }
                },
            }
            if unheard {
                match self.bus.stop(&unit).await {
                    Ok(()) => unheard = false,
                    Err(error) => {
                        tracing::warn!(unit, %error, "a unit cannot be stopped");
                        look = true;
                    }
                }
            }
            if look {
                match self.bus.state(&unit).await {
                    Ok(now) => (state, look) = (now, false),
                    Err(error) => tracing::warn!(unit, %error, "a unit's state cannot be read"),
                }
            }
        }
        let event = match refused {
            Some(reason) => UnitEvent::Refused { reason },
            None => super::fired(
                self.ended(&launch.alloc, &state, stopping),
                self.leases.fired(&launch),
            ),
        };
        self.bus.forget(&unit).await;
        self.finish(&launch, &event).await;
        unit_task.end(event).await;
    }

    /// What a unit is doing, however long it takes systemd to say so.
    async fn state_for_sure(&self, unit: &str) -> State {
        loop {
            match self.bus.state(unit).await {
                Ok(state) => return state,
                Err(error) => {
                    tracing::warn!(unit, %error, "a unit's state cannot be read");
                    tokio::time::sleep(RECONNECT_PERIOD).await;
                }
            }
        }
    }

    async fn reconnect(&self, unit: &str) -> MessageStream {
        loop {
            match self.bus.changes(unit).await {
                Ok(changes) => {
                    // The reference went with the connection.
                    let _ = self.bus.hold(unit).await;
                    return changes;
                }
                Err(error) => {
                    tracing::warn!(unit, %error, "systemd does not answer");
                    tokio::time::sleep(RECONNECT_PERIOD).await;
                }
            }
        }
    }

    /// The affinity of every thread, and the cpuset where there is one (first: it cuts affinities).
    async fn confine_now(&self, unit: &str, cpus: &CpuSet) -> io::Result<()> {
        if self.enforced.cpuset {
            let value = properties::bits(cpus).into();
            self.bus.set(unit, "AllowedCPUs", value).await.map_err(io::Error::other)?;
        }
        let cgroup = self.bus.cgroup(unit).await.map_err(io::Error::other)?;
        let (Some(mount), false) = (crate::cgroup::mount(), cgroup.is_empty()) else {
            return Err(io::Error::other("its cgroup is not to be found"));
        };
        let members = Members::Cgroup(mount.join(cgroup.trim_start_matches('/')));
        let cpus = cpus.clone();
        blocking(move || members.confine(&cpus)).await
    }

    /// How a unit that is over ended.
    fn ended(&self, alloc: &AllocId, state: &State, stopping: bool) -> UnitEvent {
        let event = ended(state, stopping);
        let not_executed = || {
            let failed = state.code == libc::CLD_EXITED && state.status == exec::FAILED;
            let stderr = Channel::Stderr.path(&self.store.folder(alloc));
            failed.then(|| exec::reason(&stderr, 0)).flatten()
        };
        match (event, not_executed()) {
            (UnitEvent::Exited { success, killed, .. }, Some(reason)) => {
                UnitEvent::Exited { status: format!("not executed: {reason}"), success, killed }
            }
            (event, _) => event,
        }
    }

    /// Nothing of it runs any more.
    async fn finish(&self, launch: &Launch, event: &UnitEvent) {
        if launch.lease.is_some() {
            self.leases.disarm(&launch.alloc, launch.run);
        }
        self.write_end(launch, event.clone()).await;
    }

    async fn write_end(&self, launch: &Launch, event: UnitEvent) {
        let store = self.store.clone();
        let record = Record {
            launch: launch.clone(),
            boot: self.boot.to_string(),
            process: None,
            user: None,
            ended: None,
        };
        if let Err(error) = blocking(move || store.end(record, event)).await {
            tracing::warn!(unit = launch.alloc.unit(), %error, "the end of a unit cannot be written down");
        }
    }
}

/// Limits that bite: the controllers of version 2 that systemd can hand to units. What it can only
/// accept and ignore is not in the list.
fn enforced() -> Enforced {
    let top = PathBuf::from("/sys/fs/cgroup");
    let controllers = crate::cgroup::controllers(&top, "cgroup.controllers");
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let cpuset = has("cpuset");
    Enforced {
        pinning: process::affinity_works(),
        cpuset,
        numa: cpuset || process::memory_policy_works() || process::online_nodes().len() == 1,
        cpu: has("cpu"),
        memory: has("memory"),
        tasks: has("pids"),
        // A private /dev that holds only what was claimed.
        devices: true,
    }
}

fn is_there(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str().ends_with("UnitExists"))
}

/// Whether systemd has said no, and not the bus that it does not answer.
fn is_refused(error: &zbus::Error) -> bool {
    let silent = ["NoReply", "Timeout", "TimedOut", "Disconnected", "ServiceUnknown"];
    matches!(error, zbus::Error::MethodError(name, ..)
        if !silent.iter().any(|end| name.as_str().ends_with(&format!(".{end}"))))
}

fn variable<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// How a unit that is over ended.
fn ended(state: &State, stopping: bool) -> UnitEvent {
    let status = match state.code {
        libc::CLD_EXITED => Some(ExitStatus::Code(state.status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Some(ExitStatus::Signal(state.status)),
        _ => None,
    };
    let success = status.is_some_and(ExitStatus::success);
    let text = match status {
        _ if state.result == "oom-kill" => "out of memory".into(),
        Some(status) => status.to_string(),
        None => "exited (status unknown)".into(),
    };
    UnitEvent::Exited { status: text, success, killed: stopping && state.result == "timeout" }
}

/// Stands in for the launch of an adopted unit whose record is lost: names it, and wants nothing.
fn bare_launch(alloc: &AllocId, run: u32) -> Launch {
    Launch {
        alloc: alloc.clone(),
        run,
        node: String::new(),
        task: fabric::job::Task {
            command: Vec::new(),
            env: Default::default(),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: Duration::ZERO,
            sandbox: Default::default(),
            arch: Default::default(),
        },
        memory: 0,
        swap: 0,
        cpu_hard: false,
        claim: Default::default(),
        cpus: CpuSet::new(),
        health: None,
        lease: None,
    }
}

/// systemd's version, from a bus that may need that long to answer.
pub async fn version(bus: &Bus, within: Duration) -> Result<String, Unusable> {
    let mut last = None;
    let asked = tokio::time::timeout(within, async {
        loop {
            match bus.version().await {
                Ok(version) => return Ok(version),
                Err(zbus::Error::Connection(error, _))
                    if error.kind() == io::ErrorKind::NotFound =>
                {
                    return Err(Unusable::Here("there is no system bus".into()));
                }
                Err(error) => {
                    if last.is_none() {
                        tracing::warn!(
                            "systemd does not answer on the system bus: {error}: asking again"
                        );
                    }
                    last = Some(error.to_string());
                    tokio::time::sleep(RECONNECT_PERIOD).await;
                }
            }
        }
    });
    asked.await.unwrap_or_else(|_| {
        let why = last.unwrap_or_else(|| format!("no answer within {} s", within.as_secs()));
        Err(Unusable::Now(format!("systemd does not answer on the system bus: {why}")))
    })
}
