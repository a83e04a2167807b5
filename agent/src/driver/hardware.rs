//! What a node is made of, asked of itself or through any other node.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::local::{problem_of, problem_response};
use super::{CallAnswer, Driver};
use crate::hardware;
use crate::http::Reply;
use crate::quic::{ApiRequest, ApiResponse};
use crate::topology::Sysfs;

/// Bytes of another node's answer: lists of hundreds of devices fit.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Driver {
    /// Tells what a node is made of, beside the loop.
    pub(super) fn hardware(&self, name: &str, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let node = match member.node.find_node(name) {
            Ok(node) => node,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        if node == self.identity.id() {
            tokio::spawn(async move {
                let _ = answer.send(look().await.map(Reply::Json));
            });
            return;
        }
        let path = format!("/v1/nodes/{node}/hardware");
        let request = ApiRequest { method: "GET".into(), path, body: Vec::new() };
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

    /// Tells it another member, if this node is meant. Never passed on twice: two nodes that each believe in the other
    /// would do so for ever.
    pub(super) fn peer_hardware(
        &self,
        from: NodeId,
        name: &str,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        if name != self.identity.id().to_string() {
            let detail = format!("this is {}: ask the node that is meant", self.name);
            let problem = Problem::new(ProblemKind::NotFound, "another node is meant", detail);
            return drop(answer.send(problem_response(&problem)));
        }
        tracing::debug!(?from, "a peer asks what this machine is made of");
        tokio::spawn(async move {
            let _ = answer.send(match look().await {
                Ok(json) => ApiResponse::whole(200, "application/json", json),
                Err(problem) => problem_response(&problem),
            });
        });
    }
}

/// Buses are read on a thread for files: on a large machine that takes a while.
async fn look() -> Result<Vec<u8>, Problem> {
    let looked = tokio::task::spawn_blocking(|| hardware::read(&Sysfs::default()));
    let failed = |error: String| {
        Problem::new(ProblemKind::Internal, "the machine could not be looked at", error)
    };
    let hardware = looked.await.map_err(|error| failed(error.to_string()))?;
    serde_json::to_vec(&hardware).map_err(|error| failed(error.to_string()))
}
