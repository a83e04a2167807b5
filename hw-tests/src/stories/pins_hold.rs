//! A unit on cores of its own, on one memory node, beside units that want every CPU there is.

use crate::machine::MemoryNode;
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::NodeView;
use fabric::cpuset::CpuSet;
use std::time::Duration;

/// How long it is looked at without noise, and with.
const LOOK: Duration = Duration::from_secs(20);
/// How often threads are looked at meanwhile.
const LOOKS: u32 = 5;
/// Of its work's memory that must be on its memory node, in hundredths: what a process gets before it runs its own code
/// may be elsewhere.
const ON_NODE_MIN: u64 = 98;

/// Works and sleeps in turns, as long as each other, and holds 32 MiB.
const WORK: &str = r#"
import threading, time
held = b'x' * (32 << 20)
for n in range(3):
    threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()
while True:
    until = time.monotonic() + 0.01
    while time.monotonic() < until:
        pass
    time.sleep(0.01)
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

    let quiet = watch(&mut node, &pinned.unit, &beside.unit, &claim.cpus)?;
    let noise = r#"name = "noise"
[task]
command = ["/bin/sh", "-c", "for n in 1 2 3; do while :; do :; done & done; while :; do :; done"]
[resources]
cpu = 0.5
"#;
    node.apply(noise)?;
    let noisy = watch(&mut node, &pinned.unit, &beside.unit, &claim.cpus)?;
    for (what, [pinned, beside]) in [("quiet", &quiet), ("noise", &noisy)] {
        println!(
            "    {what}: of the time that it wants a CPU, it waits: pinned {:.1} % (p99 {}), \
             beside the noise {:.1} % (p99 {})",
            pinned.waits * 100.0,
            pinned.p99,
            beside.waits * 100.0,
            beside.p99
        );
    }
    let [pinned, beside] = &noisy;
    ensure!(beside.waits > 0.1, "the noise is none: {beside:?}");
    ensure!(pinned.waits * 2.0 < beside.waits, "pinned: {pinned:?}, not pinned: {beside:?}");
    Ok(())
}

fn job(name: &str, resources: &str) -> String {
    format!(
        "name = \"{name}\"\n[task]\ncommand = [\"/usr/bin/python3\", \"-c\", \"\"\"{WORK}\"\"\"]\n\
         [resources]\n{resources}\n"
    )
}

/// What a unit's main process had to wait.
#[derive(Debug)]
struct Waits {
    /// Of the time that it wanted a CPU, by the kernel's own books of it (schedstat).
    waits: f64,
    /// By the agent's probe, which may be late on a busy machine.
    p99: String,
}

/// Looks at all units of work for a while: the threads of the pinned one are on its CPUs, those of the others elsewhere.
fn watch(node: &mut Node, pinned: &str, beside: &str, cpus: &CpuSet) -> Result<[Waits; 2]> {
    let units = node
        .machine
        .run("systemctl list-units --plain --no-legend 'weft-*.service' | cut -d ' ' -f 1")?;
    let before = [books(node, pinned)?, books(node, beside)?];
    let (mut seen, mut seen_pinned) = (0, 0);
    for _ in 0..LOOKS {
        for unit in units.lines() {
            for thread in node.threads(unit)? {
                seen += 1;
                let (allowed, last) = (&thread.cpus, thread.last_cpu);
                if unit == pinned {
                    seen_pinned += 1;
                    ensure!(
                        allowed == cpus && cpus.contains(last),
                        "{unit}: {thread:?}, claim {cpus}"
                    );
                } else {
                    ensure!(
                        !allowed.intersects(cpus) && !cpus.contains(last),
                        "{unit}: {thread:?} on CPUs {cpus}"
                    );
                }
            }
        }
        std::thread::sleep(LOOK / LOOKS);
    }
    ensure!(seen_pinned >= 4 * LOOKS && seen > seen_pinned, "{seen_pinned} of {seen} are pinned");
    println!(
        "    {seen} looks at threads of {} units: each where it belongs",
        units.lines().count()
    );
    let after = [books(node, pinned)?, books(node, beside)?];
    let mut waits = Vec::new();
    for (unit, (before, after)) in [pinned, beside].into_iter().zip(before.into_iter().zip(after)) {
        let (ran, waited) = (after.0 - before.0, after.1 - before.1);
        ensure!(ran > 0, "{unit} did not run");
        let query = format!(
            "histogram_quantile(0.99, sum by (le) \
             (rate(weft_unit_runqueue_seconds_bucket{{unit=\"{unit}\"}}[{}s])))",
            LOOK.as_secs()
        );
        let told: serde_json::Value = node.weft(&format!("query '{query}'"))?;
        let p99 = told["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|text| text.parse::<f64>().ok());
        waits.push(Waits {
            waits: waited as f64 / (ran + waited) as f64,
            p99: match p99 {
                Some(seconds) => format!("{:.2} ms", seconds * 1000.0),
                None => "not measured".into(),
            },
        });
    }
    waits.try_into().ok().context("two units")
}

/// Nanoseconds that a unit's main thread ran, and waited to run.
fn books(node: &mut Node, unit: &str) -> Result<(u64, u64)> {
    let pid = node.main_pid(unit)?;
    let text = node.machine.run(&format!("cat /proc/{pid}/schedstat"))?;
    let mut numbers = text.split(' ').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => Ok((ran, waited)),
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
