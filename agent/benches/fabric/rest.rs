//! What an agent costs while nothing happens: three nodes, a job with a slot on each.

use super::Effort;
use super::results::{Better, Results};
use super::testbed::Lab;
use super::testbed::cost::{median, pss_mib, three_at_rest};
use std::time::{Duration, Instant};

pub fn measure(results: &mut Results, effort: &Effort) {
    println!("three nodes at rest, {} s", effort.rest_seconds);
    let Some(lab) = Lab::new("rest") else { return };
    let machines = three_at_rest(&lab);

    let agents: Vec<u32> = machines.iter().map(|machine| machine.agent_pid()).collect();
    let sent = |name: &str| -> u64 {
        let name = format!("weft_gossip_bytes_total{{direction=\"{name}\"}}");
        machines.iter().map(|machine| machine.counter(&name)).sum()
    };
    let bytes_before = sent("out");
    let (start, before) = (Instant::now(), cpu(&agents));
    std::thread::sleep(Duration::from_secs(effort.rest_seconds));
    let share: Vec<f64> = cpu(&agents)
        .iter()
        .zip(&before)
        .map(|(after, before)| 100.0 * (after - before) / start.elapsed().as_secs_f64())
        .collect();
    let bytes = (sent("out") - bytes_before) as f64 / start.elapsed().as_secs_f64() / 3.0;
    let pss = machines.iter().map(pss_mib).collect();
    results.add(
        "agent at rest, 3 nodes: memory (PSS)",
        median(pss),
        "MiB",
        Some(10.0),
        Better::Lower,
    );
    let name = "agent at rest, 3 nodes: share of a core";
    results.add(name, median(share), "%", Some(0.5), Better::Lower);
    results.add("agent at rest, 3 nodes: gossip sent", bytes, "B/s", None, Better::Lower);
}

/// Seconds on a core so far, of all threads of each.
fn cpu(agents: &[u32]) -> Vec<f64> {
    let of = |pid: &u32| -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        threads
            .filter_map(|thread| {
                let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<f64>().ok()
            })
            .sum::<f64>()
            / 1e9
    };
    agents.iter().map(of).collect()
}
