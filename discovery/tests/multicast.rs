//! Nodes on one link find each other with nothing configured.

// A test says how long the real thing took.
#![allow(clippy::disallowed_methods)]

mod netns;
mod node;

use netns::{Bridge, Netns};
use node::{FABRIC, OTHER_FABRIC, id, is_found, is_lost, start};
use std::time::Instant;

/// A node's namespace on the switch, with the address 10.77.0.`number`.
fn plugged(bridge: &Bridge, number: u8) -> Netns {
    let netns = Netns::new(&format!("node{number}"));
    bridge.connect(&netns, "eth0");
    netns.exec(&format!("ip addr add 10.77.0.{number}/24 dev eth0"));
    netns
}

#[test]
fn three_nodes_find_each_other_and_a_goodbye_is_heard() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("lan");
    let places: Vec<Netns> = (1..=3).map(|number| plugged(&bridge, number)).collect();
    let began = Instant::now();
    let mut nodes: Vec<_> = (1..)
        .zip(&places)
        .map(|(number, place)| start(place, number, &["--fabric", FABRIC]))
        .collect();
    for (number, node) in (1..).zip(&mut nodes) {
        let mut missing: Vec<u8> = (1..=3).filter(|other| *other != number).collect();
        while !missing.is_empty() {
            let line = node.wait_for(&format!("node {number} finds {missing:?}"), |line| {
                missing.iter().any(|other| {
                    is_found(line, *other, FABRIC, &format!("10.77.0.{other}:700{other}"))
                })
            });
            missing.retain(|other| !line.contains(&id(*other)));
        }
    }
    println!("three nodes found each other in {:?}", began.elapsed());

    let mut third = nodes.pop().expect("the third node");
    assert!(third.terminate().success());
    third.wait_for("it says that it stopped", |line| line == "stopped");
    // Its records would live for two minutes and more: only a goodbye makes them go so soon.
    for node in &mut nodes {
        node.wait_for("the third node is lost", |line| is_lost(line, 3));
    }
    for node in &mut nodes {
        assert!(!node.seen().iter().any(|line| is_lost(line, 1) || is_lost(line, 2)));
    }
}

#[test]
fn a_link_without_ipv4_will_do() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("lan6");
    let places = [Netns::new("six1"), Netns::new("six2")];
    for place in &places {
        bridge.connect(place, "host0");
    }
    let began = Instant::now();
    let mut nodes: Vec<_> = (1..)
        .zip(&places)
        .map(|(number, place)| start(place, number, &["--fabric", FABRIC]))
        .collect();
    for (node, other) in nodes.iter_mut().zip([2, 1]) {
        let line =
            node.wait_for("they find each other", |line| is_found(line, other, FABRIC, "[fe80::"));
        // A link-local address means nothing without its interface.
        assert!(line.contains('%'), "{line}");
    }
    println!("two nodes found each other over IPv6 in {:?}", began.elapsed());
}

#[test]
fn two_fabrics_on_one_link_stay_apart() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("shared");
    let places: Vec<Netns> = (1..=5).map(|number| plugged(&bridge, number)).collect();
    let ours = ["--fabric", FABRIC];
    let mut first = start(&places[0], 1, &ours);
    let mut others = [
        start(&places[1], 2, &["--fabric", OTHER_FABRIC]),
        start(&places[2], 3, &["--fabric", OTHER_FABRIC]),
    ];
    for (other, number) in others.iter_mut().zip([3, 2]) {
        other.wait_for("the other fabric's nodes find each other", |line| {
            is_found(line, number, OTHER_FABRIC, "10.77.0.")
        });
    }
    // One that waits sees every fabric, and is seen by all as one that waits.
    let mut waiting = start(&places[3], 4, &[]);
    for (number, fabric) in [(1, FABRIC), (2, OTHER_FABRIC)] {
        // In whatever order they come.
        waiting.wait_until_seen("the waiting node sees both fabrics", |line| {
            is_found(line, number, fabric, "")
        });
    }
    first.wait_for("the waiting node is seen", |line| is_found(line, 4, "-", "10.77.0.4:7004"));
    // Once it has joined, its own see that, and the others lose it.
    waiting.say(&format!("fabric {FABRIC}"));
    waiting.wait_for("it does not care for the others any more", |line| is_lost(line, 2));
    first.wait_for("the joined node is seen", |line| is_found(line, 4, FABRIC, "10.77.0.4:7004"));
    others[0].wait_for("the others lose it", |line| is_lost(line, 4));

    let mut last = start(&places[4], 5, &ours);
    last.wait_for("the last finds the first", |line| is_found(line, 1, FABRIC, "10.77.0.1:7001"));
    first.wait_for("the first finds the last", |line| is_found(line, 5, FABRIC, "10.77.0.5:7005"));
    for node in [&mut first, &mut last] {
        for line in node.seen() {
            assert!(!line.contains(&id(2)) && !line.contains(&id(3)), "{line}");
        }
    }
    for (node, own) in others.iter_mut().zip([2, 3]) {
        for line in node.seen() {
            assert!(!line.contains(&id(1)) && !line.contains(&id(5)), "{line}");
            assert!(!line.contains(&id(own)), "a node is not told about itself: {line}");
        }
    }
}

#[test]
fn an_interface_that_appears_late_is_used_at_once() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("late");
    let (late, early) = (Netns::new("late"), plugged(&bridge, 2));
    let mut late_node = start(&late, 1, &["--fabric", FABRIC]);
    let mut early_node = start(&early, 2, &["--fabric", FABRIC]);
    // Long enough that nobody asks any more of itself: questions come at 0, 1, 3, 7 and 15 seconds.
    std::thread::sleep(std::time::Duration::from_secs(8));

    let port = bridge.connect(&late, "ens3");
    late.exec("ip addr add 10.77.0.1/24 dev ens3");
    let began = Instant::now();
    late_node.wait_for("it finds the other", |line| is_found(line, 2, FABRIC, "10.77.0.2:7002"));
    early_node.wait_for("it is found", |line| is_found(line, 1, FABRIC, "10.77.0.1:7001"));
    println!("found each other {:?} after the interface appeared", began.elapsed());

    // A second one beside it.
    let other_bridge = Bridge::new("second");
    for (place, number) in [(&late, 1), (&early, 2)] {
        other_bridge.connect(place, "usb0");
        place.exec(&format!("ip addr add 10.78.0.{number}/24 dev usb0"));
    }
    late_node.wait_for("both addresses are known", |line| {
        is_found(line, 2, FABRIC, "10.78.0.2:7002") && is_found(line, 2, FABRIC, "10.77.0.2:7002")
    });

    // And the first one goes.
    late.exec("ip link del ens3");
    late_node.wait_for("only the second address is left", |line| {
        is_found(line, 2, FABRIC, "10.78.0.2:7002") && !line.contains("10.77.0.2")
    });
    let ports = bridge.netns().exec("ip -o link");
    assert!(!ports.contains(&format!("{port}@")), "the other end is gone too: {ports}");
}

#[test]
fn a_cable_that_is_pulled_and_put_back_is_noticed() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("cable");
    let first = Netns::new("first");
    let port = bridge.connect(&first, "eth0");
    first.exec("ip addr add 10.77.0.1/24 dev eth0");
    let second = plugged(&bridge, 2);
    let mut first_node = start(&first, 1, &["--fabric", FABRIC]);
    let mut second_node = start(&second, 2, &["--fabric", FABRIC]);
    first_node.wait_for("it finds the other", |line| is_found(line, 2, FABRIC, "10.77.0.2:7002"));
    second_node.wait_for("it is found", |line| is_found(line, 1, FABRIC, "10.77.0.1:7001"));

    bridge.plug(&port, false);
    first_node.wait_for("it loses the other", |line| is_lost(line, 2));
    // Meanwhile the other one starts anew, as another node.
    drop(second_node);
    let mut third_node = start(&second, 3, &["--fabric", FABRIC]);
    bridge.plug(&port, true);
    let began = Instant::now();
    first_node.wait_for("it finds the new one", |line| is_found(line, 3, FABRIC, "10.77.0.2:7003"));
    third_node.wait_for("it is found again", |line| is_found(line, 1, FABRIC, "10.77.0.1:7001"));
    println!("found each other {:?} after the cable was back", began.elapsed());
}

#[test]
fn one_that_dies_before_everyone_is_asked_anew_is_lost() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("anew");
    let places: Vec<Netns> = (1..=3).map(|number| plugged(&bridge, number)).collect();
    let [mut first, second, _third] = [1, 2, 3]
        .map(|number| start(&places[usize::from(number) - 1], number, &["--fabric", FABRIC]));
    for number in [2, 3] {
        first.wait_until_seen("it finds the others", |line| is_found(line, number, FABRIC, ""));
    }
    // Killed, it says no goodbye; and the change of the network makes the first forget what it heard, and
    // with that how long the records of the second would have been good.
    drop(second);
    places[0].exec("ip addr add 10.78.0.1/24 dev eth0");
    first.wait_for("the second is lost", |line| is_lost(line, 2));
    assert!(!first.seen().iter().any(|line| is_lost(line, 3)), "{:?}", first.seen());
}
