//! What agents say on a stream before and around messages: frames of a length (4 bytes, big-endian),
//! the wire version, and postcard.

use fabric::id::FabricKey;
use fabric::message::FIRST_LEVEL;
use quinn::{RecvStream, SendStream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::seal::Start;

/// Bytes of a frame from somebody who is not known yet, and of all small ones.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 10;
/// Bytes of a reason in words; longer ones are cut.
const REASON_BYTES_MAX: usize = 1024;

/// What each of two members says of itself, and knows of the other. Two machines may have one key; then they have
/// two starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The start of the agent that says this.
    pub start: Start,
    /// The greatest start under the other's key that it has heard.
    pub heard: Option<Start>,
}

/// Why somebody with a member's key is not spoken with: another start under that key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outdated {
    /// Which.
    pub by: Start,
    /// Where its agent was heard.
    pub address: Option<SocketAddr>,
    /// For how long it has not been heard, in milliseconds. `None` where only the start is known.
    pub silent_ms: Option<u64>,
}

/// The first thing on a connection: what the client is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Greeting {
    /// To speak as a member.
    Member(Standing),
    /// To be let in with a token.
    Join,
    /// To let in the server, which waits for that; see [`crate::approval`].
    Invite,
}

/// The answer to a greeting. Before it the client sends nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The client may say what it is here for: to an [`Greeting::Invite`].
    Welcome,
    /// It is not, for this reason.
    Refused(String),
    /// To a joiner: this server belongs to the fabric, as the signature over the connection shows.
    Proof {
        /// The fabric's public key.
        fabric: FabricKey,
        /// Ed25519 over the connection's exported key, in halves.
        signature: [[u8; 32]; 2],
    },
    /// The client is a member, and so is this server.
    Member(Standing),
    /// The client has a member's key, and so has somebody whom we listen to.
    Outdated(Outdated),
    /// The client was removed from the fabric: an encoded message that shows it.
    Removed(Vec<u8>),
}

/// The joiner's token, once the server has proved itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    /// Names the token.
    pub token: String,
    /// What makes it one.
    pub secret: Vec<u8>,
    /// The joiner's host name.
    pub name: String,
    /// Up to which level its agent reads.
    pub level: u8,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// Come in.
    Accepted {
        /// The fabric's key pair.
        fabric: Vec<u8>,
        /// The fabric's name.
        name: String,
        /// Encoded entries: the roster and the keyring.
        entries: Vec<Vec<u8>>,
        /// What comes with the token.
        labels: BTreeMap<String, String>,
    },
    /// No, for this reason.
    Refused(String),
}

/// What a member hands to a node that waits to be approved, once that has said [`Answer::Welcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// A token, with its secret.
    pub token: String,
    /// The member's gossip port.
    pub port: u16,
}

/// What came of an [`Invitation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InvitationAnswer {
    /// The node has joined.
    Joined,
    /// It did not, for this reason.
    Refused(String),
}

/// Opens a request to another agent's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestHead {
    /// `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Bytes that follow the head.
    pub body_bytes: u32,
}

/// Opens the answer; chunks follow, each with its length before it, empty ones meaning nothing, and
/// then a mark: complete, or broken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResponseHead {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: String,
}

/// Why nothing could be read from a stream. The stream is of no use after that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Longer than it may be.
    #[error("{bytes} bytes are more than the {max} allowed")]
    TooLong {
        /// How many were announced.
        bytes: usize,
        /// How many may be.
        max: usize,
    },
    /// From before the first release, or of a later level.
    #[error("its first byte is {0:?} and not {FIRST_LEVEL}: upgrade the older of the two agents")]
    Version(Option<u8>),
    /// Not what the version says.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The stream or the connection ended.
    #[error("{0}")]
    Ended(String),
}

impl From<quinn::ReadExactError> for WireError {
    fn from(error: quinn::ReadExactError) -> Self {
        WireError::Ended(error.to_string())
    }
}

impl From<quinn::WriteError> for WireError {
    fn from(error: quinn::WriteError) -> Self {
        WireError::Ended(error.to_string())
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FIRST_LEVEL]).expect("our own types encode")
}

/// Reads untrusted bytes: never panics, never allocates more than the bytes could hold.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&FIRST_LEVEL, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(WireError::Malformed(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(WireError::Malformed(error.to_string())),
        },
        other => Err(WireError::Version(other.map(|(version, _)| *version))),
    }
}

pub(crate) async fn write_frame<T: Serialize>(
    stream: &mut SendStream,
    value: &T,
) -> Result<(), WireError> {
    write_bytes(stream, &encode(value)).await
}

pub(crate) async fn write_bytes(stream: &mut SendStream, bytes: &[u8]) -> Result<(), WireError> {
    stream.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
    Ok(stream.write_all(bytes).await?)
}

pub(crate) async fn read_frame<T: DeserializeOwned>(
    stream: &mut RecvStream,
    max: usize,
) -> Result<T, WireError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    decode(&read_body(stream, u32::from_be_bytes(length) as usize, max).await?)
}

/// Reads `bytes` bytes, if that is not too many. Memory grows with what comes, not with what is claimed.
pub(crate) async fn read_body(
    stream: &mut RecvStream,
    bytes: usize,
    max: usize,
) -> Result<Vec<u8>, WireError> {
    if bytes > max {
        return Err(WireError::TooLong { bytes, max });
    }
    let mut body = Vec::with_capacity(bytes.min(FRAME_BYTES_MAX));
    while body.len() < bytes {
        let chunk = stream.read_chunk(bytes - body.len(), true).await;
        match chunk.map_err(|error| WireError::Ended(error.to_string()))? {
            Some(chunk) => body.extend_from_slice(&chunk.bytes),
            None => return Err(WireError::Ended("the stream ended early".to_owned())),
        }
    }
    Ok(body)
}

/// Cuts a reason to what fits a frame.
pub(crate) fn reason(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests;
