//! Three blank disks with our image, one token, and no keyboard.

use crate::machine::{Arch, Machine, PATIENCE, Running};
use crate::node::{self, Node};
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{JobView, NodeState, NodeView, TokenCreated};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A quarter of a minute on a machine of its own; four are emulated here beside each other.
const JOINED_WITHIN: Duration = Duration::from_secs(600);

const JOB: &str = r#"name = "everywhere"
kind = "system"
[task]
command = ["/bin/sleep", "100000"]
[resources]
cpu = 0.1
memory = "8MiB"
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 4)?;
    let mut first = founder(bench, &switch)?;
    let token: TokenCreated = first.weft("token create --label booted=image")?;
    let mut machines = Vec::new();
    for (port, name) in (1..).zip(["birch", "cedar", "elm"]) {
        machines.push(boot(bench, name, Arch::X86_64, switch.cable(port), &token.token)?);
    }
    let joined = joined(&mut first, &machines)?;
    let seconds: Vec<u64> = joined.values().map(|time| time.as_secs()).collect();
    println!("    joined {seconds:?} s after the power was switched on");
    for machine in &machines {
        told(machine)?;
    }

    first.apply(JOB)?;
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

/// A Debian that has founded a fabric, on port 0 of the switch.
pub fn founder(bench: &Bench, switch: &Switch) -> Result<Node> {
    let mut machine = node::machine(bench, "alder")?;
    machine.cpus = (1, 1);
    machine.memory = 384;
    machine.cables = vec![switch.cable(0)];
    let mut node = Node::install(&machine, bench, "[metrics]\nprobes = []\n")?;
    node.init()?;
    Ok(node)
}

/// Switches a machine on that starts from our image, with a token.
pub fn boot(bench: &Bench, name: &str, arch: Arch, cable: String, token: &str) -> Result<Running> {
    let mut machine = Machine::image(bench, name, arch)?;
    machine.cables = vec![cable];
    machine.credentials = vec![("weft.token".into(), token.into())];
    // So that what systemd says is on the console, which is kept.
    machine.more_arguments = Some(
        "systemd.journald.forward_to_console=1 systemd.journald.max_level_console=info".into(),
    );
    machine.start(bench)
}

/// Waits until all of them are members, and says how long after now each was.
pub fn joined(first: &mut Node, machines: &[Running]) -> Result<BTreeMap<String, Duration>> {
    let begun = Instant::now();
    let mut joined = BTreeMap::new();
    let wanted = machines.len();
    let waited = first.machine.wait_until("all have joined", JOINED_WITHIN, |machine| {
        let said = machine.run("weft --json nodes 2>/dev/null")?;
        let nodes: Vec<NodeView> = serde_json::from_str(&said).context(said)?;
        for node in nodes.iter().filter(|node| !node.local && node.state == NodeState::Alive) {
            joined.entry(node.name.clone()).or_insert(begun.elapsed());
        }
        Ok((joined.len() == wanted).then_some(()))
    });
    waited.with_context(|| format!("of {wanted}, these have: {joined:?}"))?;
    Ok(joined)
}

/// What a machine's console says of its start: how long each part took, and that nothing failed.
pub fn told(machine: &Running) -> Result<()> {
    // Others may have been quicker to join than it was to have started everything.
    let until = Instant::now() + PATIENCE;
    loop {
        let console = machine.console()?;
        if let Some(line) = console.lines().find_map(|line| line.split_once("Startup finished in "))
        {
            println!("    {}: {}", machine.name(), line.1.trim());
            let failed: Vec<&str> =
                console.lines().filter(|line| line.contains("Failed to start")).collect();
            ensure!(failed.is_empty(), "{}: {failed:?}", machine.name());
            return Ok(());
        }
        ensure!(Instant::now() < until, "{} has not finished its start", machine.name());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What every node has in use, of what its kernel has.
pub fn memory(first: &mut Node) -> Result<String> {
    let used = "(node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes) / 1048576";
    let script = format!("weft query '{used}' | sed 's/  */ /g' | paste -s -d ';'");
    first.machine.run(&script)
}
