//! Requests from one agent's API to another's, so that any node can be asked about all of them.

use bytes::Bytes;
use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::wire::{self, RequestHead, ResponseHead, WireError};
use super::{Incoming, MESSAGE_TIMEOUT, Shared, peers};

/// Bytes of a request's body. A job file with its files fits, as JSON.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of one chunk of an answer; larger ones are split.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Chunks of an answer that wait for whoever reads it; then the other side waits.
const CHUNKS_MAX: usize = 4;
/// Time until status and type are there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);
/// An answer that says nothing for this long says so, or its connection would count as idle.
const STILL_HERE: Duration = Duration::from_secs(8);
/// An answer that says nothing at all for this long has ended.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// In place of a chunk's length: the body is complete. A stream that ends without it broke off.
const COMPLETE: u32 = u32::MAX;
/// In place of a chunk's length: the rest is missing. (A reset would take back what came before, too.)
const BROKEN_OFF: u32 = u32::MAX - 1;

/// What is asked of another agent's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// `GET`.
    pub method: String,
    /// With the query: `/v1/logs?follow=true`.
    pub path: String,
    /// At most [`REQUEST_BYTES_MAX`].
    pub body: Vec<u8>,
}

/// The answer: the same on the side that gives it and on the side that gets it.
#[derive(Debug)]
pub struct ApiResponse {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: String,
    /// The body, piece by piece. Its end is the end of the channel; `Err` means that the rest is missing.
    /// Dropping the receiver ends the request on the other side, where the sender finds its channel
    /// closed.
    pub body: mpsc::Receiver<io::Result<Bytes>>,
}

impl ApiResponse {
    /// An answer that is complete already.
    pub fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let (send, receive) = mpsc::channel(1);
        let body = body.into();
        if !body.is_empty() {
            send.try_send(Ok(body)).expect("the channel is empty");
        }
        Self { status, content_type: content_type.to_owned(), body: receive }
    }

    /// Reads the rest of the body, if it is not longer than `max` bytes.
    ///
    /// # Errors
    /// When it is longer, or its end is missing.
    pub async fn collect(mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.body.recv().await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > max {
                return Err(io::Error::other(format!("the answer is longer than {max} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

/// Why another agent did not answer. It may have done what was asked all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request is too large for any agent.
    #[error("the request has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// No connection, or it broke.
    #[error("{node:?} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        node: NodeId,
        /// In words.
        reason: String,
    },
    /// Connected, but no answer.
    #[error("{0:?} did not answer within {secs} s", secs = ANSWER_TIMEOUT.as_secs())]
    TimedOut(NodeId),
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let kind = match &error {
            RequestError::TooLarge { .. } => ProblemKind::TooLarge,
            RequestError::Unreachable { .. } | RequestError::TimedOut(_) => {
                ProblemKind::Unreachable
            }
        };
        Problem::new(kind, "another node was needed", error.to_string())
    }
}

pub(super) async fn ask(
    shared: &Arc<Shared>,
    to: NodeId,
    addresses: &[SocketAddr],
    request: ApiRequest,
) -> Result<ApiResponse, RequestError> {
    let (bytes, max) = (request.body.len(), REQUEST_BYTES_MAX);
    if bytes > max {
        return Err(RequestError::TooLarge { bytes, max });
    }
    let head = RequestHead { method: request.method, path: request.path, body_bytes: bytes as u32 };
    let (bytes, max) = (wire::encode(&head).len(), wire::FRAME_BYTES_MAX);
    if bytes > max {
        return Err(RequestError::TooLarge { bytes, max });
    }
    let unreachable = |reason: String| RequestError::Unreachable { node: to, reason };
    let mut fresh = false;
    loop {
        let open = if fresh { None } else { shared.peers().connection(&to) };
        let connection = match open {
            Some(connection) => connection,
            None => {
                fresh = true;
                let dialled = peers::dial(shared, to, addresses).await;
                dialled.map_err(|error| unreachable(error.to_string()))?
            }
        };
        let asked = timeout(ANSWER_TIMEOUT, ask_once(&connection, &head, &request.body)).await;
        match asked {
            Ok(Ok(response)) => return Ok(response),
            // The other agent was started anew and knows nothing of this connection.
            Ok(Err(_)) if !fresh && connection.close_reason() == Some(ConnectionError::Reset) => {
                fresh = true;
            }
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(RequestError::TimedOut(to)),
        }
    }
}

async fn ask_once(
    connection: &Connection,
    head: &RequestHead,
    body: &[u8],
) -> Result<ApiResponse, WireError> {
    let ended = |error: ConnectionError| WireError::Ended(error.to_string());
    let (mut send, mut receive) = connection.open_bi().await.map_err(ended)?;
    wire::write_frame(&mut send, head).await?;
    send.write_all(body).await?;
    let _ = send.finish();
    let head: ResponseHead = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
    let (chunks, body) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(read_chunks(receive, chunks));
    Ok(ApiResponse { status: head.status, content_type: head.content_type, body })
}

async fn read_chunks(mut stream: RecvStream, chunks: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let chunk = tokio::select! {
            chunk = timeout(SILENCE_TIMEOUT, read_chunk(&mut stream)) => chunk,
            // Nobody reads any more: the stream is stopped by being dropped.
            () = chunks.closed() => return,
        };
        let chunk = match chunk {
            Ok(Ok(Some(chunk))) if chunk.is_empty() => continue,
            Ok(Ok(Some(chunk))) => Ok(Bytes::from(chunk)),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => Err(io::Error::other(error.to_string())),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the other agent fell silent")),
        };
        let failed = chunk.is_err();
        if chunks.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

/// `None`: the body is complete.
async fn read_chunk(stream: &mut RecvStream) -> Result<Option<Vec<u8>>, WireError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    match u32::from_be_bytes(length) {
        COMPLETE => Ok(None),
        BROKEN_OFF => {
            Err(WireError::Ended("the other agent could not finish its answer".to_owned()))
        }
        bytes => wire::read_body(stream, bytes as usize, CHUNK_BYTES_MAX).await.map(Some),
    }
}

/// Has the agent answer one request of a member.
pub(super) async fn answer(
    shared: Arc<Shared>,
    from: NodeId,
    mut send: SendStream,
    mut receive: RecvStream,
) {
    let read = timeout(MESSAGE_TIMEOUT, async {
        let head: RequestHead = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
        let bytes = head.body_bytes as usize;
        let body = wire::read_body(&mut receive, bytes, REQUEST_BYTES_MAX).await?;
        Ok::<_, WireError>(ApiRequest { method: head.method, path: head.path, body })
    });
    let request = match read.await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            shared.peers().counters.malformed += 1;
            tracing::debug!(?from, %error, "a request could not be read");
            return;
        }
        Err(_) => return,
    };
    shared.peers().heard(&from);
    let mut stopped = std::pin::pin!(send.stopped());
    let (answer, answered) = oneshot::channel();
    let response = async {
        let incoming = Incoming::Request { from, request, answer };
        shared.incoming.send(incoming).await.ok()?;
        answered.await.ok()
    };
    let response = tokio::select! {
        response = response => response.unwrap_or_else(no_answer),
        _ = &mut stopped => return,
    };
    let ApiResponse { status, content_type, mut body } = response;
    let written = async {
        wire::write_frame(&mut send, &ResponseHead { status, content_type }).await?;
        let end = loop {
            tokio::select! {
                chunk = body.recv() => match chunk {
                    Some(Ok(chunk)) => {
                        for piece in chunk.chunks(CHUNK_BYTES_MAX) {
                            wire::write_bytes(&mut send, piece).await?;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(?from, %error, "an answer broke off");
                        break BROKEN_OFF;
                    }
                    None => break COMPLETE,
                },
                () = sleep(STILL_HERE) => wire::write_bytes(&mut send, &[]).await?,
                // The asker has lost interest. `body` is dropped, and whoever fills it finds out.
                _ = &mut stopped => return Ok(()),
            }
        };
        send.write_all(&end.to_be_bytes()).await?;
        let _ = send.finish();
        Ok::<_, WireError>(())
    };
    if let Err(error) = written.await {
        tracing::debug!(?from, %error, "an answer was not taken");
    }
}

fn no_answer() -> ApiResponse {
    let detail = "the agent dropped the request: it is stopping, or this is a bug";
    let problem = Problem::new(ProblemKind::Internal, "no answer", detail);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    ApiResponse::whole(problem.status, "application/problem+json", body)
}
