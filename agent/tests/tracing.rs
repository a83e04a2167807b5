//! Real agents in network namespaces that look closely at jobs: asked of a node where they do not run.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{Problem, TraceBody, TraceEvent, TraceWhat};
use fabric::id::JobName;
use fabric::job::JobSpec;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use testbed::{Lab, Machine, api};

/// Opens a file that is there and one that is not, starts a program, and counts a little, again and again.
const BUSY: &str = "while :; do cat /proc/self/status /nowhere/at/all >/dev/null 2>&1; \
                    n=0; while [ $n -lt 5000 ]; do n=$((n + 1)); done; done";

fn busy(on: &str) -> JobSpec {
    let text = format!(
        "name = \"busy\"\n[task]\ncommand = [\"/bin/sh\", \"-c\", {BUSY:?}]\nstop_timeout = \"1s\"\n\
         [placement]\nconstraints = ['name == \"{on}\"']\n"
    );
    fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn body(what: TraceWhat, time: &str) -> String {
    let job = JobName::new("busy").unwrap();
    let body = TraceBody { what, job, slot: None, node: None, time: time.to_owned() };
    serde_json::to_string(&body).unwrap()
}

/// All events of a trace; or why there are none.
fn trace(machine: &Machine, what: TraceWhat, time: &str) -> Result<Vec<TraceEvent>, Problem> {
    let asked = api::exchange(&machine.socket(), "POST", "/v1/traces", Some(&body(what, time)));
    let (status, text) = asked.unwrap_or_else(|error| panic!("{}: {error}", machine.name));
    if status != 200 {
        return Err(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Ok(data.map(read).collect())
}

/// Begins a trace, and reads no more than that it has begun.
fn begin(machine: &Machine, what: TraceWhat) -> UnixStream {
    let body = body(what, "60s");
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    write!(
        stream,
        "POST /v1/traces HTTP/1.1\r\nhost: weft\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut seen = String::new();
    while !seen.contains("\"started\"") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    stream
}

/// What the machine cannot do is said aloud, and is a failure where it must.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{why}");
}

#[test]
fn any_node_traces_a_job_and_the_trace_is_gone_with_whoever_asked() {
    let Some(lab) = Lab::new("trace") else { return };
    let machines = lab.fabric(2);
    let (asked, runs) = (&machines[0], &machines[1]);
    asked.submit(&busy(&runs.name));
    asked.wait_healthy("busy");
    if !lab.has_cgroups() {
        return skipped("without cgroups nobody knows whose threads they are");
    }
    let first = asked.wait("traces, or says why not", || {
        match trace(asked, TraceWhat::Syscalls, "1s") {
            // The agent has not looked for the new cgroup yet.
            Err(problem) if problem.title == "no cgroup to look at" => None,
            outcome => Some(outcome),
        }
    });
    let events = match first {
        Ok(events) => events,
        Err(problem) => return skipped(&problem.to_string()),
    };
    assert!(
        matches!(&events[0], TraceEvent::Started { node, slots, .. } if *node == runs.name && slots == &["busy/0"]),
        "{:?}",
        events[0]
    );
    assert!(matches!(events.last(), Some(TraceEvent::Ended { .. })), "{:?}", events.last());
    let calls = events.iter().find_map(|event| match event {
        TraceEvent::Calls { calls } => Some(calls),
        _ => None,
    });
    let open = calls.expect("calls").iter().find(|call| call.call == "openat").expect("it opens");
    assert!(open.errors > 0 && open.calls > open.errors && open.p50_ns <= open.p99_ns, "{open:?}");

    let traced = |what| {
        let events = trace(asked, what, "2s").unwrap_or_else(|problem| panic!("{problem}"));
        let single = events.into_iter().filter_map(|event| match event {
            TraceEvent::Events { events } => Some(events),
            _ => None,
        });
        single.flatten().collect::<Vec<_>>()
    };
    let files = traced(TraceWhat::Files);
    let of = |path: &str| files.iter().filter(|file| file.path == path).collect::<Vec<_>>();
    assert!(of("/proc/self/status").iter().any(|file| file.result >= 0), "{files:?}");
    let missing = of("/nowhere/at/all");
    assert!(!missing.is_empty() && missing.iter().all(|file| file.result == -2), "{files:?}");
    assert!(files.iter().all(|file| file.slot == "busy/0"));
    let programs = traced(TraceWhat::Exec);
    assert!(programs.iter().any(|program| program.path.ends_with("/cat")), "{programs:?}");

    // Two that need too much: the second hears what runs. It has room once the first one's reader has gone.
    let reader = begin(asked, TraceWhat::Profile);
    let refused = trace(asked, TraceWhat::OffCpu, "1s").expect_err("there is no room");
    assert_eq!(refused.status, 409, "{refused}");
    assert!(refused.detail.contains("profile of busy for"), "{refused}");
    drop(reader);
    let events = asked.wait("has room again", || trace(asked, TraceWhat::Profile, "2s").ok());
    let folded = events.iter().find_map(|event| match event {
        TraceEvent::Stacks { unit, folded } if unit == "samples" => Some(folded),
        _ => None,
    });
    let folded = folded.expect("stacks");
    assert!(
        folded.iter().any(|(stack, count)| stack.starts_with("sh;") && *count > 0),
        "{folded:?}"
    );
}

#[test]
fn a_trace_that_makes_no_sense_changes_nothing_and_says_why() {
    let Some(lab) = Lab::new("senseless") else { return };
    let machines = lab.fabric(1);
    let refused = |what, time| trace(&machines[0], what, time).expect_err("it makes no sense");
    for time in ["0s", "301s", "soon", ""] {
        let problem = refused(TraceWhat::Exec, time);
        assert_eq!(problem.status, 400, "{problem}");
        assert!(problem.detail.contains("at most 5m"), "{problem}");
    }
    let problem = refused(TraceWhat::Exec, "1s");
    assert_eq!((problem.status, problem.title.as_str()), (404, "there is no job busy"));
    for body in ["{}", "{\"what\":\"everything\",\"job\":\"busy\",\"for\":\"1s\"}"] {
        let answered = api::exchange(&machines[0].socket(), "POST", "/v1/traces", Some(body));
        assert_eq!(answered.expect("an answer").0, 400, "{body}");
    }
}
