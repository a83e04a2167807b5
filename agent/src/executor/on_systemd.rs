//! The systemd executor against the real thing. Each test runs where systemd is PID 1 and the test is
//! root (`agent/tests/on_systemd.sh BINARY`), and says so where it is not.

use fabric::cpuset::CpuSet;
use fabric::id::{AllocId, JobName};
use fabric::io::{Launch, UnitEvent};
use fabric::job::TaskFile;
use std::time::Duration;

use super::output::LogQuery;
use super::tests::leased::{UNTIL_STOPPED, leased, with_time_enough};
use super::tests::{Agent, alive, launch, shell, wait_until};
use super::{Executor, Preference};
use crate::process;

mod host;

/// An agent on systemd, or a word why not.
fn agent(state: &tempfile::TempDir) -> Option<Agent> {
    let booted = std::path::Path::new("/run/systemd/system").is_dir();
    if !booted || !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: systemd is not PID 1");
        return None;
    }
    Some(Agent::with(Preference::Systemd, state.path()))
}

/// What a package does that brings a unit, or an administrator: systemd reads all units anew. In the middle of each story.
fn reload() {
    let (said, is_done) = systemctl(&["daemon-reload"]);
    assert!(is_done, "{said}");
}

/// What systemctl says, and whether it ended well.
fn systemctl(words: &[&str]) -> (String, bool) {
    let output = std::process::Command::new("systemctl").args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.success())
}

/// Rounds of a story that is told again and again.
fn rounds() -> u32 {
    std::env::var("WEFT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

fn end(agent: &mut Agent, launch: &Launch) {
    reload();
    agent.stop(launch);
    agent.exited(launch);
}

/// How a unit ends that may be too short to be seen running.
fn outcome(agent: &mut Agent, launch: &Launch) -> (String, bool) {
    match agent.event(launch) {
        UnitEvent::Running { .. } => {
            reload();
            outcome(agent, launch)
        }
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
    reload();
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
    let folder = tempfile::tempdir_in("/opt").unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name).display().to_string();
        std::fs::write(&path, content).unwrap();
        path
    };
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let text = file("text", "hello");
    let garbage = file("garbage", "hello");
    let lost = file("lost", "#!/no/such/interpreter");
    for path in [&garbage, &lost] {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, all).unwrap();
    }
    let missing = launch("missing", &["/no/such/program"]);
    let text = launch("text", &[&text]);
    let garbage = launch("garbage", &[&garbage]);
    let lost = launch("lost", &[&lost]);
    let mut nobody = shell("nobody", "true");
    nobody.task.user = Some("no-such-user".into());
    let mut nowhere = shell("nowhere", "true");
    nowhere.task.working_dir = Some("/no/such/folder".into());
    let mut unwritable = shell("unwritable", "true");
    unwritable.task.sandbox.writable = vec!["/opt".into(), "/srv/no/such".into()];
    let mut flies = shell("flies", "true");
    flies.task.sandbox.capabilities = vec!["CAP_FLY".into()];
    for (one, words) in [
        (missing, ["/no/such/program", "not there"]),
        (text, ["/text cannot be executed", "its user may not"]),
        (garbage, ["/garbage cannot be executed", "not a program of this machine"]),
        (lost, ["/lost cannot be executed", "what it is to be run with is missing"]),
        (nobody, ["no-such-user", "user is not there"]),
        (nowhere, ["/no/such/folder", "working directory"]),
        (unwritable, ["writable path /srv/no/such is not there", "file system"]),
        (flies, ["CAP_FLY", "not a capability"]),
    ] {
        for guaranteed in [false, true] {
            let mut one = one.clone();
            one.alloc.epoch = 1 + u64::from(guaranteed);
            if guaranteed {
                let so_far = agent.now().since_origin();
                one = leased(one, so_far + Duration::from_secs(60), Duration::from_secs(1));
            }
            agent.start(&one);
            let reason = agent.refused(&one);
            assert!(words.iter().all(|words| reason.contains(words)), "{words:?}: {reason}");
            assert!(!reason.contains("lease"), "{reason}");
            wait_until("nothing of it is left", || !loaded(&one.alloc.unit()));
        }
    }
}

/// A unit with everything that a unit can have.
#[test]
fn on_systemd_a_reload_changes_nothing_of_a_unit() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let writable = "/srv/a b %h $x";
    std::fs::create_dir_all(writable).unwrap();
    let mut one = launch("whole", &["/bin/sh", "-c", "sleep 600; : ';' $$ %h \"q\""]);
    one.task.env.insert("ODD".into(), "a;b \"q\" %h $$ \\ \n".into());
    one.task.working_dir = Some("/srv".into());
    one.task.files =
        vec![TaskFile { path: "/opt/app/100%h$x".into(), content: "answer = 42\n".into() }];
    one.task.sandbox.writable = vec![writable.into()];
    one.task.sandbox.capabilities = vec!["CAP_NET_BIND_SERVICE".into(), "CAP_NET_RAW".into()];
    one.task.sandbox.syscalls = vec!["@default".into(), "@process".into(), "@basic-io".into()];
    one.task.sandbox.syscalls.extend(["@file-system".into(), "@io-event".into(), "ioctl".into()]);
    one.claim.mems = CpuSet::from_iter(process::online_nodes().iter().take(1));
    let mut open = shell("opened", "sleep 600");
    open.task.sandbox.enabled = false;
    for one in [one, open] {
        agent.start(&one);
        agent.running(&one);
        let unit = one.alloc.unit();
        let shown = || -> std::collections::BTreeMap<String, String> {
            let (text, _) = systemctl(&["show", &unit]);
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            let pairs = pairs.map(|(key, value)| {
                let value = match key {
                    // The command without when it was executed.
                    "ExecStart" | "ExecStartEx" => value.split("start_time").next().unwrap(),
                    "Requires" | "After" | "Before" | "Wants" | "RequiresMountsFor" => {
                        let mut words: Vec<&str> = value.split(' ').collect();
                        words.sort_unstable();
                        return (key.to_owned(), words.join(" "));
                    }
                    // Not written down by systemd: `weftd exec` sees to it.
                    "NUMAPolicy" | "NUMAMask" => "",
                    "CPUUsageNSec" | "MemoryCurrent" | "TasksCurrent" | "ControlGroupId" => "",
                    "IOReadBytes" | "IOReadOperations" | "IOWriteBytes" | "MemoryAvailable" => "",
                    _ => value,
                };
                (key.to_owned(), value.to_owned())
            });
            pairs.collect()
        };
        let before = shown();
        reload();
        let after = shown();
        for (key, value) in &before {
            assert_eq!(Some(value), after.get(key), "{key} of {unit}");
        }
        let journal = std::process::Command::new("journalctl").args(["--no-pager", "-b"]).output();
        let journal = String::from_utf8_lossy(&journal.unwrap().stdout).into_owned();
        let complaint = journal.lines().find(|line| line.contains(&format!("transient/{unit}")));
        assert_eq!(complaint, None, "systemd understands what it has written");
        let (text, _) = systemctl(&["show", &unit]);
        assert!(!text.contains("a;b"), "nobody reads its environment there: {text}");
        end(&mut agent, &one);
    }
    std::fs::remove_dir(writable).unwrap();
}

#[test]
fn on_systemd_a_restart_by_hand_runs_the_same_command_or_nothing() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut before) = agent(&state) else { return };
    let script = "id -u; echo \"<$ODD>\"; for word; do echo \"<$word>\"; done; exec sleep 1000";
    let words =
        ["x", "id; echo no", "$$ $HOME ${x} $", "%h %% %n", "'\"` \\ \\n", "two\nlines", ""];
    let command: Vec<&str> = ["/bin/sh", "-c", script].into_iter().chain(words).collect();
    let mut one = launch("again", &command);
    one.task.env.insert("ODD".into(), "a;b \"q\" %h $$ \\ \n.".into());
    one.task.files = vec![TaskFile { path: "/opt/app/file".into(), content: "x".into() }];
    one.claim.mems = CpuSet::from_iter(process::online_nodes().iter().take(1));
    let unit = one.alloc.unit();
    before.start(&one);
    before.running(&one);
    before.wait_for_log(&one, "<>");
    let once = before.log(&one, LogQuery::default());
    assert!(once.contains("<id; echo no>\n<$$ $HOME ${x} $>\n<%h %% %n>"), "{once}");
    reload();
    // With the agent gone, as well.
    drop(before);
    let (said, is_done) = systemctl(&["restart", &unit]);
    assert!(is_done, "{said}");
    let mut after = agent(&state).unwrap();
    let found = after.runtime.block_on(after.executor.adopt()).unwrap();
    assert!(matches!(found[0].event, UnitEvent::Running { .. }), "{found:?}");
    let stdout = state.path().join("alloc").join(&unit).join("stdout");
    let twice = format!("{once}{once}");
    wait_until("it says the same again", || {
        let log = std::fs::read_to_string(&stdout).unwrap();
        assert!(twice.starts_with(&log), "{log}");
        log == twice
    });
    let UnitEvent::Running { pid, .. } = found[0].event else { panic!("{found:?}") };
    let allowed = process::status(pid).unwrap().mems;
    assert_eq!(process::memory_nodes(pid, &allowed), one.claim.mems, "bound as before");
    end(&mut after, &one);
    let (_, is_done) = systemctl(&["restart", &unit]);
    assert!(!is_done, "what has ended is not there any more");

    // systemd does not read this path back as it was given: then nothing.
    let mut odd = shell("odd", "cat '/opt/app/a b'; exec sleep 1000");
    odd.task.files = vec![TaskFile { path: "/opt/app/a b".into(), content: "content\n".into() }];
    after.start(&odd);
    after.running(&odd);
    after.wait_for_log(&odd, "content");
    reload();
    let (_, is_done) = systemctl(&["restart", &odd.alloc.unit()]);
    assert!(!is_done);
    after.exited(&odd);
}

/// Somebody starts a unit by hand, again and again, while its lease runs out and long after.
#[test]
fn on_systemd_nothing_runs_after_its_lease_whoever_starts_it() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let script = "trap '' TERM; while :; do read -r up idle </proc/uptime; echo \"up $up\"; sleep 0.02; done";
    // A start that came only when nothing was left of the unit shows less than the others.
    let (mut round, mut unseen) = (0, 0);
    while round < rounds() + unseen {
        round += 1;
        let (length, stop_timeout) = (Duration::from_secs(6), Duration::from_secs(1));
        let mut one = shell("solo", script);
        one.alloc.epoch = u64::from(round);
        let one = leased(one, agent.now().since_origin() + length, stop_timeout);
        let unit = one.alloc.unit();
        agent.start(&one);
        agent.running(&one);
        agent.wait_for_log(&one, "up");
        reload();
        // Renewed once: what is started by hand knows of it.
        let until = agent.now() + length;
        agent.executor.extend(&one.alloc, one.run, until);
        let clock = crate::clock::BootTime::now() + until.since(agent.now());
        drop(agent);
        let over = clock + stop_timeout;
        let (mut early, mut late) = (0, 0);
        while crate::clock::BootTime::now() < over + Duration::from_secs(12) {
            let began = crate::clock::BootTime::now();
            let (_, is_done) = systemctl(&["restart", &unit]);
            reload();
            match is_done {
                true if began + Duration::from_secs(2) < clock => early += 1,
                _ if began > over => late += 1,
                _ => {}
            }
            // systemd refuses more than five starts in ten seconds, and the guard kills whatever it sees until it has
            // seen nothing for some seconds.
            let pause = match crate::clock::BootTime::now() > over {
                true => Duration::from_secs(7),
                false => Duration::from_millis(2100 + u64::from(round) * 17 % 200),
            };
            let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build();
            waiting.unwrap().block_on(async { tokio::time::sleep(pause).await });
        }
        assert!(
            early > 0 && late > 0,
            "it was started while it might run, and after: {early} {late}"
        );
        agent = Agent::with(Preference::Systemd, state.path());
        let log = agent.log(&one, LogQuery::default());
        let last = log.lines().rev().find_map(|line| line.strip_prefix("up ")?.parse::<f64>().ok());
        let last = last.expect("it has run");
        // Signals need a moment.
        let latest = over.since_boot().as_secs_f64() + 0.5;
        assert!(last < latest, "it ran at {last}, and not later than {latest}");
        let stderr = LogQuery { channel: Some(super::Channel::Stderr), ..LogQuery::default() };
        let said = agent.log(&one, stderr);
        if !said.contains("weft: not executed: its lease ran out before it was executed") {
            unseen += 1;
            assert!(unseen <= 3, "no late start was refused: {said}");
        }
        let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
        let event = &found.iter().find(|found| found.alloc == one.alloc).unwrap().event;
        assert!(matches!(event, UnitEvent::Exited { .. }), "{event:?}");
        let (_, is_done) = systemctl(&["restart", &unit]);
        assert!(!is_done);
    }
}

/// A unit that is started by hand while its agent tells of its end.
#[test]
fn on_systemd_a_unit_that_is_said_to_have_ended_does_not_run() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    for round in 1..=5 * rounds() {
        let mut one = shell("back", "echo up; exec sleep 1000");
        one.alloc.epoch = u64::from(round);
        let unit = one.alloc.unit();
        let one = leased(one, agent.now().since_origin() + Duration::from_secs(60), Duration::ZERO);
        agent.start(&one);
        let pid = agent.running(&one);
        reload();
        let (told, unit_by_hand) = (std::sync::Arc::new(()), unit.clone());
        let telling = std::sync::Arc::downgrade(&told);
        let by_hand = agent.runtime.spawn_blocking(move || {
            while telling.strong_count() > 0 {
                systemctl(&["start", &unit_by_hand]);
                systemctl(&["kill", "--signal=KILL", &unit_by_hand]);
            }
            systemctl(&["start", &unit_by_hand]);
        });
        signal(pid, nix::sys::signal::Signal::SIGKILL);
        // It may be seen running again before; it has ended when that is said.
        while !matches!(agent.event(&one), UnitEvent::Exited { .. }) {}
        let starts = |agent: &mut Agent| agent.log(&one, LogQuery::default()).matches("up").count();
        // systemd may be about to start it: without words, nothing.
        let (now, _) = systemctl(&["is-active", &unit]);
        let before = starts(&mut agent);
        assert!(!now.starts_with("active"), "{now}");
        drop(told);
        agent.runtime.block_on(by_hand).unwrap();
        let (now, _) = systemctl(&["is-active", &unit]);
        assert!(["inactive", "failed"].contains(&now.trim()), "{now}");
        assert_eq!(starts(&mut agent), before);
    }
}

/// Beside `systemd-run`, which starts a unit without a sandbox of ours. For people: nothing is compared.
#[test]
fn on_systemd_how_long_a_start_takes() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let (mut ours, mut theirs, mut leases) = (Vec::new(), Vec::new(), Vec::new());
    let now = crate::clock::BootTime::now;
    for epoch in 1..=20 {
        let mut one = shell("timed", "exec sleep 600");
        one.alloc.epoch = epoch;
        let began = now();
        agent.start(&one);
        agent.running(&one);
        ours.push(now().since(began));
        end(&mut agent, &one);
        one.alloc.epoch = 100 + epoch;
        let length = agent.now().since_origin() + Duration::from_secs(60);
        let one = leased(one, length, Duration::from_secs(1));
        let began = now();
        agent.start(&one);
        agent.running(&one);
        leases.push(now().since(began));
        end(&mut agent, &one);
        let unit = format!("timed-{epoch}");
        let began = now();
        let run = std::process::Command::new("systemd-run")
            .args(["--quiet", "--unit", &unit, "-p", "Type=exec", "-p", "DynamicUser=yes"])
            .args(["sleep", "600"])
            .status();
        theirs.push(now().since(began));
        assert!(run.unwrap().success());
        systemctl(&["stop", &unit]);
    }
    for (who, mut times) in [("weft", ours), ("at most one", leases), ("systemd-run", theirs)] {
        times.sort();
        println!(
            "{who}: median {:?}, longest {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
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
    reload();
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
    reload();
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
    reload();
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
    // Beside others systemd may take its time.
    let mut tries = 0;
    let found = loop {
        match stranger.runtime.block_on(stranger.executor.adopt()) {
            Err(error) if tries < 10 && error.to_string().contains("does not answer") => tries += 1,
            found => break found.unwrap(),
        }
    };
    assert!(found.is_empty(), "units of another agent are left alone: {found:?}");
    drop(stranger);

    reload();
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

/// Each word of `[task]` that opens something opens that alone: root has no capability, and writes where it was told.
#[test]
fn on_systemd_a_user_a_path_and_a_capability_open_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let folder = std::path::Path::new("/srv/weft-writable");
    std::fs::create_dir_all(folder).unwrap();
    let look = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
        touch /srv/weft-writable/x 2>/dev/null && echo srv-written; \
        touch /etc/weft-test-root 2>/dev/null && echo etc-written; \
        ls -d /dev/kmsg 2>/dev/null; ls /root >/dev/null 2>&1 && echo root-seen; \
        unshare -U true 2>/dev/null && echo unshared; true";
    let mut root = shell("root", look);
    root.task.user = Some("root".into());
    root.task.sandbox.writable = vec![folder.to_str().unwrap().into()];
    let mut binds = shell("binds", look);
    binds.task.sandbox.capabilities = vec!["CAP_NET_BIND_SERVICE".into()];
    for (one, has, not) in [
        (
            &root,
            ["Uid:\t0\t0\t0\t0", "CapEff:\t0000000000000000", "srv-written"],
            ["CapBnd:\t0000000000000400", "CapEff:\t0000000000000400"],
        ),
        (
            &binds,
            ["CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1"],
            ["srv-written", "Uid:\t0"],
        ),
    ] {
        agent.start(one);
        outcome(&mut agent, one);
        let log = agent.log(one, LogQuery::default());
        for line in has.iter().chain(&["NoNewPrivs:\t1", "Seccomp:\t2"]) {
            assert!(log.lines().any(|said| said == *line), "{line} in {log}");
        }
        let never = ["etc-written", "/dev/kmsg", "root-seen", "unshared"];
        for line in not.iter().chain(&never) {
            assert!(!log.lines().any(|said| said.starts_with(line)), "{line} in {log}");
        }
    }
    assert!(!std::path::Path::new("/etc/weft-test-root").exists());
    std::fs::remove_dir_all(folder).unwrap();
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
    with_time_enough(the_guard_ends_a_unit_whose_lease_is_of);
}

fn the_guard_ends_a_unit_whose_lease_is_of(length: Duration) -> bool {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return true };
    let over = crate::clock::BootTime::now() + length;
    let script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done";
    let stop_timeout = Duration::from_secs(1);
    let one = leased(shell("orphan", script), length, stop_timeout);
    agent.start(&one);
    let pid = agent.running(&one);
    agent.wait_for_log(&one, "up");
    reload();
    if crate::clock::BootTime::now() >= over {
        wait_until("the guard kills it", || !alive(pid));
        return false;
    }
    let guard = agent.executor.leases().folder().guard().expect("it guards");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", guard.pid)).unwrap();
    assert!(
        cgroup.contains("weft.slice/weft-guard-"),
        "beside the agent, and beside the unit: {cgroup}"
    );
    // Longer than it would have lived.
    let longer = fabric::clock::Instant::at(length + Duration::from_secs(4));
    agent.executor.extend(&one.alloc, one.run, longer);
    // The guard dies, and systemd starts it again, without any agent.
    let leases = agent.executor.leases().clone();
    drop(agent);
    signal(guard.pid, nix::sys::signal::Signal::SIGKILL);
    wait_until("another guard", || {
        leases.folder().guard().is_some_and(|next| next != guard && alive(next.pid))
    });
    let (lives, in_time) = (alive(pid), crate::clock::BootTime::now() < over);
    assert!(lives || !in_time, "it lives as long as its lease");
    wait_until("the guard kills it", || !alive(pid));
    if !in_time {
        return false;
    }
    let mut next = Agent::with(Preference::Systemd, state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    let UnitEvent::Exited { status, success, killed } = &found[0].event else {
        panic!("{found:?}")
    };
    assert!(status.starts_with("its lease ran out: ") && !success && *killed, "{found:?}");
    assert_eq!(next.log(&one, LogQuery::default()).matches("asked").count(), 1);
    let (_, unit) = cgroup.trim_end().rsplit_once('/').unwrap();
    wait_until("it ends well when nothing is left to guard", || !loaded(unit));
    true
}

#[test]
fn on_systemd_a_renewed_lease_is_known_to_the_next_agent() {
    with_time_enough(the_next_agent_knows_a_lease_of);
}

fn the_next_agent_knows_a_lease_of(length: Duration) -> bool {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return true };
    let over = crate::clock::BootTime::now() + length;
    let one = leased(shell("adopted", UNTIL_STOPPED), length, Duration::from_secs(10));
    agent.start(&one);
    let pid = agent.running(&one);
    reload();
    drop(agent);
    let mut next = Agent::with(Preference::Systemd, state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    if crate::clock::BootTime::now() >= over {
        wait_until("the guard ends it", || !alive(pid));
        return false;
    }
    assert!(matches!(found[0].event, UnitEvent::Running { pid: has, .. } if has == pid));
    let until = found[0].lease_until.expect("the guard is armed");
    assert!(until.since_origin() < length, "on the new agent's clock: {until:?}");
    let later = until + Duration::from_secs(1);
    next.executor.extend(&one.alloc, one.run, later);
    if crate::clock::BootTime::now() >= over {
        wait_until("the guard ends it", || !alive(pid));
        return false;
    }
    assert_eq!(next.exited(&one).0, "its lease ran out: exit status 0");
    assert!(next.now() >= later);
    let again = leased(Launch { run: 2, ..one }, 10 * length, Duration::from_secs(1));
    next.start(&again);
    next.running(&again);
    let stdout = state.path().join("alloc").join(again.alloc.unit()).join("stdout");
    wait_until("it can hear", || {
        std::fs::read_to_string(&stdout).is_ok_and(|log| log.matches("up").count() == 2)
    });
    next.stop(&again);
    assert_eq!(next.exited(&again).0, "exit status 0", "it was stopped, its lease ran");
    assert!(!next.executor.leases().any());
    true
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

#[test]
fn on_systemd_a_check_is_a_part_of_its_unit() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::checks::a_check_is_a_part_of_its_unit(&mut agent);
}

#[test]
fn on_systemd_nothing_outlives_a_check() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::checks::nothing_outlives_a_check(&mut agent);
}

#[test]
fn on_systemd_a_check_that_forks_is_bounded() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::checks::a_check_that_forks_is_bounded(&mut agent);
}

#[test]
fn on_systemd_a_units_own_socket_is_no_strangers() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::checks::sockets_are_told_apart(&mut agent);
}

#[test]
fn on_systemd_a_check_ends_with_its_task() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::checks::a_check_ends_with_its_task(&mut agent);
}

#[test]
fn on_systemd_a_flood_is_bounded() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    super::tests::floods::a_flood_is_bounded(&mut agent, "systemd");
}
