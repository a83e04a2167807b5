//! What the probes count, as series of units. `docs/METRICS.md` has the table.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ebpf::pressure::Stalled;
use ebpf::{CgroupId, Cgroups, Probe, Probes, Readings, Source, Status};
use fabric::id::AllocId;

use super::counts::Counts;
use super::families::{FAMILIES, Family, cumulative, give_histogram};
use super::sink::{Collector, Metric, Sink, give_info};
use super::units::{OTHER, Unit, Units};

/// Peers of units that have series of their own; further ones are counted as [`OTHER`].
const PEERS_MAX: usize = 64;
/// Time between two looks at every connection, which take milliseconds on a machine with much memory.
const ROUND_TRIPS_PERIOD: Duration = Duration::from_secs(10);
/// The unit of round-trip times.
const MICROSECOND_NS: u64 = 1_000;
/// Time between two looks at pressure: three files a unit.
const PRESSURE_PERIOD: Duration = Duration::from_secs(5);
/// Time between two readings where threads have to be looked at one by one: three files each.
const THREADS_PERIOD: Duration = Duration::from_secs(10);

/// The probes of this machine, and what they have counted.
pub struct Probing {
    probes: Probes,
    units: Units,
    families: Vec<(&'static Family, Counts)>,
    peers: Counts<Option<IpAddr>>,
    sources: BTreeMap<Probe, Source>,
}

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Which.
    pub probe: Probe,
    /// Whether its hooks are in place; why not, otherwise.
    pub status: Status,
    /// Where its readings come from; `None`: there are none.
    pub source: Option<Source>,
}

impl Probing {
    /// Loads probes. Allocations have their cgroups in `ours`.
    pub fn load(config: &ebpf::Config, ours: Option<&Path>) -> Self {
        let probes = Probes::load(config);
        let units = Units::new(ours, probes.cgroups());
        Self {
            units,
            probes,
            families: FAMILIES.iter().map(|family| (family, Counts::new(usize::MAX))).collect(),
            peers: Counts::new(PEERS_MAX),
            sources: BTreeMap::new(),
        }
    }

    /// What became of each probe.
    pub fn reports(&self) -> Vec<ProbeReport> {
        let reports = self.probes.status().into_iter().map(|(probe, status)| {
            let source = self.sources.get(&probe).copied();
            ProbeReport { probe, status, source }
        });
        reports.collect()
    }

    /// The cgroups of an allocation: its own and those that it made below.
    pub fn cgroups(&mut self, alloc: &AllocId) -> Vec<CgroupId> {
        self.units.cgroups(alloc, self.probes.cgroups())
    }

    /// What the probes cost, as the kernel measures it.
    pub fn cost(&self) -> Result<Vec<(Probe, ebpf::Cost)>, ebpf::Unmeasured> {
        self.probes.cost()
    }

    fn read(&mut self) {
        let readings = self.probes.read();
        let cgroups = self.probes.cgroups();
        self.units.refresh(cgroups);
        self.sources = sources(&readings);
        for (family, counts) in &mut self.families {
            let rows = (family.rows)(&readings).into_iter().map(|(id, row)| ((id, ()), row));
            counts.add(rows, &mut self.units, cgroups);
        }
        let peers = readings.peers.iter().flat_map(|reading| &reading.rows);
        let peers = peers
            .map(|(peer, repeats)| ((peer.cgroup, peer.address), vec![repeats.segments]))
            .filter(|(_, row)| row[0] > 0);
        self.peers.add(peers, &mut self.units, cgroups);
    }

    fn give(&self, sink: &mut Sink<'_>) {
        for (family, counts) in &self.families {
            for (unit, (), row) in counts.totals() {
                family.give(unit, row, sink);
            }
        }
        const AGAIN: Metric<'_> = Metric::counter(
            "weft_unit_tcp_retransmits_total",
            "TCP segments sent again, by the address they were for.",
        );
        for (unit, peer, row) in self.peers.totals() {
            let address = peer.map_or(OTHER.to_owned(), |peer| peer.to_string());
            sink.count(&AGAIN, &labels(unit, &[("peer", &address)]), row[0] as f64);
        }
        for ProbeReport { probe, status, source } in self.reports() {
            let source = source.map_or("none", source_name);
            give_info(probe.name(), &status, source, sink);
        }
    }

    /// Whether threads are looked at one by one.
    fn is_dear(&self) -> bool {
        [Probe::Scheduler, Probe::Faults]
            .iter()
            .any(|probe| self.sources.get(probe) == Some(&Source::Procfs))
    }
}

/// The word for a source, in labels and for people.
pub fn source_name(source: Source) -> &'static str {
    match source {
        Source::Bpf => "bpf",
        Source::Procfs => "procfs",
        Source::Cgroupfs => "cgroupfs",
    }
}

fn sources(readings: &Readings) -> BTreeMap<Probe, Source> {
    let Readings { scheduler, block, connecting, peers, network, faults, oom, processes, .. } =
        readings;
    let tcp = connecting.as_ref().map(|reading| reading.source);
    let all = [
        (Probe::Scheduler, scheduler.as_ref().map(|reading| reading.source)),
        (Probe::Block, block.as_ref().map(|reading| reading.source)),
        (Probe::Tcp, tcp.or(peers.as_ref().map(|reading| reading.source))),
        (Probe::Network, network.as_ref().map(|reading| reading.source)),
        (Probe::Faults, faults.as_ref().map(|reading| reading.source)),
        (Probe::OutOfMemory, oom.as_ref().map(|reading| reading.source)),
        (Probe::Processes, processes.as_ref().map(|reading| reading.source)),
    ];
    all.into_iter().filter_map(|(probe, source)| Some((probe, source?))).collect()
}

/// The labels of a unit, and some more.
pub(super) fn labels<'a>(unit: &'a Unit, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    unit.labels().chain(more.iter().copied()).collect()
}

/// What the probes count.
pub struct Counted(pub Rc<RefCell<Probing>>);

impl Collector for Counted {
    fn name(&self) -> &'static str {
        "probes"
    }

    fn period(&self) -> Duration {
        if self.0.borrow().is_dear() { THREADS_PERIOD } else { Duration::from_secs(1) }
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        let mut probing = self.0.borrow_mut();
        probing.read();
        probing.give(sink);
    }
}

/// Round-trip times of the connections that there are.
pub struct RoundTrips {
    probing: Rc<RefCell<Probing>>,
    /// What was found in all looks until now: each connection counts once a look.
    ///
    /// Invariant: of units that are there, and none falls.
    seen: BTreeMap<Arc<Unit>, Vec<u64>>,
}

impl RoundTrips {
    /// Has seen none yet.
    pub fn new(probing: Rc<RefCell<Probing>>) -> Self {
        Self { probing, seen: BTreeMap::new() }
    }
}

impl Collector for RoundTrips {
    fn name(&self) -> &'static str {
        "round-trips"
    }

    fn period(&self) -> Duration {
        ROUND_TRIPS_PERIOD
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        const CONNECTIONS: Metric<'_> = Metric::gauge(
            "weft_unit_tcp_connections",
            "TCP connections, by who is at the other end.",
        );
        const MEAN: Metric<'_> = Metric::gauge(
            "weft_unit_tcp_round_trip_mean_seconds",
            "Smoothed round-trip time, averaged over the connections with a peer.",
        );
        const MAX: Metric<'_> = Metric::gauge(
            "weft_unit_tcp_round_trip_max_seconds",
            "Smoothed round-trip time, the longest of the connections with a peer.",
        );
        const TRIPS: Metric<'_> = Metric::histogram(
            "weft_unit_tcp_round_trip_seconds",
            "Smoothed round-trip time of TCP connections: every ten seconds, each counts once.",
        );
        let Probing { probes, units, .. } = &mut *self.probing.borrow_mut();
        let Some(reading) = probes.round_trips() else { return };
        self.seen.retain(|unit, _| units.is_there(unit));
        for (peer, trips) in &reading.rows {
            let row = self.seen.entry(units.of(peer.cgroup, probes.cgroups())).or_default();
            let now = cumulative(
                &trips.round_trip_us,
                MICROSECOND_NS,
                Some(trips.round_trip_sum_us * MICROSECOND_NS),
            );
            row.resize(now.len(), 0);
            row.iter_mut().zip(now).for_each(|(sum, count)| *sum += count);
        }
        for (unit, row) in &self.seen {
            give_histogram(&TRIPS, &labels(unit, &[]), row, sink);
        }
        let mut peers: Vec<_> = reading.rows.into_iter().collect();
        peers.sort_by_key(|(_, trips)| std::cmp::Reverse(trips.connections));
        for (peer, trips) in peers.into_iter().take(PEERS_MAX) {
            let unit = units.of(peer.cgroup, probes.cgroups());
            let address = peer.address.map_or(OTHER.to_owned(), |address| address.to_string());
            let labels = labels(&unit, &[("peer", &address)]);
            sink.put(&CONNECTIONS, &labels, trips.connections as f64);
            let mean = trips.round_trip_sum_us as f64 / trips.connections.max(1) as f64;
            sink.put(&MEAN, &labels, mean / 1e6);
            if let Some(longest) = trips.round_trip_max_us {
                sink.put(&MAX, &labels, longest as f64 / 1e6);
            }
        }
    }
}

/// What units stood still for.
pub struct Pressure(pub Rc<RefCell<Probing>>);

impl Collector for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn period(&self) -> Duration {
        PRESSURE_PERIOD
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        const STALLED: Metric<'_> = Metric::counter(
            "weft_unit_pressure_seconds_total",
            "Time that some or all threads of a unit stood still for want of a resource.",
        );
        let Probing { probes, units, .. } = &mut *self.0.borrow_mut();
        // That of a cgroup holds for all below it: of a unit only the outermost is asked.
        let wanted = |id: CgroupId, cgroups: &Cgroups| {
            let unit = units.of(id, cgroups);
            units.is_whole(id, &unit, cgroups)
        };
        let Some(reading) = probes.pressure(wanted) else { return };
        for (id, pressure) in &reading.rows {
            let unit = units.of(*id, probes.cgroups());
            let all = [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)];
            for (resource, stalled) in all {
                let Some(Stalled { some_us, full_us }) = stalled else { continue };
                for (kind, time_us) in [("some", Some(some_us)), ("full", full_us)] {
                    let Some(time_us) = time_us else { continue };
                    let labels = labels(&unit, &[("resource", resource), ("kind", kind)]);
                    sink.put(&STALLED, &labels, time_us as f64 / 1e6);
                }
            }
        }
    }
}
