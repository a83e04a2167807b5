//! `POST /v1/traces`: looking closely at an allocation, for a while.

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::id::JobName;

/// What to look at, and for how long. The answer is a stream of server-sent events, each a [`TraceEvent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceBody {
    /// What to look at.
    pub what: TraceWhat,
    /// Of which job.
    pub job: JobName,
    /// Of this slot only; of all that are on the node, if absent.
    #[serde(default)]
    pub slot: Option<u32>,
    /// On this node, by name or key. It may be absent if all of it is on one node.
    #[serde(default)]
    pub node: Option<String>,
    /// How long, as in `10s`.
    #[serde(rename = "for")]
    pub time: String,
}

/// What a trace looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceWhat {
    /// System calls, how long they take and how many fail.
    Syscalls,
    /// Programs that are started.
    Exec,
    /// Files that are opened, and that cannot be.
    Files,
    /// Connections over TCP that are made, and that cannot be.
    Net,
    /// Where CPU time goes, by stack.
    Profile,
    /// Where threads sleep, by stack.
    OffCpu,
}

impl TraceWhat {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syscalls => "syscalls",
            Self::Exec => "exec",
            Self::Files => "files",
            Self::Net => "net",
            Self::Profile => "profile",
            Self::OffCpu => "off-cpu",
        }
    }
}

/// What happens during a trace. `Ended` or `Failed` is the last of them: without either the stream broke off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum TraceEvent {
    /// The programs are in the kernel.
    Started {
        /// The node's name.
        node: String,
        /// Slots that are looked at.
        slots: Vec<String>,
        /// For how long.
        seconds: f64,
    },
    /// It goes on.
    Progress {
        /// For so much longer.
        seconds_left: f64,
    },
    /// Single events since the ones before.
    Events {
        /// Oldest first.
        events: Vec<Traced>,
    },
    /// System calls, all of them together.
    Calls {
        /// Those that took most time first.
        calls: Vec<TracedCall>,
    },
    /// Counts by stack.
    Stacks {
        /// `samples` or `nanoseconds`.
        unit: String,
        /// Folded stacks: functions from the outermost to the innermost, separated by semicolons.
        folded: Vec<(String, u64)>,
    },
    /// The programs are out of the kernel again.
    Ended {
        /// What there was no room for, in events or in the unit of the stacks.
        lost: u64,
    },
    /// It could not go on to its end.
    Failed {
        /// Why.
        problem: Problem,
    },
}

/// A program that was started, a file that was opened, a connection that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Nanoseconds by the monotonic clock of the node's kernel.
    pub at_ns: u64,
    /// `web/0`.
    pub slot: String,
    /// Process.
    pub process: u32,
    /// Its parent.
    pub parent: u32,
    /// What the process calls itself.
    pub name: String,
    /// Program or file, as it was named; for a connection address and port.
    pub path: String,
    /// A file's descriptor; nanoseconds that a connection took; or a negative error number.
    pub result: i64,
}

/// One system call, all calls of it together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedCall {
    /// Its name; its number if that has none here.
    pub call: String,
    /// How often it was made, and came back.
    pub calls: u64,
    /// How often with an error.
    pub errors: u64,
    /// Time of all together, in nanoseconds.
    pub total_ns: u64,
    /// Half of them took at most this long.
    pub p50_ns: u64,
    /// 99 of 100 took at most this long.
    pub p99_ns: u64,
    /// All of them took at most this long.
    pub max_ns: u64,
}
