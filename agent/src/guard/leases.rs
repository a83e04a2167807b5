//! The agent's side of the guard: writes the lease files, keeps a guard running, and reads what it did.

use fabric::clock::Instant;
use fabric::id::AllocId;
use fabric::io::{Launch, Lease};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::lease::{Answer, Fired, Folder, LeaseError, LeaseFile, Process};
use super::reach::Reach;
use crate::clock::{BootTime, Clock};
use crate::process::{self, PidFd};
use crate::program;

/// A guard answers within this, or a unit is not started. Most of it is its own start on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks for its answer.
const ANSWER_PERIOD: Duration = Duration::from_millis(5);
/// A guard may end just when a lease is written; it is asked for again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// A lease that nobody renewed or took back is forgotten this long after its unit was killed.
const FAILED_KEEP: Duration = Duration::from_secs(60);
/// Wait before a guard that died is started again.
const RESTART_PERIOD: Duration = Duration::from_millis(100);
/// Bytes of the guard's words that are kept from one start to the next.
const LOG_BYTES_MAX: u64 = 256 << 10;

/// The leases of this node's units. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Leases {
    clock: Clock,
    folder: Folder,
    boot: Arc<str>,
    /// Lease files as they were written last.
    held: Arc<Mutex<BTreeMap<AllocId, LeaseFile>>>,
}

impl Leases {
    /// The leases in the folder at `path`. Nothing is made until a unit has a lease.
    pub fn open(path: PathBuf, clock: Clock) -> Self {
        let (folder, boot) = (Folder::new(path), process::boot_id().into());
        Self { clock, folder, boot, held: Arc::default() }
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Has the guard watch a run of a unit that is about to start. `ensure` starts a guard where none
    /// runs; it may be called several times. The error says in words why the unit must not start.
    pub async fn arm<F>(
        &self,
        lease: &LeaseOf<'_>,
        reach: Reach,
        ensure: impl Fn() -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<(), String>>,
    {
        let file = self.file_of(lease, reach);
        if file.until <= BootTime::now() {
            return Err("its lease has run out".into());
        }
        file.check(&file.unit, &self.boot)
            .map_err(|error| format!("the guard cannot watch it: {error}"))?;
        // A guard that ends takes the empty folder along.
        self.write_first(&file)
            .or_else(|_| self.write_first(&file))
            .map_err(|error| self.cannot_write(&error))?;
        {
            let mut held = self.lock();
            // Those of starts that failed: the guard has ended what was left of them long ago.
            let now = BootTime::now();
            held.retain(|_, other| {
                let needed = other.kill_at() + FAILED_KEEP > now;
                if !needed {
                    self.folder.remove(&other.unit);
                }
                needed
            });
            held.insert(lease.alloc.clone(), file.clone());
        }
        let armed = self.wait_for_answer(&file, ensure).await;
        if armed.is_err() {
            self.disarm(lease.alloc, lease.run);
        }
        armed
    }

    fn write_first(&self, file: &LeaseFile) -> io::Result<()> {
        self.folder.make()?;
        self.folder.remove(&file.unit);
        self.folder.write_lease(file)
    }

    async fn wait_for_answer<F>(
        &self,
        file: &LeaseFile,
        ensure: impl Fn() -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = Result<(), String>>,
    {
        let asked = BootTime::now();
        let mut next = asked;
        loop {
            match self.folder.answer(&file.unit) {
                Some(Answer { run: Some(run), armed: Ok(()) }) if run == file.run => return Ok(()),
                Some(Answer { armed: Err(reason), .. }) => {
                    return Err(format!("the guard refuses its lease: {reason}"));
                }
                _ => {}
            }
            let now = BootTime::now();
            if now.since(asked) >= ANSWER_TIMEOUT {
                return Err("the guard does not answer: nothing would end it with its lease".into());
            }
            if now >= next {
                next = now + AGAIN;
                ensure().await.map_err(|error| format!("the guard cannot be started: {error}"))?;
            }
            tokio::time::sleep(ANSWER_PERIOD).await;
        }
    }

    /// The main process of a run that was armed is known now.
    pub fn led_by(&self, alloc: &AllocId, run: u32, main: (u32, u64)) {
        self.change(alloc, run, |file| match &mut file.reach {
            Reach::Marked { leader, .. } => *leader = Some(main),
            Reach::Cgroup(_) => {}
        });
    }

    /// The lease of a run was renewed. Says nothing about a unit that has none any more.
    pub fn extend(&self, alloc: &AllocId, run: u32, until: Instant) {
        let until = self.clock.boot_time(until);
        self.change(alloc, run, |file| file.until = file.until.max(until));
    }

    fn change(&self, alloc: &AllocId, run: u32, change: impl FnOnce(&mut LeaseFile)) {
        let mut held = self.lock();
        let Some(file) = held.get_mut(alloc).filter(|file| file.run == run) else { return };
        let mut new = file.clone();
        change(&mut new);
        if new == *file {
            return;
        }
        match self.folder.write_lease(&new) {
            Ok(()) => *file = new,
            // The guard knows the one before, and stops the unit in time.
            Err(error) => {
                tracing::error!(unit = new.unit, error = self.cannot_write(&error), "a lease");
            }
        }
    }

    /// The run is gone with everything it started: its lease is of no use any more.
    pub fn disarm(&self, alloc: &AllocId, run: u32) {
        let mut held = self.lock();
        if held.get(alloc).is_none_or(|file| file.run == run) {
            held.remove(alloc);
            self.folder.remove(&alloc.unit());
        }
    }

    /// What the guard did to a unit, if it had to do anything. The answer is gone once it is disarmed.
    pub fn fired(&self, launch: &Launch) -> Option<Fired> {
        launch.lease?;
        self.folder.fired(&launch.alloc.unit(), launch.run)
    }

    /// The end of a lease, as the guard counts time.
    pub fn end_of(&self, lease: &Lease) -> BootTime {
        self.clock.boot_time(lease.until)
    }

    /// When the lease of a run is over that was started by this agent or was adopted by it.
    pub fn until(&self, alloc: &AllocId, run: u32) -> Option<Instant> {
        let held = self.lock();
        let file = held.get(alloc).filter(|file| file.run == run)?;
        Some(self.clock.instant(file.until))
    }

    /// When the lease of a run is over, as the guard counts time, and as the guard was told last.
    pub fn until_boot_time(&self, alloc: &AllocId, run: u32) -> Option<BootTime> {
        self.lock().get(alloc).filter(|file| file.run == run).map(|file| file.until)
    }

    /// Whether processes of a run are there that nobody keeps, as after the loss of its record. The guard
    /// ends them with their lease; until then nobody may be told that they are gone. Reads `/proc`.
    pub fn still_runs(&self, alloc: &AllocId, run: u32) -> bool {
        let held = self.lock().get(alloc).filter(|file| file.run == run).cloned();
        held.is_some_and(|file| !file.reach.is_empty())
    }

    /// Takes over the leases that the agent before has left.
    pub fn adopt(&self) {
        let Ok(units) = self.folder.units() else { return };
        for unit in units {
            let Some(alloc) = AllocId::from_unit(&unit) else { continue };
            match self.folder.lease(&unit, &self.boot) {
                Ok(file) => drop(self.lock().insert(alloc, file)),
                Err(LeaseError::OtherBoot) => self.folder.remove(&unit),
                // The guard may know the one before. It goes with its unit.
                Err(error) => {
                    tracing::warn!(unit, %error, "a lease of the agent before cannot be read");
                }
            }
        }
    }

    /// Forgets what is left of units of which nothing runs and that nobody keeps. Reads `/proc`.
    pub fn forget_others(&self, kept: &[AllocId]) {
        let mut held = self.lock();
        held.retain(|alloc, file| kept.contains(alloc) || !file.reach.is_empty());
        for unit in self.folder.mentioned().unwrap_or_default() {
            let nobodys = |alloc: AllocId| !held.contains_key(&alloc) && !kept.contains(&alloc);
            if AllocId::from_unit(&unit).is_some_and(nobodys) {
                self.folder.remove(&unit);
            }
        }
    }

    /// Whether there is anything to guard.
    pub fn any(&self) -> bool {
        self.folder.units().is_ok_and(|units| !units.is_empty())
    }

    /// The guard that runs, and its version. Call within the runtime.
    pub fn guard(&self) -> Option<(Process, PidFd)> {
        let known = self.folder.guard()?;
        let guard = PidFd::open(known.pid).ok()?;
        let same = process::start_time(known.pid) == Some(known.started);
        (same && !process::is_zombie(known.pid)).then_some((known, guard))
    }

    /// Ends a guard of another version, which may not understand what this agent writes. Another one
    /// is started in its place, and reads the leases again.
    pub fn end_other_version(&self) {
        if let Some((process, guard)) = self.guard()
            && process.version != env!("CARGO_PKG_VERSION")
        {
            tracing::info!(version = process.version, "a guard of another version is replaced");
            guard.kill();
        }
    }

    fn file_of(&self, lease: &LeaseOf<'_>, reach: Reach) -> LeaseFile {
        let until = self.clock.boot_time(lease.until);
        let mut file = LeaseFile::new(&self.boot, lease.alloc.unit(), lease.run, until, reach);
        file.stop_timeout = lease.stop_timeout;
        file.stop_signal = lease.stop_signal.to_owned();
        file
    }

    fn cannot_write(&self, error: &io::Error) -> String {
        format!("the guard's folder {} cannot be written: {error}", self.folder.path().display())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AllocId, LeaseFile>> {
        // Nothing panics while holding it.
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The lease of a unit that is about to start.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOf<'a> {
    /// Which allocation.
    pub alloc: &'a AllocId,
    /// Which run.
    pub run: u32,
    /// Asked to stop then.
    pub until: Instant,
    /// Killed this long afterwards.
    pub stop_timeout: Duration,
    /// What asks it.
    pub stop_signal: &'a str,
}

impl<'a> LeaseOf<'a> {
    /// The lease of a launch; `None`: it needs none.
    pub fn of(launch: &'a Launch) -> Option<Self> {
        let lease = launch.lease?;
        Some(Self {
            alloc: &launch.alloc,
            run: launch.run,
            until: lease.until,
            stop_timeout: lease.stop_timeout,
            stop_signal: &launch.task.stop_signal,
        })
    }
}

/// Keeps a guard running as a process of its own, where no service manager does: in its own session
/// and cgroup, so that it outlives the agent. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Keeper {
    leases: Leases,
    cgroup: Option<PathBuf>,
    log: PathBuf,
    /// Why it could not be started the last time; held while somebody keeps it.
    state: Arc<Mutex<KeeperState>>,
}

#[derive(Debug, Default)]
struct KeeperState {
    keeping: bool,
    trouble: Option<String>,
}

impl Keeper {
    /// Keeps a guard for these leases, in a cgroup at `cgroup`; it writes its words to `log`.
    pub fn new(leases: Leases, cgroup: Option<PathBuf>, log: PathBuf) -> Self {
        Self { leases, cgroup, log, state: Arc::default() }
    }

    /// Sees to it that there is a guard for as long as there are leases. Call within the runtime.
    pub fn ensure(&self) -> Result<(), String> {
        let mut state = self.lock();
        if !state.keeping {
            state.keeping = true;
            let keeper = self.clone();
            tokio::spawn(async move { keeper.keep().await });
        }
        // From the attempt before; this one is under way.
        state.trouble.take().map_or(Ok(()), Err)
    }

    async fn keep(&self) {
        loop {
            let guard = match self.running() {
                Some(guard) => Ok(guard),
                None => self.spawn(),
            };
            match guard {
                Ok(guard) => {
                    let _ = guard.ended().await;
                    // A stranger has no status, and needs no reaping.
                    let status = guard.reap();
                    tracing::debug!(?status, "the guard has ended");
                }
                Err(error) => {
                    tracing::error!(%error, "the guard cannot be started");
                    self.lock().trouble = Some(error.to_string());
                }
            }
            {
                let mut state = self.lock();
                if !self.leases.any() {
                    state.keeping = false;
                    if let Some(cgroup) = &self.cgroup {
                        // Made again with the next guard.
                        let _ = std::fs::remove_dir(cgroup);
                    }
                    return;
                }
            }
            tokio::time::sleep(RESTART_PERIOD).await;
        }
    }

    /// The guard that an agent before has started.
    fn running(&self) -> Option<PidFd> {
        let (_, guard) = self.leases.guard()?;
        Some(guard)
    }

    fn spawn(&self) -> io::Result<PidFd> {
        let (command, environment) = command(self.leases.folder.path());
        let log = self.log_file()?;
        let cgroup = match &self.cgroup {
            Some(path) => {
                std::fs::create_dir_all(path)?;
                Some(std::fs::OpenOptions::new().write(true).open(path.join("cgroup.procs"))?)
            }
            None => None,
        };
        let mut starting = Command::new(&command[0]);
        starting
            .args(&command[1..])
            .envs(environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: two system calls; nothing is allocated or locked.
        unsafe {
            starting.pre_exec(move || {
                use std::os::fd::AsRawFd;
                nix::unistd::setsid()?;
                if let Some(cgroup) = &cgroup {
                    let done = nix::libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
                    nix::errno::Errno::result(done)?;
                }
                Ok(())
            });
        }
        // Dropping the handle neither kills nor reaps.
        let pid = starting.spawn()?.id();
        PidFd::open(pid)
    }

    fn log_file(&self) -> io::Result<File> {
        let mut options = File::options();
        let log = options.append(true).create(true).mode(0o600).open(&self.log)?;
        if log.metadata()?.len() > LOG_BYTES_MAX {
            log.set_len(0)?;
        }
        Ok(log)
    }

    fn lock(&self) -> MutexGuard<'_, KeeperState> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The guard's command and what it needs in its environment.
#[cfg(not(test))]
pub fn command(folder: &Path) -> (Vec<OsString>, Vec<(String, OsString)>) {
    let command =
        vec![program::own().into(), super::WORD.into(), super::FOLDER.into(), folder.into()];
    (command, Vec::new())
}

/// In the tests of this crate this very program is the tests, one of which is a guard if asked.
#[cfg(test)]
pub fn command(folder: &Path) -> (Vec<OsString>, Vec<(String, OsString)>) {
    let words = ["guard::tests::a_guard_of_another_test", "--exact", "--nocapture"];
    let words = words.map(OsString::from);
    let command = std::iter::once(program::own().into()).chain(words).collect();
    (command, vec![(super::tests::FOLDER.into(), folder.into())])
}
