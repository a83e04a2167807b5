//! Streams between agents: QUIC, where each side is its Ed25519 key and the roster says who may speak.
//!
//! A node has two UDP ports: gossip on `P`, streams on `P + 1`. Everybody speaks of a node's address as
//! that of its gossip; this module adds the one. (One socket for both would need a demultiplexer in
//! front of quinn, which a fixed offset does not.)
//!
//! A connection begins with a greeting on its first stream. The server answers `Welcome` to members and
//! a reason to everybody else; until then the client sends nothing more, and the server takes no more
//! than one stream. After the welcome both sides use the connection alike: a unidirectional stream
//! carries one [`Message`], a bidirectional one a request to the other agent's API. Connections that
//! nobody uses for a while end by themselves; nothing keeps them alive.
//!
//! Tasks: one accepts connections; one a connection takes its streams; one a stream; and one for each
//! peer that has messages waiting, so that a dead peer holds up nobody else. Messages may be lost: when a
//! peer cannot be reached those that wait for it are dropped, and whoever sent them derives them again.

pub(crate) mod admit;
pub(crate) mod attempts;
mod peers;
mod permits;
mod provider;
mod request;
mod serve;
mod sockets;
mod tls;
pub(crate) mod wire;

use anyhow::Context;
use bytes::Bytes;
use fabric::id::NodeId;
use fabric::limits::MESSAGE_BYTES_MAX;
use fabric::message::Message;
use fabric::table::{Entry, TokenId};
use quinn::{Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use ring::digest::{SHA256, digest};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::identity::{Fabric, Identity};
use crate::seal::Start;
use attempts::Attempts;
use peers::Peers;
use permits::Permits;

pub use request::{ApiRequest, ApiResponse, RequestError};
pub(crate) use serve::refuse;
pub use sockets::{Own, Sockets, for_socket, node_address, stream_address};

/// Time for a handshake and the greeting together.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for what was sent to a node before it was removed.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A connection without traffic ends. Long enough for repair to reuse one, short enough that
/// a large fabric does not hold thousands.
const IDLE: Duration = Duration::from_secs(30);
/// Time for one message to be handed over, or to come in.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that one peer may have under way: each may grow to the size of the largest.
const MESSAGE_STREAMS_MAX: u32 = 16;
/// Requests that one peer may have under way: people who follow logs keep theirs for long.
const REQUEST_STREAMS_MAX: u32 = 32;
/// Bytes that a stranger can make us buffer.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes in flight on one stream.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes in flight on one connection, each way.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Addresses that one node is tried at.
pub(crate) const TARGETS_MAX: usize = 24;
/// What came in and was not yet taken by the agent's loop. When full, peers wait.
const INCOMING_MAX: usize = 256;

/// What a [`Transport`] starts from.
pub struct Setup<'a> {
    /// This node.
    pub identity: &'a Identity,
    /// The fabric it belongs to.
    pub fabric: Arc<Fabric>,
    /// From [`listen`].
    pub endpoint: Endpoint,
    /// Who may speak; replaced by [`Transport::trust`].
    pub roster: BTreeSet<NodeId>,
    /// Of this agent; replaced by [`Transport::renew`].
    pub start: Start,
}

/// Something came over a stream.
#[derive(Debug)]
pub enum Incoming {
    /// A message from a member.
    Message {
        /// Its key, proved.
        from: NodeId,
        /// Its node's address as of the handshake, unless a translator lies between.
        address: SocketAddr,
        /// What it said.
        message: Message,
    },
    /// A member passes on somebody's request to our API. Dropping `answer` answers with an error.
    Request {
        /// Its key, proved.
        from: NodeId,
        /// What is asked.
        request: ApiRequest,
        /// Where the answer goes. Status and type are due within seconds, the body may take for ever.
        answer: oneshot::Sender<ApiResponse>,
    },
    /// A stranger shows a token: ask the core ([`Enrol`](fabric::io::Request::Enrol)).
    Enrol {
        /// Its key, proved.
        node: NodeId,
        /// Its host name, as it says.
        name: String,
        /// Up to which level it reads.
        level: u8,
        /// The token.
        token: TokenId,
        /// SHA-256 of the secret it showed.
        secret_hash: [u8; 32],
        /// Where the answer goes; `Err` says why not.
        answer: oneshot::Sender<Result<Enrolled, String>>,
    },
    /// A member says that it listens to another start under this node's key.
    Superseded {
        /// Which.
        by: Start,
        /// Where that was heard.
        address: Option<SocketAddr>,
        /// For how long that has been silent, if that was said.
        silent: Option<Duration>,
    },
    /// A start of a member that is not listened to, because another one is, holds a stream.
    Twin {
        /// Whose key both have.
        node: NodeId,
        /// Where the one is that is not listened to.
        address: SocketAddr,
    },
    /// Another machine has this node's own key.
    Copy {
        /// The start of its agent.
        start: Start,
        /// Where it is.
        address: SocketAddr,
    },
}

/// What a newcomer gets, from [`Answer::Enrolled`](fabric::io::Answer::Enrolled).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Roster and keyring.
    pub entries: Vec<Entry>,
    /// Labels that come with the token.
    pub labels: BTreeMap<String, String>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Messages handed to a connection.
    pub sent: u64,
    /// Messages dropped because their peer could not be reached.
    pub undelivered: u64,
    /// Messages dropped because too many waited for their peer.
    pub overflowed: u64,
    /// Messages that came in.
    pub received: u64,
    /// Streams that could not be read.
    pub malformed: u64,
    /// Connections refused: no member, no valid token, or too many at once.
    pub refused: u64,
    /// Connections made to others.
    pub dialled: u64,
    /// Attempts to connect that failed.
    pub dial_failures: u64,
}

/// The node's end of all streams. Clones are handles to the same.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// Shared by the tasks. The lock is held for a few instructions at a time, never across an await.
struct Shared {
    id: NodeId,
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    fabric: Arc<Fabric>,
    incoming: mpsc::Sender<Incoming>,
    permits: Arc<Permits>,
    attempts: Mutex<Attempts>,
    peers: Mutex<Peers>,
}

impl Transport {
    /// Starts to accept connections. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the node's key cannot be used.
    pub fn start(setup: Setup<'_>) -> anyhow::Result<(Self, mpsc::Receiver<Incoming>)> {
        let (incoming, received) = mpsc::channel(INCOMING_MAX);
        let shared = Arc::new(Shared {
            id: setup.identity.id(),
            endpoint: setup.endpoint,
            client: client_config(setup.identity)?,
            fabric: setup.fabric,
            incoming,
            permits: Arc::default(),
            attempts: Mutex::default(),
            peers: Mutex::new(Peers::new(setup.roster, setup.start)),
        });
        tokio::spawn(serve::accept(shared.clone()));
        Ok((Self { shared }, received))
    }

    /// Queues a message. It goes out over a connection that is there, or over a new one to the first of
    /// the addresses (best first) that answers with the right key. It may be lost.
    pub fn send(&self, to: NodeId, addresses: &[SocketAddr], message: &Message) {
        let bytes = message.encode();
        let mut peers = self.shared.peers();
        if bytes.len() > MESSAGE_BYTES_MAX {
            tracing::warn!(?to, bytes = bytes.len(), "a message is too long to be sent: dropped");
            peers.counters.undelivered += 1;
        } else if peers.enqueue(to, addresses, Bytes::from(bytes)) {
            tokio::spawn(peers::pump(self.shared.clone(), to));
        }
    }

    /// Whether this node is one of the members, as far as it knows.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.shared.peers().is_member(node)
    }

    /// Passes a request on to another member's API.
    ///
    /// # Errors
    /// When the member cannot be reached, or does not answer in time.
    pub async fn request(
        &self,
        to: NodeId,
        addresses: &[SocketAddr],
        request: ApiRequest,
    ) -> Result<ApiResponse, RequestError> {
        request::ask(&self.shared, to, addresses, request).await
    }

    /// A member was heard, in this start of its agent. Connections with earlier ones end, and say why.
    pub fn heard(&self, node: NodeId, start: Start, address: Option<SocketAddr>) {
        self.shared.note(&node, start, address);
    }

    /// This agent goes on as another start of itself.
    pub fn renew(&self, start: Start) {
        let old = self.shared.peers().renew(start);
        for connection in old {
            connection.close(Close::Superseded.code(), b"a new start");
        }
    }

    /// Asks whoever is at this address with a member's key which start it is. What comes of it is
    /// [`Incoming::Twin`], or nothing.
    pub fn challenge(&self, node: NodeId, address: SocketAddr) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let asked = peers::greet(&shared, node, address);
            if let Ok(Ok((connection, _))) = tokio::time::timeout(GREETING_TIMEOUT, asked).await {
                connection.close(Close::Done.code(), b"");
            }
        });
    }

    /// Replaces the roster. Connections of those who are no longer in it end once what was sent to them before has
    /// arrived: among that is what tells them. Nothing of theirs is listened to any more. `removed`: who was locked out,
    /// and the encoded message that shows it.
    pub fn trust(&self, roster: BTreeSet<NodeId>, removed: BTreeMap<NodeId, Vec<u8>>) {
        let strangers = self.shared.peers().trust(roster, removed);
        if strangers.is_empty() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            for connection in strangers {
                connection.close(Close::NotMember.code(), b"not a member any more");
            }
        });
    }

    /// Takes over where members are, by the table: strangers cannot take their share of what may be under way.
    pub fn know(&self, members: impl IntoIterator<Item = SocketAddr>) {
        self.shared.permits.counts().know(members);
    }

    /// The addresses of this agent, which it never dials.
    pub fn answers_at(&self, own: Own) {
        self.shared.peers().own = own;
    }

    /// Counts since the start.
    pub fn counters(&self) -> TransportCounters {
        self.shared.peers().counters
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.endpoint.open_connections()
    }

    /// Tells the peers that this agent stops, so that they need not find out.
    pub async fn close(&self) {
        self.shared.endpoint.close(Close::Stopping.code(), b"the agent stops");
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.shared.endpoint.wait_idle()).await;
    }
}

impl Shared {
    /// Takes note of a member's start, and ends its connections with earlier ones.
    fn note(&self, node: &NodeId, start: Start, address: Option<SocketAddr>) {
        let old = self.peers().note(node, start, address);
        for connection in old {
            if let Some(outdated) = self.peers().outdated(node, None) {
                connection.close(Close::Outdated.code(), &wire::encode(&outdated));
            }
        }
    }

    /// Tells the loop of something that it will hear of again, if it has no time now.
    fn report(&self, incoming: Incoming) {
        let _ = self.incoming.try_send(incoming);
    }

    /// A member says of us that it listens to another start.
    fn superseded(&self, outdated: wire::Outdated) {
        let wire::Outdated { by, address, silent_ms } = outdated;
        let silent = silent_ms.map(Duration::from_millis);
        self.report(Incoming::Superseded { by, address, silent });
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why we end a connection, for the other side's log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Close {
    Done = 0,
    Stopping = 1,
    NotMember = 2,
    Superseded = 3,
    Stalled = 4,
    /// The reason is a [`wire::Outdated`].
    Outdated = 5,
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// The node's port for streams, from [`Sockets::bind`]'s second socket. Connections that come wait until a
/// [`Transport`] or a [`Door`](crate::approval::Door) takes them. Must be called inside a tokio runtime.
///
/// # Errors
/// When the socket cannot be used.
pub fn listen(identity: &Identity, socket: std::net::UdpSocket) -> anyhow::Result<Endpoint> {
    let mut server = quinn::ServerConfig::with_crypto(tls::server(identity)?);
    server.transport_config(transport_config());
    server.max_incoming(permits::CONNECTIONS_MAX);
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(endpoint_config(identity), Some(server), socket, runtime)
        .context("cannot use the socket for streams")
}

/// Connects to a server with any key, says why, and returns the connection with its first stream.
/// For joiners, who have no [`Transport`] yet.
pub(crate) async fn dial_anybody(
    endpoint: &Endpoint,
    client: &quinn::ClientConfig,
    address: SocketAddr,
    greeting: wire::Greeting,
) -> anyhow::Result<(Connection, quinn::SendStream, quinn::RecvStream)> {
    let connection = connect_anybody(endpoint, client, address).await?;
    let (send, receive) = greet(&connection, greeting).await?;
    Ok((connection, send, receive))
}

/// Connects to a server with any key, which [`peer_key`] then tells. Says nothing yet.
pub(crate) async fn connect_anybody(
    endpoint: &Endpoint,
    client: &quinn::ClientConfig,
    address: SocketAddr,
) -> anyhow::Result<Connection> {
    let address = stream_address(address).context("port 65535 leaves no room for the streams")?;
    let name = tls::server_name(None);
    Ok(endpoint.connect_with(client.clone(), address, &name)?.await?)
}

/// Opens a connection's first stream, and says on it why we are here.
pub(crate) async fn greet(
    connection: &Connection,
    greeting: wire::Greeting,
) -> anyhow::Result<(quinn::SendStream, quinn::RecvStream)> {
    let (mut send, receive) = connection.open_bi().await?;
    wire::write_frame(&mut send, &greeting).await?;
    Ok((send, receive))
}

/// An endpoint that only connects, for a joiner; `local` has port 0.
pub(crate) fn client_endpoint(
    identity: &Identity,
    local: SocketAddr,
) -> anyhow::Result<(Endpoint, quinn::ClientConfig)> {
    let socket = sockets::bind_one(local)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(endpoint_config(identity), None, socket, runtime)
        .context("cannot use the socket for streams")?;
    Ok((endpoint, client_config(identity)?))
}

/// The key that the peer has proved to hold.
pub(crate) fn peer_key(connection: &Connection) -> Option<NodeId> {
    tls::peer_key(connection.peer_identity())
}

fn client_config(identity: &Identity) -> anyhow::Result<quinn::ClientConfig> {
    let mut client = quinn::ClientConfig::new(tls::client(identity)?);
    client.transport_config(transport_config());
    Ok(client)
}

/// What holds before the welcome; [`welcomed`] opens it up.
fn transport_config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("half a minute is in range")));
    Arc::new(config)
}

fn welcomed(connection: &Connection) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(MESSAGE_STREAMS_MAX));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(REQUEST_STREAMS_MAX));
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
}

/// The key for stateless resets comes from the node's key: after a crash and a restart the agent can
/// tell peers that it knows nothing of their connections, and they need not wait for a timeout.
fn endpoint_config(identity: &Identity) -> quinn::EndpointConfig {
    let mut secret = b"weft stateless reset 1".to_vec();
    secret.extend_from_slice(identity.pkcs8());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, digest(&SHA256, &secret).as_ref());
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(ConnectionIds(ring::rand::SystemRandom::new())));
    config
}

/// Connection ids that carry no meaning: those of an earlier start look like any other, and are answered
/// with a reset.
struct ConnectionIds(ring::rand::SystemRandom);

impl quinn::ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; 8];
        ring::rand::SecureRandom::fill(&self.0, &mut id)
            .expect("the kernel gave random numbers before");
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
