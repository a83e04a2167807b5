//! Strangers without any key, who hear what members say and send what they like.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use std::collections::{BTreeSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::half_open::begin_connections;
use testbed::netns::Netns;
use testbed::wire::Tap;
use testbed::{GOSSIP_PORT, Lab, Machine, job};

/// How many seconds the stranger copies, if not `BRIEFLY`.
const COPYING: &str = "WEFT_COPYING_SECONDS";
const BRIEFLY: u64 = 30;
/// It sends everything once more after this.
const LATE: Duration = Duration::from_secs(3);
/// Times that it is measured beside a flood.
const ATTEMPTS: usize = 5;
/// What a busy machine adds to any time.
const NOISE: Duration = Duration::from_secs(3);
/// Many of them fit.
const SMALL: &str = "[resources]\ncpu = 0.05\nmemory = \"8MiB\"";
/// First bytes of sealed gossip.
const SEALED: u8 = 1;

#[test]
fn a_stranger_that_copies_every_datagram_to_everybody_moves_nothing_and_hears_nothing() {
    let Some(lab) = Lab::new("relay") else { return };
    let machines = lab.fabric(3);
    machines[0].submit(&job("treasure", 3, "[placement]\nspread = \"name\""));
    for machine in &machines {
        machine.wait_healthy("treasure");
    }
    let stranger = stranger(&lab);
    let before = places(&machines[0]);
    let deaths_before = deaths(&machines);
    let forged_before = forged(&machines);

    let targets: Vec<SocketAddr> = gossip_addresses(&machines);
    let mut tap = lab.bridge.netns().within(Tap::new);
    let socket = stranger.within(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    socket.set_nonblocking(true).expect("it need not wait");
    let (mut seen, mut late) = (BTreeSet::new(), VecDeque::new());
    let (mut sent, mut answers) = (0u64, 0u64);
    let mut copy = |datagram: &[u8]| {
        for target in &targets {
            sent += u64::from(socket.send_to(datagram, target).is_ok());
        }
    };
    let mut buffer = [0; 2048];
    let seconds = std::env::var(COPYING).ok().and_then(|text| text.parse().ok());
    let (start, copying) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(BRIEFLY)));
    while start.elapsed() < copying {
        while let Some((port, datagram)) = tap.next() {
            let is_gossip = port == GOSSIP_PORT && datagram.first() == Some(&SEALED);
            // Its own copies pass the switch as well.
            if is_gossip && seen.insert(datagram[datagram.len() - 16..].to_vec()) {
                copy(&datagram);
                late.push_back((Instant::now() + LATE, datagram));
            }
        }
        while late.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let (_, datagram) = late.pop_front().expect("one is due");
            copy(&datagram);
        }
        while socket.recv_from(&mut buffer).is_ok() {
            answers += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{} datagrams heard, {sent} copies sent, {answers} came back, {} deaths",
        seen.len(),
        deaths(&machines) - deaths_before
    );
    assert!(seen.len() > 100, "members talk");
    assert!(forged(&machines) > forged_before, "copies came to those whom they were not for");
    assert_eq!(answers, 0, "members sent to the stranger");
    assert_eq!(deaths(&machines), deaths_before, "members declared each other dead");
    assert_eq!(places(&machines[0]), before, "work was moved");
    for machine in &machines {
        machine.wait_alive(3);
        machine.wait_healthy("treasure");
    }
}

#[test]
fn half_open_connections_of_strangers_keep_no_member_waiting() {
    let Some(lab) = Lab::new("half") else { return };
    let mut machines = lab.fabric(3);
    let stranger = stranger(&lab);
    let many: Vec<String> = (101..131).map(|number| format!("10.77.0.{number}")).collect();
    for address in &many {
        stranger.exec(&format!("ip addr add {address}/24 dev eth0"));
    }
    let targets: Vec<SocketAddr> = gossip_addresses(&machines)
        .into_iter()
        .map(|address| SocketAddr::new(address.ip(), GOSSIP_PORT + 1))
        .collect();

    let quiet = submit_after_a_restart(&mut machines, "quiet");
    println!("nobody interferes: {quiet:?}");
    for (name, sources) in [("one", &many[..1]), ("many", &many[..])] {
        let stop = AtomicBool::new(false);
        let (stranger, targets, stop) = (&stranger, &targets, &stop);
        let (flooded, begun) = std::thread::scope(|scope| {
            let work = || begin_connections(sources, targets, 500, stop);
            let flood = scope.spawn(move || stranger.within(work));
            // Whatever can be held is held by then.
            std::thread::sleep(Duration::from_secs(6));
            // The flood and all agents share this machine's processors: the best of a few is what strangers cost.
            let flooded: Vec<Submitted> = (1..=ATTEMPTS)
                .map(|attempt| submit_after_a_restart(&mut machines, &format!("{name}{attempt}")))
                .collect();
            stop.store(true, Ordering::Relaxed);
            (flooded, flood.join().expect("it goes on until it is told"))
        });
        println!("{name}: {begun:?}: {flooded:?}");
        assert!(begun.retries > 0, "they were asked to come again, and did: {begun:?}");
        let twice = 2 * quiet.taken + NOISE;
        let as_ever = |it: &Submitted| {
            let let_through = it.dial_failures == quiet.dial_failures;
            let_through && it.held_by == quiet.held_by && it.taken <= twice
        };
        assert!(flooded.iter().any(as_ever), "{flooded:?}, and without strangers {quiet:?}");
    }
}

#[derive(Debug)]
struct Submitted {
    /// Disks that took each job, the fewest of all.
    held_by: u32,
    /// Connections between members that failed since the restarts.
    dial_failures: u64,
    /// From the first submit until the last job was healthy.
    taken: Duration,
}

/// Starts two agents anew, so that all connections have to be made again, and submits jobs through one of them.
fn submit_after_a_restart(machines: &mut [Machine], name: &str) -> Submitted {
    for machine in &mut machines[1..] {
        machine.kill_agent();
        machine.start_agent();
    }
    for machine in machines.iter() {
        machine.wait_alive(3);
    }
    let start = Instant::now();
    let mut held_by = u32::MAX;
    for number in 0..5 {
        let submitted = machines[1].submit(&job(&format!("{name}-{number}"), 2, SMALL));
        held_by = held_by.min(submitted.held_by);
    }
    for number in 0..5 {
        machines[1].wait_healthy(&format!("{name}-{number}"));
    }
    let taken = start.elapsed();
    // Of those that were started now, and count from zero.
    let failed = |machine: &Machine| machine.counter("weft_dials_total{outcome=\"failed\"}");
    Submitted { held_by, dial_failures: machines[1..].iter().map(failed).sum(), taken }
}

/// A machine without an agent, on the same switch.
fn stranger(lab: &Lab) -> Netns {
    let stranger = Netns::new("stranger");
    lab.bridge.connect(&stranger, "eth0");
    stranger.exec("ip addr add 10.77.0.100/24 dev eth0");
    stranger
}

fn gossip_addresses(machines: &[Machine]) -> Vec<SocketAddr> {
    let address = |machine: &Machine| format!("{}:{GOSSIP_PORT}", machine.address());
    machines.iter().map(|machine| address(machine).parse().expect("an address")).collect()
}

/// Deaths of members that any agent has spoken of.
fn deaths(machines: &[Machine]) -> usize {
    let told = |machine: &Machine| machine.log().matches("state=dead").count();
    machines.iter().map(told).sum()
}

fn forged(machines: &[Machine]) -> u64 {
    let refused =
        |machine: &Machine| machine.counter("weft_gossip_refused_total{reason=\"forged\"}");
    machines.iter().map(refused).sum()
}

/// Which allocation runs where.
fn places(machine: &Machine) -> BTreeSet<(String, String)> {
    let live = machine.live("treasure");
    live.iter().map(|alloc| (alloc.id.to_string(), alloc.node_name.clone())).collect()
}
