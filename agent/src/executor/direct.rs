//! Runs units as plain processes, for machines without systemd.
//!
//! A unit is a session, in a cgroup of its own where cgroup version 2 is there. It is nobody's
//! child in a way that matters: it outlives the agent, prints into files, and the next agent finds
//! it by process number, start time and boot, never by number alone.
//!
//! What it does not have, beside systemd's units: a private `/tmp`, a read-only system, a filter of
//! system calls, device access control. It has: a made-up user (or the given one), no capabilities
//! but the given ones, no new privileges, pins, and the limits that [`Direct::enforced`] names.

use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent, UnitFound};
use fabric::topology::Enforced;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mount_points::View;
use super::output::{Channel, blocking};
use super::record::{Record, Store};
use super::running_event;
use super::spawn::{self, Identity, Plan};
use super::unit_table::{Command, Events, UnitTask, Units};
use crate::cgroup::{self, Cgroup};
use crate::guard::{Keeper, LeaseOf, Leases, Reach};
use crate::process::{self, Members, PidFd};

/// Users that are made up for tasks that name none: the range that systemd uses for the same purpose.
const USERS: std::ops::RangeInclusive<u32> = 61184..=65519;
/// The guard's cgroup, among those of the units.
const GUARD: &str = "guard";
/// Time between two looks whether the last processes of an ended unit are gone.
const LEFTOVER_PERIOD: Duration = Duration::from_millis(20);
/// Attempts to find out whether a unit of the agent before still runs, and the time between two.
const FINDS_MAX: u32 = 10;
const FIND_PERIOD: Duration = Duration::from_secs(1);
/// Killed processes are gone within this, unless the kernel itself hangs.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// What no record tells of is asked to end, and killed after this.
pub(super) const STRAYS_STOP: Duration = Duration::from_secs(5);

/// The executor for machines without systemd. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Direct {
    units: Units,
    store: Store,
    cgroup: Option<Cgroup>,
    boot: Arc<str>,
    /// Names the agent, so that the processes of another one on this machine are not taken for its own.
    agent: Arc<str>,
    leases: Leases,
    guard: Keeper,
    users: Arc<Mutex<BTreeSet<u32>>>,
}

/// A unit that runs.
struct Unit {
    record: Record,
    main: PidFd,
    pid: u32,
    members: Members,
}

impl Direct {
    /// Keeps records and output under `state`. Call within the runtime.
    pub fn open(state: &Path, leases: Leases, events: Events) -> io::Result<Self> {
        let store = Store::open(state, View::Own)?;
        // Several agents share a machine in tests: each has a cgroup named after its state.
        let state = std::path::absolute(state)?;
        let name = format!("{:016x}", crate::hash::fnv1a(state.as_os_str().as_encoded_bytes()));
        let cgroup = match Cgroup::open(&name) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::info!(%error, "no cgroups for tasks: they are held together by their sessions");
                None
            }
        };
        // Not below the agent's own cgroup, and so beside the units.
        let place = cgroup.as_ref().map(|cgroup| cgroup.of_unit(GUARD));
        let direct = Self {
            units: Units::new(events),
            store,
            cgroup,
            boot: process::boot_id().into(),
            agent: name.into(),
            guard: Keeper::new(leases.clone(), place, state.join("guard.log")),
            leases,
            users: Arc::default(),
        };
        Ok(direct)
    }

    /// The limits that hold for its units.
    pub fn enforced(&self) -> Enforced {
        let cgroup = self.cgroup.as_ref().map(Cgroup::enforced).unwrap_or_default();
        Enforced {
            pinning: process::affinity_works(),
            numa: process::memory_policy_works() || process::online_nodes().len() == 1,
            devices: false,
            ..cgroup
        }
    }

    /// Whether each unit has a cgroup.
    pub fn has_cgroups(&self) -> bool {
        self.cgroup.is_some()
    }

    /// The folder in which each unit has its cgroup.
    pub fn units_folder(&self) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|cgroup| cgroup.folder().to_owned())
    }

    /// As on a machine without cgroups.
    #[cfg(test)]
    pub fn without_cgroups(&mut self) {
        self.cgroup = None;
    }

    /// The cgroup that a unit has or would have.
    #[cfg(test)]
    pub fn cgroup_of(&self, alloc: &AllocId) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|cgroup| cgroup.of_unit(&alloc.unit()))
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
            let direct = self.clone();
            tokio::spawn(async move {
                unit_task.wait_for_earlier_run().await;
                let _rotated = direct.store.rotated(&unit_task.alloc);
                match direct.launch(launch).await {
                    Ok((unit, running)) => {
                        unit_task.tell(running).await;
                        direct.keep(unit, unit_task).await;
                    }
                    Err(reason) => unit_task.end(UnitEvent::Refused { reason }).await,
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
        if !self.units.command(alloc, run, Command::Stop) && !self.leases.still_runs(alloc, run) {
            let event = self.units.last(alloc, run).unwrap_or_else(super::gone);
            self.units.say_at_once(alloc, run, event);
        }
    }

    /// Moves a unit to these CPUs, and reports where it then is.
    pub fn confine(&self, alloc: &AllocId, run: u32, cpus: CpuSet) {
        self.units.command(alloc, run, Command::Confine(cpus));
    }

    /// Finds the units of the agent before, and keeps those that still run. Those that ended since this
    /// machine came up are told with how they ended.
    pub async fn adopt(&self) -> io::Result<Vec<UnitFound>> {
        let store = self.store.clone();
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        self.leases.adopt();
        self.leases.end_other_version();
        if self.leases.any()
            && let Err(error) = self.guard.ensure()
        {
            tracing::error!(%error, "the guard cannot be started");
        }
        for mut record in blocking(move || store.all()).await? {
            let (alloc, run) = (record.launch.alloc.clone(), record.launch.run);
            if record.boot != *self.boot {
                // The machine went down under it: that is not an exit, there is simply no unit.
                if record.ended.is_none() {
                    self.write_end(record, super::gone()).await;
                }
                continue;
            }
            known.insert((alloc.unit(), run));
            let main = match record.ended {
                Some(_) => None,
                None => self.find(&mut record).await?,
            };
            let Some(unit_task) = self.units.take(&alloc, run) else { continue };
            let event = match record.ended.clone() {
                Some(event) => {
                    unit_task.close(&event);
                    event
                }
                None => self.adopt_one(record, main, unit_task).await,
            };
            let lease_until = self.leases.until(&alloc, run);
            found.push(UnitFound { alloc, run, event, lease_until });
        }
        let kept = self.units.with_tasks();
        self.leases.forget_others(&kept);
        let (store, kept) = (self.store.clone(), kept.iter().map(AllocId::unit).collect());
        blocking(move || {
            store.release_mount_points(&kept);
            Ok(())
        })
        .await?;
        self.end_strays(known).await;
        Ok(found)
    }

    /// Ends processes of units that no record tells of: the state folder is older than they are. Nobody knows of them, and
    /// what they did is done by others since.
    async fn end_strays(&self, known: BTreeSet<(String, u32)>) {
        let agent = self.agent.clone();
        let strays = match blocking(move || process::strays(&agent, &known)).await {
            Ok(strays) if strays.is_empty() => return,
            Ok(strays) => strays,
            Err(error) => return tracing::warn!(%error, "cannot look for units without a record"),
        };
        let mut asked = Vec::new();
        for (pid, unit) in strays {
            let started = process::start_time(pid);
            tracing::warn!(
                pid,
                unit,
                "no record tells of this unit, so the state directory is older than it is: ending it"
            );
            process::send(pid, Signal::SIGTERM);
            asked.push((pid, started));
        }
        tokio::spawn(async move {
            tokio::time::sleep(STRAYS_STOP).await;
            // These and no others: the records of then tell nothing of what was started since.
            for (pid, started) in asked {
                if started.is_some() && process::start_time(pid) == started {
                    process::send(pid, Signal::SIGKILL);
                }
            }
        });
    }

    /// The main process of a unit that was started by an agent before; `None`: it is gone. What cannot be found out is asked for
    /// again, and then it is an error: nobody is said to be gone because `/proc` cannot be read.
    async fn find(&self, record: &mut Record) -> io::Result<Option<(u32, PidFd)>> {
        let mut tries = 1;
        loop {
            match self.find_once(record).await {
                Err(error) if tries < FINDS_MAX => {
                    let unit = record.launch.alloc.unit();
                    tracing::warn!(unit, %error, "a unit cannot be looked for: trying again");
                    tries += 1;
                    tokio::time::sleep(FIND_PERIOD).await;
                }
                found => return found,
            }
        }
    }

    async fn find_once(&self, record: &mut Record) -> io::Result<Option<(u32, PidFd)>> {
        if record.process.is_none() {
            let (name, run) = (record.launch.alloc.unit(), record.launch.run);
            record.process = blocking(move || {
                let Some(pid) = process::find_by_environment(&name, run)? else { return Ok(None) };
                Ok(process::started(pid)?.map(|started| (pid, started)))
            })
            .await?;
        }
        let Some((pid, started)) = record.process else { return Ok(None) };
        if process::started(pid)? != Some(started) || process::is_zombie(pid) {
            return Ok(None);
        }
        let main = match PidFd::open(pid) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(None),
            main => main?,
        };
        // The number may have been given away between the two looks.
        Ok((process::started(pid)? == Some(started)).then_some((pid, main)))
    }

    async fn adopt_one(
        &self,
        record: Record,
        main: Option<(u32, PidFd)>,
        unit_task: UnitTask,
    ) -> UnitEvent {
        let unit = record.launch.alloc.unit();
        let members = self.members(&unit, record.process);
        if let Some((pid, main)) = main
            && let Some(members) = members.clone()
        {
            if let Some(user) = record.user {
                self.lock_users().insert(user);
            }
            let event = running_event(pid);
            unit_task.note(&event);
            let direct = self.clone();
            let unit = Unit { record, main, pid, members };
            let rotated = self.store.rotated(&unit_task.alloc);
            tokio::spawn(async move {
                direct.keep(unit, unit_task).await;
                drop(rotated);
            });
            return event;
        }
        let event = match record.process {
            Some(_) => exited("exited while the agent was away".into(), false, false),
            None => exited("not started: the agent ended before".into(), false, false),
        };
        let event = self.with_guard(&record.launch, event);
        self.finish(record, members, unit_task, &event, false).await;
        event
    }

    /// What belongs to a unit of an agent before. That one may have had no cgroups, where this one has.
    fn members(&self, unit: &str, process: Option<(u32, u64)>) -> Option<Members> {
        let session = process.map(|(leader, started)| Members::Session { leader, started });
        let cgroup = self.cgroup.as_ref().map(|cgroup| cgroup.of_unit(unit));
        match cgroup {
            Some(path) if path.exists() || session.is_none() => Some(Members::Cgroup(path)),
            _ => session,
        }
    }

    /// Starts the process; one with a lease only under the guard's eyes.
    async fn launch(&self, launch: Launch) -> Result<(Unit, UnitEvent), String> {
        let Some(lease) = LeaseOf::of(&launch) else { return self.launch_armed(launch).await };
        let unit = launch.alloc.unit();
        let reach = match &self.cgroup {
            Some(cgroup) => Reach::Cgroup(cgroup.of_unit(&unit)),
            None => Reach::marked(&unit, launch.run, &self.agent),
        };
        self.leases.arm(&lease, reach, || async { self.guard.ensure() }).await?;
        let started = self.launch_armed(launch).await;
        // A start that failed leaves its lease to the guard, which ends what may be left of it.
        if let Ok((Unit { record, .. }, _)) = &started
            && let Some(main) = record.process
        {
            self.leases.led_by(&record.launch.alloc, record.launch.run, main);
        }
        started
    }

    /// Starts the process and looks at what it got.
    async fn launch_armed(&self, launch: Launch) -> Result<(Unit, UnitEvent), String> {
        let direct = self.clone();
        let started = blocking(move || Ok(direct.spawn(launch))).await;
        let (record, pid, started) = started.map_err(|error| error.to_string())??;
        let alloc = &record.launch.alloc;
        let members = match &self.cgroup {
            Some(cgroup) => Members::Cgroup(cgroup.of_unit(&alloc.unit())),
            None => Members::Session { leader: pid, started },
        };
        // It is our child and not reaped: the number is its own.
        let main = PidFd::open(pid).map_err(|error| {
            members.signal(Signal::SIGKILL);
            format!("its process cannot be watched: {error}")
        })?;
        let event = running_event(pid);
        if let Err(reason) = super::check_pins(&record.launch, &event) {
            members.signal(Signal::SIGKILL);
            let _ = tokio::time::timeout(KILL_GRACE, main.ended()).await;
            main.reap();
            self.clean(&record, Some(members)).await;
            let event = UnitEvent::Refused { reason: reason.clone() };
            self.write_end(record, event).await;
            return Err(reason);
        }
        Ok((Unit { record, main, pid, members }, event))
    }

    /// The blocking half of a start. Nothing is left behind when it fails.
    fn spawn(&self, launch: Launch) -> Result<(Record, u32, u64), String> {
        let unit = launch.alloc.unit();
        let identity = self.identity(&launch, &unit)?;
        let made_up = identity.as_ref().filter(|_| launch.task.user.is_none()).map(|i| i.user);
        let mut record = Record {
            launch,
            boot: self.boot.to_string(),
            process: None,
            user: made_up,
            ended: None,
        };
        let spawned = self.spawn_recorded(&mut record, identity, &unit);
        if let Err(reason) = &spawned {
            if let Some(user) = made_up {
                self.lock_users().remove(&user);
            }
            if let Some(cgroup) = &self.cgroup {
                let _ = cgroup::remove(&cgroup.of_unit(&unit));
            }
            let _ = self.store.end(record.clone(), UnitEvent::Refused { reason: reason.clone() });
        }
        let (pid, started) = spawned?;
        Ok((record, pid, started))
    }

    fn spawn_recorded(
        &self,
        record: &mut Record,
        identity: Option<Identity>,
        unit: &str,
    ) -> Result<(u32, u64), String> {
        let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        // Before the start: the next agent finds the process by its environment, should this one
        // end between here and the second writing.
        self.store.write(record).map_err(said("its record cannot be written"))?;
        let launch = &record.launch;
        let folder = self.store.folder(&launch.alloc);
        if !launch.task.files.is_empty() && !nix::unistd::geteuid().is_root() {
            return Err("files can be mounted only by an agent that runs as root".into());
        }
        let files = self.store.files(launch).map_err(said("its files cannot be written"))?;
        let (sources, wanted): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let places = self.store.claim_mount_points(&launch.alloc, &wanted);
        let places = places.map_err(said("its files cannot be put where it wants them"))?;
        let files = sources.into_iter().zip(places).collect();
        let open = |channel: Channel| {
            spawn::open_append(&channel.path(&folder)).map_err(said("its output cannot be opened"))
        };
        let cgroup = match &self.cgroup {
            Some(cgroup) => {
                Some(cgroup.create(unit, launch).map_err(said("its limits cannot be set"))?)
            }
            None => None,
        };
        let mut environment = super::environment(launch);
        environment.insert("WEFT_AGENT".into(), self.agent.to_string());
        if let Some(identity) = &identity {
            let (name, home) = match &identity.name {
                Some((name, home)) => (name.clone(), home.to_string_lossy().into_owned()),
                None => (identity.user.to_string(), "/".into()),
            };
            for (key, value) in [("USER", &name), ("LOGNAME", &name), ("HOME", &home)] {
                environment.entry(key.into()).or_insert_with(|| value.clone());
            }
        }
        let plan = Plan {
            launch,
            environment,
            identity,
            cgroup,
            until: launch.lease.map(|lease| self.leases.end_of(&lease)),
            files,
            stdout: open(Channel::Stdout)?,
            stderr: open(Channel::Stderr)?,
        };
        let pid = spawn::spawn(plan)?;
        let started = process::start_time(pid).ok_or("its process vanished")?;
        record.process = Some((pid, started));
        if let Err(error) = self.store.write(record) {
            tracing::warn!(unit, %error, "the record of a unit cannot be written");
        }
        Ok((pid, started))
    }

    /// Whom a task runs as; `None`: as the agent.
    fn identity(&self, launch: &Launch, unit: &str) -> Result<Option<Identity>, String> {
        let root = nix::unistd::geteuid().is_root();
        let mut groups = super::sandbox::device_groups(&launch.claim.devices);
        match &launch.task.user {
            Some(user) => {
                let mut identity = Identity::of(user)?;
                if !root {
                    let same = identity.user == nix::unistd::geteuid().as_raw();
                    return if same {
                        Ok(None)
                    } else {
                        Err(format!(
                            "user {user:?}: only an agent that runs as root can change users"
                        ))
                    };
                }
                identity.groups.append(&mut groups);
                Ok(Some(identity))
            }
            None if root && launch.task.sandbox.enabled && users_are_mapped() => {
                let mut used = self.lock_users();
                let count = USERS.end() - USERS.start() + 1;
                let first = (crate::hash::fnv1a(unit.as_bytes()) % u64::from(count)) as u32;
                let user = (0..count)
                    .map(|step| USERS.start() + (first + step) % count)
                    .find(|user| !used.contains(user))
                    .ok_or("every made-up user is taken")?;
                used.insert(user);
                Ok(Some(Identity { user, group: user, groups, name: None }))
            }
            None => Ok(None),
        }
    }

    /// Looks after a running unit until it is gone.
    async fn keep(&self, unit: Unit, mut unit_task: UnitTask) {
        let Unit { record, main, pid, members } = unit;
        let task = &record.launch.task;
        let stop_signal = super::signal(&task.stop_signal);
        let mut deadline = Box::pin(tokio::time::sleep(Duration::ZERO));
        let (mut stopping, mut killed) = (false, false);
        loop {
            tokio::select! {
                ended = main.ended() => {
                    if let Err(error) = ended {
                        tracing::error!(pid, %error, "a process cannot be watched");
                    }
                    break;
                }
                Some(command) = unit_task.commands.recv() => match command {
                    Command::Stop if stopping => {}
                    Command::Stop => {
                        stopping = true;
                        // The guard may have asked it already: once is enough.
                        if !self.has_fired(&record.launch) {
                            signal(&members, stop_signal).await;
                            // One that is frozen by job control cannot hear.
                            signal(&members, Signal::SIGCONT).await;
                        }
                        deadline = Box::pin(tokio::time::sleep(task.stop_timeout));
                    }
                    Command::Confine(cpus) => {
                        self.confine_now(&record.launch.alloc, &members, cpus).await;
                        unit_task.tell(running_event(pid)).await;
                    }
                },
                () = &mut deadline, if stopping && !killed => {
                    killed = true;
                    signal(&members, Signal::SIGKILL).await;
                }
            }
        }
        // What the main process left behind gets the same treatment. Its number stays its own until
        // it is reaped, and so does the session's.
        if !stopping {
            deadline = Box::pin(tokio::time::sleep(task.stop_timeout));
        }
        let mut asked = stopping;
        while !nobody(&members).await {
            if !asked {
                signal(&members, stop_signal).await;
                asked = true;
            }
            tokio::select! {
                () = tokio::time::sleep(LEFTOVER_PERIOD) => {}
                () = &mut deadline, if !killed => {
                    killed = true;
                    signal(&members, Signal::SIGKILL).await;
                }
            }
        }
        let status = main.reap();
        let out_of_memory = match &members {
            Members::Cgroup(path) => cgroup::out_of_memory(path),
            Members::Session { .. } => false,
        };
        let success = status.is_some_and(|status| status.success());
        let text = match status {
            _ if out_of_memory && !success => "out of memory".into(),
            Some(status) => status.to_string(),
            None => "exited (status unknown)".into(),
        };
        let event = self.with_guard(&record.launch, exited(text, success, stopping && killed));
        self.finish(record, Some(members), unit_task, &event, true).await;
    }

    async fn confine_now(&self, alloc: &AllocId, members: &Members, cpus: CpuSet) {
        // One of an agent that had no cgroups has none.
        let cgroup = self.cgroup.clone().filter(|_| matches!(members, Members::Cgroup(_)));
        let (unit, members) = (alloc.unit(), members.clone());
        let done = blocking(move || {
            // Widen first, or the cpuset would cut the new affinity.
            if let Some(cgroup) = cgroup {
                cgroup.confine(&unit, &cpus)?;
            }
            members.confine(&cpus)
        })
        .await;
        if let Err(error) = done {
            tracing::warn!(%alloc, %error, "a unit could not be moved to other CPUs");
        }
    }

    async fn finish(
        &self,
        record: Record,
        members: Option<Members>,
        unit_task: UnitTask,
        event: &UnitEvent,
        say: bool,
    ) {
        self.clean(&record, members).await;
        if record.launch.lease.is_some() {
            self.leases.disarm(&record.launch.alloc, record.launch.run);
        }
        self.write_end(record, event.clone()).await;
        if say {
            unit_task.end(event.clone()).await;
        } else {
            unit_task.close(event);
        }
    }

    fn has_fired(&self, launch: &Launch) -> bool {
        self.leases.fired(launch).is_some()
    }

    fn with_guard(&self, launch: &Launch, event: UnitEvent) -> UnitEvent {
        super::fired(event, self.leases.fired(launch))
    }

    async fn write_end(&self, record: Record, event: UnitEvent) {
        let store = self.store.clone();
        let unit = record.launch.alloc.unit();
        if let Err(error) = blocking(move || store.end(record, event)).await {
            tracing::warn!(unit, %error, "the end of a unit cannot be written down");
        }
    }

    /// Ends what is left of a unit and gives back its cgroup and its user.
    async fn clean(&self, record: &Record, members: Option<Members>) {
        if let Some(members) = members {
            let deadline = tokio::time::sleep(KILL_GRACE);
            tokio::pin!(deadline);
            while !nobody(&members).await && !deadline.is_elapsed() {
                signal(&members, Signal::SIGKILL).await;
                tokio::select! {
                    () = tokio::time::sleep(LEFTOVER_PERIOD) => {}
                    () = &mut deadline => {}
                }
            }
            if let Members::Cgroup(path) = members {
                // A cgroup is busy for a moment after its last process.
                for _ in 0..50 {
                    let path: PathBuf = path.clone();
                    if blocking(move || cgroup::remove(&path)).await.is_ok() {
                        break;
                    }
                    tokio::time::sleep(LEFTOVER_PERIOD).await;
                }
            }
        }
        if let Some(user) = record.user {
            self.lock_users().remove(&user);
        }
    }

    fn lock_users(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        // Nothing panics while holding it.
        self.users.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn signal(members: &Members, signal: Signal) {
    let members = members.clone();
    let _ = blocking(move || {
        members.signal(signal);
        Ok(())
    })
    .await;
}

/// Whether nobody is there for sure.
async fn nobody(members: &Members) -> bool {
    let members = members.clone();
    blocking(move || members.look()).await.is_ok_and(|pids| pids.is_empty())
}

fn exited(status: String, success: bool, killed: bool) -> UnitEvent {
    UnitEvent::Exited { status, success, killed }
}

/// Whether the made-up users exist in the agent's user namespace.
fn users_are_mapped() -> bool {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    text.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>());
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => {
                first <= u64::from(*USERS.start()) && first + count > u64::from(*USERS.end())
            }
            _ => false,
        }
    })
}
