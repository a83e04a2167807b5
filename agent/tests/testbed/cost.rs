//! What an agent costs, for the benchmarks.

use super::{Lab, Machine, job};
use std::time::Duration;

/// After the last change, until the agents have nothing more to tell each other, and have given back what only their start
/// needed: once a minute.
pub const SETTLE: Duration = Duration::from_secs(75);

/// Three agents with all probes and a slot of a job on each, at rest. As on three machines: pages of a program that runs
/// three times here would count a third.
pub fn three_at_rest(lab: &Lab) -> Vec<Machine> {
    let machines = lab.fabric_with(3, |machine| {
        machine.use_copy();
        machine.metrics = "probes = [\"auto\"]".to_owned();
    });
    machines[0].submit(&job("sleeper", 3, ""));
    machines[1].wait_healthy("sleeper");
    std::thread::sleep(SETTLE);
    machines
}

/// Proportional set size: pages that several processes share count in parts.
pub fn pss_mib(machine: &Machine) -> f64 {
    let path = format!("/proc/{}/smaps_rollup", machine.agent_pid());
    let text = std::fs::read_to_string(path).expect("its memory");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("{text}")) / 1024.0
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
