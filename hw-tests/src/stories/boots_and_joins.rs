//! Three blank disks with our image, one token, and no keyboard. One of the machines has 128 MB of memory.

use crate::images::{EVERYWHERE, boot, boot_small, founder, joined, memory, told};
use crate::machine::Arch;
use crate::node::Node;
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{JobView, NodeView, TokenCreated};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Says what sockets its machine has.
const SOCKETS: &str = r#"name = "sockets"
[task]
command = ["/bin/sh", "-c", "cat /proc/net/udp /proc/net/udp6 /proc/net/tcp /proc/net/tcp6; exec sleep 100000"]
[resources]
cpu = 0.1
memory = "8MiB"
[placement]
constraints = ['labels.booted == "image"']
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 4)?;
    let mut first = founder(bench, &switch, &[])?;
    let token: TokenCreated = first.weft("token create --label booted=image")?;
    let begun = Instant::now();
    let mut machines = Vec::new();
    for (port, name) in (1..).zip(["birch", "cedar"]) {
        machines.push(boot(bench, name, Arch::X86_64, switch.cable(port), &token.token, &[])?);
    }
    machines.push(boot_small(bench, "elm", switch.cable(3), &token.token)?);
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
    let total = "node_memory_MemTotal_bytes / 1048576";
    let total =
        first.machine.run(&format!("weft query '{total}' | sed 's/  */ /g' | paste -s -d ';'"))?;
    println!("    of what their kernels have: {total}");
    println!("    services that are active: {}", services(&mut first, 4)?);
    first.apply(SOCKETS)?;
    let listens = listens(&first.machine.run("weft logs sockets")?);
    println!(
        "    one of them can be reached at {}",
        listens.iter().cloned().collect::<Vec<_>>().join(", ")
    );
    // Gossip and streams; asking for an address, and names on the link.
    let known = ["udp 7400", "udp 7401", "udp 68", "udp 546", "udp 5353"];
    let unknown: Vec<_> = listens.iter().filter(|port| !known.contains(&port.as_str())).collect();
    ensure!(unknown.is_empty(), "nobody knows what these are for: {unknown:?}");
    Ok(())
}

/// How long a busy node may take to have looked at its units.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many services each node has that do something, or have.
fn services(first: &mut Node, nodes: usize) -> Result<String> {
    let active = r#"systemd_unit_state{name=~".*[.]service",state="active"} == 1"#;
    let script =
        format!("weft query 'count by (node) ({active})' | sed 's/  */ /g' | paste -s -d ';'");
    // A line above those of the nodes.
    first.machine.wait_until("every node tells its services", PATIENCE, |machine| {
        let told = machine.run(&script)?;
        Ok((told.matches(';').count() == nodes).then_some(told))
    })
}

/// What can be reached from outside, of the kernel's lists of sockets.
fn listens(lists: &str) -> BTreeSet<String> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let (remote, state) = (words.next()?, words.next()?);
        // 127.0.0.0/8 and ::1, whose 32-bit words have the machine's order of bytes.
        let own =
            (address.len() == 8 && address.ends_with("7F")) || address.ends_with("000001000000");
        let protocol = match state {
            "0A" => "tcp",
            "07" if remote.ends_with(":0000") => "udp",
            _ => return None,
        };
        (!own).then_some(format!("{protocol} {}", u16::from_str_radix(port, 16).ok()?))
    };
    lists.lines().filter_map(port).collect()
}
