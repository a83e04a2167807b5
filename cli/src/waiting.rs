//! `weft nodes --waiting` and `weft node approve`: nodes that nobody gave a token.

use fabric::clock::WallTime;
use fabric::id::NodeId;
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use crate::client::escape;
use crate::exit::{Exit, Failure};
use crate::screen::Table;
use crate::{Context, clock};

/// A node that is announced and belongs to no fabric.
#[derive(Debug, Serialize, Deserialize)]
struct WaitingNode {
    name: String,
    node: NodeId,
    fingerprint: String,
    addresses: Vec<SocketAddr>,
    since: WallTime,
}

/// A node that was let in.
#[derive(Debug, Serialize, Deserialize)]
struct Approved {
    name: String,
    node: NodeId,
    fingerprint: String,
    address: SocketAddr,
}

/// Lists them.
pub async fn list(context: &Context) -> Result<Exit, Failure> {
    let waiting: Vec<WaitingNode> = context.client.get("/v1/waiting").await?;
    if context.screen.is_json() {
        context.screen.json(&waiting)?;
        return Ok(Exit::Ok);
    }
    if context.screen.names(waiting.iter().map(|one| &one.name))? {
        return Ok(Exit::Ok);
    }
    let now = clock::now();
    let mut table = Table::new(&["NAME", "FINGERPRINT", "SEEN FOR", "ADDRESSES"]);
    for one in &waiting {
        let addresses: Vec<_> = one.addresses.iter().map(ToString::to_string).collect();
        table.row([
            one.name.clone().into(),
            one.fingerprint.clone().into(),
            clock::age(now, one.since).into(),
            addresses.join(" ").into(),
        ]);
    }
    context.screen.table(&table)?;
    if !waiting.is_empty() {
        context
            .screen
            .say("compare the fingerprint with the node's console, then: weft node approve NAME");
    }
    Ok(Exit::Ok)
}

/// Lets one in.
pub async fn approve(context: &Context, wanted: &str, yes: bool) -> Result<Exit, Failure> {
    let one: WaitingNode = context.client.get(&format!("/v1/waiting/{}", escape(wanted))).await?;
    let question = format!(
        "let in {} with fingerprint {}? Its console must show the same.",
        one.name, one.fingerprint
    );
    if !context.confirm(&question, yes).await? {
        return Err(Failure::failed("nothing was changed"));
    }
    // By its key: another one may call itself so meanwhile.
    let path = format!("/v1/waiting/{}/approve", one.node);
    let approved: Approved = context.client.send(Method::POST, &path, &()).await?;
    if context.screen.is_json() {
        context.screen.json(&approved)?;
        return Ok(Exit::Ok);
    }
    context.screen.fields(&[
        ("name", approved.name.into()),
        ("node", approved.node.to_string().into()),
        ("fingerprint", approved.fingerprint.into()),
        ("reached at", approved.address.to_string().into()),
    ])?;
    Ok(Exit::Ok)
}
