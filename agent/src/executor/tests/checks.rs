//! Health checks of real units: what they are made of, what they leave, and whose answer counts.
#![allow(clippy::disallowed_methods, reason = "a test waits for real processes")]

use fabric::io::Launch;
use fabric::job::{Check, Health};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

use super::{Agent, alive, launch, shell, wait_until};
use crate::health::Checker;
use crate::listeners::Listeners;
use crate::process;

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that a check never hits it by accident.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// How a check of a unit that runs comes out. Failures of one that never succeeded are told once an interval.
fn outcome(
    agent: &mut Agent,
    unit: &Launch,
    pid: u32,
    check: Check,
    interval: Duration,
    timeout: Duration,
) -> Result<(), String> {
    let health = Health { check, interval, timeout, failures: 3, grace: Duration::ZERO };
    let unit = Launch { health: Some(health), ..unit.clone() };
    agent.runtime.block_on(async {
        let listeners = Listeners::new(agent.executor.units_folder().await);
        let (sender, mut outcomes) = mpsc::channel(8);
        let mut checker = Checker::new(sender, listeners);
        checker.start(&unit, pid);
        tokio::time::timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap().2
    })
}

fn command(script: &str) -> Check {
    Check::Command { command: ["/bin/sh", "-c", script].map(String::from).into() }
}

/// What a check prints.
fn printed(agent: &mut Agent, unit: &Launch, pid: u32, script: &str) -> String {
    let script = format!("({script}) >&2; exit 3");
    let said = outcome(agent, unit, pid, command(&script), SHORT, LONG).unwrap_err();
    let said = said.strip_prefix("the check ended with exit status 3");
    let said = said.expect("its own exit status");
    said.strip_prefix(": ").unwrap_or(said).into()
}

fn number(path: &Path) -> u32 {
    let mut number = None;
    wait_until("the number is written", || {
        number = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        number.is_some()
    });
    number.unwrap()
}

/// A folder that tasks can write to.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

fn a_unit(agent: &mut Agent, mut unit: Launch, folder: Option<&Path>) -> (Launch, u32) {
    if let Some(folder) = folder {
        // Without a file system of its own, so that what a check writes is seen here.
        unit.task.sandbox.enabled = false;
        assert!(folder.is_absolute());
    }
    agent.start(&unit);
    let pid = agent.running(&unit);
    (unit, pid)
}

fn end(agent: &mut Agent, unit: &Launch) {
    agent.stop(unit);
    agent.exited(unit);
}

/// A check runs in its unit's cgroup, as likely to be ended for want of memory as anybody.
pub fn a_check_is_a_part_of_its_unit(agent: &mut Agent) {
    let (unit, pid) = a_unit(agent, launch("checked", &["/bin/sleep", "1000"]), None);
    if agent.executor.has_cgroups() {
        let said = printed(agent, &unit, pid, "cat /proc/self/cgroup");
        let cgroup = said.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup");
        assert!(cgroup.ends_with(&format!("/{}/weft-check", unit.alloc.unit())), "{cgroup}");
    } else {
        eprintln!("skipped: no cgroups");
    }
    // As the agent's own unit file does, in the direction that needs no privilege.
    let own = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(own).unwrap();
    std::fs::write(own, "300").unwrap();
    let said = printed(agent, &unit, pid, "cat /proc/self/oom_score_adj");
    std::fs::write(own, before.trim()).unwrap();
    assert_eq!(said, "0");
    // Its limits are the task's.
    let limits = printed(agent, &unit, pid, "ulimit -c; ulimit -n");
    let of_task = process_limits(pid);
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>(), of_task);
    end(agent, &unit);
}

fn process_limits(pid: u32) -> [String; 2] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    ["Max core file size", "Max open files"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
        line.split_whitespace().next().unwrap().to_owned()
    })
}

/// Whatever a check starts, it ends with the check: one that succeeds, one that fails and one that hangs.
pub fn nothing_outlives_a_check(agent: &mut Agent) {
    let folder = open_folder();
    let unit = shell("checked", "exec sleep 1000");
    let (unit, pid) = a_unit(agent, unit, Some(folder.path()));
    for (how, ends, timeout) in [
        ("well", "exit 0", LONG),
        ("ill", "exit 1", LONG),
        ("never", "sleep 600", Duration::from_secs(2)),
    ] {
        let file = folder.path().join(how);
        let at = file.display();
        // A session of its own, whose parent is gone, and that holds the pipe open.
        let script = format!(
            "(setsid /bin/sh -c 'echo $$ >{at}.new; mv {at}.new {at}; exec sleep 600' &) ; \
             while ! test -e {at}; do sleep 0.01; done; {ends}"
        );
        let begun = Instant::now();
        let said = if how == "ill" {
            let script = script.replace("exit 1", "");
            printed(agent, &unit, pid, &script);
            Ok(())
        } else {
            outcome(agent, &unit, pid, command(&script), timeout, timeout)
        };
        match how {
            "never" => assert_eq!(said, Err("no answer within 2s".into())),
            _ => assert_eq!(said, Ok(())),
        }
        assert!(begun.elapsed() < LONG / 2, "{how}: it waited for what it had started");
        let left = number(&file);
        wait_until("what it left is gone", || !alive(left));
    }
    end(agent, &unit);
}

/// A check that never stops starting processes is bounded by its unit's limit, and takes none of them along.
pub fn a_check_that_forks_is_bounded(agent: &mut Agent) {
    const TASKS: u32 = 40;
    let folder = open_folder();
    let mut unit = shell("checked", "exec sleep 1000");
    unit.task.sandbox.tasks_max = TASKS;
    let (unit, pid) = a_unit(agent, unit, Some(folder.path()));
    let enforced = agent.executor.enforced().tasks;
    // Without end where there is one, or else twice as many as it may have, each in a session of its own.
    let script = match enforced {
        true => "exec /usr/bin/python3 -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass'".into(),
        false => format!("for i in $(seq {}); do setsid sleep 600 & done; sleep 600", TASKS * 2),
    };
    let cgroup = agent.runtime.block_on(agent.executor.units_folder());
    let cgroup = cgroup.map(|units| units.join(unit.alloc.unit()));
    let most = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(cgroup.as_deref()));
        let time = Duration::from_secs(3);
        let said = outcome(agent, &unit, pid, command(&script), time, time);
        assert!(said.is_err());
        watching.join().unwrap()
    });
    match (enforced, most) {
        (true, Some(most)) => assert!(most <= TASKS as usize, "{most} processes"),
        (false, Some(most)) => {
            assert!(most > TASKS as usize, "{most} processes: the test is none");
            eprintln!("skipped: no pids controller, so only its end was looked at");
        }
        (_, None) => eprintln!("skipped: no cgroups"),
    }
    if let Some(cgroup) = &cgroup {
        let members = process::Members::Cgroup(cgroup.join("weft-check"));
        wait_until("all of them are gone", || members.look().is_ok_and(|left| left.is_empty()));
    }
    assert!(alive(pid), "the task runs on");
    // And another check is made as if nothing had been.
    assert_eq!(outcome(agent, &unit, pid, command("true"), LONG, LONG), Ok(()));
    end(agent, &unit);
}

/// The most processes that a unit has within the next seconds.
fn watch(cgroup: Option<&Path>) -> Option<usize> {
    let members = process::Members::Cgroup(cgroup?.to_owned());
    let until = Instant::now() + Duration::from_secs(3);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(members.pids().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(most)
}

/// A check does not hold up the end of its task.
pub fn a_check_ends_with_its_task(agent: &mut Agent) {
    let folder = open_folder();
    let file = folder.path().join("pid");
    let unit = shell("checked", "trap '' TERM; sleep 0.1; while ! test -e $0; do sleep 0.01; done");
    let mut unit = unit;
    unit.task.command.push(file.to_str().unwrap().into());
    let (unit, pid) = a_unit(agent, unit, Some(folder.path()));
    let script = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1; done", file.display());
    let begun = Instant::now();
    let said = outcome(agent, &unit, pid, command(&script), SHORT, LONG);
    let said = said.unwrap_err();
    assert!(said.starts_with("the task"), "{said}");
    assert!(begun.elapsed() < LONG / 2);
    assert!(agent.exited(&unit).1);
    let check = number(&file);
    wait_until("the check is gone", || !alive(check));
}

#[test]
fn checks_are_a_part_of_their_units() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    a_check_is_a_part_of_its_unit(&mut agent);
}

#[test]
fn what_checks_start_ends_with_them() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    nothing_outlives_a_check(&mut agent);
}

#[test]
fn checks_that_fork_are_bounded() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    a_check_that_forks_is_bounded(&mut agent);
}

#[test]
fn checks_end_with_their_tasks() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    a_check_ends_with_its_task(&mut agent);
}

/// A program that listens on a port of this machine.
fn server(port: u16) -> Launch {
    let script = format!(
        "import socket, time; s = socket.socket(); \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); \
         s.bind(('127.0.0.1', {port})); s.listen(); time.sleep(1000)"
    );
    let mut unit = launch("server", &["/usr/bin/python3", "-c", &script]);
    unit.claim.ports.insert("raw".into(), port);
    unit
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_units_own_socket_is_no_strangers_and_a_strangers_answer_is_not_its_own() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    sockets_are_told_apart(&mut agent);
}

pub fn sockets_are_told_apart(agent: &mut Agent) {
    let port = free_port();
    let (unit, pid) = a_unit(agent, server(port), None);
    wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let folder = agent.runtime.block_on(agent.executor.units_folder());
    let listeners = Listeners::new(folder);
    assert_eq!(listeners.in_the_way(&unit.claim.ports), None);
    let elsewhere = Listeners::new(Some(PathBuf::from("/no/such/folder")));
    let (taken, by) = elsewhere.in_the_way(&unit.claim.ports).expect("a stranger to others");
    assert_eq!((taken, by), (port, format!("python3 (pid {pid})")));

    let tcp = || Check::Tcp { port: "raw".into() };
    assert_eq!(outcome(agent, &unit, pid, tcp(), LONG, LONG), Ok(()));
    // Another unit, whose task never listens, has the number, too.
    let mut idle = launch("idle", &["/bin/sleep", "1000"]);
    idle.claim.ports = unit.claim.ports.clone();
    let (idle, idle_pid) = a_unit(agent, idle, None);
    for check in [tcp(), Check::Http { path: "/".into(), port: "raw".into() }] {
        let said = outcome(agent, &idle, idle_pid, check, SHORT, LONG);
        assert_eq!(
            said,
            Err(format!(
                "port {port} (raw) is answered by python3 (pid {pid}), which is no part of this task"
            ))
        );
    }
    end(agent, &idle);
    end(agent, &unit);
}
