/// What began and ended in a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Processes that were started (forked).
    pub started: u64,
    /// Threads that were started within processes.
    pub threads: u64,
    /// Times that a process became another program (exec).
    pub programs: u64,
    /// Processes that have ended.
    pub exited: u64,
}

impl Processes {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: &[u64]) -> Self {
        let word = |place: usize| row.get(place).copied().unwrap_or_default();
        Self { started: word(0), threads: word(1), programs: word(2), exited: word(3) }
    }
}
