//! What measuring costs: a metric like any other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use metrics::store::Usage;

use super::probing::Probing;
use super::sink::{Collector, Metric, Refusals, Sink};

/// What the thread has spent, and what it has.
#[derive(Debug, Default)]
pub struct Ledger {
    collecting: BTreeMap<&'static str, Duration>,
    answering: Duration,
    questions: u64,
    /// How full the store was after the last round.
    pub usage: Usage,
    /// What was not stored, until then.
    pub refusals: Refusals,
}

impl Ledger {
    /// A collector was called.
    pub fn collected(&mut self, collector: &'static str, took: Duration) {
        *self.collecting.entry(collector).or_default() += took;
    }

    /// A question was answered.
    pub fn answered(&mut self, took: Duration) {
        self.questions += 1;
        self.answering += took;
    }
}

/// What the thread costs, and the probes in the kernel.
pub struct Own {
    /// The probes.
    pub probing: Rc<RefCell<Probing>>,
    /// The thread's books.
    pub ledger: Rc<RefCell<Ledger>>,
}

impl Collector for Own {
    fn name(&self) -> &'static str {
        "own"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        const COLLECTING: Metric<'_> = Metric::counter(
            "weft_collector_cpu_seconds_total",
            "CPU time of the agent for measuring, by what is measured.",
        );
        const ANSWERING: Metric<'_> = Metric::counter(
            "weft_query_cpu_seconds_total",
            "CPU time of the thread that measures for answering questions.",
        );
        const QUESTIONS: Metric<'_> = Metric::counter(
            "weft_query_questions_total",
            "Questions that the thread that measures has answered, parts of others' queries among them.",
        );
        const RUNS: Metric<'_> = Metric::counter(
            "weft_probe_runs_total",
            "Events that a probe's program has looked at, as the kernel counts them.",
        );
        const RUN_TIME: Metric<'_> = Metric::counter(
            "weft_probe_run_seconds_total",
            "CPU time of a probe's program in the kernel, with what measuring it adds.",
        );
        let ledger = self.ledger.borrow();
        for (collector, took) in &ledger.collecting {
            sink.put(&COLLECTING, &[("collector", collector)], took.as_secs_f64());
        }
        sink.put(&ANSWERING, &[], ledger.answering.as_secs_f64());
        sink.put(&QUESTIONS, &[], ledger.questions as f64);
        give_usage(&ledger, sink);
        // Where the kernel does not measure it, it is not known.
        for (probe, cost) in self.probing.borrow().cost().into_iter().flatten() {
            let labels = [("probe", probe.name()), ("program", cost.program.as_str())];
            sink.put(&RUNS, &labels, cost.runs as f64);
            sink.put(&RUN_TIME, &labels, cost.total_ns as f64 / 1e9);
        }
    }
}

fn give_usage(ledger: &Ledger, sink: &mut Sink<'_>) {
    const BYTES: Metric<'_> = Metric::gauge(
        "weft_series_store_bytes",
        "Memory of the store of series: what it may have (budget), has (used), and has for labels (index).",
    );
    const SERIES: Metric<'_> = Metric::gauge("weft_series", "Series that the store has.");
    const SAMPLES: Metric<'_> =
        Metric::counter("weft_series_samples_total", "Samples that were stored.");
    const DROPPED: Metric<'_> = Metric::counter(
        "weft_series_dropped_blocks_total",
        "Blocks of old samples dropped to make room for new ones.",
    );
    const REFUSED: Metric<'_> = Metric::counter(
        "weft_series_refused_samples_total",
        "Samples that were not stored: no room for their series, or the clock was set back.",
    );
    let usage = ledger.usage;
    for (kind, bytes) in
        [("budget", usage.budget), ("used", usage.bytes), ("index", usage.index_bytes)]
    {
        sink.put(&BYTES, &[("kind", kind)], bytes as f64);
    }
    sink.put(&SERIES, &[], usage.series as f64);
    sink.put(&SAMPLES, &[], usage.samples as f64);
    sink.put(&DROPPED, &[], usage.dropped_blocks as f64);
    sink.put(&REFUSED, &[("reason", "series")], ledger.refusals.series as f64);
    sink.put(&REFUSED, &[("reason", "clock")], ledger.refusals.out_of_order as f64);
}
