//! `[metrics]`

use ebpf::Probe;
use fabric::job::nearest;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Receiver;
use super::{AUTO, ConfigError};

/// Bytes that the store of series may have: below there is no room for anything, above it is another program's
/// task.
const MEMORY_BYTES: RangeInclusive<usize> = 64 << 10..=256 << 20;

/// Time between two samples that are sent: more often than once a second nothing is measured, and what is more than
/// five minutes old no query finds.
const SENT_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(240);

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSection {
    /// Measure, keep and answer at all.
    pub enabled: bool,
    /// Which eBPF probes, by name; `["auto"]`: all that this machine can load.
    pub probes: Vec<String>,
    /// Count instructions, cycles and the like of allocations, where the processor does.
    pub counters: bool,
    /// Memory of the store of series, `4MiB`.
    pub memory: String,
    /// TCP address for scrapers and dashboards, `127.0.0.1:7480`; empty: none.
    pub listen: String,
    /// URL of a receiver of remote-write, `http://prometheus:9090/api/v1/write`; empty: none.
    pub remote_write: String,
    /// Time between two samples of a series that it is sent, `15s`.
    pub remote_write_every: String,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self {
            enabled: true,
            probes: vec![AUTO.into()],
            counters: false,
            memory: "4MiB".into(),
            listen: String::new(),
            remote_write: String::new(),
            remote_write_every: "15s".into(),
        }
    }
}

impl MetricsSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, message| Err(ConfigError::Value { key, message });
        let words = Probe::ALL.map(Probe::name);
        if let Some(wrong) = self.probes.iter().find(|name| {
            let alone = *name == AUTO && self.probes.len() == 1;
            !alone && !words.contains(&name.as_str())
        }) {
            let near = nearest(wrong, words.into_iter());
            let hint = near.map_or(words.join(", "), |near| format!("{near:?}"));
            return refuse("metrics.probes", format!("{wrong:?} is no probe: write {hint}"));
        }
        if !self.listen.is_empty() && self.listen().is_none_or(|address| address.port() == 0) {
            return refuse(
                "metrics.listen",
                format!(
                    "{:?}: write an address and a port, as in \"127.0.0.1:7480\", or \"\"",
                    self.listen
                ),
            );
        }
        if !MEMORY_BYTES.contains(&self.memory()) {
            return refuse(
                "metrics.memory",
                format!("{:?}: write a size from 64KiB to 256MiB, as in \"4MiB\"", self.memory),
            );
        }
        match self.remote_write.parse::<Receiver>() {
            _ if self.remote_write.is_empty() => {}
            Err(reason) => {
                return refuse(
                    "metrics.remote_write",
                    format!("{:?}: {reason}", self.remote_write),
                );
            }
            Ok(_) if !self.enabled => {
                let message = "nothing is measured with `enabled = false`: remove one of the two";
                return refuse("metrics.remote_write", message.into());
            }
            Ok(_) => {}
        }
        let every = fabric::job::duration::parse(&self.remote_write_every).ok();
        if every.is_none_or(|every| !SENT_EVERY.contains(&every)) {
            return refuse(
                "metrics.remote_write_every",
                format!("{:?}: write a time from 1s to 4m, as in \"15s\"", self.remote_write_every),
            );
        }
        Ok(())
    }

    /// Where samples are sent.
    pub fn remote_write(&self) -> Option<Receiver> {
        self.remote_write.parse().ok()
    }

    /// Time between two samples of a series that are sent.
    pub fn remote_write_every(&self) -> Duration {
        fabric::job::duration::parse(&self.remote_write_every).unwrap_or(*SENT_EVERY.end())
    }

    /// Where scrapers and dashboards are answered.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// The probes to load.
    pub fn probes(&self) -> BTreeSet<Probe> {
        let wanted =
            |probe: &Probe| self.probes.iter().any(|name| name == AUTO || name == probe.name());
        Probe::ALL.into_iter().filter(wanted).collect()
    }

    /// Bytes of the store.
    pub fn memory(&self) -> usize {
        let bytes = fabric::job::parse_bytes(&self.memory).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
