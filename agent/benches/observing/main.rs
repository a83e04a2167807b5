//! What measuring costs an agent, and how fast a fabric answers: real agents on this machine, with all probes.
//!
//!     observing [--small] [--metrics FILE]
//!
//! `WEFT_AGENT` names the agent to measure; `make bench-ebpf` builds a release. Puts its rows to those that the
//! bench of the probes has left in `target/bench/ebpf.json`; `--metrics` names the output of the benches of the
//! series store, one JSON object a line, of which a few go there, too.

// A benchmark reads the clock.
#![allow(clippy::disallowed_methods)]

#[path = "../../tests/testbed/mod.rs"]
mod testbed;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use testbed::cost::{SETTLE, median, pss_mib, three_at_rest};
use testbed::{Lab, Machine, api};

/// The query of the measurement: two series of each node, a rate, a sum.
const QUERY: &str =
    "/api/v1/query?query=sum%20by%20(direction)%20(rate(weft_gossip_bytes_total[1m]))";
/// Units that fill a store: each has some sixty series. In the short run so few that their labels fit a small one.
const UNITS: usize = 130;
const UNITS_SMALL: usize = 8;
/// Longest wait for a full store.
const PATIENCE: Duration = Duration::from_secs(900);
/// Of the benches of the series store, what is of interest beside the probes.
const OF_METRICS: [&str; 5] = [
    "query/merge of 200 nodes",
    "query/bytes from a node",
    "store/append/busy counter",
    "store/raw and steps/busy counter",
    "store/beside",
];

fn main() -> ExitCode {
    let small = std::env::args().any(|argument| argument == "--small");
    let mut rows = Vec::new();
    let mut arguments = std::env::args().skip_while(|argument| argument != "--metrics").skip(1);
    if let Some(path) = arguments.next() {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let line: Value = serde_json::from_str(line).expect("one JSON object a line");
            let name = line["name"].as_str().expect("a name");
            if OF_METRICS.iter().any(|wanted| name.starts_with(wanted)) {
                let value = line["value"].as_f64().expect("a value");
                let mut row = row(name, value, line["unit"].as_str().expect("a unit"), None);
                if line["unit"] == "1/s" {
                    row["better"] = "higher".into();
                }
                if let Some(peer) = line.get("peer") {
                    row["peer"] = peer.clone();
                }
                rows.push(row);
            }
        }
    }
    if let Some(lab) = Lab::new("observing") {
        at_rest(&lab, small, &mut rows);
    }
    if let Some(lab) = Lab::new("full") {
        full_store(&lab, small, &mut rows);
    }
    // A short run on a busy machine shows that the bench works, and no figures.
    let is_missed = |row: &&Value| {
        let budget = row["budget"].as_f64();
        budget.is_some_and(|budget| row["value"].as_f64().is_none_or(|value| value > budget * 1.1))
    };
    let all = write(rows);
    let missed: Vec<String> =
        all.iter().filter(is_missed).map(|row| row["name"].to_string()).collect();
    if small || missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("worse than the budget by more than a tenth: {}", missed.join("; "));
    ExitCode::FAILURE
}

/// Memory and CPU of three agents with nothing to do, and their answers.
fn at_rest(lab: &Lab, small: bool, rows: &mut Vec<Value>) {
    let machines = three_at_rest(lab);
    let pss = machines.iter().map(pss_mib).collect();
    rows.push(row("agent at rest, all probes: memory (PSS)", median(pss), "MiB", Some(10.0)));
    let seconds = if small { 15 } else { 60 };
    let (start, before) = (Instant::now(), cpu_of_observing(&machines));
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = (cpu_of_observing(&machines) - before) / machines.len() as f64;
    let share = 100.0 * spent / start.elapsed().as_secs_f64();
    rows.push(row("agent at rest, all probes: measuring, share of a core", share, "%", None));

    let asked = if small { 100 } else { 1000 };
    let mut times: Vec<f64> = (0..asked)
        .map(|_| {
            let start = Instant::now();
            let answer = api::text(&machines[0].socket(), QUERY).expect("an answer");
            assert!(answer.contains("success") && !answer.contains("warnings"), "{answer}");
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let time = times[((times.len() - 1) as f64 * quantile) as usize];
        rows.push(row(&format!("fleet query, 3 agents, {name}"), time, "ms", None));
    }
}

/// Memory of an agent whose store is as large as it may become.
fn full_store(lab: &Lab, small: bool, rows: &mut Vec<Value>) {
    let machines = lab.fabric_with(1, |machine| {
        machine.use_copy();
        // The short run fills a smaller one, and shows only that it can be filled.
        let memory = if small { "512KiB" } else { "4MiB" };
        machine.metrics = format!("probes = [\"auto\"]\nmemory = \"{memory}\"");
    });
    let machine = &machines[0];
    // Units that do a little of everything, each second.
    let units = if small { UNITS_SMALL } else { UNITS };
    machine.shell(&format!(
        "for n in $(seq {units}); do c=/sys/fs/cgroup/work$n.service; mkdir $c; \
         sh -c 'echo 0 > '$c'/cgroup.procs; while :; do cat /proc/version | head -c 9; sleep 1; done' \
         > /dev/null 2>&1 & done"
    ));
    let start = Instant::now();
    let used = loop {
        let used = machine.counter("weft_series_store_bytes{kind=\"used\"}") as f64;
        let budget = machine.counter("weft_series_store_bytes{kind=\"budget\"}") as f64;
        let dropped = machine.counter("weft_series_dropped_blocks_total");
        // Before the agent's first round of its own counters both are 0.
        let full = dropped > 0 || (budget > 0.0 && used >= 0.97 * budget);
        if full || start.elapsed() > PATIENCE {
            assert!(full, "the store did not fill: {used} bytes of {budget}");
            break used;
        }
        std::thread::sleep(Duration::from_secs(5));
    };
    std::thread::sleep(SETTLE);
    let at_rest = pss_mib(machine);
    // What answers is mapped again, for a minute.
    let series = machine.counter("weft_series") as f64;
    let asked = pss_mib(machine);
    let name = if small { "agent with a full store of 512 KiB" } else { "agent with a full store" };
    rows.push(row(&format!("{name}: memory (PSS)"), at_rest, "MiB", Some(12.0)));
    rows.push(row(
        &format!("{name}, just asked for its metrics: memory (PSS)"),
        asked,
        "MiB",
        None,
    ));
    rows.push(row(&format!("{name}: of it the store"), used / 1048576.0, "MiB", None));
    rows.push(row(&format!("{name}: series"), series, "", None));
}

/// CPU seconds of the threads that measure.
fn cpu_of_observing(machines: &[Machine]) -> f64 {
    let of = |machine: &Machine| -> f64 {
        let folder = format!("/proc/{}/task", machine.agent_pid());
        let threads = std::fs::read_dir(folder).expect("it runs").flatten();
        threads
            .filter(|thread| read(&thread.path().join("comm")).trim() == "observe")
            .filter_map(|thread| {
                read(&thread.path().join("schedstat")).split(' ').next()?.parse::<f64>().ok()
            })
            .sum()
    };
    machines.iter().map(of).sum::<f64>() / 1e9
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn row(name: &str, value: f64, unit: &str, budget: Option<f64>) -> Value {
    let verdict = match budget {
        Some(budget) if value <= budget => format!(" (budget {budget}: met)"),
        Some(budget) => format!(" (budget {budget}: NOT MET)"),
        None => String::new(),
    };
    println!("{name}: {value:.2} {unit}{verdict}");
    json!({ "name": name, "value": value, "unit": unit, "budget": budget, "better": "lower" })
}

/// Our rows take the place of those that were there, and the others stay. Returns all.
fn write(rows: Vec<Value>) -> Vec<Value> {
    // The program lies in the build folder, three levels down.
    let program = std::env::current_exe().expect("it runs");
    let folder = program.ancestors().nth(3).map(|folder| folder.join("bench"));
    let folder: PathBuf = folder.expect("the build folder");
    std::fs::create_dir_all(&folder).expect("the build folder is ours");
    let path = folder.join("ebpf.json");
    let before: Vec<Value> = serde_json::from_str(&read(&path)).unwrap_or_default();
    let ours = |old: &Value| rows.iter().any(|row| row["name"] == old["name"]);
    let mut all: Vec<Value> = before.into_iter().filter(|row| !ours(row)).collect();
    all.extend(rows);
    let text = serde_json::to_string_pretty(&all).expect("plain values");
    std::fs::write(&path, text + "\n").expect("written");
    println!("{}", path.display());
    all
}
