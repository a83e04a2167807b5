use crate::histogram::Histogram;
use crate::table::Row;

/// What a cgroup's threads did. Every moment of a thread's life is counted as one of three: it waits for a CPU,
/// has one, or is off (asleep). `None` is what the source cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Time spent ready to run without a CPU, in nanoseconds, counted when the wait ends.
    pub wait_ns: Option<u64>,
    /// How long the single waits were, in nanoseconds. It may lack the first few.
    pub wait: Option<Histogram>,
    /// Time on a CPU, in nanoseconds, until the last tick of whoever is on one.
    pub on_cpu_ns: Option<u64>,
    /// Time asleep, in nanoseconds, counted when the thread next leaves its CPU.
    pub off_cpu_ns: Option<u64>,
    /// How often a thread gave its CPU away, to wait for something.
    pub voluntary_switches: Option<u64>,
    /// How often a thread's CPU was given to another while it could still run.
    pub involuntary_switches: Option<u64>,
}

impl Scheduling {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: Row) -> Self {
        let word = |place: usize| row.numbers.get(place).copied();
        Self {
            wait_ns: word(0),
            on_cpu_ns: word(1),
            off_cpu_ns: word(2),
            voluntary_switches: word(3),
            involuntary_switches: word(4),
            wait: Some(row.histogram),
        }
    }
}
