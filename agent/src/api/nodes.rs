//! Nodes: what they are and run, what they are made of, draining, updates, removal.

use fabric::api::{DrainBody, Problem};
use fabric::io::Request;

use super::doc::{flag, number, says};
use super::given::{Given, senseless};
use super::{AgentVerb, Operation, Peers, Reply, Role, Route, delete, get, post, put, read, wish};
use crate::upgrade::{self, Step};

pub const ROUTES: &[Route] = &[
    get("/v1/nodes", Role::Look, nodes).doc(says("Every node.").lists("NodeView")),
    get("/v1/nodes/{name}", Role::Look, node)
        .doc(says("One node, by name, key, or the key's first digits.").gives("NodeView")),
    delete("/v1/nodes/{name}", Role::Own, remove)
        .query(&[flag(
            "force",
            "The voters that are left decide alone; what a removed node may still run is not fenced off.",
        )])
        .doc(
            says("Lock a node out and change the gossip key. Refused if no majority of the voters would be left, unless forced.")
                .done("Done, or on its way."),
        ),
    get("/v1/nodes/{name}/hardware", Role::Look, hardware)
        .peers(Peers::Relayed)
        .doc(
            says("What a node is made of: firmware, buses, disks, interfaces, sensors. That node answers, whichever is asked.")
                .gives("Hardware"),
        ),
    post("/v1/nodes/{name}/drain", Role::Operate, drain).doc(
        says("Hand over a node's work, or let it take work again.")
            .takes("DrainBody")
            .done("Done, or on its way."),
    ),
    get("/v1/nodes/{name}/upgrade", Role::Look, look_at_upgrade)
        .peers(Peers::Relayed)
        .doc(
            says("How far an update of a node that starts from an image has come. That node answers, whichever is asked.")
                .gives("UpgradeView"),
        ),
    post("/v1/nodes/{name}/upgrade", Role::Own, begin_upgrade)
        .peers(Peers::Direct)
        .doc(
            says("Begin an update, or go on with it; with install, write what was sent into the other slot and restart.")
                .takes("UpgradeBody")
                .gives("UpgradeView"),
        ),
    put("/v1/nodes/{name}/upgrade", Role::Own, upgrade_data)
        .query(&[number("offset", "As many bytes are there.").required()])
        .peers(Peers::Direct)
        .doc(says("The next piece of an update.").takes_bytes().gives("UpgradeView")),
];

fn nodes(_: &Given<'_>) -> Result<Operation, Problem> {
    read(|node, _| Reply::json(&node.nodes()))
}

fn node(given: &Given<'_>) -> Result<Operation, Problem> {
    let name = given.name();
    read(move |node, _| Reply::json(&node.node_view(node.find_node(&name)?)))
}

/// The agent makes the next key of the gossip.
fn remove(given: &Given<'_>) -> Result<Operation, Problem> {
    let verb = AgentVerb::RemoveNode { node: given.name(), force: given.flag("force")? };
    Ok(Operation::Agent(verb))
}

fn hardware(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Hardware(given.name())))
}

fn drain(given: &Given<'_>) -> Result<Operation, Problem> {
    let (name, DrainBody { on }) = (given.name(), given.json()?);
    wish(move |node, _| Ok(Request::Drain { node: node.find_node(&name)?, on }))
}

fn look_at_upgrade(given: &Given<'_>) -> Result<Operation, Problem> {
    upgrade(given, Step::Look)
}

fn begin_upgrade(given: &Given<'_>) -> Result<Operation, Problem> {
    upgrade(given, Step::begin(given.json()?)?)
}

fn upgrade_data(given: &Given<'_>) -> Result<Operation, Problem> {
    let Some(offset) = given.number("offset", upgrade::BYTES_MAX)? else {
        return Err(senseless("offset=BYTES is missing"));
    };
    upgrade(given, Step::Data { offset, bytes: given.body().to_vec() })
}

fn upgrade(given: &Given<'_>, step: Step) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Upgrade { node: given.name(), step }))
}
