//! What the fuzzers call: one function for each kind of bytes that comes from outside. `cargo fuzz run`
//! explores them (`fuzz/`); `tests/corpus.rs` replays the corpus, and mutations of it, in every test
//! run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Instant, Now, WallTime};
use crate::id::NodeId;
use crate::io::{Input, Output, Request};
use crate::job;
use crate::limits;
use crate::message::{Datagram, Message};
use crate::node::{Config, Node, Origin};
use crate::signature::{SIGNATURE_BYTES, Signer};
use crate::table::{Entry, TokenId};
use crate::topology::NodeInfo;

/// Ticks of a node that has started: half a minute.
const TICKS: u32 = 15;

/// What decodes must encode to something that decodes to the same.
pub fn datagram(bytes: &[u8]) {
    if let Ok(datagram) = Datagram::decode(bytes) {
        assert_eq!(Datagram::decode(&datagram.encode()), Ok(datagram));
    }
}

/// What decodes must encode to something that decodes to the same.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

/// What decodes must encode to something that decodes to the same.
pub fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
}

/// What parses must be valid, and survive the wire.
pub fn job_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match job::parse(text) {
        Ok(spec) => {
            assert_eq!(spec.validate(), Ok(()));
            let json = serde_json::to_string(&spec).expect("a spec has a JSON form");
            assert_eq!(serde_json::from_str::<job::JobSpec>(&json).ok(), Some(spec));
        }
        Err(error) => {
            let errors = job::parse_all(text, &mut |_| Err("none".into())).expect_err("as before");
            assert!(errors.len() <= ERRORS_MAX, "{}", errors.len());
            let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
            assert!(places.is_sorted() && places[0] == (error.line, error.column), "{places:?}");
            assert!(error.line >= 1 && error.column >= 1, "{error}");
        }
    }
}

/// What a job file may have wrong with it, as far as that is noted.
const ERRORS_MAX: usize = 512;

/// Takes every signature for good: rows that were changed at random are to reach the table.
#[derive(Debug)]
struct Believer;

impl Signer for Believer {
    fn sign(&self, _bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        [0; SIGNATURE_BYTES]
    }

    fn verify(&self, _by: &NodeId, _bytes: &[u8], _signature: &[u8; SIGNATURE_BYTES]) -> bool {
        true
    }
}

const ME: NodeId = NodeId([1; 32]);
const MEMBER: NodeId = NodeId([2; 32]);

fn config() -> Config {
    Config {
        id: ME,
        info: NodeInfo { name: "n1".into(), ..NodeInfo::default() },
        fabric: NodeId([9; 32]),
        fabric_name: "fuzz".into(),
        signer: Arc::new(Believer),
        generation: 1,
        seed: 1,
        canary: None,
        level: crate::level::LEVEL,
        bounds: crate::table::Bounds::default(),
    }
}

fn beginning() -> Now {
    Now { at: Instant::default(), wall: WallTime(1_700_000_000_000) }
}

/// A node of a new fabric, and a member that it has let in.
pub(crate) fn founded(now: Now) -> Node {
    let mut node = Node::new(now, config(), Origin::Founded { gossip_key: [7; 32] });
    let token = TokenId("t".into());
    let (secret_hash, lifetime, labels) = ([3; 32], Duration::from_secs(60), BTreeMap::new());
    let invite = Request::AddToken { id: token.clone(), secret_hash, lifetime, labels };
    node.handle(now, Input::Request { id: 1, request: invite });
    let enrol = Request::Enrol { node: MEMBER, name: "n2".into(), level: 1, token, secret_hash };
    node.handle(now, Input::Request { id: 2, request: enrol });
    node
}

/// Pieces of an input. Before each stand three bytes: how it is meant, and its length, the lower byte first.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [how, low, high, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (piece, after) = after.split_at(after.len().min(length));
        rest = after;
        Some((*how, piece))
    })
}

/// Takes what a node has to say, which is within its limits, and gives what it has written to a disk that is never full.
fn poll_all(node: &mut Node, now: Now) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut written = BTreeMap::new();
    while let Some(output) = node.poll() {
        match output {
            Output::Transmit { datagram, .. } => {
                assert!(datagram.encode().len() <= limits::DATAGRAM_BYTES_MAX);
            }
            Output::Send { message, .. } => {
                assert!(message.encode().len() <= limits::MESSAGE_BYTES_MAX);
            }
            Output::Persist { sequence, changes } => {
                written.extend(changes);
                node.handle(now, Input::Persisted { through: sequence });
            }
            _ => {}
        }
    }
    written
}

/// A node takes whatever a member says: it goes on, within its limits. Pieces are datagrams and messages.
pub fn node(bytes: &[u8]) {
    let mut now = beginning();
    let mut node = founded(now);
    for (how, piece) in pieces(bytes) {
        let input = if how & 1 == 0 {
            Input::Datagram { from: MEMBER, payload: piece.to_vec() }
        } else {
            match Message::decode(piece) {
                Ok(message) => Input::Message { from: MEMBER, message },
                Err(_) => Input::Tick,
            }
        };
        now.at = now.at + Duration::from_millis(u64::from(how));
        node.handle(now, input);
        poll_all(&mut node, now);
    }
}

/// A node starts with whatever is on its disk. Pieces are rows: `how` is the length of the row's key, and its value follows.
pub fn node_start(bytes: &[u8]) {
    let row = |(key_bytes, piece): (u8, &[u8])| {
        let (key, value) = piece.split_at(piece.len().min(usize::from(key_bytes)));
        (key.to_vec(), value.to_vec())
    };
    let rows: Vec<_> = pieces(bytes).map(row).collect();
    let _ = crate::node::level_on_disk(&rows);
    let _ = crate::node::disk_on_disk(&rows, &ME);
    let mut now = beginning();
    let mut node = Node::new(now, config(), Origin::Restored { rows, handover: None });
    for _ in 0..TICKS {
        now.at = now.at + Duration::from_secs(2);
        node.handle(now, Input::Tick);
        poll_all(&mut node, now);
    }
}

/// What a node that was founded has on its disk, as an input of [`node_start`].
#[cfg(test)]
pub(crate) fn rows_on_disk(more: impl FnOnce(Now, &mut Node)) -> Vec<u8> {
    let now = beginning();
    let mut node = founded(now);
    more(now, &mut node);
    let mut input = Vec::new();
    for (key, value) in poll_all(&mut node, now) {
        let Some(value) = value else { continue };
        input.push(key.len() as u8);
        input.extend_from_slice(&((key.len() + value.len()) as u16).to_le_bytes());
        input.extend_from_slice(&key);
        input.extend_from_slice(&value);
    }
    input
}
