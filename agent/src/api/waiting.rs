//! Nodes that are in no fabric and wait to be let in.

use fabric::api::Problem;

use super::doc::says;
use super::given::Given;
use super::{AgentVerb, Operation, Role, Route, get, post};

pub const ROUTES: &[Route] = &[
    get("/v1/waiting", Role::Look, waiting).doc(
        says("Nodes that are announced and belong to no fabric, as seen from this node. Nothing of it is proven before one is approved.")
            .lists("WaitingNode"),
    ),
    get("/v1/waiting/{name}", Role::Look, one).doc(
        says("One of them, by name, key, or at least eight of the first digits of its fingerprint.")
            .gives("WaitingNode"),
    ),
    post("/v1/waiting/{name}/approve", Role::Own, approve).doc(
        says("Let a waiting node in, if it holds the key that it announces and its configuration says approval = true. Answers when it has joined.")
            .gives("Approved"),
    ),
];

fn waiting(_: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Waiting))
}

fn one(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::WaitingNode(given.name())))
}

fn approve(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Approve(given.name())))
}
