//! Traces, each beside what the traced process did.

use crate::skipped_or;
use crate::unit::{Unit, only, probes};
use ebpf::trace::{Refused, Report, Request, Traces, What, call_name, flame_graph};
use ebpf::{CgroupId, Probe};
use std::time::Duration;

const TIME: Duration = Duration::from_secs(30);

fn of(what: What, cgroup: CgroupId) -> Request {
    Request { what, cgroups: vec![cgroup], time: TIME }
}

/// What a process did in a cgroup of its own while this was looked at.
fn trace(what: What, work: &str) -> Option<Report> {
    let (probes, _alone) = probes(&only(Probe::Network))?;
    let unit = Unit::new(&probes, "trace")?;
    let mut traces = Traces::default();
    let id = skipped_or(traces.start(&of(what, unit.id())))?;
    let mut process = unit.process(work);
    process.run();
    assert!(!traces.is_over(id) && traces.expire().is_empty(), "it goes on until its time is over");
    // Functions are looked up while the process still has them.
    let report = traces.stop(id);
    assert!(traces.is_over(id) && traces.stop(id).is_none(), "stopped once and for all");
    Some(report.expect("it ran"))
}

#[test]
fn system_calls_are_counted_by_call() {
    let Some(report) = trace(What::Syscalls, "connect") else { return };
    let Report::Calls(calls) = report else { panic!("{report:?}") };
    let call = |name: &str| calls.iter().find(|(number, _)| call_name(**number) == Some(name));
    let (_, connect) = call("connect").expect("it connected");
    assert_eq!((connect.calls, connect.errors), (25, 5), "twenty times with success");
    assert!(connect.latency.total() <= connect.calls);
    assert!(connect.total_ns / connect.calls > 100, "in nanoseconds");
    assert!(call("accept4").is_some_and(|(_, accept)| accept.calls == 20));
    assert!(call("mount").is_none(), "it did not");
}

#[test]
fn programs_are_named_as_they_start() {
    let Some(report) = trace(What::Programs, "start processes") else { return };
    let Report::Events(started) = report else { panic!("{report:?}") };
    assert_eq!((started.events.len(), started.lost), (25, 0));
    for event in &started.events {
        assert_eq!((event.path.as_str(), event.name.as_str()), ("/bin/true", "true"));
        assert!(event.process != event.parent && event.parent > 0);
    }
    assert!(started.events.is_sorted_by_key(|event| event.at));
}

#[test]
fn files_are_named_as_they_are_opened() {
    let Some(report) = trace(What::Files, "open files") else { return };
    let Report::Events(opened) = report else { panic!("{report:?}") };
    let of =
        |path: &str| opened.events.iter().filter(|event| event.path == path).collect::<Vec<_>>();
    let (there, missing) = (of("/proc/self/status"), of("/nowhere/at/all"));
    assert_eq!((there.len(), missing.len()), (10, 3));
    assert!(there.iter().all(|event| event.result >= 0));
    assert!(missing.iter().all(|event| event.result == -i64::from(nix::libc::ENOENT)));
}

#[test]
fn connections_are_named_as_they_are_made() {
    let Some(report) = trace(What::Connections, "connect") else { return };
    let Report::Events(made) = report else { panic!("{report:?}") };
    assert_eq!((made.events.len(), made.lost), (25, 0));
    let (there, refused): (Vec<_>, Vec<_>) = made.events.iter().partition(|one| one.result >= 0);
    assert_eq!((there.len(), refused.len()), (20, 5));
    assert!(refused.iter().all(|one| one.result == -i64::from(nix::libc::ECONNREFUSED)));
    // On one machine it takes more than nothing and less than a SYN that is sent again.
    assert!(there.iter().all(|one| (1..1_000_000_000).contains(&one.result)), "{there:#?}");
    for one in &made.events {
        let address: std::net::SocketAddr = one.path.parse().expect("address and port");
        assert!(address.ip().is_loopback() && address.port() > 0, "{one:?}");
    }
}

#[test]
fn a_profile_names_the_function_that_runs() {
    let Some(report) = trace(What::Profile, "spin in a function") else { return };
    let Report::Stacks(stacks) = report else { panic!("{report:?}") };
    let all: u64 = stacks.folded.values().sum();
    let here = stacks.folded.iter().filter(|(stack, _)| stack.contains("a_function_that_spins"));
    let here: u64 = here.map(|(_, count)| count).sum();
    println!("{here} of {all} samples");
    // A second of CPU at 99 samples a second, on a machine that may be busy.
    assert!(all >= 30 && here * 10 >= all * 8, "{stacks:#?}");
    assert_eq!(stacks.lost, 0);
    let svg = flame_graph(&stacks, "weft").expect("there is something to draw");
    let svg = String::from_utf8(svg).expect("XML");
    assert!(svg.contains("<svg") && svg.contains("a_function_that_spins"));
}

#[test]
fn sleep_is_counted_where_threads_sleep() {
    let Some(report) = trace(What::OffCpu, "sleep") else { return };
    let Report::Stacks(stacks) = report else { panic!("{report:?}") };
    let asleep: u64 = stacks
        .folded
        .iter()
        .filter(|(stack, _)| stack.contains("nanosleep"))
        .map(|(_, ns)| ns)
        .sum();
    // Twenty times ten milliseconds, and until there was a CPU again. There are kernels that run no program at a switch from
    // some threads: the end of a sleep that comes then is not seen.
    assert!((100_000_000..20_000_000_000).contains(&asleep), "{asleep} ns: {stacks:#?}");
}

#[test]
fn a_trace_ends_by_itself_and_two_that_are_too_much_are_refused() {
    let Some((probes, _alone)) = probes(&only(Probe::Network)) else { return };
    let Some(unit) = Unit::new(&probes, "ends") else { return };
    let mut traces = Traces::default();
    let short = Request { time: Duration::from_millis(1), ..of(What::Programs, unit.id()) };
    let Some(short) = skipped_or(traces.start(&short)) else { return };
    let profile = traces.start(&of(What::Profile, unit.id())).expect("there is room for one");
    let refused = traces.start(&of(What::OffCpu, unit.id())).expect_err("but not for two");
    assert!(matches!(refused, Refused::OverBudget { .. }), "{refused}");
    let long = Request { time: Duration::from_secs(3600), ..of(What::Files, unit.id()) };
    assert!(matches!(traces.start(&long), Err(Refused::TooLong { .. })));
    let wide = Request { cgroups: vec![unit.id(); 65], ..of(What::Files, unit.id()) };
    assert!(matches!(traces.start(&wide), Err(Refused::TooManyCgroups { .. })));
    while !traces.is_over(short) {
        std::thread::yield_now();
    }
    // Nobody has taken it out yet.
    unit.process("start processes").run();
    let expired = traces.expire();
    assert!(!traces.is_over(profile), "the other goes on");
    let [(id, Some(Report::Events(seen)))] = &expired[..] else { panic!("{expired:?}") };
    assert_eq!((*id, seen.events.len()), (short, 0), "after its time it sees nothing");
    traces.stop(profile).expect("it runs");
    traces.start(&of(What::OffCpu, unit.id())).expect("there is room again");
}
