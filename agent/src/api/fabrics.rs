//! The fabric as a whole: founding and joining it, moving work within it, dating anew.

use fabric::api::{Init, Problem};
use fabric::id::JobName;
use fabric::io::Request;

use super::doc::says;
use super::given::{Given, invalid};
use super::{AgentVerb, Operation, Role, Route, post, wish};

pub const ROUTES: &[Route] = &[
    post("/v1/fabric/init", Role::Own, init)
        .doc(says("Found a fabric.").may_take("Init").gives("Joined")),
    post("/v1/fabric/join", Role::Own, join)
        .doc(says("Join a fabric with a token.").takes("Join").gives("Joined")),
    post("/v1/fabric/reclock", Role::Own, reclock).doc(
        says("Date anew, on every node that is up, what is dated ahead of every clock. Refused while no majority of the nodes agrees what time it is.")
            .done("OK"),
    ),
    post("/v1/rebalance", Role::Operate, rebalance).doc(
        says("Find a few moves that restore broken wishes or enlarge the largest hole, and perhaps make them.")
            .may_take("RebalanceBody")
            .gives("Rebalance"),
    ),
];

fn init(given: &Given<'_>) -> Result<Operation, Problem> {
    let init: Init = given.json_or_default()?;
    if init.name.as_ref().is_some_and(|name| JobName::new(name).is_err()) {
        return Err(invalid(
            "not a fabric's name",
            "use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends",
        ));
    }
    Ok(Operation::Agent(AgentVerb::Init(init)))
}

fn join(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Join(given.json()?)))
}

fn reclock(_: &Given<'_>) -> Result<Operation, Problem> {
    wish(|_, _| Ok(Request::Reclock))
}

fn rebalance(given: &Given<'_>) -> Result<Operation, Problem> {
    let moves = given.json_or_default()?;
    wish(move |_, _| Ok(Request::Rebalance { wish: moves }))
}
