//! The direct executor against real processes of this machine.

use fabric::claim::Claim;
use fabric::cpuset::CpuSet;
use fabric::id::{AllocId, Birth, JobName};
use fabric::io::{Launch, UnitEvent};
use fabric::job::{Sandbox, Task, TaskFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;

use super::bus::Bus;
use super::output::{Channel, LogQuery};
use super::systemd::{self, Unusable};
use super::{Executor, Preference};
use crate::clock::Clock;
use crate::process;

pub mod checks;
pub mod floods;
pub mod host;
pub mod leased;
mod silent;

/// Far more than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime like the agent's, an executor, and what it says.
pub struct Agent {
    pub runtime: tokio::runtime::Runtime,
    pub executor: Executor,
    pub events: mpsc::Receiver<(AllocId, u32, UnitEvent)>,
    clock: Clock,
}

impl Drop for Agent {
    /// The agent's own cgroup, once it is empty; an agent leaves it to its successor.
    fn drop(&mut self) {
        if let Executor::Direct(direct) = &self.executor
            && let Some(cgroup) = direct.cgroup_of(&AllocId::new(JobName::new("x").unwrap(), 0, 1))
        {
            let own = cgroup.parent().unwrap();
            // A guard may linger there.
            let _ = std::fs::remove_dir(own.join("guard"));
            let _ = std::fs::remove_dir(own);
        }
    }
}

impl Agent {
    pub fn direct(state: &Path) -> Self {
        Self::with(Preference::Direct, state)
    }

    pub fn with(preference: Preference, state: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, events) = mpsc::channel(256);
        let clock = Clock::start();
        let choice = Executor::choose(preference, state, clock, sender);
        let executor = runtime.block_on(choice).unwrap().executor;
        Self { runtime, executor, events, clock }
    }

    pub fn now(&self) -> fabric::clock::Instant {
        self.clock.now().at
    }

    pub fn start(&mut self, launch: &Launch) {
        self.runtime.block_on(self.executor.start(launch.clone()));
    }

    pub fn stop(&mut self, launch: &Launch) {
        self.runtime.block_on(self.executor.stop(&launch.alloc, launch.run));
    }

    pub fn next(&mut self) -> (AllocId, u32, UnitEvent) {
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        self.runtime.block_on(next).expect("an event in time").expect("an open channel")
    }

    /// The next event, which must be about this run.
    pub fn event(&mut self, launch: &Launch) -> UnitEvent {
        let (alloc, run, event) = self.next();
        assert_eq!((&alloc, run), (&launch.alloc, launch.run), "{event:?}");
        event
    }

    pub fn running(&mut self, launch: &Launch) -> u32 {
        match self.event(launch) {
            UnitEvent::Running { pid, .. } => pid,
            other => panic!("it should run, and {other:?}"),
        }
    }

    pub fn exited(&mut self, launch: &Launch) -> (String, bool, bool) {
        match self.event(launch) {
            UnitEvent::Exited { status, success, killed } => (status, success, killed),
            other => panic!("it should have ended, and {other:?}"),
        }
    }

    pub fn refused(&mut self, launch: &Launch) -> String {
        match self.event(launch) {
            UnitEvent::Refused { reason } => reason,
            other => panic!("it should be refused, and {other:?}"),
        }
    }

    /// Everything in a log now.
    pub fn log(&mut self, launch: &Launch, query: LogQuery) -> String {
        self.runtime.block_on(async {
            let mut stream = self.executor.logs(&launch.alloc, query).await.unwrap();
            let mut text = Vec::new();
            while let Some(chunk) = stream.next().await {
                text.extend_from_slice(&chunk.unwrap().bytes);
            }
            String::from_utf8(text).unwrap()
        })
    }

    /// Waits until a log holds `wanted`.
    pub fn wait_for_log(&mut self, launch: &Launch, wanted: &str) {
        let follow = LogQuery { follow: true, ..LogQuery::default() };
        let found = self.runtime.block_on(async {
            let mut stream = self.executor.logs(&launch.alloc, follow).await.unwrap();
            let mut text = Vec::new();
            tokio::time::timeout(PATIENCE, async {
                while !String::from_utf8_lossy(&text).contains(wanted) {
                    let Some(chunk) = stream.next().await else { return false };
                    text.extend_from_slice(&chunk.unwrap().bytes);
                }
                true
            })
            .await
        });
        assert!(found.expect("the line in time"), "the log ended without {wanted:?}");
    }
}

/// 256 KiB, until this is dropped.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=256k")).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A unit to start. No two have one name, since all tests at a time are on one systemd.
pub fn launch(job: &str, command: &[&str]) -> Launch {
    static BIRTHS: AtomicU32 = AtomicU32::new(1);
    let birth = Birth(BIRTHS.fetch_add(1, Relaxed));
    let own = process::affinity(0).unwrap();
    Launch {
        alloc: AllocId { birth, ..AllocId::new(JobName::new(job).unwrap(), 0, 1) },
        run: 1,
        node: "here".into(),
        task: Task {
            command: command.iter().map(|word| word.to_string()).collect(),
            env: BTreeMap::new(),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: Duration::from_secs(10),
            sandbox: Sandbox::default(),
            arch: BTreeMap::new(),
        },
        memory: 64 << 20,
        swap: 0,
        cpu_hard: false,
        claim: Claim { shared_millis: 100, ..Claim::default() },
        cpus: own,
        health: None,
        lease: None,
    }
}

pub fn shell(job: &str, script: &str) -> Launch {
    launch(job, &["/bin/sh", "-c", script])
}

/// Changes what the agent left on disk about a unit.
fn edit_record(state: &Path, launch: &Launch, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = state.join("alloc").join(launch.alloc.unit()).join("unit.json");
    let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut record);
    std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
}

pub fn alive(pid: u32) -> bool {
    process::start_time(pid).is_some() && !process::is_zombie(pid)
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
    });
}

#[test]
fn an_agent_that_has_cgroups_ends_the_units_of_one_that_had_none() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let Executor::Direct(direct) = &mut agent.executor else { unreachable!("it was chosen") };
    direct.without_cgroups();
    let one = shell("older", "echo up; exec sleep 600");
    agent.start(&one);
    let pid = agent.running(&one);
    drop(agent);
    let mut next = Agent::direct(state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    assert!(matches!(found[0].event, UnitEvent::Running { pid: has, .. } if has == pid));
    next.stop(&one);
    let (_, _, killed) = next.exited(&one);
    assert!(!killed && !alive(pid));
}

#[test]
fn a_task_runs_and_its_exit_status_is_told() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    for (script, text, success) in [
        ("exit 0", "exit status 0", true),
        ("exit 3", "exit status 3", false),
        ("kill -KILL $$", "killed by SIGKILL", false),
    ] {
        let mut one = shell("exits", script);
        one.alloc.epoch = u64::from(text.len() as u32) + u64::from(success);
        agent.start(&one);
        agent.running(&one);
        assert_eq!(agent.exited(&one), (text.to_owned(), success, false));
    }
}

#[test]
fn a_command_that_is_not_there_is_refused_with_the_reason() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let missing = launch("missing", &["/no/such/program"]);
    agent.start(&missing);
    let reason = agent.refused(&missing);
    assert!(reason.contains("/no/such/program") && reason.contains("No such file"), "{reason}");
    let mut lost = shell("lost", "true");
    lost.task.working_dir = Some("/no/such/folder".into());
    agent.start(&lost);
    assert!(agent.refused(&lost).contains("working directory"));
    let mut nobody = shell("nobody", "true");
    nobody.task.user = Some("no-such-user".into());
    agent.start(&nobody);
    assert!(agent.refused(&nobody).contains("no-such-user"));
    let mut pinned = shell("pinned", "true");
    pinned.cpus = CpuSet::from_iter([4000]);
    agent.start(&pinned);
    let reason = agent.refused(&pinned);
    assert!(reason.contains("pin it") || reason.contains("cpuset.cpus = 4000"), "{reason}");
}

#[test]
fn a_start_that_comes_twice_starts_one_process() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let one = shell("twice", "echo started; exec sleep 600");
    agent.start(&one);
    let pid = agent.running(&one);
    agent.start(&one);
    assert_eq!(agent.running(&one), pid, "the second start says what is there");
    agent.wait_for_log(&one, "started");
    assert_eq!(agent.log(&one, LogQuery::default()), "started\n");
    agent.stop(&one);
    assert_eq!(agent.exited(&one), ("killed by SIGTERM".into(), false, false));
    agent.start(&one);
    assert_eq!(agent.exited(&one).0, "killed by SIGTERM", "a run is never started again");
    let next = Launch { run: 2, ..one.clone() };
    agent.start(&next);
    assert_ne!(agent.running(&next), pid);
    agent.stop(&next);
    agent.exited(&next);
}

#[test]
fn a_bus_that_is_missing_is_told_from_one_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let bus = Bus::new(Some(&format!("unix:path={}", path.display())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |within| runtime.block_on(systemd::version(&bus, within)).unwrap_err();

    assert!(matches!(ask(PATIENCE), Unusable::Here(why) if why.contains("no system bus")));

    // Somebody listens, and hangs up on everybody.
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let calls = std::thread::scope(|scope| {
        let callers = scope.spawn(|| {
            let mut calls = 0;
            while let Ok((mut caller, _)) = listener.accept() {
                let mut first = [0];
                if std::io::Read::read(&mut caller, &mut first).is_ok_and(|read| read == 0) {
                    break;
                }
                calls += 1;
            }
            calls
        });
        let error = ask(Duration::from_millis(2500));
        assert!(matches!(&error, Unusable::Now(why) if why.contains("does not answer")), "{error}");
        drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
        callers.join().unwrap()
    });
    assert!(calls > 1, "it is asked again: {calls}");
}

#[test]
fn commands_do_not_wait_for_whoever_reads_the_events() {
    let state = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (events, mut read) = mpsc::channel(1);
        let choice = Executor::choose(Preference::Direct, state.path(), Clock::start(), events)
            .await
            .unwrap();
        let never = shell("unread", "true");
        let commands = async {
            for _ in 0..10 {
                choice.executor.stop(&never.alloc, 1).await;
            }
        };
        tokio::time::timeout(PATIENCE, commands).await.expect("no command waits");
        for _ in 0..10 {
            let event = tokio::time::timeout(PATIENCE, read.recv()).await.unwrap().unwrap();
            assert!(matches!(event.2, UnitEvent::Exited { .. }));
        }
    });
}

#[test]
fn a_task_that_ignores_its_stop_signal_is_killed_with_all_it_started() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let mut deaf = shell(
        "deaf",
        "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo child $!; while :; do sleep 1; done",
    );
    deaf.task.stop_timeout = Duration::from_millis(300);
    agent.start(&deaf);
    let pid = agent.running(&deaf);
    agent.wait_for_log(&deaf, "child");
    let log = agent.log(&deaf, LogQuery::default());
    let child: u32 = log.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(alive(child));
    agent.stop(&deaf);
    assert_eq!(agent.exited(&deaf), ("killed by SIGKILL".into(), false, true));
    assert!(!alive(pid) && !alive(child), "nothing of it is left");
}

#[test]
fn what_a_main_process_leaves_behind_goes_with_it() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let parent = shell("parent", "sleep 600 & echo child $!; exit 0");
    agent.start(&parent);
    agent.running(&parent);
    assert_eq!(agent.exited(&parent), ("exit status 0".into(), true, false));
    let log = agent.log(&parent, LogQuery::default());
    let child: u32 = log.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(!alive(child));
}

#[test]
fn stopping_what_is_not_there_says_that_it_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let never = shell("never", "true");
    agent.stop(&never);
    assert_eq!(agent.exited(&never), ("gone".into(), false, false));
}

/// Not a test of its own: the program of [`threads_are_pinned`], when it finds itself in that job.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads are what this program is for")]
fn a_program_with_many_threads() {
    if std::env::var("WEFT_JOB").is_ok_and(|job| job == "threads") {
        let wait = || std::thread::sleep(Duration::from_secs(600));
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(wait)).collect();
        println!("ready");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Every thread has exactly the CPUs of the claim, and later exactly those it is moved to, under
/// either executor.
pub fn threads_are_pinned(agent: &mut Agent) {
    let own = process::affinity(0).unwrap();
    let first = CpuSet::from_iter(own.iter().take(1));
    let last = CpuSet::from_iter(own.iter().last());
    let program = std::env::current_exe().unwrap();
    let test = "executor::tests::a_program_with_many_threads";
    let mut threads =
        launch("threads", &[program.to_str().unwrap(), "--exact", test, "--nocapture"]);
    // The program may lie where a made-up user cannot go.
    threads.task.sandbox.enabled = false;
    threads.cpus = first.clone();
    threads.claim.mems = CpuSet::from_iter(process::online_nodes().iter().take(1));
    agent.start(&threads);
    let event = agent.event(&threads);
    let UnitEvent::Running { pid, cpus, mems } = event else { panic!("{event:?}") };
    assert_eq!((cpus, mems), (Some(first.clone()), Some(threads.claim.mems.clone())));
    agent.wait_for_log(&threads, "ready");
    let of_all = || -> Vec<CpuSet> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let numbers = tasks.map(|task| task.file_name().to_str().unwrap().parse().unwrap());
        numbers.map(|number| process::affinity(number).unwrap()).collect()
    };
    let before = of_all();
    assert!(before.len() > 8 && before.iter().all(|cpus| *cpus == first), "{before:?}");
    {
        let _inside = agent.runtime.enter();
        agent.executor.confine(&threads.alloc, threads.run, last.clone());
    }
    let event = agent.event(&threads);
    assert!(
        matches!(&event, UnitEvent::Running { cpus, .. } if cpus.as_ref() == Some(&last)),
        "{event:?}"
    );
    let after = of_all();
    assert!(after.len() > 8 && after.iter().all(|cpus| *cpus == last), "{after:?}");
    agent.stop(&threads);
    agent.exited(&threads);
}

#[test]
fn every_thread_has_the_affinity_of_the_claim_and_follows_when_it_is_moved() {
    let state = tempfile::tempdir().unwrap();
    threads_are_pinned(&mut Agent::direct(state.path()));
}

#[test]
fn memory_is_bound_to_the_claimed_nodes() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    if !process::memory_policy_works() {
        eprintln!("skipped: this kernel has no memory policies");
        return;
    }
    let node = CpuSet::from_iter(process::online_nodes().iter().take(1));
    let mut bound = shell("bound", "exec sleep 600");
    bound.claim.mems = node.clone();
    agent.start(&bound);
    let event = agent.event(&bound);
    let UnitEvent::Running { pid, mems, .. } = event else { panic!("{event:?}") };
    assert_eq!(mems, Some(node.clone()));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap();
    assert!(maps.lines().all(|line| line.contains(&format!("bind:{node}"))), "{maps}");
    agent.stop(&bound);
    agent.exited(&bound);
}

/// What bites where a cgroup has the controllers for it, under either executor.
pub fn limits_bite(agent: &mut Agent) {
    let enforced = agent.executor.enforced();
    if enforced.memory {
        let mut hungry = shell("hungry", "head -c 200m /dev/zero | tail | wc -c");
        hungry.memory = 32 << 20;
        hungry.task.command[2].push_str("; sleep 600");
        agent.start(&hungry);
        agent.running(&hungry);
        assert_eq!(agent.exited(&hungry), ("out of memory".into(), false, false));
    } else {
        eprintln!("skipped: no memory controller");
    }
    let mut held = shell("held", "sleep 600");
    let own = process::affinity(0).unwrap();
    held.cpus = CpuSet::from_iter(own.iter().take(1));
    held.claim.cpus = held.cpus.clone();
    held.claim.mems = CpuSet::from_iter(process::online_nodes().iter().take(1));
    held.task.sandbox.tasks_max = 7;
    agent.start(&held);
    let pid = agent.running(&held);
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own_path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = crate::cgroup::mount().zip(own_path).map(|(mount, path)| mount.join(path));
    let value = |file: &str| {
        let path = folder.as_ref().expect("a limit is enforced by a cgroup").join(file);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    };
    if enforced.cpuset {
        assert_eq!(value("cpuset.cpus.effective"), held.cpus.to_string());
        assert_eq!(value("cpuset.mems.effective"), held.claim.mems.to_string());
        assert_eq!(process::status(pid).unwrap().mems, held.claim.mems);
        assert!(process::set_affinity(pid as i32, &own).is_ok());
        assert_eq!(process::affinity(pid as i32).unwrap(), held.cpus, "nobody can widen it");
    } else {
        eprintln!("skipped: no cpuset controller");
    }
    if enforced.tasks {
        assert_eq!(value("pids.max"), "7");
    } else {
        eprintln!("skipped: no pids controller");
    }
    if enforced.cpu {
        assert_eq!(value("cpu.weight"), "100");
    } else {
        eprintln!("skipped: no cpu controller");
    }
    agent.stop(&held);
    agent.exited(&held);
}

#[test]
fn limits_that_are_advertised_bite() {
    let state = tempfile::tempdir().unwrap();
    limits_bite(&mut Agent::direct(state.path()));
}

#[test]
fn the_environment_names_the_allocation_and_its_ports() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let mut env = launch("env", &["/usr/bin/env"]);
    env.task.env.insert("GREETING".into(), "hello".into());
    env.task.env.insert("WEFT_JOB".into(), "a lie".into());
    env.claim.ports.insert("http-alt".into(), 8080);
    env.claim.devices = vec!["/dev/null".into(), "/dev/zero".into()];
    agent.start(&env);
    agent.running(&env);
    agent.exited(&env);
    let log = agent.log(&env, LogQuery::default());
    for line in [
        "GREETING=hello",
        "WEFT_JOB=env",
        "WEFT_SLOT=0",
        "WEFT_EPOCH=1",
        "WEFT_RUN=1",
        "WEFT_NODE=here",
        "WEFT_DEVICES=/dev/null /dev/zero",
        "WEFT_PORT_HTTP_ALT=8080",
        &format!("WEFT_UNIT={}", env.alloc.unit()),
    ] {
        assert!(log.lines().any(|has| has == line), "{line} in {log}");
    }
    assert!(!log.contains("CARGO"), "nothing of the agent's own environment: {log}");
}

#[test]
fn a_task_is_nobody_special_unless_it_is_asked_to_be() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let status = "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status";
    let closed = shell("closed", status);
    agent.start(&closed);
    agent.running(&closed);
    agent.exited(&closed);
    let log = agent.log(&closed, LogQuery::default());
    let field = |log: &str, key: &str| -> String {
        let line = log
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key} in {log}"));
        line.split_ascii_whitespace().nth(1).unwrap_or("").to_owned()
    };
    let user: u32 = field(&log, "Uid").parse().unwrap();
    assert!((61184..=65519).contains(&user), "{user}");
    for none in ["CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&log, none), "0000000000000000");
    }
    assert_eq!(field(&log, "NoNewPrivs"), "1");
    assert_eq!(field(&log, "Groups"), "");

    let mut open = shell("open", status);
    open.task.sandbox.capabilities = vec!["CAP_NET_BIND_SERVICE".into()];
    agent.start(&open);
    agent.running(&open);
    agent.exited(&open);
    let log = agent.log(&open, LogQuery::default());
    assert_eq!(field(&log, "CapEff"), "0000000000000400");

    let mut root = shell("root", status);
    root.task.sandbox.enabled = false;
    agent.start(&root);
    agent.running(&root);
    agent.exited(&root);
    let log = agent.log(&root, LogQuery::default());
    assert_eq!(field(&log, "Uid"), "0");
    assert_eq!(field(&log, "NoNewPrivs"), "0");

    let mut named = shell("named", "id -un; echo $HOME");
    named.task.user = Some("nobody".into());
    agent.start(&named);
    agent.running(&named);
    agent.exited(&named);
    assert!(agent.log(&named, LogQuery::default()).starts_with("nobody\n"));
}

#[test]
fn files_are_seen_by_the_task_alone_and_cannot_be_written() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let seen = tempfile::tempdir().unwrap();
    let path = seen.path().join("conf/app.toml");
    let mut agent = Agent::direct(state.path());
    let shown = path.display();
    let mut files =
        shell("files", &format!("cat {shown}; echo x 2>/dev/null >{shown} && echo written"));
    files.task.files = vec![TaskFile { path: shown.to_string(), content: "answer = 42\n".into() }];
    files.task.sandbox.enabled = false;
    agent.start(&files);
    agent.running(&files);
    agent.exited(&files);
    assert_eq!(agent.log(&files, LogQuery::default()), "answer = 42\n");
    assert!(!path.parent().unwrap().exists(), "what was made for it is gone");
    let mut outside = shell("outside", "true");
    outside.task.files = vec![TaskFile { path: "/tmp/../etc/x".into(), content: String::new() }];
    agent.start(&outside);
    assert!(agent.refused(&outside).contains("absolute path"));
}

#[test]
fn a_new_agent_finds_the_same_process_and_a_task_outlives_the_old_one() {
    let state = tempfile::tempdir().unwrap();
    let one = shell("kept", "echo before; sleep 600");
    let pid = {
        let mut agent = Agent::direct(state.path());
        agent.start(&one);
        agent.running(&one)
        // The runtime ends here, with every task of the agent and nothing said to anybody.
    };
    assert!(alive(pid));
    let mut agent = Agent::direct(state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].alloc, found[0].run), (&one.alloc, 1));
    assert!(matches!(found[0].event, UnitEvent::Running { pid: same, .. } if same == pid));
    assert_eq!(agent.runtime.block_on(agent.executor.launch_of(&one.alloc)), Some(one.clone()));
    agent.start(&one);
    assert_eq!(agent.running(&one), pid, "starting what was adopted changes nothing");
    agent.stop(&one);
    assert_eq!(agent.exited(&one).0, "killed by SIGTERM");
    assert!(!alive(pid));
    drop(agent);
    let agent = Agent::direct(state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert!(
        matches!(&found[0].event, UnitEvent::Exited { status, .. } if status == "killed by SIGTERM"),
        "how it ended is still known: {found:?}"
    );
}

#[test]
fn a_process_that_ended_meanwhile_is_not_mistaken_for_one_with_its_number() {
    let state = tempfile::tempdir().unwrap();
    let one = shell("recycled", "sleep 600");
    let pid = {
        let mut agent = Agent::direct(state.path());
        agent.start(&one);
        agent.running(&one)
    };
    // As if the number had gone to another process: same number, another start time.
    edit_record(state.path(), &one, |record| record["process"][0] = std::process::id().into());
    let agent = Agent::direct(state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert!(
        matches!(&found[0].event, UnitEvent::Exited { status, .. } if status.contains("while the agent was away")),
        "{found:?}"
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .ok();
}

#[test]
fn a_unit_from_before_the_machine_restarted_is_not_found() {
    let state = tempfile::tempdir().unwrap();
    let one = shell("rebooted", "sleep 600");
    let pid = {
        let mut agent = Agent::direct(state.path());
        agent.start(&one);
        agent.running(&one)
    };
    // The same number and even the same start time, in another boot.
    edit_record(state.path(), &one, |record| record["boot"] = "another".into());
    let agent = Agent::direct(state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert_eq!(found, []);
    // A process of this boot that has its marks is of a unit that only a newer record could tell of.
    wait_until("it ends", || !alive(pid));
}

#[test]
fn a_process_whose_start_was_not_written_down_is_found() {
    let state = tempfile::tempdir().unwrap();
    let one = shell("unwritten", "sleep 600");
    let pid = {
        let mut agent = Agent::direct(state.path());
        agent.start(&one);
        agent.running(&one)
    };
    edit_record(state.path(), &one, |record| record["process"] = serde_json::Value::Null);
    let mut agent = Agent::direct(state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert!(
        matches!(found[0].event, UnitEvent::Running { pid: same, .. } if same == pid),
        "{found:?}"
    );
    agent.stop(&one);
    agent.exited(&one);
}

#[test]
fn both_channels_are_kept_apart_and_the_tail_is_counted_in_lines() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let talk = shell("talk", "for i in 1 2 3 4 5; do echo out $i; done; echo oops >&2");
    agent.start(&talk);
    agent.running(&talk);
    agent.exited(&talk);
    let tail = |lines, channel| LogQuery { tail: Some(lines), channel, follow: false };
    assert_eq!(agent.log(&talk, tail(2, Some(Channel::Stdout))), "out 4\nout 5\n");
    assert_eq!(agent.log(&talk, tail(0, Some(Channel::Stdout))), "");
    assert_eq!(agent.log(&talk, tail(99, Some(Channel::Stdout))).lines().count(), 5);
    assert_eq!(agent.log(&talk, tail(9, Some(Channel::Stderr))), "oops\n");
    let nobody = AllocId::new(JobName::new("nobody").unwrap(), 0, 1);
    let error =
        agent.runtime.block_on(agent.executor.logs(&nobody, LogQuery::default())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn the_limits_that_are_advertised_were_measured() {
    let state = tempfile::tempdir().unwrap();
    let enforced = Agent::direct(state.path()).executor.enforced();
    let top = crate::cgroup::mount();
    let controllers =
        top.map(|top| crate::cgroup::controllers(&top, "cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    assert!(enforced.pinning);
    for (limit, controller) in [
        (enforced.memory, "memory"),
        (enforced.cpu, "cpu"),
        (enforced.tasks, "pids"),
        (enforced.cpuset, "cpuset"),
    ] {
        assert!(!limit || has(controller), "{controller} is advertised and not there");
    }
    assert!(!enforced.devices);
}

#[test]
fn no_unit_of_a_test_outlives_it_in_the_cgroup_tree() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let one = shell("tidy", "exit 0");
    agent.start(&one);
    agent.running(&one);
    agent.exited(&one);
    let Executor::Direct(direct) = &agent.executor else { panic!("a direct executor") };
    if let Some(cgroup) = direct.cgroup_of(&one.alloc) {
        wait_until("the cgroup goes with the unit", || !cgroup.exists());
    }
}

#[test]
fn an_allocation_that_looks_like_an_earlier_one_is_not_told_that_ones_end() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let first = shell("alike", "echo first; exit 3");
    agent.start(&first);
    agent.running(&first);
    assert_eq!(agent.exited(&first).0, "exit status 3");
    // The rows of its slot have left the table, and its epochs began anew.
    let second = shell("alike", "echo second; exec sleep 1000");
    assert_ne!(first.alloc.birth, second.alloc.birth);
    agent.start(&second);
    agent.running(&second);
    agent.wait_for_log(&second, "second");
    assert_eq!(agent.log(&first, LogQuery::default()), "first\n");
    agent.stop(&second);
    assert_eq!(agent.exited(&second).0, "killed by SIGTERM");
}

#[test]
fn a_unit_that_an_older_state_folder_knows_nothing_of_is_ended() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let (kept, later) = (shell("kept", "exec sleep 1000"), shell("later", deaf));
    agent.start(&kept);
    let stays = agent.running(&kept);
    agent.start(&later);
    let stray = agent.running(&later);
    agent.wait_for_log(&later, "up");
    drop(agent);
    // A backup from before it was started is put back.
    std::fs::remove_dir_all(state.path().join("alloc").join(later.alloc.unit())).unwrap();
    let mut next = Agent::direct(state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    // What is started meanwhile has the same marks, and the records of then tell nothing of it either.
    let fresh = shell("fresh", "exec sleep 1000");
    next.start(&fresh);
    let new = next.running(&fresh);
    let waited = async { tokio::time::sleep(2 * crate::executor::direct::STRAYS_STOP).await };
    next.runtime.block_on(waited);
    assert!(!alive(stray), "it does not listen, and is killed");
    assert!(alive(new));
    next.stop(&fresh);
    assert_eq!(next.exited(&fresh).0, "killed by SIGTERM");
    assert!(alive(stays));
    next.stop(&kept);
    assert_eq!(next.exited(&kept).0, "killed by SIGTERM");
}
