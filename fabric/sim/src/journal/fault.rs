//! Faults as words.

use anyhow::{Context, bail};
use std::time::Duration;

use super::node_named;
use crate::faults::Fault;
use crate::network::Quality;
use crate::units::Temper;

const TEMPERS: [(&str, Temper); 4] = [
    ("well", Temper::Well),
    ("slow", Temper::Slow),
    ("refusing", Temper::Refusing),
    ("crash-looping", Temper::CrashLooping),
];

/// What [`parse`] reads.
pub(super) fn words(fault: &Fault) -> String {
    let list = |nodes: &[usize]| {
        nodes.iter().map(|node| format!("n{node:02}")).collect::<Vec<_>>().join(",")
    };
    match fault {
        Fault::AgentCrash(node) => format!("agent-crash n{node:02}"),
        Fault::PowerCut(node) => format!("power-cut n{node:02}"),
        Fault::DiskLoss(node) => format!("disk-loss n{node:02}"),
        Fault::Removal(node) => format!("removal n{node:02}"),
        Fault::Freeze(node) => format!("freeze n{node:02}"),
        Fault::Split(one, other) => format!("split {} | {}", list(one), list(other)),
        Fault::OneWaySplit(from, to) => format!("one-way {} | {}", list(from), list(to)),
        Fault::BadNetwork(quality) => format!(
            "bad-network latency {} us, tail {} us, loss {}, repeats {}",
            quality.latency.as_micros(),
            quality.tail.as_micros(),
            quality.loss_permille,
            quality.repeat_permille
        ),
        Fault::SlowDisk(node) => format!("slow-disk n{node:02}"),
        Fault::FullDisk(node) => format!("full-disk n{node:02}"),
        Fault::Stall(node) => format!("stall n{node:02}"),
        Fault::ClockJump(node, by_ms) => format!("clock-jump n{node:02} {by_ms}"),
        Fault::ClockDrift(node, rate_ppm) => format!("clock-drift n{node:02} {rate_ppm}"),
        Fault::Units(node, temper) => {
            let name = TEMPERS.iter().find(|(_, known)| known == temper).map_or("well", |it| it.0);
            format!("units n{node:02} {name}")
        }
        Fault::LostCommands(node, permille) => format!("lost-commands n{node:02} {permille}"),
        Fault::UnitKill(node) => format!("unit-kill n{node:02}"),
        Fault::Renumbering(node) => format!("renumbering n{node:02}"),
        Fault::AgentAway(node) => format!("agent-away n{node:02}"),
        Fault::AllAgentsRestart(nodes, spacing) => {
            let last = nodes.saturating_sub(1);
            format!("all-agents-restart n{last:02} {spacing}")
        }
        Fault::CableOut(node) => format!("cable-out n{node:02}"),
        Fault::RemovalWhileOff(node) => format!("removal-while-off n{node:02}"),
        Fault::RemovalWhileCutOff(node) => format!("removal-while-cut-off n{node:02}"),
        Fault::Stranger => "stranger copies".to_owned(),
        Fault::Forger => "forger writes".to_owned(),
    }
}

/// Reads what [`words`] says.
pub(super) fn parse(text: &str) -> anyhow::Result<Fault> {
    let (word, rest) = text.split_once(' ').context("a fault has a word and an object")?;
    let node = || node_named(rest);
    let and = || rest.split_once(' ').context("a node and a value");
    let sides = || {
        let (one, other) = rest.split_once(" | ").context("write `n00,n01 | n02`")?;
        anyhow::Ok((list(one)?, list(other)?))
    };
    Ok(match word {
        "agent-crash" => Fault::AgentCrash(node()?),
        "power-cut" => Fault::PowerCut(node()?),
        "disk-loss" => Fault::DiskLoss(node()?),
        "removal" => Fault::Removal(node()?),
        "freeze" => Fault::Freeze(node()?),
        "split" => {
            let (one, other) = sides()?;
            Fault::Split(one, other)
        }
        "one-way" => {
            let (from, to) = sides()?;
            Fault::OneWaySplit(from, to)
        }
        "bad-network" => Fault::BadNetwork(quality(rest)?),
        "slow-disk" => Fault::SlowDisk(node()?),
        "full-disk" => Fault::FullDisk(node()?),
        "stall" => Fault::Stall(node()?),
        "clock-jump" => Fault::ClockJump(node_named(and()?.0)?, and()?.1.parse()?),
        "clock-drift" => Fault::ClockDrift(node_named(and()?.0)?, and()?.1.parse()?),
        "units" => {
            let (node, temper) = and()?;
            let known = TEMPERS.iter().find(|(name, _)| *name == temper);
            let known = known.with_context(|| format!("a unit manager is never {temper:?}"))?;
            Fault::Units(node_named(node)?, known.1)
        }
        "lost-commands" => Fault::LostCommands(node_named(and()?.0)?, and()?.1.parse()?),
        "unit-kill" => Fault::UnitKill(node()?),
        "renumbering" => Fault::Renumbering(node()?),
        "agent-away" => Fault::AgentAway(node()?),
        "all-agents-restart" => {
            Fault::AllAgentsRestart(node_named(and()?.0)? + 1, and()?.1.parse()?)
        }
        "cable-out" => Fault::CableOut(node()?),
        "removal-while-off" => Fault::RemovalWhileOff(node()?),
        "removal-while-cut-off" => Fault::RemovalWhileCutOff(node()?),
        "stranger" => Fault::Stranger,
        "forger" => Fault::Forger,
        other => bail!("there is no fault {other:?}"),
    })
}

fn list(text: &str) -> anyhow::Result<Vec<usize>> {
    text.split(',').filter(|name| !name.is_empty()).map(node_named).collect()
}

fn quality(text: &str) -> anyhow::Result<Quality> {
    let words = || "write `latency 900 us, tail 20000 us, loss 100, repeats 5`";
    let numbers: Vec<u32> = text
        .split(|sign: char| !sign.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().with_context(words))
        .collect::<anyhow::Result<_>>()?;
    let [latency, tail, loss_permille, repeat_permille] = numbers[..] else { bail!(words()) };
    Ok(Quality {
        latency: Duration::from_micros(latency.into()),
        tail: Duration::from_micros(tail.into()),
        loss_permille,
        repeat_permille,
    })
}
