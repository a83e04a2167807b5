//! Tokens, with which nodes join.

use fabric::api::{CreateToken, Problem};
use fabric::io::Request;
use fabric::job::duration;
use fabric::limits;
use fabric::table::TokenId;
use std::time::Duration;

use super::doc::says;
use super::given::{Given, invalid};
use super::{AgentVerb, Operation, Reply, Role, Route, delete, get, post, read, wish};

/// How long a token works unless the caller says otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// A token that lives longer is a key that somebody forgot.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

pub const ROUTES: &[Route] = &[
    post("/v1/tokens", Role::Own, create)
        .doc(says("Make a token.").may_take("CreateToken").gives("TokenCreated")),
    get("/v1/tokens", Role::Own, tokens).doc(says("Tokens that still work.").lists("TokenView")),
    delete("/v1/tokens/{id}", Role::Own, revoke)
        .doc(says("Make a token useless.").done("Done, or on its way.")),
];

/// The agent makes its secret.
fn create(given: &Given<'_>) -> Result<Operation, Problem> {
    let wanted: CreateToken = given.json_or_default()?;
    let lifetime = match &wanted.lifetime {
        None => TOKEN_LIFETIME,
        Some(text) => duration::parse(text)
            .ok()
            .filter(|lifetime| !lifetime.is_zero() && *lifetime <= TOKEN_LIFETIME_MAX)
            .ok_or_else(|| {
                invalid(
                    "not a token's lifetime",
                    format!("{text:?}: write 30m, 1h or 7d, at most 30d"),
                )
            })?,
    };
    if wanted.labels.len() > limits::LABELS_MAX {
        return Err(invalid(
            "too many labels",
            format!("a node has {} at most", limits::LABELS_MAX),
        ));
    }
    Ok(Operation::Agent(AgentVerb::CreateToken { lifetime, labels: wanted.labels }))
}

fn tokens(_: &Given<'_>) -> Result<Operation, Problem> {
    read(|node, now| Reply::json(&node.tokens(now)))
}

fn revoke(given: &Given<'_>) -> Result<Operation, Problem> {
    let id = TokenId(given.name());
    wish(move |_, _| Ok(Request::RevokeToken { id }))
}
