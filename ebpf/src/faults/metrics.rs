/// Page faults of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times that a page was not there when it was touched, whether or not it had to come from a disk.
    pub faults: u64,
    /// Those of them that had to wait for a disk. `None` where the source does not tell.
    pub major: Option<u64>,
}

impl Faults {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: &[u64]) -> Self {
        Self { faults: row.first().copied().unwrap_or_default(), major: None }
    }
}
