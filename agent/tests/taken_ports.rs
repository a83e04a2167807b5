//! A real agent on a machine where other programs listen on ports. Here they are this test.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod agent;

use agent::{Agent, job};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

/// A job that serves pages on its port.
fn web(fixed: Option<u16>) -> Value {
    let command = ["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "${port.http}"];
    let mut web = job("web", &command);
    web["ports"] = json!([{"name": "http", "fixed": fixed}]);
    web["health"] = json!({
        "check": {"http": {"path": "/", "port": "http"}},
        "interval": "1s", "timeout": "1s", "failures": 3, "grace": "10s"
    });
    web
}

/// The same, but its task listens nowhere.
fn idle(fixed: Option<u16>) -> Value {
    let mut idle = web(fixed);
    idle["task"]["command"] = json!(["/usr/bin/sleep", "1000"]);
    idle["health"]["grace"] = json!("1s");
    idle
}

fn submit(agent: &Agent, spec: &Value) {
    agent.call("PUT", "/v1/jobs/web", Some(spec)).expect(200);
}

/// Ports that this agent gives away by itself, as the others are told.
fn dynamic_ports(agent: &Agent) -> std::ops::RangeInclusive<u16> {
    let nodes = agent.get("/v1/nodes");
    let ports = &nodes[0]["info"]["topology"]["ports"];
    let end = |at: usize| ports[at].as_u64().unwrap() as u16;
    end(0)..=end(1)
}

fn port_of(alloc: &Value) -> u16 {
    alloc["row"]["claim"]["ports"]["http"].as_u64().unwrap() as u16
}

fn why_not(agent: &Agent) -> String {
    let explained = agent.get("/v1/jobs/web/explain");
    explained["nodes"][0]["rejection"].to_string()
}

#[test]
fn a_fixed_port_that_another_program_has_is_refused_and_its_name_is_told() {
    let agent = Agent::found("one");
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    submit(&agent, &web(Some(port)));
    let me = format!("(pid {})", std::process::id());
    agent.wait("/v1/jobs/web/explain", "refused by name", |explained| {
        let refused = &explained["nodes"][0]["rejection"]["port-used"];
        refused["port"] == port && refused["by"].as_str().is_some_and(|by| by.ends_with(&me))
    });
    // Nothing is started again and again meanwhile.
    std::thread::sleep(Duration::from_secs(3));
    let allocs = agent.get("/v1/allocs?job=web&all=true");
    for alloc in allocs.as_array().unwrap() {
        assert_eq!(alloc["row"]["ran"], false, "{allocs:#}");
    }
    assert!(agent.log().matches("unit not started").count() <= 1, "{}", agent.log());
    assert!(why_not(&agent).contains(&me));
    drop(stranger);
    agent.wait("/v1/jobs/web", "healthy", |job| job["state"] == "healthy");
    let alloc = &agent.get("/v1/allocs?job=web")[0];
    assert_eq!((port_of(alloc), &alloc["row"]["restarts"]), (port, &json!(0)));
    agent.stop_job("web");
}

#[test]
fn dynamic_ports_that_other_programs_have_are_passed_over() {
    let agent = Agent::found("one");
    let ports = dynamic_ports(&agent);
    let mut strangers: Vec<TcpListener> = ports
        .clone()
        .take(10)
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .collect();
    let mut spec = web(None);
    spec["count"] = json!(3);
    agent.run(&spec);
    let allocs = agent.get("/v1/allocs?job=web&all=true");
    let allocs = allocs.as_array().unwrap();
    assert_eq!(allocs.len(), 3, "none had to be placed twice");
    for alloc in allocs {
        assert!(port_of(alloc) >= ports.start() + 10, "{alloc:#}");
        assert_eq!(alloc["row"]["restarts"], 0, "{alloc:#}");
    }
    agent.stop_job("web");

    // All of them.
    strangers.extend(ports.clone().filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()));
    let held: BTreeSet<u16> =
        strangers.iter().map(|one| one.local_addr().unwrap().port()).collect();
    assert_eq!(held.len(), ports.clone().count(), "this test has all of them");
    agent.wait("/v1/nodes", "known to be held", |nodes| {
        let used = nodes[0]["info"]["topology"]["ports_used"].as_array().unwrap();
        let count =
            |one: &Value| one["last"].as_u64().unwrap() - one["first"].as_u64().unwrap() + 1;
        used.iter().map(count).sum::<u64>() >= held.len() as u64
    });
    submit(&agent, &web(None));
    agent.wait("/v1/jobs/web/explain", "refused", |explained| {
        let refused = &explained["nodes"][0]["rejection"]["ports-used"];
        refused["used"] == held.len() && refused["of"] == held.len()
    });
    std::thread::sleep(Duration::from_secs(2));
    let allocs = agent.get("/v1/allocs?job=web");
    assert_eq!(allocs, json!([]), "nothing is tried");
    let free = strangers.pop().unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    agent.wait("/v1/jobs/web", "healthy", |job| job["state"] == "healthy");
    assert_eq!(port_of(&agent.get("/v1/allocs?job=web")[0]), port);
    agent.stop_job("web");
}

#[test]
fn a_port_that_is_taken_before_the_start_ends_in_a_new_place_and_not_in_restarts() {
    let agent = Agent::found("one");
    // So that the next number is known, and the agent has looked just before somebody takes it.
    agent.run(&web(None));
    let first = port_of(&agent.get("/v1/allocs?job=web")[0]);
    agent.stop_job("web");
    let _stranger = TcpListener::bind(("127.0.0.1", first + 1)).unwrap();
    agent.run(&web(None));
    let allocs = agent.get("/v1/allocs?job=web");
    let alloc = &allocs[0];
    assert!(port_of(alloc) > first + 1, "{alloc:#}");
    assert_eq!(alloc["row"]["restarts"], 0, "{alloc:#}");
    agent.stop_job("web");
}

#[test]
fn a_strangers_answer_makes_nobody_healthy() {
    let agent = Agent::found("one");
    submit(&agent, &idle(None));
    let allocs = agent
        .wait("/v1/allocs?job=web", "running", |allocs| allocs[0]["row"]["phase"] == "running");
    // It takes the port that the task has, and does not use.
    let port = port_of(&allocs[0]);
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in stranger.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let me = format!("(pid {}), which is no part of this task", std::process::id());
    let expected = format!("port {port} (http) is answered by ");
    agent.wait("/v1/allocs?job=web&all=true", "told whose answer that is", |allocs| {
        let troubles = allocs.as_array().unwrap().iter().filter_map(|alloc| {
            assert_eq!(alloc["row"]["healthy"], false, "{alloc:#}");
            alloc["row"]["trouble"].as_str()
        });
        troubles.into_iter().any(|said| said.contains(&expected) && said.contains(&me))
    });
    agent.stop_job("web");
}
