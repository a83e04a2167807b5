//! Strangers without any key, who hear what members say and send what they like.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use std::collections::{BTreeSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use testbed::netns::Netns;
use testbed::wire::Tap;
use testbed::{GOSSIP_PORT, Lab, Machine, job};

/// How long the stranger copies.
const COPYING: Duration = Duration::from_secs(30);
/// It sends everything once more after this.
const LATE: Duration = Duration::from_secs(3);
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
    let start = Instant::now();
    while start.elapsed() < COPYING {
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
