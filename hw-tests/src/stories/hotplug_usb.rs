//! A serial adapter and a disk are plugged into a node's USB while it runs: jobs that waited for them start, write to what
//! they were given, and wait again when it is pulled out.

use crate::images::{founder, joined, start};
use crate::machine::{Machine, Running};
use crate::node::Node;
use crate::switch::Switch;
use crate::workshop::Bench;
use anyhow::{Context, Result, bail, ensure};
use fabric::api::{AllocView, Hardware, JobState, JobView, NodeView, TokenCreated};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take to be seen here: seconds where nothing else runs.
const NOTICE: Duration = Duration::from_secs(240);
/// What QEMU's serial adapter and disk say they are.
const ADAPTER: &str = "usb:0403:6001";
const DISK: &str = "usb:46f4:0001";
/// What a job says over the adapter.
const GREETING: &str = "a wire that was not there";
/// A size that no other disk of that machine has.
const DISK_MIB: u64 = 67;

pub fn tell(bench: &Bench) -> Result<()> {
    let switch = Switch::new(bench, 2)?;
    let mut first = founder(bench, &switch, &[])?;
    let token: TokenCreated = first.weft("token create")?;
    let mut machine = Machine::from_memory("birch")?;
    machine.has_usb = true;
    machine.cables = vec![switch.cable(1)];
    machine.credentials = vec![("weft.token".into(), token.token)];
    let begun = Instant::now();
    let mut birch = start(bench, machine)?;
    let joined = joined(&mut first, 1, begun)?;
    let (name, time) = joined.into_iter().next().context("nobody joined")?;
    println!("    {name} joined {} s after its power was switched on", time.as_secs());

    let greets = format!("for path in $WEFT_DEVICES; do echo {GREETING} $path >$path; done; ");
    for (job, wants, does) in [("adapter", ADAPTER, &*greets), ("disk", DISK, "")] {
        let said = first.try_apply(&file(job, wants, does), "--settle 3s --timeout 100s")?;
        ensure!(said.status == 7, "weft apply: {}: {}", said.status, said.text);
        let waits: JobView = first.weft(&format!("jobs {job}"))?;
        ensure!(waits.state == JobState::Unplaceable, "{waits:?}");
        println!("    {job} wants {wants}: weft apply, exit {}", said.status);
    }

    let wire = bench.path("birch.wire");
    plug_adapter(&mut birch, &wire)?;
    let plugged = Instant::now();
    let adapter = healthy(&mut first, "adapter", plugged)?;
    ensure!(adapter.row.claim.devices == ["/dev/ttyUSB0"], "{:?}", adapter.row.claim);
    let greeting = format!("{GREETING} /dev/ttyUSB0");
    wait_for("the wire says something", || {
        Ok(std::fs::read_to_string(&wire)?.contains(&greeting).then_some(()))
    })?;
    println!("    at the other end of the wire: {greeting}");

    plug_disk(&mut birch, &bench.blank_disk("stick", DISK_MIB)?)?;
    let plugged = Instant::now();
    let disk = healthy(&mut first, "disk", plugged)?;
    let [path] = &*disk.row.claim.devices else { bail!("{:?}", disk.row.claim) };
    ensure!(path.starts_with("/dev/bus/usb/"), "{path}");
    let shown = wait_for("the disk is shown", || {
        let hardware: Hardware = first.weft(&format!("node {name} --hardware"))?;
        Ok(hardware.disks.into_iter().find(|disk| disk.bytes == DISK_MIB << 20))
    })?;
    println!(
        "    weft node --hardware: {}, {DISK_MIB} MiB, {}",
        shown.name,
        shown.model.as_deref().unwrap_or("-")
    );
    let same = first.alloc("adapter")?;
    ensure!(same.id == adapter.id, "what ran was touched: {same:?}");

    birch.control()?.ask("device_del", json!({ "id": "adapter" }))?;
    let pulled = Instant::now();
    wait_for("weft node has no adapter", || {
        let view: NodeView = first.weft(&format!("node {name}"))?;
        let devices = view.info.context("it says nothing of itself")?.topology.devices;
        let has = |wanted: &str| devices.iter().any(|it| it.hardware.as_deref() == Some(wanted));
        ensure!(has(DISK), "the disk is gone, too: {devices:?}");
        Ok((!has(ADAPTER)).then_some(()))
    })?;
    println!(
        "    the adapter is pulled out: weft node without it after {:.0} s",
        pulled.elapsed().as_secs_f64()
    );
    let state = wait_for("the job is told not to be well", || {
        let view: JobView = first.weft("jobs adapter")?;
        Ok((view.state != JobState::Healthy).then_some(view.state))
    })?;
    println!(
        "    adapter: {state:?} after {:.0} s: {}",
        pulled.elapsed().as_secs_f64(),
        first.machine.try_run("weft explain adapter | head -n 12", NOTICE)?.text
    );
    plug_adapter(&mut birch, &bench.path("birch.wire-again"))?;
    let plugged = Instant::now();
    let again = healthy(&mut first, "adapter", plugged)?;
    println!("    plugged in again: it has {}", again.row.claim.devices.join(", "));
    ensure!(first.alloc("disk")?.id == disk.id, "the other one was touched");
    Ok(())
}

/// Holds what it claims, and ends when that is gone.
fn file(job: &str, wants: &str, does: &str) -> String {
    format!(
        r#"name = "{job}"
[task]
command = ["/bin/sh", "-c", "{does}while [ -c $WEFT_DEVICES ] && : <$WEFT_DEVICES; do sleep 1; done; exit 1"]
[resources]
cpu = 0.1
memory = "16MiB"
devices = ["{wants}"]
"#
    )
}

/// What arrives at the other end of its wire is in this file.
fn plug_adapter(birch: &mut Running, wire: &Path) -> Result<()> {
    let id = wire.extension().context("no extension")?.to_string_lossy().into_owned();
    let file = json!({ "type": "file", "data": { "out": wire } });
    let control = birch.control()?;
    control.ask("chardev-add", json!({ "id": id, "backend": file }))?;
    let adapter = json!({ "driver": "usb-serial", "bus": "usb.0", "id": "adapter", "chardev": id });
    control.ask("device_add", adapter)?;
    Ok(())
}

fn plug_disk(birch: &mut Running, file: &Path) -> Result<()> {
    let control = birch.control()?;
    let file = json!({ "driver": "file", "filename": file });
    control.ask("blockdev-add", json!({ "driver": "raw", "node-name": "stick", "file": file }))?;
    let disk = json!({
        "driver": "usb-storage", "bus": "usb.0", "id": "stick", "drive": "stick",
    });
    control.ask("device_add", disk)?;
    Ok(())
}

/// Waits until a job's only slot is, and says when it was.
fn healthy(first: &mut Node, job: &str, since: Instant) -> Result<AllocView> {
    first.wait_healthy(job)?;
    let alloc = first.alloc(job)?;
    println!(
        "    {job} is healthy {:.0} s after that was plugged in, with {}",
        since.elapsed().as_secs_f64(),
        alloc.row.claim.devices.join(", ")
    );
    Ok(alloc)
}

fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + NOTICE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < until, "not within {} s: {what}", NOTICE.as_secs());
        std::thread::sleep(Duration::from_millis(500));
    }
}
