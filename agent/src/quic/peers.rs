//! What is known of each peer: its connections, and the messages that wait for it.

use bytes::Bytes;
use fabric::id::NodeId;
use fabric::message::Message;
use fabric::table::{Key, SharedEntry, Value};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, SendStream};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::wire::{self, Answer, Greeting, Outdated, Standing};
use super::{
    Close, GREETING_TIMEOUT, Incoming, MESSAGE_TIMEOUT, Own, Shared, TransportCounters, serve,
    stream_address, tls, welcomed,
};

use crate::seal::Start;

/// Messages that may wait for one peer. The oldest goes first: newer ones say more.
const QUEUE_MESSAGES_MAX: usize = 1024;
/// Bytes that may wait for one peer.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes that may wait in all; beyond it new messages are dropped.
const QUEUES_BYTES_MAX: usize = 32 << 20;
/// Connections kept with one peer: both sides may have dialled at the same time.
const CONNECTIONS_PER_PEER_MAX: usize = 2;
/// Peers with connections; beyond it those that were quiet for longest are let go. A connection was
/// measured at 45 KiB, and 100 KiB once much went through; connecting again costs two round trips.
const CONNECTED_PEERS_WANTED: usize = 64;
/// Peers that are not quiet are let go beyond this only: what is on its way to them may be lost.
const CONNECTED_PEERS_MAX: usize = 1024;
/// A peer is quiet when nothing was said for this long.
const QUIET: Duration = Duration::from_secs(3);
/// Addresses of one peer that are tried: what it told of itself, one of them perhaps on every link of this machine.
const ADDRESSES_MAX: usize = super::TARGETS_MAX;
/// Each address gets this head start before the next is tried beside it (RFC 8305, section 5). Less when there are so
/// many that the last one would not have half the time.
const HEAD_START: Duration = Duration::from_millis(250);
/// Time for all addresses together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// A message whose connection breaks within this time is sent once more.
const RESEND_WITHIN: Duration = Duration::from_secs(2);
/// First and longest pause after a failed attempt. Short: a peer that comes back is wanted at once.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// All peers, and who may be one.
pub(super) struct Peers {
    roster: BTreeSet<NodeId>,
    /// Who was removed, and the encoded messages that show it.
    removed: BTreeMap<NodeId, Vec<u8>>,
    peers: BTreeMap<NodeId, Peer>,
    /// Of this agent.
    start: Start,
    /// The greatest start of each member that was heard. Invariant: no connection is with an earlier one.
    starts: BTreeMap<NodeId, Known>,
    /// The sum of all queues.
    queued_bytes: usize,
    /// What this agent answers at.
    pub(super) own: Own,
    pub(super) counters: TransportCounters,
}

/// A start of a member.
struct Known {
    start: Start,
    address: Option<SocketAddr>,
    heard: Instant,
}

/// A welcomed connection, and the start that it is with.
struct Link {
    connection: Connection,
    start: Start,
}

#[derive(Default)]
struct Peer {
    /// Newest last.
    connections: Vec<Link>,
    used: Option<Instant>,
    addresses: Vec<SocketAddr>,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// A task works on the queue. It ends when the queue is empty.
    pumping: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

/// Why a peer cannot be spoken to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0:?} does not belong to the fabric")]
    NotMember(NodeId),
    #[error("no address of {0:?} is known")]
    NoAddress(NodeId),
    #[error(
        "all that is known of {0:?} are addresses that this machine has itself ({1}): a bridge of a container engine? \
         On that node, [listen] advertise in weftd.toml says where it can be reached"
    )]
    OwnAddresses(NodeId, String),
    #[error("{0}")]
    Unreachable(String),
}

impl Peers {
    pub(super) fn new(roster: BTreeSet<NodeId>, start: Start) -> Self {
        Self {
            roster,
            removed: BTreeMap::new(),
            peers: BTreeMap::new(),
            start,
            starts: BTreeMap::new(),
            queued_bytes: 0,
            own: Own::default(),
            counters: TransportCounters::default(),
        }
    }

    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        self.roster.contains(node)
    }

    /// What tells a node that it was removed.
    pub(super) fn removal_of(&self, node: &NodeId) -> Option<Vec<u8>> {
        self.removed.get(node).cloned()
    }

    /// Takes note of a member's start; returns the connections with earlier ones.
    pub(super) fn note(
        &mut self,
        node: &NodeId,
        start: Start,
        address: Option<SocketAddr>,
    ) -> Vec<Connection> {
        if !self.is_member(node) {
            return Vec::new();
        }
        let heard = Instant::now();
        match self.starts.get_mut(node) {
            Some(known) if known.start > start => return Vec::new(),
            Some(known) if known.start == start => {
                known.heard = heard;
                known.address = address.or(known.address);
                return Vec::new();
            }
            _ => drop(self.starts.insert(*node, Known { start, address, heard })),
        }
        let Some(peer) = self.peers.get_mut(node) else { return Vec::new() };
        let old = peer.connections.extract_if(.., |link| link.start < start);
        old.map(|link| link.connection).collect()
    }

    /// This agent goes on as another start; returns all connections, which know the one before.
    pub(super) fn renew(&mut self, start: Start) -> Vec<Connection> {
        self.start = start;
        let links = self.peers.values_mut().flat_map(|peer| peer.connections.drain(..));
        links.map(|link| link.connection).collect()
    }

    /// What to say to a member, or to another machine with our own key.
    pub(super) fn standing(&self, with: &NodeId) -> Standing {
        Standing { start: self.start, heard: self.starts.get(with).map(|known| known.start) }
    }

    /// Why `start` of a member is not spoken with: a greater one was heard. `None` asks about any start.
    pub(super) fn outdated(&self, node: &NodeId, start: Option<Start>) -> Option<Outdated> {
        let known = self.starts.get(node)?;
        let silent_ms = Some(known.heard.elapsed().as_millis() as u64);
        start.is_none_or(|start| start < known.start).then_some(Outdated {
            by: known.start,
            address: known.address,
            silent_ms,
        })
    }

    /// Takes over the roster; returns the connections to close.
    pub(super) fn trust(
        &mut self,
        roster: BTreeSet<NodeId>,
        removed: BTreeMap<NodeId, Vec<u8>>,
    ) -> Vec<Connection> {
        self.roster = roster;
        self.removed = removed;
        let mut gone = Vec::new();
        for (node, peer) in &mut self.peers {
            if self.roster.contains(node) {
                continue;
            }
            let links = peer.connections.iter().map(|link| link.connection.clone());
            gone.extend(links);
            if gone.is_empty() {
                self.counters.undelivered += peer.queue.len() as u64;
                self.queued_bytes -= peer.clear();
            }
        }
        self.peers.retain(|_, peer| peer.is_of_use());
        self.starts.retain(|node, _| self.roster.contains(node));
        gone
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Adds a message to its peer's queue. True: start a [`pump`].
    pub(super) fn enqueue(&mut self, to: NodeId, addresses: &[SocketAddr], bytes: Bytes) -> bool {
        if !self.is_member(&to) {
            self.counters.undelivered += 1;
            return false;
        }
        if self.queued_bytes + bytes.len() > QUEUES_BYTES_MAX {
            self.counters.overflowed += 1;
            return false;
        }
        self.queued_bytes += bytes.len();
        let peer = self.peers.entry(to).or_default();
        if !addresses.is_empty() {
            peer.addresses = addresses.iter().copied().take(ADDRESSES_MAX).collect();
        }
        peer.queued_bytes += bytes.len();
        peer.queue.push_back(bytes);
        while peer.queue.len() > QUEUE_MESSAGES_MAX || peer.queued_bytes > QUEUE_BYTES_MAX {
            self.queued_bytes -= peer.pop().map_or(0, |dropped| dropped.len());
            self.counters.overflowed += 1;
        }
        !std::mem::replace(&mut peer.pumping, true)
    }

    /// The next message for a peer, or `None` after which the caller's pump must end.
    fn next(&mut self, to: &NodeId) -> Option<Bytes> {
        let peer = self.peers.get_mut(to)?;
        let next = peer.pop();
        match &next {
            Some(bytes) => self.queued_bytes -= bytes.len(),
            None => {
                peer.pumping = false;
                if !peer.is_of_use() {
                    self.peers.remove(to);
                }
            }
        }
        next
    }

    /// An open connection to the peer: the newest, for an older one may lead to its former self.
    pub(super) fn connection(&mut self, to: &NodeId) -> Option<Connection> {
        let peer = self.peers.get_mut(to)?;
        peer.connections.retain(|link| link.connection.close_reason().is_none());
        let connection = peer.connections.last().map(|link| link.connection.clone());
        if connection.is_some() {
            peer.used = Some(Instant::now());
        }
        connection
    }

    /// Where a peer was reached last.
    fn addresses(&self, to: &NodeId) -> Vec<SocketAddr> {
        self.peers.get(to).map(|peer| peer.addresses.clone()).unwrap_or_default()
    }

    /// Notes that something came from a peer.
    pub(super) fn heard(&mut self, from: &NodeId) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.used = Some(Instant::now());
        }
    }

    /// Takes over a welcomed connection; returns those to close in exchange. `Err`: the peer is not, or
    /// no longer, a member.
    fn adopt(
        &mut self,
        node: NodeId,
        connection: Connection,
        start: Start,
    ) -> Result<Vec<Connection>, ()> {
        if !self.is_member(&node) || self.outdated(&node, Some(start)).is_some() {
            return Err(());
        }
        let peer = self.peers.entry(node).or_default();
        peer.connections.push(Link { connection, start });
        peer.used = Some(Instant::now());
        peer.failures = 0;
        peer.retry_at = None;
        let mut surplus = Vec::new();
        if peer.connections.len() > CONNECTIONS_PER_PEER_MAX {
            surplus.push(peer.connections.remove(0).connection);
        }
        self.let_go(&mut surplus);
        Ok(surplus)
    }

    /// Moves the connections of peers that were quiet for longest to `surplus`, if there are too many.
    fn let_go(&mut self, surplus: &mut Vec<Connection>) {
        let connected = self.peers.iter().filter(|(_, peer)| !peer.connections.is_empty());
        let mut connected: Vec<_> = connected.map(|(node, peer)| (peer.used, *node)).collect();
        if connected.len() <= CONNECTED_PEERS_WANTED {
            return;
        }
        connected.sort_unstable();
        let (wanted, most) = (CONNECTED_PEERS_WANTED, CONNECTED_PEERS_MAX);
        for (let_go, (used, node)) in connected.iter().enumerate() {
            let left = connected.len() - let_go;
            if left <= wanted || (left <= most && used.is_some_and(|used| used.elapsed() < QUIET)) {
                break;
            }
            if let Some(peer) = self.peers.get_mut(node) {
                surplus.extend(peer.connections.drain(..).map(|link| link.connection));
            }
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn ended(&mut self, node: &NodeId, connection: &Connection) {
        if let Some(peer) = self.peers.get_mut(node) {
            let gone = connection.stable_id();
            peer.connections.retain(|link| link.connection.stable_id() != gone);
            if !peer.is_of_use() {
                self.peers.remove(node);
            }
        }
    }

    fn failed(&mut self, to: &NodeId) {
        self.counters.dial_failures += 1;
        if let Some(peer) = self.peers.get_mut(to) {
            let pause = BACKOFF.0.saturating_mul(1 << peer.failures.min(8)).min(BACKOFF.1);
            peer.failures += 1;
            peer.retry_at = Some(Instant::now() + pause);
            self.counters.undelivered += peer.queue.len() as u64;
            self.queued_bytes -= peer.clear();
        }
    }

    fn dial_plan(&self, to: &NodeId) -> (Option<Instant>, Vec<SocketAddr>) {
        match self.peers.get(to) {
            Some(peer) => (peer.retry_at, peer.addresses.clone()),
            None => (None, Vec::new()),
        }
    }
}

impl Peer {
    fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.queue.pop_front()?;
        self.queued_bytes -= bytes.len();
        Some(bytes)
    }

    /// Empties the queue; returns how many bytes were in it.
    fn clear(&mut self) -> usize {
        self.queue.clear();
        std::mem::take(&mut self.queued_bytes)
    }

    /// Whether there is anything to remember. A peer that fails is remembered until it was given up.
    fn is_of_use(&self) -> bool {
        self.pumping
            || !self.connections.is_empty()
            || !self.queue.is_empty()
            || self.retry_at.is_some_and(|at| at > Instant::now())
    }
}

/// Sends what waits for a peer, one after the other, and ends when nothing does.
pub(super) async fn pump(shared: Arc<Shared>, to: NodeId) {
    loop {
        let Some(bytes) = shared.peers().next(&to) else { return };
        match deliver(&shared, to, bytes).await {
            Ok(()) => shared.peers().counters.sent += 1,
            Err(error) => {
                tracing::debug!(?to, %error, "a message was not delivered");
                shared.peers().counters.undelivered += 1;
            }
        }
    }
}

async fn deliver(shared: &Arc<Shared>, to: NodeId, bytes: Bytes) -> Result<(), DialError> {
    // A connection may turn out to be dead only when it is used: once more over a new one.
    for _ in 0..2 {
        let connection = connected(shared, to).await?;
        match timeout(MESSAGE_TIMEOUT, hand_over(&connection, bytes.clone())).await {
            Ok(Ok(stream)) => {
                let addresses = shared.peers().addresses(&to);
                tokio::spawn(see_through(shared.clone(), to, addresses, stream, bytes));
                return Ok(());
            }
            Ok(Err(error)) => tracing::debug!(?to, %error, "a connection is of no use any more"),
            Err(_) => connection.close(Close::Stalled.code(), b"no progress"),
        }
    }
    Err(DialError::Unreachable("its connections break as soon as they are used".to_owned()))
}

/// The open connection to a peer, or a new one.
async fn connected(shared: &Arc<Shared>, to: NodeId) -> Result<Connection, DialError> {
    let open = shared.peers().connection(&to);
    if let Some(connection) = open {
        return Ok(connection);
    }
    let (retry_at, addresses) = shared.peers().dial_plan(&to);
    if let Some(at) = retry_at {
        sleep_until(at).await;
    }
    // It may have dialled us meanwhile.
    let open = shared.peers().connection(&to);
    if let Some(connection) = open {
        return Ok(connection);
    }
    let dialled = dial(shared, to, &addresses).await;
    if dialled.is_err() {
        shared.peers().failed(&to);
    }
    dialled
}

/// The removal of `node` that a member showed, and nothing else: untrusted bytes.
fn removal_from(bytes: &[u8], node: NodeId) -> Option<Message> {
    let Ok(Message::News { entries }) = Message::decode(bytes) else { return None };
    let is_removal = |entry: &SharedEntry| {
        entry.key == Key::Roster(node) && matches!(entry.value, Value::Tombstone { .. })
    };
    let fits = entries.len() == 1 && entries.iter().all(is_removal);
    fits.then_some(Message::News { entries })
}

async fn hand_over(connection: &Connection, bytes: Bytes) -> Result<SendStream, wire::WireError> {
    let mut stream =
        connection.open_uni().await.map_err(|error| wire::WireError::Ended(error.to_string()))?;
    stream.write_chunk(bytes).await?;
    let _ = stream.finish();
    Ok(stream)
}

/// A peer that was killed and has started again says, in answer to the first message, that it does not know
/// the connection. That message is not lost for it: it goes out once more. Later than that it would be
/// old news.
async fn see_through(
    shared: Arc<Shared>,
    to: NodeId,
    addresses: Vec<SocketAddr>,
    stream: SendStream,
    bytes: Bytes,
) {
    let broken = timeout(RESEND_WITHIN, stream.stopped()).await;
    if !matches!(broken, Ok(Err(_))) {
        return;
    }
    let open = shared.peers().connection(&to);
    let connection = match open {
        Some(connection) => Ok(connection),
        None => dial(&shared, to, &addresses).await,
    };
    if let Ok(connection) = connection {
        tracing::debug!(?to, "a message goes out once more over a new connection");
        let _ = timeout(MESSAGE_TIMEOUT, hand_over(&connection, bytes)).await;
    }
}

/// Connects to the first of a peer's addresses that answers with the right key and a welcome.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    to: NodeId,
    addresses: &[SocketAddr],
) -> Result<Connection, DialError> {
    if !shared.peers().is_member(&to) || to == shared.id {
        return Err(DialError::NotMember(to));
    }
    if addresses.is_empty() {
        return Err(DialError::NoAddress(to));
    }
    let own = shared.peers().own.clone();
    let (own, others): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| own.contains(**address));
    if others.is_empty() {
        let own: Vec<String> = own.iter().map(SocketAddr::to_string).collect();
        return Err(DialError::OwnAddresses(to, own.join(", ")));
    }
    let mut waiting = others.into_iter().take(ADDRESSES_MAX);
    let head_start = HEAD_START.min(DIAL_TIMEOUT / 2 / waiting.len() as u32);
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    let race = async {
        loop {
            if let Some(address) = waiting.next() {
                attempts.push(async move { (address, greet(shared, to, address).await) });
            } else if attempts.is_empty() {
                return None;
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some((address, result)) = attempts.next() => match result {
                    Ok(connection) => return Some(connection),
                    Err(error) => failures.push(format!("{address}: {error:#}")),
                },
                () = sleep(head_start), if more => {}
            }
        }
    };
    let (connection, start) = match timeout(DIAL_TIMEOUT, race).await {
        Ok(Some(connected)) => connected,
        Ok(None) => return Err(DialError::Unreachable(failures.join("; "))),
        Err(_) => {
            failures.push(format!("no answer within {} s", DIAL_TIMEOUT.as_secs()));
            return Err(DialError::Unreachable(failures.join("; ")));
        }
    };
    shared.peers().counters.dialled += 1;
    adopt(shared, to, connection.clone(), start).map_err(|()| DialError::NotMember(to))?;
    Ok(connection)
}

/// Connects to somebody with this key, and says that we are a member.
pub(super) async fn greet(
    shared: &Shared,
    to: NodeId,
    address: SocketAddr,
) -> anyhow::Result<(Connection, Start)> {
    let streams = stream_address(address)
        .ok_or_else(|| anyhow::anyhow!("port 65535 leaves no room for the streams"))?;
    let name = tls::server_name(Some(&to));
    let connection = shared.endpoint.connect_with(shared.client.clone(), streams, &name)?.await?;
    let ours = shared.peers().standing(&to);
    let answer = timeout(GREETING_TIMEOUT, async {
        let (mut send, mut receive) = connection.open_bi().await?;
        wire::write_frame(&mut send, &Greeting::Member(ours)).await?;
        let _ = send.finish();
        anyhow::Ok(wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?)
    })
    .await??;
    let theirs = match answer {
        Answer::Member(theirs) => theirs,
        Answer::Outdated(outdated) => {
            connection.close(Close::Done.code(), b"");
            shared.superseded(outdated);
            anyhow::bail!("refused: it listens to another machine with this node's key")
        }
        Answer::Refused(reason) => {
            connection.close(Close::Done.code(), b"");
            anyhow::bail!("refused: {reason}")
        }
        Answer::Removed(removal) => {
            connection.close(Close::Done.code(), b"");
            if let Some(message) = removal_from(&removal, shared.id) {
                shared.report(Incoming::Message { from: to, address, message });
            }
            anyhow::bail!("refused: this node was removed from the fabric")
        }
        _ => anyhow::bail!("it answered a question that was not asked"),
    };
    hears_another(shared, ours, theirs);
    if to == shared.id {
        shared.report(Incoming::Copy { start: theirs.start, address });
        return Ok((connection, theirs.start));
    }
    if let Some(outdated) = shared.peers().outdated(&to, Some(theirs.start)) {
        connection.close(Close::Outdated.code(), &wire::encode(&outdated));
        shared.report(Incoming::Twin { node: to, address });
        anyhow::bail!(
            "a machine answers there that has its key, and is not the one that is listened to"
        )
    }
    shared.note(&to, theirs.start, Some(address));
    Ok((connection, theirs.start))
}

/// The other side may listen to another start under our key.
pub(super) fn hears_another(shared: &Shared, ours: Standing, theirs: Standing) {
    if let Some(by) = theirs.heard.filter(|heard| *heard > ours.start) {
        shared.superseded(Outdated { by, address: None, silent_ms: None });
    }
}

/// Starts to use a welcomed connection. `Err`: the peer is no member; the connection is closed.
pub(super) fn adopt(
    shared: &Arc<Shared>,
    node: NodeId,
    connection: Connection,
    start: Start,
) -> Result<(), ()> {
    let surplus = shared.peers().adopt(node, connection.clone(), start);
    match surplus {
        Ok(surplus) => {
            for old in surplus {
                old.close(Close::Superseded.code(), b"superseded");
            }
            welcomed(&connection);
            tokio::spawn(serve::streams(shared.clone(), node, connection));
            Ok(())
        }
        Err(()) => {
            connection.close(Close::NotMember.code(), b"not a member");
            Err(())
        }
    }
}
