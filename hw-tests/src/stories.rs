//! One story a file. Each prints what it saw.

mod probes_on_debian_kernel;

use crate::workshop::Bench;
use anyhow::Result;

/// A story.
pub struct Story {
    /// Its file.
    pub name: &'static str,
    /// What it shows.
    pub promise: &'static str,
    /// Tells it.
    pub tell: fn(&Bench) -> Result<()>,
}

/// All there are, the longest last.
pub const ALL: &[Story] = &[Story {
    name: "probes_on_debian_kernel",
    promise: "every eBPF probe loads on Debian's kernel and counts what the kernel counts",
    tell: probes_on_debian_kernel::tell,
}];
