//! Traces on demand: programs that are in the kernel for some seconds, and what they see, piece by piece.
//!
//! A trace ends when its time is over, and also when nobody reads its pieces any more: whoever asked has gone. While its
//! reader is slow, events stay in the kernel, which counts those it has no room for.
#![allow(
    clippy::disallowed_methods,
    reason = "a process for one order: it reads the clock here only"
)]

use ebpf::CgroupId;
use ebpf::trace::{Refused, Report, Request, TraceId, Traces, Unit, What, call_name};
use fabric::api::{Problem, ProblemKind, TraceEvent, TraceWhat, Traced, TracedCall};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::order::{Frame, Subject, Tried};
use crate::wire::Connection;

/// Between two looks at what was seen, and whether anybody still reads.
const LOOK: Duration = Duration::from_millis(250);
/// Between two words that it goes on.
const PROGRESS: Duration = Duration::from_secs(1);
/// Single events of one piece: some 40 KiB.
const EVENTS_MAX: usize = 256;
/// Stacks that are reported, and their bytes as JSON; the rest, those with the least, are counted as one.
const STACKS_MAX: usize = 20_000;
const STACKS_BYTES_MAX: usize = 6 << 20;

/// Looks at what is wanted until its time is over or nobody reads.
///
/// # Errors
/// When there is more of it than may be, or the kernel refuses.
pub fn run(subject: &Subject, connection: &mut Connection) -> Result<(), Problem> {
    if subject.cgroups.is_empty() {
        return Err(Problem::new(
            ProblemKind::Invalid,
            "no cgroup to look at",
            "none would mean all of the machine",
        ));
    }
    let mut traces = Traces::default();
    let request = Request {
        what: what(subject.what),
        cgroups: subject.cgroups.keys().copied().map(CgroupId).collect(),
        time: subject.time,
    };
    let id = traces.start(&request).map_err(|refused| problem(&refused))?;
    let begun = Instant::now();
    let slots: BTreeSet<&String> = subject.cgroups.values().collect();
    let started = TraceEvent::Started {
        node: subject.node.clone(),
        slots: slots.into_iter().cloned().collect(),
        seconds: subject.time.as_secs_f64(),
    };
    let mut reader = Reader { subject, connection, lost: 0, gone: false };
    reader.say(&started);
    let mut said = begun;
    while !traces.is_over(id) && !reader.gone {
        if !reader.connection.waits(LOOK) {
            break;
        }
        if single(subject.what) {
            reader.report(traces.read(id), false);
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            let seconds_left = subject.time.saturating_sub(begun.elapsed()).as_secs_f64();
            reader.say(&TraceEvent::Progress { seconds_left });
        }
    }
    end(&mut traces, id, &mut reader);
    Ok(())
}

fn end(traces: &mut Traces, id: TraceId, reader: &mut Reader<'_>) {
    let report = traces.stop(id);
    reader.report(report, true);
    let lost = reader.lost;
    reader.say(&TraceEvent::Ended { lost });
}

/// Tries every kind of trace, each for no time at all: milliseconds of one core.
pub fn attempt() -> Tried {
    let mut traces = Traces::default();
    let mut tried = Tried::new();
    for kind in KINDS {
        // Over before it begins, and about no cgroup that there is.
        let request =
            Request { what: what(kind), cgroups: vec![CgroupId::OTHER], time: Duration::ZERO };
        let outcome = traces.start(&request).map(|id| drop(traces.stop(id)));
        tried.push((kind, outcome.map_err(|refused| refused.to_string())));
    }
    tried
}

fn problem(refused: &Refused) -> Problem {
    let (kind, title) = match refused {
        Refused::TooLong { .. } | Refused::TooManyCgroups { .. } => {
            (ProblemKind::Invalid, "such a trace is not possible")
        }
        Refused::OverBudget { .. } => {
            (ProblemKind::Conflict, "other traces have the room there is")
        }
        Refused::Kernel(_) => (ProblemKind::Unavailable, "this node cannot do that"),
    };
    Problem::new(kind, title, refused.to_string())
}

/// Single events are reported as they come; everything else once, in the end.
fn single(what: TraceWhat) -> bool {
    matches!(what, TraceWhat::Exec | TraceWhat::Files | TraceWhat::Net)
}

/// Whoever reads the pieces.
struct Reader<'a> {
    subject: &'a Subject,
    connection: &'a mut Connection,
    lost: u64,
    /// Nobody reads any more.
    gone: bool,
}

impl Reader<'_> {
    fn report(&mut self, report: Option<Report>, last: bool) {
        match report {
            Some(Report::Events(seen)) => {
                self.lost = seen.lost;
                let events: Vec<Traced> =
                    seen.events.into_iter().map(|one| self.traced(one)).collect();
                for piece in events.chunks(EVENTS_MAX) {
                    self.say(&TraceEvent::Events { events: piece.to_vec() });
                }
            }
            Some(Report::Calls(seen)) if last => {
                let mut calls: Vec<TracedCall> = seen.into_iter().map(traced_call).collect();
                calls.sort_by_key(|call| std::cmp::Reverse(call.total_ns));
                self.say(&TraceEvent::Calls { calls });
            }
            Some(Report::Stacks(seen)) if last => {
                let unit = match seen.unit {
                    Unit::Samples => "samples",
                    Unit::Nanoseconds => "nanoseconds",
                };
                let (folded, rest) = largest(seen.folded.into_iter().collect());
                self.lost = seen.lost + rest;
                self.say(&TraceEvent::Stacks { unit: unit.into(), folded });
            }
            Some(Report::Calls(_) | Report::Stacks(_)) | None => {}
        }
    }

    fn traced(&self, event: ebpf::trace::Event) -> Traced {
        let slot = self.subject.cgroups.get(&event.cgroup.0).cloned().unwrap_or_default();
        Traced {
            at_ns: u64::try_from(event.at.as_nanos()).unwrap_or(u64::MAX),
            slot,
            process: event.process,
            parent: event.parent,
            name: event.name,
            path: event.path,
            result: event.result,
        }
    }

    fn say(&mut self, event: &TraceEvent) {
        if !self.gone {
            let json = serde_json::to_vec(event).unwrap_or_default();
            self.gone = self.connection.say(&Frame::Piece(json)).is_err();
        }
    }
}

/// The stacks with the most, as many as are reported; and what the others come to.
fn largest(mut folded: Vec<(String, u64)>) -> (Vec<(String, u64)>, u64) {
    folded.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut bytes = 0;
    let fit = folded.iter().take(STACKS_MAX).take_while(|(stack, _)| {
        // With its count, and what stands around both.
        bytes += serde_json::to_string(stack).map_or(0, |json| json.len()) + 24;
        bytes <= STACKS_BYTES_MAX
    });
    let fit = fit.count();
    let rest = folded.drain(fit..).map(|(_, count)| count).sum();
    (folded, rest)
}

/// All that there are.
pub const KINDS: [TraceWhat; What::ALL.len()] = [
    TraceWhat::Syscalls,
    TraceWhat::Exec,
    TraceWhat::Files,
    TraceWhat::Net,
    TraceWhat::Profile,
    TraceWhat::OffCpu,
];

/// The kernel's side of what is asked for.
pub fn what(what: TraceWhat) -> What {
    match what {
        TraceWhat::Syscalls => What::Syscalls,
        TraceWhat::Exec => What::Programs,
        TraceWhat::Files => What::Files,
        TraceWhat::Net => What::Connections,
        TraceWhat::Profile => What::Profile,
        TraceWhat::OffCpu => What::OffCpu,
    }
}

fn traced_call((number, call): (u64, ebpf::trace::Call)) -> TracedCall {
    let quantile = |part: f64| call.latency.quantile(part).unwrap_or(0);
    TracedCall {
        call: call_name(number).map_or_else(|| number.to_string(), str::to_owned),
        calls: call.calls,
        errors: call.errors,
        total_ns: call.total_ns,
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        max_ns: quantile(1.0),
    }
}

#[cfg(test)]
mod tests;
