//! The probes' own tests (`ebpf/tests/oracles`), on a stock kernel that they were not built on.

use crate::machine::Machine;
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::Duration;

/// All tests together: a minute where nothing else runs, most of it the verifier's.
const PATIENCE: Duration = Duration::from_secs(1200);

pub fn tell(bench: &Bench) -> Result<()> {
    let tests = std::env::var_os("WEFT_ORACLES").map(PathBuf::from);
    let tests = tests.context("WEFT_ORACLES must name the tests of ebpf, as cargo built them")?;
    let mut machine = Machine::debian(bench, "probes", &[("oracles", &tests)])?.boot(bench)?;
    println!("    Linux {}", machine.run("uname -r")?);
    // The tests write beside where they were built, and find no CPUs or memory to spare beside each other.
    let folder = crate::workshop::build_folder()?.join("tmp");
    let script = format!(
        "mkdir -p {}; cd /; WEFT_MUST=ebpf /opt/weft/oracles --test-threads=1 --nocapture",
        folder.display()
    );
    let said = machine.try_run(&script, PATIENCE)?;
    for line in said.text.lines() {
        let shown = ["test ", "skipped", "ours", "panicked", "failed"];
        if shown.iter().any(|word| line.contains(word)) {
            println!("    {line}");
        }
    }
    std::fs::write(bench.path("oracles.log"), &said.text)?;
    ensure!(said.status == 0, "the tests say {}: see oracles.log", said.status);
    let result = said.text.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let passed: u32 = result
        .and_then(|result| result.split(' ').next()?.parse().ok())
        .context("the tests do not say how many passed")?;
    ensure!(passed >= 20, "only {passed} tests passed");
    Ok(())
}
