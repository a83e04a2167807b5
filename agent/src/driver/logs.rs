//! Logs: which allocation is meant, where it is, and what it printed.

use bytes::Bytes;
use fabric::api::{Problem, ProblemKind};
use fabric::id::{AllocId, NodeId, SlotId};
use fabric::node::Node;
use std::fmt::{self, Write};
use tokio::sync::{mpsc, oneshot};

use super::peers::{problem_response, stream_response, translate};
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::api::jobs::no_such_job;
use crate::api::logs::{LogOf, LogQuery, LogStream};
use crate::executor::{self, Executor};
use crate::quic::{ApiRequest, ApiResponse};

/// Media type of logs.
const TEXT: &str = "text/plain; charset=utf-8";
/// Chunks of a log that wait for a slow reader.
const CHUNKS_MAX: usize = 4;

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The node that has it.
    pub node: NodeId,
    /// Of which allocation.
    pub which: Which,
}

/// Of which allocation a log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// This one.
    This(AllocId),
    /// The last one of a slot before this one that the node still has.
    Before(SlotId, Option<AllocId>),
    /// The one of a slot that has this epoch.
    Epoch(SlotId, u64),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::This(alloc) => write!(f, "{alloc}"),
            Which::Before(slot, Some(alloc)) => {
                write!(f, "an allocation of {slot} before {alloc}")
            }
            Which::Before(slot, None) => write!(f, "an earlier allocation of {slot}"),
            Which::Epoch(slot, epoch) => write!(f, "{slot}@{epoch}"),
        }
    }
}

impl Driver {
    /// Streams what a slot's allocation prints, from this node or from the one it runs on.
    pub(super) fn logs(&self, query: LogQuery, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let Source { node, which } = match source(&member.node, &query) {
            Ok(source) => source,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        if node == self.identity.id() {
            let executor = self.work.executor.clone();
            tokio::spawn(async move {
                let _ = answer.send(read(&executor, which, &query).await);
            });
            return;
        }
        let request =
            ApiRequest { method: "GET".into(), path: log_path(&query, node), body: Vec::new() };
        let passing = member.passing(node, self.addresses.links());
        tokio::spawn(async move {
            let reply = match passing.request(request).await {
                Ok(response) => translate(response, TEXT).await,
                Err(error) => Err(error.into()),
            };
            let _ = answer.send(reply);
        });
    }

    /// The same for another member's agent. Never passed on twice: two nodes that each believe in the other would do so
    /// for ever.
    pub(super) fn peer_logs(
        &self,
        from: NodeId,
        query: LogQuery,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        let Some(member) = &self.member else { return };
        let which = match source(&member.node, &query) {
            Ok(Source { node, which }) if node == self.identity.id() => which,
            Ok(Source { node, which }) => {
                let node = node.short();
                let problem = Problem::new(
                    ProblemKind::NotFound,
                    "it runs elsewhere",
                    format!("{which} is on {node} as seen from {}: try again", self.name),
                );
                return drop(answer.send(problem_response(&problem)));
            }
            Err(problem) => return drop(answer.send(problem_response(&problem))),
        };
        tracing::debug!(?from, %which, "a peer reads a log");
        let executor = self.work.executor.clone();
        tokio::spawn(async move {
            let response = match read(&executor, which, &query).await {
                Ok(reply) => stream_response(reply),
                Err(problem) => problem_response(&problem),
            };
            let _ = answer.send(response);
        });
    }
}

/// The log that is meant: unless an earlier one is asked for, that of the newest allocation that runs, else of the newest one.
pub(super) fn source(node: &Node, query: &LogQuery) -> Result<Source, Problem> {
    let allocs = node.allocs(Some(&query.job), true);
    let wanted = query.node.as_deref().map(|name| node.find_node(name)).transpose()?;
    let of_slot = || {
        allocs
            .iter()
            .filter(|view| view.id.slot.index == query.slot)
            .filter(|view| wanted.is_none_or(|wanted| wanted == view.node))
    };
    let newest = of_slot().max_by_key(|view| (view.row.phase.is_live(), view.id.epoch));
    let slot = SlotId { job: query.job.clone(), index: query.slot };
    let failed = node.job(&query.job).ok().and_then(|job| job.failed);
    let failed = failed.filter(|failed| {
        failed.alloc.slot == slot && wanted.is_none_or(|wanted| wanted == failed.node)
    });
    let this = |node, alloc: &AllocId| Source { node, which: Which::This(alloc.clone()) };
    // Only the node that has it knows of allocations that are in no table any more.
    let there = newest.map(|view| view.node).or(wanted);
    let found = match query.of {
        LogOf::Newest => newest.map(|view| this(view.node, &view.id)),
        LogOf::Previous => {
            let ran = of_slot().filter(|view| view.row.ran);
            let before = ran.filter(|view| newest.is_some_and(|newest| view.id != newest.id));
            let before = before.max_by_key(|view| view.id.epoch);
            let known = failed.map(|failed| this(failed.node, &failed.alloc));
            known.or_else(|| before.map(|view| this(view.node, &view.id))).or_else(|| {
                let which = Which::Before(slot, newest.map(|view| view.id.clone()));
                Some(Source { node: there?, which })
            })
        }
        LogOf::Epoch(epoch) => {
            let known = of_slot().find(|view| view.id.epoch == epoch);
            let known = known.map(|view| this(view.node, &view.id));
            let failed = failed.filter(|failed| failed.alloc.epoch == epoch);
            known
                .or_else(|| failed.map(|failed| this(failed.node, &failed.alloc)))
                .or_else(|| Some(Source { node: there?, which: Which::Epoch(slot, epoch) }))
        }
    };
    if let Some(source) = found {
        return Ok(source);
    }
    match node.job(&query.job) {
        Err(_) => Err(no_such_job(&query.job, node.job_names())),
        Ok(view) => Err(Problem::new(
            ProblemKind::NotFound,
            "nothing runs there yet",
            format!(
                "slot {} of {} has no allocation ({} wanted): `weft explain {}` says more",
                query.slot, query.job, view.wanted, query.job
            ),
        )),
    }
}

/// The log of an allocation of this node.
pub(super) async fn read(
    executor: &Executor,
    which: Which,
    query: &LogQuery,
) -> Result<Reply, Problem> {
    let no_log = |detail: String| Problem::new(ProblemKind::NotFound, "no log", detail);
    let alloc = match &which {
        Which::This(alloc) => Some(alloc.clone()),
        Which::Before(slot, before) => {
            let kept = executor.kept_logs(slot).await;
            kept.into_iter().find(|alloc| Some(alloc) != before.as_ref())
        }
        Which::Epoch(slot, epoch) => {
            executor.kept_logs(slot).await.into_iter().find(|alloc| alloc.epoch == *epoch)
        }
    };
    let Some(alloc) = alloc else {
        return Err(no_log(format!(
            "this node has none of {which}: it keeps those of the last {} that ended of a job; another node may have one: --node",
            executor::ENDED_OF_JOB_MAX
        )));
    };
    let wanted = executor::LogQuery {
        tail: Some(query.tail),
        follow: query.follow,
        channel: match query.stream {
            LogStream::Stdout => Some(executor::Channel::Stdout),
            LogStream::Stderr => Some(executor::Channel::Stderr),
            LogStream::Both => None,
        },
    };
    let mut log = executor.logs(&alloc, wanted).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            no_log(format!("{alloc} never ran, or so long ago that its log is gone"))
        } else {
            Problem::new(ProblemKind::Internal, "the log cannot be read", error.to_string())
        }
    })?;
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = log.next() => chunk,
                () = chunks.closed() => return,
            };
            match chunk {
                Some(Ok(chunk)) => {
                    if chunks.send(chunk.bytes).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let note = format!("\nweft: the log broke off: {error}\n");
                    let _ = chunks.send(Bytes::from(note)).await;
                    return;
                }
                None => return,
            }
        }
    });
    Ok(Reply::Stream(TEXT, receiver))
}

/// The question that `node` is asked. It names the node, which may itself see the slot elsewhere.
fn log_path(query: &LogQuery, node: NodeId) -> String {
    let stream = match query.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Both => "both",
    };
    let mut path = format!("/v1/jobs/{}/logs?slot={}&node={node}", query.job, query.slot);
    // Writing to a String cannot fail.
    let _ = write!(path, "&tail={}&follow={}&stream={stream}", query.tail, query.follow);
    let _ = match query.of {
        LogOf::Newest => Ok(()),
        LogOf::Previous => write!(path, "&previous=true"),
        LogOf::Epoch(epoch) => write!(path, "&epoch={epoch}"),
    };
    path
}
