//! What procfs and cgroupfs say, beside probes that run at the same time.

use crate::unit::{Unit, only, probes};
use ebpf::{Config, Probe, Probes, Source, Status};

#[test]
fn without_bpf_procfs_says_nearly_the_same() {
    let config = Config { probes: [Probe::Scheduler, Probe::Faults].into(), ..Config::default() };
    let Some((mut probes, _alone)) = probes(&config) else { return };
    let Some(unit) = Unit::new(&probes, "fallback") else { return };
    let mut without = Probes::load(&Config { bpf: false, ..config });
    let (_, status) = &without.status()[0];
    assert!(matches!(status, Status::Unsupported(_)), "{status}");
    let mut spinning = unit.process("spin");
    let mut touching = unit.process("touch pages");
    spinning.begin();
    touching.run();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (ours, theirs, later) = (probes.read(), without.read(), probes.read());
    let (ours_on, theirs_on) =
        (ours.scheduler.expect("running"), theirs.scheduler.expect("procfs"));
    assert_eq!((ours_on.source, theirs_on.source), (Source::Bpf, Source::Procfs));
    let (ours_on, theirs_on) = (&ours_on.rows[&unit.id()], &theirs_on.rows[&unit.id()]);
    let on = |row: &ebpf::scheduler::Scheduling| row.on_cpu_ns.expect("known") as f64;
    let later_on = &later.scheduler.expect("running").rows[&unit.id()];
    let (low, high) = (on(ours_on) * 0.9, on(later_on) * 1.1);
    assert!((low..=high).contains(&on(theirs_on)), "{low} {theirs_on:?} {high}");
    assert!(
        theirs_on.wait_ns.is_some() && theirs_on.wait.is_none() && theirs_on.off_cpu_ns.is_none()
    );
    let (ours, theirs) = (ours.faults.expect("running"), theirs.faults.expect("procfs"));
    // Processes were started, which cost them some hundred, before they came into the cgroup.
    let (ours, theirs) = (ours.rows[&unit.id()].faults, theirs.rows[&unit.id()].faults);
    assert!(theirs >= 5000 && theirs < ours + 3000, "page faults: {theirs} and {ours}");
    let id = unit.id();
    drop((spinning, touching, unit));
    let after = without.read().scheduler.expect("procfs").rows;
    assert!(!after.contains_key(&id), "what is gone is counted as other");
}

#[test]
fn what_no_file_tells_is_not_measured() {
    let Some((_, _alone)) = probes(&only(Probe::Network)) else { return };
    let mut without = Probes::load(&Config { bpf: false, ..Config::default() });
    let readings = without.read();
    assert!(
        readings.network.is_none() && readings.connecting.is_none() && readings.processes.is_none()
    );
    let peers = readings.peers.expect("every kernel with TCP");
    assert_eq!((peers.source, peers.rows.len()), (Source::Procfs, 1));
    for (what, source) in [
        ("io.stat", readings.block.map(|reading| reading.source)),
        ("memory.events.local", readings.oom.map(|reading| reading.source)),
        ("cpu.pressure", without.pressure().map(|reading| reading.source)),
    ] {
        match source {
            Some(source) => assert_eq!(source, Source::Cgroupfs),
            None => println!("skipped: no cgroup has a file {what} to read here"),
        }
    }
}
