//! Questions about what is measured: of this node, and of the whole fabric.

use fabric::api::NodeState;
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::member::Passing;
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::observe::query::{Asked, Scope};
use crate::observe::{Peer, Unanswered, wire};
use crate::quic::{ApiRequest, ApiResponse};
use metrics::answer::{Answer, ErrorType};

/// Something of a node, with its name.
type Named<T> = (String, T);

impl Peer for Passing {
    async fn ask(self, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let (method, path) = (wire::METHOD.to_owned(), wire::PATH.to_owned());
        let response = self.request(ApiRequest { method, path, body }).await;
        let response = response.map_err(|error| error.to_string())?;
        if response.status != 200 {
            return Err(format!("it answers with status {}", response.status));
        }
        response.collect(wire::ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())
    }
}

impl Driver {
    /// Answers a question of Prometheus's API, beside the loop.
    pub(super) fn prometheus(&self, asked: Asked, answer: CallAnswer) {
        let observer = self.measuring.observer.clone();
        let Asked { query, scope, timeout } = asked;
        let (others, absent) = match scope {
            Scope::Fabric => self.others(),
            Scope::Node => {
                tokio::spawn(async move {
                    let _ = answer.send(Ok(reply(observer.alone(query).await)));
                });
                return;
            }
        };
        // What is off is still found, dated by the fabric's time; its own queries and logs are not.
        let clocks = self.member.as_ref().map(|member| member.node.clocks(self.clock.now()));
        let warnings = clocks.map(|clocks| clocks.off.iter().map(ToString::to_string).collect());
        let warnings: Vec<String> = warnings.unwrap_or_default();
        tokio::spawn(async move {
            let answered = observer.gather(query, others, absent, warnings, timeout).await;
            let _ = answer.send(Ok(reply(answered)));
        });
    }

    /// Other members that are alive, and how to ask them; and those that are not, and why they are not asked.
    fn others(&self) -> (Vec<Named<Passing>>, Vec<Named<String>>) {
        let (mut others, mut absent) = (Vec::new(), Vec::new());
        let Some(member) = &self.member else { return (others, absent) };
        for (node, _) in member.node.roster() {
            let name = member.node.name_of(&node);
            match member.node.state_of(&node) {
                _ if node == self.identity.id() => {}
                NodeState::Alive | NodeState::Suspect => {
                    others.push((name, member.passing(node, self.addresses.links())));
                }
                // Whoever left on purpose, or never came, has nothing to say.
                NodeState::Left | NodeState::Unknown => {}
                state => absent.push((name, format!("it is {state}"))),
            }
        }
        (others, absent)
    }

    /// Answers another member's question, beside the loop.
    pub(super) fn peer_question(
        &self,
        from: NodeId,
        body: &[u8],
        answer: oneshot::Sender<ApiResponse>,
    ) {
        tracing::trace!(?from, bytes = body.len(), "a peer asks about series");
        let (observer, body) = (self.measuring.observer.clone(), body.to_owned());
        tokio::spawn(async move {
            let answered = observer.peer(body).await;
            let _ = answer.send(ApiResponse::whole(200, wire::MEDIA, answered));
        });
    }
}

fn reply(answered: Result<Answer, Unanswered>) -> Reply {
    let unanswered = |error: Unanswered| Answer::error(ErrorType::Timeout, error.to_string());
    Reply::prometheus(&answered.unwrap_or_else(unanswered))
}
