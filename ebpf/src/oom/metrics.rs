/// Processes of a cgroup that the kernel killed for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutOfMemory {
    /// How many.
    pub kills: u64,
}

impl OutOfMemory {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: &[u64]) -> Self {
        Self { kills: row.first().copied().unwrap_or_default() }
    }
}
