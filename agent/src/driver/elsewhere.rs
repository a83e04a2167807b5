//! Questions to one node, asked of any: answered here, or passed to the node that is meant.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::{Semaphore, oneshot};

use super::member::{NOT_PASSED_ON, PASS_ON};
use super::peers::{problem_of, problem_response};
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::quic::{ApiRequest, ApiResponse};

/// Bytes of another node's answer: lists of hundreds of devices fit.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Questions of others that wait here for the answer of the node that they cannot reach.
const PASSED_ON_MAX: usize = 32;
static PASSED_ON: Semaphore = Semaphore::const_new(PASSED_ON_MAX);

impl Driver {
    /// The node that `name` means. When there is none, the caller gets that for an answer.
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
        let passing = member.passing(node, self.addresses.links());
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

    /// Passes a member's question on to another one that it cannot reach, and the answer back. Once: what comes to be
    /// passed on a second time is refused, so there is no loop.
    pub(super) fn pass_on(
        &self,
        from: NodeId,
        rest: &str,
        request: &ApiRequest,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        let Some(member) = &self.member else { return };
        let refuse = |answer: oneshot::Sender<ApiResponse>, detail: String| {
            let problem = Problem::new(ProblemKind::Unreachable, "it was not passed on", detail);
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            let media = "application/problem+json";
            let _ = answer.send(ApiResponse::whole(NOT_PASSED_ON, media, body));
        };
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let node = match member.node.find_node(name) {
            Ok(node) if node != self.identity.id() && !path.starts_with(PASS_ON) => node,
            _ => return refuse(answer, format!("{name} cannot be asked from here")),
        };
        let Ok(permit) = PASSED_ON.try_acquire() else {
            return refuse(answer, format!("{PASSED_ON_MAX} wait here already"));
        };
        tracing::debug!(?from, ?node, path, "passes a question on");
        let passing = member.passing(node, self.addresses.links());
        let (method, body) = (request.method.clone(), request.body.clone());
        let request = ApiRequest { method, path: path.to_owned(), body };
        tokio::spawn(async move {
            let response = passing.straight(request).await;
            drop(permit);
            match response {
                Ok(response) => drop(answer.send(response)),
                Err(error) => refuse(answer, error.to_string()),
            }
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
