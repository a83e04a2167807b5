//! The API of a real agent over its Unix socket: every path, bad callers, and two agents together.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod agent;
#[path = "agent/schema.rs"]
mod schema;

use agent::{Agent, PATIENCE, Response, connect, job, read_chunk, read_response, request};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

fn sleeper() -> Value {
    job("sleeper", &["/usr/bin/sleep", "1000"])
}

#[test]
fn without_a_fabric_only_what_makes_one_is_answered() {
    let agent = Agent::start("alone");
    assert_eq!(agent.get("/v1/status")["fabric"], Value::Null);
    agent.call("GET", "/healthz", None).expect(200);
    agent.call("GET", "/v1/doctor", None).expect(200);
    agent.call("GET", "/metrics", None).expect(200);
    agent.call("GET", "/api/v1/query?query=1", None).expect(200);
    let elsewhere = [
        ("GET", "/v1/nodes"),
        ("GET", "/v1/nodes/alone"),
        ("DELETE", "/v1/nodes/alone"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/web"),
        ("DELETE", "/v1/jobs/web"),
        ("GET", "/v1/jobs/web/explain"),
        ("GET", "/v1/jobs/web/versions"),
        ("GET", "/v1/jobs/web/logs"),
        ("GET", "/v1/allocs"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("GET", "/readyz"),
    ];
    for (method, target) in elsewhere {
        let problem = agent.call(method, target, None).expect(503).json();
        assert_eq!(problem["title"], "no fabric yet", "{method} {target}");
        assert!(problem["detail"].as_str().unwrap().contains("weft init"), "{problem}");
    }
    agent.call("PUT", "/v1/jobs/sleeper", Some(&sleeper())).expect(503);
    let refused = agent.call("POST", "/v1/fabric/join", Some(&json!({"token": "weft1.a.b"})));
    assert_eq!(refused.expect(400).json()["title"], "not a token");
    assert_eq!(agent.get("/v1/status")["fabric"], Value::Null);
}

#[test]
fn every_answer_is_as_the_document_says() {
    let agent = Agent::start("one");
    let document = agent.get("/v1/openapi.json");
    let check = |name: &str, value: &Value| schema::check(&document, name, value);
    check("Status", &agent.get("/v1/status"));
    check("Problem", &agent.call("GET", "/v1/jobs", None).expect(503).json());

    check("Joined", &agent.call("POST", "/v1/fabric/init", None).expect(200).json());
    check("Status", &agent.get("/v1/status"));
    agent.call("GET", "/readyz", None).expect(200);
    check("NodeView", &agent.get("/v1/nodes")[0]);
    check("NodeView", &agent.get("/v1/nodes/one"));

    let mut spec = sleeper();
    spec["count"] = json!(2);
    check("JobSpec", &spec);
    check("Plan", &agent.call("POST", "/v1/plan", Some(&spec)).expect(200).json());
    let submitted = agent.call("PUT", "/v1/jobs/sleeper?expected_version=0", Some(&spec));
    check("Submitted", &submitted.expect(200).json());
    agent.wait("/v1/jobs/sleeper", "healthy", |job| job["state"] == "healthy");
    check("JobView", &agent.get("/v1/jobs")[0]);
    check("JobView", &agent.get("/v1/jobs/sleeper"));
    check("AllocView", &agent.get("/v1/allocs?job=sleeper")[0]);
    check("NodeView", &agent.get("/v1/nodes/one"));
    check("Explanation", &agent.get("/v1/jobs/sleeper/explain"));
    check("JobVersion", &agent.get("/v1/jobs/sleeper/versions")[0]);
    spec["resources"]["memory"] = json!(67_108_864);
    spec["placement"]["constraints"] = json!(["arch == \"none\""]);
    let plan = agent.call("POST", "/v1/plan", Some(&spec)).expect(200).json();
    check("Plan", &plan);
    assert!(!plan["changes"].as_array().unwrap().is_empty(), "{plan:#}");
    assert!(!plan["unplaceable"].as_array().unwrap().is_empty(), "{plan:#}");

    let scaled = agent.call("POST", "/v1/jobs/sleeper/scale", Some(&json!({"count": 1})));
    check("Submitted", &scaled.expect(200).json());
    let before = agent.wait("/v1/allocs?job=sleeper", "one left", |allocs| {
        allocs.as_array().is_some_and(|allocs| allocs.len() == 1)
    });
    let restart = json!({"slot": 0});
    agent.call("POST", "/v1/jobs/sleeper/restart", Some(&restart)).expect(204);
    agent.wait("/v1/allocs?job=sleeper", "restarted", |allocs| {
        let (old, new) = (&before[0]["row"]["pid"], &allocs[0]["row"]["pid"]);
        allocs[0]["row"]["phase"] == "running" && new.is_u64() && old != new
    });
    let restarted = agent.call("POST", "/v1/jobs/sleeper/restart", None);
    check("Submitted", &restarted.expect(200).json());

    let token = agent.call("POST", "/v1/tokens", Some(&json!({"lifetime": "10m"}))).expect(200);
    check("TokenCreated", &token.json());
    check("TokenView", &agent.get("/v1/tokens")[0]);
    let id = token.json()["id"].as_str().unwrap().to_owned();
    agent.call("DELETE", &format!("/v1/tokens/{id}"), None).expect(204);
    assert_eq!(agent.get("/v1/tokens"), json!([]));
    agent.call("DELETE", &format!("/v1/tokens/{id}"), None).expect(404);

    assert_eq!(agent.get("/v1/waiting"), json!([]));
    agent.call("GET", "/v1/waiting/nobody", None).expect(404);
    agent.call("POST", "/v1/waiting/nobody/approve", None).expect(404);

    let quota = json!({"quota": {"cpu_millis": 500}});
    agent.call("PUT", "/v1/quotas/default", Some(&quota)).expect(204);
    check("QuotaView", &agent.get("/v1/quotas")[0]);
    let mut huge = sleeper();
    (huge["name"], huge["count"]) = (json!("huge"), json!(100));
    let refused = agent.call("PUT", "/v1/jobs/huge", Some(&huge)).expect(409).json();
    assert!(refused["detail"].as_str().unwrap().contains("of 0.5 CPUs"), "{refused}");
    agent.call("DELETE", "/v1/quotas/default", None).expect(204);
    agent.call("DELETE", "/v1/quotas/default", None).expect(404);

    agent.call("POST", "/v1/nodes/one/drain", Some(&json!({"on": true}))).expect(204);
    agent.wait("/v1/nodes/one", "draining", |node| node["info"]["draining"] == true);
    agent.call("POST", "/v1/nodes/one/drain", Some(&json!({"on": false}))).expect(204);
    agent.stop_job("sleeper");
    for alloc in agent.get("/v1/allocs?all=true").as_array().unwrap() {
        check("AllocView", alloc);
    }
    for finding in agent.get("/v1/doctor").as_array().unwrap() {
        check("Finding", finding);
    }
    let events = agent.call("GET", "/v1/events", None).expect(200);
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let data: Vec<&str> =
        events.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert!(data.len() > 5, "{}", events.body);
    for event in data {
        check("Event", &serde_json::from_str(event).unwrap());
    }
}

#[test]
fn a_submit_on_a_wrong_version_changes_nothing() {
    let agent = Agent::found("one");
    agent.run(&sleeper());
    let mut other = sleeper();
    other["resources"]["memory"] = json!(67_108_864);
    let put = |version: u32| {
        agent.call("PUT", &format!("/v1/jobs/sleeper?expected_version={version}"), Some(&other))
    };
    put(0).expect(409);
    put(7).expect(409);
    assert_eq!(agent.get("/v1/jobs/sleeper")["version"], 1);
    assert_eq!(put(1).expect(200).json()["version"], 2);
    agent.stop_job("sleeper");
}

#[test]
fn what_does_not_exist_is_404_with_the_nearest_name() {
    let agent = Agent::found("one");
    agent.run(&sleeper());
    for target in ["/v1/jobs/sleper", "/v1/jobs/sleper/explain", "/v1/jobs/sleper/logs"] {
        let problem = agent.call("GET", target, None).expect(404).json();
        assert_eq!(problem["type"], "not-found", "{target}");
        let detail = problem.to_string();
        assert!(target.contains("explain") || detail.contains("sleeper"), "{target}: {detail}");
    }
    agent.call("GET", "/v1/nodes/two", None).expect(404);
    agent.call("POST", "/v1/nodes/two/drain", Some(&json!({"on": true}))).expect(404);
    agent.call("DELETE", "/v1/nodes/two", None).expect(404);
    agent.call("DELETE", "/v1/jobs/none", None).expect(404);
    agent.call("GET", "/v1/jobs/sleeper/logs?slot=5", None).expect(404);
    agent.stop_job("sleeper");
}

#[test]
fn logs_are_read_from_the_end_and_followed() {
    let agent = Agent::found("one");
    let talk = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; \
                while sleep 0.2; do echo more; done";
    agent.run(&job("talker", &["/bin/sh", "-c", talk]));
    let until = Instant::now() + PATIENCE;
    while !agent.call("GET", "/v1/jobs/talker/logs", None).expect(200).body.contains("more") {
        assert!(Instant::now() < until, "the task printed nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    let errors = agent.call("GET", "/v1/jobs/talker/logs?stream=stderr&tail=2", None).expect(200);
    assert_eq!(errors.body, "err 2\nerr 3\n");
    assert_eq!(errors.header("content-type"), Some("text/plain; charset=utf-8"));
    let all = agent.call("GET", "/v1/jobs/talker/logs?stream=stdout&tail=1000", None).expect(200);
    assert!(all.body.starts_with("out 1\nout 2\nout 3\nmore\n"), "{}", all.body);

    let mut stream = agent.connect();
    write!(
        stream,
        "GET /v1/jobs/talker/logs?tail=0&follow=true&stream=stdout HTTP/1.1\r\nhost: weft\r\n\r\n"
    )
    .unwrap();
    let mut stream = BufReader::new(stream);
    skip_head(&mut stream);
    for _ in 0..3 {
        let chunk = read_chunk(&mut stream).unwrap().expect("more to come");
        assert!(chunk.starts_with(b"more\n"), "{:?}", String::from_utf8_lossy(&chunk));
    }
    drop(stream);
    agent.stop_job("talker");
}

#[test]
fn events_reach_a_listener_as_they_happen() {
    let agent = Agent::found("one");
    let mut stream = agent.connect();
    write!(stream, "GET /v1/events?follow=true HTTP/1.1\r\nhost: weft\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    skip_head(&mut stream);
    agent.run(&sleeper());
    let mut seen = String::new();
    while !seen.contains("\"phase\":\"running\"") {
        let chunk = read_chunk(&mut stream).unwrap().expect("more to come");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains("\"event\":\"job\"") && seen.contains("sleeper"), "{seen}");
    agent.stop_job("sleeper");
}

#[test]
fn counters_are_in_the_text_format() {
    let agent = Agent::found("one");
    let metrics = agent.call("GET", "/metrics", None).expect(200);
    let media = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(metrics.header("content-type"), media);
    let mut families = 0;
    for line in metrics.body.lines() {
        if line.starts_with("# TYPE ") {
            families += 1;
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            assert!(name.starts_with("weft_") || name.starts_with("node_"), "{line}");
            assert!(name.contains("node=\"one\""), "{line}");
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    assert!(families > 15, "{}", metrics.body);
    let of = |name: &str| {
        let line = metrics.body.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
    };
    assert_eq!(of("weft_nodes{node=\"one\",state=\"alive\"}").as_deref(), Some("1"));
    assert_ne!(of("weft_api_calls_total").as_deref(), Some("0"));
}

#[test]
fn wrong_methods_and_paths_say_what_is_right() {
    let agent = Agent::start("one");
    let response = agent.call("PATCH", "/v1/jobs/web", None).expect(405);
    assert_eq!(response.header("allow"), Some("GET, PUT, DELETE"));
    let problem = agent.call("GET", "/v1/stauts", None).expect(404).json();
    assert!(problem["detail"].as_str().unwrap().contains("/v1/status"), "{problem}");
    let problem = agent.call("GET", "/v1/status?verbose=1", None).expect(400).json();
    assert!(problem["detail"].as_str().unwrap().contains("verbose"), "{problem}");
    assert_eq!(
        agent.call("GET", "/v1/status?verbose=1", None).header("content-type"),
        Some("application/problem+json")
    );
}

/// Bytes that are no request, and what may come back.
#[test]
fn garbage_is_answered_or_dropped_and_changes_nothing() {
    let agent = Agent::found("one");
    let long = vec![b'a'; 1 << 20];
    let mut many_headers = b"GET /v1/status HTTP/1.1\r\n".to_vec();
    for index in 0..2000 {
        many_headers.extend(format!("x-{index}: y\r\n").into_bytes());
    }
    many_headers.extend(b"\r\n");
    let rows: [&[u8]; 14] = [
        b"",
        b"\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"PUT /v1/jobs/web HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/jobs/web HTTP/1.1\r\ncontent-length: 4\r\n\r\n\xff\xfe\xfd\xfc",
        b"GET /v1/jobs/%00%ff HTTP/1.1\r\n\r\n",
        &long,
        &many_headers,
    ];
    for bytes in rows {
        let mut stream = agent.connect();
        // The agent may close while we still write.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let shown: String = String::from_utf8_lossy(bytes).chars().take(60).collect();
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"),
            "{shown:?} got {text}"
        );
    }
    assert_eq!(agent.get("/v1/jobs"), json!([]));
}

#[test]
fn a_body_that_is_too_large_is_refused_whether_or_not_it_says_so() {
    let agent = Agent::found("one");
    let large = vec![b' '; 1 << 20];
    let response = request(agent.connect(), "PUT", "/v1/jobs/web", &large).unwrap();
    assert_eq!(response.expect(413).json()["type"], "too-large");

    let mut stream = agent.connect();
    write!(stream, "PUT /v1/jobs/web HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &large[..1 << 16], b"\r\n"].concat();
    for _ in 0..16 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let response = read_response(BufReader::new(stream)).unwrap();
    assert_eq!(response.status, 413, "{}", response.body);
}

#[test]
fn callers_past_the_limit_are_turned_away_and_the_others_served() {
    let agent = Agent::start("one");
    let mut held: Vec<_> = (0..128).map(|_| agent.connect()).collect();
    // Connections are accepted in order: this one is past the limit.
    let turned_away = || -> bool {
        let stream = connect(&agent.socket()).expect("the kernel accepts it");
        let response: Option<Response> = request(stream, "GET", "/v1/status", b"").ok();
        response.is_none_or(|response| response.status == 503)
    };
    assert!(turned_away());
    let first = held.remove(0);
    let response = request(first, "GET", "/v1/status", b"").unwrap();
    assert_eq!(response.status, 200, "one that was let in is served");
    drop(held);
    let until = Instant::now() + PATIENCE;
    while turned_away() {
        assert!(Instant::now() < until, "the places are not given back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_health_check_decides_and_goes_on_after_the_agent_is_back() {
    let mut agent = Agent::found("one");
    let flag = agent.state().join("well");
    std::fs::write(&flag, "").unwrap();
    let mut checked = sleeper();
    checked["health"] = json!({
        "check": {"command": {"command": ["/usr/bin/test", "-e", flag.to_str().unwrap()]}},
        "interval": "1s", "timeout": "1s", "failures": 2, "grace": "0s"
    });
    // It is restarted for as long as it is unhealthy, and never given up.
    checked["restart"]["attempts"] = json!(10_000);
    agent.run(&checked);
    let healthy = |wanted: bool| move |allocs: &Value| allocs[0]["row"]["healthy"] == wanted;
    std::fs::remove_file(&flag).unwrap();
    agent.wait("/v1/allocs?job=sleeper", "unhealthy", healthy(false));
    agent.kill();
    agent.restart();
    std::fs::write(&flag, "").unwrap();
    agent.wait("/v1/allocs?job=sleeper", "healthy again", healthy(true));
    agent.stop_job("sleeper");
}

#[test]
fn the_disk_refusing_is_told_and_nothing_is_lost() {
    let agent = Agent::found("one");
    let finding = |agent: &Agent| {
        let findings = agent.get("/v1/doctor");
        let disk = findings.as_array().unwrap().iter().find(|finding| finding["check"] == "disk");
        disk.unwrap()["level"].clone()
    };
    assert_eq!(finding(&agent), "ok");
    // Root writes through any mode, so the directory itself goes away.
    let aside = agent.state().with_extension("aside");
    std::fs::rename(agent.state(), &aside).unwrap();
    assert_eq!(finding(&agent), "error");
    std::fs::rename(&aside, agent.state()).unwrap();
    assert_eq!(finding(&agent), "ok");
}

fn token(agent: &Agent) -> String {
    let created = agent.call("POST", "/v1/tokens", None).expect(200).json();
    created["token"].as_str().unwrap().to_owned()
}

fn join(joiner: &Agent, token: &str, member: &Agent) -> Response {
    let address = format!("127.0.0.1:{}", member.port);
    let wanted = json!({"token": token, "address": address});
    joiner.call("POST", "/v1/fabric/join", Some(&wanted))
}

fn all_alive(agent: &Agent, count: usize) {
    agent.wait("/v1/status", "all alive", |status| {
        status["fabric"]["nodes"] == json!({"alive": count})
    });
}

#[test]
fn a_second_node_joins_runs_work_and_shows_its_log_anywhere() {
    let first = Agent::found("first");
    let second = Agent::start("second");
    let joined = join(&second, &token(&first), &first).expect(200).json();
    assert_eq!(joined["by"], "first");
    assert_eq!(joined["key"], first.get("/v1/status")["fabric"]["key"]);
    all_alive(&first, 2);
    all_alive(&second, 2);

    let mut spec = job("talker", &["/bin/sh", "-c", "echo here; exec sleep 1000"]);
    spec["placement"]["constraints"] = json!(["name == \"second\""]);
    first.run(&spec);
    assert_eq!(first.get("/v1/allocs")[0]["node_name"], "second");
    let log = || first.call("GET", "/v1/jobs/talker/logs", None).expect(200).body;
    // It runs, which does not mean that its shell has come as far as the first word.
    let until = Instant::now() + PATIENCE;
    while log().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(log(), "here\n", "read through the other node");
    second.wait("/v1/jobs/talker", "known there too", |job| job["state"] == "healthy");
    let problem = first.call("GET", "/v1/jobs/talker/logs?slot=3", None).expect(404).json();
    assert!(problem["detail"].as_str().unwrap().contains("slot 3"), "{problem}");
    second.stop_job("talker");
    first.wait("/v1/allocs", "nothing", |allocs| allocs == &json!([]));
}

/// Not a promise but its limit: what a job says in `env` is kept by every node, and shown by each to whoever may use its socket.
#[test]
fn every_node_shows_the_environment_of_every_job() {
    let first = Agent::found("first");
    let second = Agent::start("second");
    join(&second, &token(&first), &first).expect(200);
    let mut spec = sleeper();
    spec["task"]["env"] = json!({"PASSWORD": "hunter2"});
    spec["placement"]["constraints"] = json!(["name == \"first\""]);
    first.run(&spec);
    let job = second.wait("/v1/jobs/sleeper", "known there", |job| job["state"] == "healthy");
    assert_eq!(job["spec"]["task"]["env"]["PASSWORD"], "hunter2");
    first.stop_job("sleeper");
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let first = Agent::found("first");
    let stranger = Agent::found("stranger");
    let joiner = Agent::start("joiner");
    let foreign = join(&joiner, &token(&stranger), &first).expect(403).json();
    assert_eq!(foreign["title"], "another fabric");
    let revoked = token(&first);
    let id = first.get("/v1/tokens")[0]["id"].as_str().unwrap().to_owned();
    first.call("DELETE", &format!("/v1/tokens/{id}"), None).expect(204);
    join(&joiner, &revoked, &first).expect(403);
    assert_eq!(joiner.get("/v1/status")["fabric"], Value::Null);
    assert_eq!(first.get("/v1/nodes").as_array().unwrap().len(), 1);
    // The right one still works, and then it belongs somewhere.
    join(&joiner, &token(&first), &first).expect(200);
    join(&joiner, &token(&stranger), &stranger).expect(409);
}

#[test]
fn a_removed_node_is_locked_out() {
    let first = Agent::found("first");
    let second = Agent::start("second");
    join(&second, &token(&first), &first).expect(200);
    all_alive(&first, 2);
    first.call("DELETE", "/v1/nodes/second", None).expect(204);
    first.wait("/v1/nodes", "alone", |nodes| nodes.as_array().is_some_and(|n| n.len() == 1));
    // What it says is refused from now on: datagrams of the old key, from nobody of ours.
    let refused = |agent: &Agent| -> u64 {
        let metrics = agent.call("GET", "/metrics", None).expect(200).body;
        let lines = metrics.lines().filter(|line| {
            line.starts_with("weft_gossip_refused_total")
                || line.starts_with("weft_streams_refused")
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    let before = refused(&first);
    let until = Instant::now() + PATIENCE;
    while refused(&first) == before {
        assert!(Instant::now() < until, "the removed node said nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(first.get("/v1/status")["fabric"]["nodes"], json!({"alive": 1}));
    // Who asks it to join again hears what is in the way of that.
    let told = |status: &Value| status["warnings"].to_string().contains("was removed");
    second.wait("/v1/status", "knows of its removal", told);
    let refused = join(&second, &token(&first), &first).expect(409).json();
    assert_eq!(refused["title"], "this node was removed from its fabric");
    assert!(refused["detail"].to_string().contains("empty its state directory"), "{refused}");
}

#[test]
fn a_node_that_is_to_remove_itself_has_another_do_it() {
    let first = Agent::found("first");
    let refused = first.call("DELETE", "/v1/nodes/first", None).expect(409).json();
    assert_eq!(refused["title"], "first is the last member of its fabric", "{refused}");
    let (second, third) = (Agent::start("second"), Agent::start("third"));
    for other in [&second, &third] {
        join(other, &token(&first), &first).expect(200);
    }
    all_alive(&first, 3);
    all_alive(&third, 3);
    third.call("DELETE", "/v1/nodes/third", None).expect(204);
    let told = |status: &Value| status["fabric"]["removed"] == true;
    third.wait("/v1/status", "knows of its removal", told);
    for other in [&first, &second] {
        let two = |nodes: &Value| nodes.as_array().is_some_and(|nodes| nodes.len() == 2);
        other.wait("/v1/nodes", "without it", two);
    }
    // The key that they speak with is one that it has never seen.
    all_alive(&second, 2);
}

#[test]
fn who_names_a_job_that_there_is_not_hears_the_same_everywhere() {
    let first = Agent::found("first");
    for (method, path) in [
        ("GET", "/v1/jobs/nope"),
        ("GET", "/v1/jobs/nope/explain"),
        ("GET", "/v1/jobs/nope/versions"),
        ("GET", "/v1/jobs/nope/logs?slot=0"),
        ("DELETE", "/v1/jobs/nope"),
    ] {
        let problem = first.call(method, path, None).expect(404).json();
        assert_eq!(problem["title"], "there is no job nope", "{path}: {problem}");
        assert_eq!(problem["detail"], "`weft jobs` shows those that there are", "{path}");
    }
}

fn skip_head(stream: &mut impl BufRead) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the answer has no end of its head");
    }
}
