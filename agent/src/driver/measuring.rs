//! What the agent measures: by the thread that observes, and what it counts itself.

use fabric::clock::Instant;
use std::path::PathBuf;
use std::time::Duration;

use super::member::Counts;
use super::standing::Standing;
use super::units::Work;
use super::{Driver, services};
use crate::config::Config;
use crate::executor::Executor;
use crate::host;
use crate::observe::{Metric, Observer, Sample, Source};
use crate::trace::Tracer;

/// Time between two times that the loop's counters go into the store.
const COUNT_PERIOD: Duration = Duration::from_secs(10);

/// Who measures, and what the loop counts.
///
/// Invariant: `name` is what the observer calls this node.
pub(super) struct Measuring {
    pub(super) observer: Observer,
    pub(super) tracer: Tracer,
    /// What this node's series are called after: no other node of its fabric is called so.
    pub(super) name: String,
    /// When the loop's counters went into the store.
    counted: Instant,
    pub(super) counts: Counts,
    pub(super) standing: Standing,
}

impl Measuring {
    /// Starts the thread that observes. `folder`: of the cgroups of units.
    pub(super) fn start(
        config: &Config,
        name: &str,
        folder: Option<PathBuf>,
        work: &Work,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let observer = Observer::start(&config.metrics, name, folder, host::collectors)?;
        if let (Executor::Systemd(systemd), true) = (&work.executor, config.metrics.enabled) {
            tokio::spawn(services::watch(systemd.clone(), observer.clone()));
        }
        Ok(Self {
            observer,
            tracer: Tracer::new(work.helpers.clone()),
            name: name.to_owned(),
            counted: now,
            counts: Counts::default(),
            standing: Standing::default(),
        })
    }
}

/// Samples in the making.
#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Metric::counter(name, help), "", [("", value)]);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Metric::gauge(name, help), "", [("", value)]);
    }

    /// A metric's samples, which differ in one label; an empty one is none.
    fn family<V: ToString>(
        &mut self,
        metric: Metric<'static>,
        label: &'static str,
        values: impl IntoIterator<Item = (V, u64)>,
    ) {
        for (text, value) in values {
            let labels = match label {
                "" => Vec::new(),
                label => vec![(label, text.to_string())],
            };
            self.0.push(Sample { metric, labels, value: value as f64 });
        }
    }
}

impl Driver {
    /// Once a second: series are called after the node's name, and get what was counted.
    pub(super) fn measure(&mut self, now: Instant) {
        if let Some(member) = &self.member {
            let name = member.node.name_of(&self.identity.id());
            if name != self.measuring.name {
                self.measuring.observer.rename(&name);
                self.measuring.name = name;
            }
        }
        if now.since(self.measuring.counted) >= COUNT_PERIOD {
            self.measuring.counted = now;
            let counters = self.counters();
            self.measuring.observer.count(Source::Loop, counters);
        }
    }

    /// What the agent has counted.
    pub(super) fn counters(&mut self) -> Vec<Sample> {
        let mut all = Samples::default();
        all.0.push(Sample {
            metric: Metric::info("weft_agent_info", "Version and executor of the agent."),
            labels: vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("executor", self.work.executor.name().to_owned()),
            ],
            value: 1.0,
        });
        let counts = self.measuring.counts;
        all.counter("weft_api_calls_total", "Requests to the API.", counts.calls);
        all.counter("weft_events_total", "Events seen.", self.events.count());
        all.family(
            Metric::counter("weft_gossip_datagrams_total", "Gossip datagrams."),
            "direction",
            [("out", counts.datagrams_sent), ("in", counts.datagrams_received)],
        );
        all.family(
            Metric::counter("weft_gossip_bytes_total", "Bytes of gossip, sealed."),
            "direction",
            [("out", counts.datagram_bytes_sent), ("in", counts.datagram_bytes_received)],
        );
        all.counter(
            "weft_gossip_unsent_total",
            "Datagrams that the kernel did not take.",
            counts.datagrams_unsent,
        );
        all.counter(
            "weft_unit_commands_dropped_total",
            "Commands to the executor dropped because it was behind.",
            counts.unit_commands_dropped,
        );
        self.count_fabric(&mut all);
        all.0
    }

    fn count_fabric(&mut self, all: &mut Samples) {
        let now = self.clock.now().at;
        let Some(member) = &self.member else { return };
        let seal = member.seal.counters();
        all.family(
            Metric::counter("weft_gossip_refused_total", "Datagrams refused, by reason."),
            "reason",
            [
                ("malformed", seal.malformed),
                ("unknown-key", seal.unknown_key),
                ("forged", seal.forged),
                ("replayed", seal.replayed),
                ("not-member", seal.not_member),
                ("outdated", seal.outdated),
            ],
        );
        let streams = member.transport.counters();
        all.family(
            Metric::counter("weft_messages_total", "Messages over streams."),
            "direction",
            [("out", streams.sent), ("in", streams.received)],
        );
        all.family(
            Metric::counter("weft_messages_lost_total", "Messages not delivered, by reason."),
            "reason",
            [("unreachable", streams.undelivered), ("overflow", streams.overflowed)],
        );
        all.family(
            Metric::counter("weft_streams_refused_total", "Refused on the stream port."),
            "reason",
            [("malformed", streams.malformed), ("stranger", streams.refused)],
        );
        all.family(
            Metric::counter("weft_dials_total", "Connections to others."),
            "outcome",
            [("made", streams.dialled), ("failed", streams.dial_failures)],
        );
        all.gauge(
            "weft_connections",
            "Open connections to others.",
            member.transport.connections() as u64,
        );
        let core = member.node.counters();
        all.counter("weft_core_ticks_total", "Decisions of the core.", core.ticks);
        all.counter(
            "weft_core_malformed_total",
            "Authentic datagrams and messages that made no sense.",
            core.malformed,
        );
        all.family(
            Metric::counter("weft_rows_refused_total", "Rows of the table refused, by reason."),
            "reason",
            [("ahead", core.ahead), ("forged", core.forged), ("not-member", core.strange)],
        );
        all.family(
            Metric::counter("weft_proposals_total", "Placements proposed or judged."),
            "what",
            [("proposed", core.proposed), ("accepted", core.accepted), ("rejected", core.rejected)],
        );
        all.counter(
            "weft_core_outputs_dropped_total",
            "Outputs dropped because nobody took them.",
            core.outputs_dropped,
        );
        let status = self.measuring.standing.of(&member.node, now);
        all.family(
            Metric::gauge("weft_nodes", "Nodes by state, as this node sees them."),
            "state",
            status.nodes.iter().map(|(state, count)| (state, u64::from(*count))),
        );
        all.gauge("weft_jobs", "Jobs.", status.jobs.into());
        all.family(
            Metric::gauge("weft_slots", "Slots of all jobs."),
            "state",
            [
                ("wanted", u64::from(status.wanted)),
                ("healthy", status.healthy.into()),
                ("unplaceable", status.unplaceable.into()),
            ],
        );
        all.gauge(
            "weft_local_health",
            "Local health multiplier: 0 is well.",
            status.local_health.into(),
        );
        let refuses = member.disk.is_some();
        all.gauge("weft_disk_refuses", "1: no new work is taken.", refuses.into());
    }
}
