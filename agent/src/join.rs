//! Joining: how a machine with a token becomes a member, and how any member lets it in.
//!
//! 1. The joiner connects to a node that claims to be of the fabric, and greets with `Join`.
//! 2. The member proves itself: it signs a key exported from this very connection (RFC 8446, section
//!    7.5) with the fabric's key. A signature made for another connection is worth nothing, so nobody
//!    in the middle can borrow one.
//! 3. The joiner compares the fabric's key with the hash in its token, checks the signature, and only
//!    then says the token's secret.
//! 4. The member asks its core, which looks the token up in the table, and answers with the fabric's
//!    key pair, the roster and the keyring, or with a reason.
//!
//! Every member holds the fabric's key pair, so every member can admit, and none is special. The price:
//! a node that was removed still knows that key. It hears no gossip (the gossip key is rotated with
//! every removal) and no member talks to it (its own key left the roster), but it could pose as a
//! member towards a machine that joins through it, learn that token's secret, and use it before it
//! expires. So tokens are short-lived, and a removal revokes all that are outstanding.
//!
//! Failed attempts are limited for each source address, and logged once a minute on each side.

use anyhow::Context;
use fabric::id::NodeId;
use fabric::table::{Entry, TokenId};
use quinn::{Connection, RecvStream, SendStream};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::identity::{Fabric, Identity};
use crate::quic::wire::{self, Answer, Greeting, JoinAnswer, JoinRequest};
use crate::quic::{Close, Enrolled, Incoming};
use crate::quic::{client_endpoint, dial_anybody, peer_key, refuse};
use crate::token::{Token, secret_hash};

const EXPORTER_LABEL: &[u8] = b"EXPORTER-weft-join";
const SIGNED_CONTEXT: &[u8] = b"weft join 1\0";
/// Bytes of the answer that lets a node in: a roster of the largest fabric.
const ACCEPTED_BYTES_MAX: usize = 8 << 20;
/// Bytes of a joiner's host name.
const NAME_BYTES_MAX: usize = 253;
/// Bytes of what a stranger may call a token, or its secret.
const TOKEN_BYTES_MAX: usize = 64;
/// Time for a connection. Nobody may listen at an address that discovery found a while ago.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for each step of the other side.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a joiner to show its token once we have proved ourselves: it has it at hand, and holds a place that
/// others may want.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one member to let us in, all in all.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Failures of one source in [`PERIOD`]; then it must wait.
const FAILURES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);
/// Sources that are remembered.
const SOURCES_MAX: usize = 1024;

/// What a node has once it was let in.
#[derive(Debug)]
pub struct Admission {
    /// The fabric, to be saved.
    pub fabric: Fabric,
    /// Roster and keyring, for [`Origin::Joined`](fabric::node::Origin::Joined).
    pub entries: Vec<Entry>,
    /// Labels that came with the token.
    pub labels: BTreeMap<String, String>,
    /// The member that let it in.
    pub by: NodeId,
    /// Where that member was reached.
    pub address: SocketAddr,
}

/// Why a node was not let in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody to ask.
    #[error(
        "no member was found: is an agent of the fabric running on this network? \
         Name one with --address"
    )]
    NobodyFound,
    /// No address led to a member.
    #[error("no member could be reached: {0}")]
    Unreachable(String),
    /// Only other fabrics were found. The token's secret was not sent.
    #[error(
        "{0} does not belong to the token's fabric, so the token was not shown to it: \
         check the address, or make a token on a member of that fabric"
    )]
    WrongFabric(SocketAddr),
    /// A member said no.
    #[error("{address} refused: {reason}")]
    Refused {
        /// Which member.
        address: SocketAddr,
        /// In its words.
        reason: String,
    },
}

/// What a node that wants to join says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// Its host name.
    pub name: &'a str,
    /// Up to which level it reads.
    pub level: u8,
}

/// Asks the members at these addresses, one after the other, to let this node in.
///
/// # Errors
/// When none did; the error is that of the member that said no, if one did.
pub async fn join(
    identity: &Identity,
    token: &Token,
    newcomer: Newcomer<'_>,
    addresses: &[SocketAddr],
) -> Result<Admission, JoinError> {
    let mut worst = JoinError::NobodyFound;
    for &address in addresses {
        let asked = ask(identity, token, newcomer, address);
        let error = match timeout(JOIN_TIMEOUT, asked).await {
            Ok(Ok(admission)) => return Ok(admission),
            Ok(Err(error)) => error,
            Err(_) => JoinError::Unreachable(format!(
                "{address}: not done after {} s",
                JOIN_TIMEOUT.as_secs()
            )),
        };
        worst = match (worst, error) {
            (JoinError::Unreachable(one), JoinError::Unreachable(other)) => {
                JoinError::Unreachable(format!("{one}; {other}"))
            }
            (worst, error) if worst.weight() > error.weight() => worst,
            (_, error) => error,
        };
    }
    Err(worst)
}

impl JoinError {
    /// How much an error tells.
    fn weight(&self) -> u8 {
        match self {
            JoinError::NobodyFound => 0,
            JoinError::Unreachable(_) => 1,
            JoinError::WrongFabric(_) => 2,
            JoinError::Refused { .. } => 3,
        }
    }
}

async fn ask(
    identity: &Identity,
    token: &Token,
    newcomer: Newcomer<'_>,
    address: SocketAddr,
) -> Result<Admission, JoinError> {
    let unreachable =
        |error: anyhow::Error| JoinError::Unreachable(format!("{address}: {error:#}"));
    let local = match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let (endpoint, client) = client_endpoint(identity, local).map_err(unreachable)?;
    let dialled = timeout(DIAL_TIMEOUT, dial_anybody(&endpoint, &client, address, Greeting::Join));
    let (connection, mut send, mut receive) = dialled
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {DIAL_TIMEOUT:?}")))
        .map_err(unreachable)?;
    let exchange = async {
        let by = peer_key(&connection).context("it showed no key")?;
        let proof = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
        let (fabric, signature) = match proof {
            Answer::Proof { fabric, signature } => (fabric, signature.concat()),
            Answer::Refused(reason) => return Ok(Err(JoinError::Refused { address, reason })),
            Answer::Welcome | Answer::Member(_) | Answer::Outdated(_) | Answer::Removed(_) => {
                anyhow::bail!("it answered a question that was not asked")
            }
        };
        let proved = UnparsedPublicKey::new(&ED25519, fabric.0)
            .verify(&signed(&connection)?, &signature)
            .is_ok();
        if !proved || !token.is_for(&fabric) {
            return Ok(Err(JoinError::WrongFabric(address)));
        }
        // Only now is it safe to say the secret.
        let request = JoinRequest {
            token: token.id().0.clone(),
            secret: token.secret().to_vec(),
            name: newcomer.name.to_owned(),
            level: newcomer.level,
        };
        wire::write_frame(&mut send, &request).await?;
        let _ = send.finish();
        let answer = wire::read_frame(&mut receive, ACCEPTED_BYTES_MAX).await?;
        let (key, name, entries, labels) = match answer {
            JoinAnswer::Refused(reason) => return Ok(Err(JoinError::Refused { address, reason })),
            JoinAnswer::Accepted { fabric, name, entries, labels } => {
                (fabric, name, entries, labels)
            }
        };
        let own = Fabric::from_pkcs8(key, &name).context("it sent a key that is none")?;
        anyhow::ensure!(own.key() == fabric, "it sent another fabric's key");
        let entries = entries
            .iter()
            .map(|bytes| Entry::decode(bytes))
            .collect::<Result<Vec<_>, _>>()
            .context("it sent entries that cannot be read")?;
        Ok(Ok(Admission { fabric: own, entries, labels, by, address }))
    };
    let result = exchange.await;
    connection.close(Close::Done.code(), b"");
    // The close must go out before the endpoint goes away.
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    result.map_err(unreachable)?
}

/// What the fabric's key signs to prove that this very connection leads to a member.
fn signed(connection: &Connection) -> anyhow::Result<Vec<u8>> {
    let mut exported = [0; 32];
    connection
        .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
        .map_err(|_| anyhow::anyhow!("the connection exports no key"))?;
    Ok([SIGNED_CONTEXT, &exported].concat())
}

/// The member's side. True: the stranger was let in.
pub(crate) async fn admit(
    fabric: &Fabric,
    incoming: &mpsc::Sender<Incoming>,
    attempts: &Mutex<Attempts>,
    connection: &Connection,
    stranger: NodeId,
    (mut send, mut receive): (SendStream, RecvStream),
) -> bool {
    let address = connection.remote_address();
    let attempts = || attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let throttled = attempts().is_throttled(address.ip());
    if throttled {
        let reason = "too many failed attempts from this address: wait a minute".to_owned();
        refuse(&mut send, &Answer::Refused(reason)).await;
        return false;
    }
    let exchange = async {
        let signature = fabric.sign(&signed(connection)?);
        let (first, second) = signature.split_at(32);
        let proof = Answer::Proof {
            fabric: fabric.key(),
            signature: [first.try_into()?, second.try_into()?],
        };
        wire::write_frame(&mut send, &proof).await?;
        let request: JoinRequest =
            timeout(REQUEST_TIMEOUT, wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX))
                .await??;
        let named = (request.token.clone(), request.name.escape_debug().to_string());
        anyhow::Ok((named, enrol(incoming, stranger, request).await))
    };
    let ((token, name), enrolled) = match exchange.await {
        Ok(done) => done,
        Err(error) => {
            // Whoever takes a place and shows nothing is not better than one who guesses.
            attempts().failed(address.ip());
            tracing::debug!(%address, %error, "a joiner went away");
            return false;
        }
    };
    match enrolled {
        Ok(Enrolled { entries, labels }) => {
            let accepted = JoinAnswer::Accepted {
                fabric: fabric.pkcs8().to_vec(),
                name: fabric.name().to_owned(),
                entries: entries.iter().map(Entry::encode).collect(),
                labels,
            };
            let told = async {
                wire::write_frame(&mut send, &accepted).await?;
                let _ = send.finish();
                let _ = send.stopped().await;
                Ok::<_, wire::WireError>(())
            };
            // The roster has it now; if the answer was lost, it may come again with the same token.
            let told = timeout(STEP_TIMEOUT, told).await;
            let from = address.ip().to_canonical();
            match told {
                Ok(Ok(())) => tracing::info!("let in {name}, from {from}, with token {token}"),
                _ => tracing::warn!(
                    "let in {name}, from {from}, with token {token}, and it may not know: it can ask again with the same token"
                ),
            }
            true
        }
        Err(reason) => {
            if attempts().failed(address.ip()) {
                tracing::warn!(
                    %address, node = ?stranger, token = token.escape_debug().to_string(), reason,
                    "not let in (further attempts from there are not logged for a minute)"
                );
            }
            refuse(&mut send, &JoinAnswer::Refused(wire::reason(reason))).await;
            false
        }
    }
}

async fn enrol(
    incoming: &mpsc::Sender<Incoming>,
    node: NodeId,
    request: JoinRequest,
) -> Result<Enrolled, String> {
    let JoinRequest { token, secret, name, level } = request;
    if token.len() > TOKEN_BYTES_MAX || secret.len() > TOKEN_BYTES_MAX {
        return Err("this is not a token".to_owned());
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("a node needs a name of 1 to {NAME_BYTES_MAX} printable characters"));
    }
    let (answer, answered) = oneshot::channel();
    let secret_hash = secret_hash(&secret);
    let enrol = Incoming::Enrol { node, name, level, token: TokenId(token), secret_hash, answer };
    let busy = || "this member is stopping or too busy: ask another".to_owned();
    let asked = async {
        incoming.send(enrol).await.map_err(|_| busy())?;
        answered.await.map_err(|_| busy())?
    };
    timeout(STEP_TIMEOUT, asked).await.unwrap_or_else(|_| Err(busy()))
}

/// Remembers who failed, so that guessing is slow and the log stays short. Bounded.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    sources: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// Whether this source must wait.
    pub(crate) fn is_throttled(&mut self, source: IpAddr) -> bool {
        self.entry(source).count >= FAILURES_MAX
    }

    /// Notes a failure. True: it is the first in a while, and worth a line in the log.
    pub(crate) fn failed(&mut self, source: IpAddr) -> bool {
        let failures = self.entry(source);
        failures.count += 1;
        failures.count == 1
    }

    /// For failures that are no attempts at guessing: true once in a while.
    pub(crate) fn is_worth_a_line(&mut self, source: IpAddr) -> bool {
        let failures = self.entry(source);
        let first = failures.count == 0;
        failures.count = failures.count.max(1);
        first
    }

    fn entry(&mut self, source: IpAddr) -> &mut Failures {
        let source = network(source);
        let now = Instant::now();
        self.sources.retain(|_, failures| now - failures.since < PERIOD);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let oldest = self.sources.iter().min_by_key(|(_, failures)| failures.since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.sources.remove(&oldest);
            }
        }
        self.sources.entry(source).or_insert(Failures { since: now, count: 0 })
    }
}

/// What one party controls: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
