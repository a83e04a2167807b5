//! The file system with the agent's state is full to the last byte.

use crate::machine::{Disk, PATIENCE};
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::{Explanation, Status};
use std::time::Duration;

/// MiB of the file system.
const SIZE: u64 = 64;
/// The agent tries the disk again every second or so.
const NOTICE: Duration = Duration::from_secs(120);

pub fn tell(bench: &Bench) -> Result<()> {
    let mut machine = node::machine(bench, "full")?;
    machine.disks.push(Disk { file: bench.formatted_disk("state", SIZE)?, writable: true });
    let script = "mkdir -p /var/lib/weft \
                  && echo '/dev/nvme2n1 /var/lib/weft ext4 defaults 0 0' >>/etc/fstab \
                  && systemctl daemon-reload && mount /var/lib/weft";
    let mut node = Node::install_after(&machine, bench, script, "[metrics]\nprobes = []\n")?;
    node.init()?;
    let kept = node.apply(&job("kept"))?.remove(0);
    let pid = node.main_pid(&kept.unit)?;

    node.machine.run("cat /dev/zero >/var/lib/weft/filler 2>/dev/null; sync; true")?;
    let room = node.machine.run("df --output=avail -B 1 /var/lib/weft | tail -n 1")?;
    println!("    {} bytes free of {SIZE} MiB", room.trim());
    ensure!(room.trim() == "0", "the file system is not full");
    let said = node.try_apply(&job("late"), "--settle 5s --timeout 100s")?;
    let last = said.text.lines().last().unwrap_or_default();
    println!("    weft apply, exit {}: {last}", said.status);
    ensure!(said.status != 0, "a node with a full disk took work: {}", said.text);
    let status = warned(&mut node, true)?;
    println!("    weft status warns: {}", status.warnings.join("; "));
    println!("    weft doctor: {}", node.doctor("disk")?);
    let explained: Explanation = node.weft("explain late")?;
    let refusal = explained.nodes.first().and_then(|verdict| verdict.rejection.as_ref());
    let refusal = refusal.map(ToString::to_string).unwrap_or_default();
    println!("    weft explain: {refusal}");
    ensure!(refusal.contains("disk"), "{explained:?}");
    ensure!(node.allocs("late")?.is_empty(), "it was placed");
    same(&mut node, pid, "while it is full")?;

    // Also an agent that finds the disk full when it starts has its work.
    let agent = node.main_pid("weftd.service")?;
    node.machine.run("systemctl kill --signal=SIGKILL --kill-whom=main weftd")?;
    node.wait_for_another_agent(agent)?;
    node.wait_healthy("kept")?;
    same(&mut node, pid, "after the agent was killed")?;
    let said = node.try_apply(&job("later"), "--settle 5s --timeout 100s")?;
    ensure!(said.status != 0, "a node with a full disk took work: {}", said.text);
    warned(&mut node, true)?;

    node.machine.run("rm /var/lib/weft/filler; sync")?;
    warned(&mut node, false)?;
    node.wait_healthy("later")?;
    let added = node.apply(&job("welcome"))?.remove(0);
    println!("    with room again: {} runs, weft doctor: {}", added.unit, node.doctor("disk")?);
    same(&mut node, pid, "with room again")
}

fn job(name: &str) -> String {
    format!(
        "name = \"{name}\"\n[task]\ncommand = [\"/bin/sleep\", \"100000\"]\n\
         [resources]\ncpu = 0.1\nmemory = \"16MiB\"\n"
    )
}

/// Waits until the status warns of the disk, or does not.
fn warned(node: &mut Node, wanted: bool) -> Result<Status> {
    let what = if wanted {
        "the status warns of the disk"
    } else {
        "the status does not warn of the disk"
    };
    node.machine.wait_until(what, NOTICE, |machine| {
        let said = machine.try_run("weft --json status 2>/dev/null", PATIENCE)?;
        let status: Status = serde_json::from_str(&said.text).context(said.text)?;
        let warns = status.warnings.iter().any(|text| text.contains("disk"));
        Ok((warns == wanted).then_some(status))
    })
}

/// What ran before still runs, as the same process.
fn same(node: &mut Node, pid: u32, when: &str) -> Result<()> {
    let kept = node.alloc("kept")?;
    let now = node.main_pid(&kept.unit)?;
    ensure!(
        now == pid && kept.row.healthy && kept.row.restarts == 0,
        "{when}: {pid}, then {now}: {kept:?}"
    );
    println!("    {when}: {} has main process {pid} and is healthy", kept.unit);
    Ok(())
}
