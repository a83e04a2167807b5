//! `weft init`, `weft join` and `weft token`: who belongs to the fabric.

use fabric::api::{CreateToken, Init, Join, Joined, TokenCreated, TokenView};
use fabric::job::duration;
use hyper::Method;
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::escape;
use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone};
use crate::{Context, clock};

/// Starts a fabric.
pub async fn init(context: &Context, name: Option<String>) -> Result<Exit, Failure> {
    let joined = context.client.send(Method::POST, "/v1/fabric/init", &Init { name }).await?;
    show(context, &joined)?;
    context.screen.say("next: weft token create, and on the other machines: weft join TOKEN");
    Ok(Exit::Ok)
}

/// Joins a fabric.
pub async fn join(
    context: &Context,
    token: String,
    address: Option<SocketAddr>,
) -> Result<Exit, Failure> {
    let token = if token == "-" { token_from_stdin()? } else { token };
    if !token.starts_with("weft1.") {
        return Err(Failure::usage("a token begins with weft1. and comes from weft token create"));
    }
    let join = Join { token, address };
    let joined = context.client.send(Method::POST, "/v1/fabric/join", &join).await?;
    show(context, &joined)?;
    Ok(Exit::Ok)
}

fn token_from_stdin() -> Result<String, Failure> {
    const TOKEN_BYTES_MAX: u64 = 4096;
    let mut token = String::new();
    let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
    read.map_err(|error| Failure::usage(format!("cannot read a token from stdin: {error}")))?;
    Ok(token.trim().to_owned())
}

fn show(context: &Context, joined: &Joined) -> Result<(), Failure> {
    if context.screen.is_json() {
        return context.screen.json(joined);
    }
    context.screen.fields(&[
        ("fabric", joined.fabric.clone().into()),
        ("key", joined.key.to_string().into()),
        ("node", joined.node.to_string().into()),
        ("let in by", joined.by.clone().unwrap_or_else(|| "nobody: it is the first".into()).into()),
    ])
}

/// Makes a token.
pub async fn token_create(
    context: &Context,
    lifetime: Option<Duration>,
    labels: Vec<(String, String)>,
) -> Result<Exit, Failure> {
    let body = CreateToken {
        lifetime: lifetime.map(duration::display),
        labels: labels.into_iter().collect(),
    };
    let created: TokenCreated = context.client.send(Method::POST, "/v1/tokens", &body).await?;
    if context.screen.is_json() {
        context.screen.json(&created)?;
        return Ok(Exit::Ok);
    }
    context.screen.data(&created.token)?;
    let left = clock::until(clock::now(), created.expires);
    context.screen.say(&format!(
        "works for {left} and is not shown again; to end it sooner: weft token revoke {}",
        created.id.0
    ));
    Ok(Exit::Ok)
}

/// Lists tokens.
pub async fn token_list(context: &Context) -> Result<Exit, Failure> {
    let tokens: Vec<TokenView> = context.client.get("/v1/tokens").await?;
    if context.screen.is_json() {
        context.screen.json(&tokens)?;
        return Ok(Exit::Ok);
    }
    if context.screen.names(tokens.iter().map(|token| &token.id.0))? {
        return Ok(Exit::Ok);
    }
    let now = clock::now();
    let mut table = Table::new(&["ID", "WORKS FOR", "LABELS"]);
    for token in &tokens {
        let labels: Vec<_> =
            token.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([
            token.id.0.clone().into(),
            clock::until(now, token.expires).into(),
            Cell::new(labels.join(","), Tone::Plain),
        ]);
    }
    context.screen.table(&table)?;
    Ok(Exit::Ok)
}

/// Has every node date anew what was written with a clock that was ahead.
pub async fn reclock(context: &Context) -> Result<Exit, Failure> {
    context.client.post("/v1/fabric/reclock", &()).await?;
    context
        .screen
        .say("every node that is up dates anew what is dated ahead; those that are away follow");
    Ok(Exit::Ok)
}

/// Makes a token useless.
pub async fn token_revoke(context: &Context, id: &str) -> Result<Exit, Failure> {
    context.client.delete(&format!("/v1/tokens/{}", escape(id))).await?;
    context.screen.say(&format!("token {id} works no more"));
    Ok(Exit::Ok)
}
