//! A machine whose wall clock is wrong, beside others whose clocks are right: real agents.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{Finding, FindingLevel};
use serde_json::Value;
use testbed::{Lab, Machine, faketime, job, wait_equal};

/// Whether a machine's status, its doctor and its answers about the fabric name the clock of `n3`: in how many places.
fn named_in(machine: &Machine) -> usize {
    let says = |text: &str| text.contains("n3's clock is");
    let warns = |path: &str| {
        let answer: Value = machine.get(path);
        let mut warnings = answer["warnings"].as_array().into_iter().flatten();
        warnings.any(|warning| warning.as_str().is_some_and(says))
    };
    let findings: Vec<Finding> = machine.get("/v1/doctor");
    let found = findings.iter().any(|it| it.level != FindingLevel::Ok && says(&it.message));
    let places = [found, warns("/v1/status"), warns("/api/v1/query?query=weft_agent_info")];
    places.into_iter().filter(|named| *named).count()
}

#[test]
fn a_clock_that_is_years_ahead_is_named_by_all_and_takes_nothing_away() {
    let Some(lab) = Lab::new("clocks") else { return };
    if faketime().is_none() {
        println!("skipped: libfaketime is not installed");
        return;
    }
    let mut machines = lab.fabric(3);
    let spread = "[placement]\nspread = \"name\"\n[resources]\ncpu = 0.1";
    machines[0].submit(&job("before", 3, spread));
    let short = machines[0].submit(&job("short", 1, "[resources]\ncpu = 0.1"));
    assert!(short.changed);
    for machine in &machines {
        machine.wait_healthy("before");
        machine.wait_healthy("short");
    }
    let pids: Vec<_> = machines.iter().map(|machine| machine.processes_of("before")).collect();
    let token = machines[0].token("1h");
    // A row of something that has ended: it is kept for its time.
    let _: Value = machines[0].tell("DELETE", "/v1/jobs/short", &Value::Null).expect("it stops");
    machines[0].wait("has ended it", || machines[0].live("short").is_empty().then_some(()));
    let ended = |machine: &Machine| {
        let all: Vec<Value> = machine.get("/v1/allocs?all=true");
        all.iter().filter(|alloc| alloc["row"]["phase"] == "ended").count()
    };
    let kept = ended(&machines[0]);
    assert!(kept > 0, "it is remembered");

    machines[2].end_agent();
    machines[2].clock = "+20y";
    machines[2].start_agent();
    for machine in &machines {
        machine.wait_alive(3);
        machine.wait("names the clock that is wrong", || (named_in(machine) == 3).then_some(()));
    }
    // Work goes on, what was written is not dated by that clock, and what has ended is not swept away.
    machines[2].submit(&job("after", 3, spread));
    for machine in &machines {
        machine.wait_healthy("after");
        machine.wait_healthy("before");
        assert_eq!(ended(machine), kept, "{}: rows left before their time", machine.name);
    }
    let now: Vec<_> = machines.iter().map(|machine| machine.processes_of("before")).collect();
    assert_eq!(now, pids, "what ran runs on");
    // The token still works, at the machine whose clock is wrong as well.
    let mut fourth = lab.machine("n4");
    fourth.start_agent();
    fourth.join(&token.token).expect("a token is good for an hour by the fabric's time");
    machines.push(fourth);
    wait_equal(&machines);

    // It is set right: nobody complains any more.
    machines[2].end_agent();
    machines[2].clock = "";
    machines[2].start_agent();
    for machine in &machines {
        machine.wait_alive(4);
        machine.wait("has nothing to say of clocks", || (named_in(machine) == 0).then_some(()));
    }
    wait_equal(&machines);
}
