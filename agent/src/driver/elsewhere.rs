//! Questions to one node, asked of any: answered here, or passed to the node that is meant.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::local::{problem_of, problem_response};
use super::{CallAnswer, Driver};
use crate::http::Reply;
use crate::quic::{ApiRequest, ApiResponse};

/// Bytes of another node's answer: lists of hundreds of devices fit.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Driver {
    /// The node that `name` means. When there is none, the caller is told so.
    pub(super) fn meant(&self, name: &str, answer: CallAnswer) -> Option<(NodeId, CallAnswer)> {
        match self.member.as_ref()?.node.find_node(name) {
            Ok(node) => Some((node, answer)),
            Err(problem) => {
                drop(answer.send(Err(problem)));
                None
            }
        }
    }

    /// Passes a request on to another node, and its JSON back, beside the loop.
    pub(super) fn there(&self, node: NodeId, request: ApiRequest, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let passing = member.passing(node, &self.local);
        tokio::spawn(async move {
            let reply = match passing.request(request).await {
                Ok(response) if response.status == 200 => {
                    let whole = response.collect(ANSWER_BYTES_MAX).await;
                    whole.map(Reply::Json).map_err(|error| {
                        let detail = format!("{error}: try again");
                        Problem::new(ProblemKind::Unreachable, "the answer broke off", detail)
                    })
                }
                Ok(response) => Err(problem_of(response).await),
                Err(error) => Err(error.into()),
            };
            let _ = answer.send(reply);
        });
    }

    /// Answers another member, beside the loop, if this node is meant. Never passed on twice: two nodes that each
    /// believe in the other would do so for ever.
    pub(super) fn for_peer(
        &self,
        name: &str,
        json: impl Future<Output = Result<Vec<u8>, Problem>> + Send + 'static,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        if name != self.identity.id().to_string() {
            let detail = format!("this is {}: ask the node that is meant", self.name);
            let problem = Problem::new(ProblemKind::NotFound, "another node is meant", detail);
            return drop(answer.send(problem_response(&problem)));
        }
        tokio::spawn(async move {
            let _ = answer.send(match json.await {
                Ok(json) => ApiResponse::whole(200, "application/json", json),
                Err(problem) => problem_response(&problem),
            });
        });
    }
}

/// Answers a caller of this node's own API, beside the loop.
pub(super) fn here(
    json: impl Future<Output = Result<Vec<u8>, Problem>> + Send + 'static,
    answer: CallAnswer,
) {
    tokio::spawn(async move {
        let _ = answer.send(json.await.map(Reply::Json));
    });
}
