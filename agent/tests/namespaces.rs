//! Real agents in network namespaces: how they find each other, lose each other, and whom they let in.
//!
//! Nothing here is simulated but the machines: each has its own network, processes and disk, and the
//! agents are started as they would be anywhere.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use data_encoding::Specification;
use fabric::api::Verdict;
use fabric::api::{JobView, Joined, NodeState, NodeView, ProblemKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;
use testbed::netns::wait_until;
use testbed::{GOSSIP_PORT, Lab, Machine, job, wait_equal, wire};

#[test]
fn three_nodes_join_by_multicast_alone_and_run_a_job_on_any_nodes_word() {
    let Some(lab) = Lab::new("join") else { return };
    let machines = lab.fabric(3);
    let print = wait_equal(&machines);
    assert!(!print.is_empty());

    let submitted = machines[2].submit(&job("sleeper", 3, "[resources]\ncpu = 0.1"));
    assert_eq!((submitted.version, submitted.changed), (1, true));
    assert!(submitted.held_by >= 2, "it is on more disks than one: {submitted:?}");
    for machine in &machines {
        machine.wait_healthy("sleeper");
    }
    let live = machines[0].live("sleeper");
    let slots: BTreeSet<u32> = live.iter().map(|alloc| alloc.id.slot.index).collect();
    assert_eq!(slots, BTreeSet::from([0, 1, 2]));
    for machine in &machines {
        let here = live.iter().filter(|alloc| alloc.node_name == machine.name).count();
        assert_eq!(machine.processes_of("sleeper").len(), here, "what it says is what runs");
    }
    // The same again changes nothing.
    let again = machines[1].submit(&job("sleeper", 3, "[resources]\ncpu = 0.1"));
    assert_eq!((again.version, again.changed), (1, false));

    let stopped: serde_json::Value =
        machines[0].tell("DELETE", "/v1/jobs/sleeper", &serde_json::Value::Null).expect("it stops");
    drop(stopped);
    for machine in &machines {
        machine.wait("runs nothing any more", || {
            machine.processes_of("sleeper").is_empty().then_some(())
        });
    }
}

#[test]
fn the_last_of_two_nodes_takes_work_and_runs_what_the_dead_one_ran() {
    let Some(lab) = Lab::new("last") else { return };
    let mut machines = lab.fabric(2);
    machines[0].submit(&job("before", 2, "[resources]\ncpu = 0.1"));
    machines[1].wait_healthy("before");

    // The one that founded the fabric.
    machines[0].power_off();
    let survivor = &machines[1];
    survivor.wait_alive(1);
    survivor.wait_healthy("before");
    assert!(survivor.live("before").iter().all(|alloc| alloc.node_name == survivor.name));
    assert_eq!(survivor.processes_of("before").len(), 2);

    survivor.submit(&job("after", 1, ""));
    survivor.wait_healthy("after");
    assert_eq!(survivor.processes_of("after").len(), 1);

    // The dead one comes back, and does not start again what it ran.
    machines[0].power_on();
    machines[0].start_agent();
    for machine in &machines {
        machine.wait_alive(2);
        machine.wait_healthy("before");
        machine.wait_healthy("after");
    }
    wait_equal(&machines);
    let running: usize = machines.iter().map(|machine| machine.processes_of("before").len()).sum();
    assert_eq!(running, 2);
}

#[test]
fn both_sides_of_a_split_take_work_and_agree_when_it_heals() {
    let Some(lab) = Lab::new("split") else { return };
    let machines = lab.fabric(3);
    machines[0].submit(&job("common", 3, ""));
    for machine in &machines {
        machine.wait_healthy("common");
    }
    let before = pids(&machines, "common");

    // The third is alone on a switch of its own; its link stays up.
    lab.bridge.netns().exec("ip link add br1 type bridge mcast_snooping 0");
    lab.bridge.netns().exec("ip link set br1 up");
    let port = &machines[2].port;
    lab.bridge.netns().exec(&format!("ip link set {port} master br1"));
    machines[0].wait_alive(2);
    machines[1].wait_alive(2);
    machines[2].wait_alive(1);

    // Each side fills the job by itself, and takes new ones.
    for machine in &machines {
        machine.wait_healthy("common");
    }
    machines[0].submit(&job("left", 2, ""));
    machines[2].submit(&job("right", 2, ""));
    machines[1].wait_healthy("left");
    machines[2].wait_healthy("right");
    // Being alone stopped nothing.
    let during = pids(&machines, "common");
    for (before, during) in before.iter().zip(&during) {
        assert!(during.is_superset(before), "what ran before runs on: {before:?}, {during:?}");
    }
    assert_eq!(during[2].len(), 3);

    lab.bridge.netns().exec(&format!("ip link set {port} master br0"));
    for machine in &machines {
        machine.wait_alive(3);
    }
    for (name, count) in [("common", 3), ("left", 2), ("right", 2)] {
        for machine in &machines {
            machine.wait_healthy(name);
        }
        wait_until(&format!("exactly {count} of {name} run"), || {
            let running: usize = pids(&machines, name).iter().map(BTreeSet::len).sum();
            (running == count).then_some(())
        });
    }
    wait_equal(&machines);
}

#[test]
fn what_a_stranger_sends_is_dropped_and_counted_and_changes_nothing() {
    let Some(lab) = Lab::new("stranger") else { return };
    let machines = lab.fabric(2);
    machines[0].submit(&job("treasure", 2, ""));
    for machine in &machines {
        machine.wait_healthy("treasure");
    }
    let running = pids(&machines, "treasure");
    let print = settled(&machines);
    let refused = |reason: &str| {
        machines[0].counter(&format!("weft_gossip_refused_total{{reason=\"{reason}\"}}"))
    };
    let before: BTreeMap<&str, u64> =
        ["malformed", "forged", "replayed", "unknown-key", "not-member"]
            .map(|reason| (reason, refused(reason)))
            .into();
    let streams_before = machines[0].counter("weft_streams_refused_total{reason=\"malformed\"}");

    // A stranger that listens, on the same switch, and has a fabric of its own.
    let mut stranger = lab.machine("stranger");
    stranger.start_agent();
    stranger.init();
    let heard = lab.bridge.netns().within(|| wire::listen(&machines[0].address(), GOSSIP_PORT, 40));
    assert!(!heard.is_empty());

    let socket = stranger.netns.within(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    let gossip = (machines[0].address(), GOSSIP_PORT);
    let streams = (machines[0].address(), GOSSIP_PORT + 1);
    let send = |to: &(String, u16), bytes: &[u8]| {
        socket.send_to(bytes, (to.0.as_str(), to.1)).expect("the network takes it");
    };
    let mut noise = wire::Noise::new(7);
    for round in 0..300 {
        let length = [0, 1, 20, 76, 77, 78, 500, 1427, 1428, 1472][round % 10];
        let bytes = noise.bytes(length);
        send(&gossip, &bytes);
        send(&streams, &bytes);
        // With the right first byte, so that more of it is looked at.
        let mut sealed = bytes.clone();
        if let Some(first) = sealed.first_mut() {
            *first = 1;
        }
        send(&gossip, &sealed);
        let mut long_header = bytes;
        if let Some(first) = long_header.first_mut() {
            *first |= 0xc0;
        }
        send(&streams, &long_header);
        std::thread::sleep(Duration::from_millis(2));
    }
    for datagram in &heard {
        // As it was, as the one that a sender would send much later, and cut off.
        send(&gossip, datagram);
        let mut forged = datagram.clone();
        forged[COUNTER] ^= 1;
        send(&gossip, &forged);
        send(&gossip, &datagram[..datagram.len() - 1]);
        send(&streams, datagram);
    }

    let replays = heard.len() as u64;
    for (reason, at_least) in [("malformed", 200), ("unknown-key", 1), ("forged", replays)] {
        machines[0].wait(&format!("counts {reason} datagrams"), || {
            (refused(reason) >= before[reason] + at_least).then_some(())
        });
    }
    machines[0].wait("counts replays", || {
        (refused("replayed") >= before["replayed"] + replays).then_some(())
    });
    let streams_after = machines[0].counter("weft_streams_refused_total{reason=\"malformed\"}");
    println!("{} refused on the stream port", streams_after - streams_before);

    // It shows up nowhere, and sees nobody.
    assert_eq!(stranger.nodes().len(), 1);
    for machine in &machines {
        assert_eq!(machine.nodes().len(), 2);
        assert_eq!(machine.fabric_status().jobs, 1);
        machine.wait_alive(2);
    }
    assert_eq!(settled(&machines), print, "the table is what it was");
    assert_eq!(pids(&machines, "treasure"), running, "nothing was restarted");
}

#[test]
fn a_token_that_is_wrong_or_worn_out_is_refused_on_both_sides() {
    let Some(lab) = Lab::new("token") else { return };
    let mut machines = lab.fabric(1);
    let member = machines.pop().expect("one");
    let mut joiner = lab.machine("joiner");
    joiner.start_agent();
    let refuse = |token: &str| {
        let problem = joiner.join(token).expect_err("it is not let in").problem();
        assert!(joiner.status().fabric.is_none());
        assert_eq!(member.nodes().len(), 1);
        problem
    };

    let short = member.token("1s");
    let revoked = member.token("1h");
    let good = member.token("1h");
    let _: serde_json::Value = member
        .tell("DELETE", &format!("/v1/tokens/{}", revoked.id.0), &serde_json::Value::Null)
        .expect("it is revoked");
    std::thread::sleep(Duration::from_millis(1500));

    // Not a token at all, and one with a slip of the keyboard: refused before anybody is asked.
    assert_eq!(refuse("weft1.what").kind, ProblemKind::Invalid);
    let mut mistyped = good.token.clone().into_bytes();
    let last = mistyped.last_mut().expect("it is not empty");
    *last = if *last == b'a' { b'b' } else { b'a' };
    assert_eq!(refuse(&String::from_utf8(mistyped).expect("text")).kind, ProblemKind::Invalid);
    assert!(!member.log().contains("not let in"));

    // Worn out, called back, and guessed.
    for (token, word) in
        [(&short.token, "expired"), (&revoked.token, "token"), (&guessed(&good.token), "secret")]
    {
        let problem = refuse(token);
        assert_eq!(problem.kind, ProblemKind::Forbidden, "{problem}");
        println!("{word}: {problem}");
    }
    // Each side says so, and the member says it once.
    assert!(joiner.log().contains("not let in"));
    let log = member.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("not let in")).collect();
    let source = |line: &str| {
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.rsplit_once(':'));
        address.map(|(address, _)| address.to_owned()).unwrap_or_else(|| panic!("{line}"))
    };
    let sources: BTreeSet<String> = said.iter().map(|line| source(line)).collect();
    assert!(!said.is_empty() && said.len() == sources.len(), "once for each source: {log}");

    // A token of another fabric: nobody here is asked, and it says why.
    let mut other = lab.machine("other");
    other.start_agent();
    other.init();
    let foreign = other.token("1h").token;
    let mut alone = lab.machine("alone");
    alone.start_agent();
    let address = format!("{}:{GOSSIP_PORT}", member.address());
    let refused = alone.tell::<Joined>(
        "POST",
        "/v1/fabric/join",
        &serde_json::json!({ "token": foreign, "address": address }),
    );
    let problem = refused.expect_err("the member is of another fabric").problem();
    println!("{problem}");
    assert!(problem.detail.contains("does not belong to the token's fabric"), "{problem}");

    // The good one still works.
    let joined = joiner.join(&good.token).expect("it is let in");
    assert_eq!(joined.by.as_deref(), Some(member.name.as_str()));
    member.wait_alive(2);
}

/// Where a sealed datagram counts the datagrams of its sender: after version, key, sender, generation
/// and salt. A replay is told by it before anything is opened.
const COUNTER: usize = 1 + 4 + 32 + 8 + 8;

/// A token with a secret that nobody gave out, whose checksum fits.
fn guessed(token: &str) -> String {
    let mut alphabet = Specification::new();
    alphabet.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    let base32 = alphabet.encoding().expect("an encoding");
    let parts: Vec<&str> = token.split('.').collect();
    let fabric = base32.decode(parts[1].as_bytes());
    let secret = [9; 21];
    let whole = [fabric.as_deref().unwrap_or_default(), parts[2].as_bytes(), &secret].concat();
    let checksum = ring::digest::digest(&ring::digest::SHA256, &whole);
    let end = base32.encode(&[&secret, &checksum.as_ref()[..4]].concat());
    format!("{}.{}.{}.{end}", parts[0], parts[1], parts[2])
}

#[test]
fn a_node_that_is_removed_is_locked_out_and_the_others_change_the_key() {
    let Some(lab) = Lab::new("remove") else { return };
    let machines = lab.fabric(3);
    machines[0].submit(&job("steady", 3, ""));
    for machine in &machines {
        machine.wait_healthy("steady");
    }
    let heard_before = heard_keys(&lab, &machines[0]);

    let path = format!("/v1/nodes/{}", machines[2].name);
    // Not in the second in which there are two voters and it is one of them: the fabric chooses a third.
    machines[1].wait("it may be removed", || {
        machines[1].tell::<serde_json::Value>("DELETE", &path, &serde_json::Value::Null).ok()
    });
    let left = &machines[..2];
    for machine in left {
        machine.wait("knows two nodes", || {
            let nodes = machine.nodes();
            let known = nodes.iter().filter(|node| node.state == NodeState::Alive).count();
            (known == 2 && !nodes.iter().any(|node| node.name == machines[2].name)).then_some(())
        });
        machine.wait_healthy("steady");
    }
    wait_until("the two left run all of it", || {
        let running: usize = pids(left, "steady").iter().map(BTreeSet::len).sum();
        (running == 3).then_some(())
    });
    // Gossip is sealed with a key that the removed one never had.
    wait_until("the key has changed", || {
        let now = heard_keys(&lab, &machines[0]);
        now.is_disjoint(&heard_before).then_some(())
    });

    // What the removed one wants reaches nobody.
    let removed = &machines[2];
    let _ = removed.tell::<serde_json::Value>("PUT", "/v1/jobs/intruder", &job("intruder", 1, ""));
    let refused = |reason: &str| {
        machines[0].counter(&format!("weft_gossip_refused_total{{reason=\"{reason}\"}}"))
    };
    machines[0].wait("refuses the removed one's datagrams", || {
        (refused("not-member") + refused("unknown-key") > 0).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    for machine in left {
        let jobs: Vec<JobView> = machine.get("/v1/jobs");
        assert!(jobs.iter().all(|job| job.name.to_string() != "intruder"));
    }
    wait_equal(left);
    let warnings = removed.status().warnings;
    println!("the removed node says: {warnings:?}");
}

/// Numbers of the keys that gossip to `machine` is sealed with, heard on the wire.
fn heard_keys(lab: &Lab, machine: &Machine) -> BTreeSet<Vec<u8>> {
    let from: Vec<Vec<u8>> =
        lab.bridge.netns().within(|| wire::listen(&machine.address(), GOSSIP_PORT, 10));
    from.iter().filter_map(|datagram| datagram.get(1..5).map(<[u8]>::to_vec)).collect()
}

#[test]
fn two_nodes_with_one_host_name_are_told_apart() {
    let Some(lab) = Lab::new("twins") else { return };
    let mut machines: Vec<Machine> =
        ["one", "twin", "twin"].iter().map(|name| lab.machine(name)).collect();
    for machine in &mut machines {
        machine.start_agent();
    }
    machines[0].init();
    let token = machines[0].token("1h").token;
    for machine in &machines[1..] {
        machine.join(&token).expect("it is let in");
    }
    for machine in &machines {
        machine.wait_alive(3);
    }
    wait_equal(&machines);
    let nodes = machines[0].nodes();
    let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names.contains("one") && names.iter().filter(|name| name.starts_with("twin")).count() == 2
    );
    // Each name leads to its node, from anywhere.
    for node in &nodes {
        for machine in &machines {
            let found: NodeView = machine.get(&format!("/v1/nodes/{}", node.name));
            assert_eq!(found.id, node.id);
        }
    }
    machines[1].submit(&job("both", 3, ""));
    for machine in &machines {
        machine.wait_healthy("both");
    }
    let running: usize = pids(&machines, "both").iter().map(BTreeSet::len).sum();
    assert_eq!(running, 3);
}

#[test]
fn a_node_whose_disk_is_full_keeps_what_it_runs_and_takes_no_more() {
    let Some(lab) = Lab::new("disk") else { return };
    let mut machines: Vec<Machine> =
        ["well", "full"].iter().map(|name| lab.machine(name)).collect();
    // A disk of its own for the state of the second.
    let state = machines[1].state.display().to_string();
    machines[1].shell(&format!("mkdir -p {state} && mount -t tmpfs -o size=32m tmpfs {state}"));
    for machine in &mut machines {
        machine.start_agent();
    }
    machines[0].init();
    let token = machines[0].token("1h").token;
    machines[1].join(&token).expect("it is let in");
    for machine in &machines {
        machine.wait_alive(2);
    }
    let there = "[placement]\nconstraints = ['name == \"full\"']";
    machines[0].submit(&job("kept", 1, there));
    machines[1].wait_healthy("kept");
    let running = machines[1].processes_of("kept");
    assert_eq!(running.len(), 1);

    machines[1].shell(&format!("cat /dev/zero > {state}/filler 2>/dev/null; true"));
    machines[0].submit(&job("refused", 1, there));
    machines[1].wait("says that its disk refuses", || {
        machines[1].status().warnings.iter().any(|text| text.contains("disk")).then_some(())
    });
    println!("it says: {:?}", machines[1].status().warnings);
    machines[0].wait("explains that", || {
        let explained: fabric::api::Explanation = machines[0].get("/v1/jobs/refused/explain");
        let verdicts: &[Verdict] = &explained.nodes;
        let full = verdicts.iter().find(|verdict| verdict.name == "full")?;
        full.rejection.as_ref()?.to_string().contains("disk").then_some(())
    });
    assert!(machines[1].processes_of("refused").is_empty());
    assert_eq!(machines[1].processes_of("kept"), running, "what ran runs on");
    // Others take what it does not.
    machines[0].submit(&job("elsewhere", 2, ""));
    machines[0].wait_healthy("elsewhere");
    assert!(machines[0].live("elsewhere").iter().all(|alloc| alloc.node_name == "well"));

    machines[1].shell(&format!("rm {state}/filler"));
    machines[1].wait("takes it back", || machines[1].status().warnings.is_empty().then_some(()));
    machines[0].submit(&job("welcome", 1, there));
    machines[1].wait_healthy("welcome");
    assert_eq!(machines[1].processes_of("kept"), running);
    wait_equal(&machines);
}

/// The fingerprint of all views once it stays the same: a node that has just started still learns its
/// own addresses, and says so.
fn settled(machines: &[Machine]) -> String {
    wait_until("the views stay as they are", || {
        let print = wait_equal(machines);
        std::thread::sleep(Duration::from_secs(3));
        (wait_equal(machines) == print).then_some(print)
    })
}

/// Processes of a job, machine by machine.
fn pids(machines: &[Machine], job: &str) -> Vec<BTreeSet<u32>> {
    machines.iter().map(|machine| machine.processes_of(job).into_iter().collect()).collect()
}
