//! How this member lets others in: who waits and is approved, and who shows a token.

use fabric::api::{Problem, ProblemKind};
use fabric::clock::Now;
use fabric::io::Request;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;

use super::member::Asker;
use super::{CallAnswer, Driver, random_failed};
use crate::api::Reply;
use crate::approval::{Approved, InviteError, WaitingNode, invite};
use crate::quic::Enrolled;
use crate::token::Token;

/// The core looks at an invitation's token at once.
const REDEEM_TIME: Duration = Duration::from_secs(10);

impl Driver {
    /// Lets a waiting node in. The answer comes when it has joined.
    pub(super) fn approve(&mut self, now: Now, wanted: &str, by: &str, answer: CallAnswer) {
        let Some(member) = &mut self.member else { return };
        let (fabric, port) = (member.fabric.key(), self.addresses.bound().port());
        let invitation = self.sightings.waiting_node(wanted).and_then(|candidate| {
            member.invitations.room_for(now.at, &candidate.node).map_err(|reason| {
                let what = format!("{} cannot be let in now", candidate.name);
                Problem::new(ProblemKind::Conflict, what, reason)
            })?;
            let token = Token::generate(&fabric).map_err(|error| random_failed(&error))?;
            Ok((candidate, token))
        });
        let (candidate, token) = match invitation {
            Ok(invitation) => invitation,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        let WaitingNode { name, node, fingerprint, addresses, .. } = candidate;
        tracing::info!(name, fingerprint, by, "a waiting node is approved");
        let (identity, shown) = (self.identity.clone(), token.clone());
        let local = SocketAddr::new(self.config.listen.address, 0);
        let targets = self.addresses.elsewhere(&addresses);
        let task = tokio::spawn(async move {
            let invited = invite(&identity, node, &targets, &shown, (local, port)).await;
            let reply = match invited {
                Ok(address) => Reply::json(&Approved { name, node, fingerprint, address }),
                Err(error) => {
                    tracing::warn!(name, fingerprint, %error, "an approved node was not let in");
                    Err(problem(&name, &error))
                }
            };
            let _ = answer.send(reply);
        });
        member.invitations.give(now.at, node, &token, task);
    }

    /// A stranger shows a token. That of an invitation is in the table only for as long as the core looks at it.
    pub(super) fn enrol(
        &mut self,
        now: Now,
        enrol: Request,
        answer: oneshot::Sender<Result<Enrolled, String>>,
    ) {
        let (Some(member), Request::Enrol { node, token, secret_hash, .. }) =
            (&mut self.member, &enrol)
        else {
            return;
        };
        let (token, secret_hash) = (token.clone(), *secret_hash);
        let invited = member.invitations.redeem(now.at, node, &token, &secret_hash);
        if invited {
            let (id, lifetime, labels) = (token.clone(), REDEEM_TIME, BTreeMap::new());
            let add = Request::AddToken { id, secret_hash, lifetime, labels };
            member.ask(now, add, Asker::Nobody);
        }
        member.ask(now, enrol, Asker::Newcomer(answer));
        if invited {
            member.ask(now, Request::RevokeToken { id: token }, Asker::Nobody);
        }
    }
}

fn problem(name: &str, error: &InviteError) -> Problem {
    let kind = match error {
        InviteError::Unreachable(_) => ProblemKind::Unreachable,
        InviteError::AnotherKey { .. } => ProblemKind::Forbidden,
        InviteError::Refused(_) => ProblemKind::Conflict,
    };
    Problem::new(kind, format!("{name} was not let in"), error.to_string())
}
