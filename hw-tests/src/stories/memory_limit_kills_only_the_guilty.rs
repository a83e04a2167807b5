//! A job takes more memory than it was given: the kernel kills it, and nobody else.

use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// The job is started again after it was killed, and killed again: a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(240);

const NEIGHBOUR: &str = r#"name = "neighbour"
[task]
command = ["/usr/bin/python3", "-m", "http.server", "--directory", "/usr/share", "${port.http}"]
[resources]
memory = "64MiB"
[[port]]
name = "http"
[health]
http = "/"
interval = "10s"
timeout = "10s"
grace = "60s"
failures = 3
"#;

/// Says how far it came, 4 MiB at a time, up to four times of what it was given.
const GUILTY: &str = r#"name = "guilty"
[task]
command = ["/usr/bin/python3", "-uc", """
import time
time.sleep(5)
held = []
for step in range(48):
    held.append(b'x' * (4 << 20))
    print('holds', 4 * (step + 1), 'MiB')
time.sleep(1000)
"""]
[resources]
memory = "48MiB"
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let machine = node::machine(bench, "memory")?;
    let mut node = Node::install(&machine, bench, "")?;
    node.init()?;
    let before = node.apply(NEIGHBOUR)?.remove(0);
    let pid = node.main_pid(&before.unit)?;
    let limit = node.cgroup_file(&before.unit, "memory.max")?;
    println!("    {}: main process {pid}, memory.max {limit}", before.unit);
    ensure!(limit == (64u64 << 20).to_string(), "the neighbour's limit is {limit}");

    let said = node.try_apply(GUILTY, "--detach")?;
    ensure!(said.status == 0, "weft apply: {}", said.text);
    let guilty = node.machine.wait_until("weft says why it ended", PATIENCE, |machine| {
        let said = machine.try_run("weft --json ps --all guilty 2>/dev/null", PATIENCE)?;
        let allocs: Vec<fabric::api::AllocView> =
            serde_json::from_str(&said.text).context(said.text)?;
        Ok(allocs.into_iter().find(|alloc| {
            alloc.row.trouble.as_deref().is_some_and(|text| text.contains("out of memory"))
        }))
    })?;
    println!(
        "    weft: {} restarts {}: {:?}",
        guilty.unit, guilty.row.restarts, guilty.row.trouble
    );
    ensure!(guilty.row.restarts > 0, "it was not started again: {guilty:?}");
    let shown = node.machine.run("weft ps guilty")?;
    println!("    weft ps: {}", shown.lines().last().unwrap_or_default());
    ensure!(shown.contains("out of memory"), "weft ps does not say why: {shown}");
    let came =
        node.machine.run("weft logs guilty -n 1000 --stream stdout | sort -V | tail -n 1")?;
    let reached: u64 = came
        .split(' ')
        .nth_back(1)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("it does not say how far it came: {came}"))?;
    println!("    it came to {reached} MiB of the 48 it was given");
    ensure!((16..48).contains(&reached), "a limit of 48 MiB let it have {reached} MiB");

    // Whom the kernel killed, and for whose limit.
    let kernel = node.machine.run("dmesg | grep -E 'oom-kill:|Memory cgroup out of memory'")?;
    let kills: Vec<&str> = kernel.lines().filter(|line| line.contains("oom-kill:")).collect();
    println!("    kernel: {} kills, the first: {}", kills.len(), kills.first().unwrap_or(&""));
    ensure!(!kills.is_empty(), "the kernel killed nobody: {kernel}");
    for kill in &kills {
        let limit = kill.contains("CONSTRAINT_MEMCG")
            && kill.contains("oom_memcg=/weft.slice/weft-guilty-0-");
        ensure!(limit && kill.contains("task_memcg=/weft.slice/weft-guilty-0-"), "{kill}");
    }
    let events = node.cgroup_file(&before.unit, "memory.events")?;
    ensure!(events.contains("oom_kill 0"), "the neighbour: {events}");

    let now = node.alloc("neighbour")?;
    ensure!(node.main_pid(&before.unit)? == pid, "the neighbour has another main process");
    ensure!(now.id == before.id && now.row.restarts == 0, "the neighbour was touched: {now:?}");
    ensure!(
        now.row.healthy && now.row.healthy_since == before.row.healthy_since,
        "the neighbour was not healthy all the time: {now:?}"
    );
    println!("    the neighbour: main process {pid}, healthy all the time");

    node.machine.run("weft stop guilty --yes")?;
    let state = node.show(&guilty.unit, "ActiveState")?;
    ensure!(state == "inactive", "a stopped job's unit is {state}");
    Ok(())
}
