//! A machine without a disk: kernel and root come as by network, and one token by its firmware.

use crate::images::{founder, joined, memory, start, told};
use crate::machine::Machine;
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Result, ensure};
use fabric::api::TokenCreated;
use std::time::{Duration, Instant};

/// How long the job may take: a second where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs on that machine, and says what it is made of and what its start took.
const JOB: &str = r#"name = "told"
[task]
command = ["/bin/sh", "-c", """
grep -E '^[^ ]+ (/|/var) ' /proc/mounts | cut -d ' ' -f 1-4
grep -E '^(MemTotal|MemAvailable|Shmem):' /proc/meminfo
systemd-analyze time | head -n 1
systemd-analyze blame --no-pager | head -n 8
echo all is told
exec sleep 100000"""]
user = "root"
[task.sandbox]
enabled = false
[resources]
cpu = 0.1
memory = "32MiB"
[placement]
constraints = ['labels.started == "memory"']
"#;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 2)?;
    let mut first = founder(bench, &switch, &[])?;
    let token: TokenCreated = first.weft("token create --label started=memory")?;
    let mut machine = Machine::from_memory("birch")?;
    machine.cables = vec![switch.cable(1)];
    machine.credentials = vec![("weft.token".into(), token.token)];
    let begun = Instant::now();
    let birch = start(bench, machine)?;
    for (name, time) in joined(&mut first, 1, begun)? {
        println!("    {name} joined {} s after its power was switched on", time.as_secs());
    }
    told(&birch)?;
    println!("    RAM in use, MiB: {}", memory(&mut first)?);

    first.apply(JOB)?;
    let said = first.machine.wait_until("the job has told all", PATIENCE, |machine| {
        let said = machine.run("weft logs told -n 100")?;
        Ok(said.contains("all is told").then_some(said))
    })?;
    for line in said.lines() {
        println!("    {line}");
    }
    let mounted =
        |at: &str, kind: &str| said.lines().any(|line| line.contains(&format!(" {at} {kind} ")));
    ensure!(mounted("/", "erofs"), "its root is not the image's");
    ensure!(mounted("/var", "tmpfs"), "/var is not in its memory");
    Ok(())
}
