//! The agent is replaced, restarted, killed and away: the work goes on, and is the agent's again.

use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Result, ensure};
use fabric::api::AllocView;
use std::time::Duration;

const JOBS: [(&str, &str); 3] = [
    (
        "pinned",
        r#"name = "pinned"
[task]
command = ["/bin/sleep", "100000"]
[resources]
cores = 1
"#,
    ),
    (
        "shared",
        r#"name = "shared"
count = 2
[task]
command = ["/bin/sh", "-c", "while :; do sleep 1; done"]
[resources]
cpu = 0.1
"#,
    ),
    (
        "checked",
        r#"name = "checked"
[task]
command = ["/bin/sleep", "100000"]
[health]
command = ["/bin/true"]
interval = "10s"
timeout = "10s"
"#,
    ),
];

pub fn tell(bench: &Bench) -> Result<()> {
    let machine = node::machine(bench, "upgrade")?;
    let mut node = Node::install(&machine, bench, "[metrics]\nprobes = []\n")?;
    node.init()?;
    for (_, file) in JOBS {
        node.apply(file)?;
    }
    let before = work(&mut node)?;
    ensure!(before.len() == 4, "{before:?}");
    for (alloc, pid) in &before {
        println!("    {}: main process {pid}, CPUs [{}]", alloc.unit, alloc.row.claim.cpus);
    }

    replace(
        &mut node,
        "another file, and systemctl restart",
        "cd /usr/bin && cp -L weftd weftd.new && mv weftd.new weftd && systemctl restart weftd",
    )?;
    unchanged(&mut node, &before)?;
    replace(&mut node, "SIGKILL", "systemctl kill --signal=SIGKILL --kill-whom=main weftd")?;
    unchanged(&mut node, &before)?;

    // What ends while nobody looks is not taken for something that runs.
    let (victim, others): (Vec<_>, Vec<_>) =
        before.into_iter().partition(|(alloc, _)| alloc.id.slot.job.to_string() == "checked");
    let (alloc, pid) = &victim[0];
    let script =
        format!("systemctl stop weftd && kill -KILL {pid} && sleep 1 && systemctl start weftd");
    replace(&mut node, "stopped; a job's process is killed meanwhile", &script)?;
    node.wait_healthy("checked")?;
    let now = node.alloc("checked")?;
    let next = node.main_pid(&now.unit)?;
    println!("    {}: main process {pid}, then {next}; {:?}", now.unit, now.row.trouble);
    ensure!(next != *pid && now.id == alloc.id && now.row.restarts == 1, "{now:?}");
    unchanged(&mut node, &others)?;

    // What it adopted it also controls.
    let unit = node.alloc("pinned")?.unit;
    node.machine.run("weft stop pinned --yes")?;
    let state = node.show(&unit, "ActiveState")?;
    ensure!(state == "inactive", "a stopped job's unit is {state}");
    Ok(())
}

/// Every allocation, and the main process that systemd knows.
fn work(node: &mut Node) -> Result<Vec<(AllocView, u32)>> {
    let mut work = Vec::new();
    for (job, _) in JOBS {
        for alloc in node.allocs(job)? {
            let pid = node.main_pid(&alloc.unit)?;
            work.push((alloc, pid));
        }
    }
    Ok(work)
}

/// Does this to the agent, and waits until there is another one that has its jobs back.
fn replace(node: &mut Node, what: &str, script: &str) -> Result<()> {
    let before = node.main_pid("weftd.service")?;
    node.machine.run(script)?;
    node.wait_for_another_agent(before)?;
    for (job, _) in JOBS {
        node.wait_healthy(job)?;
    }
    println!("    {what}: agent {before}, then {}", node.main_pid("weftd.service")?);
    // Long enough for it to make a mistake.
    std::thread::sleep(Duration::from_secs(5));
    Ok(())
}

fn unchanged(node: &mut Node, before: &[(AllocView, u32)]) -> Result<()> {
    for (alloc, pid) in before {
        let job = alloc.id.slot.job.to_string();
        let now = node.allocs(&job)?.into_iter().find(|now| now.id == alloc.id);
        let kept = now.as_ref().is_some_and(|now| {
            now.row.restarts == 0
                && now.row.healthy
                && now.row.pid == Some(*pid)
                && now.row.claim == alloc.row.claim
        });
        ensure!(kept, "it was not adopted as it was: {alloc:?}, now {now:?}");
        let has = node.main_pid(&alloc.unit)?;
        ensure!(has == *pid, "{}: main process {pid}, now {has}", alloc.unit);
    }
    println!("    {} units with the same main process, epoch and claim", before.len());
    Ok(())
}
