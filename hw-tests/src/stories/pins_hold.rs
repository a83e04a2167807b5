//! A unit on cores of its own, on one memory node, beside units that want every CPU there is.

use crate::machine::{MemoryNode, PATIENCE};
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::NodeView;
use fabric::cpuset::CpuSet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Without noise and with it in turns, so that what else this machine does meets both: so many times, for so long each.
const ROUNDS: u32 = 3;
const LOOK: Duration = Duration::from_secs(12);
/// How long the agent may take to read what the probe has counted.
const READ: Duration = Duration::from_secs(3);
/// How often all of that is done at most: the clock of an emulated CPU stands still whenever this machine is busy.
const TRIES: u32 = 3;
/// How much a pinned unit's p99 may rise with noise beside it, and that of one without cores of its own must.
const PINNED_MAX: f64 = 1.2;
const BESIDE_MIN: f64 = 1.0;
/// Of its work's memory that must be on its memory node, in hundredths: what a process gets before it runs its own code
/// may be elsewhere.
const ON_NODE_MIN: u64 = 98;

/// Four processes that work and sleep in turns, and so wait for each other now and then; the first one holds 32 MiB.
const WORK: &str = r#"
import os, time
held = b'x' * (32 << 20)
for n in range(3):
    if os.fork() == 0:
        break
while True:
    until = time.monotonic() + 0.002
    while time.monotonic() < until:
        pass
    time.sleep(0.014)
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let mut machine = node::machine(bench, "pins")?;
    machine.cpus = (4, 4);
    machine.memory = 768;
    machine.memory_nodes =
        ["0-1", "2-3"].map(|cpus| MemoryNode { cpus: cpus.into(), memory: 384 }).into();
    let mut node = Node::install(&machine, bench, "")?;
    node.init()?;
    let view: NodeView = node.weft("node pins")?;
    let topology = view.info.context("it says nothing of itself")?.topology;
    let cores: Vec<_> =
        topology.cores.iter().map(|core| format!("{} on node {}", core.cpus, core.numa)).collect();
    println!("    CPUs for work: {}; for the system: {}", cores.join(", "), topology.housekeeping);
    ensure!(topology.numa.len() == 2, "memory nodes: {:?}", topology.numa);

    let pinned =
        node.apply(&job("pinned", "cores = 2\nnuma = \"require\"\nmemory = \"96MiB\""))?.remove(0);
    let beside = node.apply(&job("beside", "cpu = 0.1\nmemory = \"96MiB\""))?.remove(0);
    let claim = &pinned.row.claim;
    println!("    claim: CPUs {}, memory node {}", claim.cpus, claim.mems);
    ensure!(claim.cpus.len() == 2 && claim.mems.len() == 1, "{claim:?}");
    let home = topology.cores.iter().filter(|core| claim.cpus.contains_all(&core.cpus));
    ensure!(home.clone().count() == 2, "{claim:?} is not made of cores: {:?}", topology.cores);
    for core in home {
        ensure!(claim.mems.contains(core.numa), "CPUs {} are on node {}", core.cpus, core.numa);
    }
    ensure!(
        pinned.row.effective_cpus.as_ref() == Some(&claim.cpus),
        "{:?}",
        pinned.row.effective_cpus
    );
    ensure!(
        pinned.row.effective_mems.as_ref() == Some(&claim.mems),
        "{:?}",
        pinned.row.effective_mems
    );
    for (file, wanted) in
        [("cpuset.cpus.effective", &claim.cpus), ("cpuset.mems.effective", &claim.mems)]
    {
        let has: CpuSet = node.cgroup_file(&pinned.unit, file)?.parse()?;
        ensure!(has == *wanted, "{file} is {has}, the claim {wanted}");
    }
    let pages = pages_by_node(&mut node, &pinned.unit)?;
    let all: u64 = pages.iter().sum();
    let home = claim
        .mems
        .iter()
        .next()
        .and_then(|node| pages.get(usize::from(node)))
        .copied()
        .unwrap_or(0);
    println!("    its own pages by memory node: {pages:?}");
    ensure!(
        all >= 8192 && home * 100 >= all * ON_NODE_MIN,
        "{home} of {all} pages are on its node"
    );

    let noise = r#"name = "noise"
[task]
command = ["/bin/sh", "-c", "for n in 1 2 3; do while :; do :; done & done; while :; do :; done"]
[resources]
cpu = 0.5
"#;
    let noise = node.apply(noise)?.remove(0);
    wait_for_system(&mut node, |system| !system.intersects(&claim.cpus))?;
    let said = node.doctor("cores")?;
    println!("    weft doctor: {said}");
    ensure!(said.starts_with(&format!("CPUs {} are kept free", claim.cpus)), "{said}");
    let divided = node.machine.keep_apart(&claim.cpus)?;
    println!(
        "    CPUs {} are emulated by {}",
        claim.cpus,
        if divided { "a CPU of this machine that does nothing else" } else { "the only CPU here" }
    );
    for tries in 1.. {
        let [mut quiet, mut noisy] = [(); 2].map(|()| <[Waits; 2]>::default());
        for _ in 0..ROUNDS {
            for (signal, waits) in [("STOP", &mut quiet), ("CONT", &mut noisy)] {
                node.machine.run(&format!("systemctl kill --signal={signal} {}", noise.unit))?;
                watch(&mut node, [&pinned.unit, &beside.unit], &claim.cpus, waits)?;
            }
        }
        for (what, [pinned, beside]) in [("quiet", &quiet), ("noise", &noisy)] {
            println!("    {what}: pinned {pinned}; the other one {beside}");
        }
        let rise = |unit: usize| Some(noisy[unit].p99()? / quiet[unit].p99()?);
        let (Some(pinned), Some(beside)) = (rise(0), rise(1)) else {
            anyhow::bail!("single waits are not measured: {}", node.doctor("probes")?);
        };
        println!(
            "    with noise, p99 is: pinned {pinned:.2} times what it was, the other {beside:.1}"
        );
        ensure!(beside > BESIDE_MIN, "the noise is none: {beside:.2}");
        ensure!(noisy[0].share() * 2.0 < noisy[1].share(), "{} and {}", noisy[0], noisy[1]);
        if pinned <= PINNED_MAX {
            break;
        }
        ensure!(tries < TRIES, "noise beside it reaches the pinned unit: {pinned:.2}");
    }
    node.machine.run("weft stop pinned --yes")?;
    wait_for_system(&mut node, |system| system.contains_all(&claim.cpus))
}

/// Waits until services, and the agent among them, run on such CPUs.
fn wait_for_system(node: &mut Node, wanted: impl Fn(&CpuSet) -> bool) -> Result<()> {
    let script = "cat /sys/fs/cgroup/system.slice/cpuset.cpus.effective
        sed -n 's/^Cpus_allowed_list:\\t//p' /proc/$(pidof -s weftd)/status";
    let system = node.machine.wait_until("services are elsewhere", PATIENCE, |machine| {
        let said = machine.run(script)?;
        let sets: Vec<CpuSet> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        Ok((sets.len() == 2 && sets.iter().all(&wanted)).then(|| sets[0].clone()))
    })?;
    println!("    services, and the agent, run on CPUs {system}");
    Ok(())
}

fn job(name: &str, resources: &str) -> String {
    format!(
        "name = \"{name}\"\n[task]\ncommand = [\"/usr/bin/python3\", \"-c\", \"\"\"{WORK}\"\"\"]\n\
         [resources]\n{resources}\n"
    )
}

/// What a unit had to wait for a CPU.
#[derive(Default)]
struct Waits {
    /// Nanoseconds that its main thread ran, and waited to run: the kernel's own books (schedstat).
    books: [u64; 2],
    /// Single waits, by the agent's probe: the upper bound in nanoseconds, and how many were not longer.
    buckets: BTreeMap<u64, f64>,
}

impl Waits {
    /// Of the time that it wanted a CPU.
    fn share(&self) -> f64 {
        let [ran, waited] = self.books.map(|book| book as f64);
        waited / (ran + waited)
    }

    /// Of a hundred waits, 99 were not longer than so many seconds: histogram_quantile() of PromQL, over these looks.
    fn p99(&self) -> Option<f64> {
        let rank = self.buckets.last_key_value()?.1 * 0.99;
        let (mut floor, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let (is_last, bound) = (*bound == u64::MAX, *bound as f64 / 1e9);
            if *count >= rank && *count > below {
                // Of those above every bound PromQL says that last bound.
                let within = (bound - floor) * (rank - below) / (count - below);
                return Some(if is_last { floor } else { floor + within });
            }
            (floor, below) = (bound, *count);
        }
        None
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waits {:.1} % of its time", self.share() * 100.0)?;
        match (self.p99(), self.buckets.last_key_value()) {
            (Some(p99), Some((_, all))) => write!(f, ", p99 of {all} is {:.2} ms", p99 * 1000.0),
            _ => Ok(()),
        }
    }
}

/// Looks at all units of work for a while: the threads of the pinned one are on its CPUs, those of the others elsewhere.
/// Adds what the pinned one and another one waited.
fn watch(node: &mut Node, two: [&str; 2], cpus: &CpuSet, waits: &mut [Waits; 2]) -> Result<()> {
    let [pinned, _] = two;
    std::thread::sleep(READ);
    for (unit, waits) in two.into_iter().zip(&mut *waits) {
        count(node, unit, waits, -1.0)?;
    }
    let units = node
        .machine
        .run("systemctl list-units --plain --no-legend 'weft-*.service' | cut -d ' ' -f 1")?;
    let (mut seen, mut seen_pinned) = (0, 0);
    for unit in units.lines() {
        for thread in node.threads(unit)? {
            seen += 1;
            let (allowed, last) = (&thread.cpus, thread.last_cpu);
            if unit == pinned {
                seen_pinned += 1;
                ensure!(allowed == cpus && cpus.contains(last), "{unit}: {thread:?}, claim {cpus}");
            } else {
                ensure!(
                    !allowed.intersects(cpus) && !cpus.contains(last),
                    "{unit}: {thread:?} on CPUs {cpus}"
                );
            }
        }
    }
    ensure!(seen_pinned >= 4 && seen > seen_pinned, "{seen_pinned} of {seen} are pinned");
    std::thread::sleep(LOOK);
    for (unit, waits) in two.into_iter().zip(waits) {
        count(node, unit, waits, 1.0)?;
    }
    Ok(())
}

/// Adds what was counted of a unit until now, or takes it off.
fn count(node: &mut Node, unit: &str, waits: &mut Waits, sign: f64) -> Result<()> {
    for (book, now) in waits.books.iter_mut().zip(books(node, unit)?) {
        *book = if sign < 0.0 { book.wrapping_sub(now) } else { book.wrapping_add(now) };
    }
    let query = format!("weft_unit_runqueue_seconds_bucket{{unit=\"{unit}\"}}");
    let told: Value = node.weft(&format!("query '{query}'"))?;
    for series in told["data"]["result"].as_array().context("no result")? {
        let number = |value: &Value| value.as_str()?.parse::<f64>().ok();
        let (Some(bound), Some(counted)) =
            (number(&series["metric"]["le"]), number(&series["value"][1]))
        else {
            anyhow::bail!("no bucket: {series}");
        };
        // The last bound, infinity, becomes the largest number.
        *waits.buckets.entry((bound * 1e9).round() as u64).or_default() += sign * counted;
    }
    Ok(())
}

/// Nanoseconds that a unit's main thread ran, and waited to run.
fn books(node: &mut Node, unit: &str) -> Result<[u64; 2]> {
    let pid = node.main_pid(unit)?;
    let text = node.machine.run(&format!("cat /proc/{pid}/schedstat"))?;
    let mut numbers = text.split(' ').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => Ok([ran, waited]),
        _ => anyhow::bail!("schedstat: {text}"),
    }
}

/// Pages that a unit's main process shares with no file, by memory node.
fn pages_by_node(node: &mut Node, unit: &str) -> Result<Vec<u64>> {
    let pid = node.main_pid(unit)?;
    let text = node.machine.run(&format!("cat /proc/{pid}/numa_maps"))?;
    let mut pages = vec![0; 2];
    for line in text.lines().filter(|line| !line.contains("file=")) {
        for word in line.split(' ') {
            let Some((node, count)) = word.strip_prefix('N').and_then(|rest| rest.split_once('='))
            else {
                continue;
            };
            let (node, count): (usize, u64) = (node.parse()?, count.parse()?);
            *pages.get_mut(node).context("more memory nodes than it has")? += count;
        }
    }
    Ok(pages)
}
