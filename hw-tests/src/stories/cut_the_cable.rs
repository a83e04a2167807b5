//! Two machines on one cable, which is cut for a minute.

use crate::machine::{PATIENCE, Running};
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{AllocView, JobView, NodeState, Status, TokenCreated};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long it is cut.
const CUT: Duration = Duration::from_secs(60);
/// Finding each other and agreeing: seconds where nothing else runs.
const AGREEMENT: Duration = Duration::from_secs(240);

const JOB: &str = r#"name = "steady"
count = 2
[task]
command = ["/bin/sleep", "100000"]
[resources]
cpu = 0.1
memory = "16MiB"
[placement]
spread = "name"
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let mut nodes = Vec::new();
    for (name, end) in ["alder", "birch"].into_iter().zip(bench.cable("cable")) {
        let mut machine = node::machine(bench, name)?;
        machine.cpus = (1, 1);
        machine.memory = 384;
        machine.cables = vec![end];
        nodes.push(Node::install(&machine, bench, "[metrics]\nprobes = []\n")?);
    }
    let mut nodes: [Node; 2] = nodes.try_into().ok().context("two nodes")?;
    nodes[0].init()?;
    let token: TokenCreated = nodes[0].weft("token create")?;
    let begun = Instant::now();
    nodes[1].machine.wait_until("it is let in", AGREEMENT, |machine| {
        let said = machine.try_run(&format!("weft join {}", token.token), PATIENCE)?;
        Ok((said.status == 0).then_some(()))
    })?;
    agree(&mut nodes)?;
    println!("    joined by multicast after {:.0} s", begun.elapsed().as_secs_f64());
    nodes[0].apply(JOB)?;
    agree(&mut nodes)?;
    let before = nodes.each_mut().map(|node| units(&mut node.machine));
    let [left, right] = before;
    let before = [left?, right?];
    println!("    steady runs as {before:?}");
    ensure!(before.iter().all(|units| units.len() == 1), "one on each: {before:?}");

    for node in &mut nodes {
        node.machine.control()?.ask("set_link", json!({ "name": "nic0", "up": false }))?;
    }
    let cut = Instant::now();
    let mut noticed = [None; 2];
    while cut.elapsed() < CUT || noticed.contains(&None) {
        ensure!(cut.elapsed() < AGREEMENT, "not each noticed that the other is gone: {noticed:?}");
        for ((node, before), noticed) in nodes.iter_mut().zip(&before).zip(&mut noticed) {
            let now = units(&mut node.machine)?;
            ensure!(before.iter().all(|unit| now.contains(unit)), "{before:?} ran, now {now:?}");
            let status = node.status()?;
            let dead =
                status.fabric.is_some_and(|fabric| fabric.nodes.contains_key(&NodeState::Dead));
            if dead && noticed.is_none() {
                *noticed = Some(cut.elapsed().as_secs());
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut during = Vec::new();
    for node in &mut nodes {
        during.push(units(&mut node.machine)?);
    }
    println!(
        "    cut for {} s: noticed after {noticed:?} s; each side then runs {during:?}",
        cut.elapsed().as_secs()
    );

    for node in &mut nodes {
        node.machine.control()?.ask("set_link", json!({ "name": "nic0", "up": true }))?;
    }
    let healed = Instant::now();
    agree(&mut nodes)?;
    println!("    healed after {:.0} s", healed.elapsed().as_secs_f64());
    // Long enough to see that it stays so.
    std::thread::sleep(Duration::from_secs(5));
    let mut after = Vec::new();
    for node in &mut nodes {
        let view: JobView = node.weft("jobs steady")?;
        ensure!((view.wanted, view.healthy) == (2, 2), "{view:?}");
        let rows: Vec<AllocView> = node.allocs("steady")?;
        ensure!(rows.len() == 2, "{rows:?}");
        after.push(units(&mut node.machine)?);
    }
    println!("    steady runs as {after:?}");
    ensure!(after.iter().flatten().count() == 2, "two are wanted, and there are {after:?}");
    Ok(())
}

/// Waits until both see both alive, and have the same table, with every job healthy and nothing too much.
fn agree(nodes: &mut [Node; 2]) -> Result<()> {
    let until = Instant::now() + AGREEMENT;
    loop {
        let views: Vec<Status> = nodes.iter_mut().map(Node::status).collect::<Result<_>>()?;
        let fabrics: Vec<_> = views.iter().filter_map(|view| view.fabric.as_ref()).collect();
        let whole = fabrics.iter().all(|fabric| {
            fabric.nodes.get(&NodeState::Alive) == Some(&2) && fabric.healthy == fabric.wanted
        });
        let wanted = fabrics.first().map_or(0, |fabric| fabric.wanted);
        let same = fabrics.windows(2).all(|pair| pair[0].fingerprint == pair[1].fingerprint);
        if fabrics.len() == 2 && whole && same {
            let mut running = 0;
            for node in nodes.iter_mut() {
                running += units(&mut node.machine)?.len();
            }
            if running == wanted as usize {
                return Ok(());
            }
        }
        ensure!(Instant::now() < until, "they do not agree: {views:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The units of work that run on a machine, each with its main process.
fn units(machine: &mut Running) -> Result<Vec<String>> {
    let text = machine.run(
        "systemctl list-units --plain --no-legend --state=running 'weft-*.service' |
        while read -r unit rest; do
            echo $unit $(systemctl show --value -p MainPID $unit)
        done",
    )?;
    Ok(text.lines().map(str::to_owned).collect())
}
