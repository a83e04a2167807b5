//! Other members' agents: what they say and ask over streams, and their answers as ours.

use bytes::Bytes;
use fabric::api::{Problem, ProblemKind};
use fabric::clock::Now;
use fabric::id::NodeId;
use fabric::io::{Input, Request};
use tokio::sync::{mpsc, oneshot};

use super::{Driver, member, twins};
use crate::api::{AgentVerb, Came, Found, Operation, Peers, Reply, find};
use crate::observe::wire;
use crate::quic::{ApiRequest, ApiResponse, Incoming};

/// Chunks of an answer that wait for a slow reader.
const CHUNKS_MAX: usize = 4;
/// Bytes of another agent's problem that are read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

impl Driver {
    /// A member, or somebody who shows a token, says something.
    pub(super) fn incoming(&mut self, now: Now, incoming: Incoming) {
        match incoming {
            Incoming::Message { from, address, message } => {
                let Some(member) = &mut self.member else { return };
                if member.twins.is_superseded() {
                    return;
                }
                member.heard(now, from, address);
                member.node.handle(now, Input::Message { from, message });
            }
            Incoming::Enrol { node, name, level, token, secret_hash, answer } => {
                let enrol = Request::Enrol { node, name, level, token, secret_hash };
                self.enrol(now, enrol, answer);
            }
            Incoming::Superseded { by, address, silent } => self.superseded(by, address, silent),
            Incoming::Twin { node, address } => self.saw_twin(node, address),
            Incoming::Copy { start, address } => self.saw_copy(start, address),
            Incoming::Request { request, answer, .. } if request.path == twins::PATH => {
                let _ = answer.send(self.told_of_copy(&request.body));
            }
            Incoming::Request { from, request, answer } if request.method == "DELETE" => {
                self.peer_leaves(now, from, &request, answer);
            }
            Incoming::Request { from, request, answer } => {
                self.peer_request(from, &request, answer);
            }
        }
    }

    /// Answers another member's agent. What it may ask beside series is a column of the
    /// table of routes: everything else it knows from the table of the fabric.
    fn peer_request(
        &self,
        from: NodeId,
        request: &ApiRequest,
        answer: oneshot::Sender<ApiResponse>,
    ) {
        if self.member.is_none() {
            return;
        }
        if let Some(rest) = request.path.strip_prefix(member::PASS_ON) {
            return self.pass_on(from, rest, request, answer);
        }
        if (request.method.as_str(), request.path.as_str()) == (wire::METHOD, wire::PATH) {
            return self.peer_question(from, &request.body, answer);
        }
        let (path, parameters) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let operation = match find(&request.method, path) {
            Found::Route(route, _) if route.peers == Peers::Refused => Err(not_for_peers()),
            Found::Route(route, name) => route.read(&Came {
                name: name.as_deref(),
                query: parameters,
                body: &request.body,
                ..Came::default()
            }),
            _ => Err(Problem::new(ProblemKind::NotFound, "no such path", "peers ask for logs")),
        };
        match operation {
            Ok(Operation::Agent(AgentVerb::Logs(query))) => self.peer_logs(from, query, answer),
            Ok(Operation::Agent(AgentVerb::Trace { wanted, time })) => {
                self.peer_trace(from, *wanted, time, answer);
            }
            Ok(Operation::Agent(AgentVerb::Hardware(name))) => {
                self.peer_hardware(from, &name, answer);
            }
            Ok(Operation::Agent(AgentVerb::Upgrade { node, step })) => {
                self.peer_upgrade(from, &node, step, answer);
            }
            Ok(_) => drop(answer.send(problem_response(&not_for_peers()))),
            Err(problem) => drop(answer.send(problem_response(&problem))),
        }
    }
}

fn not_for_peers() -> Problem {
    Problem::new(ProblemKind::Forbidden, "not for peers", "ask this node's own API")
}

/// Another agent's answer as ours.
pub(super) async fn translate(
    response: ApiResponse,
    media: &'static str,
) -> Result<Reply, Problem> {
    if response.status == 200 {
        let mut body = response.body;
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(async move {
            loop {
                let chunk = tokio::select! {
                    chunk = body.recv() => chunk,
                    () = chunks.closed() => return,
                };
                let bytes = match chunk {
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) => {
                        let note = format!("\nweft: the log broke off: {error}\n");
                        let _ = chunks.send(Bytes::from(note)).await;
                        return;
                    }
                    None => return,
                };
                if chunks.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        return Ok(Reply::Stream(media, receiver));
    }
    Err(problem_of(response).await)
}

/// What another agent says is wrong.
pub(super) async fn problem_of(response: ApiResponse) -> Problem {
    let status = response.status;
    let body = response.collect(PROBLEM_BYTES_MAX).await.unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_else(|_| {
        Problem::new(
            ProblemKind::Unreachable,
            "another node answered with nonsense",
            format!("status {status}: is its agent of another version?"),
        )
    })
}

pub(super) fn stream_response(reply: Reply) -> ApiResponse {
    let Reply::Stream(media, mut chunks) = reply else {
        let problem =
            Problem::new(ProblemKind::Internal, "no stream", "this is a bug of the agent");
        return problem_response(&problem);
    };
    let (sender, body) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = sender.closed() => return,
            };
            let Some(chunk) = chunk else { return };
            if sender.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    });
    ApiResponse { status: 200, content_type: media.into(), body }
}

pub(super) fn problem_response(problem: &Problem) -> ApiResponse {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    ApiResponse::whole(problem.status, "application/problem+json", body)
}
