//! A CPU is plugged in while the machine runs: the node shows it, and work that waited for it starts on it.

use crate::machine::PATIENCE;
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{JobState, JobView, NodeView};
use fabric::cpuset::CpuSet;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The agent looks when the kernel tells of it, and once a minute.
const NOTICE: Duration = Duration::from_secs(240);

pub fn tell(bench: &Bench) -> Result<()> {
    let mut machine = node::machine(bench, "hotplug")?;
    machine.cpus = (2, 3);
    // The default keeps the first core for the system from three on, which is another story.
    let config = "[resources]\nhousekeeping = \"\"\n[metrics]\nprobes = []\n";
    let mut node = Node::install(&machine, bench, config)?;
    node.init()?;
    let before = cpus(&mut node)?;
    println!("    CPUs for work: {before}");
    ensure!(before.len() == 2, "it begins with CPUs {before}");
    let first = node.apply(&job("first", 1))?.remove(0);
    let pid = node.main_pid(&first.unit)?;
    let said = node.try_apply(&job("second", 2), "--settle 3s --timeout 100s")?;
    println!(
        "    first has CPU {}; second wants two: weft apply, exit {}",
        first.row.claim.cpus, said.status
    );
    ensure!(said.status == 7, "weft apply: {}: {}", said.status, said.text);
    let waits: JobView = node.weft("jobs second")?;
    ensure!(waits.state == JobState::Unplaceable, "{waits:?}");

    let control = node.machine.control()?;
    let slots = control.ask("query-hotpluggable-cpus", json!({}))?;
    let empty = slots
        .as_array()
        .and_then(|slots| slots.iter().find(|slot| slot["qom-path"] == Value::Null));
    let empty = empty.with_context(|| format!("no place for another CPU: {slots}"))?;
    let mut device = empty["props"].clone();
    device["driver"] = empty["type"].clone();
    device["id"] = json!("added");
    control.ask("device_add", device)?;
    let plugged = Instant::now();
    node.machine.wait_until("the kernel sees it", PATIENCE, |machine| {
        Ok((machine.try_run("test -e /sys/devices/system/cpu/cpu2/online", PATIENCE)?.status == 0)
            .then_some(()))
    })?;
    // Debian leaves that to the administrator.
    node.machine.run("echo 1 >/sys/devices/system/cpu/cpu2/online")?;
    println!(
        "    a CPU is plugged in and switched on: {}",
        node.machine.run("cat /sys/devices/system/cpu/online")?
    );
    let after = loop {
        let now = cpus(&mut node)?;
        if now.len() == 3 {
            break now;
        }
        ensure!(plugged.elapsed() < NOTICE, "weft node shows CPUs {now}");
        std::thread::sleep(Duration::from_secs(2));
    };
    println!("    weft node shows CPUs {after} after {:.0} s", plugged.elapsed().as_secs_f64());

    node.wait_healthy("second")?;
    let second = node.alloc("second")?;
    let claim = &second.row.claim.cpus;
    println!("    second has CPUs {claim}");
    ensure!(
        claim.len() == 2 && claim.contains(2) && !claim.intersects(&first.row.claim.cpus),
        "{second:?}"
    );
    ensure!(second.row.effective_cpus.as_ref() == Some(claim), "{:?}", second.row.effective_cpus);
    let effective: CpuSet = node.cgroup_file(&second.unit, "cpuset.cpus.effective")?.parse()?;
    ensure!(effective == *claim, "cpuset.cpus.effective is {effective}");
    for thread in node.threads(&second.unit)? {
        ensure!(thread.cpus == *claim, "{thread:?}");
    }
    let now = node.alloc("first")?;
    ensure!(
        now.id == first.id
            && now.row.claim == first.row.claim
            && node.main_pid(&first.unit)? == pid,
        "what ran was touched: {now:?}"
    );
    Ok(())
}

fn job(name: &str, cores: u32) -> String {
    format!(
        "name = \"{name}\"\n[task]\ncommand = [\"/bin/sleep\", \"100000\"]\n\
         [resources]\ncores = {cores}\nmemory = \"16MiB\"\n"
    )
}

/// CPUs that the node says it has for work.
fn cpus(node: &mut Node) -> Result<CpuSet> {
    let view: NodeView = node.weft("node hotplug")?;
    let mut all = CpuSet::new();
    let info = view.info.context("it says nothing of itself")?;
    info.topology.cores.iter().for_each(|core| all.insert_all(&core.cpus));
    Ok(all)
}
