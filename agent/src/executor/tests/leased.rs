//! Units that run under a lease, with a guard as a process of its own.

use fabric::io::{Launch, UnitEvent};
use std::time::Duration;

use super::{Agent, LogQuery, PATIENCE, alive, shell, wait_until};
use crate::executor::spawn::open_append;
use crate::executor::{environment, spawn};

/// A launch whose lease ends this long from now, for an agent whose clock starts now.
pub fn leased(mut launch: Launch, length: Duration, stop_timeout: Duration) -> Launch {
    // The tests' clocks start with their executors, a moment earlier.
    let until = fabric::clock::Instant::at(length);
    launch.lease = Some(fabric::io::Lease { until, stop_timeout });
    launch.task.stop_timeout = stop_timeout;
    launch
}

/// Tries with longer and longer leases until the one that `attempt` was given has not run out in the middle of it: how
/// long a start takes is up to the machine.
pub fn with_time_enough(attempt: impl Fn(Duration) -> bool) {
    let enough = [6, 20, 60].into_iter().any(|length| attempt(Duration::from_secs(length)));
    assert!(enough, "a minute is enough for a few starts");
}

pub const UNTIL_STOPPED: &str =
    "exec 2>/dev/null; trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done";

#[test]
fn a_unit_runs_as_long_as_its_lease_is_renewed_and_its_end_says_so() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    // A busy machine may take seconds to start it.
    let length = Duration::from_secs(10);
    let one = leased(shell("leased", UNTIL_STOPPED), length, Duration::from_secs(10));
    agent.start(&one);
    agent.running(&one);
    agent.wait_for_log(&one, "up");
    let longer = fabric::clock::Instant::at(length + Duration::from_secs(2));
    agent.executor.extend(&one.alloc, one.run, longer);
    // Of an earlier run, and earlier than what it has: neither shortens anything.
    agent.executor.extend(&one.alloc, one.run + 1, fabric::clock::Instant::default());
    agent.executor.extend(&one.alloc, one.run, fabric::clock::Instant::default());
    assert_eq!(agent.executor.leases().until(&one.alloc, one.run), Some(longer));
    let (status, success, killed) = agent.exited(&one);
    assert_eq!(
        (status.as_str(), success, killed),
        ("its lease ran out: exit status 0", false, false)
    );
    assert!(agent.now() >= longer, "not before its time");
    assert_eq!(agent.log(&one, LogQuery::default()), "up\nasked\n");
    assert!(!agent.executor.leases().any(), "nothing is left to guard");
}

#[test]
fn a_unit_that_outlives_its_lease_is_killed_also_while_no_agent_runs() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let script = "trap 'echo asked' TERM; echo up $WEFT_RUN; while :; do sleep 0.02; done";
    let stop_timeout = Duration::from_secs(1);
    let one = leased(shell("orphan", script), Duration::from_secs(6), stop_timeout);
    agent.start(&one);
    let pid = agent.running(&one);
    agent.wait_for_log(&one, "up 1");
    // Its end, without a word to anybody.
    drop(agent);
    wait_until("the guard kills it", || !alive(pid));
    let mut next = Agent::direct(state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    let UnitEvent::Exited { status, success, killed } = &found[0].event else {
        panic!("{found:?}")
    };
    assert!(status.starts_with("its lease ran out: ") && !success && *killed, "{found:?}");
    assert_eq!(found[0].lease_until, None);
    // The same run is over; the next one starts under a lease of its own.
    let mut again = leased(one.clone(), Duration::from_secs(60), stop_timeout);
    again.run = 2;
    next.start(&again);
    next.running(&again);
    next.wait_for_log(&again, "up 2");
    next.stop(&again);
    let (status, _, killed) = next.exited(&again);
    assert!(killed && !status.contains("lease"), "it was stopped, its lease ran: {status}");
}

#[test]
fn the_next_agent_knows_the_lease_of_a_unit_and_renews_it() {
    with_time_enough(the_next_agent_renews_a_lease_of);
}

fn the_next_agent_renews_a_lease_of(length: Duration) -> bool {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let over = crate::clock::BootTime::now() + length;
    let one = leased(shell("adopted", UNTIL_STOPPED), length, Duration::from_secs(10));
    agent.start(&one);
    let pid = agent.running(&one);
    agent.wait_for_log(&one, "up");
    drop(agent);
    let mut next = Agent::direct(state.path());
    let found = next.runtime.block_on(next.executor.adopt()).unwrap();
    if crate::clock::BootTime::now() >= over {
        return false;
    }
    assert!(matches!(found[0].event, UnitEvent::Running { pid: has, .. } if has == pid));
    let until = found[0].lease_until.expect("the guard is armed");
    assert!(until.since_origin() < length, "on the new agent's clock: {until:?}");
    let later = until + length;
    next.executor.extend(&one.alloc, one.run, later);
    let in_time = crate::clock::BootTime::now() < over;
    assert_eq!(next.exited(&one).0, "its lease ran out: exit status 0");
    assert!(!in_time || next.now() >= later);
    in_time
}

#[test]
fn a_unit_is_not_started_after_the_end_of_its_lease() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let late = leased(shell("late", "echo up"), Duration::ZERO, Duration::ZERO);
    agent.start(&late);
    let reason = agent.refused(&late);
    assert!(reason.contains("lease has run out"), "{reason}");
    assert!(!agent.executor.leases().any());
}

/// An agent that was stopped between the guard's answer and this.
#[test]
fn a_process_looks_at_its_lease_in_the_moment_it_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let one = shell("moment", "echo up");
    let spawn = |until| {
        let open = || open_append(&folder.path().join("output")).unwrap();
        spawn::spawn(spawn::Plan {
            launch: &one,
            environment: environment(&one),
            identity: None,
            cgroup: None,
            until,
            files: Vec::new(),
            stdout: open(),
            stderr: open(),
        })
    };
    let reason = spawn(Some(crate::clock::BootTime::now())).unwrap_err();
    assert!(reason.contains("before the end of its lease"), "{reason}");
    assert_eq!(std::fs::read_to_string(folder.path().join("output")).unwrap(), "");
    let later = crate::clock::BootTime::now() + PATIENCE;
    let pid = spawn(Some(later)).unwrap();
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid as i32), None).unwrap();
    assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("output")).unwrap(), "up\n");
}

#[test]
fn a_leased_unit_that_nobody_keeps_is_not_said_to_be_gone() {
    with_time_enough(nobody_says_that_it_is_gone_within);
}

fn nobody_says_that_it_is_gone_within(length: Duration) -> bool {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let over = crate::clock::BootTime::now() + length;
    let one = leased(shell("lost", UNTIL_STOPPED), length, Duration::from_millis(100));
    agent.start(&one);
    let pid = agent.running(&one);
    agent.wait_for_log(&one, "up");
    drop(agent);
    // The agent's memory of it is gone, and the guard's is not.
    std::fs::remove_dir_all(state.path().join("alloc")).unwrap();
    let mut next = Agent::direct(state.path());
    assert!(next.runtime.block_on(next.executor.adopt()).unwrap().is_empty());
    next.stop(&one);
    let (runs, is_said) = (alive(pid), next.events.try_recv().is_ok());
    let in_time = crate::clock::BootTime::now() < over;
    assert!(!in_time || runs && !is_said, "nothing is said while it runs");
    wait_until("the guard ends it with its lease", || !alive(pid));
    if in_time {
        next.stop(&one);
        assert_eq!(next.exited(&one).0, "gone");
    }
    in_time
}
