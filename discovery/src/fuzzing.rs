//! What the fuzzers call: packets of DNS, as anybody on the link or a server may send them. `fuzz/` explores them with
//! libFuzzer; the test below replays the corpus of the tree, and mutations of it, in every test run.

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{RData, Record};
use mdns_sd::ScopedIp;
use std::net::SocketAddr;

use crate::known::{Known, Scope};
use crate::limits;
use crate::mdns;
use crate::sighting::{Event, Found, Source, tidy};
use crate::txt::Hint;
use crate::unicast;

/// A, CNAME, PTR, HINFO, TXT, AAAA, SRV, NSEC and ANY, as the numbers that `mdns-sd` knows.
const KNOWN_KINDS: [u16; 9] = [1, 5, 12, 13, 16, 28, 33, 47, 255];

/// A packet: both parsers get through it, and what it says of an instance is shown within the limits.
pub fn dns(bytes: &[u8]) {
    let message = Message::from_vec(bytes);
    // The entry for fuzzers counts questions, and the parser passes over those of kinds that it does not know. So a packet with
    // questions is given to it only if these are known; answers of any kind, and names, are read by the same code.
    let asks_nothing = bytes.get(4..6).is_none_or(|count| count == [0, 0]);
    let asks_what_is_known = |message: &Message| {
        message.queries.iter().all(|question| KNOWN_KINDS.contains(&question.query_type().into()))
    };
    if asks_nothing || message.as_ref().is_ok_and(asks_what_is_known) {
        mdns_sd::fuzz_api::parse_packet(bytes);
    }
    let Ok(message) = message else { return };
    let records = &message.answers;
    let said: Vec<Found> = by_unicast(records).into_iter().chain(by_multicast(records)).collect();
    let mut known = Known::new("1".repeat(limits::NODE_DIGITS), None);
    let mut events = Vec::new();
    for found in &said {
        let scope: Scope = (found.source, String::new());
        events.extend(known.see(&scope, found.clone()));
    }
    events.extend(known.set_fabric(Some("2".repeat(limits::FABRIC_DIGITS))));
    for found in &said {
        let scope: Scope = (found.source, String::new());
        events.extend(known.gone(&scope, &found.name));
    }
    for event in events {
        let Event::Found(found) = event else { continue };
        assert!(found.addresses.len() <= limits::ADDRESSES_PER_INSTANCE_MAX);
        assert!(!found.addresses.is_empty());
        assert!(found.fabric.is_none() || found.node.is_some());
    }
}

/// As if a server had said it: every service with all addresses.
fn by_unicast(records: &[Record]) -> Vec<Found> {
    let addresses: Vec<_> = records.iter().filter_map(unicast::ip).collect();
    let services = records.iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some((record.name.to_ascii(), service.port)),
        _ => None,
    });
    let found = services.filter_map(|(name, port)| {
        let addresses = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        let addresses = tidy(addresses, true);
        let Hint { node, fabric } = unicast::hint(records);
        let found = Found { source: Source::Dns, name, node, fabric, addresses };
        (!found.addresses.is_empty()).then_some(found)
    });
    found.collect()
}

/// As if `mdns-sd` had resolved it.
fn by_multicast(records: &[Record]) -> Vec<Found> {
    let addresses: Vec<ScopedIp> =
        records.iter().filter_map(unicast::ip).map(ScopedIp::from).collect();
    let texts = records.iter().filter_map(|record| match &record.data {
        RData::TXT(text) => Some(text.txt_data.iter()),
        _ => None,
    });
    let properties: Vec<(&[u8], &[u8])> = texts
        .flatten()
        .map(|string| {
            let at = string.iter().position(|byte| *byte == b'=').unwrap_or(string.len());
            (&string[..at], string.get(at + 1..).unwrap_or_default())
        })
        .collect();
    let services = records.iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some((record.name.to_ascii(), service.port)),
        _ => None,
    });
    let found = services.filter_map(|(name, port)| {
        mdns::instance(&name, port, addresses.iter(), properties.iter().copied())
    });
    found.collect()
}

#[cfg(test)]
mod tests;
