//! How long until what a dead node ran runs elsewhere: three nodes, a job with a slot on each.

use super::Effort;
use super::events::Listener;
use super::results::{Better, Results, worst};
use super::testbed::cost::median;
use super::testbed::{Lab, job};
use fabric::alloc::Phase;
use fabric::api::EventKind;
use std::collections::BTreeSet;
use std::time::Instant;

pub fn measure(results: &mut Results, effort: &Effort) {
    println!("three nodes, {} times one of them killed", effort.replacements);
    let Some(lab) = Lab::new("replace") else { return };
    let mut machines = lab.fabric(3);
    machines[0].submit(&job("steady", 3, ""));
    let mut times = Vec::new();
    for round in 0..effort.replacements {
        for machine in &machines {
            machine.wait_alive(3);
            machine.wait_healthy("steady");
        }
        let live = machines[0].live("steady");
        // In turn, if the one whose turn it is runs anything.
        let victim = (0..3)
            .map(|step| (round + step) % 3)
            .find(|number| live.iter().any(|alloc| alloc.node_name == machines[*number].name));
        let victim = victim.expect("somebody runs it");
        let name = machines[victim].name.clone();
        let mut lost: BTreeSet<u32> = live
            .iter()
            .filter(|alloc| alloc.node_name == name)
            .map(|alloc| alloc.id.slot.index)
            .collect();
        let epochs: Vec<u64> = live.iter().map(|alloc| alloc.id.epoch).collect();
        let newest = epochs.into_iter().max().unwrap_or(0);
        let listener = Listener::new();
        for (number, machine) in machines.iter().enumerate().filter(|(number, _)| *number != victim)
        {
            listener.follow(number, &machine.socket());
        }
        // Each is told the events of the past first.
        std::thread::sleep(std::time::Duration::from_secs(2));
        listener.skip();
        let killed = Instant::now();
        machines[victim].power_off();
        lab.bridge.plug(&machines[victim].port, false);
        let last = listener.wait("its slots run elsewhere", |line| {
            if let Some(EventKind::Alloc { alloc, phase: Phase::Running, .. }) = line.event()
                && alloc.epoch > 0
            {
                lost.remove(&alloc.slot.index);
            }
            lost.is_empty().then_some(line.at)
        });
        println!("  round {round}: {name}, epochs up to {newest}");
        times.push((last - killed).as_secs_f64());
        lab.bridge.plug(&machines[victim].port, true);
        machines[victim].power_on();
        machines[victim].start_agent();
    }
    results.add(
        "node killed, replacement running, 3 nodes",
        median(times.clone()),
        "s",
        Some(5.0),
        Better::Lower,
    );
    let name = "node killed, replacement running, 3 nodes, worst kill";
    results.add(name, worst(&times), "s", None, Better::Lower);
}
