//! What a node is made of, asked of itself or through any other node.

use fabric::api::Problem;
use fabric::id::NodeId;
use helper::order::Verb;
use tokio::sync::oneshot;

use super::elsewhere::here;
use super::{CallAnswer, Driver};
use crate::helpers::Helpers;
use crate::quic::{ApiRequest, ApiResponse};

impl Driver {
    /// Tells what a node is made of, beside the loop.
    pub(super) fn hardware(&self, name: &str, answer: CallAnswer) {
        let Some((node, answer)) = self.meant(name, answer) else { return };
        if node == self.identity.id() {
            return here(look(self.work.helpers.clone()), answer);
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
        self.for_peer(name, look(self.work.helpers.clone()), answer);
    }
}

/// A helper reads the buses: on a large machine that takes a while, and what hardware says of itself is nobody's word.
async fn look(helpers: Helpers) -> Result<Vec<u8>, Problem> {
    helpers.ask(Verb::Hardware).await?.only().await
}
