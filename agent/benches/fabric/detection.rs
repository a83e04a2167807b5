//! How long until every survivor of twenty knows that one is dead, beside serf in the same machines.

use super::Effort;
use super::events::{Line, Listener};
use super::results::{Better, Results, worst};
use super::testbed::cost::median;
use super::testbed::{Lab, Machine, dies_with_us};
use fabric::api::{EventKind, NodeState};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODES: usize = 20;
/// Between two deaths, so that the one before is forgotten.
const PAUSE: Duration = Duration::from_secs(5);

pub fn measure(results: &mut Results, effort: &Effort) {
    println!("{NODES} nodes, {} of them killed", effort.deaths);
    let Some(lab) = Lab::new("twenty") else { return };
    let mut machines = lab.fabric(NODES);
    let weft = weft(&lab, &mut machines, effort.deaths);
    for machine in &mut machines {
        machine.power_off();
    }
    results.add(
        "node killed, every survivor of 20 knows",
        median(weft.clone()),
        "s",
        Some(3.0),
        Better::Lower,
    );
    let serf = serf(&lab, &mut machines, effort.deaths);
    if let Some((version, times)) = &serf {
        results.beside("serf", version, median(times.clone()));
    }
    results.add(
        "node killed, every survivor of 20 knows, worst kill",
        worst(&weft),
        "s",
        None,
        Better::Lower,
    );
    if let Some((version, times)) = &serf {
        results.beside("serf", version, worst(times));
    }
}

fn weft(lab: &Lab, machines: &mut [Machine], deaths: usize) -> Vec<f64> {
    let listener = Listener::new();
    for (number, machine) in machines.iter().enumerate() {
        listener.follow(number, &machine.socket());
    }
    kill_and_watch(lab, machines, deaths, &listener, |line, name| {
        matches!(
            line.event(),
            Some(EventKind::Node { name: subject, state: NodeState::Dead, .. }) if subject == name
        )
    })
}

/// Kills one machine after the other, and returns how long it took each time until the last of those
/// that were never killed has said so.
fn kill_and_watch(
    lab: &Lab,
    machines: &mut [Machine],
    deaths: usize,
    listener: &Listener,
    says_dead: impl Fn(&Line, &str) -> bool,
) -> Vec<f64> {
    let mut times = Vec::new();
    // Not the first, which the others joined by.
    for (victim, machine) in machines.iter_mut().enumerate().skip(1).take(deaths) {
        std::thread::sleep(PAUSE);
        listener.skip();
        let mut waiting: BTreeSet<usize> =
            (0..NODES).filter(|who| !(1..=victim).contains(who)).collect();
        let killed = Instant::now();
        machine.power_off();
        lab.bridge.plug(&machine.port, false);
        let last = listener.wait(&format!("all know that {} is dead", machine.name), |line| {
            if says_dead(line, &machine.name) {
                waiting.remove(&line.who);
            }
            waiting.is_empty().then_some(line.at)
        });
        times.push((last - killed).as_secs_f64());
    }
    for machine in machines.iter().skip(1).take(deaths) {
        lab.bridge.plug(&machine.port, true);
    }
    times
}

/// serf with its default profile, in the same machines. `None`: it is not installed.
fn serf(lab: &Lab, machines: &mut [Machine], deaths: usize) -> Option<(String, Vec<f64>)> {
    // The program's own word on its version is that of its last development branch.
    let installed = Command::new("dpkg-query").args(["-W", "-f=${Version}", "serf"]).output().ok();
    let Some(installed) = installed.filter(|output| output.status.success()) else {
        println!("  serf is not installed (`demo/setup.sh bench` does it): not measured beside it");
        return None;
    };
    let version = String::from_utf8_lossy(&installed.stdout);
    let version = version.split(['~', '-', '+']).next().unwrap_or_default().to_owned();
    let listener = Listener::new();
    let mut agents: Vec<Child> = Vec::new();
    for (number, machine) in machines.iter_mut().enumerate() {
        machine.power_on();
        let mut command = machine.command("serf");
        let bind = format!("-bind={}", machine.address());
        command.args(["agent", &format!("-node={}", machine.name), &bind, "-log-level=info"]);
        if number > 0 {
            command.arg("-retry-join=10.77.0.1").arg("-retry-interval=1s");
        }
        dies_with_us(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("serf starts");
        listener.read(number, child.stdout.take().expect("its output"));
        agents.push(child);
    }
    let mut known = vec![BTreeSet::new(); NODES];
    listener.wait("every serf knows every other", |line| {
        if let Some((_, member)) = line.text.split_once("EventMemberJoin: ") {
            known[line.who].insert(member.to_owned());
        }
        known.iter().all(|known| known.len() == NODES).then_some(())
    });
    let times = kill_and_watch(lab, machines, deaths, &listener, |line, name| {
        line.text.contains(&format!("EventMemberFailed: {name} "))
    });
    for machine in machines {
        machine.power_off();
    }
    for mut agent in agents {
        let _ = agent.wait();
    }
    Some((version, times))
}
