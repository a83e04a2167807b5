//! System calls, by call.

use crate::histogram::Histogram;
use crate::hooks::Hooks;
use crate::status::Status;
use crate::table::{Row, Table};
use std::collections::BTreeMap;

/// System calls by their number; see [`call_name`].
pub type Calls = BTreeMap<u64, Call>;

/// One system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// How often it was made, and came back.
    pub calls: u64,
    /// How often it came back with an error.
    pub errors: u64,
    /// How long all together took, in nanoseconds.
    pub total_ns: u64,
    /// How long each took, in nanoseconds. It may lack the first few.
    pub latency: Histogram,
}

pub(super) trait Read: Sized {
    fn read(hooks: &Hooks) -> Result<Self, Status>;
}

impl Read for Calls {
    fn read(hooks: &Hooks) -> Result<Self, Status> {
        let mut table = Table::<1>::with_histograms(hooks, "calls", &[])?;
        let rows = table.rows().map_err(|error| Status::refused("calls", &error, ""))?;
        let call = |row: Row| Call {
            calls: row.numbers[0],
            errors: row.numbers[1],
            total_ns: row.numbers[2],
            latency: row.histogram,
        };
        Ok(rows.into_iter().map(|([number], row)| (number, call(row))).collect())
    }
}

/// What this machine's architecture calls a system call, like `openat`. `None` for one that was not known when this
/// was built.
pub fn call_name(number: u64) -> Option<&'static str> {
    /// Sorted by number.
    const CALLS: &[(u64, &str)] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));
    let place = CALLS.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    Some(CALLS[place].1)
}
