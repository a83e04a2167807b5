//! A node that starts from our image gets another one: a good one, a damaged one, and one whose agent does not start.

use crate::images::{EVERYWHERE, boot, founder, joined};
use crate::machine::Arch;
use crate::node::Node;
use crate::switch::Switch;
use crate::workshop::{Bench, made};
use anyhow::{Context, Result, ensure};
use fabric::api::{JobView, NodeState, NodeView, TokenCreated};
use std::time::{Duration, Instant};

/// Writing a slot and up to four starts, on a machine that is emulated.
const PATIENCE: Duration = Duration::from_secs(2400);

/// How long it may take until others know what a node runs: gossip has it there in a second.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

pub fn tell(bench: &Bench) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let arch = Arch::X86_64;
    let (good, broken) = (made(".1", arch, "update")?, made(".2", arch, "update")?);
    let switch = Switch::new(bench, 2)?;
    let updates = bench.disk_of("updates", &[("good", &*good), ("broken", &*broken)])?;
    let mut first = founder(bench, &switch, &[updates])?;
    first.machine.run("mkdir -p /mnt/updates && mount -o ro /dev/nvme2n1 /mnt/updates")?;
    let token: TokenCreated = first.weft("token create")?;

    let begun = Instant::now();
    let limit = ["weft.join_limit=60"];
    let _birch = boot(bench, "birch", arch, switch.cable(1), &token.token, &limit)?;
    joined(&mut first, 1, begun)?;
    first.apply(EVERYWHERE)?;
    let node = other(&mut first)?;
    ensure!(node.1 == format!("weft {version}"), "{node:?}");
    let node = node.0;

    // A damaged one is refused before anything is written.
    first.machine.run(
        "cp /mnt/updates/good /tmp/damaged &&
         printf x | dd of=/tmp/damaged bs=1 seek=30000000 conv=notrunc status=none",
    )?;
    let (status, said, _) = upgrade(&mut first, "/tmp/damaged", &node)?;
    ensure!(status == 1 && said.contains("damaged"), "{status}: {said}");
    first.machine.run("rm /tmp/damaged")?;
    println!("    {}", said.lines().last().unwrap_or_default());
    healthy(&mut first)?;

    let (status, said, took) = upgrade(&mut first, "/mnt/updates/good", &node)?;
    ensure!(status == 0, "{status}: {said}");
    println!("    {} ({} s)", said.lines().last().unwrap_or_default(), took.as_secs());
    runs(&mut first, &format!("weft {version}.1"))?;
    healthy(&mut first)?;

    let (status, said, took) = upgrade(&mut first, "/mnt/updates/broken", &node)?;
    ensure!(status == 1 && said.contains("went back"), "{status}: {said}");
    println!("    {} ({} s)", said.lines().last().unwrap_or_default(), took.as_secs());
    runs(&mut first, &format!("weft {version}.1"))?;
    healthy(&mut first)
}

/// Brings an update to a node. How that ended, what it said, and how long it took.
fn upgrade(first: &mut Node, file: &str, node: &str) -> Result<(i32, String, Duration)> {
    let begun = Instant::now();
    let script = format!("weft node upgrade {file} {node} --yes 2>&1");
    let said = first.machine.try_run(&script, PATIENCE)?;
    Ok((said.status, said.text.trim().to_owned(), begun.elapsed()))
}

/// Name and system of the node that started from the image.
fn other(first: &mut Node) -> Result<(String, String)> {
    let nodes: Vec<NodeView> = first.weft("nodes")?;
    let node = nodes.into_iter().find(|node| !node.local && node.state == NodeState::Alive);
    let node = node.context("no other node is alive")?;
    let info = node.info.context("it has said nothing of itself")?;
    Ok((node.name, info.topology.os))
}

/// The other node runs this system. What a node says of itself reaches the others a moment after the node.
fn runs(first: &mut Node, system: &str) -> Result<()> {
    let until = Instant::now() + TOLD_WITHIN;
    loop {
        let (name, now) = other(first)?;
        if now == system {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{name} runs {now}, and not {system}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The job runs on both again.
fn healthy(first: &mut Node) -> Result<()> {
    first.machine.run("weft wait everywhere --timeout 100s")?;
    let view: JobView = first.weft("jobs everywhere")?;
    ensure!((view.wanted, view.healthy) == (2, 2), "{view:?}");
    Ok(())
}
