//! Small numbers for members, so that foca's list of ten thousand stays in a processor's cache.
//!
//! Foca walks its whole list for every update that it hears. On the wire an identity is a key, a generation
//! and an address; in foca's list it is a [`MemberNumber`] of a quarter of the size. The codec translates, and
//! is the only place that does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, PostcardCodec};

use super::Identity;
use crate::id::NodeId;
use crate::limits;

/// An identity in numbers that mean something to one node only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberNumber {
    pub member: u32,
    address: u32,
    pub generation: u64,
}

impl foca::Identity for MemberNumber {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation + 1, ..*self })
    }

    fn addr(&self) -> u32 {
        self.member
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

/// Which number means what. Invariant: `numbers` and `nodes` say the same of every number that is not free.
#[derive(Clone, Debug, Default)]
pub struct MemberIndex {
    nodes: Vec<NodeId>,
    numbers: BTreeMap<NodeId, u32>,
    free: Vec<u32>,
    addresses: Vec<SocketAddr>,
    address_numbers: BTreeMap<SocketAddr, u32>,
    free_addresses: Vec<u32>,
}

impl MemberIndex {
    fn node_number(&mut self, node: NodeId) -> Option<u32> {
        let Self { nodes, numbers, free, .. } = self;
        number(nodes, numbers, free, node)
    }

    fn number(&mut self, identity: Identity) -> Option<MemberNumber> {
        let member = self.node_number(identity.node)?;
        let Self { addresses, address_numbers, free_addresses, .. } = self;
        let address = number(addresses, address_numbers, free_addresses, identity.address)?;
        Some(MemberNumber { member, address, generation: identity.generation })
    }

    fn identity(&self, number: MemberNumber) -> Identity {
        Identity {
            node: self.nodes[number.member as usize],
            generation: number.generation,
            address: self.addresses[number.address as usize],
        }
    }

    /// The number of a known member.
    pub(super) fn number_of(&self, node: &NodeId) -> Option<u32> {
        self.numbers.get(node).copied()
    }

    /// The member with a number below [`MemberIndex::len`].
    pub(super) fn node(&self, number: u32) -> NodeId {
        self.nodes[number as usize]
    }

    /// All numbers are below this.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Every known member and its number, by key.
    pub(super) fn members(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.numbers.iter().map(|(node, number)| (*node, *number))
    }

    fn is_nearly_full(&self) -> bool {
        let used = |len: usize, free: &[u32]| len - free.len() > limits::MEMBER_INDEX_MAX / 4 * 3;
        used(self.nodes.len(), &self.free) || used(self.addresses.len(), &self.free_addresses)
    }

    /// Gives the numbers of everybody who is not in `used` away again.
    fn keep(&mut self, used: &[MemberNumber]) -> Vec<u32> {
        let members: BTreeSet<u32> = used.iter().map(|number| number.member).collect();
        let addresses: BTreeSet<u32> = used.iter().map(|number| number.address).collect();
        let dropped = retain(&mut self.numbers, &members);
        self.free.extend(&dropped);
        self.free_addresses.extend(retain(&mut self.address_numbers, &addresses));
        dropped
    }
}

fn number<T: Copy + Ord>(
    values: &mut Vec<T>,
    numbers: &mut BTreeMap<T, u32>,
    free: &mut Vec<u32>,
    value: T,
) -> Option<u32> {
    if let Some(number) = numbers.get(&value) {
        return Some(*number);
    }
    let number = match free.pop() {
        Some(number) => {
            values[number as usize] = value;
            number
        }
        None if values.len() >= limits::MEMBER_INDEX_MAX => return None,
        None => {
            values.push(value);
            values.len() as u32 - 1
        }
    };
    numbers.insert(value, number);
    Some(number)
}

fn retain<T: Ord>(numbers: &mut BTreeMap<T, u32>, used: &BTreeSet<u32>) -> Vec<u32> {
    let mut dropped = Vec::new();
    numbers.retain(|_, number| {
        let keep = used.contains(number);
        if !keep {
            dropped.push(*number);
        }
        keep
    });
    dropped
}

/// The index of one node, which its codec and its membership both use. Nodes of one process may share it
/// until one of them hears of somebody new.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedIndex(Arc<Mutex<Arc<MemberIndex>>>);

impl SharedIndex {
    pub fn new(index: Arc<MemberIndex>) -> Self {
        Self(Arc::new(Mutex::new(index)))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<MemberIndex>> {
        // Nothing panics while it is held; if something did, the index is as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub fn get(&self) -> Arc<MemberIndex> {
        Arc::clone(&self.lock())
    }

    /// `None`: there are too many.
    pub fn number(&self, identity: Identity) -> Option<MemberNumber> {
        let mut index = self.lock();
        if let (Some(member), Some(address)) =
            (index.numbers.get(&identity.node), index.address_numbers.get(&identity.address))
        {
            let (member, address) = (*member, *address);
            return Some(MemberNumber { member, address, generation: identity.generation });
        }
        Arc::make_mut(&mut index).number(identity)
    }

    pub fn identity(&self, number: MemberNumber) -> Identity {
        self.lock().identity(number)
    }

    pub fn number_of(&self, node: &NodeId) -> Option<u32> {
        self.lock().number_of(node)
    }

    /// When there is little room left, drops everybody who is not in `used`; their numbers.
    pub fn make_room(&self, used: impl FnOnce() -> Vec<MemberNumber>) -> Vec<u32> {
        let mut index = self.lock();
        if !index.is_nearly_full() {
            return Vec::new();
        }
        Arc::make_mut(&mut index).keep(&used())
    }
}

/// Foca's packets: identities on the wire, numbers inside.
#[derive(Debug)]
pub(super) struct NumberCodec(pub SharedIndex);

impl NumberCodec {
    fn number(&self, identity: Identity) -> postcard::Result<MemberNumber> {
        self.0.number(identity).ok_or(postcard::Error::DeserializeBadEncoding)
    }
}

impl Codec<MemberNumber> for NumberCodec {
    type Error = postcard::Error;

    fn encode_header(
        &mut self,
        header: &Header<MemberNumber>,
        buf: impl BufMut,
    ) -> postcard::Result<()> {
        let header = translate(header, |number| Ok(self.0.identity(*number)))?;
        PostcardCodec.encode_header(&header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> postcard::Result<Header<MemberNumber>> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        translate(&header, |identity| self.number(*identity))
    }

    fn encode_member(
        &mut self,
        member: &Member<MemberNumber>,
        buf: impl BufMut,
    ) -> postcard::Result<()> {
        let identity = self.0.identity(*member.id());
        let member = Member::new(identity, member.incarnation(), member.state());
        PostcardCodec.encode_member(&member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> postcard::Result<Member<MemberNumber>> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        let number = self.number(*member.id())?;
        Ok(Member::new(number, member.incarnation(), member.state()))
    }
}

fn translate<A, B>(
    header: &Header<A>,
    mut id: impl FnMut(&A) -> postcard::Result<B>,
) -> postcard::Result<Header<B>> {
    let message = match &header.message {
        Message::Ping(number) => Message::Ping(*number),
        Message::Ack(number) => Message::Ack(*number),
        Message::PingReq { target, probe_number } => {
            Message::PingReq { target: id(target)?, probe_number: *probe_number }
        }
        Message::IndirectPing { origin, probe_number } => {
            Message::IndirectPing { origin: id(origin)?, probe_number: *probe_number }
        }
        Message::IndirectAck { target, probe_number } => {
            Message::IndirectAck { target: id(target)?, probe_number: *probe_number }
        }
        Message::ForwardedAck { origin, probe_number } => {
            Message::ForwardedAck { origin: id(origin)?, probe_number: *probe_number }
        }
        Message::Announce => Message::Announce,
        Message::Feed => Message::Feed,
        Message::Gossip => Message::Gossip,
        Message::Broadcast => Message::Broadcast,
        Message::TurnUndead => Message::TurnUndead,
    };
    Ok(Header {
        src: id(&header.src)?,
        src_incarnation: header.src_incarnation,
        dst: id(&header.dst)?,
        message,
    })
}
