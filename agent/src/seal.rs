//! Sealed gossip: a datagram that did not come from a holder of the fabric's gossip key is dropped.
//!
//! ```text
//! version 1 | key id 4 | sender 32 | generation 8 | salt 8 | counter 8 | payload ... | tag 16
//! ```
//! Numbers are big-endian. Everything before the payload is authenticated with it, and so is the
//! receiver's key, which is not sent (ChaCha20-Poly1305, RFC 8439). The first byte is never that of a
//! QUIC packet.
//!
//! **Receivers.** What one member sends to another opens at no third one: somebody who copies datagrams
//! cannot make a member say anything to those whom it did not address.
//!
//! **Keys and nonces.** All nodes share the gossip key, and a nonce used twice under one key gives away
//! both datagrams. So no node seals with the gossip key itself: each start of each agent derives its own
//! key, HMAC-SHA256(gossip key, context, sender, generation, salt), with a fresh random salt, and
//! under that key the nonce is a counter. Random 96-bit nonces under the shared key would collide in a
//! large fabric sooner than one likes, and could not tell a replay.
//!
//! **Replays.** Counters of one start are remembered in a sliding window. The generation grows with each
//! start of the sender, so that datagrams of earlier starts are refused once a later one was heard. They are
//! told apart from forged ones ([`Refusal::Outdated`]): where a machine's key was copied, both copies speak.
//! What is left: a node that has just started itself can be told old datagrams of a sender until it hears
//! the sender once. The core takes no harm from old gossip: entries carry stamps, membership carries
//! incarnations.
//!
//! **What a seal proves:** that some holder of the gossip key made it for this receiver, not which one, and
//! not who brought it: its source address proves nothing. Members trust each
//! other that far; whatever must come from a certain node goes over [QUIC](crate::quic), or is signed by it
//! ([rows that any member may write](fabric::signature)). Datagrams are
//! taken from members only, so a key that leaked is worth nothing to strangers who do not also name a
//! member, and nothing to anybody after the rotation that comes with every removal.

use fabric::id::NodeId;
use fabric::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX, SEAL_BYTES};
use fabric::table::Keyring;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// First byte of every sealed datagram. QUIC's first byte has bit 0x40 set.
pub const SEAL_VERSION: u8 = 1;
const KEY_ID: usize = 1;
const SENDER: usize = KEY_ID + 4;
const GENERATION: usize = SENDER + 32;
const SALT: usize = GENERATION + 8;
const COUNTER: usize = SALT + 8;
const HEADER_BYTES: usize = COUNTER + 8;
const TAG_BYTES: usize = 16;
const _: () = assert!(HEADER_BYTES + TAG_BYTES == SEAL_BYTES);

/// Longest sealed datagram. A receive buffer of this size and one byte more tells longer ones apart.
pub const SEALED_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + SEAL_BYTES;

/// Datagrams of one sender may overtake each other by this many.
pub const REPLAY_WINDOW: u64 = 256;

/// One start of an agent. Of two starts under one key the greater one is listened to: the later one, and where
/// two copies of a disk without a clock count alike, the one with the greater salt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Start {
    /// See [`next_generation`](crate::identity::next_generation).
    pub generation: u64,
    /// Random.
    pub salt: [u8; 8],
}

impl Start {
    /// The start of this agent.
    ///
    /// # Errors
    /// Only when the kernel has no random numbers.
    pub fn new(generation: u64) -> anyhow::Result<Self> {
        let mut salt = [0; 8];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| anyhow::anyhow!("the kernel gave no random numbers for gossip"))?;
        Ok(Self { generation, salt })
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.generation, u64::from_be_bytes(self.salt))
    }
}

/// Seals and opens the gossip of one agent, from its start to its end.
///
/// Invariants:
/// - a counter is used at most once under a derived key;
/// - every counter below a window, and every marked one inside it, was accepted before or is too old;
/// - senders are members: at most [`MEMBERS_MAX`];
/// - of one sender the greatest start that was heard is listened to, and no other.
pub struct Seal {
    id: NodeId,
    start: Start,
    counter: u64,
    keyring: Keyring,
    sealing: Option<(u32, [u8; 32])>,
    senders: BTreeMap<NodeId, Sender>,
    /// Whose datagrams come from a later start than those before, since somebody asked.
    started_anew: BTreeSet<NodeId>,
    counters: SealCounters,
}

/// What became of datagrams since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealCounters {
    /// Opened, and handed on.
    pub opened: u64,
    /// Not a sealed datagram at all.
    pub malformed: u64,
    /// Sealed with a key that this node does not have.
    pub unknown_key: u64,
    /// The tag does not fit, also because it is for another receiver.
    pub forged: u64,
    /// Seen before, or too old to tell.
    pub replayed: u64,
    /// From somebody who does not belong to the fabric.
    pub not_member: u64,
    /// From an earlier start of a member than the one that is listened to.
    pub outdated: u64,
}

/// Why a datagram was not opened. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too short, too long, or of another version.
    #[error("not a sealed datagram")]
    Malformed,
    /// The keyring has no key of this number.
    #[error("sealed with key {0}, which this node does not have")]
    UnknownKey(u32),
    /// The tag does not fit: it was made up, damaged, or made for another receiver.
    #[error("forged, damaged, or for another node")]
    Forged,
    /// Seen before, or too old to tell.
    #[error("seen before, or too old to tell")]
    Replayed,
    /// The sender does not belong to the fabric.
    #[error("from {0:?}, which is not a member")]
    NotMember(NodeId),
    /// Sealed well, by an earlier start of its sender: old and late, or another machine has the same key.
    #[error("from an earlier start of {0:?}")]
    Outdated(NodeId),
}

/// Why a payload was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The keyring is empty: the node is in no fabric yet.
    #[error("there is no gossip key yet")]
    NoKey,
    /// Longer than the core may make it.
    #[error("{0} bytes are more than the {DATAGRAM_BYTES_MAX} that fit a datagram")]
    TooLong(usize),
}

#[derive(Clone)]
struct Sender {
    start: Start,
    /// The key that opened the last datagram, so that it is not derived for each.
    key: (u32, [u8; 32]),
    window: Window,
}

impl Seal {
    /// For the node `id`.
    pub fn new(id: NodeId, start: Start) -> Self {
        Self {
            id,
            start,
            counter: 0,
            keyring: Keyring::default(),
            sealing: None,
            senders: BTreeMap::new(),
            started_anew: BTreeSet::new(),
            counters: SealCounters::default(),
        }
    }

    /// Goes on as another start of the same agent. Whoever is listened to stays so.
    pub fn renew(&mut self, start: Start) {
        (self.start, self.counter) = (start, 0);
        self.derive_key();
    }

    /// Takes over the gossip keys and forgets senders that are no members any more.
    /// The newest key seals from now on, all of them open.
    pub fn trust(&mut self, keyring: &Keyring, is_member: impl Fn(&NodeId) -> bool) {
        self.keyring = keyring.clone();
        self.derive_key();
        self.senders.retain(|sender, _| is_member(sender));
        self.started_anew.retain(|sender| is_member(sender));
    }

    fn derive_key(&mut self) {
        let newest = self.keyring.keys.last_key_value();
        self.sealing = newest.map(|(&id, key)| (id, derive(key, &self.id, &self.start)));
    }

    /// The datagram that carries `payload` to `receiver`, and to nobody else.
    ///
    /// # Errors
    /// Without a key, or when the payload is too long.
    pub fn seal(&mut self, receiver: &NodeId, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let (key_id, key) = self.sealing.ok_or(SealError::NoKey)?;
        if payload.len() > DATAGRAM_BYTES_MAX {
            return Err(SealError::TooLong(payload.len()));
        }
        self.counter += 1;
        let mut datagram = Vec::with_capacity(SEAL_BYTES + payload.len());
        datagram.push(SEAL_VERSION);
        datagram.extend_from_slice(&key_id.to_be_bytes());
        datagram.extend_from_slice(&self.id.0);
        datagram.extend_from_slice(&self.start.generation.to_be_bytes());
        datagram.extend_from_slice(&self.start.salt);
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        datagram.extend_from_slice(payload);
        let (header, body) = datagram.split_at_mut(HEADER_BYTES);
        let tag = cipher(&key)
            .seal_in_place_separate_tag(nonce(self.counter), bound_to(header, receiver), body)
            .expect("a datagram is far shorter than the cipher's limit");
        datagram.extend_from_slice(tag.as_ref());
        Ok(datagram)
    }

    /// The sender and the payload of a datagram. Reads untrusted bytes.
    ///
    /// # Errors
    /// Whatever is wrong with the datagram; it is counted.
    pub fn open(
        &mut self,
        datagram: &[u8],
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Result<(NodeId, Vec<u8>), Refusal> {
        let result = self.try_open(datagram, is_member);
        let counters = &mut self.counters;
        let counter = match &result {
            Ok(_) => &mut counters.opened,
            Err(Refusal::Malformed) => &mut counters.malformed,
            Err(Refusal::UnknownKey(_)) => &mut counters.unknown_key,
            Err(Refusal::Forged) => &mut counters.forged,
            Err(Refusal::Replayed) => &mut counters.replayed,
            Err(Refusal::NotMember(_)) => &mut counters.not_member,
            Err(Refusal::Outdated(_)) => &mut counters.outdated,
        };
        *counter += 1;
        result
    }

    /// The start of a member that is listened to.
    pub fn start_of(&self, sender: &NodeId) -> Option<Start> {
        Some(self.senders.get(sender)?.start)
    }

    /// Whether a later start of this member took over since this was asked last.
    pub fn has_started_anew(&mut self, sender: &NodeId) -> bool {
        self.started_anew.remove(sender)
    }

    /// What became of datagrams since the start.
    pub fn counters(&self) -> SealCounters {
        self.counters
    }

    fn try_open(
        &mut self,
        datagram: &[u8],
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Result<(NodeId, Vec<u8>), Refusal> {
        if datagram.len() < SEAL_BYTES
            || datagram.len() > SEALED_BYTES_MAX
            || datagram[0] != SEAL_VERSION
        {
            return Err(Refusal::Malformed);
        }
        let (header, sealed) = datagram.split_at(HEADER_BYTES);
        let key_id = u32::from_be_bytes(array(&header[KEY_ID..SENDER]));
        let sender = NodeId(array(&header[SENDER..GENERATION]));
        let generation = u64::from_be_bytes(array(&header[GENERATION..SALT]));
        let salt: [u8; 8] = array(&header[SALT..COUNTER]);
        let counter = u64::from_be_bytes(array(&header[COUNTER..]));

        let gossip_key = self.keyring.keys.get(&key_id).ok_or(Refusal::UnknownKey(key_id))?;
        if !is_member(&sender) {
            return Err(Refusal::NotMember(sender));
        }
        // Our own datagrams can only come back by somebody's doing.
        if sender == self.id {
            return Err(Refusal::Replayed);
        }
        let start = Start { generation, salt };
        let known = self.senders.get(&sender);
        let same_start = known.filter(|known| known.start == start);
        if same_start.is_some_and(|known| !known.window.is_fresh(counter)) {
            return Err(Refusal::Replayed);
        }
        let key = match same_start {
            Some(known) if known.key.0 == key_id => known.key.1,
            _ => derive(gossip_key, &sender, &start),
        };
        let mut payload = sealed.to_vec();
        let length = cipher(&key)
            .open_in_place(nonce(counter), bound_to(header, &self.id), &mut payload)
            .map_err(|_| Refusal::Forged)?
            .len();
        payload.truncate(length);
        if known.is_some_and(|known| known.start > start) {
            return Err(Refusal::Outdated(sender));
        }

        // Only now may it change anything.
        if known.is_none() && self.senders.len() >= MEMBERS_MAX {
            return Err(Refusal::NotMember(sender));
        }
        if known.is_some() && same_start.is_none() {
            self.started_anew.insert(sender);
        }
        let mut window = same_start.map(|known| known.window.clone()).unwrap_or_default();
        window.mark(counter);
        self.senders.insert(sender, Sender { start, key: (key_id, key), window });
        Ok((sender, payload))
    }
}

/// The last counters of one sender, as in RFC 4303, appendix A2: a bit each.
#[derive(Clone, Debug, Default)]
struct Window {
    highest: u64,
    /// Bit `n % REPLAY_WINDOW` tells whether `n` was seen, for the last [`REPLAY_WINDOW`] numbers.
    seen: [u64; (REPLAY_WINDOW / 64) as usize],
}

impl Window {
    /// Whether the counter was not accepted yet. Zero is never used.
    fn is_fresh(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        counter != 0 && self.highest - counter < REPLAY_WINDOW && {
            let (word, bit) = Self::place(counter);
            self.seen[word] & bit == 0
        }
    }

    fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            if counter - self.highest >= REPLAY_WINDOW {
                self.seen = Default::default();
            } else {
                for skipped in self.highest + 1..counter {
                    let (word, bit) = Self::place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = counter;
        }
        let (word, bit) = Self::place(counter);
        self.seen[word] |= bit;
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % REPLAY_WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }
}

/// The key of one start of one sender.
fn derive(gossip_key: &[u8; 32], sender: &NodeId, start: &Start) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, gossip_key));
    context.update(b"weft gossip seal 1");
    context.update(&sender.0);
    context.update(&start.generation.to_be_bytes());
    context.update(&start.salt);
    array(context.sign().as_ref())
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key");
    LessSafeKey::new(key)
}

/// What is authenticated beside the payload: the header, and for whom it is.
fn bound_to(header: &[u8], receiver: &NodeId) -> Aad<[u8; HEADER_BYTES + 32]> {
    let mut bound = [0; HEADER_BYTES + 32];
    bound[..HEADER_BYTES].copy_from_slice(header);
    bound[HEADER_BYTES..].copy_from_slice(&receiver.0);
    Aad::from(bound)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests;
