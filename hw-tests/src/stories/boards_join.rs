//! Boards on a desk are switched on, say on their serial ports who they are and where they belong, and are the same after a
//! power cut. Where no lab is written down, the board is a machine of QEMU in an outlet with a switch, and a Debian lets it in.

use crate::board::Board;
use crate::images::founder;
use crate::lab::{Lab, StartsFrom};
use crate::machine::{Arch, Machine, PATIENCE, TRUST_THE_TIMER};
use crate::node::Node;
use crate::outlet::Outlet;
use crate::screen::{Screen, Standing};
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, bail, ensure};
use fabric::api::NodeView;
use serde::Deserialize;
use std::fs;
use std::time::Duration;

/// How long it may take until a node that waits is seen and let in: seconds where nothing else runs.
const LET_IN_WITHIN: Duration = Duration::from_secs(600);
/// Between two looks at all boards.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The lab where there is none.
const VIRTUAL: &str = r#"[board.birch]
arch = "x86_64"
serial = "birch.tty"
settle = 1
up_within = 1500
[board.birch.power]
on = ["sh", "birch.switch", "on"]
off = ["sh", "birch.switch", "off"]
"#;

/// What `weft node approve` answers.
#[derive(Deserialize)]
struct Approved {
    name: String,
    fingerprint: String,
}

pub fn tell(bench: &Bench) -> Result<()> {
    match Lab::find()? {
        Some(lab) => {
            println!("    with the boards of {}", lab.file.display());
            of_boards(bench, &lab, None)
        }
        None => {
            println!("    real boards: skipped: no lab.toml; a virtual one in their place");
            of_a_virtual_one(bench)
        }
    }
}

fn of_a_virtual_one(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 2)?;
    let mut machine = Machine::image(bench, "birch", Arch::X86_64)?;
    machine.cables = vec![switch.cable(1)];
    machine.argument(TRUST_THE_TIMER);
    let mut first = founder(bench, &switch, &[])?;
    let _outlet = Outlet::new(bench, machine)?;
    let file = bench.path("lab.toml");
    fs::write(&file, VIRTUAL)?;
    of_boards(bench, &Lab::read(&file)?, Some(&mut first))?;
    // It came back as itself, or there were a third.
    let nodes: Vec<NodeView> = first.weft("nodes")?;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    ensure!(nodes.len() == 2, "the fabric has {names:?}");
    Ok(())
}

/// Goes on with the other boards when one fails.
fn of_boards(bench: &Bench, lab: &Lab, mut first: Option<&mut Node>) -> Result<()> {
    let boards = lab.boards.iter().map(|(name, spec)| Board::new(lab, name, spec, bench));
    let mut boards = boards.collect::<Result<Vec<Board>>>()?;
    let mut failed = Vec::new();
    let note = |failed: &mut Vec<String>, error: anyhow::Error| {
        println!("    {error:#}");
        failed.push(format!("{error:#}"));
    };
    boards.retain_mut(|board| match board.switch_on() {
        Ok(()) => true,
        Err(error) => {
            note(&mut failed, error);
            false
        }
    });

    let mut up: Vec<(Board, Screen)> = Vec::new();
    while !boards.is_empty() {
        for board in std::mem::take(&mut boards) {
            match board.look("it has found its place", Screen::is_settled) {
                Ok(Some(screen)) => {
                    let arch = board.spec.arch.name();
                    println!(
                        "    {} ({arch}): {} s after its power came: {}",
                        board.name(),
                        board.running().as_secs(),
                        told(&screen)
                    );
                    up.push((board, screen));
                }
                Ok(None) => boards.push(board),
                Err(error) => note(&mut failed, error),
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }

    // One after the other: whoever comes back finds the others.
    for (board, screen) in &mut up {
        if let Some(first) = first.as_deref_mut() {
            *screen = let_in(first, board, screen)?;
        }
        if let Err(error) = comes_back(board, screen) {
            note(&mut failed, error);
        }
    }
    match failed.len() {
        0 => Ok(()),
        count => bail!("{count} of {} boards: {}", lab.boards.len(), failed.join("; ")),
    }
}

/// Its power is cut and given again, and it is who it was, where it was.
fn comes_back(board: &mut Board, before: &Screen) -> Result<()> {
    board.cut_power()?;
    let after = board.wait("it is back where it was", |after| {
        match (&before.standing, &after.standing) {
            // A new node: it need not be the old one's place.
            _ if after.fingerprint != before.fingerprint => after.is_settled(),
            (Standing::Member { alive: 1, .. }, Standing::Member { .. }) => after.is_settled(),
            // It has found somebody again.
            (Standing::Member { .. }, Standing::Member { alive, .. }) => {
                after.is_settled() && *alive > 1
            }
            (Standing::Member { .. }, _) => false,
            (_, _) => after.is_settled(),
        }
    })?;
    let name = board.name();
    let seconds = board.running().as_secs();
    if (&after.node, &after.fingerprint) != (&before.node, &before.fingerprint) {
        ensure!(
            board.spec.starts_from == StartsFrom::Network,
            "{name}: it was {} and came back as {}: does its disk keep what is written to /var?",
            told(before),
            told(&after)
        );
        println!("    {name}: {seconds} s after a power cut, as a new node: {}", told(&after));
        return Ok(());
    }
    if let (Standing::Member { key, .. }, Standing::Member { key: now, .. }) =
        (&before.standing, &after.standing)
    {
        ensure!(key == now, "{name}: it came back into another fabric: {}", told(&after));
    }
    println!("    {name}: {seconds} s after a power cut, as the same node: {}", told(&after));
    Ok(())
}

/// Lets a node in that waits, after comparing fingerprints, as a person would. What it shows then.
fn let_in(first: &mut Node, board: &Board, screen: &Screen) -> Result<Screen> {
    ensure!(screen.standing == Standing::Waiting, "it was given no token: {}", told(screen));
    let script = format!("weft --json node approve {} --yes 2>/dev/null", screen.fingerprint);
    let approved = first.machine.wait_until("it is let in", LET_IN_WITHIN, |machine| {
        let said = machine.try_run(&script, PATIENCE)?;
        match said.status {
            0 => Ok(Some(serde_json::from_str::<Approved>(&said.text).context(said.text)?)),
            _ => Ok(None),
        }
    })?;
    ensure!(
        (&approved.name, &approved.fingerprint) == (&screen.node, &screen.fingerprint),
        "{} {} was let in, and the console shows {}",
        approved.name,
        approved.fingerprint,
        told(screen)
    );
    let shown = board.wait(
        "it is a member",
        |screen| matches!(&screen.standing, Standing::Member { alive, .. } if *alive > 1),
    )?;
    println!("    {}: approved by the fingerprint on its console: {}", board.name(), told(&shown));
    Ok(shown)
}

/// What a screen shows, in one line.
fn told(screen: &Screen) -> String {
    let at = match screen.addresses.join(" ") {
        none if none.is_empty() => String::new(),
        some => format!(", at {some}"),
    };
    let standing = match &screen.standing {
        Standing::Member { fabric, key, alive } => {
            format!("member of {fabric} (key {key}), {alive} alive")
        }
        Standing::Waiting => "waits to be approved".into(),
        Standing::Nowhere(says) => says.clone(),
    };
    let says = match screen.says.join("; ") {
        none if none.is_empty() => none,
        some => format!("; {some}"),
    };
    format!("{}, fingerprint {}{at}; {standing}{says}", screen.node, screen.fingerprint)
}

#[cfg(test)]
mod tests;
