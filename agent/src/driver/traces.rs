//! Traces: of what runs here, and of what runs elsewhere.

use fabric::api::{Problem, ProblemKind, TraceBody};
use fabric::id::{AllocId, NodeId};
use fabric::node::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

use super::peers::{problem_response, stream_response, translate};
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::api::jobs::no_such_job;
use crate::observe::Observer;
use crate::quic::{ApiRequest, ApiResponse};
use crate::trace::{MEDIA, Tracer};
use helper::order::Subject;

impl Driver {
    /// Streams what a job does on one node: this one, or the one that it runs on.
    pub(super) fn trace(&self, wanted: TraceBody, time: Duration, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let (node, allocs) = match source(&member.node, &wanted) {
            Ok(source) => source,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        if node == self.identity.id() {
            let (tracer, observer, name) = (
                self.measuring.tracer.clone(),
                self.measuring.observer.clone(),
                self.measuring.name.clone(),
            );
            tokio::spawn(async move {
                let _ = answer.send(begin(&tracer, &observer, name, &wanted, allocs, time).await);
            });
            return;
        }
        // It is told that itself is meant, since it may see things otherwise.
        let asked = TraceBody { node: Some(node.to_string()), ..wanted };
        let body = serde_json::to_vec(&asked).unwrap_or_default();
        let request = ApiRequest { method: "POST".into(), path: "/v1/traces".into(), body };
        let passing = member.passing(node, self.addresses.links());
        tokio::spawn(async move {
            let reply = match passing.request(request).await {
                Ok(response) => translate(response, MEDIA).await,
                Err(error) => Err(error.into()),
            };
            let _ = answer.send(reply);
        });
    }

    /// The same for another member's agent. Never passed on twice.
    pub(super) fn peer_trace(
        &self,
        from: NodeId,
        wanted: TraceBody,
        time: Duration,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        let Some(member) = &self.member else { return };
        let allocs = match source(&member.node, &wanted) {
            Ok((node, allocs)) if node == self.identity.id() => allocs,
            Ok((node, _)) => {
                let problem = Problem::new(
                    ProblemKind::NotFound,
                    "it runs elsewhere",
                    format!("on {} as seen from {}: try again", node.short(), self.name),
                );
                return drop(answer.send(problem_response(&problem)));
            }
            Err(problem) => return drop(answer.send(problem_response(&problem))),
        };
        tracing::info!(?from, job = %wanted.job, what = wanted.what.name(), "a peer traces");
        let (tracer, observer, name) = (
            self.measuring.tracer.clone(),
            self.measuring.observer.clone(),
            self.measuring.name.clone(),
        );
        tokio::spawn(async move {
            let begun = begin(&tracer, &observer, name, &wanted, allocs, time).await;
            let _ = answer.send(match begun {
                Ok(reply) => stream_response(reply),
                Err(problem) => problem_response(&problem),
            });
        });
    }
}

/// The node that is meant, and the job's allocations on it.
fn source(node: &Node, wanted: &TraceBody) -> Result<(NodeId, Vec<AllocId>), Problem> {
    let job = &wanted.job;
    let on = wanted.node.as_deref().map(|name| node.find_node(name)).transpose()?;
    let running: Vec<_> = node
        .allocs(Some(job), false)
        .into_iter()
        .filter(|view| wanted.slot.is_none_or(|slot| slot == view.id.slot.index))
        .filter(|view| on.is_none_or(|on| on == view.node))
        .collect();
    let nodes: BTreeMap<NodeId, &str> =
        running.iter().map(|view| (view.node, view.node_name.as_str())).collect();
    let mut names: Vec<&str> = nodes.values().copied().collect();
    names.sort_unstable();
    match nodes.keys().collect::<Vec<_>>()[..] {
        [only] => {
            let allocs = running.iter().map(|view| view.id.clone());
            Ok((*only, allocs.collect()))
        }
        [] => {
            if !node.job_names().any(|name| name == job.as_str()) {
                return Err(no_such_job(job, node.job_names()));
            }
            Err(Problem::new(
                ProblemKind::NotFound,
                "nothing of it runs there",
                format!("{job}: `weft ps {job}` shows what runs where"),
            ))
        }
        _ => Err(Problem::new(
            ProblemKind::Invalid,
            "on which node?",
            format!("{job} runs on {}: say one with `node`", names.join(", ")),
        )),
    }
}

async fn begin(
    tracer: &Tracer,
    observer: &Observer,
    node: String,
    wanted: &TraceBody,
    allocs: Vec<AllocId>,
    time: Duration,
) -> Result<Reply, Problem> {
    let mut cgroups = BTreeMap::new();
    for alloc in &allocs {
        let found = observer.cgroups(alloc).await.map_err(|error| {
            Problem::new(ProblemKind::Unavailable, "cgroups are not known", error.to_string())
        })?;
        cgroups.extend(found.into_iter().map(|id| (id.0, alloc.slot.to_string())));
    }
    let looked_at: BTreeSet<&String> = cgroups.values().collect();
    if let Some(without) = allocs.iter().find(|alloc| !looked_at.contains(&alloc.slot.to_string()))
    {
        return Err(Problem::new(
            ProblemKind::Unavailable,
            "no cgroup to look at",
            format!(
                "{without} has none in a cgroup 2 hierarchy, or is not running yet: `weft doctor` on {node} says which"
            ),
        ));
    }
    let subject = Subject { node, what: wanted.what, time, cgroups };
    let stream = tracer.start(wanted.job.clone(), subject).await?;
    Ok(Reply::Stream(MEDIA, stream))
}
