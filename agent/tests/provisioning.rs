//! Real agents in network namespaces that nobody sits in front of: how they get into a fabric.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{Finding, FindingLevel, NodeState, NodeView};
use serde_json::Value;
use std::time::Duration;
use testbed::{Lab, Machine, wait_equal};

/// A fabric of one machine, with a token that works for an hour.
fn member_and_token(lab: &Lab) -> (Machine, String) {
    let mut member = lab.machine("member");
    member.start_agent();
    member.init();
    let token = member.token("1h").token;
    (member, token)
}

fn wait_joined(member: &Machine, name: &str) -> NodeView {
    member.wait(&format!("has {name} as a member"), || {
        let mut nodes = member.nodes().into_iter();
        nodes
            .find(|node| node.name == name && node.state == NodeState::Alive && node.info.is_some())
    })
}

/// How often the agent's log says this.
fn says(machine: &Machine, what: &str) -> usize {
    machine.log().matches(what).count()
}

fn entry(machine: &Machine) -> Value {
    machine.get::<Value>("/v1/status")["entry"].clone()
}

#[test]
fn a_node_with_a_token_joins_by_itself_when_the_member_and_then_the_cable_come() {
    let Some(lab) = Lab::new("token") else { return };
    let (mut member, token) = member_and_token(&lab);
    let foreign = {
        let mut other = lab.machine("other");
        other.start_agent();
        other.init();
        other.token("1h").token
    };
    let labels = "rack=r7\ndisk=nvme\n".to_owned();
    let cable = |machine: &Machine, state: &str| {
        lab.bridge.netns().exec(&format!("ip link set {} {state}", machine.port));
    };

    // Nobody is there.
    member.power_off();
    let mut late = lab.machine("late");
    late.labels = "disk = \"of-the-configuration\"".to_owned();
    late.credentials = vec![("weft.token", format!("{token}\n")), ("weft.labels", labels.clone())];
    late.start_agent();
    // Its cable is not plugged in.
    let mut unplugged = lab.machine("unplugged");
    unplugged.credentials = vec![("weft.token", token.clone())];
    cable(&unplugged, "down");
    unplugged.start_agent();
    assert_eq!(unplugged.get::<Value>("/v1/status")["network"], false);
    assert_eq!(late.get::<Value>("/v1/status")["network"], true);
    for waiting in [&late, &unplugged] {
        assert_eq!(entry(waiting)["way"], "token");
        waiting.wait("says that there is no member yet", || {
            let warnings = waiting.status().warnings;
            warnings.iter().any(|text| text.contains("no member was found")).then_some(())
        });
    }

    member.power_on();
    member.start_agent();
    let view = wait_joined(&member, "late");
    let labels = view.info.expect("it tells of itself").labels;
    assert_eq!(labels["rack"], "r7");
    assert_eq!(labels["disk"], "of-the-configuration", "what its owner wrote there goes first");
    assert!(late.status().warnings.is_empty(), "{:?}", late.status().warnings);
    assert_eq!(entry(&late), Value::Null);
    assert_eq!(says(&late, "waits for a member"), 1, "{}", late.log());

    assert!(unplugged.status().fabric.is_none());
    cable(&unplugged, "up");
    wait_joined(&member, "unplugged");
    wait_equal(&[member, late]);
    unplugged.kill_agent();

    // A member needs no token, whatever its fabric.
    for (token, said) in [(&foreign, 1), (&token, 1)] {
        unplugged.credentials = vec![("weft.token", token.clone())];
        unplugged.start_agent();
        assert!(unplugged.status().fabric.is_some());
        assert!(unplugged.status().warnings.is_empty());
        assert_eq!(says(&unplugged, "is for another fabric: ignored"), said);
        unplugged.kill_agent();
    }
}

#[test]
fn a_token_that_is_malformed_or_refused_keeps_no_agent_from_starting_and_is_said_once() {
    let Some(lab) = Lab::new("bad-token") else { return };
    let (member, good) = member_and_token(&lab);
    let expired = member.token("1s").token;
    let revoked = member.token("1h");
    let _: Value = member
        .tell("DELETE", &format!("/v1/tokens/{}", revoked.id.0), &Value::Null)
        .expect("it is revoked");
    std::thread::sleep(Duration::from_millis(1500));

    let cut = good[..50].to_owned();
    let rows = [
        ("cut", vec![("weft.token", cut.clone())], "characters instead of", "by-hand"),
        ("long", vec![("weft.token", "a".repeat(100_000))], "more than 512 bytes", "by-hand"),
        ("empty", vec![("weft.token", String::new())], "it is empty", "by-hand"),
        ("expired", vec![("weft.token", expired)], "expired", "token"),
        ("revoked", vec![("weft.token", revoked.token)], "refused", "token"),
    ];
    for (name, credentials, wanted, way) in rows {
        let mut machine = lab.machine(name);
        machine.credentials = credentials;
        machine.start_agent();
        let warning = machine.wait("says what is wrong", || {
            machine.status().warnings.into_iter().find(|text| text.contains(wanted))
        });
        println!("{name}: {warning}");
        let told = entry(&machine);
        assert_eq!(told["way"], way, "{name}");
        assert_eq!(told["trouble"], warning, "{name}");
        let findings: Vec<Finding> = machine.get("/v1/doctor");
        let finding = findings.iter().find(|finding| finding.check == "credentials");
        let finding = finding.unwrap_or_else(|| panic!("{name}: {findings:?}"));
        assert_eq!((finding.level, &finding.message), (FindingLevel::Warning, &warning));
        // Time for a second attempt, which says nothing new.
        std::thread::sleep(Duration::from_secs(if way == "token" { 12 } else { 1 }));
        assert_eq!(says(&machine, "credential weft.token"), 1, "{}", machine.log());
        assert!(!machine.log().contains(&cut), "a token is a secret: {}", machine.log());
        assert!(machine.status().fabric.is_none());
        // A person goes first.
        machine.join(&good).expect("a good token lets it in");
        assert!(machine.status().warnings.iter().all(|text| !text.contains("refused")));
        wait_joined(&member, name);
    }

    // Labels that cannot be read are left out, all of them, and do not hold up the rest.
    let mut machine = lab.machine("labels");
    machine.credentials =
        vec![("weft.token", good.clone()), ("weft.labels", "rack=r1\nwhat".to_owned())];
    machine.start_agent();
    let view = wait_joined(&member, "labels");
    assert!(view.info.expect("it tells of itself").labels.is_empty());
    let warnings = machine.status().warnings;
    assert!(warnings.iter().any(|text| text.contains("line 2 is no label")), "{warnings:?}");
}
