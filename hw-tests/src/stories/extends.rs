//! A node whose root is read-only gets software from its state partition: one good extension, and two that are not.

use crate::images::start;
use crate::machine::{Disk, Machine, Running};
use crate::workshop::{Bench, extension};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// A start takes a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(1800);
/// MiB of the state partition.
const STATE: u64 = 256;

pub fn tell(bench: &Bench) -> Result<()> {
    // What somebody has put into /var/lib/extensions: a good one, half of a good one, and one in the way of the agent.
    let var = bench.path("var");
    let extensions = var.join("lib/extensions");
    fs::create_dir_all(&extensions)?;
    let good = fs::read(extension("weft-extended")?)?;
    fs::write(extensions.join("weft-extended.raw"), &good)?;
    fs::write(extensions.join("half.raw"), &good[..good.len() / 2])?;
    let rude = extensions.join("rude/usr");
    for (path, text) in [
        ("lib/extension-release.d/extension-release.rude", "ID=_any\n"),
        ("bin/weftd", "#!/bin/sh\nexit 1\n"),
    ] {
        let path = rude.join(path);
        fs::create_dir_all(path.parent().context("it is below a folder")?)?;
        fs::write(path, text)?;
    }
    let disk = bench.state_disk("state", STATE, &var)?;

    let mut machine = Machine::from_memory("birch")?;
    machine.disks = vec![Disk { file: disk, writable: true }];
    let mut names = Vec::new();
    for time in ["first", "second"] {
        let begun = Instant::now();
        // Each start has a log of its own.
        machine.name = format!("birch-{time}");
        let birch = start(bench, machine.clone())?;
        let said = said(&birch)?;
        println!("    the {time} start, {} s:", begun.elapsed().as_secs());
        for line in &said {
            println!("    {line}");
        }
        let has = |what: &str| said.iter().any(|line| line.contains(what));
        ensure!(has("/ erofs, through verity; /usr overlay; /var ext4"), "it is not made of that");
        ensure!(has("half is left out"), "half of an extension is not told");
        ensure!(has("rude is left out: it replaces /usr/bin/weftd"), "the rude one is not told");
        let name =
            said.iter().find_map(|line| line.strip_suffix(": weftd is active; failed units: ."));
        names.push(name.context("a unit has failed")?.to_owned());
        birch.pull_the_plug();
    }
    ensure!(names[0].contains("weft-") && names[0] == names[1], "its names: {names:?}");
    Ok(())
}

/// What the extension's service and what looks at extensions wrote to the console, until the agent is active. Each line is
/// there twice: as it was said, and as the journal has it.
fn said(machine: &Running) -> Result<Vec<String>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let console = machine.console()?;
        let mut said: Vec<String> = Vec::new();
        for line in console.lines() {
            let at = ["extended: ", "extension "].iter().filter_map(|word| line.find(word)).min();
            let line = at.map(|at| line[at..].trim());
            said.extend(line.filter(|line| said.iter().all(|had| had != line)).map(str::to_owned));
        }
        if said.iter().any(|line| line.contains("weftd is active") && line.ends_with('.')) {
            return Ok(said);
        }
        ensure!(Instant::now() < until, "the extension does not say that all is up: {said:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}
