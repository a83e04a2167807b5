use super::*;
use crate::observe::ProbeReport;
use crate::observe::remote::Books;
use ebpf::{Probe, Source};
use fabric::api::TraceWhat;
use fabric::clock::Instant;
use fabric::topology::PortsUsed;
use helper::TRACES as KINDS;
use metrics::store::Usage;

fn machine() -> Machine {
    Machine {
        written: Ok(()),
        space: Some(1 << 30),
        ephemeral_ports: Some((32768, 60999)),
        guard: Ok(WakesUp::Yes),
        others: Some(vec![("system.slice", cpus("0-1")), ("init.scope", cpus("0-1"))]),
    }
}

fn cpus(list: &str) -> CpuSet {
    list.parse().expect("a list of CPUs")
}

fn agent() -> Agent {
    let at = |seconds: u64| Now {
        at: Instant::at(Duration::from_secs(seconds)),
        wall: WallTime(NOT_BEFORE.0 + seconds * 1000),
    };
    let bites = true;
    Agent {
        started: at(0),
        now: at(100),
        store: None,
        executor: ("systemd".into(), "it is the service manager".into()),
        enforced: Enforced {
            pinning: bites,
            cpuset: bites,
            numa: bites,
            cpu: bites,
            memory: bites,
            tasks: bites,
            devices: bites,
        },
        cgroups: true,
        exclusive: cpus("2-3"),
        confines: true,
        ports: (20000, 29999),
        ports_used: Vec::new(),
        mdns: Some(Ok(2)),
        given: Vec::new(),
        other_sources: 0,
        fabric: Some(Membership {
            in_roster: true,
            roster: 3,
            nodes: BTreeMap::from([(NodeState::Alive, 3)]),
            stopped: Vec::new(),
            local_health: 0,
            clocks: Clocks { agree: true, ..Clocks::default() },
            datagrams: (0, 100),
            forged: 0,
            twins: Vec::new(),
            level: (2, 2, Vec::new()),
            nearly_full: Vec::new(),
            broken_pairs: Vec::new(),
        }),
        observed: Ok(observed(Status::Running, Source::Bpf)),
        tried: Some(Ok(KINDS.map(|what| (what, Ok(()))).to_vec())),
    }
}

fn observed(status: Status, source: Source) -> Report {
    let report = |probe| ProbeReport { probe, status: status.clone(), source: Some(source) };
    Report {
        probes: Probe::ALL.map(report).to_vec(),
        sources: Vec::new(),
        usage: Usage::default(),
        sending: None,
    }
}

fn sends(agent: &mut Agent, trouble: Option<Trouble>) {
    let books = Books { sent: 1_000, waiting: 7, trouble, ..Books::default() };
    let receiver = "http://prometheus:9090/api/v1/write".to_owned();
    agent.observed.as_mut().expect("set above").sending = Some(Sending { receiver, books });
}

#[test]
fn a_healthy_node_gets_no_advice() {
    let mut agent = agent();
    sends(&mut agent, None);
    for finding in examine(&machine(), &agent) {
        assert_eq!(finding.level, FindingLevel::Ok, "{finding:?}");
        assert_eq!(finding.advice, "", "{finding:?}");
    }
}

/// What is wrong, which check notices it and how bad it says it is.
#[test]
fn each_trouble_is_found_by_its_check_alone_and_comes_with_advice() {
    type Break = fn(&mut Machine, &mut Agent);
    fn membership(agent: &mut Agent) -> &mut Membership {
        agent.fabric.as_mut().expect("set above")
    }
    use FindingLevel::{Error, Warning};
    let rows: &[(&str, FindingLevel, Break)] = &[
        ("disk", Error, |machine, _| machine.written = Err("read-only".into())),
        ("reach", Warning, |_, agent| {
            let pair = "birch and cedar are both alive and cannot reach each other";
            membership(agent).broken_pairs.push(pair.into());
        }),
        ("level", Warning, |_, agent| {
            membership(agent).level = (1, 2, vec!["n2".into()]);
        }),
        ("level", Error, |_, agent| membership(agent).level = (3, 2, Vec::new())),
        ("table", Warning, |_, agent| {
            membership(agent).nearly_full.push("60000 names of jobs are in the table".into());
        }),
        ("disk", Error, |_, agent| agent.store = Some("no space".into())),
        ("disk", Warning, |machine, _| machine.space = Some(1 << 20)),
        ("clock", Error, |_, agent| {
            agent.started.wall = WallTime(0);
            agent.now.wall = WallTime(100_000);
        }),
        ("clock", Warning, |_, agent| agent.now.wall.0 += 86_400_000),
        ("clock", Warning, |_, agent| {
            agent.started.wall.0 += 86_400_000;
        }),
        ("clock", Warning, |_, agent| {
            let (node, name) = (fabric::id::NodeId([2; 32]), "n2".into());
            let off = fabric::timekeeper::ClockOff { node, name, ahead_ms: 7_200_000 };
            membership(agent).clocks.off = vec![off];
        }),
        ("clock", Warning, |_, agent| {
            membership(agent).clocks.stamps_ahead = Duration::from_secs(86_400);
        }),
        ("cgroup", Warning, |_, agent| agent.enforced.memory = false),
        ("cores", Warning, |machine, _| machine.others = None),
        ("cores", Warning, |machine, _| {
            machine.others.as_mut().expect("set above").push(("user.slice", cpus("0-3")));
        }),
        ("cores", Warning, |_, agent| agent.exclusive = cpus("0-3")),
        ("guard", Warning, |machine, _| machine.guard = Err("no timer".into())),
        ("guard", Warning, |_, agent| (agent.cgroups, agent.tried) = (false, None)),
        ("credentials", Warning, |_, agent| {
            agent.given.push("credential weft.token: it is empty".into());
        }),
        ("ports", Warning, |machine, _| machine.ephemeral_ports = Some((1024, 60999))),
        ("ports", Warning, |_, agent| agent.ports_used = used(20500, 29999)),
        ("discovery", Error, |_, agent| agent.mdns = Some(Err("address in use".into()))),
        ("discovery", Warning, |_, agent| agent.mdns = None),
        ("roster", Error, |_, agent| membership(agent).in_roster = false),
        ("peers", Error, |_, agent| {
            membership(agent).nodes = BTreeMap::from([(NodeState::Alive, 1), (NodeState::Dead, 2)]);
        }),
        ("peers", Warning, |_, agent| {
            membership(agent).nodes =
                BTreeMap::from([(NodeState::Alive, 2), (NodeState::Suspect, 1)]);
        }),
        ("peers", Warning, |_, agent| membership(agent).local_health = 3),
        ("peers", Warning, |_, agent| {
            let membership = membership(agent);
            membership.nodes = BTreeMap::from([(NodeState::Alive, 2), (NodeState::Dead, 1)]);
            membership.stopped = vec!["n2".into()];
        }),
        ("gossip", Warning, |_, agent| membership(agent).datagrams = (1000, 5)),
        ("signatures", Warning, |_, agent| membership(agent).forged = 1),
        ("fabric", Warning, |_, agent| agent.fabric = None),
        ("probes", Warning, |_, agent| {
            let status = Status::Unsupported("this kernel has no BTF".into());
            agent.observed = Ok(observed(status, Source::Procfs));
        }),
        ("probes", Warning, |_, agent| agent.observed = Err(Unanswered::Gone)),
        ("traces", Warning, |_, agent| agent.tried = Some(Err("too many threads".into()))),
        ("traces", Warning, |_, agent| {
            let reason = "unsupported: this kernel has no BTF".to_owned();
            agent.tried = Some(Ok(KINDS.map(|what| (what, Err(reason.clone()))).to_vec()));
        }),
        ("remote-write", Warning, |_, agent| {
            let reason = "Connection refused (os error 111)".into();
            sends(agent, Some(Trouble { reason, again: true }));
        }),
        ("remote-write", Warning, |_, agent| {
            let reason = "it answers 404 Not Found".into();
            sends(agent, Some(Trouble { reason, again: false }));
        }),
    ];
    for (check, level, break_it) in rows {
        let (mut machine, mut agent) = (machine(), agent());
        break_it(&mut machine, &mut agent);
        let found: Vec<Finding> = examine(&machine, &agent)
            .into_iter()
            .filter(|finding| finding.level != FindingLevel::Ok)
            .collect();
        let [only] = found.as_slice() else { panic!("{check}: {found:?}") };
        assert_eq!((only.check.as_str(), only.level), (*check, *level));
        assert!(!only.message.is_empty() && !only.advice.is_empty(), "{only:?}");
    }
}

fn used(first: u16, last: u16) -> Vec<PortsUsed> {
    vec![PortsUsed { first, last, by: "nginx (pid 812)".into() }]
}

#[test]
fn without_cgroups_no_trace_of_a_job_can_be_made() {
    let mut agent = agent();
    agent.tried = Some(Ok(KINDS.map(|what| (what, Ok(()))).to_vec()));
    let level = |agent: &Agent| {
        let found = examine(&machine(), agent);
        found.iter().find(|finding| finding.check == "traces").map(|finding| finding.level)
    };
    assert_eq!(level(&agent), Some(FindingLevel::Ok));
    agent.cgroups = false;
    assert_eq!(level(&agent), Some(FindingLevel::Warning));
}

#[test]
fn who_has_ports_of_the_range_is_named() {
    let mut agent = agent();
    agent.ports_used = [used(9090, 9090), used(20000, 20009), used(30000, 30001)].concat();
    let found = examine(&machine(), &agent);
    let ports = found.iter().find(|finding| finding.check == "ports").expect("it is told");
    assert_eq!(ports.level, FindingLevel::Ok);
    let message =
        "jobs get ports 20000-29999; others have 10 of them: 20000-20009 by nginx (pid 812)";
    assert_eq!(ports.message, message);
}

#[test]
fn what_a_machine_does_not_have_is_told_and_is_no_trouble() {
    let source =
        |what, status, note: &str| SourceReport { what, from: "perf", status, note: note.into() };
    let mut agent = agent();
    agent.observed = Ok(Report {
        sources: vec![
            source("counters", Status::Unsupported("no counter".into()), ""),
            source("smart", Status::Running, "one disk sleeps"),
            source("gpu", Status::Off, ""),
        ],
        ..observed(Status::Running, Source::Bpf)
    });
    let found = examine(&machine(), &agent);
    let hardware = found.iter().find(|finding| finding.check == "hardware").expect("it is told");
    assert_eq!(hardware.level, FindingLevel::Ok);
    assert_eq!(
        hardware.message,
        "counters: unsupported: no counter; smart: running (one disk sleeps)"
    );
}

#[test]
fn probes_that_fail_for_one_reason_are_named_together_and_in_a_line() {
    let mut agent = agent();
    let reason = format!("loading: Operation not permitted: {}", "libbpf: said ".repeat(100));
    agent.observed = Ok(observed(Status::Unsupported(reason), Source::Procfs));
    let findings = examine(&machine(), &agent);
    let probes = findings.iter().find(|finding| finding.check == "probes").expect("a finding");
    assert_eq!(probes.message.matches("loading").count(), 1, "{}", probes.message);
    assert!(probes.message.len() < 500, "{}", probes.message);
    for probe in Probe::ALL {
        assert!(probes.message.contains(probe.name()), "{}", probes.message);
    }
}

#[test]
fn traces_that_fail_for_one_reason_are_named_together() {
    let mut agent = agent();
    let outcome = |what| match what {
        TraceWhat::Net => Err("failed: loading".to_owned()),
        TraceWhat::Profile | TraceWhat::OffCpu => Err("unsupported: no CAP_PERFMON".to_owned()),
        _ => Ok(()),
    };
    agent.tried = Some(Ok(KINDS.map(|what| (what, outcome(what))).to_vec()));
    let findings = examine(&machine(), &agent);
    let traces = findings.iter().find(|finding| finding.check == "traces").expect("a finding");
    assert_eq!(
        traces.message,
        "can be made: syscalls, exec, files; net: failed: loading; profile, off-cpu: unsupported: no CAP_PERFMON"
    );
    // Where nothing is measured there are no traces, and it is the owner's will.
    agent.tried = None;
    assert!(examine(&machine(), &agent).iter().all(|finding| finding.check != "traces"));
}

#[test]
fn a_directory_that_cannot_be_written_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let machine = look(directory.path());
    assert_eq!(machine.written, Ok(()));
    assert!(machine.space.is_some());
    machine.guard.expect("root or not, there is a folder for leases");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(look(&directory.path().join("missing")).written.is_err());
}

#[test]
fn cores_of_jobs_are_told_with_who_runs_there_and_who_elsewhere() {
    let told = |machine: &Machine, agent: &Agent| {
        let found = examine(machine, agent);
        found.into_iter().find(|finding| finding.check == "cores").map(|finding| finding.message)
    };
    let (mut machine, mut agent) = (machine(), agent());
    let kept = told(&machine, &agent).expect("jobs have some");
    assert_eq!(kept, "CPUs 2-3 are kept free for their jobs; services run on 0-1");
    machine.others.as_mut().expect("set above").push(("user.slice", cpus("0-3")));
    let shared = told(&machine, &agent).expect("jobs have some");
    assert!(shared.contains("user.slice") && !shared.contains("system.slice"), "{shared}");
    agent.confines = false;
    let wanted = told(&machine, &agent).expect("jobs have some");
    assert!(wanted.ends_with("confine_system = false"), "{wanted}");
    agent.exclusive = CpuSet::new();
    assert_eq!(told(&machine, &agent), None);
}

#[test]
fn nobody_seen_by_multicast_is_said_once_others_could_have_been() {
    let level = |agent: &Agent| discovery(agent).level;
    let mut agent = agent();
    assert_eq!(level(&agent), FindingLevel::Ok);
    agent.mdns = Some(Ok(0));
    let said = discovery(&agent);
    assert_eq!(said.level, FindingLevel::Warning);
    assert!(said.message.contains("none of the 2 others"), "{}", said.message);
    agent.now = agent.started;
    assert_eq!(level(&agent), FindingLevel::Ok, "it has only just started");
    agent = self::agent();
    agent.mdns = Some(Ok(0));
    agent.fabric.as_mut().unwrap().roster = 1;
    assert_eq!(level(&agent), FindingLevel::Ok, "there are no others");
}

#[test]
fn who_was_removed_is_told_that_and_nothing_of_the_others() {
    let (machine, mut agent) = (machine(), agent());
    let membership = agent.fabric.as_mut().expect("it is in one");
    membership.in_roster = false;
    membership.nodes = BTreeMap::from([(NodeState::Alive, 1), (NodeState::Dead, 2)]);
    membership.datagrams = (1000, 10);
    let bad = examine(&machine, &agent).into_iter().filter(|it| it.level != FindingLevel::Ok);
    let checks: Vec<String> = bad.map(|finding| finding.check).collect();
    assert_eq!(checks, ["roster"]);
}

#[test]
fn agents_that_were_stopped_are_not_to_be_taken_out() {
    let (machine, mut agent) = (machine(), agent());
    let membership = agent.fabric.as_mut().expect("it is in one");
    membership.nodes = BTreeMap::from([(NodeState::Alive, 1), (NodeState::Dead, 2)]);
    membership.stopped = vec!["n2".into(), "n3".into()];
    let findings = examine(&machine, &agent);
    let peers = findings.iter().find(|it| it.check == "peers").expect("it looks at them");
    assert!(peers.message.contains("n2, n3 have stopped"), "{peers:?}");
    assert!(!peers.advice.contains("remove"), "{peers:?}");
}
