//! Where members are: real agents on machines with more addresses than one, most of which lead nowhere.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::Finding;
use std::collections::BTreeSet;
use testbed::{GOSSIP_PORT, Lab, Machine, job, wait_equal};

/// Gives a machine an address on the switch that is greater than those of its bridges, and bridges as container
/// engines make them: each with a carrier, and with the same address on every machine.
fn with_bridges(machine: &mut Machine) {
    machine.netns.exec("ip addr flush dev eth0");
    machine.netns.exec(&format!("ip addr add {}/24 dev eth0", lan(machine)));
    for number in 17..=25 {
        let (bridge, port) = (format!("br{number}"), format!("in{number}"));
        machine.netns.exec(&format!("ip link add {bridge} type bridge"));
        machine.netns.exec(&format!("ip link add {port} type veth peer name out{number}"));
        machine.netns.exec(&format!("ip link set {port} master {bridge} up"));
        machine.netns.exec(&format!("ip link set out{number} up"));
        machine.netns.exec(&format!("ip addr add 172.{number}.0.1/16 dev {bridge}"));
        machine.netns.exec(&format!("ip link set {bridge} up"));
    }
}

fn lan(machine: &Machine) -> String {
    format!("192.168.1.{}", machine.number)
}

/// No multicast: only the first machine's address is known beforehand, to the first one as well.
fn with_a_seed(machine: &mut Machine) {
    machine.discovery = format!("mdns = false\nseeds = [\"192.168.1.1:{GOSSIP_PORT}\"]");
}

/// Who answered when the whole fabric was asked, and what that warned of.
fn answers(machine: &Machine) -> (BTreeSet<String>, serde_json::Value) {
    let answer: serde_json::Value = machine.get("/api/v1/query?query=weft_agent_info");
    let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let names = series.iter().filter_map(|series| Some(series["metric"]["node"].as_str()?.into()));
    (names.collect(), answer["warnings"].clone())
}

#[test]
fn bridges_of_a_container_engine_hide_nobody() {
    let Some(lab) = Lab::new("bridges") else { return };
    let mut machines = lab.fabric_with(3, |machine| {
        with_bridges(machine);
        with_a_seed(machine);
    });
    everybody_reaches_everybody(&machines, "first");

    // Two forget whom they spoke to.
    for machine in &mut machines[1..] {
        machine.kill_agent();
    }
    for machine in &mut machines[1..] {
        machine.start_agent();
    }
    for machine in &machines {
        machine.wait_alive(3);
    }
    everybody_reaches_everybody(&machines, "second");
    for machine in &machines {
        machine.wait_healthy("first");
    }
}

/// A job with a slot for each machine gets its slots, and each machine has an answer of each.
fn everybody_reaches_everybody(machines: &[Machine], name: &str) {
    // On each of them, also on one that was taken for dead for a moment.
    let mut job = job(name, 1, "[resources]\ncpu = 0.1");
    job.kind = fabric::job::JobKind::System;
    machines[1].submit(&job);
    machines[0].wait("has one on each", || {
        let nodes = machines[0].live(name).into_iter().map(|alloc| alloc.node_name);
        (nodes.collect::<BTreeSet<String>>().len() == 3).then_some(())
    });
    for machine in machines {
        machine.wait_healthy(name);
    }
    for machine in machines {
        machine.wait("has an answer of each", || {
            let (names, warnings) = answers(machine);
            (names.len() == 3 && warnings.is_null()).then_some(())
        });
        for node in machine.nodes() {
            let first = node.info.as_ref().and_then(|info| info.addresses.first().copied());
            let first = first.map(|address| address.ip().to_string()).unwrap_or_default();
            assert!(first.starts_with("192.168.1."), "{}: {:?}", node.name, node.info);
        }
    }
    wait_equal(machines);
}

#[test]
fn a_member_whose_adapter_is_replaced_is_found_again_by_ipv6_alone() {
    let Some(lab) = Lab::new("adapter") else { return };
    let machines = lab.fabric_with(2, |machine| {
        with_bridges(machine);
        machine.netns.exec("ip addr flush dev eth0 scope global");
        let address = format!("2001:db8::{}/64", machine.number);
        machine.netns.exec(&format!("ip addr add {address} dev eth0 nodad"));
        machine.discovery = format!("mdns = false\nseeds = [\"[2001:db8::1]:{GOSSIP_PORT}\"]");
    });
    let placement = "[placement]\nspread = \"name\"\n[resources]\ncpu = 0.1";
    machines[1].submit(&job("before", 2, placement));
    for machine in &machines {
        machine.wait_healthy("before");
    }
    let second = &machines[1];
    second.netns.exec("ip link del eth0");
    second.wait("says that it has no network", || {
        let status: serde_json::Value = second.get("/v1/status");
        let warnings = status["warnings"].to_string();
        (status["network"] == false && warnings.contains("no network")).then_some(())
    });
    // Another name, another number and another address.
    lab.bridge.connect(&second.netns, "usb0");
    second.netns.exec("ip addr add 2001:db8::22/64 dev usb0 nodad");
    for machine in &machines {
        machine.wait_alive(2);
        machine.wait("knows where it is now", || {
            let nodes = machine.nodes();
            let second = nodes.iter().find(|node| node.name == machines[1].name)?;
            let first = second.info.as_ref()?.addresses.first()?.ip().to_string();
            (first == "2001:db8::22").then_some(())
        });
    }
    machines[0].submit(&job("after", 2, placement));
    for machine in &machines {
        machine.wait_healthy("after");
        machine.wait_healthy("before");
        machine.wait("has an answer of each", || {
            let (names, warnings) = answers(machine);
            (names.len() == 2 && warnings.is_null()).then_some(())
        });
    }
}

/// From now on neither of the two machines hears anything of the other one.
fn cut_pair(first: &Machine, second: &Machine) {
    for (here, there) in [(first, second), (second, first)] {
        here.netns.exec("nft add table inet pair");
        here.netns.exec("nft add chain inet pair in { type filter hook input priority 0 ; }");
        here.netns.exec(&format!("nft add rule inet pair in ip saddr {} drop", there.address()));
    }
}

#[test]
fn two_that_cannot_speak_are_asked_through_a_third_and_are_named() {
    let Some(lab) = Lab::new("pair") else { return };
    let machines = lab.fabric(3);
    let (first, second) = (&machines[0], &machines[1]);
    let place = "[placement]\nconstraints = ['name == \"n2\"']\n[resources]\ncpu = 0.1";
    let mut talker = job("talker", 1, place);
    talker.task.command =
        ["/bin/sh", "-c", "echo it speaks; sleep 100000"].map(Into::into).to_vec();
    first.submit(&talker);
    for machine in &machines {
        machine.wait_healthy("talker");
    }
    cut_pair(first, second);
    for (machine, other) in [(first, "n2"), (second, "n1")] {
        machine.wait("finds out that it cannot reach the other one", || {
            let findings: Vec<Finding> = machine.get("/v1/doctor");
            let pair = format!("{} and {other} are both alive", machine.name);
            findings.into_iter().find(|it| it.check == "reach" && it.message.contains(&pair))
        });
    }
    // Everybody is alive, for everybody; what is asked of the one at the other one comes through the third.
    for machine in &machines {
        machine.wait_alive(3);
        machine.wait("has an answer of each", || {
            let (names, warnings) = answers(machine);
            (names.len() == 3 && warnings.is_null()).then_some(())
        });
    }
    first.wait("reads the other one's log", || {
        let log = testbed::api::text(&first.socket(), "/v1/jobs/talker/logs").ok()?;
        log.contains("it speaks").then_some(())
    });
    let hardware: serde_json::Value = first.get("/v1/nodes/n2/hardware");
    assert!(hardware.is_object(), "{hardware}");
    // A roll-out that the one decides arrives at the other one.
    for (version, machine) in [(2, first), (3, second)] {
        talker.task.env.insert("VERSION".into(), version.to_string());
        machine.submit(&talker);
        machine.wait("runs the new version", || {
            let views: Vec<serde_json::Value> = machine.get("/v1/jobs");
            let talker = views.iter().find(|view| view["name"] == "talker")?;
            (talker["version"] == version && talker["state"] == "healthy").then_some(())
        });
    }
    for machine in [first, second] {
        machine.netns.exec("nft delete table inet pair");
    }
    for machine in [first, second] {
        machine.wait("reaches the other one again", || {
            let findings: Vec<Finding> = machine.get("/v1/doctor");
            (!findings.iter().any(|it| it.check == "reach")).then_some(())
        });
    }
}
