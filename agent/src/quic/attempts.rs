//! Who failed to join or to invite, and how often.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Failures of one source in [`PERIOD`]; then it must wait.
pub(crate) const FAILURES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);
/// Sources that are remembered.
const SOURCES_MAX: usize = 1024;

/// Remembers who failed, so that guessing is slow and the log stays short. Bounded.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    sources: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// Whether this source must wait.
    pub(crate) fn is_throttled(&mut self, source: IpAddr) -> bool {
        self.entry(source).count >= FAILURES_MAX
    }

    /// Notes a failure. True: it is the first in a while, and worth a line in the log.
    pub(crate) fn failed(&mut self, source: IpAddr) -> bool {
        let failures = self.entry(source);
        failures.count += 1;
        failures.count == 1
    }

    /// For failures that are no attempts at guessing: true once in a while.
    pub(crate) fn is_worth_a_line(&mut self, source: IpAddr) -> bool {
        let failures = self.entry(source);
        let first = failures.count == 0;
        failures.count = failures.count.max(1);
        first
    }

    fn entry(&mut self, source: IpAddr) -> &mut Failures {
        let source = network(source);
        let now = Instant::now();
        self.sources.retain(|_, failures| now - failures.since < PERIOD);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, failures)| failures.since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.sources.remove(&oldest);
            }
        }
        self.sources.entry(source).or_insert(Failures { since: now, count: 0 })
    }
}

/// What one party controls: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
