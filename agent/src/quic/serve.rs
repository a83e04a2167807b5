//! The accepting side: strangers until they are welcomed, then streams.

use fabric::id::NodeId;
use fabric::limits::MESSAGE_BYTES_MAX;
use fabric::message::Message;
use quinn::{Connection, RecvStream, SendStream};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

use super::permits::{Permit, Verdict};
use super::wire::{self, Answer, Greeting};
use super::{
    Close, GREETING_TIMEOUT, Incoming, MESSAGE_TIMEOUT, Shared, node_address, peer_key, peers,
    request,
};
use crate::join;

/// Time for a refusal to arrive before the connection is closed.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let from = node_address(incoming.remote_address());
        let verdict = shared.permits.counts().judge(from, incoming.remote_address_validated());
        let source = match verdict {
            Verdict::Admit(source) => source,
            Verdict::Validate => {
                // The client comes again, with a proof of its address.
                let _ = incoming.retry();
                continue;
            }
            Verdict::Refuse => {
                shared.peers().counters.refused += 1;
                incoming.refuse();
                continue;
            }
        };
        let permit = Permit::new(shared.permits.clone(), source);
        tokio::spawn(greeted(shared.clone(), incoming, permit));
    }
}

async fn greeted(shared: Arc<Shared>, incoming: quinn::Incoming, permit: Permit) {
    let address = incoming.remote_address();
    let hello = async {
        let connection = incoming.accept()?.await?;
        let peer = peer_key(&connection).ok_or_else(|| anyhow::anyhow!("it showed no key"))?;
        let (send, mut receive) = connection.accept_bi().await?;
        let greeting: Greeting = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?;
        anyhow::Ok((connection, peer, (greeting, send, receive)))
    };
    let hello = timeout(GREETING_TIMEOUT, hello).await;
    let (connection, peer, (greeting, send, receive)) = match hello {
        Ok(Ok(hello)) => hello,
        other => {
            let error = other.map(Result::err);
            tracing::debug!(%address, ?error, "a connection ended before its greeting");
            shared.peers().counters.malformed += 1;
            return;
        }
    };
    match greeting {
        Greeting::Member => member(&shared, connection, peer, send).await,
        Greeting::Invite => {
            shared.peers().counters.refused += 1;
            let reason = "this node belongs to a fabric already".to_owned();
            let mut send = send;
            refuse(&mut send, &Answer::Refused(reason)).await;
            connection.close(Close::Done.code(), b"");
        }
        Greeting::Join => {
            let admitted = join::admit(
                &shared.fabric,
                &shared.incoming,
                &shared.attempts,
                &connection,
                peer,
                (send, receive),
            );
            if !admitted.await {
                shared.peers().counters.refused += 1;
            }
            connection.close(Close::Done.code(), b"");
        }
    }
    drop(permit);
}

async fn member(shared: &Arc<Shared>, connection: Connection, peer: NodeId, mut send: SendStream) {
    let is_member = shared.peers().is_member(&peer) && peer != shared.id;
    if is_member {
        // Limits go up before the welcome is out, so that the peer need not wait.
        if peers::adopt(shared, peer, connection).is_ok() {
            let _ = wire::write_frame(&mut send, &Answer::Welcome).await;
            let _ = send.finish();
        }
        return;
    }
    shared.peers().counters.refused += 1;
    let address = node_address(connection.remote_address());
    let first = {
        let mut attempts = shared.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.is_worth_a_line(address.ip())
    };
    if first {
        tracing::info!(%address, ?peer, "refused a node that is not in the roster");
    }
    let reason =
        "this key is not in the roster: join with a token, or wait until the roster arrives";
    refuse(&mut send, &Answer::Refused(reason.to_owned())).await;
    connection.close(Close::NotMember.code(), b"not a member");
}

/// Says no, and waits a moment for it to arrive.
pub(crate) async fn refuse<T: serde::Serialize>(send: &mut SendStream, refusal: &T) {
    let told = async {
        if wire::write_frame(send, refusal).await.is_ok() && send.finish().is_ok() {
            let _ = send.stopped().await;
        }
    };
    let _ = timeout(REFUSAL_TIMEOUT, told).await;
}

/// Takes the streams of a welcomed connection until it ends.
pub(super) async fn streams(shared: Arc<Shared>, peer: NodeId, connection: Connection) {
    // That of the handshake, which went there and back. Later packets may come from elsewhere, and until
    // such a path is validated (RFC 9000, 9.3.3) anybody may have brought them.
    let address = node_address(connection.remote_address());
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    tokio::spawn(message(shared.clone(), peer, address, stream));
                }
                Err(_) => break,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    tokio::spawn(request::answer(shared.clone(), peer, send, receive));
                }
                Err(_) => break,
            },
        }
    }
    shared.peers().ended(&peer, &connection);
}

async fn message(
    shared: Arc<Shared>,
    from: NodeId,
    address: std::net::SocketAddr,
    mut stream: RecvStream,
) {
    let read = timeout(MESSAGE_TIMEOUT, stream.read_to_end(MESSAGE_BYTES_MAX)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(quinn::ReadToEndError::TooLong)) => {
            shared.peers().counters.malformed += 1;
            tracing::debug!(?from, "a message was too long");
            return;
        }
        // Its connection ended, or it stalled: as if it had never been sent.
        Ok(Err(_)) | Err(_) => return,
    };
    match Message::decode(&bytes) {
        Ok(message) => {
            {
                let mut peers = shared.peers();
                // It may have been removed while the message was on its way.
                if !peers.is_member(&from) {
                    return;
                }
                peers.counters.received += 1;
                peers.heard(&from);
            }
            let _ = shared.incoming.send(Incoming::Message { from, address, message }).await;
        }
        Err(error) => {
            shared.peers().counters.malformed += 1;
            tracing::debug!(?from, %error, "a message could not be read");
        }
    }
}
