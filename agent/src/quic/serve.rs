//! The accepting side: strangers until they are welcomed, then streams.

use fabric::id::NodeId;
use fabric::limits::MESSAGE_BYTES_MAX;
use fabric::message::Message;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

use super::permits::{Permit, Verdict};
use super::wire::{self, Answer, Greeting, Standing};
use super::{
    Close, GREETING_TIMEOUT, Incoming, MESSAGE_TIMEOUT, Shared, admit, node_address, peer_key,
    peers, request,
};

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
        Greeting::Member(theirs) => member(&shared, connection, peer, theirs, send).await,
        Greeting::Invite => {
            shared.peers().counters.refused += 1;
            let reason = "this node belongs to a fabric already".to_owned();
            let mut send = send;
            refuse(&mut send, &Answer::Refused(reason)).await;
            connection.close(Close::Done.code(), b"");
        }
        Greeting::Join => {
            let admitted = admit::admit(
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

async fn member(
    shared: &Arc<Shared>,
    connection: Connection,
    peer: NodeId,
    theirs: Standing,
    mut send: SendStream,
) {
    let address = node_address(connection.remote_address());
    let ours = shared.peers().standing(&peer);
    if peer == shared.id && theirs.start != ours.start {
        // It looks whether we are still there. Both know now.
        shared.report(Incoming::Copy { start: theirs.start, address });
        return refuse(&mut send, &Answer::Member(ours)).await;
    }
    let is_member = shared.peers().is_member(&peer) && peer != shared.id;
    if is_member {
        peers::hears_another(shared, ours, theirs);
        let outdated = shared.peers().outdated(&peer, Some(theirs.start));
        if let Some(outdated) = outdated {
            shared.peers().counters.refused += 1;
            shared.report(Incoming::Twin { node: peer, address });
            return refuse(&mut send, &Answer::Outdated(outdated)).await;
        }
        shared.note(&peer, theirs.start, Some(address));
        // Limits go up before the welcome is out, so that the peer need not wait.
        if peers::adopt(shared, peer, connection, theirs.start).is_ok() {
            let _ = wire::write_frame(&mut send, &Answer::Member(ours)).await;
            let _ = send.finish();
        }
        return;
    }
    shared.peers().counters.refused += 1;
    let first = {
        let mut attempts = shared.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.is_worth_a_line(address.ip())
    };
    if first {
        tracing::info!(%address, ?peer, "refused a node that is not in the roster");
    }
    let removal = shared.peers().removal_of(&peer);
    let answer = match removal {
        Some(removal) => Answer::Removed(removal),
        None => Answer::Refused(
            "this key is not in the roster: join with a token, or wait until the roster arrives"
                .to_owned(),
        ),
    };
    refuse(&mut send, &answer).await;
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
                Ok((send, receive)) if shared.peers().is_member(&peer) => {
                    tokio::spawn(request::answer(shared.clone(), peer, send, receive));
                }
                Ok(_) => {}
                Err(_) => break,
            },
        }
    }
    if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason()
        && close.error_code == Close::Outdated.code()
        && let Ok(outdated) = wire::decode(&close.reason)
    {
        shared.superseded(outdated);
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
