//! Each probe beside an independent source: the kernel's own books, or what we did ourselves.
//!
//! Needs root, and a kernel with BTF; what it lacks is said aloud. With `WEFT_MUST=ebpf` a probe that cannot be
//! loaded is a failure. Traffic stays in network namespaces of the tests' own, and cgroups are removed.
#![allow(clippy::disallowed_methods)]

mod bounds;
mod counters;
mod fallback;
mod memory;
mod peers;
mod traces;
mod unit;
mod work;

use ebpf::block::Block;
use ebpf::{CgroupId, Config, Histogram, Probe, Readings};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};
use unit::{Unit, only, probes, skipped};

/// Not a test: the process that the tests look at.
#[test]
#[ignore = "started by the other tests"]
fn process_of_a_test() {
    if let Ok(work) = std::env::var("WEFT_WORK") {
        work::process(&work);
    }
}

#[test]
fn waiting_and_running_are_what_schedstat_says() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Scheduler)) else { return };
    let Some(unit) = Unit::new(&probes, "scheduler") else { return };
    let mut process = unit.process("share a cpu");
    process.asleep();
    let before = (probes.read().scheduler.expect("running").rows, process.books());
    process.run();
    process.asleep();
    let (rows, books) = (probes.read().scheduler.expect("running").rows, process.books());
    let (ours, first) = (&rows[&unit.id()], before.0.get(&unit.id()).cloned().unwrap_or_default());
    for (what, ours, first, theirs) in [
        ("run-queue wait", ours.wait_ns, first.wait_ns, books.waited_ns - before.1.waited_ns),
        ("time on CPU", ours.on_cpu_ns, first.on_cpu_ns, books.on_ns - before.1.on_ns),
        (
            "voluntary switches",
            ours.voluntary_switches,
            first.voluntary_switches,
            books.voluntary - before.1.voluntary,
        ),
        (
            "involuntary switches",
            ours.involuntary_switches,
            first.involuntary_switches,
            books.involuntary - before.1.involuntary,
        ),
    ] {
        near(what, ours.expect("known") - first.unwrap_or(0), theirs, 0.05);
    }
    let waited_ns = books.waited_ns - before.1.waited_ns;
    let wait = ours.wait.as_ref().expect("known");
    let longest = wait.quantile(1.0).expect("some waited");
    assert!((1_000_000..1_000_000_000).contains(&longest), "the longest wait was {longest} ns");
    assert!(waited_ns > 500_000_000, "three threads on one CPU wait");
}

/// A thread that has a core to itself for long is not forgotten until it leaves it.
#[test]
fn a_thread_that_never_leaves_its_cpu_is_counted_while_it_is_there() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Scheduler)) else { return };
    let Some(unit) = Unit::new(&probes, "spin") else { return };
    let mut process = unit.process("spin");
    process.begin();
    std::thread::sleep(Duration::from_millis(1000));
    // A reading takes its time, during which the thread goes on: theirs is asked before and after it.
    let mut look = || (process.on_cpu_ns(), rows(&probes.read(), unit.id()), process.on_cpu_ns());
    let first = look();
    std::thread::sleep(Duration::from_millis(1500));
    let second = look();
    let ours = second.1 - first.1;
    let (least, most) = (second.0 - first.2, second.2 - first.0);
    println!("time on CPU, a second and a half of it: ours {ours}, theirs {least} to {most}");
    assert!(ours as f64 >= least as f64 * 0.95 && ours as f64 <= most as f64 * 1.05);

    fn rows(readings: &Readings, id: CgroupId) -> u64 {
        let scheduler = readings.scheduler.as_ref().expect("running");
        scheduler.rows[&id].on_cpu_ns.expect("known")
    }
}

/// More threads than CPUs, all begun at once. Whatever interrupts them, nothing of their time is lost or given to another.
#[test]
fn many_at_once_are_each_counted_in_full() {
    const PROCESSES: usize = 16;
    let Some((mut probes, _alone)) = probes(&only(Probe::Scheduler)) else { return };
    let names: Vec<String> = (0..PROCESSES).map(|number| format!("many-{number}")).collect();
    let Some(units) = names.iter().map(|name| Unit::new(&probes, name)).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let mut processes: Vec<_> = units.iter().map(|unit| unit.process("spin")).collect();
    let before: Vec<u64> = processes.iter().map(|process| process.on_cpu_ns()).collect();
    processes.iter_mut().for_each(|process| process.begin());
    std::thread::sleep(Duration::from_millis(1000));
    // Once they are off their CPUs the kernel's books are exact.
    processes.iter().for_each(|process| process.freeze());
    let rows = probes.read().scheduler.expect("running").rows;
    for ((unit, process), before) in units.iter().zip(&processes).zip(before) {
        let ours = rows.get(&unit.id()).and_then(|row| row.on_cpu_ns).unwrap_or(0);
        near("time on CPU, one of many", ours, process.on_cpu_ns() - before, 0.01);
    }
}

/// By the clock on the wall, of which the kernel's books of threads know nothing.
#[test]
fn waiting_running_and_sleeping_are_all_of_a_life() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Scheduler)) else { return };
    let Some(unit) = Unit::new(&probes, "life") else { return };
    let born = Instant::now();
    let mut process = unit.process("sleep");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    process.run();
    let (least, most) = (begun.elapsed(), born.elapsed());
    let mut sum = 0;
    // It still has a few words to write to its end of the pipe, and then sleeps for good.
    process.asleep();
    let rows = probes.read().scheduler.expect("running").rows;
    let ours = &rows[&unit.id()];
    for part in [ours.wait_ns, ours.on_cpu_ns, ours.off_cpu_ns] {
        sum += part.expect("known");
    }
    let asleep = ours.off_cpu_ns.expect("known");
    assert!(asleep >= 500_000_000, "it slept for half a second at least: {asleep} ns");
    let allowed = least.mul_f64(0.9)..=most.mul_f64(1.1);
    assert!(allowed.contains(&Duration::from_nanos(sum)), "{sum} ns are not within {allowed:?}");
}

#[test]
fn starts_and_ends_of_processes_are_counted_exactly() {
    for older_hooks in [false, true] {
        let config = Config { older_hooks, ..only(Probe::Processes) };
        let Some((mut probes, _alone)) = probes(&config) else { return };
        let Some(unit) = Unit::new(&probes, "processes") else { return };
        let mut process = unit.process("start processes");
        let did = process.run();
        let rows = probes.read().processes.expect("running").rows;
        let ours = &rows[&unit.id()];
        let counted = [ours.started, ours.threads, ours.programs, ours.exited];
        assert_eq!(counted, ["started", "threads", "programs", "exited"].map(|name| did[name]));
        // It has several threads, which are killed at once.
        drop(process);
        let rows = probes.read().processes.expect("running").rows;
        assert_eq!(rows[&unit.id()].exited, did["exited"] + 1, "the process itself has ended now");
    }
}

#[test]
fn page_faults_are_those_of_getrusage() {
    for older_hooks in [false, true] {
        let config = Config { older_hooks, ..only(Probe::Faults) };
        let Some((mut probes, _alone)) = probes(&config) else { return };
        let Some(unit) = Unit::new(&probes, "faults") else { return };
        let mut process = unit.process("touch pages");
        let did = process.run();
        let rows = probes.read().faults.expect("running").rows;
        assert!(did["faults"] >= did["touched"], "every page was touched");
        near("page faults", rows[&unit.id()].faults, did["faults"], 0.05);
    }
}

/// How often a disk is asked, until all its answers were told. There are kernels that run no program where an interrupt came
/// while some thread was running, and what a disk answers then is counted for nobody.
const TRIES: usize = 5;

#[test]
fn bytes_of_block_devices_are_those_that_were_written_and_read() {
    for older_hooks in [false, true] {
        let config = Config { older_hooks, ..only(Probe::Block) };
        let mut tries = 0..TRIES;
        loop {
            assert!(tries.next().is_some(), "not exact in {TRIES} tries");
            let Some((mut probes, _alone)) = probes(&config) else { return };
            let Some(unit) = Unit::new(&probes, "block") else { return };
            let Some(path) = file_on_a_disk() else { return };
            let mut process = unit.process(&format!("disk {path}"));
            let did = process.run();
            let rows = probes.read().block.expect("running").rows;
            fs::remove_file(&path).expect("ours");
            if !all_was_told(&rows, &[unit.id()], &did) {
                continue;
            }
            let (ours, others) = (&rows[&unit.id()], &rows[&CgroupId::OTHER]);
            for (ours, others) in [(&ours.read, &others.read), (&ours.write, &others.write)] {
                timed(&ours.latency, ours.requests, &others.latency);
                let fastest = ours.latency.as_ref().and_then(|latency| latency.quantile(0.0));
                assert!(fastest.is_none_or(|ns| ns > 1000), "no disk answers within 1 us");
            }
            break;
        }
    }
}

/// Many cgroups do their first things at once: more than the kernel has large rows at hand for.
#[test]
fn many_that_have_just_come_are_each_counted_exactly() {
    const UNITS: usize = 300;
    let config =
        Config { probes: [Probe::Block, Probe::Tcp, Probe::Scheduler].into(), ..Config::default() };
    let mut tries = 0..TRIES;
    loop {
        assert!(tries.next().is_some(), "disks were not exact in {TRIES} tries");
        let Some((mut probes, _alone)) = probes(&config) else { return };
        let Some(path) = file_on_a_disk() else { return };
        let units = (0..UNITS).map(|number| Unit::new(&probes, &format!("new-{number}")));
        let Some(units) = units.collect::<Option<Vec<_>>>() else { return };
        // Where it begins, programs and libraries are read from the disk too.
        let Some(home) = Unit::new(&probes, "home") else { return };
        let folders = units.iter().map(|unit| format!(" {}", unit.folder().display()));
        let mut process = home.process(&format!("wander {path}{}", folders.collect::<String>()));
        let did = process.run();
        let readings = probes.read();
        fs::remove_file(&path).expect("ours");
        let connecting = readings.connecting.expect("running").rows;
        let scheduler = readings.scheduler.expect("running").rows;
        let ids: Vec<CgroupId> = units.iter().map(Unit::id).collect();
        let not_exact = ids.iter().filter(|id| {
            let row = connecting.get(id).map(|row| (row.connected, row.failed));
            row != Some((Some(did["connected"]), Some(did["failed"])))
        });
        assert_eq!(not_exact.count(), 0, "connections of as many are not exact");
        let not_exact = ids.iter().filter(|id| {
            let slept = scheduler.get(id).and_then(|row| row.voluntary_switches);
            slept < Some(did["slept"])
        });
        assert_eq!(not_exact.count(), 0, "switches of as many are missing");
        if all_was_told(&readings.block.expect("running").rows, &ids, &did) {
            break;
        }
    }
}

/// Whether the disk told all that each of these has read and written. What it told is counted for who asked.
fn all_was_told(
    rows: &BTreeMap<CgroupId, Block>,
    ids: &[CgroupId],
    did: &BTreeMap<String, u64>,
) -> bool {
    let bytes = |id| rows.get(id).map(|row: &Block| (row.read.bytes, row.write.bytes));
    // Other programs of this machine may begin to use the disk as well just now.
    let others = bytes(&CgroupId::OTHER);
    if others != Some((Some(0), Some(0))) {
        println!("of others: {others:?}");
        return false;
    }
    let all = Some((Some(did["read"]), Some(did["written"])));
    let not_all: Vec<_> = ids.iter().map(bytes).filter(|bytes| *bytes != all).collect();
    println!("not told: {not_all:?} of {all:?} each");
    not_all.is_empty()
}

/// A histogram has no more than was counted, and what it lacks is in that of `other`.
fn timed(ours: &Option<Histogram>, counted: Option<u64>, others: &Option<Histogram>) {
    let total = |latency: &Option<Histogram>| latency.as_ref().expect("known").total();
    let (ours, counted, others) = (total(ours), counted.expect("known"), total(others));
    println!("a histogram has {ours} of {counted}, and that of others {others}");
    assert!(ours <= counted && counted <= ours + others);
}

/// The path of a file of 2 MiB that is on its disk. `None` after having said why not.
fn file_on_a_disk() -> Option<String> {
    let path = format!("{}/weft-ebpf-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::write(&path, vec![1; 2 << 20]).expect("the target folder is ours");
    let file = fs::File::open(&path).expect("just made");
    file.sync_all().expect("there is room on the disk");
    match counts_requests(&file) {
        Ok(()) => Some(path),
        Err(reason) => {
            skipped(&reason);
            None
        }
    }
}

/// Whether the file's device is one whose requests the kernel counts.
fn counts_requests(file: &fs::File) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let device = file.metadata().expect("open").dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let disks = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let known = disks.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(&major.to_string()) && fields.next() == Some(&minor.to_string())
    });
    match known {
        true => Ok(()),
        false => Err(format!("the target folder is on {major}:{minor}, which is no block device")),
    }
}

#[test]
fn connections_are_counted_exactly() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Tcp)) else { return };
    let Some(unit) = Unit::new(&probes, "connect") else { return };
    let mut process = unit.process("connect");
    let did = process.run();
    let rows = probes.read().connecting.expect("running").rows;
    let ours = &rows[&unit.id()];
    assert_eq!((ours.connected, ours.failed), (Some(did["connected"]), Some(did["failed"])));
    timed(&ours.latency, ours.connected, &rows[&CgroupId::OTHER].latency);
    let middle = ours.latency.as_ref().and_then(|latency| latency.quantile(0.5));
    assert!(middle.is_none_or(|ns| (1000..1_000_000_000).contains(&ns)));
}

#[test]
fn bytes_of_the_network_are_those_that_were_sent() {
    let Some((mut probes, _alone)) = probes(&only(Probe::Network)) else { return };
    let Some(unit) = Unit::new(&probes, "network") else { return };
    let mut process = unit.process("datagrams");
    let did = process.run();
    let rows = probes.read().network.expect("running").rows;
    let ours = &rows[&unit.id()];
    assert_eq!((ours.sent_packets, ours.sent_bytes), (did["packets"], did["bytes"]));
    assert_eq!((ours.received_packets, ours.received_bytes), (did["packets"], did["bytes"]));
}

/// A trace that the kernel does not do here is skipped; other errors are failures.
fn skipped_or<T>(started: Result<T, ebpf::trace::Refused>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(ebpf::trace::Refused::Kernel(ebpf::Status::Unsupported(reason))) => {
            skipped(&reason);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// `theirs` is right; ours may differ by this part of it.
fn near(what: &str, ours: u64, theirs: u64, part: f64) {
    let difference = ours.abs_diff(theirs);
    println!("{what}: ours {ours}, theirs {theirs}");
    assert!(
        difference as f64 <= theirs as f64 * part + 2.0,
        "{what}: ours {ours}, theirs {theirs}"
    );
}
