//! Where what was measured goes: the seam between those who measure and the store.
//!
//! Whoever measures something of the machine implements [`Collector`] and is given a [`Sink`] once a
//! period. It needs to know nothing of stores, labels of the node, threads or queries.

use ebpf::Status;
use metrics::labels::{LabelError, Labels, NAME};
use metrics::span::stale_marker;
use metrics::store::{Kind, Refused, SeriesId, Store, Unfit};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The label that tells nodes apart. Every series has it; the sink adds it.
pub const HOME: &str = "node";

/// Something that measures the machine.
///
/// It lives on the thread `observe`, which is also the one that answers queries: a collector reads files
/// of the kernel and the like, which answer at once. What may take longer (a disk that is asked for its
/// health, a bus) is done on a thread of the collector's own, and what came of it last is given here.
///
/// All that it measures is given in every call, not only what changed. A series that it gave the time
/// before and does not give any more has ended, and queries see it no longer. What cannot be measured is
/// not given: it is never 0.
///
/// ```ignore
/// struct Load;
///
/// impl Collector for Load {
///     fn name(&self) -> &'static str {
///         "load"
///     }
///
///     fn collect(&mut self, sink: &mut Sink<'_>) {
///         const LOAD1: Metric<'_> = Metric::gauge("node_load1", "1m load average.");
///         if let Some(load) = read() {
///             sink.put(&LOAD1, &[], load);
///         }
///     }
/// }
/// ```
pub trait Collector {
    /// A word for people, and for the label `collector` of what it costs.
    fn name(&self) -> &'static str;

    /// Time between two calls, in whole seconds. What changes slowly is read seldom: each sample costs
    /// one or two bytes of a store of 4 MiB. Longer than five minutes, and queries do not see it.
    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Measures, and gives everything to the sink.
    fn collect(&mut self, sink: &mut Sink<'_>);

    /// What it needs that not every machine has, and whether this one does.
    fn sources(&self) -> Vec<SourceReport> {
        Vec::new()
    }
}

/// Whether something can be measured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// A word for people, and for the label `probe`.
    pub what: &'static str,
    /// Where its numbers come from, in a word.
    pub from: &'static str,
    /// Whether they come; why not, otherwise.
    pub status: Status,
    /// What else is to be said about it, or nothing.
    pub note: String,
}

impl SourceReport {
    /// Gives it as a series.
    pub fn give(&self, sink: &mut Sink<'_>) {
        let from = if self.status == Status::Running { self.from } else { "none" };
        give_info(self.what, &self.status, from, sink);
    }
}

/// Says how something that is measured is.
pub fn give_info(what: &str, status: &Status, from: &str, sink: &mut Sink<'_>) {
    const INFO: Metric<'_> = Metric::info(
        "weft_probe_info",
        "Which probe runs (or is off, unsupported, failed), and where its numbers come from.",
    );
    let status = match status {
        Status::Running => "running",
        Status::Off => "off",
        Status::Unsupported(_) => "unsupported",
        Status::Failed(_) => "failed",
    };
    sink.put(&INFO, &[("probe", what), ("status", status), ("source", from)], 1.0);
}

/// A metric: what all series of one name have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric<'a> {
    /// Its name as it is scraped: a counter's ends with `_total`, a histogram's has no `_bucket`.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'a str,
}

impl<'a> Metric<'a> {
    /// Only grows, or starts again at 0. Without `_total` at the end of its name (some of node_exporter's)
    /// scrapers are not told that it is a counter, since OpenMetrics would name it otherwise.
    pub const fn counter(name: &'a str, help: &'a str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    /// Goes up and down.
    pub const fn gauge(name: &'a str, help: &'a str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    /// Buckets, a sum and a count: see [`Sink::histogram`].
    pub const fn histogram(name: &'a str, help: &'a str) -> Self {
        Self { name, kind: Kind::Histogram, help }
    }

    /// Says by its labels what something is; its value is 1, and its name ends with `_info`.
    pub const fn info(name: &'a str, help: &'a str) -> Self {
        Self { name, kind: Kind::Info, help }
    }

    /// Nobody knows.
    pub const fn unknown(name: &'a str, help: &'a str) -> Self {
        Self { name, kind: Kind::Unknown, help }
    }

    /// The name and the kind that it is described by: those of its family in OpenMetrics.
    fn family(&self) -> (&'a str, Kind) {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            kind => return (self.name, kind),
        };
        match self.name.strip_suffix(suffix) {
            Some(family) => (family, self.kind),
            None => (self.name, if self.kind == Kind::Info { Kind::Gauge } else { Kind::Unknown }),
        }
    }
}

/// Takes what one collector measures in one call, all of it at one time.
pub struct Sink<'a> {
    recorder: &'a mut Recorder,
    collector: u16,
    now_ms: i64,
    /// When the collector was called before.
    before_ms: Option<i64>,
}

impl Sink<'_> {
    /// The wall clock: milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The value that a series has now. The label `node` is added. Labels without a text are left out.
    pub fn put(&mut self, metric: &Metric<'_>, labels: &[(&str, &str)], value: f64) {
        let begun = self.recorder.begun(metric, labels);
        self.record(&Series { metric, suffix: "", labels, more: None }, begun, value, false);
    }

    /// The value of a counter that was 0 when the collector was called before, if it was not given then: its
    /// first events are not lost to `rate` and `increase`.
    pub fn count(&mut self, metric: &Metric<'_>, labels: &[(&str, &str)], value: f64) {
        let begun = self.recorder.begun(metric, labels);
        self.record(&Series { metric, suffix: "", labels, more: None }, begun, value, true);
    }

    /// A histogram that has counted from 0 on, as [`count`](Self::count): upper bounds as text with
    /// cumulative counts, in order, the last one `+Inf`; and the sum of everything counted.
    pub fn histogram<'b>(
        &mut self,
        metric: &Metric<'_>,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (&'b str, u64)>,
        sum: f64,
    ) {
        let begun = self.recorder.begun(metric, labels);
        let mut count = 0;
        for (bound, below) in buckets {
            let series = Series { metric, suffix: "_bucket", labels, more: Some(("le", bound)) };
            self.record(&series, begun.clone(), below as f64, true);
            count = below;
        }
        for (suffix, value) in [("_sum", sum), ("_count", count as f64)] {
            self.record(&Series { metric, suffix, labels, more: None }, begun.clone(), value, true);
        }
    }

    fn record(&mut self, series: &Series<'_>, begun: DefaultHasher, value: f64, from_zero: bool) {
        let since = self.before_ms.filter(|_| from_zero);
        let key = series.key(begun);
        self.recorder.record(key, series, self.collector, self.now_ms, since, value);
    }
}

/// What the sink knows of a series that was given to it.
struct Series<'a> {
    metric: &'a Metric<'a>,
    suffix: &'a str,
    labels: &'a [(&'a str, &'a str)],
    more: Option<(&'a str, &'a str)>,
}

/// The store, and which series each collector writes into it.
///
/// Invariant: whoever is in `known` had a sample in the round that is noted there, and no stale marker since.
pub struct Recorder {
    store: Store,
    home: Arc<str>,
    /// By a keyed hash of name and labels, so that a sample costs no allocation: two series of one store
    /// share a hash once in a hundred billion stores.
    known: HashMap<u64, Known>,
    hasher: RandomState,
    round: u32,
    refusals: Refusals,
}

struct Known {
    id: SeriesId,
    round: u32,
    collector: u16,
}

/// What was not stored, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Samples of series that the store has no room for, or whose labels make no sense.
    pub series: u64,
    /// Samples that are not later than the last of their series: the wall clock was set back.
    pub out_of_order: u64,
}

#[derive(Debug, thiserror::Error)]
enum Unrecorded {
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Store(#[from] Refused),
}

impl Recorder {
    /// Writes into a store of `budget` bytes, as the node `home`.
    pub fn new(budget: usize, home: &str) -> Self {
        Self {
            store: Store::new(budget),
            home: home.into(),
            known: HashMap::new(),
            hasher: RandomState::new(),
            round: 0,
            refusals: Refusals::default(),
        }
    }

    /// What is stored.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was not stored.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// The node is called otherwise from now on: its series end and begin again.
    pub fn rename(&mut self, home: &str, now_ms: i64) {
        if *self.home != *home {
            self.end(now_ms, |_| true);
            self.home = home.into();
        }
    }

    /// Forgets what is older than the store keeps.
    pub fn expire(&mut self, now_ms: i64) {
        self.store.expire(now_ms);
    }

    /// The clock was set, by so much ahead: what is stored moves along.
    pub fn shift(&mut self, by_ms: i64) {
        self.store.shift(by_ms);
    }

    /// One call of a collector, whose number no other has: what it gave the time before and does not give
    /// now has ended.
    pub fn collect(
        &mut self,
        number: u16,
        now_ms: i64,
        before_ms: Option<i64>,
        collect: impl FnOnce(&mut Sink<'_>),
    ) {
        self.round = self.round.wrapping_add(1);
        collect(&mut Sink { recorder: self, collector: number, now_ms, before_ms });
        let round = self.round;
        self.end(now_ms, |known| known.collector == number && known.round != round);
    }

    fn end(&mut self, now_ms: i64, ended: impl Fn(&Known) -> bool) {
        let store = &mut self.store;
        self.known.retain(|_, known| {
            let ended = ended(known);
            if ended {
                // It may be forgotten already, or have a sample of this very moment.
                let _ = store.append(known.id, now_ms, stale_marker());
            }
            !ended
        });
    }

    /// The beginning of the keys of a metric's series with these labels.
    fn begun(&self, metric: &Metric<'_>, labels: &[(&str, &str)]) -> DefaultHasher {
        let mut hash = self.hasher.build_hasher();
        metric.name.hash(&mut hash);
        labels.hash(&mut hash);
        hash
    }

    fn record(
        &mut self,
        key: u64,
        series: &Series<'_>,
        collector: u16,
        now_ms: i64,
        since: Option<i64>,
        value: f64,
    ) {
        let round = self.round;
        if let Some(known) = self.known.get_mut(&key) {
            known.round = round;
            match self.store.append(known.id, now_ms, value) {
                Ok(()) => return,
                Err(Unfit::OutOfOrder | Unfit::Time) => {
                    self.refusals.out_of_order += 1;
                    return;
                }
                // The store needed its place.
                Err(Unfit::Forgotten) => {}
            }
        }
        let id = match self.take_in(series, now_ms) {
            Ok(id) => id,
            Err(refused) => {
                if self.refusals.series == 0 {
                    tracing::warn!(metric = series.metric.name, %refused, "series are not stored");
                }
                self.refusals.series += 1;
                return;
            }
        };
        if let Some(before_ms) = since.filter(|_| value != 0.0) {
            // There may be a sample of it from earlier: then it only goes on.
            let _ = self.store.append(id, before_ms, 0.0);
        }
        if self.store.append(id, now_ms, value).is_err() {
            self.refusals.out_of_order += 1;
        }
        self.known.insert(key, Known { id, round, collector });
    }

    fn take_in(&mut self, series: &Series<'_>, now_ms: i64) -> Result<SeriesId, Unrecorded> {
        let (family, kind) = series.metric.family();
        let name = format!("{}{}", series.metric.name, series.suffix);
        let ours = [(NAME, name.as_str()), (HOME, &self.home)];
        let others = series.labels.iter().copied().chain(series.more);
        let labels = Labels::new(ours.into_iter().chain(others))?;
        self.store.describe(family, kind, series.metric.help, unit(family))?;
        Ok(self.store.series(&labels, now_ms)?)
    }
}

impl Series<'_> {
    /// `begun`: with the metric and the labels.
    fn key(&self, mut begun: DefaultHasher) -> u64 {
        self.suffix.hash(&mut begun);
        self.more.hash(&mut begun);
        begun.finish()
    }
}

/// The unit of a metric, by its name.
fn unit(family: &str) -> &'static str {
    let units = ["seconds", "bytes", "celsius", "joules", "volts", "amperes", "watts", "ratio"];
    units.into_iter().find(|unit| family.ends_with(unit)).unwrap_or("")
}

#[cfg(test)]
mod tests;
