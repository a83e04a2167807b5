//! Updates of nodes that start from an image: taken here, or passed to the node that is meant.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::elsewhere::here;
use super::{CallAnswer, Driver};
use crate::quic::{ApiRequest, ApiResponse};
use crate::upgrade::{self, Inbox, Step};

impl Driver {
    /// Takes a step of an update, beside the loop, here or on the node that is meant.
    pub(super) fn upgrade(&self, name: &str, step: Step, answer: CallAnswer) {
        let Some((node, answer)) = self.meant(name, answer) else { return };
        if node == self.identity.id() {
            return here(self.take(step), answer);
        }
        match request(node, step) {
            Ok(request) => self.there(node, request, answer),
            Err(problem) => drop(answer.send(Err(problem))),
        }
    }

    /// A step that another member passes on, if this node is meant.
    pub(super) fn peer_upgrade(
        &self,
        from: NodeId,
        name: &str,
        step: Step,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        if let Step::Begin(wanted) = &step {
            tracing::info!(?from, version = wanted.version, install = wanted.install, "an update");
        }
        self.for_peer(name, self.take(step), answer);
    }

    fn take(&self, step: Step) -> impl Future<Output = Result<Vec<u8>, Problem>> + use<> {
        let (inbox, executor) = (Inbox::new(&self.config.state), self.work.executor.clone());
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
