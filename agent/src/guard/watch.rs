//! The guard's own process: a loop around two descriptors, one that tells of changed files and one that
//! tells the time.

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::lease::{Answer, Fired, Folder, LeaseError, LeaseFile, Process};
use crate::clock::BootTime;
use crate::process;

/// Time between two looks for processes of a unit that was asked to stop: new ones are asked too.
const ASK_PERIOD: Duration = Duration::from_millis(50);
/// Time between two attempts to kill what is left.
const KILL_PERIOD: Duration = Duration::from_millis(20);
/// A unit of which nothing was seen for this long after its time is over. Whoever starts it now looks
/// at the clock first.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// A guard without a lease stays this long: the next one often comes soon.
const LINGER: Duration = Duration::from_secs(10);
/// Time between two looks at the folder where the kernel does not tell of changes.
const LOOK_PERIOD: u16 = 100;

/// Whether the guard's timer wakes a suspended machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakesUp {
    /// It does: a unit is stopped in time also then.
    Yes,
    /// It does not: the unit does not run while the machine is suspended, and is stopped right after.
    No,
}

impl WakesUp {
    /// What a timer of this machine can do.
    pub fn here() -> Result<Self, String> {
        timer().map(|(_, wakes)| wakes)
    }
}

/// Guards a folder until no lease is left in it. Somebody else doing so already is as good.
pub fn guard(path: &Path) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let folder = Folder::new(path);
    folder.make().map_err(failed("its folder cannot be made"))?;
    let own = File::open(path).map_err(failed("its folder cannot be opened"))?;
    // Held until the end of the process, however it ends.
    match own.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            say("another one guards this folder");
            return Ok(());
        }
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(format!("its folder cannot be locked: {error}"));
        }
    }
    harden();
    let changes = changes(path);
    let (timer, wakes) = timer()?;
    let pid = std::process::id();
    let started = process::start_time(pid).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    // Whoever has an answer finds who gave it.
    folder
        .write_guard(&Process { pid, started, version })
        .map_err(failed("its folder cannot be written"))?;
    let mut watch = Watch::new(folder.clone());
    watch.look_at_all();
    say(&format!("guards {}; wakes a suspended machine: {wakes:?}", path.display()));
    let mut idle_since = BootTime::now();
    loop {
        watch.act();
        let now = BootTime::now();
        let next = match watch.next(now) {
            Some(next) => {
                idle_since = now;
                next
            }
            None if now.since(idle_since) >= LINGER => break,
            None => idle_since + LINGER,
        };
        wait(&timer, changes.as_ref(), next)?;
        match &changes {
            Some(changes) => match changes.read_events() {
                Ok(events) if events.iter().all(|event| event.name.is_some()) => {
                    for name in events.into_iter().filter_map(|event| event.name) {
                        if let Some(unit) = name.to_str().and_then(Folder::unit_of) {
                            watch.look_at(unit);
                        }
                    }
                }
                // Nothing new.
                Err(nix::errno::Errno::EAGAIN) => {}
                // So much is new that the kernel could not name it all, or the folder itself changed.
                Ok(_) | Err(_) => watch.look_at_all(),
            },
            None => watch.look_at_all(),
        }
    }
    folder.remove_guard();
    // Stays where something is left for the agent to read.
    let _ = std::fs::remove_dir(path);
    say("no lease is left");
    Ok(())
}

/// Every unit with a lease, and what was done about it.
///
/// Invariant: the lease of a unit is the last one of its run that could be believed; a file that cannot
/// be read changes nothing.
#[derive(Debug)]
struct Watch {
    folder: Folder,
    boot: String,
    units: BTreeMap<String, Unit>,
}

#[derive(Debug)]
struct Unit {
    lease: LeaseFile,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its lease runs.
    Armed,
    /// It was asked to stop, and is looked at again.
    Asked { at: BootTime, told: BTreeSet<u32>, next: BootTime },
    /// Its time is over.
    Killing { fired: Fired, seen: BootTime, next: BootTime },
}

impl Watch {
    fn new(folder: Folder) -> Self {
        Self { folder, boot: process::boot_id(), units: BTreeMap::new() }
    }

    fn look_at_all(&mut self) {
        match self.folder.units() {
            Ok(there) => {
                let known = self.units.keys().cloned();
                for unit in known.chain(there).collect::<BTreeSet<_>>() {
                    self.look_at(&unit);
                }
            }
            // What is known is guarded on.
            Err(error) => say(&format!("the folder cannot be read: {error}")),
        }
    }

    /// Takes in what the lease file of a unit says now.
    fn look_at(&mut self, unit: &str) {
        let read = self.folder.lease(unit, &self.boot);
        let known = self.units.get_mut(unit);
        match (read, known) {
            (Ok(lease), Some(known)) if known.lease.run == lease.run => {
                // Once asked to stop, there is no way back: part of it may be gone.
                if matches!(known.stage, Stage::Armed) {
                    known.lease = lease;
                } else {
                    known.lease.reach = lease.reach;
                }
            }
            (Ok(lease), _) => {
                let answer = Answer { run: Some(lease.run), armed: Ok(()) };
                self.units.insert(unit.to_owned(), Unit { lease, stage: Stage::Armed });
                self.answer(unit, &answer);
            }
            (Err(LeaseError::Unreadable(error)), _)
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                self.units.remove(unit);
            }
            (Err(LeaseError::OtherBoot), _) => {
                say(&format!("{unit}: its lease is of another boot: removed"));
                self.units.remove(unit);
                self.folder.remove(unit);
            }
            (Err(error), known) => {
                let stays =
                    if known.is_some() { "; the lease before it stays in force" } else { "" };
                say(&format!("{unit}: its lease file is refused: {error}{stays}"));
                if known.is_none() {
                    self.answer(unit, &Answer { run: None, armed: Err(error.to_string()) });
                }
            }
        }
    }

    fn answer(&self, unit: &str, answer: &Answer) {
        if let Err(error) = self.folder.write_answer(unit, answer) {
            say(&format!("{unit}: cannot be answered: {error}"));
        }
    }

    /// Does what is due.
    fn act(&mut self) {
        let due: Vec<String> = {
            let now = BootTime::now();
            let due = self.units.iter().filter(|(_, unit)| unit.due() <= now);
            due.map(|(name, _)| name.clone()).collect()
        };
        for name in due {
            // A renewal may have come that was not read yet.
            if self.units.get(&name).is_some_and(|unit| matches!(unit.stage, Stage::Armed)) {
                self.look_at(&name);
            }
            let now = BootTime::now();
            let Some(unit) = self.units.get_mut(&name).filter(|unit| unit.due() <= now) else {
                continue;
            };
            if unit.step(&self.folder, now) {
                say(&format!("{name}: run {} is gone", unit.lease.run));
                self.folder.remove_lease(&name);
                self.units.remove(&name);
            }
        }
    }

    /// When something is due; `None`: there is no lease.
    fn next(&self, now: BootTime) -> Option<BootTime> {
        self.units.values().map(Unit::due).min().map(|next| next.max(now))
    }
}

impl Unit {
    fn due(&self) -> BootTime {
        match &self.stage {
            Stage::Armed => self.lease.until,
            Stage::Asked { next, .. } => (*next).min(self.lease.kill_at()),
            Stage::Killing { next, .. } => *next,
        }
    }

    /// Does what is due; true: it is over.
    fn step(&mut self, folder: &Folder, now: BootTime) -> bool {
        let lease = &self.lease;
        let late = now >= lease.kill_at();
        match &mut self.stage {
            Stage::Armed | Stage::Asked { .. } if late => {
                let nobody = lease.reach.kill();
                let asked = match &self.stage {
                    Stage::Asked { at, .. } => *at,
                    _ => now,
                };
                let killed = (!nobody).then_some(now);
                let fired = Fired { run: lease.run, asked, killed };
                note(folder, lease, &fired);
                if !nobody {
                    say(&format!("{}: killed: its lease ran out and it did not stop", lease.unit));
                }
                self.stage = Stage::Killing { fired, seen: now, next: now + KILL_PERIOD };
                false
            }
            Stage::Armed => {
                // First, because who is asked may be gone a moment later, and its agent want to know why.
                note(folder, lease, &Fired { run: lease.run, asked: now, killed: None });
                let told = lease.ask(|_| true);
                say(&format!("{}: its lease has run out: asked to stop", lease.unit));
                self.stage = Stage::Asked { at: now, told, next: now + ASK_PERIOD };
                false
            }
            Stage::Asked { told, next, .. } => {
                let new = lease.ask(|pid| !told.contains(&pid));
                told.extend(new);
                *next = now + ASK_PERIOD;
                false
            }
            Stage::Killing { fired, seen, next } => {
                if !lease.reach.kill() {
                    *seen = now;
                    if fired.killed.is_none() {
                        fired.killed = Some(now);
                        note(folder, lease, fired);
                    }
                }
                *next = now + KILL_PERIOD;
                now.since(*seen) >= GONE_AFTER
            }
        }
    }
}

impl LeaseFile {
    /// Sends the stop signal to those that `wanted` lets through.
    fn ask(&self, wanted: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        // One that is frozen by job control cannot hear.
        self.reach.signal(&[self.signal(), Signal::SIGCONT], wanted)
    }
}

fn note(folder: &Folder, lease: &LeaseFile, fired: &Fired) {
    if let Err(error) = folder.write_fired(&lease.unit, fired) {
        say(&format!("{}: cannot be written down: {error}", lease.unit));
    }
}

/// Makes it hard to lose the guard to a busy or crowded machine. What the kernel refuses is done
/// without.
fn harden() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // SAFETY: no memory is passed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    // Only what it has touched, which is little: it must not wait for a disk.
    // SAFETY: no memory is passed.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
}

/// Tells of changed files; `None`: the machine has no more of these to give.
fn changes(path: &Path) -> Option<Inotify> {
    let watched = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    let opened = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
        .and_then(|inotify| inotify.add_watch(path, watched).map(|_| inotify));
    if let Err(error) = &opened {
        say(&format!("no news of changed files ({error}): looks every {LOOK_PERIOD} ms"));
    }
    opened.ok()
}

/// A timer on the clock that counts suspensions, which wakes the machine where that is allowed.
fn timer() -> Result<(TimerFd, WakesUp), String> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    if let Ok(timer) = TimerFd::new(ClockId::CLOCK_BOOTTIME_ALARM, flags) {
        return Ok((timer, WakesUp::Yes));
    }
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)
        .map_err(|error| format!("no timer that counts suspensions: {error}"))?;
    Ok((timer, WakesUp::No))
}

/// Waits until `next`, or until a file has changed.
fn wait(timer: &TimerFd, changes: Option<&Inotify>, next: BootTime) -> Result<(), String> {
    // Zero would switch it off.
    let at = TimeSpec::from_duration(next.since_boot().max(Duration::from_nanos(1)));
    timer
        .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        .map_err(|error| format!("the timer cannot be set: {error}"))?;
    let mut descriptors = vec![PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
    descriptors.extend(changes.map(|changes| PollFd::new(changes.as_fd(), PollFlags::POLLIN)));
    let patience = if changes.is_some() { PollTimeout::NONE } else { LOOK_PERIOD.into() };
    match poll(&mut descriptors, patience) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(format!("cannot wait: {error}")),
    }
}

/// One line to whoever keeps the guard's words. Nobody listening is no reason to end.
pub fn say(line: &str) {
    let since = BootTime::now().since_boot();
    let _ = writeln!(std::io::stderr(), "weft-guard [{:.3}] {line}", since.as_secs_f64());
}
