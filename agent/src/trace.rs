//! Traces on demand: programs that are in the kernel for some seconds, and a stream of what they see.
//!
//! One thread, `trace`, owns all of them (crate `ebpf`), so that one bound holds for all. It starts with the first
//! trace and ends a moment after the last. A trace ends when its time is over, and also when nobody reads its
//! stream any more: whoever asked has gone.

use bytes::Bytes;
use ebpf::CgroupId;
use ebpf::trace::{Refused, Report, Request, TraceId, Traces, Unit, What, call_name};
use fabric::api::{Problem, ProblemKind, TraceEvent, TraceWhat, Traced, TracedCall};
use fabric::id::JobName;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::clock::BootTime;

/// Media type of the stream.
pub const MEDIA: &str = "text/event-stream";
/// Requests that wait for the thread.
const ASKED_MAX: usize = 8;
/// Between two looks at what was seen, and whether anybody still reads.
const LOOK: Duration = Duration::from_millis(250);
/// Between two words that it goes on.
const PROGRESS: Duration = Duration::from_secs(1);
/// The thread ends when there was no trace for so long.
const IDLE: Duration = Duration::from_secs(2);
/// Pieces of a stream that wait for its reader. Then events stay in the kernel, which counts those it has no
/// room for.
const CHUNKS_MAX: usize = 4;
/// Single events of one piece: some 40 KiB.
const EVENTS_MAX: usize = 256;
/// Stacks that are told; the rest, those with the least, are told as one.
const STACKS_MAX: usize = 20_000;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// This node's name.
    pub node: String,
    /// Whose.
    pub job: JobName,
    /// At what.
    pub what: TraceWhat,
    /// Its cgroups, and the slot of each. At least one: none would mean all of the machine.
    pub cgroups: BTreeMap<CgroupId, String>,
}

/// Asks the thread. Clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    /// `None`: it was not needed yet. It may have ended since.
    thread: Arc<Mutex<Option<SyncSender<Ask>>>>,
}

/// Something for the thread to do.
#[derive(Debug)]
enum Ask {
    Start(Subject, Duration, oneshot::Sender<Result<mpsc::Receiver<Bytes>, Problem>>),
    Try(oneshot::Sender<Tried>),
}

/// What can be traced here, and why not: as it was tried just now. What there was no room to try is not there.
pub type Tried = Vec<(TraceWhat, Result<(), String>)>;

impl Tracer {
    /// Starts a trace. Dropping the stream ends it.
    ///
    /// # Errors
    /// When the kernel cannot, or other traces have all the room there is: with what they are.
    pub async fn start(
        &self,
        subject: Subject,
        time: Duration,
    ) -> Result<mpsc::Receiver<Bytes>, Problem> {
        // The thread may end just when it is asked: then a new one is.
        for _ in 0..2 {
            let (answer, answered) = oneshot::channel();
            self.ask(Ask::Start(subject.clone(), time, answer))?;
            if let Ok(begun) = answered.await {
                return begun;
            }
        }
        Err(gone())
    }

    /// Tries every kind of trace, each for no time at all: milliseconds of one core.
    ///
    /// # Errors
    /// When there is no thread to try it.
    pub async fn attempt(&self) -> Result<Tried, Problem> {
        for _ in 0..2 {
            let (answer, answered) = oneshot::channel();
            self.ask(Ask::Try(answer))?;
            if let Ok(tried) = answered.await {
                return Ok(tried);
            }
        }
        Err(gone())
    }

    fn ask(&self, ask: Ask) -> Result<(), Problem> {
        use std::sync::mpsc::TrySendError;
        let busy = || {
            let detail = format!("{ASKED_MAX} wait to be started: try again in a moment");
            Problem::new(ProblemKind::Unavailable, "too many traces at once", detail)
        };
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = match thread.as_ref() {
            None => ask,
            Some(thread) => match thread.try_send(ask) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(busy()),
                Err(TrySendError::Disconnected(ask)) => ask,
            },
        };
        let (sender, asked) = sync_channel(ASKED_MAX);
        sender.try_send(ask).map_err(|_| busy())?;
        let begun = std::thread::Builder::new().name("trace".to_owned());
        begun.spawn(move || Thread::default().run(&asked)).map_err(|error| {
            let detail = format!("{error}: does this machine have too many threads?");
            Problem::new(ProblemKind::Unavailable, "a trace needs a thread", detail)
        })?;
        *thread = Some(sender);
        Ok(())
    }
}

fn gone() -> Problem {
    Problem::new(
        ProblemKind::Internal,
        "the thread that traces has ended",
        "try again, and report this",
    )
}

/// What the thread has.
#[derive(Default)]
struct Thread {
    traces: Traces,
    running: Vec<Running>,
}

/// A trace and whoever reads it.
struct Running {
    subject: Subject,
    /// `None`: it is over, and the last pieces wait for the reader.
    id: Option<TraceId>,
    until: BootTime,
    said: BootTime,
    lost: u64,
    outbox: VecDeque<Bytes>,
    stream: mpsc::Sender<Bytes>,
}

impl Thread {
    fn run(mut self, asked: &Receiver<Ask>) {
        loop {
            let patience = if self.running.is_empty() { IDLE } else { LOOK };
            match asked.recv_timeout(patience) {
                Ok(Ask::Start(subject, time, answer)) => {
                    let begun = self.start(subject, time);
                    // Nobody waits for it any more: the next look ends it.
                    let _ = answer.send(begun);
                }
                Ok(Ask::Try(answer)) => drop(answer.send(self.attempt())),
                Err(RecvTimeoutError::Timeout) if self.running.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look();
        }
    }

    fn start(
        &mut self,
        subject: Subject,
        time: Duration,
    ) -> Result<mpsc::Receiver<Bytes>, Problem> {
        self.look();
        let request = Request {
            what: what(subject.what),
            cgroups: subject.cgroups.keys().copied().collect(),
            time,
        };
        let id = self.traces.start(&request).map_err(|refused| self.problem(&refused))?;
        let now = BootTime::now();
        tracing::info!(job = %subject.job, what = subject.what.name(), ?time, "a trace begins");
        let slots: BTreeSet<String> = subject.cgroups.values().cloned().collect();
        let started = TraceEvent::Started {
            node: subject.node.clone(),
            slots: slots.into_iter().collect(),
            seconds: time.as_secs_f64(),
        };
        let (stream, receiver) = mpsc::channel(CHUNKS_MAX);
        let mut running = Running {
            subject,
            id: Some(id),
            until: now + time,
            said: now,
            lost: 0,
            outbox: VecDeque::new(),
            stream,
        };
        running.say(&started);
        self.running.push(running);
        Ok(receiver)
    }

    fn attempt(&mut self) -> Tried {
        self.look();
        let mut tried = Tried::new();
        for kind in KINDS {
            // Over before it begins, and about no cgroup that there is.
            let cgroups = vec![CgroupId::OTHER];
            let request = Request { what: what(kind), cgroups, time: Duration::ZERO };
            match self.traces.start(&request) {
                Ok(id) => {
                    self.traces.stop(id);
                    tried.push((kind, Ok(())));
                }
                Err(Refused::Kernel(status)) => tried.push((kind, Err(status.to_string()))),
                // Those that run have the room there is.
                Err(_) => {}
            }
        }
        tried
    }

    /// Takes what was seen out of the kernel, and traces that are over or that nobody reads.
    fn look(&mut self) {
        let traces = &mut self.traces;
        self.running.retain_mut(|running| running.look(traces));
    }

    fn problem(&self, refused: &Refused) -> Problem {
        let detail = refused.to_string();
        match refused {
            Refused::TooLong { .. } | Refused::TooManyCgroups { .. } => {
                Problem::new(ProblemKind::Invalid, "such a trace is not possible", detail)
            }
            Refused::OverBudget { .. } => {
                let now = BootTime::now();
                let one = |running: &Running| {
                    let Subject { what, job, .. } = &running.subject;
                    let left = running.until.since(now).as_secs();
                    format!("{} of {job} for {left} s more", what.name())
                };
                let running = self.running.iter().filter(|running| running.id.is_some()).map(one);
                let running = running.collect::<Vec<_>>().join(", ");
                let detail = format!("{detail}; running here: {running}");
                Problem::new(ProblemKind::Conflict, "other traces have the room there is", detail)
            }
            Refused::Kernel(_) => {
                Problem::new(ProblemKind::Unavailable, "this node cannot do that", detail)
            }
        }
    }
}

impl Running {
    /// False: nothing is left to do.
    fn look(&mut self, traces: &mut Traces) -> bool {
        if self.stream.is_closed() {
            if let Some(id) = self.id.take() {
                traces.stop(id);
                tracing::info!(job = %self.subject.job, "a trace ends: whoever asked has gone");
            }
            return false;
        }
        if let Some(id) = self.id {
            let now = BootTime::now();
            if traces.is_over(id) {
                let report = traces.stop(id);
                self.id = None;
                if let Some(report) = report {
                    self.tell(report, true);
                }
                self.say(&TraceEvent::Ended { lost: self.lost });
                tracing::info!(job = %self.subject.job, "a trace ends");
            } else if self.outbox.is_empty() {
                if let Some(report @ Report::Events(_)) = self.events(traces, id) {
                    self.tell(report, false);
                }
                if now.since(self.said) >= PROGRESS {
                    self.said = now;
                    let seconds_left = self.until.since(now).as_secs_f64();
                    self.say(&TraceEvent::Progress { seconds_left });
                }
            }
        }
        while let Some(piece) = self.outbox.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(piece)) = self.stream.try_send(piece) {
                self.outbox.push_front(piece);
                return true;
            }
        }
        self.id.is_some()
    }

    /// Single events are told as they come; everything else once, in the end.
    fn events(&self, traces: &Traces, id: TraceId) -> Option<Report> {
        let single =
            matches!(self.subject.what, TraceWhat::Exec | TraceWhat::Files | TraceWhat::Net);
        single.then(|| traces.read(id)).flatten()
    }

    fn tell(&mut self, report: Report, last: bool) {
        match report {
            Report::Events(seen) => {
                self.lost = seen.lost;
                let events: Vec<Traced> =
                    seen.events.into_iter().map(|one| self.traced(one)).collect();
                for piece in events.chunks(EVENTS_MAX) {
                    self.say(&TraceEvent::Events { events: piece.to_vec() });
                }
            }
            Report::Calls(seen) if last => {
                let mut calls: Vec<TracedCall> = seen.into_iter().map(traced_call).collect();
                calls.sort_by_key(|call| std::cmp::Reverse(call.total_ns));
                self.say(&TraceEvent::Calls { calls });
            }
            Report::Stacks(seen) if last => {
                self.lost = seen.lost;
                let unit = match seen.unit {
                    Unit::Samples => "samples",
                    Unit::Nanoseconds => "nanoseconds",
                };
                let mut folded: Vec<(String, u64)> = seen.folded.into_iter().collect();
                folded.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                let rest: u64 = folded.iter().skip(STACKS_MAX).map(|(_, count)| count).sum();
                folded.truncate(STACKS_MAX);
                self.lost += rest;
                self.say(&TraceEvent::Stacks { unit: unit.into(), folded });
            }
            Report::Calls(_) | Report::Stacks(_) => {}
        }
    }

    fn traced(&self, event: ebpf::trace::Event) -> Traced {
        let slot = self.subject.cgroups.get(&event.cgroup).cloned().unwrap_or_default();
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
        let json = serde_json::to_string(event).unwrap_or_default();
        self.outbox.push_back(Bytes::from(format!("data: {json}\n\n")));
    }
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

fn what(what: TraceWhat) -> What {
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
