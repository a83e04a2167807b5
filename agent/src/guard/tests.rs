//! The guard against real processes of this machine.

use fabric::id::{AllocId, JobName};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::lease::{Answer, Fired, Folder, LeaseFile};
use super::reach::Reach;
use super::{Keeper, LeaseOf, Leases, command};
use crate::clock::{BootTime, Clock};
use crate::{cgroup, process};

/// Names the folder to guard in the environment of [`a_guard_of_another_test`].
pub const FOLDER: &str = "WEFT_TEST_GUARD";

/// Far more than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(300);
/// Longer than a busy machine is late.
const WHILE: Duration = Duration::from_secs(4);

/// Not a test of its own: the guard that the others start, where the environment asks for it.
#[test]
fn a_guard_of_another_test() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        super::main(["--dir".into(), folder].into_iter());
    }
}

/// A folder, and a guard that guards it.
struct Guarded {
    folder: Folder,
    state: tempfile::TempDir,
    guard: Option<Child>,
}

impl Guarded {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::new(state.path().join("leases"));
        folder.make().unwrap();
        Self { folder, state, guard: None }
    }

    /// Starts the guard, and waits until it guards.
    fn guarded(mut self) -> Self {
        self.start();
        self
    }

    fn start(&mut self) {
        self.guard = Some(start_guard(self.folder.path()));
        let pid = self.guard.as_ref().unwrap().id();
        wait("the guard guards", || self.folder.guard().is_some_and(|guard| guard.pid == pid));
    }

    fn kill_guard(&mut self) {
        let mut guard = self.guard.take().unwrap();
        guard.kill().unwrap();
        guard.wait().unwrap();
    }

    /// A unit that runs `script`, and its lease.
    fn unit(&self, job: &str, script: &str, reach: Kind) -> Unit {
        let name = AllocId::new(JobName::new(job).unwrap(), 0, 1).unit();
        let log = self.state.path().join(job);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .env("LOG", &log)
            .env("STUBBORN", STUBBORN)
            .env("WEFT_UNIT", &name)
            .env("WEFT_RUN", "1")
            .env("WEFT_AGENT", self.state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let agent = self.state.path().to_str().unwrap();
        let mut wanted = Reach::marked(&name, 1, agent);
        if let (Kind::Cgroup, Some(mount)) = (reach, cgroup::mount()) {
            let unique = self.state.path().file_name().unwrap();
            let path = mount.join(unique).join(&name);
            if std::fs::create_dir_all(&path).is_ok() {
                let procs = path.join("cgroup.procs");
                let enter = move || std::fs::write(&procs, "0");
                // SAFETY: a test with one thread to fork from.
                unsafe { command.pre_exec(enter) };
                wanted = Reach::Cgroup(path);
            }
        }
        // SAFETY: one system call.
        unsafe {
            command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
        }
        let child = command.spawn().unwrap();
        let pid = child.id();
        if let Reach::Marked { leader, .. } = &mut wanted {
            *leader = Some((pid, process::start_time(pid).unwrap()));
        }
        let until = BootTime::now() + PATIENCE;
        let lease = LeaseFile::new(&process::boot_id(), name, 1, until, wanted);
        Unit { child, lease, log, folder: self.folder.clone() }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        if let Some(mount) = cgroup::mount() {
            let _ = cgroup::remove(&mount.join(self.state.path().file_name().unwrap()));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Where there are any; marked otherwise.
    Cgroup,
    Marked,
}

struct Unit {
    child: Child,
    lease: LeaseFile,
    log: PathBuf,
    folder: Folder,
}

impl Unit {
    fn write(&mut self, until: BootTime, stop_timeout: Duration) {
        self.lease.until = until;
        self.lease.stop_timeout = stop_timeout;
        self.folder.write_lease(&self.lease).unwrap();
    }

    fn armed(&self) {
        let wanted = Answer { run: Some(self.lease.run), armed: Ok(()) };
        wait("it is armed", || self.folder.answer(&self.lease.unit) == Some(wanted.clone()));
    }

    fn runs(&self) -> bool {
        !self.lease.reach.pids().is_empty()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_log(&self, text: &str) {
        wait(&format!("it writes {text:?}"), || self.log().contains(text));
    }

    /// Waits until nothing of it runs; when that was, and what the guard wrote down.
    fn gone(&self) -> (BootTime, Option<Fired>) {
        wait("it is gone", || !self.runs());
        let (gone, told) =
            (BootTime::now(), || self.folder.fired(&self.lease.unit, self.lease.run));
        // Whoever was killed is gone a moment before the guard has written that down.
        let is_told =
            || gone < self.lease.kill_at() || told().is_some_and(|it| it.killed.is_some());
        for _ in 0..100 {
            if is_told() {
                break;
            }
            pause(Duration::from_millis(20));
        }
        (gone, told())
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.lease.reach.kill();
        let _ = self.child.wait();
    }
}

fn start_guard(folder: &Path) -> Child {
    let (command, environment): (Vec<OsString>, _) = command(folder);
    let mut starting = Command::new(&command[0]);
    starting.args(&command[1..]).envs(environment).stdin(Stdio::null()).stdout(Stdio::null());
    starting.spawn().unwrap()
}

#[allow(clippy::disallowed_methods, reason = "a test waits for real processes")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = BootTime::now() + PATIENCE;
    while !holds() {
        assert!(BootTime::now() < deadline, "in vain: {what}");
        pause(Duration::from_millis(5));
    }
}

const POLITE: &str =
    "trap 'echo asked >>$LOG; exit 0' TERM; echo up >>$LOG; while :; do sleep 0.01; done";
const STUBBORN: &str =
    "trap 'echo asked >>$LOG' TERM; echo up >>$LOG; while :; do sleep 0.01; done";

#[test]
fn a_unit_is_asked_to_stop_at_the_end_of_its_lease_and_not_before() {
    for kind in [Kind::Cgroup, Kind::Marked] {
        let guarded = Guarded::new().guarded();
        let mut unit = guarded.unit("polite", POLITE, kind);
        unit.wait_for_log("up");
        let until = BootTime::now() + MOMENT;
        unit.write(until, PATIENCE);
        unit.armed();
        let (gone, fired) = unit.gone();
        assert!(gone >= until, "{kind:?}");
        assert!(gone.since(until) < PATIENCE / 2, "{kind:?}: {:?}", gone.since(until));
        let fired = fired.expect("it says so");
        assert!(fired.asked >= until && fired.killed.is_none(), "{fired:?}");
        assert_eq!(unit.log(), "up\nasked\n", "asked once: {kind:?}");
    }
}

/// Its agent may see it go in the moment after it was asked, and says what stands there then.
#[test]
fn why_a_unit_is_asked_to_stop_is_written_down_before_it_is_asked() {
    let guarded = Guarded::new().guarded();
    let mut unit = guarded.unit("noted", POLITE, Kind::Marked);
    unit.wait_for_log("up");
    // Whoever opens this to write waits until somebody reads.
    let note = guarded.folder.path().join(format!(".{}.fired", unit.lease.unit));
    nix::unistd::mkfifo(&note, nix::sys::stat::Mode::S_IRWXU).unwrap();
    unit.write(BootTime::now() + MOMENT, PATIENCE);
    unit.armed();
    pause(5 * MOMENT);
    assert_eq!(unit.log(), "up\n", "it was not asked yet");
    let reading = std::fs::File::open(note).unwrap();
    unit.wait_for_log("asked");
    drop(reading);
}

#[test]
fn a_unit_that_does_not_hear_is_killed_after_its_stop_timeout_with_all_it_started() {
    for kind in [Kind::Cgroup, Kind::Marked] {
        let guarded = Guarded::new().guarded();
        // One child in a session of its own, whose parent is gone: a daemon.
        let script = "(setsid sh -c \"$STUBBORN\" &); eval \"$STUBBORN\"";
        let mut unit = guarded.unit("stubborn", script, kind);
        wait("both are up", || unit.log().matches("up").count() == 2);
        let until = BootTime::now() + MOMENT;
        unit.write(until, WHILE);
        let (gone, fired) = unit.gone();
        assert!(gone >= unit.lease.kill_at(), "{kind:?}");
        let fired = fired.expect("it says so");
        assert!(fired.asked >= until && fired.asked < unit.lease.kill_at(), "{fired:?}");
        assert!(fired.killed.expect("it killed") >= unit.lease.kill_at(), "{fired:?}");
        assert_eq!(unit.log().matches("asked").count(), 2, "both were asked, once: {kind:?}");
    }
}

#[test]
fn a_renewed_lease_keeps_a_unit_running_and_a_removed_one_lets_it_go() {
    let guarded = Guarded::new().guarded();
    let mut unit = guarded.unit("renewed", POLITE, Kind::Cgroup);
    unit.wait_for_log("up");
    // Longer in all than one lease.
    for _ in 0..20 {
        unit.write(BootTime::now() + WHILE, MOMENT);
        pause(MOMENT);
        assert!(unit.runs());
    }
    guarded.folder.remove(&unit.lease.unit);
    pause(WHILE + MOMENT);
    assert!(unit.runs(), "whoever removes the lease has seen the unit's end, or answers for it");
    assert_eq!(unit.log(), "up\n");
}

#[test]
fn a_guard_that_is_killed_and_started_again_knows_what_to_guard() {
    let mut guarded = Guarded::new().guarded();
    let mut unit = guarded.unit("twice", STUBBORN, Kind::Cgroup);
    unit.wait_for_log("up");
    unit.write(BootTime::now() + MOMENT, WHILE);
    wait("it was asked", || unit.log().contains("asked"));
    guarded.kill_guard();
    pause(MOMENT);
    guarded.start();
    let (gone, fired) = unit.gone();
    assert!(gone >= unit.lease.kill_at() && fired.unwrap().killed.is_some());
    // One that ran out while there was no guard at all is killed at once.
    guarded.kill_guard();
    let mut late = guarded.unit("late", STUBBORN, Kind::Cgroup);
    late.write(BootTime::now(), Duration::ZERO);
    pause(MOMENT);
    assert!(late.runs());
    guarded.start();
    late.gone();
}

#[test]
fn a_process_that_appears_after_the_end_of_the_lease_is_ended_too() {
    let guarded = Guarded::new().guarded();
    let name = AllocId::new(JobName::new("slow").unwrap(), 0, 1).unit();
    let reach = Reach::marked(&name, 1, guarded.state.path().to_str().unwrap());
    let until = BootTime::now() + MOMENT;
    let lease = LeaseFile::new(&process::boot_id(), name.clone(), 1, until, reach);
    guarded.folder.write_lease(&lease).unwrap();
    wait("it has fired", || guarded.folder.fired(&name, 1).is_some());
    // An agent that was stopped between the guard's answer and the start.
    let slow = guarded.unit("slow", STUBBORN, Kind::Marked);
    slow.gone();
    wait("the lease goes when nothing was seen for a while", || {
        guarded.folder.units().unwrap().is_empty()
    });
    assert!(guarded.folder.fired(&name, 1).unwrap().killed.is_some());
}

#[test]
fn what_cannot_be_believed_is_refused_and_changes_nothing() {
    let guarded = Guarded::new().guarded();
    let mut unit = guarded.unit("believed", POLITE, Kind::Cgroup);
    unit.wait_for_log("up");
    let until = BootTime::now() + 2 * WHILE;
    unit.write(until, MOMENT);
    unit.armed();
    let path = guarded.folder.path().join(format!("{}.lease", unit.lease.unit));
    let text = std::fs::read_to_string(&path).unwrap();
    let far = unit.lease.until + Duration::from_secs(1_000_000);
    let garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0\xff\xfe nonsense".to_vec(),
        text[..text.len() / 2].into(),
        "[".repeat(15_000).into(),
        vec![b' '; 1 << 20],
        text.replace("\"format\":1", "\"format\":2").into(),
        text.replace("SIGTERM", "SIGNOTHING").into(),
        text.replace("believed", "stranger").into(),
        text.replace(
            &unit.lease.until.since_boot().as_nanos().to_string(),
            &far.since_boot().as_nanos().to_string(),
        )
        .into(),
    ];
    for bytes in &garbage {
        // As the agent would, and in place.
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(&new, &path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    // Names that are none, a folder, and a pipe that would make a careless reader wait for ever.
    std::fs::write(guarded.folder.path().join("nonsense.lease"), b"x").unwrap();
    std::fs::create_dir(guarded.folder.path().join("weft-folder-0-1-00000000.service.lease"))
        .unwrap();
    let pipe = guarded.folder.path().join("weft-pipe-0-1-00000000.service.lease");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let answered = |unit: &str| guarded.folder.answer(unit).is_some_and(|said| said.armed.is_err());
    for unit in ["weft-folder-0-1-00000000.service", "weft-pipe-0-1-00000000.service"] {
        std::fs::rename(
            guarded.folder.path().join(format!("{unit}.lease")),
            path.with_extension("x"),
        )
        .unwrap();
        std::fs::rename(
            path.with_extension("x"),
            guarded.folder.path().join(format!("{unit}.lease")),
        )
        .unwrap();
        wait("it is refused", || answered(unit));
    }
    assert!(unit.runs());
    let (gone, _) = unit.gone();
    assert!(gone >= until, "the lease before the garbage was in force until its end");
}

#[test]
fn a_lease_may_not_reach_beyond_its_unit() {
    let name = AllocId::new(JobName::new("reach").unwrap(), 0, 1).unit();
    let boot = process::boot_id();
    let until = BootTime::now() + MOMENT;
    let with = |reach| LeaseFile::new(&boot, name.clone(), 1, until, reach).check(&name, &boot);
    let mount = cgroup::mount().unwrap_or("/sys/fs/cgroup".into());
    for path in
        ["/", "/etc", "/tmp/weft-reach-0-1-00000000.service", "weft-reach-0-1-00000000.service"]
    {
        with(Reach::Cgroup(path.into())).unwrap_err();
    }
    for path in [
        "",
        "weft.slice",
        "a/../weft-reach-0-1-00000000.service",
        "weft-reach-0-2-00000000.service",
    ] {
        with(Reach::Cgroup(mount.join(path))).unwrap_err();
    }
    let marked = |leader, variables: &[&str]| {
        let variables = variables.iter().map(|text| text.to_string()).collect();
        with(Reach::Marked { leader, variables })
    };
    let unit = format!("WEFT_UNIT={name}");
    marked(None, &[]).unwrap_err();
    marked(None, &["PATH=/bin"]).unwrap_err();
    marked(None, &[&unit]).unwrap_err();
    marked(None, &[&unit, "WEFT_RUN=2"]).unwrap_err();
    marked(Some((1, 1)), &[&unit, "WEFT_RUN=1"]).unwrap_err();
    marked(Some((u32::MAX, 1)), &[&unit, "WEFT_RUN=1"]).unwrap_err();
    marked(Some((2, 1)), &[&unit, "WEFT_RUN=1"]).unwrap();
}

#[test]
fn a_lease_of_another_boot_stops_nothing_and_goes_away() {
    let guarded = Guarded::new().guarded();
    let mut unit = guarded.unit("boot", POLITE, Kind::Cgroup);
    unit.wait_for_log("up");
    unit.lease.boot = "00000000-0000-0000-0000-000000000000".into();
    unit.write(BootTime::now(), Duration::ZERO);
    wait("it is removed", || guarded.folder.units().unwrap().is_empty());
    pause(MOMENT);
    assert!(unit.runs(), "what has its number now is somebody else");
}

#[test]
fn a_folder_has_one_guard() {
    let mut guarded = Guarded::new().guarded();
    let mut second = start_guard(guarded.folder.path());
    assert!(second.wait().unwrap().success());
    assert_eq!(guarded.guard.as_mut().unwrap().try_wait().unwrap(), None);
    assert_eq!(guarded.folder.guard().unwrap().pid, guarded.guard.as_ref().unwrap().id());
}

/// An agent's side without an agent.
fn leases(guarded: &Guarded) -> (Clock, Leases, Keeper) {
    let clock = Clock::start();
    let leases = Leases::open(guarded.folder.path().into(), clock);
    let keeper = Keeper::new(leases.clone(), None, guarded.state.path().join("guard.log"));
    (clock, leases, keeper)
}

fn lease_of<'a>(alloc: &'a AllocId, clock: &Clock, length: Duration) -> LeaseOf<'a> {
    let until = clock.now().at + length;
    LeaseOf { alloc, run: 1, until, stop_timeout: MOMENT, stop_signal: "SIGTERM" }
}

#[test]
fn the_agent_starts_a_guard_and_starts_it_again_when_it_dies() {
    let guarded = Guarded::new();
    let (clock, leases, keeper) = leases(&guarded);
    let alloc = AllocId::new(JobName::new("kept").unwrap(), 0, 1);
    let reach = Reach::marked(&alloc.unit(), 1, guarded.state.path().to_str().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lease = lease_of(&alloc, &clock, PATIENCE);
        let ensure = || async { keeper.ensure() };
        leases.arm(&lease, reach.clone(), ensure).await.unwrap();
        let first = guarded.folder.guard().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(first.pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        let another = async {
            while guarded.folder.guard().is_none_or(|guard| guard == first) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, another).await.expect("a guard again");
        // It is the one that the next agent finds.
        let (_, next, _) = self::leases(&guarded);
        next.adopt();
        let until = next.until(&alloc, 1).expect("the lease is known to the next agent");
        assert!(until.since_origin() > Duration::from_secs(1), "{until:?}");
        leases.disarm(&alloc, 1);
        assert!(guarded.folder.units().unwrap().is_empty());
    });
    // It would stay for a while for the next lease.
    let guard = guarded.folder.guard().unwrap();
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(guard.pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    );
}

#[test]
fn nothing_is_armed_without_a_guard_or_after_its_time() {
    let guarded = Guarded::new();
    let (clock, leases, _) = leases(&guarded);
    let alloc = AllocId::new(JobName::new("never").unwrap(), 0, 1);
    let reach = || Reach::marked(&alloc.unit(), 1, "x");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lease = lease_of(&alloc, &clock, PATIENCE);
        let none = || async { Err("there is none".to_owned()) };
        let reason = leases.arm(&lease, reach(), none).await.unwrap_err();
        assert!(reason.contains("there is none"), "{reason}");
        let silent = || async { Ok(()) };
        let reason = leases.arm(&lease, reach(), silent).await.unwrap_err();
        assert!(reason.contains("does not answer"), "{reason}");
        let over = LeaseOf { until: clock.now().at, ..lease };
        let reason = leases.arm(&over, reach(), silent).await.unwrap_err();
        assert!(reason.contains("run out"), "{reason}");
    });
    assert!(guarded.folder.units().unwrap().is_empty(), "nothing is left behind");
    assert!(!leases.any());
}

#[test]
fn what_cannot_be_looked_at_is_not_said_to_be_gone() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("cgroup");
    assert!(Reach::Cgroup(there.clone()).is_empty(), "it is gone");
    // Not a file: the kernel says something else than that there is nobody.
    std::fs::create_dir_all(there.join("cgroup.procs")).unwrap();
    let reach = Reach::Cgroup(there);
    assert!(reach.pids().is_empty() && !reach.is_empty());
    assert!(!reach.kill(), "it is looked at again");
}
