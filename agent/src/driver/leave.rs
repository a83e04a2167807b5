//! A node that leaves its fabric. Another member writes that it is gone: whoever is locked out must not know the key that
//! the others seal with from then on. So the agent asks one, over a stream.

use fabric::api::{NodeState, Problem, ProblemKind};
use fabric::clock::Now;
use fabric::id::NodeId;
use fabric::io::Request;
use std::time::Duration;
use tokio::sync::oneshot;

use super::member::{Asker, Passing};
use super::peers::{problem_of, problem_response};
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::quic::{ApiRequest, ApiResponse, RequestError};

/// Members that are asked, one after the other: what one of them cannot do, others may.
const ASKED_MAX: usize = 5;
/// Whoever is removed loses its streams at once, often before the answer is there. It hears of it within this.
const HEARS_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks whether it has heard.
const LOOK: Duration = Duration::from_millis(100);

impl Driver {
    /// Has another member remove this node, beside the loop.
    pub(super) fn leave(&self, force: bool, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let me = self.identity.id();
        let others: Vec<NodeId> =
            member.node.roster().into_iter().map(|(node, _)| node).filter(|it| *it != me).collect();
        let up = others.iter().filter(|node| member.node.state_of(node) == NodeState::Alive);
        let asked: Vec<(String, Passing)> = up
            .take(ASKED_MAX)
            .map(|node| (member.node.name_of(node), member.passing(*node, self.addresses.links())))
            .collect();
        let problem = match (others.is_empty(), asked.is_empty()) {
            (true, _) => Some(Problem::new(
                ProblemKind::Conflict,
                format!("{} is the last member of its fabric", self.name),
                "nobody would be left: stop its jobs (`weft stop JOB`), stop weftd, and empty its state directory",
            )),
            (_, true) => Some(Problem::new(
                ProblemKind::Unreachable,
                "no other member answers",
                format!(
                    "one of them has to write that {} has left: try again when one is there; if they are gone for good, remove \
                     them with `weft node NAME remove`",
                    self.name
                ),
            )),
            (false, false) => None,
        };
        if let Some(problem) = problem {
            return drop(answer.send(Err(problem)));
        }
        let query = if force { "?force=true" } else { "" };
        let path = format!("/v1/nodes/{me}{query}");
        let request = ApiRequest { method: "DELETE".into(), path, body: Vec::new() };
        let transport = member.transport.clone();
        let has_heard = move || !transport.is_member(&me);
        tokio::spawn(async move {
            let _ = answer.send(ask_one_of(asked, &request, has_heard).await);
        });
    }

    /// Removes a member that asks for it itself. Nobody else is removed over a stream.
    pub(super) fn peer_leaves(
        &mut self,
        now: Now,
        from: NodeId,
        request: &ApiRequest,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let new_key = self.random();
        let Some(member) = &mut self.member else { return };
        if path != format!("/v1/nodes/{from}") {
            let detail =
                "a member may ask to be removed itself: ask this node's own API for all else";
            let problem = Problem::new(ProblemKind::Forbidden, "not for peers", detail);
            return drop(answer.send(problem_response(&problem)));
        }
        let new_key = match new_key {
            Ok(new_key) => new_key,
            Err(problem) => return drop(answer.send(problem_response(&problem))),
        };
        let wish = Some(format!("{} leaves the fabric", member.node.name_of(&from)));
        let (asker, decided) = oneshot::channel();
        let remove = Request::Remove { node: from, new_key, force: query == "force=true" };
        member.ask(now, remove, Asker::Caller(asker, wish));
        tokio::spawn(async move {
            let response = match decided.await {
                Ok(Ok(_)) => ApiResponse::whole(204, "text/plain", ""),
                Ok(Err(problem)) => problem_response(&problem),
                Err(_) => return,
            };
            let _ = answer.send(response);
        });
    }
}

/// Asks one after the other until one has done it, or has a reason not to that the others would have, too.
async fn ask_one_of(
    asked: Vec<(String, Passing)>,
    request: &ApiRequest,
    has_heard: impl Fn() -> bool,
) -> Result<Reply, Problem> {
    let mut refusals = Vec::new();
    for (name, passing) in asked {
        let problem = match passing.straight(request.clone()).await {
            Ok(response) if matches!(response.status, 200 | 204) => return Ok(Reply::Done),
            Ok(response) => problem_of(response).await,
            Err(error @ RequestError::TooLarge { .. }) => return Err(error.into()),
            // It may have been done: then this node hears that it was removed.
            Err(error) => {
                let looks = HEARS_WITHIN.as_millis() / LOOK.as_millis();
                for _ in 0..looks {
                    if has_heard() {
                        return Ok(Reply::Done);
                    }
                    tokio::time::sleep(LOOK).await;
                }
                error.into()
            }
        };
        match problem.kind {
            ProblemKind::Forbidden => {
                refusals.push(format!("the agent of {name} is too old for that"))
            }
            ProblemKind::Conflict => return Err(problem),
            _ => refusals.push(format!("{name}: {problem}")),
        }
    }
    let detail =
        format!("{}; on one of them, `weft node NAME remove` does it", refusals.join("; "));
    Err(Problem::new(ProblemKind::Unreachable, "no other member has removed this node", detail))
}
