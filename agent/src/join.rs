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
use fabric::table::Entry;
use ring::signature::{ED25519, UnparsedPublicKey};
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::time::timeout;

use crate::identity::{Fabric, Identity};
use crate::quic::admit::signed;
use crate::quic::wire::{self, Answer, Greeting, JoinAnswer, JoinRequest};
use crate::quic::{Close, client_endpoint, dial_anybody, peer_key};
use crate::token::Token;

/// Bytes of the answer that lets a node in: a roster of the largest fabric.
const ACCEPTED_BYTES_MAX: usize = 8 << 20;
/// Time for a connection. Nobody may listen at an address that discovery found a while ago.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one member to let us in, all in all.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

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

#[cfg(test)]
mod tests;
