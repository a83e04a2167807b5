//! Updates of nodes that start from an image: taken here, or passed to the node that is meant.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::local::{problem_of, problem_response};
use super::{CallAnswer, Driver};
use crate::http::Reply;
use crate::quic::{ApiRequest, ApiResponse};
use crate::upgrade::{self, Inbox, Step};

/// Bytes of another node's answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl Driver {
    /// Takes a step of an update, beside the loop, here or on the node that is meant.
    pub(super) fn upgrade(&self, name: &str, step: Step, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let node = match member.node.find_node(name) {
            Ok(node) => node,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        if node == self.identity.id() {
            let taken = self.take(step);
            tokio::spawn(async move {
                let _ = answer.send(taken.await.map(Reply::Json));
            });
            return;
        }
        let request = match request(node, step) {
            Ok(request) => request,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
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

    /// A step that another member passes on, if this node is meant.
    pub(super) fn peer_upgrade(
        &self,
        from: NodeId,
        name: &str,
        step: Step,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        if name != self.identity.id().to_string() {
            let detail = format!("this is {}: ask the node that is meant", self.name);
            let problem = Problem::new(ProblemKind::NotFound, "another node is meant", detail);
            return drop(answer.send(problem_response(&problem)));
        }
        if let Step::Begin(wanted) = &step {
            tracing::info!(?from, version = wanted.version, install = wanted.install, "an update");
        }
        let taken = self.take(step);
        tokio::spawn(async move {
            let _ = answer.send(match taken.await {
                Ok(json) => ApiResponse::whole(200, "application/json", json),
                Err(problem) => problem_response(&problem),
            });
        });
    }

    fn take(&self, step: Step) -> impl Future<Output = Result<Vec<u8>, Problem>> + use<> {
        let (inbox, executor) = (Inbox::new(&self.config.state), self.executor.clone());
        async move {
            let view = upgrade::take(inbox, executor, step).await?;
            serde_json::to_vec(&view).map_err(|error| unwritten(&error))
        }
    }
}

fn request(node: NodeId, step: Step) -> Result<ApiRequest, Problem> {
    let path = format!("/v1/nodes/{node}/upgrade");
    Ok(match step {
        Step::Look => ApiRequest { method: "GET".into(), path, body: Vec::new() },
        Step::Begin(wanted) => {
            let body = serde_json::to_vec(&wanted).map_err(|error| unwritten(&error))?;
            ApiRequest { method: "POST".into(), path, body }
        }
        Step::Data { offset, bytes } => {
            let path = format!("{path}?offset={offset}");
            ApiRequest { method: "PUT".into(), path, body: bytes }
        }
    })
}

fn unwritten(error: &serde_json::Error) -> Problem {
    let detail = format!("{error}; this is a bug of the agent");
    Problem::new(ProblemKind::Internal, "it has no JSON form", detail)
}
