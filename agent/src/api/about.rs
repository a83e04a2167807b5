//! This agent itself: how it is, what it saw, and what can be asked of it.

use bytes::Bytes;
use fabric::api::Problem;

use super::doc::{Gives, flag, says};
use super::given::Given;
use super::{AgentVerb, Operation, Reply, Role, Route, get};

/// The document that describes the API.
pub const OPENAPI: &str = include_str!("openapi.json");
const PLAIN: Gives = Gives::Text(&["text/plain; charset=utf-8"]);

pub const ROUTES: &[Route] = &[
    get("/v1/status", Role::Look, status)
        .doc(says("This node and its fabric at a glance.").gives("Status")),
    get("/v1/doctor", Role::Look, doctor)
        .doc(says("What is well on this node and what is not.").lists("Finding")),
    get("/v1/events", Role::Look, events).query(&[flag("follow", "Go on with what happens.")]).doc(
        says("What this node saw happen, as server-sent events.")
            .answers(Gives::Text(&["text/event-stream"])),
    ),
    get("/v1/openapi.json", Role::Look, document)
        .doc(says("This document.").answers(Gives::Document)),
    get("/healthz", Role::Measure, healthz)
        .doc(says("200 when the agent's loop turns.").answers(PLAIN)),
    get("/readyz", Role::Measure, readyz)
        .doc(says("200 when the node is a member of a fabric, else 503.").answers(PLAIN)),
];

fn status(_: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Status))
}

fn doctor(_: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Doctor))
}

fn events(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Events { follow: given.flag("follow")? }))
}

fn document(_: &Given<'_>) -> Result<Operation, Problem> {
    let text = Bytes::from_static(OPENAPI.as_bytes());
    Ok(Operation::Known(Reply::Text("application/json", text)))
}

fn healthz(_: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Healthz))
}

fn readyz(_: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Readyz))
}
