//! Approval: how a member lets in a node that has no token and waits, and how that node takes it.
//!
//! 1. The waiting node announces itself ([`discovery`]) and, where its configuration says `approval = true`,
//!    listens ([`Door`]). Where it does not, nobody listens, and a stranger has nothing to talk to.
//! 2. A person compares fingerprints and approves it on any member. The member connects ([`invite`]). Before it
//!    says anything it checks that whoever answers holds the very key that was announced (RFC 7250).
//! 3. It greets with `Invite`, and hands over an [`Invitation`]: a token of its own, and its port.
//! 4. The waiting node joins at that member with that token, as it would by `weft join` ([`crate::join`]),
//!    and then says what came of it.
//!
//! The token never was in the table: the member keeps it in memory ([`Invitations`]), for one node, once, and for
//! half a minute. Another node that shows it is refused, and so is the same one at another member.
//!
//! What the waiting node cannot know is whether it is the right fabric that lets it in: the first one that it hears
//! from has it. So this has to be switched on, is meant for links where everybody may be trusted that far, and
//! the node's console tells whose it is. A node that was given a token takes an invitation of the token's fabric only.

use fabric::clock::{Instant, WallTime};
use fabric::id::NodeId;
use fabric::table::TokenId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, Endpoint};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::identity::{Identity, fingerprint};
use crate::quic::attempts::Attempts;
use crate::quic::wire::{self, Answer, Greeting, Invitation, InvitationAnswer};
use crate::quic::{
    Close, client_endpoint, connect_anybody, for_socket, greet, node_address, peer_key, refuse,
};
use crate::token::Token;

/// Bytes of an invitation: a token and a port.
const INVITATION_BYTES_MAX: usize = 512;
/// Connections to a waiting node at a time. One would do; strangers cost a bounded amount.
const VISITORS_MAX: usize = 8;
/// With this many under way a visitor must first show that its address is its own.
const VISITORS_TRUSTED: usize = 2;
/// Time for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Time for each small step of the other side.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the invited node to join, and to have that on its disk. Less than the time after which an idle
/// connection ends.
const JOIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long an invitation can be redeemed.
const INVITATION_LIFETIME: Duration = Duration::from_secs(30);
/// Invitations at a time.
const INVITATIONS_MAX: usize = 16;

/// A node that is announced and belongs to no fabric, as members show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingNode {
    /// Its host name, as it says.
    pub name: String,
    /// The key that it announces.
    pub node: NodeId,
    /// The part of the key that people compare.
    pub fingerprint: String,
    /// Where it was found.
    pub addresses: Vec<SocketAddr>,
    /// Since when this node knows of it.
    pub since: WallTime,
}

/// A node that was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// Its host name.
    pub name: String,
    /// Its key, proved.
    pub node: NodeId,
    /// The part of the key that people compare.
    pub fingerprint: String,
    /// Where it was reached.
    pub address: SocketAddr,
}

/// Why a waiting node was not let in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// Nobody answers. A node that takes no invitations looks the same.
    #[error(
        "it does not answer ({0}): it takes an invitation only if its weftd.toml says approval = true \
         in [node]; otherwise run `weft join TOKEN` there"
    )]
    Unreachable(String),
    /// Somebody else is there. Nothing was sent.
    #[error(
        "at {address} answers {found}, which is not the node that was announced: it was not let in. \
         If this goes on, somebody poses as that node"
    )]
    AnotherKey {
        /// Where.
        address: SocketAddr,
        /// The fingerprint of the key that was shown.
        found: String,
    },
    /// The node says no.
    #[error("it refused: {0}")]
    Refused(String),
}

/// Invites a node: returns where it was reached, once it has joined.
///
/// `local` is where to connect from, with port 0; `port` is that of this member's gossip.
///
/// # Errors
/// When it is not there, is not the one that was announced, or did not join.
pub async fn invite(
    identity: &Identity,
    node: NodeId,
    addresses: &[SocketAddr],
    token: &Token,
    (local, port): (SocketAddr, u16),
) -> Result<SocketAddr, InviteError> {
    let unreachable = |error: anyhow::Error| InviteError::Unreachable(format!("{error:#}"));
    let (endpoint, client) = client_endpoint(identity, local).map_err(unreachable)?;
    let bound = endpoint.local_addr().map_err(|error| unreachable(error.into()))?;
    let mut dials: FuturesUnordered<_> = addresses
        .iter()
        .map(|&address| {
            let dial = connect_anybody(&endpoint, &client, for_socket(address, bound));
            async move { (address, timeout(DIAL_TIMEOUT, dial).await) }
        })
        .collect();
    let mut failures = Vec::new();
    let mut impostor = None;
    let mut reached = None;
    while let Some((address, dialled)) = dials.next().await {
        match dialled {
            Ok(Ok(connection)) => match peer_key(&connection) {
                Some(key) if key == node => {
                    reached = Some((address, connection));
                    break;
                }
                key => {
                    let found = key
                        .map_or_else(|| "somebody without a key".into(), |key| fingerprint(&key));
                    impostor = Some(InviteError::AnotherKey { address, found });
                    connection.close(Close::Done.code(), b"");
                }
            },
            Ok(Err(error)) => failures.push(format!("{address}: {error:#}")),
            Err(_) => {
                failures.push(format!("{address}: nothing within {} s", DIAL_TIMEOUT.as_secs()));
            }
        }
    }
    drop(dials);
    let outcome = match reached {
        Some((address, connection)) => {
            let handed = hand_over(&connection, token, port).await;
            connection.close(Close::Done.code(), b"");
            handed.map(|()| address)
        }
        None => Err(impostor.unwrap_or_else(|| {
            if failures.is_empty() {
                failures
                    .push("no address is known of it but such as this machine has itself".into());
            }
            InviteError::Unreachable(failures.join("; "))
        })),
    };
    // The close must go out before the endpoint goes away.
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    outcome
}

/// Hands an invitation to a node whose key was checked, and waits until it has joined.
async fn hand_over(connection: &Connection, token: &Token, port: u16) -> Result<(), InviteError> {
    let exchange = async {
        let welcome = async {
            let (send, mut receive) = greet(connection, Greeting::Invite).await?;
            let answer = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
            anyhow::Ok((answer, send, receive))
        };
        let (answer, mut send, mut receive) = timeout(STEP_TIMEOUT, welcome).await??;
        match answer {
            Answer::Welcome => {}
            Answer::Refused(reason) => return Ok(InvitationAnswer::Refused(reason)),
            _ => anyhow::bail!("it answered a question that was not asked"),
        }
        let invitation = Invitation { token: token.to_string(), port };
        wire::write_frame(&mut send, &invitation).await?;
        let _ = send.finish();
        let answer = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX);
        anyhow::Ok(timeout(JOIN_TIMEOUT + STEP_TIMEOUT, answer).await??)
    };
    match exchange.await {
        Ok(InvitationAnswer::Joined) => Ok(()),
        Ok(InvitationAnswer::Refused(reason)) => Err(InviteError::Refused(printable(&reason))),
        Err(error) => Err(InviteError::Refused(format!("it broke off: {error:#}"))),
    }
}

/// A stranger's words in ours.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Invitations that this member has given out and that can still be redeemed. In memory only: who lost one is
/// approved once more.
#[derive(Debug, Default)]
pub struct Invitations {
    given: BTreeMap<TokenId, Given>,
}

#[derive(Debug)]
struct Given {
    node: NodeId,
    secret_hash: [u8; 32],
    until: Instant,
    /// Hands it over. It ends with the invitation.
    task: JoinHandle<()>,
}

impl Invitations {
    /// Whether one more can be given out, to this node.
    ///
    /// # Errors
    /// Says why not.
    pub fn room_for(&mut self, now: Instant, node: &NodeId) -> Result<(), String> {
        self.given.retain(|_, given| given.until > now && !given.task.is_finished());
        if self.given.values().any(|given| given.node == *node) {
            return Err("it is being let in already".into());
        }
        if self.given.len() >= INVITATIONS_MAX {
            return Err(format!(
                "{INVITATIONS_MAX} others are being let in: try again in a moment"
            ));
        }
        Ok(())
    }

    /// Notes an invitation that `task` hands over.
    pub fn give(&mut self, now: Instant, node: NodeId, token: &Token, task: JoinHandle<()>) {
        let until = now + INVITATION_LIFETIME;
        let given = Given { node, secret_hash: token.secret_hash(), until, task };
        self.given.insert(token.id().clone(), given);
    }

    /// Whether this node was invited with this token. Can be true once.
    pub fn redeem(
        &mut self,
        now: Instant,
        node: &NodeId,
        token: &TokenId,
        secret_hash: &[u8; 32],
    ) -> bool {
        let Some(given) = self.given.get_mut(token) else { return false };
        let good = given.node == *node && given.until > now && given.secret_hash == *secret_hash;
        if good {
            // Spent. The node is a member from now on, and is not listed among those that wait any more.
            given.until = now;
        }
        good
    }
}

/// A member has invited this node.
#[derive(Debug)]
pub struct Invited {
    /// The member's key, proved. Whether it is a member of anything shows when this node joins.
    pub by: NodeId,
    /// Where its gossip is.
    pub address: SocketAddr,
    /// To join with.
    pub token: Token,
    /// Gets what came of it; `Err` says why not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// The port for streams of a node that waits to be approved.
pub struct Door {
    endpoint: Endpoint,
    accepting: JoinHandle<()>,
}

impl Door {
    /// Opens it: invitations go to `invited`.
    pub fn open(endpoint: Endpoint, invited: mpsc::Sender<Invited>) -> Self {
        let attempts = Arc::new(Mutex::default());
        let visits = Visits { invited, attempts };
        let accepting = tokio::spawn(accept(endpoint.clone(), visits));
        Self { endpoint, accepting }
    }

    /// Takes no more invitations. One that was taken is still answered.
    pub fn close(self) -> Endpoint {
        self.accepting.abort();
        self.endpoint
    }
}

/// What all visits share.
#[derive(Clone)]
struct Visits {
    invited: mpsc::Sender<Invited>,
    /// The lock is held for a few instructions at a time.
    attempts: Arc<Mutex<Attempts>>,
}

async fn accept(endpoint: Endpoint, visits: Visits) {
    let places = Arc::new(Semaphore::new(VISITORS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let under_way = VISITORS_MAX - places.available_permits();
        if under_way > VISITORS_TRUSTED && !incoming.remote_address_validated() {
            // The client comes again, with a proof of its address.
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(visited(visits.clone(), incoming, place));
    }
}

async fn visited(visits: Visits, incoming: quinn::Incoming, place: OwnedSemaphorePermit) {
    let address = node_address(incoming.remote_address());
    let hello = async {
        let connection = incoming.accept()?.await?;
        let by = peer_key(&connection).ok_or_else(|| anyhow::anyhow!("it showed no key"))?;
        let (send, mut receive) = connection.accept_bi().await?;
        let greeting: Greeting = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
        anyhow::Ok((connection, by, greeting, send, receive))
    };
    let (connection, by, greeting, mut send, mut receive) = match timeout(STEP_TIMEOUT, hello).await
    {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "a visitor went away"),
        Err(_) => return tracing::debug!(%address, "a visitor said nothing"),
    };
    let attempts = || visits.attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let throttled = attempts().is_throttled(address.ip());
    let refusal = match greeting {
        Greeting::Invite if throttled => Some("too many invitations failed: wait a minute"),
        Greeting::Invite => None,
        Greeting::Member(_) | Greeting::Join => {
            Some("this node belongs to no fabric: it waits to be approved")
        }
    };
    if let Some(reason) = refusal {
        refuse(&mut send, &Answer::Refused(reason.into())).await;
        return connection.close(Close::Done.code(), b"");
    }
    let answer = async {
        wire::write_frame(&mut send, &Answer::Welcome).await?;
        let invitation = wire::read_frame(&mut receive, INVITATION_BYTES_MAX);
        let invitation = timeout(STEP_TIMEOUT, invitation).await??;
        anyhow::Ok(take(&visits, by, address, invitation).await)
    };
    match answer.await {
        Ok(Ok(())) => refuse(&mut send, &InvitationAnswer::Joined).await,
        Ok(Err(reason)) => {
            if attempts().failed(address.ip()) {
                tracing::warn!(
                    %address, member = ?by, reason,
                    "not let in by an invitation (further ones from there are not logged for a minute)"
                );
            }
            refuse(&mut send, &InvitationAnswer::Refused(wire::reason(reason))).await;
        }
        Err(error) => {
            attempts().failed(address.ip());
            tracing::debug!(%address, %error, "an invitation could not be read");
        }
    }
    connection.close(Close::Done.code(), b"");
    drop(place);
}

/// Hands an invitation to the agent's loop, and waits for what comes of it.
async fn take(
    visits: &Visits,
    by: NodeId,
    mut address: SocketAddr,
    invitation: Invitation,
) -> Result<(), String> {
    let token = invitation.token.parse::<Token>().map_err(|error| error.to_string())?;
    if invitation.port == 0 || invitation.port == u16::MAX {
        return Err(format!("{} is no port of a member", invitation.port));
    }
    address.set_port(invitation.port);
    let (answer, answered) = oneshot::channel();
    let busy = || "this node is busy or stops: try again".to_owned();
    visits.invited.try_send(Invited { by, address, token, answer }).map_err(|_| busy())?;
    match timeout(JOIN_TIMEOUT, answered).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(busy()),
        Err(_) => Err(format!("it has not joined within {} s", JOIN_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests;
