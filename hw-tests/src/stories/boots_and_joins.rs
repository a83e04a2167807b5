//! Three blank disks with our image, one token, and no keyboard.

use crate::images::{EVERYWHERE, boot, founder, joined, memory, told};
use crate::machine::Arch;
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{JobView, NodeView, TokenCreated};
use std::time::Instant;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 4)?;
    let mut first = founder(bench, &switch, &[])?;
    let token: TokenCreated = first.weft("token create --label booted=image")?;
    let begun = Instant::now();
    let mut machines = Vec::new();
    for (port, name) in (1..).zip(["birch", "cedar", "elm"]) {
        machines.push(boot(bench, name, Arch::X86_64, switch.cable(port), &token.token, &[])?);
    }
    let joined = joined(&mut first, machines.len(), begun)?;
    let seconds: Vec<u64> = joined.values().map(|time| time.as_secs()).collect();
    println!("    joined {seconds:?} s after their power was switched on");
    for machine in &machines {
        told(machine)?;
    }

    first.apply(EVERYWHERE)?;
    let view: JobView = first.weft("jobs everywhere")?;
    ensure!((view.wanted, view.healthy) == (4, 4), "{view:?}");
    let nodes: Vec<NodeView> = first.weft("nodes")?;
    for node in nodes.iter().filter(|node| !node.local) {
        let info = node.info.as_ref().context("it has said nothing of itself")?;
        ensure!(info.executor == "systemd", "{}: {}", node.name, info.executor);
        ensure!(info.labels.get("booted").is_some_and(|how| how == "image"), "{:?}", info.labels);
    }
    println!("    a job runs on all {} nodes, in units of systemd", view.healthy);
    println!("    RAM in use, MiB: {}", memory(&mut first)?);
    Ok(())
}
