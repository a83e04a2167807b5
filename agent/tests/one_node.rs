//! One real agent on a machine without systemd: a job's life, and the agent's own death in the middle.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod agent;

use agent::{Agent, PATIENCE, job};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn web() -> Value {
    let mut web = job(
        "web",
        &["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "${port.http}"],
    );
    web["ports"] = json!([{"name": "http", "fixed": null}]);
    web["resources"]["cpu"] = json!({"exclusive": {"cores": 1, "smt": "whole"}});
    web
}

fn only_alloc(agent: &Agent) -> Value {
    let allocs = agent.get("/v1/allocs?job=web");
    let [only] = allocs.as_array().unwrap().as_slice() else { panic!("{allocs:#}") };
    only.clone()
}

fn fetch(port: u64) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn wait_for_page(port: u64) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        match fetch(port) {
            Ok(page) if page.contains("200 OK") => return page,
            other => assert!(Instant::now() < until, "no page: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_job_outlives_the_agent_and_is_found_again() {
    let mut agent = Agent::found("one");
    agent.run(&web());
    let before = only_alloc(&agent);
    let pid = before["row"]["pid"].as_u64().unwrap();
    let port = before["row"]["claim"]["ports"]["http"].as_u64().unwrap();
    assert!(wait_for_page(port).contains("Directory listing"));
    let claimed = before["row"]["claim"]["cpus"].as_str().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    assert_eq!(allowed.map(str::trim), Some(claimed), "pinned to what was claimed");

    agent.kill();
    assert!(wait_for_page(port).contains("200 OK"), "the work goes on without the agent");
    agent.restart();
    let after = only_alloc(&agent);
    assert_eq!(after["row"]["pid"], pid, "the same process");
    assert_eq!(after["row"]["restarts"], 0);
    assert_eq!(after["id"], before["id"]);
    assert_eq!(agent.get("/v1/jobs/web")["state"], "healthy");

    // The agent looks after it again: a stop reaches it.
    agent.stop_job("web");
    assert!(fetch(port).is_err(), "nothing answers any more");
    let ended = agent.get("/v1/allocs?job=web&all=true");
    assert_eq!(ended[0]["row"]["phase"], "ended", "{ended:#}");
}

#[test]
fn a_signal_ends_the_agent_cleanly_and_leaves_the_work_running() {
    let mut agent = Agent::found("one");
    agent.run(&job("sleeper", &["/usr/bin/sleep", "1000"]));
    let pid = agent.get("/v1/allocs")[0]["row"]["pid"].as_u64().unwrap();
    assert!(agent.stop(), "{}", agent.log());
    assert!(!agent.socket().exists(), "the socket is taken away");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.starts_with("/usr/bin/sleep"), "{command}");
    agent.restart();
    assert_eq!(agent.get("/v1/allocs")[0]["row"]["pid"], pid);
    agent.stop_job("sleeper");
}

#[test]
fn a_task_that_died_while_the_agent_was_away_is_started_again() {
    let mut agent = Agent::found("one");
    agent.run(&job("sleeper", &["/usr/bin/sleep", "1000"]));
    let pid = agent.get("/v1/allocs")[0]["row"]["pid"].as_u64().unwrap();
    agent.kill();
    let process = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    agent.restart();
    agent.wait("/v1/allocs?job=sleeper", "running again", |allocs| {
        let row = &allocs[0]["row"];
        row["phase"] == "running" && row["pid"].as_u64().is_some_and(|other| other != pid)
    });
    agent.stop_job("sleeper");
}

/// The row of what failed is gone by then, and what runs is the version before.
#[test]
fn why_a_version_was_taken_back_can_be_read_afterwards() {
    let agent = Agent::found("back");
    let mut app = job("app", &["/bin/sh", "-c", "echo first is up; exec sleep 1000"]);
    agent.run(&app);
    let wait =
        |what: &str, wanted: &dyn Fn(&Value) -> bool| agent.wait("/v1/jobs/app", what, wanted);
    let healthy = |job: &Value| job["healthy"] == 1 && job["state"] == "healthy";
    wait("the first version is healthy", &healthy);
    app["task"]["command"] =
        json!(["/bin/sh", "-c", "echo opening; echo no module named http.servr >&2; exit 3"]);
    app["restart"]["attempts"] = json!(0);
    agent.call("PUT", "/v1/jobs/app", Some(&app)).expect(200);
    let back = |job: &Value| job["state"] == "reverted" && job["healthy"] == 1;
    let job = wait("the first version runs again", &back);
    let reason = job["reason"].as_str().unwrap();
    assert!(reason.contains("version 2 failed (app/0 on"), "{reason}");
    assert!(reason.contains("exit status 3"), "{reason}");
    assert!(job["failed"]["reason"].as_str().unwrap().contains("exit status 3"), "{job:#}");

    let log = |query: &str| agent.call("GET", &format!("/v1/jobs/app/logs?{query}"), None);
    let now = log("").expect(200).body;
    assert_eq!(now, "first is up\n");
    let previous = log("previous=true").expect(200).body;
    assert_eq!(previous, "opening\nno module named http.servr\n");
    let epoch = job["failed"]["alloc"]["epoch"].as_u64().unwrap();
    assert_eq!(
        log(&format!("epoch={epoch}&stream=stderr")).expect(200).body,
        "no module named http.servr\n"
    );
    // The first of all has its log, too, although its row is long gone.
    assert_eq!(log("epoch=1").expect(200).body, "first is up\n");
    let none = log("epoch=999").expect(404).body;
    assert!(none.contains("none of app/0@999"), "{none}");
    log("epoch=1&previous=true").expect(400);

    // Another version: what was wrong with the one before is nobody's business any more.
    app["task"]["command"] = json!(["/bin/sh", "-c", "echo third is up; exec sleep 1000"]);
    agent.call("PUT", "/v1/jobs/app", Some(&app)).expect(200);
    let job = wait("the third version is healthy", &healthy);
    assert!(job.get("failed").is_none(), "{job:#}");
    assert_eq!(log("previous=true").expect(200).body, "first is up\n", "the one before");
}

/// One line for each thing that happens to work, with names, and by whom where somebody wished it.
#[test]
fn the_agents_own_log_says_what_happened_to_work_and_by_whom() {
    let agent = Agent::found("told");
    let well = agent.state().join("well");
    std::fs::write(&well, "").unwrap();
    let mut web = job("web", &["/bin/sleep", "1000"]);
    web["health"] = json!({
        "check": {"command": {"command": ["/usr/bin/test", "-e", well.to_str().unwrap()]}},
        "interval": "1s", "timeout": "1s", "failures": 1, "grace": "0s"
    });
    web["restart"]["attempts"] = json!(10_000);
    agent.run(&web);
    let restarts = |at_least: u64| {
        agent.wait("/v1/allocs?job=web", "restarted and healthy", |allocs| {
            let row = &allocs[0]["row"];
            row["healthy"] == true && row["restarts"].as_u64().is_some_and(|now| now >= at_least)
        })
    };
    // Somebody kills it behind the agent's back.
    let pid = restarts(0)[0]["row"]["pid"].as_i64().unwrap() as i32;
    let process = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    restarts(1);
    std::fs::remove_file(&well).unwrap();
    agent.wait("/v1/allocs?job=web", "not healthy", |allocs| allocs[0]["row"]["healthy"] == false);
    std::fs::write(&well, "").unwrap();
    let pid = restarts(2)[0]["row"]["pid"].clone();
    let answer = agent.call("POST", "/v1/jobs/web/restart", Some(&json!({"slot": 0})));
    assert!((200..300).contains(&answer.status), "{}", answer.body);
    agent.wait("/v1/allocs?job=web", "another process, healthy", |allocs| {
        allocs[0]["row"]["healthy"] == true && allocs[0]["row"]["pid"] != pid
    });
    let mut changed = web.clone();
    changed["task"]["command"] = json!(["/bin/sleep", "2000"]);
    agent.run(&changed);
    agent.stop_job("web");

    let log = agent.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("web")).collect();
    let mut left = told.iter();
    for expected in [
        "job web version 1: submitted by root@told",
        "web/0@1 is running, healthy",
        "killed by SIGKILL",
        "web/0@1 is running, healthy",
        "health check failed",
        "root@told restarts web/0",
        "job web version 2: submitted by root@told",
        "root@told stops job web",
        "is ended",
    ] {
        assert!(
            left.any(|line| line.contains(expected)),
            "no line, or not in this order: {expected:?}\n{}",
            told.join("\n")
        );
    }
    assert!(!told.iter().any(|line| line.contains("node=node:")), "{told:#?}");
}

#[test]
fn a_restart_of_the_agent_keeps_the_fabric_its_jobs_and_its_tokens() {
    let mut agent = Agent::found("one");
    let key = agent.get("/v1/status")["fabric"]["key"].clone();
    agent.run(&job("sleeper", &["/usr/bin/sleep", "1000"]));
    agent.call("POST", "/v1/jobs/sleeper/scale", Some(&json!({"count": 0}))).expect(200);
    agent.call("POST", "/v1/tokens", None).expect(200);
    agent.kill();
    agent.restart();
    let status = agent.get("/v1/status");
    assert_eq!(status["fabric"]["key"], key);
    assert_eq!(status["fabric"]["nodes"], json!({"alive": 1}));
    let job = agent.get("/v1/jobs/sleeper");
    assert_eq!((&job["version"], &job["wanted"]), (&json!(2), &json!(0)));
    assert_eq!(agent.get("/v1/tokens").as_array().unwrap().len(), 1);
    agent.call("POST", "/v1/fabric/init", None).expect(409);
    agent.stop_job("sleeper");
}

#[test]
fn disk_is_promised_once_and_who_wants_more_waits_and_is_told_the_figures() {
    let mut agent = Agent::found("one");
    // A fabric of one has reached the level of its agent a moment after it was made.
    let node = agent.wait("/v1/nodes", "a pool of disk", |nodes| {
        nodes[0]["info"]["topology"]["pools"][0]["capacity"].as_u64().is_some_and(|all| all > 0)
    });
    let pool = node[0]["info"]["topology"]["pools"][0].clone();
    let capacity = pool["capacity"].as_u64().unwrap();
    assert_eq!(pool["name"], "default");
    assert_eq!(node[0]["free"]["disk"], capacity);
    let wants = |name: &str, disk: u64| {
        let mut job = job(name, &["/usr/bin/sleep", "1000"]);
        job["resources"]["disk"] = json!(disk);
        job
    };
    let most = capacity / 4 * 3;
    agent.run(&wants("first", most));
    assert_eq!(agent.get("/v1/allocs?job=first")[0]["row"]["claim"]["disk"], most);
    assert_eq!(agent.get("/v1/nodes")[0]["free"]["disk"], capacity - most);

    agent.call("PUT", "/v1/jobs/second", Some(&wants("second", most))).expect(200);
    let why = agent.wait("/v1/jobs/second/explain", "a reason", |explanation| {
        explanation["nodes"][0]["rejection"]["disk"].is_object()
    });
    let figures = &why["nodes"][0]["rejection"]["disk"];
    let expected = json!({
        "pool": "default", "wanted": most, "free": capacity - most, "of": capacity
    });
    assert_eq!(*figures, expected);
    assert_eq!(agent.get("/v1/allocs?job=second"), json!([]), "it waits");
    // What is promised is known to the next agent, and so is what it found: what has been written since may be the job's.
    agent.kill();
    let written = (capacity / 8).max(3 << 29);
    let file = agent.state().join("written");
    let length = written.to_string();
    let there = std::process::Command::new("fallocate").arg("-l").arg(length).arg(&file).status();
    let is_written = there.is_ok_and(|status| status.success());
    if !is_written {
        eprintln!("skipped in part: no file of {written} bytes can be made here");
    }
    agent.restart();
    let node =
        agent.wait("/v1/nodes", "the claim", |nodes| nodes[0]["free"]["disk"] == capacity - most);
    assert_eq!(node[0]["info"]["topology"]["pools"][0], pool);
    agent.stop_job("first");
    agent.wait("/v1/allocs?job=second", "room for the second", |allocs| {
        allocs[0]["row"]["phase"] == "running"
    });
    agent.stop_job("second");
    if is_written {
        // Nobody has a claim any more, so it is somebody else's. A job that gets a core is a reason to look.
        agent.run(&web());
        agent.wait("/v1/nodes", "a smaller pool", |nodes| {
            let pool = &nodes[0]["info"]["topology"]["pools"][0];
            pool["capacity"].as_u64().is_some_and(|now| now < capacity)
                && pool["capacity"] == nodes[0]["free"]["disk"]
        });
        agent.stop_job("web");
    }
}

#[test]
fn two_agents_cannot_share_a_state_directory_or_a_socket() {
    let agent = Agent::start("one");
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_weftd"))
        .arg("--config")
        .arg(agent.state().parent().unwrap().join("weftd.toml"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another agent uses this state directory"), "{said}");
    assert_eq!(agent.get("/v1/status")["name"], "one", "the first is not disturbed");
}

/// The only voter is killed, and goes on as the one that it was: longer than a lease lasts its work runs on. A word of farewell
/// beside an agent that is there changes nothing of that.
#[test]
fn leased_work_outlives_a_crash_of_the_only_voter() {
    let mut agent = Agent::found("voter");
    let mut leased = job("leased", &["/bin/sleep", "1000"]);
    leased["guarantee"] = json!("at-most-one");
    agent.run(&leased);
    let pid = agent.get("/v1/allocs?job=leased")[0]["row"]["pid"].clone();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_weftd"))
        .args(["farewell", "--config"])
        .arg(agent.state().parent().unwrap().join("weftd.toml"))
        .output()
        .unwrap();
    let said_words = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && said_words.contains("another agent"), "{said_words}");
    for _ in 0..2 {
        agent.kill();
        agent.restart();
        std::thread::sleep(Duration::from_secs(12));
        let alloc = agent.get("/v1/allocs?job=leased")[0].clone();
        assert_eq!(alloc["row"]["pid"], pid, "{alloc:#}\n{}", agent.log());
        assert_eq!(alloc["row"]["healthy"], true, "{alloc:#}");
    }
    agent.stop_job("leased");
}

#[test]
fn a_configuration_that_makes_no_sense_is_exit_2_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weftd.toml");
    std::fs::write(&path, "[listen]\nprot = 1\n").unwrap();
    let weftd = |arguments: &[&std::ffi::OsStr]| {
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_weftd"))
            .args(arguments)
            .output()
            .unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (code, said) = weftd(&["--config".as_ref(), path.as_os_str()]);
    assert_eq!(code, Some(2));
    assert!(said.contains("2:1") && said.contains("did you mean \"port\"?"), "{said}");
    let (code, said) = weftd(&["--confg".as_ref()]);
    assert_eq!((code, said.contains("--config")), (Some(2), true), "{said}");
}

#[test]
fn the_service_manager_is_told_that_it_is_ready_how_it_stands_and_that_it_turns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let agent = Agent::start_with(
        "one",
        &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000")],
    );
    agent.call("POST", "/v1/fabric/init", None).expect(200);
    let mut told = Vec::new();
    let mut buffer = [0; 4096];
    let wanted = ["READY=1", "WATCHDOG=1", "STATUS=weft: 1 nodes alive, 0 of 0 slots healthy"];
    while !wanted.iter().all(|line| told.iter().any(|said: &String| said.contains(line))) {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {told:?}"));
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let ready = told.iter().position(|said| said.contains("READY=1"));
    let turns = told.iter().position(|said| said.contains("WATCHDOG=1"));
    assert!(ready < turns, "{told:?}");
}
