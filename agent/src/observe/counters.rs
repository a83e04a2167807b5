//! What the processor counts for each allocation: instructions, cycles, what its cache was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ebpf::counters::{Counters, Event};
use fabric::id::AllocId;

use super::allocations;
use super::sink::{Collector, Metric, Sink, SourceReport};

/// Which events are counted, and their series. All of them together are one group, for which common processors have
/// enough counters: so their ratios are of the same moments.
const SERIES: [(Event, Metric<'static>); 4] = [
    (
        Event::INSTRUCTIONS,
        Metric::counter(
            "weft_unit_instructions_total",
            "Instructions that the processor has carried out for an allocation.",
        ),
    ),
    (
        Event::CYCLES,
        Metric::counter(
            "weft_unit_cycles_total",
            "Cycles of the processor's clock while it ran an allocation.",
        ),
    ),
    (
        Event::CACHE_REFERENCES,
        Metric::counter(
            "weft_unit_cache_references_total",
            "What an allocation asked of the cache that the processor counts: the last one, the second, or the first.",
        ),
    ),
    (
        Event::CACHE_MISSES,
        Metric::counter(
            "weft_unit_cache_misses_total",
            "What an allocation did not find in the cache that the processor counts.",
        ),
    ),
];

/// Counts for the allocations that have their cgroups in a folder.
pub struct Counting {
    /// Where allocations have their cgroups.
    pub folder: PathBuf,
    /// What is counted, and under which names: as many as there are events.
    pub series: Vec<Metric<'static>>,
    /// What counts them.
    pub counters: Counters,
}

impl Counting {
    /// Counts [`SERIES`] for the allocations that have their cgroups in `folder`, if `wanted`.
    pub fn load(folder: PathBuf, wanted: bool) -> Self {
        let (events, series): (Vec<Event>, Vec<Metric<'_>>) = SERIES.into_iter().unzip();
        let counters = if wanted { Counters::load(&events) } else { Counters::none() };
        Self { folder, series, counters }
    }

    fn count(&mut self, sink: &mut Sink<'_>) {
        let allocations: BTreeMap<PathBuf, (String, AllocId)> = allocations::folders(&self.folder)
            .map(|(path, unit, alloc)| (path, (unit, alloc)))
            .collect();
        let folders: BTreeSet<PathBuf> = allocations.keys().cloned().collect();
        self.counters.watch(&folders);
        for (folder, row) in self.counters.read() {
            let Some((unit, alloc)) = allocations.get(folder) else { continue };
            let slot = alloc.slot.index.to_string();
            let labels = [("unit", &**unit), ("job", alloc.slot.job.as_str()), ("slot", &slot)];
            for (metric, total) in self.series.iter().zip(row) {
                if let Some(total) = total {
                    sink.count(metric, &labels, total as f64);
                }
            }
        }
    }
}

impl Collector for Counting {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        if self.counters.are_wanted() {
            self.count(sink);
        }
        self.sources().iter().for_each(|source| source.give(sink));
    }

    fn sources(&self) -> Vec<SourceReport> {
        let status = self.counters.status();
        let note = match self.counters.left_out() {
            0 => String::new(),
            some => {
                format!("{some} allocations are not counted: they would need too many descriptors")
            }
        };
        vec![SourceReport { what: "counters", from: "perf", status, note }]
    }
}

#[cfg(test)]
mod tests;
