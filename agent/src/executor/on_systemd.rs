//! The systemd executor against the real thing. Each test runs where systemd is PID 1 and the test is
//! root (`agent/tests/nspawn.sh test BINARY on_systemd_`), and says so where it is not.

use fabric::cpuset::CpuSet;
use fabric::id::{AllocId, JobName};
use fabric::io::{Launch, UnitEvent};
use fabric::job::TaskFile;
use std::time::Duration;

use super::output::LogQuery;
use super::process;
use super::tests::leased::{UNTIL_STOPPED, leased};
use super::tests::{Agent, alive, launch, shell, wait_until};
use super::{Executor, Preference};

/// An agent on systemd, or a word why not.
fn agent(state: &tempfile::TempDir) -> Option<Agent> {
    let booted = std::path::Path::new("/run/systemd/system").is_dir();
    if !booted || !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: systemd is not PID 1");
        return None;
    }
    Some(Agent::with(Preference::Systemd, state.path()))
}

fn end(agent: &mut Agent, launch: &Launch) {
    agent.stop(launch);
    agent.exited(launch);
}

/// How a unit ends that may be too short to be seen running.
fn outcome(agent: &mut Agent, launch: &Launch) -> (String, bool) {
    match agent.event(launch) {
        UnitEvent::Running { .. } => outcome(agent, launch),
        UnitEvent::Exited { status, success, .. } => (status, success),
        other => panic!("it should have ended, and {other:?}"),
    }
}

/// Whether systemd still has a unit loaded.
fn loaded(unit: &str) -> bool {
    let units = std::process::Command::new("systemctl")
        .args(["list-units", "--all", "--plain", "--no-legend", unit])
        .output()
        .unwrap();
    !units.stdout.is_empty()
}

#[test]
fn on_systemd_a_unit_runs_and_its_exit_status_is_told() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    for (epoch, script, text, success) in [
        (1, "exit 0", "exit status 0", true),
        (2, "exit 3", "exit status 3", false),
        (3, "kill -KILL $$", "killed by SIGKILL", false),
    ] {
        let mut one = shell("exits", script);
        one.alloc.epoch = epoch;
        agent.start(&one);
        assert_eq!(outcome(&mut agent, &one), (text.to_owned(), success));
        wait_until("systemd forgets a unit whose end is known", || !loaded(&one.alloc.unit()));
    }
}

#[test]
fn on_systemd_a_task_too_short_to_be_seen_has_an_exit_status_too() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    for epoch in 1..=20 {
        let mut one = shell("short", "exit 7");
        one.alloc.epoch = epoch;
        agent.start(&one);
        assert_eq!(outcome(&mut agent, &one), ("exit status 7".into(), false));
    }
}

#[test]
fn on_systemd_a_hundred_at_once_all_run_and_end() {
    const UNITS: usize = 100;
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    for index in 0..UNITS {
        let mut one = shell("flood", "exit 0");
        one.alloc.slot.index = index as u32;
        agent.start(&one);
    }
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < UNITS {
        match agent.next() {
            (_, _, UnitEvent::Running { .. }) => {}
            (alloc, _, UnitEvent::Exited { success: true, .. }) => assert!(ended.insert(alloc)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn on_systemd_what_cannot_start_is_refused_with_the_reason() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let missing = launch("missing", &["/no/such/program"]);
    agent.start(&missing);
    assert!(agent.refused(&missing).contains("command cannot be executed"));
    let mut nobody = shell("nobody", "true");
    nobody.task.user = Some("no-such-user".into());
    agent.start(&nobody);
    assert!(agent.refused(&nobody).contains("user is not there"));
    let mut lost = shell("lost", "true");
    lost.task.working_dir = Some("/no/such/folder".into());
    agent.start(&lost);
    assert!(agent.refused(&lost).contains("working directory"));
    let mut filter = shell("filter", "true");
    filter.task.sandbox.capabilities = vec!["CAP_FLY".into()];
    agent.start(&filter);
    assert!(agent.refused(&filter).contains("CAP_FLY"));
    for one in [&missing, &nobody, &lost, &filter] {
        wait_until("nothing of it is left", || !loaded(&one.alloc.unit()));
    }
}

#[test]
fn on_systemd_a_start_that_comes_twice_starts_one_unit() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let one = shell("twice", "echo started; exec sleep 600");
    agent.start(&one);
    let pid = agent.running(&one);
    agent.start(&one);
    assert_eq!(agent.running(&one), pid);
    agent.wait_for_log(&one, "started");
    let next = Launch { run: 2, ..one.clone() };
    agent.start(&next);
    assert_eq!(agent.exited(&one).0, "killed by SIGTERM", "the run before goes first");
    assert_ne!(agent.running(&next), pid);
    end(&mut agent, &next);
}

#[test]
fn on_systemd_a_task_that_ignores_its_stop_signal_is_killed() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let mut deaf = shell("deaf", "trap '' TERM; echo deaf; while :; do sleep 1; done");
    deaf.task.stop_timeout = Duration::from_millis(500);
    agent.start(&deaf);
    let pid = agent.running(&deaf);
    agent.wait_for_log(&deaf, "deaf");
    agent.stop(&deaf);
    assert_eq!(agent.exited(&deaf), ("killed by SIGKILL".into(), false, true));
    assert!(!alive(pid));
    agent.stop(&deaf);
    assert!(agent.exited(&deaf).2, "asked again, it says the same");
}

#[test]
fn on_systemd_every_process_is_pinned_and_follows_when_it_is_moved() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let own = process::affinity(0).unwrap();
    let first = CpuSet::from_iter(own.iter().take(1));
    let last = CpuSet::from_iter(own.iter().last());
    let mut pinned = shell("pinned", "sleep 600 & sleep 600 & echo $$ $! ready; wait");
    pinned.cpus = first.clone();
    pinned.claim.cpus = first.clone();
    pinned.claim.mems = CpuSet::from_iter(process::online_nodes().iter().take(1));
    agent.start(&pinned);
    let UnitEvent::Running { pid, cpus, mems } = agent.event(&pinned) else { panic!("it runs") };
    assert_eq!(cpus.as_ref(), Some(&first));
    assert_eq!(mems.as_ref(), Some(&pinned.claim.mems));
    agent.wait_for_log(&pinned, "ready");
    let log = agent.log(&pinned, LogQuery::default());
    let child: u32 = log.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(process::status(child).unwrap().cpus, first);
    {
        let _inside = agent.runtime.enter();
        agent.executor.confine(&pinned.alloc, 1, last.clone());
    }
    let UnitEvent::Running { cpus, .. } = agent.event(&pinned) else { panic!("it runs") };
    assert_eq!(cpus.as_ref(), Some(&last));
    for process in [pid, child] {
        assert_eq!(process::status(process).unwrap().cpus, last);
    }
    end(&mut agent, &pinned);
}

#[test]
fn on_systemd_every_thread_has_the_affinity_of_the_claim() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::threads_are_pinned(&mut agent);
}

#[test]
fn on_systemd_a_pin_that_cannot_take_is_a_failed_start() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let mut absent = shell("absent", "sleep 600");
    absent.cpus = CpuSet::from_iter([4000]);
    agent.start(&absent);
    let reason = agent.refused(&absent);
    assert!(reason.contains("affinity") || reason.contains("pin"), "{reason}");
}

#[test]
fn on_systemd_limits_that_are_advertised_bite() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::limits_bite(&mut agent);
}

#[test]
fn on_systemd_a_new_agent_adopts_units_from_systemd() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut before) = agent(&state) else { return };
    let kept = shell("kept", "sleep 600");
    let end_on_signal =
        |status| format!("trap 'exit {status}' USR1; echo ready; while :; do sleep 0.1; done");
    let mut good = shell("good", &end_on_signal(0));
    good.alloc.slot.index = 1;
    let mut bad = shell("bad", &end_on_signal(9));
    bad.run = 4;
    let mut pids = Vec::new();
    for one in [&kept, &good, &bad] {
        before.start(one);
        pids.push(before.running(one));
    }
    before.wait_for_log(&good, "ready");
    before.wait_for_log(&bad, "ready");
    drop(before);
    for pid in &pids[1..] {
        let pid = nix::unistd::Pid::from_raw(*pid as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    }
    wait_until("the short ones end", || !alive(pids[1]) && !alive(pids[2]));
    assert!(alive(pids[0]), "it outlives the agent");
    // The agent's own records do not matter for what runs.
    std::fs::remove_file(state.path().join("alloc").join(kept.alloc.unit()).join("unit.json"))
        .unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = agent(&elsewhere).unwrap();
    let found = stranger.runtime.block_on(stranger.executor.adopt()).unwrap();
    assert!(found.is_empty(), "units of another agent are left alone: {found:?}");
    drop(stranger);

    // What a package does that brings a unit, or an administrator: systemd reads all units anew.
    let reloaded = std::process::Command::new("systemctl").arg("daemon-reload").status();
    assert!(reloaded.is_ok_and(|status| status.success()));
    let mut after = agent(&state).unwrap();
    let found = after.runtime.block_on(after.executor.adopt()).unwrap();
    let of = |launch: &Launch| {
        let one = found.iter().find(|one| one.alloc == launch.alloc).unwrap();
        assert_eq!(one.run, launch.run);
        one.event.clone()
    };
    assert!(matches!(of(&kept), UnitEvent::Running { pid, .. } if pid == pids[0]), "{found:?}");
    let exited =
        |status: &str, success| UnitEvent::Exited { status: status.into(), success, killed: false };
    assert_eq!(of(&bad), exited("exit status 9", false));
    assert_eq!(of(&good), exited("exit status 0", true));
    assert_eq!(after.runtime.block_on(after.executor.launch_of(&bad.alloc)), Some(bad.clone()));
    after.start(&kept);
    assert_eq!(after.running(&kept), pids[0], "starting what was adopted changes nothing");
    end(&mut after, &kept);
    assert!(!alive(pids[0]));
}

#[test]
fn on_systemd_the_sandbox_is_closed_unless_it_is_opened() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let look = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
        touch /etc/weft-test 2>/dev/null && echo etc-written; \
        touch /tmp/weft-test && echo tmp-written; \
        ls /dev/kmsg /dev/console 2>/dev/null; unshare -U true 2>/dev/null && echo unshared; true";
    let closed = shell("closed", look);
    agent.start(&closed);
    outcome(&mut agent, &closed);
    let log = agent.log(&closed, LogQuery::default());
    let errors = agent
        .log(&closed, LogQuery { channel: Some(super::Channel::Stderr), ..LogQuery::default() });
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "tmp-written",
    ] {
        assert!(log.lines().any(|has| has == line), "{line} in {log} {errors}");
    }
    for not in ["etc-written", "Uid:\t0", "/dev/kmsg", "unshared"] {
        assert!(!log.contains(not), "{not} in {log}");
    }
    assert!(!std::path::Path::new("/tmp/weft-test").exists(), "its /tmp is its own");
    let mut open = shell("open", look);
    open.task.sandbox.enabled = false;
    agent.start(&open);
    outcome(&mut agent, &open);
    let log = agent.log(&open, LogQuery::default());
    for line in ["etc-written", "tmp-written", "NoNewPrivs:\t0"] {
        assert!(log.contains(line), "{line} in {log}");
    }
    let _ = std::fs::remove_file("/etc/weft-test");
    let _ = std::fs::remove_file("/tmp/weft-test");
}

#[test]
fn on_systemd_a_claimed_device_is_there_and_others_are_not() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let device = "/dev/net/tun";
    if !std::path::Path::new(device).exists() {
        eprintln!("skipped: this machine has no {device} to claim");
        return;
    }
    let look = format!("ls {device}");
    for (job, devices, there) in
        [("with", vec![device.to_owned()], true), ("without", vec![], false)]
    {
        let mut one = shell(job, &look);
        one.claim.devices = devices;
        agent.start(&one);
        let (_, success) = outcome(&mut agent, &one);
        assert_eq!(success, there, "{}", agent.log(&one, LogQuery::default()));
    }
}

#[test]
fn on_systemd_files_and_words_reach_the_task_as_they_are() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let mut one = launch(
        "words",
        &[
            "/bin/sh",
            "-c",
            "echo \"$0\" $GREETING $WEFT_PORT_HTTP; cat /opt/app/conf; sleep 600",
            "$HOME %n ${x}",
        ],
    );
    one.task.env.insert("GREETING".into(), "100% \"quoted\" $PATH".into());
    one.claim.ports.insert("http".into(), 8080);
    one.task.files =
        vec![TaskFile { path: "/opt/app/conf".into(), content: "answer = 42\n".into() }];
    agent.start(&one);
    agent.running(&one);
    agent.wait_for_log(&one, "answer");
    assert_eq!(
        agent.log(&one, LogQuery::default()),
        "$HOME %n ${x} 100% \"quoted\" $PATH 8080\nanswer = 42\n"
    );
    end(&mut agent, &one);
}

#[test]
fn on_systemd_what_is_chosen_and_what_bites_is_said() {
    let state = tempfile::tempdir().unwrap();
    let Some(agent) = agent(&state) else { return };
    assert_eq!(agent.executor.name(), "systemd");
    let enforced = agent.executor.enforced();
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let has = |name: &str| controllers.split_ascii_whitespace().any(|c| c == name);
    assert_eq!((enforced.memory, enforced.cpu), (has("memory"), has("cpu")));
    assert_eq!((enforced.tasks, enforced.cpuset), (has("pids"), has("cpuset")));
    let Executor::Systemd(_) = agent.executor else { panic!("systemd was asked for") };
}

#[test]
fn on_systemd_a_unit_that_is_not_there_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let never = shell("never", "true");
    agent.stop(&never);
    assert_eq!(agent.exited(&never).0, "gone");
    let nobody = AllocId::new(JobName::new("nobody").unwrap(), 0, 1);
    let logs = agent.runtime.block_on(agent.executor.logs(&nobody, LogQuery::default()));
    assert_eq!(logs.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// A leased unit ignores its stop signal, and its agent is gone.
#[test]
fn on_systemd_the_guard_ends_a_unit_whose_lease_has_run_out_while_no_agent_runs() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done";
    let stop_timeout = Duration::from_secs(1);
    let one = leased(shell("orphan", script), Duration::from_secs(8), stop_timeout);
    agent.start(&one);
    let pid = agent.running(&one);
    agent.wait_for_log(&one, "up");
    let guard = agent.executor.leases().folder().guard().expect("it guards");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", guard.pid)).unwrap();
    assert!(
        cgroup.contains("weft.slice/weft-guard-"),
        "beside the agent, and beside the unit: {cgroup}"
    );
    // Longer than it would have lived.
    let longer = fabric::clock::Instant::at(Duration::from_secs(10));
    agent.executor.extend(&one.alloc, one.run, longer);
    // The guard dies, and systemd starts it again, without any agent.
    let leases = agent.executor.leases().clone();
    drop(agent);
    signal(guard.pid, nix::sys::signal::Signal::SIGKILL);
    wait_until("another guard", || {
        leases.folder().guard().is_some_and(|next| next != guard && alive(next.pid))
    });
    assert!(alive(pid));
    wait_until("the guard kills it", || !alive(pid));
    let mut next = Agent::with(Preference::Systemd, state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    let UnitEvent::Exited { status, success, killed } = &found[0].event else {
        panic!("{found:?}")
    };
    assert!(status.starts_with("its lease ran out: ") && !success && *killed, "{found:?}");
    assert_eq!(next.log(&one, LogQuery::default()).matches("asked").count(), 1);
    let (_, unit) = cgroup.trim_end().rsplit_once('/').unwrap();
    wait_until("it ends well when nothing is left to guard", || !loaded(unit));
}

#[test]
fn on_systemd_a_renewed_lease_is_known_to_the_next_agent() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let length = Duration::from_secs(6);
    let one = leased(shell("adopted", UNTIL_STOPPED), length, Duration::from_secs(10));
    agent.start(&one);
    let pid = agent.running(&one);
    drop(agent);
    let mut next = Agent::with(Preference::Systemd, state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    assert!(matches!(found[0].event, UnitEvent::Running { pid: has, .. } if has == pid));
    let until = found[0].lease_until.expect("the guard is armed");
    assert!(until.since_origin() < length, "on the new agent's clock: {until:?}");
    let later = until + Duration::from_secs(1);
    next.executor.extend(&one.alloc, one.run, later);
    assert_eq!(next.exited(&one).0, "its lease ran out: exit status 0");
    assert!(next.now() >= later);
    let again = leased(Launch { run: 2, ..one }, 10 * length, Duration::from_secs(1));
    next.start(&again);
    next.running(&again);
    next.stop(&again);
    assert_eq!(next.exited(&again).0, "exit status 0", "it was stopped, its lease ran");
    assert!(!next.executor.leases().any());
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
}

#[test]
fn on_systemd_the_services_of_the_machine_have_states() {
    let state = tempfile::tempdir().unwrap();
    let Some(agent) = agent(&state) else { return };
    let Executor::Systemd(systemd) = &agent.executor else { panic!("{:?}", agent.executor) };
    let services = agent.runtime.block_on(systemd.services()).unwrap();
    let bus = services.iter().find(|(name, _)| name == "dbus.service");
    assert_eq!(bus.map(|(_, state)| state.as_str()), Some("active"), "{services:?}");
}
