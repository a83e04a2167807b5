//! What an agent costs while nothing happens: three nodes, a job with a slot on each.

use super::Effort;
use super::results::{Better, Results};
use super::testbed::Lab;
use super::testbed::cost::{median, pss_mib, three_at_rest};
use nix::libc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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
    let awake = Awake::begin();
    let (start, before) = (Instant::now(), cpu(&agents));
    std::thread::sleep(Duration::from_secs(effort.rest_seconds));
    let share: Vec<f64> = cpu(&agents)
        .iter()
        .zip(&before)
        .map(|(after, before)| 100.0 * (after - before) / start.elapsed().as_secs_f64())
        .collect();
    drop(awake);
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
pub fn cpu(agents: &[u32]) -> Vec<f64> {
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

/// Keeps all cores from sleeping, with work that gives way to all other. What wakes up on a core that slept pays with processor
/// time for its waking, for cold caches and a low clock, on a virtual machine for the host's turn too: more than the agent's own
/// work, and twice as much on one machine as on another.
pub struct Awake {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    pub fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |over: Arc<AtomicBool>| {
            move || {
                let parameters = libc::sched_param { sched_priority: 0 };
                // SAFETY: the parameters live as long as the call, which is about this thread.
                let is_idle = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
                assert_eq!(is_idle, 0, "{}", std::io::Error::last_os_error());
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..cores).map(|_| std::thread::spawn(spin(over.clone()))).collect();
        Self { over, threads }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
