//! Looking closer, for a limited time: system calls, programs started, files opened, connections made, where CPU
//! time goes and where threads sleep.
//!
//! - Hooks in: see each folder of `src/trace`; what they share is in the headers there.
//! - Out: a [`Report`] for each trace.
//!
//! A trace ends by itself: after its time the programs do nothing, even if nobody takes them out, and
//! [`Traces::expire`] takes them out. All traces together stay below [`TRACES_BYTES_MAX`] of the kernel's memory.

mod events;
mod flame;
mod stacks;
mod symbols;
mod syscalls;

pub use events::{Event, Events};
pub use flame::flame_graph;
pub use stacks::{Stacks, Unit};
use syscalls::Read as _;
pub use syscalls::{Call, Calls, call_name};

use crate::cgroup::CgroupId;
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::limits::{TRACE_CGROUPS_MAX, TRACE_TIME_MAX, TRACES_BYTES_MAX};
use crate::perf;
use crate::status::Status;
use libbpf_rs::{MapCore, MapFlags};
use std::collections::BTreeMap;
use std::time::Duration;

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// How long system calls take, by call.
    Syscalls,
    /// Which programs are started.
    Programs,
    /// Which files are opened.
    Files,
    /// Which TCP connections are made.
    Connections,
    /// What runs, by stack: samples at [`SAMPLES_PER_SECOND`](crate::limits::SAMPLES_PER_SECOND) on every CPU.
    Profile,
    /// Where threads sleep, by stack.
    OffCpu,
}

impl What {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Syscalls,
        Self::Programs,
        Self::Files,
        Self::Connections,
        Self::Profile,
        Self::OffCpu,
    ];

    /// Kernel memory that it can come to use, in bytes: the sizes of its tables, and some for the rest.
    pub fn bytes(self) -> usize {
        const MIB: usize = 1 << 20;
        match self {
            Self::Syscalls => 2 * MIB,
            Self::Programs | Self::Files | Self::Connections => MIB,
            Self::Profile | Self::OffCpu => 4 * MIB,
        }
    }

    fn programs(self) -> (&'static [u8], &'static [&'static str]) {
        match self {
            Self::Syscalls => (object!("trace-syscalls"), &["sys_exit", "sys_enter"]),
            Self::Programs => (object!("trace-programs"), &["sched_process_exec"]),
            Self::Files => (object!("trace-files"), &["sys_exit", "sys_enter"]),
            Self::Connections => (object!("trace-net"), &["inet_sock_set_state"]),
            Self::Profile => (object!("trace-profile"), &["sampled"]),
            Self::OffCpu => (object!("trace-offcpu"), &["sched_switch"]),
        }
    }
}

/// One trace.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to look at.
    pub what: What,
    /// In which cgroups, at most [`TRACE_CGROUPS_MAX`]; none means everywhere.
    pub cgroups: Vec<CgroupId>,
    /// For how long, at most [`TRACE_TIME_MAX`].
    pub time: Duration,
}

/// Why a trace was not started. Those that run go on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Too long.
    #[error("{asked:?} is too long: a trace takes {TRACE_TIME_MAX:?} at most")]
    TooLong {
        /// What was asked for.
        asked: Duration,
    },
    /// Too many cgroups.
    #[error(
        "{asked} cgroups are too many: a trace looks at {TRACE_CGROUPS_MAX} at most, or at all"
    )]
    TooManyCgroups {
        /// How many were asked for.
        asked: usize,
    },
    /// Other traces use what there is.
    #[error(
        "traces that run use {used} bytes of the kernel's memory, and this one takes {needed} of \
         {TRACES_BYTES_MAX}: wait until one of them ends, or stop it"
    )]
    OverBudget {
        /// By those that run.
        used: usize,
        /// By this one.
        needed: usize,
    },
    /// The kernel does not do it.
    #[error("{0}")]
    Kernel(Status),
}

/// The name of a trace while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceId(u64);

/// What a trace has seen.
#[derive(Clone, Debug)]
pub enum Report {
    /// Of [`What::Syscalls`].
    Calls(Calls),
    /// Of [`What::Programs`], [`What::Files`] and [`What::Connections`]: since the report before.
    Events(Events),
    /// Of [`What::Profile`] and [`What::OffCpu`].
    Stacks(Stacks),
}

/// All traces that run. Dropping it ends them.
#[derive(Default)]
pub struct Traces {
    next: u64,
    running: BTreeMap<TraceId, Trace>,
}

struct Trace {
    what: What,
    hooks: Hooks,
    /// By the kernel's clock.
    until: Duration,
}

impl Traces {
    /// Starts a trace.
    ///
    /// # Errors
    /// When it asks for more than there may be, or the kernel refuses. Nothing has changed then.
    pub fn start(&mut self, request: &Request) -> Result<TraceId, Refused> {
        let Request { what, cgroups, time } = request;
        if *time > TRACE_TIME_MAX {
            return Err(Refused::TooLong { asked: *time });
        }
        if cgroups.len() > TRACE_CGROUPS_MAX {
            return Err(Refused::TooManyCgroups { asked: cgroups.len() });
        }
        let used = self.running.values().map(|trace| trace.what.bytes()).sum();
        let needed = what.bytes();
        if used + needed > TRACES_BYTES_MAX {
            return Err(Refused::OverBudget { used, needed });
        }
        let trace = Trace::start(*what, cgroups, *time).map_err(Refused::Kernel)?;
        let id = TraceId(self.next);
        self.next += 1;
        self.running.insert(id, trace);
        Ok(id)
    }

    /// What a trace has seen until now; `None` if there is no such trace, or the kernel does not say.
    pub fn read(&self, id: TraceId) -> Option<Report> {
        let trace = self.running.get(&id)?;
        trace.read().ok()
    }

    /// Takes a trace out, before its time or after, and says what it has seen.
    pub fn stop(&mut self, id: TraceId) -> Option<Report> {
        let report = self.read(id);
        self.running.remove(&id);
        report
    }

    /// Whether a trace's time is over, by the kernel's clock. Also when there is no such trace.
    pub fn is_over(&self, id: TraceId) -> bool {
        self.running.get(&id).is_none_or(|trace| trace.until < perf::kernel_now())
    }

    /// Takes out the traces whose time is over, and says what they have seen.
    pub fn expire(&mut self) -> Vec<(TraceId, Option<Report>)> {
        let over: Vec<_> = self.running.keys().copied().filter(|id| self.is_over(*id)).collect();
        over.into_iter().map(|id| (id, self.stop(id))).collect()
    }
}

impl Trace {
    fn start(what: What, cgroups: &[CgroupId], time: Duration) -> Result<Self, Status> {
        const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
        crate::loads(&crate::kernel::LOADS).map_err(Status::Unsupported)?;
        let (object, programs) = what.programs();
        if what != What::Profile {
            Kernel::new()?.require(programs)?;
        }
        let mut hooks = Hooks::load(object, programs, &[])?;
        let until = perf::kernel_now() + time;
        let settings = [until.as_nanos() as u64, u64::from(cgroups.is_empty())];
        set(&hooks, "settings", &0u32.to_ne_bytes(), &settings.map(u64::to_ne_bytes).concat())?;
        for CgroupId(id) in cgroups {
            set(&hooks, "targets", &id.to_ne_bytes(), &1u64.to_ne_bytes())?;
        }
        if what == What::Profile {
            let every = perf::Every::PerSecond(crate::limits::SAMPLES_PER_SECOND);
            for event in perf::on_every_cpu(PERF_COUNT_SW_CPU_CLOCK, every)? {
                perf::attach(&mut hooks, programs[0], event)?;
            }
        } else {
            hooks.attach(programs)?;
        }
        Ok(Self { what, hooks, until })
    }

    fn read(&self) -> Result<Report, Status> {
        Ok(match self.what {
            What::Syscalls => Report::Calls(Calls::read(&self.hooks)?),
            What::Programs | What::Files => {
                Report::Events(Events::read(&self.hooks, events::text)?)
            }
            What::Connections => Report::Events(Events::read(&self.hooks, events::address)?),
            What::Profile => Report::Stacks(Stacks::read(&self.hooks, Unit::Samples)?),
            What::OffCpu => Report::Stacks(Stacks::read(&self.hooks, Unit::Nanoseconds)?),
        })
    }
}

fn set(hooks: &Hooks, table: &str, key: &[u8], value: &[u8]) -> Result<(), Status> {
    let map = hooks.map(table)?;
    map.update(key, value, MapFlags::ANY).map_err(|error| Status::refused(table, &error, ""))
}

/// What there was no room for.
fn lost(hooks: &Hooks) -> Result<u64, Status> {
    let map = hooks.map("lost")?;
    let value = map
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| Status::refused("lost", &error, ""))?;
    Ok(value.and_then(|bytes| crate::table::words(&bytes).next()).unwrap_or(0))
}
