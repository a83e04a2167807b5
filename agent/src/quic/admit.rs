//! The member's side of joining ([`crate::join`] is the other): how any member lets in a stranger that shows a token.

use fabric::id::NodeId;
use fabric::table::{Entry, TokenId};
use quinn::{Connection, RecvStream, SendStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::attempts::Attempts;
use super::wire::{self, Answer, JoinAnswer, JoinRequest};
use super::{Enrolled, Incoming, refuse};
use crate::identity::Fabric;
use crate::token::secret_hash;

const EXPORTER_LABEL: &[u8] = b"EXPORTER-weft-join";
const SIGNED_CONTEXT: &[u8] = b"weft join 1\0";
/// Bytes of a joiner's host name.
const NAME_BYTES_MAX: usize = 253;
/// Bytes of what a stranger may call a token, or its secret.
const TOKEN_BYTES_MAX: usize = 64;
/// Time for a joiner to show its token once we have proved ourselves: it has it at hand, and holds a place that
/// others may want.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for each step of the other side.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the fabric's key signs to prove that this very connection leads to a member.
pub(crate) fn signed(connection: &Connection) -> anyhow::Result<Vec<u8>> {
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

pub(crate) async fn enrol(
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
