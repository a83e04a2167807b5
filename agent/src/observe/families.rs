//! The series of each probe: their names, and which number of a reading each one is.

use std::collections::BTreeMap;

use ebpf::block::{Block, Traffic};
use ebpf::{CgroupId, Histogram, Reading, Readings, bounds};

use super::probing::labels;
use super::sink::{Metric, Sink};
use super::units::Unit;

/// Upper bounds of the buckets of times, in seconds: powers of two of nanoseconds from 1 us to 1 s. The probes
/// have eight buckets in each; that is more than a store of 4 MiB can keep.
#[rustfmt::skip]
const BOUNDS: [&str; 22] = [
    "0.000001024", "0.000002048", "0.000004096", "0.000008192", "0.000016384", "0.000032768",
    "0.000065536", "0.000131072", "0.000262144", "0.000524288", "0.001048576", "0.002097152",
    "0.004194304", "0.008388608", "0.016777216", "0.033554432", "0.067108864", "0.134217728",
    "0.268435456", "0.536870912", "1.073741824", "+Inf",
];
/// The first bound is two to this power, in nanoseconds.
const FIRST_POWER: u32 = 10;

const SECONDS: f64 = 1e-9;
const ONE: f64 = 1.0;

type Label = (&'static str, &'static str);
type Row = Vec<u64>;

/// Series that are read together.
pub struct Family {
    /// A label that all of them have.
    label: Option<Label>,
    /// One for each number of a row, with another label, and what it is multiplied with.
    columns: &'static [(Metric<'static>, Option<Label>, f64)],
    /// What follows those numbers: a sum in nanoseconds, and cumulative counts for [`BOUNDS`].
    histogram: Option<Metric<'static>>,
    /// The rows of a reading; none where the source does not tell.
    pub rows: fn(&Readings) -> Vec<(CgroupId, Row)>,
}

const WAIT: Metric<'_> = Metric::counter(
    "weft_unit_cpu_wait_seconds_total",
    "Time that threads were ready to run and had no CPU.",
);
const ON_CPU: Metric<'_> =
    Metric::counter("weft_unit_cpu_seconds_total", "Time that threads had a CPU.");
const OFF_CPU: Metric<'_> =
    Metric::counter("weft_unit_sleep_seconds_total", "Time that threads were asleep.");
const SWITCHES: Metric<'_> = Metric::counter(
    "weft_unit_context_switches_total",
    "Times that a thread gave its CPU away (voluntary) or lost it (involuntary).",
);
const RUNQUEUE: Metric<'_> = Metric::histogram(
    "weft_unit_runqueue_seconds",
    "How long threads that were ready to run waited for a CPU.",
);
const BLOCK_BYTES: Metric<'_> =
    Metric::counter("weft_unit_block_bytes_total", "Bytes of answered requests to block devices.");
const BLOCK_REQUESTS: Metric<'_> =
    Metric::counter("weft_unit_block_requests_total", "Answered requests to block devices.");
const BLOCK_LATENCY: Metric<'_> = Metric::histogram(
    "weft_unit_block_seconds",
    "From the making of a request to a block device until its answer.",
);
const CONNECTS: Metric<'_> =
    Metric::counter("weft_unit_tcp_connects_total", "TCP connections made, or not made.");
const CONNECT_LATENCY: Metric<'_> = Metric::histogram(
    "weft_unit_tcp_connect_seconds",
    "From the first SYN until the connection was there.",
);
const NETWORK_BYTES: Metric<'_> = Metric::counter(
    "weft_unit_network_bytes_total",
    "Bytes of IP packets of the unit's sockets, on every interface.",
);
const NETWORK_PACKETS: Metric<'_> = Metric::counter(
    "weft_unit_network_packets_total",
    "IP packets of the unit's sockets, on every interface.",
);
const FAULTS: Metric<'_> = Metric::counter(
    "weft_unit_page_faults_total",
    "Times that a page was not there when it was touched.",
);
const MAJOR_FAULTS: Metric<'_> = Metric::counter(
    "weft_unit_major_page_faults_total",
    "Page faults that had to wait for a disk.",
);
const KILLS: Metric<'_> = Metric::counter(
    "weft_unit_oom_kills_total",
    "Processes that the kernel killed for want of memory.",
);
const STARTED: Metric<'_> =
    Metric::counter("weft_unit_processes_started_total", "Processes started (forked).");
const EXITED: Metric<'_> =
    Metric::counter("weft_unit_processes_exited_total", "Processes that ended.");
const THREADS: Metric<'_> =
    Metric::counter("weft_unit_threads_started_total", "Threads started within processes.");
const PROGRAMS: Metric<'_> = Metric::counter(
    "weft_unit_programs_total",
    "Times that a process became another program (exec).",
);

const VOLUNTARY: Option<Label> = Some(("kind", "voluntary"));
const INVOLUNTARY: Option<Label> = Some(("kind", "involuntary"));
const READ: Option<Label> = Some(("operation", "read"));
const WRITE: Option<Label> = Some(("operation", "write"));
const FLUSH: Option<Label> = Some(("operation", "other"));
const IN: Option<Label> = Some(("direction", "in"));
const OUT: Option<Label> = Some(("direction", "out"));

const BLOCK: &[(Metric<'static>, Option<Label>, f64)] =
    &[(BLOCK_BYTES, None, ONE), (BLOCK_REQUESTS, None, ONE)];

/// All there are.
pub const FAMILIES: &[Family] = &[
    Family {
        label: None,
        columns: &[
            (WAIT, None, SECONDS),
            (ON_CPU, None, SECONDS),
            (SWITCHES, VOLUNTARY, ONE),
            (SWITCHES, INVOLUNTARY, ONE),
        ],
        histogram: None,
        rows: |readings| {
            rows(&readings.scheduler, |row| {
                Some(vec![
                    row.wait_ns?,
                    row.on_cpu_ns?,
                    row.voluntary_switches?,
                    row.involuntary_switches?,
                ])
            })
        },
    },
    Family {
        label: None,
        columns: &[(OFF_CPU, None, SECONDS)],
        histogram: Some(RUNQUEUE),
        rows: |readings| {
            rows(&readings.scheduler, |row| {
                let waits = histogram(row.wait.as_ref()?, row.wait_ns);
                Some([vec![row.off_cpu_ns?], waits].concat())
            })
        },
    },
    Family { label: READ, columns: BLOCK, histogram: None, rows: |r| block(r, |row| &row.read) },
    Family { label: WRITE, columns: BLOCK, histogram: None, rows: |r| block(r, |row| &row.write) },
    Family { label: FLUSH, columns: BLOCK, histogram: None, rows: |r| block(r, |row| &row.other) },
    Family {
        label: READ,
        columns: &[],
        histogram: Some(BLOCK_LATENCY),
        rows: |readings| block_latency(readings, |row| &row.read),
    },
    Family {
        label: WRITE,
        columns: &[],
        histogram: Some(BLOCK_LATENCY),
        rows: |readings| block_latency(readings, |row| &row.write),
    },
    Family {
        label: FLUSH,
        columns: &[],
        histogram: Some(BLOCK_LATENCY),
        rows: |readings| block_latency(readings, |row| &row.other),
    },
    Family {
        label: None,
        columns: &[
            (CONNECTS, Some(("outcome", "connected")), ONE),
            (CONNECTS, Some(("outcome", "failed")), ONE),
        ],
        histogram: Some(CONNECT_LATENCY),
        rows: |readings| {
            rows(&readings.connecting, |row| {
                let latency = histogram(row.latency.as_ref()?, None);
                Some([vec![row.connected?, row.failed?], latency].concat())
            })
        },
    },
    Family {
        label: None,
        columns: &[
            (NETWORK_BYTES, IN, ONE),
            (NETWORK_PACKETS, IN, ONE),
            (NETWORK_BYTES, OUT, ONE),
            (NETWORK_PACKETS, OUT, ONE),
        ],
        histogram: None,
        rows: |readings| {
            rows(&readings.network, |row| {
                Some(vec![
                    row.received_bytes,
                    row.received_packets,
                    row.sent_bytes,
                    row.sent_packets,
                ])
            })
        },
    },
    Family {
        label: None,
        columns: &[(FAULTS, None, ONE)],
        histogram: None,
        rows: |readings| rows(&readings.faults, |row| Some(vec![row.faults])),
    },
    Family {
        label: None,
        columns: &[(MAJOR_FAULTS, None, ONE)],
        histogram: None,
        rows: |readings| rows(&readings.faults, |row| Some(vec![row.major?])),
    },
    Family {
        label: None,
        columns: &[(KILLS, None, ONE)],
        histogram: None,
        rows: |readings| rows(&readings.oom, |row| Some(vec![row.kills])),
    },
    Family {
        label: None,
        columns: &[
            (STARTED, None, ONE),
            (THREADS, None, ONE),
            (PROGRAMS, None, ONE),
            (EXITED, None, ONE),
        ],
        histogram: None,
        rows: |readings| {
            rows(&readings.processes, |row| {
                Some(vec![row.started, row.threads, row.programs, row.exited])
            })
        },
    },
];

impl Family {
    /// Gives the series of one unit. An allocation has all that are measured, everything else those in which
    /// something has happened.
    pub fn give(&self, unit: &Unit, row: &[u64], sink: &mut Sink<'_>) {
        for ((metric, label, scale), count) in self.columns.iter().zip(row) {
            if *count > 0 || unit.job.is_some() {
                let more: Vec<_> = label.iter().chain(&self.label).copied().collect();
                sink.count(metric, &labels(unit, &more), *count as f64 * scale);
            }
        }
        if let Some((metric, row)) = self.histogram.as_ref().zip(row.get(self.columns.len()..)) {
            let more: Vec<_> = self.label.into_iter().collect();
            give_histogram(metric, &labels(unit, &more), row, sink);
        }
    }
}

/// A row of [`cumulative`], once something was counted.
pub fn give_histogram(
    metric: &Metric<'_>,
    labels: &[(&str, &str)],
    row: &[u64],
    sink: &mut Sink<'_>,
) {
    let [sum_ns, counts @ ..] = row else { return };
    if counts.last().is_some_and(|count| *count > 0) {
        let buckets = BOUNDS.into_iter().zip(counts.iter().copied());
        sink.histogram(metric, labels, buckets, *sum_ns as f64 * SECONDS);
    }
}

fn rows<T>(
    reading: &Option<Reading<BTreeMap<CgroupId, T>>>,
    row: impl Fn(&T) -> Option<Row>,
) -> Vec<(CgroupId, Row)> {
    let rows = reading.iter().flat_map(|reading| &reading.rows);
    rows.filter_map(|(id, counted)| Some((*id, row(counted)?))).collect()
}

fn block(readings: &Readings, operation: fn(&Block) -> &Traffic) -> Vec<(CgroupId, Row)> {
    rows(&readings.block, |row| {
        let traffic = operation(row);
        Some(vec![traffic.bytes?, traffic.requests?])
    })
}

fn block_latency(readings: &Readings, operation: fn(&Block) -> &Traffic) -> Vec<(CgroupId, Row)> {
    rows(&readings.block, |row| Some(histogram(operation(row).latency.as_ref()?, None)))
}

fn histogram(counted: &Histogram, sum_ns: Option<u64>) -> Row {
    cumulative(counted, 1, sum_ns)
}

/// The sum, which is known to a sixteenth where the source does not tell, and cumulative counts for [`BOUNDS`], of
/// what was counted in units of so many nanoseconds.
pub fn cumulative(counted: &Histogram, unit_ns: u64, sum_ns: Option<u64>) -> Vec<u64> {
    let mut row = vec![0; 1 + BOUNDS.len()];
    let mut middle = 0;
    for (bucket, count) in counted.counts() {
        let (low, high) = bounds(*bucket);
        middle += (low + (high - low) / 2) * count;
        // The lowest power of two that all of the bucket is below.
        let power = u64::BITS - high.saturating_mul(unit_ns).leading_zeros();
        let place = (power.max(FIRST_POWER) - FIRST_POWER) as usize;
        row[1 + place.min(BOUNDS.len() - 1)] += count;
    }
    for place in 2..row.len() {
        row[place] += row[place - 1];
    }
    row[0] = sum_ns.unwrap_or(middle.saturating_mul(unit_ns));
    row
}

#[cfg(test)]
mod tests;
