//! What is measured of a crowd.

use fabric::alloc::{AllocRow, Phase};
use fabric::clock::WallTime;
use fabric::id::{JobName, NodeId, SlotId};
use fabric::limits;
use fabric::stamp::Stamp;
use fabric::table::{Entry, Key, Merge, SharedEntry, Table, Value};
use std::time::Duration;

use super::crowd::small_service;
use super::{Crowd, Results, Scene, Traffic};
use crate::network::Quality;

const SECOND: Duration = Duration::from_secs(1);

/// A wired local network that is not at its best: half a millisecond, and one packet in a hundred is lost.
pub const LAN: Quality = Quality {
    latency: Duration::from_micros(500),
    tail: Duration::from_millis(5),
    loss_permille: 10,
    repeat_permille: 0,
};

fn scene(seed: u64, nodes: usize) -> Scene {
    Scene { seed, nodes, running: (0, 0), quality: LAN, rows_stay: false }
}

/// A fabric at rest, then a job: what it sends while nothing happens, what a node of it takes in memory and in
/// processor time, and how long the job takes to be known everywhere.
pub fn rest_and_spread(results: &mut Results, seed: u64, nodes: usize) -> anyhow::Result<()> {
    let before = resident();
    let mut crowd = Crowd::new(scene(seed, nodes));
    crowd.run_for(3 * SECOND);
    let memory = (resident() - before) / nodes as f64;
    results.add(&format!("memory of a simulated node/{nodes} nodes"), memory / 1024.0, "KiB", None);

    crowd.traffic = Traffic::default();
    let (time, used) = (5.0, time_on_core());
    crowd.run_for(5 * SECOND);
    let used = (time_on_core() - used).as_secs_f64();
    let per_node = |bytes: u64| bytes as f64 / nodes as f64 / time;
    let bytes = crowd.traffic.datagram_bytes + crowd.traffic.message_bytes;
    results.add(&format!("idle gossip a node/{nodes} nodes"), per_node(bytes), "B/s", Some(2048.0));
    let busy = used * 1e6 / time / nodes as f64;
    results.add(&format!("idle processor time a node/{nodes} nodes"), busy, "us/s", None);

    let (start, used) = (crowd.time, time_on_core());
    crowd.submit(small_service("spread", 3));
    let job = (JobName::new("spread")?, 1);
    let step = Duration::from_millis(10);
    let heard = |crowd: &Crowd| crowd.heard.get(&job).map_or(0, |(count, _)| *count);
    let everywhere = crowd.run_until(step, 30 * SECOND, |crowd| heard(crowd) >= nodes);
    anyhow::ensure!(everywhere, "{} of {nodes} nodes know the job", heard(&crowd));
    let took = crowd.heard[&job].1 - start;
    results.add(&format!("a job is everywhere/{nodes} nodes"), took.as_secs_f64(), "s", Some(3.0));
    let used = (time_on_core() - used).as_secs_f64() * 1e6 / nodes as f64;
    results.add(&format!("a job is everywhere: processor time/{nodes} nodes"), used, "us", None);
    Ok(())
}

/// Some of the nodes die, and what ran on them runs elsewhere.
pub fn deaths(
    results: &mut Results,
    seed: u64,
    nodes: usize,
    jobs: usize,
    slots: u32,
    percent: usize,
) -> anyhow::Result<()> {
    let mut crowd = Crowd::new(Scene { running: (jobs, slots), ..scene(seed, nodes) });
    // Agents that have just started wait for whoever they have not heard yet: this is about a fabric that runs.
    crowd.run_for(limits::UNHEARD_HOLD + 3 * SECOND);
    let (start, victims) = (crowd.time, (nodes * percent / 100).max(1));
    let (dead, lost) = crowd.kill(victims);
    let survivors = crowd.alive();
    let known = |crowd: &Crowd| {
        dead.iter()
            .all(|node| crowd.mourned.get(node).is_some_and(|(count, _)| *count >= survivors))
    };
    let filled = |crowd: &Crowd| {
        lost.iter().all(|slot| crowd.filled.get(slot).is_some_and(|count| *count > 0))
    };
    let (mut knew, mut ran) = (None, None);
    let done = crowd.run_until(Duration::from_millis(20), 120 * SECOND, |crowd| {
        knew = knew.or(known(crowd).then_some(crowd.time));
        ran = ran.or(filled(crowd).then_some(crowd.time));
        knew.is_some() && ran.is_some()
    });
    anyhow::ensure!(done, "{victims} of {nodes} dead: known {knew:?}, replaced {ran:?}");
    let since = |time: Option<Duration>| (time.unwrap_or_default() - start).as_secs_f64();
    let what = format!("{percent} % die, {} slots/{nodes} nodes", jobs * slots as usize);
    results.add(&format!("everybody knows: {what}"), since(knew), "s", None);
    results.add(&format!("everything runs elsewhere: {what}"), since(ran), "s", None);
    Ok(())
}

/// Many slots are submitted at once to an empty fabric: until all of them run, and until every node knows.
pub fn submit(
    results: &mut Results,
    scene: Scene,
    jobs: usize,
    slots: u32,
    name: &str,
    budget: Option<f64>,
) -> anyhow::Result<()> {
    let (nodes, wanted, rows_stay) = (scene.nodes, jobs * slots as usize, scene.rows_stay);
    let mut crowd = Crowd::new(scene);
    crowd.run_for(3 * SECOND);
    crowd.traffic = Traffic::default();
    let (start, used) = (crowd.time, time_on_core());
    for job in 0..jobs {
        crowd.submit(small_service(&format!("c{job}"), slots));
    }
    let mut said = crowd.time;
    let full = crowd.run_until(Duration::from_millis(100), 300 * SECOND, |crowd| {
        let placed = crowd.filled.values().filter(|count| **count > 0).count();
        if crowd.time >= said {
            said = crowd.time + SECOND;
            let (at, real) = (crowd.time - start, time_on_core() - used);
            let (at, real) = (at.as_secs(), real.as_secs());
            println!("    {at} s: {placed} of {wanted} run ({real} s of a core)");
        }
        placed >= wanted
    });
    anyhow::ensure!(full, "not all of {wanted} slots run after 300 s");
    let took = (crowd.time - start).as_secs_f64();
    results.add(&format!("{name}: all run/{nodes} nodes, {wanted} slots"), took, "s", budget);
    let twice = crowd.filled.values().filter(|count| **count > 1).count();
    results.add(&format!("{name}: slots with two units/{nodes} nodes"), twice as f64, "1", None);
    let proposed: u64 = crowd.cores().map(|core| core.counters().proposed).sum();
    let proposed = proposed as f64 / wanted as f64;
    results.add(&format!("{name}: proposals a slot/{nodes} nodes"), proposed, "1", None);
    if !rows_stay {
        let agree = crowd.run_until(SECOND / 2, 600 * SECOND, Crowd::agrees);
        anyhow::ensure!(agree, "the tables do not agree after 600 s");
        let took = (crowd.time - start).as_secs_f64();
        results.add(
            &format!("{name}: all tables agree/{nodes} nodes, {wanted} slots"),
            took,
            "s",
            None,
        );
    }
    let bytes = crowd.traffic.datagram_bytes + crowd.traffic.message_bytes;
    let sent = bytes as f64 / nodes as f64 / (crowd.time - start).as_secs_f64();
    results.add(&format!("{name}: sent a node/{nodes} nodes"), sent, "B/s", None);
    let used = (time_on_core() - used).as_secs_f64() * 1e6 / wanted as f64;
    results.add(
        &format!("{name}: processor time a slot, all nodes/{nodes} nodes"),
        used,
        "us",
        None,
    );
    results.add(
        &format!("{name}: memory of all/{nodes} nodes"),
        resident() / 1048576.0,
        "MiB",
        None,
    );
    Ok(())
}

/// More is asked for than there is room for: what that takes of all nodes in the first three seconds.
pub fn overfull(results: &mut Results, seed: u64, nodes: usize, slots: u32) {
    let mut crowd = Crowd::new(scene(seed, nodes));
    crowd.run_for(3 * SECOND);
    let used = time_on_core();
    crowd.submit(small_service("overfull", slots));
    crowd.run_for(3 * SECOND);
    let used = (time_on_core() - used).as_secs_f64();
    let placed = crowd.filled.values().filter(|count| **count > 0).count();
    assert!(placed < slots as usize, "there was room for all of them");
    let name = format!("{slots} slots of which {placed} fit: processor time/{nodes} nodes");
    results.add(&name, used, "s", Some(5.0));
}

/// Ten people ask one node for everything at once: what its loop does of that, beside what answering them in it would take.
pub fn readers(results: &mut Results, seed: u64, jobs: usize, slots: u32) {
    const NODES: usize = 20;
    const ASKERS: u32 = 10;
    let mut crowd = Crowd::new(Scene { running: (jobs, slots), ..scene(seed, NODES) });
    crowd.run_for(3 * SECOND);
    let core = crowd.cores().next().expect("a crowd has nodes");
    let all = jobs * slots as usize;
    assert!(core.allocs(None, false).len() >= all, "all of them run");
    // The kernel counts a thread's time every few milliseconds.
    let (copies, rounds) = (2000, 20);
    let start = time_on_core();
    for _ in 0..copies {
        drop(std::hint::black_box(core.snapshot()));
    }
    let copied = time_on_core();
    for _ in 0..rounds {
        let answers = (core.status(), core.nodes(), core.jobs(), core.allocs(None, false));
        std::hint::black_box(serde_json::to_vec(&answers).expect("answers have a JSON form"));
    }
    let answered = time_on_core();
    let micros = |time: Duration, rounds: u32| time.as_secs_f64() * 1e6 / f64::from(rounds);
    let (copy, answer) = (micros(copied - start, copies), micros(answered - copied, rounds));
    results.add(&format!("a copy of what a node knows/{all} slots"), copy, "us", None);
    results.add(&format!("all that it can be asked for/{all} slots"), answer, "us", None);
    // The first one has a copy to itself, the others share one.
    let share = 2.0 * copy / (f64::from(ASKERS) * answer);
    results.add(
        &format!("of {ASKERS} askers' time, in the loop/{all} slots"),
        100.0 * share,
        "%",
        Some(5.0),
    );
}

/// One node's table of allocation rows: what an entry takes, and how long merging and repeating one takes.
pub fn one_table(results: &mut Results, entries: u32) {
    let before = resident();
    let rows: Vec<SharedEntry> = (0..entries).map(row).collect();
    let held = resident();
    let mut table = Table::default();
    let start = time_on_core();
    for row in &rows {
        assert_eq!(table.merge(row.clone(), WallTime(0)), Merge::Taken);
    }
    let merged = time_on_core();
    let indexed = resident();
    for row in &rows {
        assert_eq!(table.merge(row.clone(), WallTime(0)), Merge::Known);
    }
    let repeated = time_on_core();
    let each = |bytes: f64| bytes / f64::from(entries);
    results.add(
        &format!("an entry in memory/{entries} entries"),
        each(indexed - before),
        "B",
        None,
    );
    results.add(&format!("of it the index/{entries} entries"), each(indexed - held), "B", None);
    let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(entries);
    results.add(
        &format!("merging a new entry/{entries} entries"),
        nanos(merged - start),
        "ns",
        None,
    );
    let again = nanos(repeated - merged);
    results.add(&format!("merging a known entry/{entries} entries"), again, "ns", None);
}

fn row(number: u32) -> SharedEntry {
    let job = JobName::new(&format!("job{}", number / 1000)).expect("a job's name");
    let mut node = [0; 32];
    node[..4].copy_from_slice(&(number % 6100).wrapping_mul(0x9e37_79b9).to_le_bytes());
    let node = NodeId(node);
    let row = AllocRow { epoch: 1, phase: Phase::Running, healthy: true, ..AllocRow::default() };
    Entry {
        key: Key::Alloc(SlotId { job, index: number % 1000 }, node),
        stamp: Stamp { reading: u64::from(number) + 1, node },
        value: Value::Alloc(Box::new(row)),
        signature: None,
    }
    .into()
}

/// Time that this thread has run: the first number of `/proc/thread-self/schedstat`, in nanoseconds.
pub fn time_on_core() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Bytes of memory that this process has now.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}
