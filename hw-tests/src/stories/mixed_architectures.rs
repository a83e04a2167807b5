//! One fabric of an x86-64 and a 64-bit ARM machine, and a job that has a program for each.

use crate::images::{boot, founder, joined, memory, told};
use crate::machine::Arch;
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{NodeView, TokenCreated};
use std::collections::BTreeSet;
use std::time::Instant;

const JOB: &str = r#"name = "both"
count = 2
[task.arch.x86_64]
command = ["/bin/sh", "-c", "echo for x86_64, on $(uname -m); exec sleep 100000"]
[task.arch.aarch64]
command = ["/bin/sh", "-c", "echo for aarch64, on $(uname -m); exec sleep 100000"]
[resources]
cpu = 0.1
memory = "8MiB"
[placement]
spread = "arch"
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 2)?;
    let mut first = founder(bench, &switch, &[])?;
    let token: TokenCreated = first.weft("token create")?;
    let begun = Instant::now();
    let board = boot(bench, "birch", Arch::Aarch64, switch.cable(1), &token.token, &[])?;
    for (name, time) in joined(&mut first, 1, begun)? {
        println!("    {name} joined {} s after its power was switched on", time.as_secs());
    }
    told(&board)?;

    let rows = first.apply(JOB)?;
    let places: BTreeSet<&str> = rows.iter().map(|row| row.node_name.as_str()).collect();
    ensure!(rows.len() == 2 && places.len() == 2, "one on each is wanted: {rows:?}");
    let nodes: Vec<NodeView> = first.weft("nodes")?;
    for node in &nodes {
        let info = node.info.as_ref().context("it has said nothing of itself")?;
        let of = &info.topology;
        println!("    {}: {}, Linux {}, {}", node.name, of.arch, of.kernel, of.os);
    }
    let mut logs: Vec<String> =
        first.machine.run("weft logs both")?.lines().map(str::to_owned).collect();
    logs.sort();
    println!("    {}", logs.join("; "));
    for arch in [Arch::X86_64, Arch::Aarch64].map(Arch::name) {
        let wanted = format!("for {arch}, on {arch}");
        ensure!(logs.iter().any(|line| line.contains(&wanted)), "not there: {wanted}");
    }
    println!("    RAM in use, MiB: {}", memory(&mut first)?);
    Ok(())
}
