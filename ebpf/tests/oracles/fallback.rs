//! What procfs and cgroupfs say, beside probes that run at the same time.

use crate::unit::{Unit, only, probes};
use ebpf::{Config, Probe, Probes, Readings, Source, Status};

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
    // Both count from here: what the processes used before they came into the cgroup only procfs knows.
    let before = (probes.read(), without.read());
    spinning.begin();
    touching.run();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (ours, theirs, later) = (probes.read(), without.read(), probes.read());
    let scheduling = |readings: &Readings, source: Source| {
        let reading = readings.scheduler.as_ref().expect("there is a source");
        assert_eq!(reading.source, source);
        reading.rows.get(&unit.id()).cloned().unwrap_or_default()
    };
    let on = |readings: &Readings, source: Source| {
        scheduling(readings, source).on_cpu_ns.unwrap_or(0) as f64
    };
    let first = on(&before.0, Source::Bpf);
    let low = (on(&ours, Source::Bpf) - first) * 0.9;
    let high = (on(&later, Source::Bpf) - first) * 1.1;
    let theirs_on = on(&theirs, Source::Procfs) - on(&before.1, Source::Procfs);
    assert!((low..=high).contains(&theirs_on), "time on CPU: {low} {theirs_on} {high}");
    let row = scheduling(&theirs, Source::Procfs);
    assert!(row.wait_ns.is_some() && row.wait.is_none() && row.off_cpu_ns.is_none());
    let faults = |readings: &Readings| {
        let rows = &readings.faults.as_ref().expect("there is a source").rows;
        rows.get(&unit.id()).map_or(0, |row| row.faults)
    };
    let (ours, theirs) = (faults(&ours) - faults(&before.0), faults(&theirs) - faults(&before.1));
    assert!(theirs >= 5000 && theirs.abs_diff(ours) < 500, "page faults: {theirs} and {ours}");
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
        ("cpu.pressure", without.pressure(|_, _| true).map(|reading| reading.source)),
    ] {
        match source {
            Some(source) => assert_eq!(source, Source::Cgroupfs),
            None => println!("skipped: no cgroup has a file {what} to read here"),
        }
    }
}
