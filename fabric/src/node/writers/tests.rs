use super::super::tests::*;
use super::*;
use crate::id::{FabricKey, JobName};
use crate::io::Input;
use crate::message::{Datagram, Message};
use crate::signature::HashSigner;
use crate::table::{Merge, RosterEntry};
use std::time::Duration;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// A row of the roster, written now in the name of `by`, as whoever has this signer can.
fn roster(fleet: &Fleetlet, by: NodeId, fabric: &FabricKey, signer: &HashSigner) -> SharedEntry {
    let value = RosterEntry { name: "x".into(), vouched_by: by, joined: fleet.now.wall };
    let stamp = Stamp { reading: (fleet.now.wall.0 + 1) << 16, node: by };
    Entry::written(fabric, signer, Key::Roster(node(9)), stamp, Value::Roster(value)).into()
}

#[test]
fn a_row_in_anothers_name_is_refused_and_changes_nothing() {
    let mut fleet = Fleetlet::new(3);
    let good = roster(&fleet, node(3), &FABRIC, &signer(node(3)));
    let forged = roster(&fleet, node(3), &FABRIC, &signer(node(2)));
    let elsewhere = roster(&fleet, node(3), &node(8), &signer(node(3)));
    let bare: SharedEntry = Entry { signature: None, ..Entry::clone(&good) }.into();
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    let before = (one.replica.fingerprint(), one.time.clock.last());
    for (index, entry) in [forged, elsewhere, bare].into_iter().enumerate() {
        one.handle(
            now,
            Input::Datagram {
                from: node(2),
                payload: Datagram::Push(vec![entry.clone()]).encode(),
            },
        );
        let news = Message::News { entries: vec![entry] };
        one.handle(now, Input::Message { from: node(2), message: news });
        assert_eq!(one.counters().forged, 2 * (index as u64 + 1));
    }
    assert_eq!((one.replica.fingerprint(), one.time.clock.last()), before);
    assert_eq!(one.take_in(now, Brought::ByDatagram(node(2)), good, true), Merge::Taken);
}

#[test]
fn a_datagram_brings_rows_of_members_only_and_a_stream_what_members_took() {
    let mut fleet = Fleetlet::new(3);
    let stranger = roster(&fleet, node(7), &FABRIC, &signer(node(7)));
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    let by_datagram = Brought::ByDatagram(node(2));
    assert_eq!(one.take_in(now, by_datagram, stranger.clone(), true), Merge::Refused);
    assert_eq!((one.counters().forged, one.counters().strange), (0, 1));
    let by_stream = Brought::ByStream(node(2));
    assert_eq!(one.take_in(now, by_stream, stranger, true), Merge::Taken);
}

#[test]
fn jobs_of_a_removed_node_stay_and_it_submits_no_more() {
    let mut fleet = Fleetlet::new(3);
    fleet.submit(node(3), WEB);
    fleet.run(Duration::from_secs(5));
    fleet.cut_off.insert(node(3));
    let remove = crate::io::Request::Remove { node: node(3), new_key: [4; 32], force: true };
    fleet.ask(node(1), remove);
    fleet.run(Duration::from_secs(30));
    let web = JobName::new("web").unwrap();
    let row = fleet.nodes[&node(2)].replica.entry(&Key::Job(web)).unwrap().clone();
    assert_eq!(row.stamp.node, node(3));
    assert_eq!(fleet.healthy(node(1), "web").len(), 3);
    // A member that was away hears of it from another one.
    let now = fleet.now;
    let two = fleet.nodes.get_mut(&node(2)).unwrap();
    two.replica.table_mut().discard(&row.key);
    let brought = Brought::ByStream(node(1));
    assert_eq!(two.take_in(now, brought, row.clone(), true), Merge::Taken);
    let stamp = Stamp { reading: row.stamp.reading + 1, node: node(3) };
    let value = Value::Tombstone { rank: 1 };
    let late = Entry::written(&FABRIC, &signer(node(3)), row.key.clone(), stamp, value);
    let brought = Brought::ByDatagram(node(1));
    assert_eq!(two.take_in(now, brought, late, true), Merge::Refused);
}

/// Checks nothing, and counts how often it is asked to.
#[derive(Debug)]
struct Counting(HashSigner, std::sync::atomic::AtomicU32);

impl crate::signature::Signer for Counting {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes)
    }

    fn verify(&self, by: &NodeId, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.verify(by, bytes, signature)
    }
}

#[test]
fn a_signature_is_checked_once_and_only_of_what_is_news() {
    let mut fleet = Fleetlet::new(2);
    let now = fleet.now;
    let good = roster(&fleet, node(2), &FABRIC, &signer(node(2)));
    let counting = std::sync::Arc::new(Counting(signer(node(1)), Default::default()));
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    one.config.signer = counting.clone();
    let asked = || counting.1.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..3 {
        one.take_in(now, Brought::ByDatagram(node(2)), good.clone(), true);
        assert_eq!(asked(), 1);
    }
    // Nor its own writing, nor what its disk kept.
    one.write(now, Key::Roster(node(8)), good.value.clone());
    let rows: Vec<_> = one
        .replica
        .entries()
        .map(|entry| {
            let key = postcard::to_extend(&entry.key, vec![0]).unwrap();
            (key, crate::message::encode_row(entry))
        })
        .collect();
    let config = one.config.clone();
    let again = Node::new(now, config, crate::node::Origin::Restored { rows, handover: None });
    assert!(again.is_member(&node(8)) && again.is_member(&node(9)));
    assert_eq!(asked(), 1);
}

#[test]
fn what_comes_with_a_welcome_is_checked_too() {
    let fleet = Fleetlet::new(2);
    let one = &fleet.nodes[&node(1)];
    let mut entries: Vec<Entry> = one.replica.entries().map(|entry| Entry::clone(entry)).collect();
    entries.push(Entry::clone(&roster(&fleet, node(2), &FABRIC, &signer(node(1)))));
    let mut config = one.config.clone();
    (config.id, config.signer) = (node(5), std::sync::Arc::new(signer(node(5))));
    let new = Node::new(fleet.now, config, crate::node::Origin::Joined { entries });
    assert!(new.is_member(&node(2)) && !new.is_member(&node(9)));
    assert_eq!(new.counters().forged, 1);
}

/// Who listens with an old gossip key gets no key and no token by it, and nobody takes one that a datagram brings.
#[test]
fn keys_and_tokens_travel_over_streams_only() {
    let mut fleet = Fleetlet::new(3);
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    let keyring = crate::table::Keyring { keys: [(9, [5; 32])].into() };
    let stamp = Stamp { reading: (now.wall.0 + 1) << 16, node: node(2) };
    let row: SharedEntry =
        Entry::written(&FABRIC, &signer(node(2)), Key::Keyring, stamp, Value::Keyring(keyring))
            .into();
    let before = (one.replica.fingerprint(), one.counters().malformed);
    let payload = Datagram::Push(vec![row.clone()]).encode();
    one.handle(now, Input::Datagram { from: node(2), payload });
    assert_eq!((one.replica.fingerprint(), one.counters().malformed), (before.0, before.1 + 1));
    assert_eq!(one.take_in(now, Brought::ByStream(node(2)), row, true), Merge::Taken);

    // The key changes and the tokens are revoked: what it tells of that by gossip.
    while one.poll().is_some() {}
    let remove = crate::io::Request::Remove { node: node(3), new_key: [4; 32], force: true };
    one.handle(now, Input::Request { id: 1, request: remove });
    let (mut pushed, mut time, end) = (Vec::new(), now, now.at + Duration::from_secs(2));
    loop {
        while let Some(output) = one.poll() {
            if let crate::io::Output::Transmit { datagram: Datagram::Push(entries), .. } = output {
                pushed.extend(entries);
            }
        }
        let Some(at) = one.next_deadline().filter(|at| *at < end) else { break };
        time.at = at.max(time.at + Duration::from_micros(10));
        one.handle(time, Input::Tick);
    }
    assert!(pushed.iter().any(|entry| entry.key == Key::Roster(node(3))), "it told of the removal");
    let secret = |entry: &&SharedEntry| matches!(entry.key, Key::Keyring | Key::Token(_));
    assert_eq!(pushed.iter().find(secret), None);
}
