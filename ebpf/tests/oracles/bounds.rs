//! What is bounded, what is gone, and what is not allowed.

use crate::unit::{Unit, only, probes, skipped};
use ebpf::tcp::Connecting;
use ebpf::{CgroupId, Config, Probe, Probes, Status};
use std::fs::File;
use std::process::Command;

#[test]
fn a_cgroup_that_is_gone_is_counted_once_more_and_then_as_other() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Processes)) else { return };
    let Some(unit) = Unit::new(&probes, "gone") else { return };
    let id = unit.id();
    unit.process("start processes").run();
    let before = probes.read().processes.expect("running").rows;
    assert_eq!(before[&id].programs, 25);
    unit.process("start processes").run();
    let known = |probes: &Probes| probes.cgroups().folder(id).map(|path| path.components().count());
    assert_eq!(known(&probes), Some(1));
    drop(unit);
    // A look at something else in between takes nothing away.
    let _ = probes.pressure(|_, _| true);
    let last = probes.read().processes.expect("running").rows;
    assert_eq!(last[&id].programs, 50, "what it did since it was looked at is its own");
    assert_eq!(known(&probes), Some(1));
    for _ in 0..2 {
        let after = probes.read().processes.expect("running").rows;
        assert!(!after.contains_key(&id), "its row is gone");
        let grown = after[&CgroupId::OTHER].programs - before[&CgroupId::OTHER].programs;
        assert!(grown >= 50, "what it did is not: other has grown by {grown}");
        assert_eq!(known(&probes), None);
    }
}

/// A histogram goes with its numbers, and numbers without one go too.
#[test]
fn histograms_of_a_cgroup_that_is_gone_are_counted_as_other() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Tcp)) else { return };
    let Some(unit) = Unit::new(&probes, "gone") else { return };
    let Some(refused) = Unit::new(&probes, "refused") else { return };
    unit.process("connect").run();
    refused.process("be refused").run();
    let ids = [unit.id(), refused.id()];
    let mut look = || probes.read().connecting.expect("running").rows;
    let timed = |row: &Connecting| row.latency.as_ref().expect("known").total();
    let before = look();
    assert_eq!(before[&ids[0]].connected, Some(20));
    assert_eq!((before[&ids[1]].failed, timed(&before[&ids[1]])), (Some(5), 0));
    drop((unit, refused));
    let last = look();
    assert!(ids.iter().all(|id| last[id] == before[id]), "once more");
    for _ in 0..2 {
        let after = look();
        assert!(ids.iter().all(|id| !after.contains_key(id)), "their rows are gone");
        let (before_other, other) = (&before[&CgroupId::OTHER], &after[&CgroupId::OTHER]);
        assert!(other.connected >= before_other.connected.map(|connected| connected + 20));
        assert!(other.failed >= before_other.failed.map(|failed| failed + 10));
        assert!(timed(other) >= timed(before_other) + timed(&before[&ids[0]]));
    }
}

#[test]
fn cgroups_beyond_the_bound_are_counted_as_other() {
    let config = Config { cgroups_max: 3, ..only(Probe::Processes) };
    let Some((mut probes, _alone)) = probes(&config) else { return };
    let Some(units) = ["a", "b", "c", "d", "e"]
        .map(|name| Unit::new(&probes, name))
        .into_iter()
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    for unit in &units {
        unit.process("start processes").run();
    }
    let rows = probes.read().processes.expect("running").rows;
    assert_eq!(rows.len(), 3, "with the row for the others");
    let counted: u64 = rows.values().map(|row| row.programs).sum();
    assert!(counted >= 25 * 5, "nothing is lost: {counted}");
}

/// A descriptor that is closed twice is somebody else's the second time.
#[test]
fn what_is_opened_beside_probes_stays_open_after_them() {
    let config = Config { older_hooks: true, ..only(Probe::Faults) };
    let Some((probes, _alone)) = probes(&config) else { return };
    let open = |_| File::open("/proc/self/status").expect("proc is mounted");
    let files: Vec<File> = (0..64).map(open).collect();
    drop(probes);
    let closed = files.iter().filter(|file| file.metadata().is_err()).count();
    // To drop one that is closed ends the process.
    std::mem::forget(files);
    assert_eq!(closed, 0);
}

/// Everything but the measuring of the probes' own cost works with the three capabilities of the agent's
/// service; without them each probe says what is missing.
#[test]
fn three_capabilities_are_enough() {
    let Some((_probes, _alone)) = probes(&Config::default()) else { return };
    let with = |capabilities: &str| {
        let output = Command::new("setpriv")
            .args(["--bounding-set", capabilities, "--"])
            .arg(std::env::current_exe().expect("we run"))
            .args(["bounds::status_of_all_probes", "--exact", "--ignored", "--nocapture"])
            .output()
            .expect("util-linux is installed");
        String::from_utf8(output.stdout).expect("text")
    };
    let said = with("-all,+bpf,+perfmon,+net_admin");
    assert_eq!(said.matches(": running").count(), Probe::ALL.len(), "{said}");
    assert!(said.contains("scheduler: read from Bpf"), "{said}");
    assert!(said.contains("cost: unknown: Operation not permitted"), "{said}");
    let said = with("-all,+net_admin");
    let refusals = said.matches("unsupported: loading eBPF programs needs CAP_PERFMON, CAP_BPF");
    assert_eq!(refusals.count(), Probe::ALL.len(), "{said}");
    assert!(said.contains("scheduler: read from Procfs"), "{said}");
}

/// Not a test: what `three_capabilities_are_enough` starts with fewer of them.
#[test]
#[ignore = "started by another test"]
fn status_of_all_probes() {
    let mut probes = Probes::load(&Config::default());
    for (probe, status) in probes.status() {
        println!("{probe}: {status}");
    }
    let readings = probes.read();
    match readings.scheduler {
        Some(scheduler) => println!("scheduler: read from {:?}", scheduler.source),
        None => println!("scheduler: nothing read"),
    }
    match probes.cost() {
        Ok(costs) => println!("cost: of {} programs", costs.len()),
        Err(reason) => println!("cost: unknown: {reason}"),
    }
}

#[test]
fn what_is_not_asked_for_is_not_loaded() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Network)) else { return };
    let readings = probes.read();
    assert!(readings.network.is_some() && readings.scheduler.is_none());
    let off = probes.status().into_iter().filter(|(_, status)| *status == Status::Off);
    assert_eq!(off.count(), Probe::ALL.len() - 1);
    match probes.cost() {
        Ok(costs) => assert!(costs.iter().all(|(probe, _)| *probe == Probe::Network)),
        Err(reason) => skipped(&reason.to_string()),
    }
}
