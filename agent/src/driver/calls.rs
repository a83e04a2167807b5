//! Calls of the API: each is read, wished for, or carried out by the agent itself; see [`crate::api`].

use anyhow::Context;
use fabric::api::{Problem, ProblemKind, TokenCreated};
use fabric::clock::{Now, WallTime};
use fabric::io::Request;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::member::Asker;
use super::{CallAnswer, Driver, journal, random_failed};
use crate::api::{AgentVerb, Call, Operation, Reply, Wish};
use crate::config::Config;
use crate::http;
use crate::token::Token;

/// Calls that wait for the loop; callers wait for a place.
const CALLS_MAX: usize = 64;

/// Listens for callers: on the Unix socket, and where the configuration says so for those who scrape.
///
/// # Errors
/// When the socket or the port cannot be bound.
pub(super) async fn listen(config: &Config) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = http::bind(&config.api.socket, &config.api.group)
        .await
        .with_context(|| format!("the API's socket {}", config.api.socket.display()))?;
    let (calls, received) = mpsc::channel(CALLS_MAX);
    if let Some(address) = config.metrics.listen() {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("metrics.listen = {address}"))?;
        tracing::info!(%address, "what is measured is told here, to everybody");
        tokio::spawn(http::serve_readers(listener, calls.clone()));
    }
    tokio::spawn(http::serve(listener, calls));
    Ok(received)
}

impl Driver {
    /// Has a call answered.
    pub(super) fn call(&mut self, now: Now, call: Call) {
        self.measuring.counts.calls += 1;
        let Call { operation, by, answer } = call;
        let by = format!("{by}@{}", self.name);
        match (operation, &self.member) {
            (Operation::Known(reply), _) => drop(answer.send(Ok(reply))),
            (Operation::Agent(verb), _) => self.agent(now, verb, &by, answer),
            (Operation::Read(_) | Operation::Wish(_), None) => {
                drop(answer.send(Err(no_fabric_yet())));
            }
            (Operation::Read(read), Some(member)) => {
                self.readers.ask(&member.node, now, read, answer);
            }
            (Operation::Wish(wish), Some(_)) => self.wish(now, wish, &by, answer),
        }
    }

    /// Asks the core.
    fn wish(&mut self, now: Now, wish: Wish, by: &str, answer: CallAnswer) {
        let Some(member) = &mut self.member else { return };
        let request = match wish(&member.node, by) {
            Ok(request) => request,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        if self.entrance.entering.is_some() {
            return drop(answer.send(Err(Problem::new(
                ProblemKind::Unavailable,
                "this node is entering its fabric",
                "it waits for its disk: try again in a moment",
            ))));
        }
        let wish = journal::wish(by, &request, &member.node);
        member.ask(now, request, Asker::Caller(answer, wish));
    }

    /// What the agent carries out itself: first what it can without a fabric.
    fn agent(&mut self, now: Now, verb: AgentVerb, by: &str, answer: CallAnswer) {
        match verb {
            AgentVerb::Init(init) => self.init(&init, answer),
            AgentVerb::Join(join) => self.join(&join, answer),
            AgentVerb::Status => self.status(answer),
            AgentVerb::Doctor => self.doctor(answer),
            AgentVerb::Metrics(format) => {
                let (samples, observer) = (self.counters(), self.measuring.observer.clone());
                tokio::spawn(async move {
                    let text = observer.exposition(samples, format).await;
                    let _ = answer.send(Ok(Reply::Text(format.content_type(), text.into())));
                });
            }
            AgentVerb::Prometheus(asked) => self.prometheus(*asked, answer),
            AgentVerb::Healthz => drop(answer.send(Ok(Reply::plain("ok\n")))),
            AgentVerb::Events { follow } => {
                let events = self.events.stream(follow);
                drop(answer.send(Ok(Reply::Stream("text/event-stream", events))));
            }
            _ if self.member.is_none() => drop(answer.send(Err(no_fabric_yet()))),
            AgentVerb::Readyz => drop(answer.send(Ok(Reply::plain("ready\n")))),
            AgentVerb::Waiting => drop(answer.send(Reply::json(&self.sightings.waiting()))),
            AgentVerb::WaitingNode(name) => {
                let one = self.sightings.waiting_node(&name);
                drop(answer.send(one.and_then(|one| Reply::json(&one))));
            }
            AgentVerb::Approve(name) => self.approve(now, &name, by, answer),
            AgentVerb::Logs(query) => self.logs(query, answer),
            AgentVerb::Trace { wanted, time } => self.trace(*wanted, time, answer),
            AgentVerb::Hardware(node) => self.hardware(&node, answer),
            AgentVerb::Upgrade { node, step } => self.upgrade(&node, step, answer),
            AgentVerb::RemoveNode { node, force } => self.remove_node(now, &node, force, answer),
            AgentVerb::CreateToken { lifetime, labels } => {
                self.create_token(now, lifetime, labels, answer);
            }
        }
    }

    fn remove_node(&mut self, now: Now, name: &str, force: bool, answer: CallAnswer) {
        let (new_key, me) = (self.random(), self.identity.id());
        let Some(member) = &mut self.member else { return };
        let meant = member.node.find_node(name);
        if meant.as_ref() == Ok(&me) {
            return self.leave(force, answer);
        }
        let request = meant.and_then(|node| Ok(Request::Remove { node, new_key: new_key?, force }));
        match request {
            Ok(request) => member.ask(now, request, Asker::Caller(answer, None)),
            Err(problem) => drop(answer.send(Err(problem))),
        }
    }

    fn create_token(
        &mut self,
        now: Now,
        lifetime: Duration,
        labels: BTreeMap<String, String>,
        answer: CallAnswer,
    ) {
        let Some(member) = &mut self.member else { return };
        let token = match Token::generate(&member.fabric.key()) {
            Ok(token) => token,
            Err(error) => return drop(answer.send(Err(random_failed(&error)))),
        };
        let id = token.id().clone();
        let time = member.node.fabric_time(now).0;
        let expires = WallTime(time.saturating_add(lifetime.as_millis() as u64));
        let created = TokenCreated { token: token.to_string(), id: id.clone(), expires };
        let request = Request::AddToken { id, secret_hash: token.secret_hash(), lifetime, labels };
        member.ask(now, request, Asker::Promised(answer, Reply::json(&created)));
    }
}

fn no_fabric_yet() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "no fabric yet",
        "run `weft init` here, or `weft join TOKEN` with a token from a member",
    )
}
