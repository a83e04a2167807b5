//! What a node is made of, asked of itself or through any other node.

use fabric::api::{Problem, ProblemKind};
use fabric::id::NodeId;
use tokio::sync::oneshot;

use super::elsewhere::here;
use super::{CallAnswer, Driver};
use crate::hardware;
use crate::quic::{ApiRequest, ApiResponse};
use crate::topology::Sysfs;

impl Driver {
    /// Tells what a node is made of, beside the loop.
    pub(super) fn hardware(&self, name: &str, answer: CallAnswer) {
        let Some((node, answer)) = self.meant(name, answer) else { return };
        if node == self.identity.id() {
            return here(look(), answer);
        }
        let path = format!("/v1/nodes/{node}/hardware");
        self.there(node, ApiRequest { method: "GET".into(), path, body: Vec::new() }, answer);
    }

    /// Tells it another member, if this node is meant.
    pub(super) fn peer_hardware(
        &self,
        from: NodeId,
        name: &str,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        tracing::debug!(?from, name, "a peer asks what a machine is made of");
        self.for_peer(name, look(), answer);
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
