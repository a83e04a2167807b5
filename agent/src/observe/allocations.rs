//! What the controllers of cgroups say of each allocation: memory, tasks, and how often its quota held it up.

use ebpf::KeptFiles;
use fabric::id::AllocId;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sink::{Collector, Metric, Sink};

const MEMORY: Metric<'_> = Metric::gauge(
    "weft_unit_memory_bytes",
    "Memory of an allocation, with the pages of files that it has read.",
);
const TASKS: Metric<'_> =
    Metric::gauge("weft_unit_tasks", "Processes and threads of an allocation.");
const THROTTLED: Metric<'_> = Metric::counter(
    "weft_unit_throttled_seconds_total",
    "Time that an allocation could run but had used up its quota of CPU.",
);
const PERIODS: Metric<'_> = Metric::counter(
    "weft_unit_throttled_periods_total",
    "Periods of the quota of CPU in which an allocation used it up.",
);

/// Files of cgroups that stay open for the next reading: three each of 256 allocations.
const DESCRIPTORS_MAX: usize = 768;
/// Bytes of such a file: `cpu.stat` has some twenty short lines.
const FILE_BYTES_MAX: usize = 4096;

/// Reads the cgroups of allocations.
pub struct Allocations {
    /// The folder in which each has its cgroup.
    folder: PathBuf,
    files: KeptFiles,
}

impl Allocations {
    /// Of those that have their cgroups in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, files: KeptFiles::new(DESCRIPTORS_MAX, FILE_BYTES_MAX) }
    }
}

impl Collector for Allocations {
    fn name(&self) -> &'static str {
        "allocations"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        for (cgroup, unit, alloc) in folders(&self.folder) {
            let slot = alloc.slot.index.to_string();
            let labels = [("unit", &*unit), ("job", alloc.slot.job.as_str()), ("slot", &slot)];
            give(&cgroup, &mut self.files, &labels, sink);
        }
        self.files.sweep();
    }
}

/// Cgroups of allocations in this folder, with the names of their units.
pub(super) fn folders(folder: &Path) -> impl Iterator<Item = (PathBuf, String, AllocId)> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let unit = entry.file_name().into_string().ok()?;
        let alloc = AllocId::from_unit(&unit)?;
        Some((entry.path(), unit, alloc))
    })
}

/// What a controller that is not there would say is not known.
fn give(cgroup: &Path, files: &mut KeptFiles, labels: &[(&str, &str)], sink: &mut Sink<'_>) {
    let mut number = |file: &str| files.text(cgroup, file)?.trim().parse::<u64>().ok();
    if let Some(bytes) = number("memory.current") {
        sink.put(&MEMORY, labels, bytes as f64);
    }
    if let Some(tasks) = number("pids.current") {
        sink.put(&TASKS, labels, tasks as f64);
    }
    let Some(statistics) = files.text(cgroup, "cpu.stat") else { return };
    let value = |name: &str| {
        let rest = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        rest?.parse::<u64>().ok()
    };
    if let Some(time_us) = value("throttled_usec") {
        sink.count(&THROTTLED, labels, time_us as f64 / 1e6);
    }
    if let Some(periods) = value("nr_throttled") {
        sink.count(&PERIODS, labels, periods as f64);
    }
}

#[cfg(test)]
mod tests;
