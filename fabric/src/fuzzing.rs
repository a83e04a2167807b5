//! What the fuzzers call: one function for each kind of bytes that comes from outside. `cargo fuzz run`
//! explores them (`fabric/fuzz`); `tests/corpus.rs` replays the corpus, and mutations of it, in every test
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
        Err(error) => assert!(error.line >= 1 && error.column >= 1, "{error}"),
    }
}

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

/// A node takes whatever a member says: it goes on, within its limits. Before each piece stand
/// three bytes: how it arrives, and its length.
pub fn node(bytes: &[u8]) {
    const ME: NodeId = NodeId([1; 32]);
    const MEMBER: NodeId = NodeId([2; 32]);
    let mut now = Now { at: Instant::default(), wall: WallTime(1_700_000_000_000) };
    let config = Config {
        id: ME,
        info: NodeInfo { name: "n1".into(), ..NodeInfo::default() },
        fabric: NodeId([9; 32]),
        fabric_name: "fuzz".into(),
        signer: Arc::new(Believer),
        generation: 1,
        seed: 1,
        canary: None,
        level: crate::level::LEVEL,
    };
    let mut node = Node::new(now, config, Origin::Founded { gossip_key: [7; 32] });
    let token = TokenId("t".into());
    let (secret_hash, lifetime, labels) = ([3; 32], Duration::from_secs(60), BTreeMap::new());
    let invite = Request::AddToken { id: token.clone(), secret_hash, lifetime, labels };
    node.handle(now, Input::Request { id: 1, request: invite });
    let enrol = Request::Enrol { node: MEMBER, name: "n2".into(), level: 1, token, secret_hash };
    node.handle(now, Input::Request { id: 2, request: enrol });
    let mut rest = bytes;
    while let [how, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (piece, after) = after.split_at(after.len().min(length));
        rest = after;
        let input = if how & 1 == 0 {
            Input::Datagram { from: MEMBER, payload: piece.to_vec() }
        } else {
            match Message::decode(piece) {
                Ok(message) => Input::Message { from: MEMBER, message },
                Err(_) => Input::Tick,
            }
        };
        now.at = now.at + Duration::from_millis(u64::from(*how));
        node.handle(now, input);
        while let Some(output) = node.poll() {
            match output {
                Output::Transmit { datagram, .. } => {
                    assert!(datagram.encode().len() <= limits::DATAGRAM_BYTES_MAX);
                }
                Output::Send { message, .. } => {
                    assert!(message.encode().len() <= limits::MESSAGE_BYTES_MAX);
                }
                Output::Persist { sequence, .. } => {
                    node.handle(now, Input::Persisted { through: sequence });
                }
                _ => {}
            }
        }
    }
}
