//! What callers get to know about this agent itself: status, doctor, counters, logs.

use bytes::Bytes;
use fabric::api::{self, NodeState, Problem, ProblemKind};
use fabric::clock::Now;
use fabric::id::NodeId;
use fabric::node::{Node, Waits};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::provision::Entry;
use super::{CallAnswer, Driver, member};
use crate::api::{AgentVerb, Came, Found, Operation, Peers, Reply, find};
use crate::doctor;
use crate::identity;
use crate::observe::{Unanswered, wire};
use crate::quic::{ApiRequest, ApiResponse};

/// Chunks of an answer that wait for a slow reader.
const CHUNKS_MAX: usize = 4;
/// Bytes of another agent's problem that are read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// This node and its fabric at a glance.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    status: api::Status,
    /// For people to compare.
    fingerprint: String,
    /// Whether the machine has an address that others may reach.
    network: bool,
    /// How it means to get into a fabric, while it is in none.
    entry: Option<Entry>,
}

/// What a node says that was locked out.
const REMOVED: &str = "this node was removed from the fabric and has ended its work: to use it again, stop the agent, empty its \
                       state directory, start it, and join with a new token";

/// What an agent says that is older than its fabric.
const TOO_OLD: &str = "this agent is too old for its fabric and takes no part in it; what runs here runs on: upgrade it";

impl Driver {
    /// This node and its fabric at a glance.
    pub(super) fn status(&mut self, answer: CallAnswer) {
        let mut status = self.own_status();
        let Some(member) = &self.member else {
            return drop(answer.send(Reply::json(&status)));
        };
        let read = move |node: &Node, _: Now| {
            status.status.fabric = Some(node.status());
            Reply::json(&status)
        };
        self.readers.ask(&member.node, self.clock.now(), Box::new(read), answer);
    }

    /// Without its fabric.
    fn own_status(&self) -> Status {
        let status = api::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.identity.id(),
            name: self.name.clone(),
            fabric: None,
            executor: self.executor.name().into(),
            executor_reason: self.executor_reason.clone(),
            addresses: self.advertised(),
            warnings: self.current_warnings(),
        };
        Status {
            status,
            fingerprint: identity::fingerprint(&self.identity.id()),
            network: self.connected,
            entry: self.member.is_none().then(|| self.provision.entry()),
        }
    }

    fn current_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        if let Some(trouble) = &self.discovery_trouble {
            warnings.push(format!("discovery: {trouble}"));
        }
        warnings.extend(self.provision.warnings());
        let Some(member) = &self.member else { return warnings };
        if member.node.is_too_old() {
            warnings.push(TOO_OLD.into());
        }
        warnings.extend(member.node.nearly_full());
        if let Some(reason) = &member.disk {
            warnings.push(format!("no new work is taken, the disk refuses: {reason}"));
        }
        if !member.node.is_member(&self.identity.id()) {
            warnings.push(REMOVED.into());
        }
        match member.node.waits(self.clock.now().at).filter(|_| !member.node.is_removed()) {
            Some(Waits::HeardNobody) => warnings.push(format!(
                "no other member was heard since this agent started: it runs its own work and what it is asked for, and \
                 nothing that the others may run; if they are gone for good, remove them: {}",
                member.node.removal_commands()
            )),
            Some(Waits::NotAllHeard) => warnings.push(format!(
                "not heard since this agent started: {}; their work is placed elsewhere in half a minute, unless they come \
                 back",
                member.node.names_of(&member.node.unheard())
            )),
            Some(Waits::NotCompared | Waits::NoLink) | None => {}
        }
        warnings.extend(member.twin_troubles());
        if !self.connected && member.node.roster().len() > 1 {
            warnings.push(
                "no network: no link of this machine has a cable and an address, or none leads to the other members, \
                 so their silence is its own"
                    .into(),
            );
        }
        warnings.extend(member.node.clocks(self.clock.now()).warnings());
        warnings.extend(doctor::forged(member.node.counters().forged));
        if self.entering.is_some() {
            warnings.push("entering the fabric: waiting for the disk".into());
        }
        warnings
    }

    /// Tells the service manager how it stands, when that changed.
    pub(super) fn tell_status(&mut self) {
        let now = self.clock.now().at;
        let text = match &self.member {
            None => self.provision.entry().way.to_string(),
            Some(member) => {
                let status = self.standing.of(&member.node, now);
                let alive = status.nodes.get(&NodeState::Alive).copied().unwrap_or(0);
                format!(
                    "{}: {alive} nodes alive, {} of {} slots healthy",
                    status.name, status.healthy, status.wanted
                )
            }
        };
        let text = status_line(text, self.connected);
        if text != self.told_status {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&text)]);
            self.told_status = text;
        }
    }

    /// Looks at the machine beside the loop, and judges.
    pub(super) fn doctor(&mut self, answer: CallAnswer) {
        let mut agent = self.facts();
        let (state, observer) = (self.config.state.clone(), self.observer.clone());
        let tracer = self.tracer.clone();
        tokio::spawn(async move {
            agent.observed = observer.report().await;
            if agent.observed != Err(Unanswered::Off) {
                let tried = tracer.attempt().await;
                agent.tried = Some(tried.map_err(|problem| problem.to_string()));
            }
            let looked = tokio::task::spawn_blocking(move || doctor::look(&state)).await;
            let reply = match looked {
                Ok(machine) => Reply::json(&doctor::examine(&machine, &agent)),
                Err(error) => Err(Problem::new(
                    ProblemKind::Internal,
                    "the machine could not be looked at",
                    error.to_string(),
                )),
            };
            let _ = answer.send(reply);
        });
    }

    fn facts(&mut self) -> doctor::Agent {
        let now = self.clock.now();
        let seen = |source| self.found.keys().filter(|(seen, _)| *seen == source).count();
        let mdns = self.config.discovery.mdns.then(|| match &self.discovery_trouble {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(seen(discovery::Source::Mdns)),
        });
        doctor::Agent {
            started: self.started,
            now,
            store: self.member.as_ref().and_then(|member| member.disk.clone()),
            executor: (self.executor.name().into(), self.executor_reason.clone()),
            enforced: self.topology.enforced,
            cgroups: self.executor.has_cgroups(),
            exclusive: self.exclusive_cpus(),
            confines: self.config.resources.confine_system,
            ports: self.topology.ports,
            ports_used: self.topology.ports_used.clone(),
            mdns,
            given: self.provision.warnings(),
            // Asked for beside the loop.
            observed: Err(Unanswered::Off),
            tried: None,
            other_sources: self.config.discovery.domains.len() + self.config.discovery.seeds.len(),
            fabric: self.member.as_ref().map(|member| {
                let status = self.standing.of(&member.node, now.at);
                let seal = member.seal.counters();
                doctor::Membership {
                    in_roster: member.node.is_member(&self.identity.id()),
                    roster: member.node.roster().len(),
                    nodes: status.nodes.clone(),
                    stopped: status.stopped_agents.clone(),
                    local_health: status.local_health,
                    clocks: member.node.clocks(now),
                    forged: member.node.counters().forged,
                    datagrams: (
                        seal.malformed
                            + seal.unknown_key
                            + seal.forged
                            + seal.not_member
                            + seal.outdated,
                        seal.opened,
                    ),
                    twins: member.twin_troubles(),
                    level: (status.level, self.config.node.level(), status.held_back_by.clone()),
                    nearly_full: member.node.nearly_full(),
                    broken_pairs: {
                        let cut = member.node.cut_off_from().into_iter();
                        cut.map(|node| member.node.broken_pair(&node)).collect()
                    },
                }
            }),
        }
    }

    /// Answers another member's agent. Peers ask about series and hardware, read logs, trace what runs here and bring
    /// updates, and nothing else: everything else they know from the table.
    pub(super) fn peer_request(
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

/// What the service manager shows of this agent in one line.
fn status_line(text: String, connected: bool) -> String {
    match connected {
        true => text,
        false => format!("no network: no link has a cable and an address; {text}"),
    }
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

#[cfg(test)]
mod tests;
