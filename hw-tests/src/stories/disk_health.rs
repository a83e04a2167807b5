//! An ATA disk: the shipped service may not ask it for its health and says so; allowed to, it tells what the disk says by
//! another way to ask.

use crate::machine::{Disk, PATIENCE};
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The agent asks disks soon after its start.
const SOON: Duration = Duration::from_secs(240);

/// As the documentation has it.
const ALLOWED: &str = "[Service]\nCapabilityBoundingSet=CAP_SYS_RAWIO\n";

/// The disk's attributes by the kernel's older way (HDIO_DRIVE_CMD), which wraps nothing up in SCSI: number and
/// raw value.
const ORACLE: &str = r#"python3 -c "
import fcntl
page = bytearray([0xb0, 0, 0xd0, 1]) + bytearray(512)
fcntl.ioctl(open('/dev/sda', 'rb'), 0x031f, page)
for at in range(4 + 2, 4 + 362, 12):
    if page[at]:
        print(page[at], int.from_bytes(page[at + 5:at + 11], 'little'))
""#;

pub fn tell(bench: &Bench) -> Result<()> {
    let mut machine = node::machine(bench, "disk")?;
    machine.ata_disks.push(Disk { file: bench.formatted_disk("old", 16)?, writable: true });
    let mut node = Node::install(&machine, bench, "[metrics]\nprobes = []\n")?;
    node.init()?;
    node.machine.wait_until("the kernel has the disk", PATIENCE, |machine| {
        Ok((machine.try_run("test -b /dev/sda", PATIENCE)?.status == 0).then_some(()))
    })?;
    println!(
        "    {}",
        node.machine.run("cat /sys/block/sda/device/vendor /sys/block/sda/device/model | xargs")?
    );
    restart(&mut node)?;

    let refused = hardware(&mut node, "smart: unsupported")?;
    println!("    as it is shipped: {refused}");
    ensure!(refused.contains("CAP_SYS_RAWIO"), "it does not say what is missing: {refused}");
    let told = ask(&mut node.machine)?;
    ensure!(told.is_empty(), "it tells what it may not ask: {told:?}");

    node.write("/etc/systemd/system/weftd.service.d/disks.conf", ALLOWED)?;
    restart(&mut node)?;
    println!("    with the drop-in: {}", hardware(&mut node, "smart: running")?);
    let told = node.machine.wait_until("the disk tells its health", SOON, |machine| {
        let told = ask(machine)?;
        Ok((!told.is_empty()).then_some(told))
    })?;
    let oracle = attributes(&mut node)?;
    println!("    attributes by HDIO_DRIVE_CMD: {oracle:?}");
    ensure!(told.get("weft_ata_failing") == Some(&0.0), "it is not well: {told:?}");
    let mut compared = 0;
    for (name, number, scale) in [
        ("weft_ata_reallocated_sectors", 5, 1.0),
        ("weft_ata_power_on_seconds_total", 9, 3600.0),
        ("weft_ata_power_cycles_total", 12, 1.0),
        ("weft_ata_temperature_celsius", 190, 1.0),
        ("weft_ata_pending_sectors", 197, 1.0),
        ("weft_ata_uncorrectable_sectors", 198, 1.0),
    ] {
        // Beside the temperature a disk keeps the lowest and the highest it had.
        let part = if number == 190 { 0xff } else { u64::MAX };
        let theirs = oracle.get(&number).map(|raw| (raw & part) as f64 * scale);
        let ours = told.get(name).copied();
        println!("    {name}: ours {ours:?}, attribute {number} {theirs:?}");
        ensure!(ours == theirs, "{name}: ours {ours:?}, theirs {theirs:?}");
        compared += usize::from(ours.is_some());
    }
    ensure!(compared >= 3, "the disk told nearly nothing: {oracle:?}");
    Ok(())
}

/// Has systemd start another agent, with the units as they are now.
fn restart(node: &mut Node) -> Result<()> {
    let before = node.main_pid("weftd.service")?;
    node.machine.run("systemctl daemon-reload; systemctl restart --no-block weftd.service")?;
    node.wait_for_another_agent(before).map(drop)
}

/// What `weft doctor` says of sources, once it has this in it: the agent does not ask at once.
fn hardware(node: &mut Node, wanted: &str) -> Result<String> {
    let until = Instant::now() + SOON;
    loop {
        match node.doctor("hardware") {
            Ok(message) if message.contains(wanted) => return Ok(message),
            said => {
                ensure!(Instant::now() < until, "weft doctor does not say '{wanted}': {said:?}")
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// All series of ATA disks, by name.
fn ask(machine: &mut crate::machine::Running) -> Result<BTreeMap<String, f64>> {
    let said = machine
        .run("weft --json query '{__name__=~\"weft_ata_.*\",device=\"sda\"}' 2>/dev/null")?;
    let answer: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let rows = answer["data"]["result"].as_array().with_context(|| said.clone())?;
    let row = |row: &Value| {
        let value = row["value"][1].as_str()?.parse().ok()?;
        Some((row["metric"]["__name__"].as_str()?.to_owned(), value))
    };
    Ok(rows.iter().filter_map(row).collect())
}

fn attributes(node: &mut Node) -> Result<BTreeMap<u8, u64>> {
    let said = node.machine.run(ORACLE)?;
    let pair = |line: &str| {
        let (number, raw) = line.split_once(' ')?;
        Some((number.parse().ok()?, raw.trim().parse().ok()?))
    };
    said.lines().map(|line| pair(line).with_context(|| format!("attribute: {line}"))).collect()
}
