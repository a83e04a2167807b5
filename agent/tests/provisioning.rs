//! Real agents in network namespaces that nobody sits in front of: how they get into a fabric.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

#[path = "agent/schema.rs"]
mod schema;
mod testbed;

use fabric::api::{Finding, FindingLevel, NodeState, NodeView, Problem, ProblemKind, TokenView};
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

/// A machine that is switched on and waits.
fn waiting(lab: &Lab, name: &str, approval: bool) -> Machine {
    let mut machine = lab.machine(name);
    machine.approval = approval;
    machine.start_agent();
    machine
}

fn fingerprint(machine: &Machine) -> String {
    machine.get::<Value>("/v1/status")["fingerprint"].as_str().expect("text").to_owned()
}

/// Waits until a member lists exactly these as waiting, by fingerprint.
fn wait_listed(member: &Machine, waiting: &[&Machine]) -> Vec<Value> {
    let mut wanted: Vec<String> = waiting.iter().map(|machine| fingerprint(machine)).collect();
    wanted.sort();
    member.wait("lists those who wait", || {
        let listed: Vec<Value> = member.get("/v1/waiting");
        let prints: Vec<&str> =
            listed.iter().filter_map(|one| one["fingerprint"].as_str()).collect();
        (prints == wanted).then_some(listed)
    })
}

fn approve(member: &Machine, wanted: &str) -> Result<Value, Problem> {
    let approved = member.tell("POST", &format!("/v1/waiting/{wanted}/approve"), &Value::Null);
    approved.map_err(|refused| refused.problem())
}

#[test]
fn a_waiting_node_is_let_in_by_name_or_fingerprint_on_any_member() {
    let Some(lab) = Lab::new("approve") else { return };
    let members = lab.fabric(2);
    let document: Value = members[0].get("/v1/openapi.json");
    let one = waiting(&lab, "board", true);
    assert_eq!(entry(&one), serde_json::json!({ "way": "approval", "trouble": null }));
    for member in &members {
        let listed = wait_listed(member, &[&one]);
        schema::check(&document, "WaitingNode", &listed[0]);
        schema::check(&document, "WaitingNode", &member.get("/v1/waiting/board"));
        assert_eq!(listed[0]["name"], "board");
        let address = format!("{}:{}", one.address(), testbed::GOSSIP_PORT);
        let addresses = listed[0]["addresses"].as_array().expect("a list");
        assert!(addresses.contains(&Value::String(address.clone())), "{address}: {listed:?}");
    }
    schema::check(&document, "Status", &one.get("/v1/status"));

    // Nobody is called so, and nobody has that fingerprint: who there is, is said.
    for wanted in ["bord", "0000-0000-0000-0000-0000"] {
        let problem = approve(&members[1], wanted).expect_err("nobody is meant");
        assert_eq!(problem.kind, ProblemKind::NotFound);
        assert!(problem.detail.contains(&format!("board ({})", fingerprint(&one))), "{problem}");
    }
    assert!(one.status().fabric.is_none());

    let approved = approve(&members[1], "board").expect("it is let in");
    schema::check(&document, "Approved", &approved);
    assert_eq!(approved["fingerprint"], fingerprint(&one));
    assert_eq!(one.fabric_status().key, members[0].fabric_status().key);
    assert_eq!(entry(&one), Value::Null);
    assert!(one.log().contains("invited"), "{}", one.log());
    for member in &members {
        wait_joined(member, "board");
        wait_listed(member, &[]);
        // The token was for once.
        assert_eq!(member.get::<Vec<TokenView>>("/v1/tokens").len(), 1, "but for the lab's own");
    }
    // It is a member like any other, and lets others in: two that have one name.
    let twins = [waiting(&lab, "twin", true), waiting(&lab, "twin", true)];
    wait_listed(&one, &[&twins[0], &twins[1]]);
    let problem = approve(&one, "twin").expect_err("it may be either");
    assert_eq!(problem.kind, ProblemKind::Invalid);
    for twin in &twins {
        assert!(problem.detail.contains(&fingerprint(twin)), "{problem}");
        assert!(twin.status().fabric.is_none());
    }
    let wanted = fingerprint(&twins[1]);
    let approved = approve(&one, &wanted).expect("it is let in");
    assert_eq!(approved["fingerprint"], wanted);
    one.wait_alive(4);
    assert!(twins[0].status().fabric.is_none());
    wait_listed(&one, &[&twins[0]]);
    approve(&one, "twin").expect("only one waits");
    one.wait_alive(5);
}

#[test]
fn who_did_not_ask_for_it_or_belongs_elsewhere_is_not_taken() {
    let Some(lab) = Lab::new("unasked") else { return };
    let (member, _) = member_and_token(&lab);
    let (other, foreign) = {
        let mut other = lab.machine("other");
        other.approval = true;
        other.start_agent();
        other.init();
        let token = other.token("1h").token;
        (other, token)
    };
    // Switched off, as it is unless somebody switches it on.
    let closed = waiting(&lab, "closed", false);
    assert_eq!(entry(&closed)["way"], "by-hand");
    // It was given a token that nobody made, of another fabric, and one that makes no sense.
    let mut promised = lab.machine("promised");
    promised.approval = true;
    promised.credentials = vec![("weft.token", foreign.clone())];
    let cable = |machine: &Machine, state: &str| {
        lab.bridge.netns().exec(&format!("ip link set {} {state}", machine.port));
    };
    cable(&other, "down");
    promised.start_agent();
    let mut garbled = lab.machine("garbled");
    garbled.approval = true;
    garbled.credentials = vec![("weft.token", "weft1.what".to_owned())];
    garbled.start_agent();
    wait_listed(&member, &[&closed, &promised, &garbled]);

    let problem = approve(&member, "closed").expect_err("nobody listens there");
    println!("{problem}");
    assert_eq!(problem.kind, ProblemKind::Unreachable);
    assert!(problem.detail.contains("approval = true"), "{problem}");
    let problem = approve(&member, "promised").expect_err("it waits for another fabric");
    println!("{problem}");
    assert_eq!(problem.kind, ProblemKind::Conflict);
    assert!(problem.detail.contains("token of another fabric"), "{problem}");
    assert_eq!(approve(&member, "other").expect_err("not listed").kind, ProblemKind::NotFound);
    assert_eq!(member.nodes().len(), 1);

    let told = entry(&garbled);
    assert_eq!(told["way"], "approval");
    assert!(told["trouble"].as_str().is_some_and(|text| text.contains("weft.token")), "{told}");
    approve(&member, "garbled").expect("it is let in");
    wait_joined(&member, "garbled");

    // Its own fabric may take it in either way.
    cable(&other, "up");
    wait_joined(&other, "promised");
}

#[test]
fn of_two_who_approve_one_node_at_once_one_does() {
    let Some(lab) = Lab::new("twice") else { return };
    let members = lab.fabric(2);
    let node = waiting(&lab, "board", true);
    for member in &members {
        wait_listed(member, &[&node]);
    }
    // Two on one member and one on another.
    let outcomes: Vec<Result<Value, Problem>> = std::thread::scope(|scope| {
        let asked = [&members[0], &members[0], &members[1]];
        let threads = asked.map(|member| scope.spawn(|| approve(member, "board")));
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    println!("{outcomes:?}");
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(done, 1, "{outcomes:?}");
    for problem in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        // The last one may find it gone already.
        assert!(matches!(problem.kind, ProblemKind::Conflict | ProblemKind::NotFound), "{problem}");
    }
    for member in &members {
        member.wait_alive(3);
        assert_eq!(member.get::<Vec<TokenView>>("/v1/tokens").len(), 1);
    }
}
