//! What the controllers of cgroups say of each allocation: memory, tasks, and how often its quota held it up.

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

/// Reads the cgroups of allocations.
pub struct Allocations {
    /// The folder in which each has its cgroup.
    pub folder: PathBuf,
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
            give(&cgroup, &labels, sink);
        }
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
fn give(cgroup: &Path, labels: &[(&str, &str)], sink: &mut Sink<'_>) {
    let read = |file: &str| std::fs::read_to_string(cgroup.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    if let Some(bytes) = number("memory.current") {
        sink.put(&MEMORY, labels, bytes as f64);
    }
    if let Some(tasks) = number("pids.current") {
        sink.put(&TASKS, labels, tasks as f64);
    }
    let Some(statistics) = read("cpu.stat") else { return };
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
