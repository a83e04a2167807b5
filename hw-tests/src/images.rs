//! Machines that start from our image, and the fabric of a Debian that they join.

use crate::machine::{Arch, Disk, Machine, Running, TRUST_THE_TIMER};
use crate::node::{self, Node};
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{NodeState, NodeView};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long machines may take to join: half a minute each where nothing else runs, and four are emulated beside each
/// other. On two cores with a load of 13, ten minutes are not enough.
const JOINED_WITHIN: Duration = Duration::from_secs(1800);
/// How long the rest of a start may take after that: seconds where nothing else runs.
const STARTED_WITHIN: Duration = Duration::from_secs(300);
/// How often the founder is asked: being asked takes from what the others start with.
const ASKED_EVERY: Duration = Duration::from_secs(3);

/// A job with a copy on every node.
pub const EVERYWHERE: &str = r#"name = "everywhere"
type = "system"
[task]
command = ["/bin/sleep", "100000"]
[resources]
cpu = 0.1
memory = "8MiB"
"#;

/// A Debian that has founded a fabric, on port 0 of the switch, with these disks beside its own two.
pub fn founder(bench: &Bench, switch: &Switch, disks: &[PathBuf]) -> Result<Node> {
    let mut machine = node::machine(bench, "alder")?;
    machine.cpus = (1, 1);
    machine.memory = 384;
    machine.cables = vec![switch.cable(0)];
    machine.disks.extend(disks.iter().map(|file| Disk { file: file.clone(), writable: false }));
    let mut node = Node::install(&machine, bench, "[metrics]\nprobes = []\n")?;
    node.init()?;
    Ok(node)
}

/// Switches a machine on that starts from our image on a disk, has 128 MiB of memory, and a loader that wants little of it.
pub fn boot_small(bench: &Bench, name: &str, cable: String, token: &str) -> Result<Running> {
    let mut machine = Machine::small_image(bench, name)?;
    machine.cables = vec![cable];
    machine.credentials = vec![("weft.token".into(), token.into())];
    start(bench, machine)
}

/// Switches a machine on that starts from our image on a disk, with a token, and `more` for its kernel.
pub fn boot(
    bench: &Bench,
    name: &str,
    arch: Arch,
    cable: String,
    token: &str,
    more: &[&str],
) -> Result<Running> {
    let mut machine = Machine::image(bench, name, arch)?;
    machine.cables = vec![cable];
    machine.credentials = vec![("weft.token".into(), token.into())];
    more.iter().for_each(|more| machine.argument(more));
    start(bench, machine)
}

/// Switches a machine on that starts from our image. What systemd says is on its console, which is kept.
pub fn start(bench: &Bench, mut machine: Machine) -> Result<Running> {
    machine
        .argument("systemd.journald.forward_to_console=1 systemd.journald.max_level_console=info");
    if machine.arch == Arch::X86_64 {
        machine.argument(TRUST_THE_TIMER);
    }
    machine.start(bench)
}

/// Waits until so many nodes have joined, and says how long each took from when the first was switched on.
pub fn joined(
    first: &mut Node,
    wanted: usize,
    begun: Instant,
) -> Result<BTreeMap<String, Duration>> {
    let mut joined = BTreeMap::new();
    let waited = first.machine.wait_until("all have joined", JOINED_WITHIN, |machine| {
        let said = machine.try_run("weft --json nodes 2>/dev/null", JOINED_WITHIN)?;
        let nodes: Vec<NodeView> = serde_json::from_str(&said.text).context(said.text)?;
        for node in nodes.iter().filter(|node| !node.local && node.state == NodeState::Alive) {
            joined.entry(node.name.clone()).or_insert(begun.elapsed());
        }
        if joined.len() == wanted {
            return Ok(Some(()));
        }
        std::thread::sleep(ASKED_EVERY);
        Ok(None)
    });
    waited.with_context(|| format!("of {wanted}, these have: {joined:?}"))?;
    Ok(joined)
}

/// What a machine's console says of its start: how long each part took, and that nothing failed.
pub fn told(machine: &Running) -> Result<()> {
    // Others may have been quicker to join than it was to have started everything.
    let until = Instant::now() + STARTED_WITHIN;
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
