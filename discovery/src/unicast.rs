//! Unicast DNS-SD (RFC 6763): asks DNS servers for the instances of a domain, for nodes that no
//! multicast reaches.
//!
//! `PTR _weft._udp.<domain>` lists instances; `SRV` and `TXT` of each tell port, host and hint; `A`
//! and `AAAA` of the host tell addresses. All are asked for again when the shortest of their times
//! to live is over, within bounds. The resolver is made anew each time: it keeps nothing in memory
//! between two rounds, and follows a changed `/etc/resolv.conf`.

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::error::Error;
use crate::limits;
use crate::name;
use crate::sighting::{Found, Source, tidy};
use crate::txt::Hint;
use crate::update::Update;

/// The full name to ask for, of a domain as it was configured.
pub(crate) fn service_of(domain: &str) -> Result<Name, Error> {
    let bad = || Error::BadDomain(domain.chars().take(limits::NAME_BYTES_MAX).collect());
    let domain = domain.trim().trim_end_matches('.');
    if domain.is_empty() || domain.len() > limits::NAME_BYTES_MAX {
        return Err(bad());
    }
    Name::from_utf8(format!("{}.{domain}.", name::SERVICE)).map_err(|_| bad())
}

/// Asks for the instances of `domain` for ever. Ends when nobody takes the updates any more.
pub(crate) async fn browse(domain: String, service: Name, updates: mpsc::Sender<Update>) {
    let mut failures = 0;
    loop {
        let pause = match round(&service).await {
            Ok((found, time_to_live)) => {
                failures = 0;
                let update = Update { scope: (Source::Dns, domain.clone()), found };
                if updates.send(update).await.is_err() {
                    return;
                }
                time_to_live.clamp(limits::LOOKUP_MIN, limits::LOOKUP_MAX)
            }
            // What was found before is kept: that no server answers says nothing about the nodes.
            Err(error) => {
                failures += 1;
                tracing::debug!(domain, %error, failures, "unicast discovery got no answer");
                backoff(failures)
            }
        };
        sleep(pause).await;
    }
}

/// The pause after the `failures`-th failure in a row: doubles from the shortest to the longest.
pub(crate) fn backoff(failures: u32) -> Duration {
    let factor = 1 << failures.saturating_sub(1).min(16);
    limits::LOOKUP_MIN.saturating_mul(factor).min(limits::LOOKUP_MAX)
}

/// All instances of `service`, and how long that holds.
async fn round(service: &Name) -> Result<(Vec<Found>, Duration), NetError> {
    let mut resolver = TokioResolver::builder_tokio()?;
    let options = resolver.options_mut();
    options.cache_size = 0;
    options.timeout = limits::ANSWER_MAX;
    options.attempts = 2;
    let mut lookup = Lookup { resolver: resolver.build()?, time_to_live: limits::LOOKUP_MAX };
    let pointers = lookup.records(service, RecordType::PTR).await?;
    let mut found = Vec::new();
    for record in pointers.iter().take(limits::INSTANCES_PER_DOMAIN_MAX) {
        if let RData::PTR(instance) = &record.data {
            found.extend(lookup.instance(&instance.0).await?);
        }
    }
    Ok((found, lookup.time_to_live))
}

struct Lookup {
    resolver: TokioResolver,
    /// The shortest one seen.
    time_to_live: Duration,
}

impl Lookup {
    /// The records of `name`; none when the servers say that there are none.
    async fn records(&mut self, name: &Name, kind: RecordType) -> Result<Vec<Record>, NetError> {
        let answer = match self.resolver.lookup(name.clone(), kind).await {
            Ok(answer) => answer,
            Err(error) if error.is_no_records_found() => {
                self.time_to_live = self.time_to_live.min(limits::LOOKUP_MIN * 3);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let records: Vec<Record> = answer
            .answers()
            .iter()
            .filter(|record| record.record_type() == kind)
            .take(limits::INSTANCES_PER_DOMAIN_MAX)
            .cloned()
            .collect();
        let times = records.iter().map(|record| Duration::from_secs(record.ttl.into()));
        self.time_to_live = times.fold(self.time_to_live, Duration::min);
        Ok(records)
    }

    async fn instance(&mut self, instance: &Name) -> Result<Option<Found>, NetError> {
        let services = self.records(instance, RecordType::SRV).await?;
        let mut addresses = Vec::new();
        for record in services.iter().take(limits::ADDRESSES_PER_INSTANCE_MAX) {
            let RData::SRV(service) = &record.data else { continue };
            if service.target.is_root() {
                continue;
            }
            for kind in [RecordType::A, RecordType::AAAA] {
                for ip in self.records(&service.target, kind).await?.iter().filter_map(ip) {
                    if addresses.len() < 4 * limits::ADDRESSES_PER_INSTANCE_MAX {
                        addresses.push(SocketAddr::new(ip, service.port));
                    }
                }
            }
        }
        let addresses = tidy(addresses.into_iter(), true);
        if addresses.is_empty() {
            return Ok(None);
        }
        let texts = self.records(instance, RecordType::TXT).await?;
        let Hint { node, fabric } = hint(&texts);
        let name = instance.to_ascii();
        Ok(Some(Found { source: Source::Dns, name, node, fabric, addresses }))
    }
}

/// The address in a record.
pub(crate) fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

/// What the first text among these records says.
pub(crate) fn hint(records: &[Record]) -> Hint {
    let hint = records.iter().find_map(|record| match &record.data {
        RData::TXT(text) => Some(Hint::read_strings(text.txt_data.iter().map(|string| &**string))),
        _ => None,
    });
    hint.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_checked() {
        for good in ["example.org", "example.org.", "rack1.example.org", "local-rack"] {
            let service = service_of(good).expect(good);
            assert!(service.to_ascii().starts_with("_weft._udp."), "{service}");
            assert!(service.is_fqdn(), "{service}");
        }
        let label = "x".repeat(64);
        let long = "x.".repeat(130);
        for bad in ["", ".", " ", "a..b", &label, &long] {
            assert!(matches!(service_of(bad), Err(Error::BadDomain(_))), "{bad:?}");
        }
    }

    #[test]
    fn failures_slow_the_lookups_down() {
        assert_eq!(backoff(1), limits::LOOKUP_MIN);
        assert_eq!(backoff(2), limits::LOOKUP_MIN * 2);
        assert_eq!(backoff(u32::MAX), limits::LOOKUP_MAX);
    }
}
