//! Static seeds: addresses written down by a person, for networks without any DNS-SD.

use std::net::SocketAddr;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::error::Error;
use crate::limits;
use crate::sighting::{Found, Source, tidy};
use crate::unicast::backoff;
use crate::update::Update;

/// A seed as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    /// An address needs no lookup.
    Address { text: String, address: SocketAddr },
    /// A host's name, or an IPv6 address with an interface's name.
    Host { text: String, host: String, port: u16 },
}

impl Seed {
    /// Reads `host:port`, `address:port` or `[IPv6 address]:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadSeed(text.chars().take(limits::NAME_BYTES_MAX).collect());
        let text = text.trim().to_owned();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(bad())
            } else {
                Ok(Seed::Address { text, address })
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host).to_owned();
        let with_zone = bracketed.is_some() && host.contains('%');
        let a_name = bracketed.is_none()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let fine =
            !host.is_empty() && host.len() <= limits::NAME_BYTES_MAX && (with_zone || a_name);
        if fine { Ok(Seed::Host { text, host, port }) } else { Err(bad()) }
    }

    fn text(&self) -> &str {
        match self {
            Seed::Address { text, .. } | Seed::Host { text, .. } => text,
        }
    }
}

/// Reports the seed, and looks its name up again and again. Ends when nothing more can change or
/// nobody takes the updates any more.
pub(crate) async fn follow(seed: Seed, updates: mpsc::Sender<Update>) {
    let mut failures = 0;
    loop {
        let pause = match addresses(&seed).await {
            Ok(addresses) => {
                failures = 0;
                let found =
                    if addresses.is_empty() { vec![] } else { vec![found(&seed, addresses)] };
                let update = Update { scope: (Source::Seed, seed.text().to_owned()), found };
                let sent = updates.send(update).await;
                if sent.is_err() || matches!(seed, Seed::Address { .. }) {
                    return;
                }
                limits::SEED_LOOKUP
            }
            // What was found before is kept: a name server that is down says nothing about the node.
            Err(error) => {
                failures += 1;
                tracing::debug!(seed = seed.text(), %error, failures, "cannot look a seed up");
                backoff(failures)
            }
        };
        sleep(pause).await;
    }
}

async fn addresses(seed: &Seed) -> std::io::Result<Vec<SocketAddr>> {
    match seed {
        Seed::Address { address, .. } => Ok(tidy([*address].into_iter(), true)),
        Seed::Host { host, port, .. } => Ok(tidy(lookup_host((host.as_str(), *port)).await?, true)),
    }
}

fn found(seed: &Seed, addresses: Vec<SocketAddr>) -> Found {
    let name = seed.text().to_owned();
    Found { source: Source::Seed, name, node: None, fabric: None, addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_addresses_or_names() {
        for text in ["192.0.2.1:7", "[2001:db8::1]:7", " 192.0.2.1:7 ", "[fe80::1%3]:7"] {
            assert!(matches!(Seed::parse(text), Ok(Seed::Address { .. })), "{text}");
        }
        for text in ["node1:7", "node1.example.org:7", "node_1:7", "[fe80::1%eth0]:7"] {
            assert!(matches!(Seed::parse(text), Ok(Seed::Host { .. })), "{text}");
        }
        let long = format!("{}:7", "x".repeat(256));
        for text in [
            "",
            ":",
            ":7",
            "node1",
            "node1:",
            "node1:0",
            "node1:70000",
            "192.0.2.1:0",
            "a b:7",
            "[node1]:7",
            "2001:db8::1",
            "fe80::1:7:x",
            "http://node1:7",
            &long,
        ] {
            assert!(matches!(Seed::parse(text), Err(Error::BadSeed(_))), "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_is_reported_once_and_a_name_is_looked_up() {
        let (sender, mut updates) = mpsc::channel(1);
        follow(Seed::parse("127.0.0.1:7").expect("a seed"), sender).await;
        let update = updates.recv().await.expect("an update");
        assert_eq!(update.scope, (Source::Seed, "127.0.0.1:7".to_owned()));
        assert_eq!(update.found[0].addresses, ["127.0.0.1:7".parse().expect("an address")]);
        assert!(updates.recv().await.is_none());

        let (sender, mut updates) = mpsc::channel(1);
        let lookups = tokio::spawn(follow(Seed::parse("localhost:7").expect("a seed"), sender));
        let update = updates.recv().await.expect("an update");
        assert!(update.found[0].addresses.iter().all(|address| address.ip().is_loopback()));
        lookups.abort();
    }
}
