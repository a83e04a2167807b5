//! What the probes cost: nanoseconds an event by the kernel's own measurement, under loads of our own, and beside
//! a script of bpftrace that measures the scheduler in the same run.
//!
//! `make bench-ebpf` runs it, and writes `bench/ebpf.json` into the build folder. Needs root.
#![allow(clippy::disallowed_methods)]

#[path = "../../tests/oracles/work.rs"]
#[allow(dead_code)]
mod work;

use ebpf::{Config, Cost, Probe, Probes};
use libbpf_rs::query::ProgInfoIter;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long each ping-pong goes on.
const LOAD: Duration = Duration::from_secs(3);
/// Of design and README: nanoseconds an event of the scheduler.
const BUDGET_NS: f64 = 150.0;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/probes/scheduler.bt");

fn main() {
    if let Err(reason) = ebpf::available() {
        println!("bench-ebpf: {reason}");
        return;
    }
    // Nothing but the kernel's measuring, which costs a little by itself.
    let meter = Probes::load(&Config { probes: [].into(), ..Config::default() });
    let mut rows = Vec::new();
    let plain = ping_pong();
    println!("ping-pong without probes: {plain:.0} rounds/s");

    let mut probes = Probes::load(&Config::default());
    for (probe, status) in probes.status() {
        println!("{probe}: {status}");
    }
    let mut costs = BTreeMap::new();
    let mut under_load = |probe: Probe, load: &dyn Fn()| {
        let before = cost(&mut probes, probe);
        load();
        let after = cost(&mut probes, probe);
        costs.insert(probe, (after.0 - before.0, after.1 - before.1));
    };
    let mut ours = 0.0;
    let rounds = std::cell::Cell::new(0.0);
    under_load(Probe::Scheduler, &|| rounds.set(ping_pong()));
    ours += rounds.get();
    let file = file_to_read();
    under_load(Probe::Block, &|| in_thread(&format!("disk {}", file.display())));
    under_load(Probe::Tcp, &|| in_thread("connect"));
    under_load(Probe::Network, &|| (0..20).for_each(|_| in_thread("datagrams")));
    under_load(Probe::Faults, &|| in_thread("touch pages"));
    under_load(Probe::Processes, &|| in_thread("start processes"));
    for (probe, cost) in probes.cost().expect("measured") {
        if let Some(ns) = cost.ns_per_event() {
            println!("  {probe}, {}: {ns:.0} ns, {} times", cost.program, cost.runs);
        }
    }
    let _gone = std::fs::remove_file(&file);
    let reading = median((0..20).map(|_| timed(|| drop(probes.read()))).collect());
    drop(probes);

    let theirs = bpftrace();
    for (probe, (runs, ns)) in costs {
        let per_event = ns as f64 / runs.max(1) as f64;
        println!("{probe}: {per_event:.0} ns/event over {runs} events");
        let budget = (probe == Probe::Scheduler).then_some(BUDGET_NS);
        let mut row = row(&format!("eBPF, {probe}, an event"), per_event, "ns", budget);
        if let (Probe::Scheduler, Some(theirs)) = (probe, &theirs) {
            row["peer"] = theirs.peer(theirs.ns_per_event);
        }
        rows.push(row);
    }
    let share = |with: f64| (1.0 - with / plain) * 100.0;
    let mut slower = row("eBPF, a pipe's ping-pong is slower by", share(ours), "%", None);
    println!("ping-pong with all probes: {ours:.0} rounds/s, {:.1} % less", share(ours));
    if let Some(theirs) = &theirs {
        println!("ping-pong with {}: {:.0} rounds/s", theirs.version, theirs.rounds);
        println!("{}: {:.0} ns/event of the scheduler", theirs.version, theirs.ns_per_event);
        slower["peer"] = theirs.peer(share(theirs.rounds));
    }
    rows.push(slower);
    println!("a reading of all probes: {reading:.0} us of CPU");
    rows.push(row("eBPF, a reading of all probes, CPU", reading, "us", None));
    drop(meter);
    let path = folder().join("ebpf.json");
    let text = serde_json::to_string_pretty(&rows).expect("plain values");
    std::fs::write(&path, text + "\n").expect("the build folder is ours");
    println!("written to {}", path.display());
}

fn row(name: &str, value: f64, unit: &str, budget: Option<f64>) -> serde_json::Value {
    json!({ "name": name, "value": value, "unit": unit, "budget": budget, "better": "lower" })
}

/// Runs, and nanoseconds in all, of a probe's programs.
fn cost(probes: &mut Probes, probe: Probe) -> (u64, u64) {
    let costs = probes.cost().unwrap_or_else(|reason| panic!("{reason}"));
    let ours = costs.into_iter().filter(|(of, _)| *of == probe);
    ours.fold((0, 0), |(runs, ns), (_, Cost { runs: more, total_ns, .. })| {
        (runs + more, ns + total_ns)
    })
}

/// Two threads that wake each other through pipes, as `perf bench sched pipe` does. Rounds a second. Both on one core: on two,
/// it is twice as fast or half as fast, as the scheduler likes.
fn ping_pong() -> f64 {
    let played = std::thread::spawn(|| {
        let mut first = CpuSet::new();
        first.set(0).expect("there is room for one");
        sched_setaffinity(Pid::from_raw(0), &first).expect("the first core may be used");
        play()
    });
    played.join().expect("it comes to its end")
}

fn play() -> f64 {
    let (mut from_far, mut to_near) = std::io::pipe().expect("a pipe");
    let (mut from_near, mut to_far) = std::io::pipe().expect("a pipe");
    let far = std::thread::spawn(move || {
        let mut byte = [0];
        while from_near.read_exact(&mut byte).is_ok() {
            to_near.write_all(&byte).expect("the other listens");
        }
    });
    let begun = Instant::now();
    let mut rounds = 0.0;
    let mut byte = [1];
    while begun.elapsed() < LOAD {
        for _ in 0..100 {
            to_far.write_all(&byte).expect("the other listens");
            from_far.read_exact(&mut byte).expect("the other answers");
        }
        rounds += 100.0;
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(to_far);
    far.join().expect("it ends with the pipe");
    rounds / seconds
}

/// In a thread of its own: some work takes itself a network namespace.
fn in_thread(work: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| work::work(work)).join().expect("the work can be done")
    });
}

fn file_to_read() -> PathBuf {
    let path = folder().join(format!("ebpf-{}", std::process::id()));
    std::fs::write(&path, vec![1; 2 << 20]).expect("the build folder is ours");
    std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("there is room");
    path
}

/// What another program makes of the same load.
struct Peer {
    version: String,
    rounds: f64,
    ns_per_event: f64,
}

impl Peer {
    fn peer(&self, value: f64) -> serde_json::Value {
        let (name, version) = self.version.split_once(' ').unwrap_or((&self.version, ""));
        json!({ "name": name, "version": version, "value": value })
    }
}

/// bpftrace with our script: `None` after having said why not.
fn bpftrace() -> Option<Peer> {
    let said = Command::new("bpftrace").arg("--version").output();
    let Ok(version) = said else {
        println!("bpftrace is not installed: nothing to compare with");
        return None;
    };
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let before = programs();
    // It wants tracefs where debugfs is; both in mounts that nobody else sees.
    let mounts = "mount -t tracefs none /sys/kernel/tracing; mount -t debugfs none /sys/kernel/debug; \
                  exec bpftrace \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", mounts, SCRIPT]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Started(command.spawn().ok()?);
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let attaching = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Attaching"));
    let new = || programs().into_iter().filter(|(id, _)| !before.contains_key(id));
    let patience = Instant::now() + Duration::from_secs(20);
    while attaching && new().count() < 3 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(100));
    }
    let sum = || new().fold((0, 0), |sum, (_, (runs, ns))| (sum.0 + runs, sum.1 + ns));
    let at_first = sum();
    let rounds = ping_pong();
    let at_last = sum();
    let (runs, ns) = (at_last.0 - at_first.0, at_last.1 - at_first.1);
    if runs == 0 {
        println!("{version} does not run its script here: nothing to compare with");
        return None;
    }
    Some(Peer { version, rounds, ns_per_event: ns as f64 / runs as f64 })
}

/// Runs and nanoseconds of every program that the kernel has, by its number.
fn programs() -> BTreeMap<u32, (u64, u64)> {
    ProgInfoIter::default()
        .map(|program| (program.id, (program.run_cnt, program.run_time_ns)))
        .collect()
}

/// Ended when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Microseconds of CPU that this thread used for it: the machine may be busy with other things.
fn timed(work: impl FnOnce()) -> f64 {
    let now =
        || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    let begun = now();
    work();
    let spent = now() - begun;
    spent.tv_sec() as f64 * 1e6 + spent.tv_nsec() as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The program lies in `<build folder>/<profile>/deps`.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("we run");
    let folder = program.ancestors().nth(3).unwrap_or(Path::new("target")).join("bench");
    std::fs::create_dir_all(&folder).expect("the build folder is ours");
    folder
}
