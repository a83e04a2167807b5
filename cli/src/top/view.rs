//! What is shown of it: three tables, or JSON.

use fabric::api::{AllocView, NodeState, NodeView};
use fabric::cpuset::CpuSet;
use fabric::resources::bytes;
use serde_json::json;
use std::cmp::Ordering;

use super::Snapshot;
use super::measured::Use;
use crate::arguments::Order;
use crate::chart::{bar, number, seconds};
use crate::screen::{Cell, Screen, Table, Tone};

/// Letters of a bar of CPU use.
const BAR: usize = 8;
/// For CPUs that nobody holds, and those that are kept for the system.
const FREE: char = '\u{b7}';
const KEPT: char = '-';
/// For pinned allocations beyond the last letter of the alphabet.
const MANY: char = '+';

/// All of it, for people.
pub fn text(snapshot: &Snapshot, order: Order, screen: &Screen) -> String {
    let tables = [nodes(snapshot, order), jobs(snapshot, order), allocs(snapshot, order)];
    tables.iter().map(|table| screen.text(table)).collect::<Vec<_>>().join("\n")
}

fn nodes(snapshot: &Snapshot, order: Order) -> Table {
    let mut table =
        Table::new(&["NODE", "STATE", "CPU", "", "MEMORY", "PINNED CPUS", "RUNQ P99", "DISK P99"])
            .without(&["MEMORY", "DISK P99", "", "RUNQ P99", "STATE"]);
    let of = |node: &NodeView| snapshot.measured.nodes.get(&node.name).copied().unwrap_or_default();
    let mut nodes: Vec<&NodeView> = snapshot.nodes.iter().collect();
    nodes.sort_by(|left, right| {
        compare(&of(left), &of(right), order).then(left.name.cmp(&right.name))
    });
    for node in nodes {
        let used = of(node);
        let part = used.cpu.zip(used.cpus).map_or(0.0, |(cpu, cpus)| cpu / cpus);
        let tone = match node.state {
            NodeState::Alive => Tone::Good,
            NodeState::Dead => Tone::Bad,
            NodeState::Suspect | NodeState::Unknown => Tone::Busy,
            NodeState::Left => Tone::Faint,
        };
        table.row([
            node.name.clone().into(),
            Cell::new(node.state.to_string(), tone),
            of_all(used.cpu.map(cpus), used.cpus.map(number)).into(),
            bar(part, BAR).into(),
            of_all(used.memory.map(size), used.memory_total.map(size)).into(),
            strip(node, &held(snapshot, node)).into(),
            wait(used.runq_p99).into(),
            wait(used.disk_p99).into(),
        ]);
    }
    table
}

fn jobs(snapshot: &Snapshot, order: Order) -> Table {
    let mut table =
        Table::new(&["JOB", "STATE", "HEALTHY", "CPU", "MEMORY", "RUNQ P99", "DISK P99"])
            .without(&["DISK P99", "MEMORY", "STATE"]);
    let of = |name: &str| snapshot.measured.jobs.get(name).copied().unwrap_or_default();
    let mut jobs: Vec<_> = snapshot.jobs.iter().collect();
    jobs.sort_by(|left, right| {
        let used = compare(&of(left.name.as_str()), &of(right.name.as_str()), order);
        used.then(left.name.cmp(&right.name))
    });
    for job in jobs {
        let used = of(job.name.as_str());
        table.row([
            job.name.to_string().into(),
            job.state.to_string().into(),
            format!("{} of {}", job.healthy, job.wanted).into(),
            of_all(used.cpu.map(cpus), None).into(),
            of_all(used.memory.map(size), None).into(),
            wait(used.runq_p99).into(),
            wait(used.disk_p99).into(),
        ]);
    }
    table
}

fn allocs(snapshot: &Snapshot, order: Order) -> Table {
    let mut table =
        Table::new(&["SLOT", "NODE", "PHASE", "CPU", "CPUS", "MEMORY", "RUNQ P99", "DISK P99"])
            .without(&["DISK P99", "PHASE", "MEMORY", "RUNQ P99"]);
    for alloc in sorted_allocs(snapshot, order) {
        let (used, claim) = (used_by(snapshot, alloc), &alloc.row.claim);
        let node = snapshot.nodes.iter().find(|node| node.id == alloc.node);
        let held = node.map(|node| held(snapshot, node)).unwrap_or_default();
        let letter = held.iter().find(|(_, other)| other.id == alloc.id).map(|(letter, _)| *letter);
        let cpus_of = match letter {
            Some(letter) => format!("{letter} {}", claim.cpus),
            None => format!("{} shared", f64::from(claim.shared_millis) / 1000.0),
        };
        table.row([
            alloc.id.slot.to_string().into(),
            alloc.node_name.clone().into(),
            alloc.row.phase.to_string().into(),
            of_all(used.cpu.map(cpus), None).into(),
            cpus_of.into(),
            of_all(used.memory.map(size), Some(bytes(claim.memory))).into(),
            wait(used.runq_p99).into(),
            wait(used.disk_p99).into(),
        ]);
    }
    table
}

fn sorted_allocs(snapshot: &Snapshot, order: Order) -> Vec<&AllocView> {
    let mut allocs: Vec<&AllocView> = snapshot.allocs.iter().collect();
    allocs.sort_by(|left, right| {
        let used = compare(&used_by(snapshot, left), &used_by(snapshot, right), order);
        used.then_with(|| (&left.id, &left.node_name).cmp(&(&right.id, &right.node_name)))
    });
    allocs
}

fn used_by(snapshot: &Snapshot, alloc: &AllocView) -> Use {
    let slot = &alloc.id.slot;
    let place = (alloc.node_name.clone(), slot.job.to_string(), slot.index.to_string());
    snapshot.measured.allocs.get(&place).copied().unwrap_or_default()
}

/// The most first, and what was not measured last.
fn compare(left: &Use, right: &Use, order: Order) -> Ordering {
    let key = |used: &Use| match order {
        Order::Name => None,
        Order::Cpu => used.cpu,
        Order::Memory => used.memory,
        Order::Runq => used.runq_p99,
        Order::Disk => used.disk_p99,
    };
    let number = |used: &Use| key(used).unwrap_or(f64::NEG_INFINITY);
    number(right).total_cmp(&number(left))
}

/// The allocations that hold CPUs of a node for themselves, each with its letter.
fn held<'a>(snapshot: &'a Snapshot, node: &NodeView) -> Vec<(char, &'a AllocView)> {
    let here = snapshot.allocs.iter().filter(|alloc| alloc.node == node.id);
    let mut pinned: Vec<_> = here.filter(|alloc| !alloc.row.claim.cpus.is_empty()).collect();
    pinned.sort_by(|left, right| left.id.cmp(&right.id));
    let letters = ('a'..='z').chain(std::iter::repeat(MANY));
    letters.zip(pinned).collect()
}

/// A letter for each CPU: whose it is.
fn strip(node: &NodeView, held: &[(char, &AllocView)]) -> String {
    let Some(info) = &node.info else { return "?".into() };
    let mut all = info.topology.housekeeping.clone();
    info.topology.cores.iter().for_each(|core| all.insert_all(&core.cpus));
    let letter = |cpu: u16| {
        let holder = held.iter().find(|(_, alloc)| alloc.row.claim.cpus.contains(cpu));
        match holder {
            Some((letter, _)) => *letter,
            None if info.topology.housekeeping.contains(cpu) => KEPT,
            None => FREE,
        }
    };
    all.iter().map(letter).collect()
}

fn of_all(used: Option<String>, all: Option<String>) -> String {
    match (used, all) {
        (None, None) => "-".into(),
        (Some(used), None) => used,
        (used, Some(all)) => format!("{} of {all}", used.unwrap_or_else(|| "?".into())),
    }
}

fn cpus(value: f64) -> String {
    format!("{value:.2}")
}

fn size(value: f64) -> String {
    bytes(value as u64)
}

fn wait(value: Option<f64>) -> String {
    value.map_or("-".into(), seconds)
}

/// All of it, for programs. `null`: not measured.
pub fn json(snapshot: &Snapshot, order: Order) -> serde_json::Value {
    let used = |used: &Use| {
        json!({
            "cpu": used.cpu,
            "memory_bytes": used.memory,
            "runq_p99_seconds": used.runq_p99,
            "disk_p99_seconds": used.disk_p99,
        })
    };
    let with = |mut value: serde_json::Value, more: serde_json::Value| {
        if let (Some(value), serde_json::Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    };
    let nodes = snapshot.nodes.iter().map(|node| {
        let measured = snapshot.measured.nodes.get(&node.name).copied().unwrap_or_default();
        let pinned = held(snapshot, node);
        let pinned: Vec<_> = pinned
            .iter()
            .map(|(_, alloc)| json!({ "slot": alloc.id.slot.to_string(), "cpus": alloc.row.claim.cpus }))
            .collect();
        let more = json!({
            "name": node.name,
            "state": node.state.to_string(),
            "cpus": measured.cpus,
            "memory_total_bytes": measured.memory_total,
            "pinned": pinned,
        });
        with(used(&measured), more)
    });
    let jobs = snapshot.jobs.iter().map(|job| {
        let measured = snapshot.measured.jobs.get(job.name.as_str()).copied().unwrap_or_default();
        let more = json!({ "name": job.name, "healthy": job.healthy, "wanted": job.wanted });
        with(used(&measured), more)
    });
    let allocs = sorted_allocs(snapshot, order).into_iter().map(|alloc| {
        let claim = &alloc.row.claim;
        let cpus: &CpuSet = &claim.cpus;
        let more = json!({
            "slot": alloc.id.slot.to_string(),
            "node": alloc.node_name,
            "phase": alloc.row.phase.to_string(),
            "cpus": cpus,
            "claimed_bytes": claim.memory,
        });
        with(used(&used_by(snapshot, alloc)), more)
    });
    json!({
        "nodes": nodes.collect::<Vec<_>>(),
        "jobs": jobs.collect::<Vec<_>>(),
        "allocs": allocs.collect::<Vec<_>>(),
        "warnings": snapshot.measured.warnings,
    })
}
