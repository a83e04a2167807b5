//! The two ends of an approval in the loop: a member that lets a waiting node in, and a node that is invited.

use fabric::api::{Problem, ProblemKind};
use fabric::clock::{Now, WallTime};
use fabric::id::NodeId;
use fabric::io::Request;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;

use super::enter::Caller;
use super::member::Asker;
use super::{CallAnswer, Driver, random_failed};
use crate::api::Reply;
use crate::approval::{Approved, Door, InviteError, Invited, WaitingNode, invite};
use crate::identity::fingerprint;
use crate::quic::{Enrolled, listen};
use crate::token::Token;

/// Digits of a fingerprint that are enough to name a node by. What a person compares is all of it.
const FINGERPRINT_DIGITS_MIN: usize = 8;
/// Hex digits of a node's key that its announcement's name ends with.
const NAME_DIGITS: usize = discovery::limits::SHORT_DIGITS;
/// Candidates that an error names.
const NAMED_MAX: usize = 8;
/// The core looks at an invitation's token at once.
const REDEEM_TIME: Duration = Duration::from_secs(10);

/// Somebody that discovery found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) found: discovery::Found,
    /// Since when it says the same about its key and its fabric.
    since: WallTime,
}

impl Seen {
    /// What is seen now, and was seen as `before`.
    pub(super) fn new(found: discovery::Found, before: Option<&Seen>, now: WallTime) -> Self {
        let same = before.filter(|before| {
            (&before.found.node, &before.found.fabric) == (&found.node, &found.fabric)
        });
        let since = same.map_or(now, |before| before.since);
        Self { found, since }
    }
}

/// Those who wait for a fabric, by key. One that several sources have found is there once.
fn waiting<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<WaitingNode> {
    let mut waiting: BTreeMap<NodeId, WaitingNode> = BTreeMap::new();
    for Seen { found, since } in seen.filter(|seen| seen.found.fabric.is_none()) {
        let Some(node) = found.node.as_deref().and_then(|text| text.parse::<NodeId>().ok()) else {
            continue;
        };
        let row = waiting.entry(node).or_insert_with(|| WaitingNode {
            name: machine_name(&found.name, &node),
            node,
            fingerprint: fingerprint(&node),
            addresses: Vec::new(),
            since: *since,
        });
        row.since = row.since.min(*since);
        for address in &found.addresses {
            if !row.addresses.contains(address) {
                row.addresses.push(*address);
            }
        }
    }
    waiting.into_values().collect()
}

/// The machine's name in the name that it is announced by: without the digits of its key, and without the domain.
fn machine_name(announced: &str, node: &NodeId) -> String {
    let label = announced.split('.').next().unwrap_or_default();
    let end = format!("-{}", &node.to_string()[..NAME_DIGITS]);
    let name = label.strip_suffix(&end).unwrap_or(label);
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The one that is meant by a name, or by the first digits of a fingerprint or key.
///
/// # Errors
/// Names the candidates when there is none or more than one.
fn choose(mut waiting: Vec<WaitingNode>, wanted: &str) -> Result<WaitingNode, Problem> {
    let digits = wanted.replace('-', "").to_ascii_lowercase();
    let is_digits =
        digits.len() >= FINGERPRINT_DIGITS_MIN && digits.chars().all(|c| c.is_ascii_hexdigit());
    let means = |candidate: &WaitingNode| {
        candidate.name.eq_ignore_ascii_case(wanted)
            || (is_digits && candidate.node.to_string().starts_with(&digits))
    };
    let fitting: Vec<usize> = (0..waiting.len()).filter(|index| means(&waiting[*index])).collect();
    match fitting[..] {
        [only] => Ok(waiting.swap_remove(only)),
        [] => {
            let detail = match named(waiting.iter()) {
                None => "no node waits that can be seen from here".to_owned(),
                Some(names) => format!("these wait: {names}"),
            };
            Err(Problem::new(ProblemKind::NotFound, format!("no {wanted:?} waits"), detail))
        }
        _ => {
            let names = named(fitting.iter().map(|index| &waiting[*index])).unwrap_or_default();
            Err(Problem::new(
                ProblemKind::Invalid,
                format!("{wanted:?} may be more than one"),
                format!("{names}: use the fingerprint that the node's own console shows"),
            ))
        }
    }
}

fn named<'a>(candidates: impl Iterator<Item = &'a WaitingNode>) -> Option<String> {
    let all: Vec<String> =
        candidates.map(|one| format!("{} ({})", one.name, one.fingerprint)).collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    let mut text = all.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    (!text.is_empty()).then_some(text)
}

impl Driver {
    /// Who waits for a fabric, as seen from here.
    pub(super) fn waiting(&self) -> Vec<WaitingNode> {
        waiting(self.found.values())
    }

    /// One who waits, by name, fingerprint or key.
    pub(super) fn waiting_node(&self, wanted: &str) -> Result<WaitingNode, Problem> {
        choose(self.waiting(), wanted)
    }

    /// Lets a waiting node in. The answer comes when it has joined.
    pub(super) fn approve(&mut self, now: Now, wanted: &str, by: &str, answer: CallAnswer) {
        let Some(member) = &self.member else { return };
        let (fabric, port) = (member.fabric.key(), self.bound.port());
        let invitation = self.waiting_node(wanted).and_then(|candidate| {
            self.invitations.room_for(now.at, &candidate.node).map_err(|reason| {
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
        let targets = self.elsewhere(&addresses);
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
        self.invitations.give(now.at, node, &token, task);
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
        let invited = self.invitations.redeem(now.at, node, &token, &secret_hash);
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

    /// Listens for invitations, where the configuration says so and this node is in no fabric.
    pub(super) fn open_door(&mut self) -> anyhow::Result<()> {
        if self.member.is_none()
            && self.config.node.approval
            && let Some(socket) = self.streams.take()
        {
            let endpoint = listen(&self.identity, socket)?;
            self.door = Some(Door::open(endpoint, self.invited.clone()));
        }
        Ok(())
    }

    /// A member has invited this node: joins there.
    pub(super) fn invited(&mut self, invited: Invited) {
        let Invited { by, address, token, answer } = invited;
        let may = match &self.provision.credentials.token {
            Some(own) if !own.is_of_fabric_of(&token) => {
                Err("this node was given a token of another fabric".to_owned())
            }
            _ => self.may_enter().map_err(|problem| problem.title),
        };
        match may {
            Ok(()) => {
                tracing::info!(member = ?by, %address, token = %token.id().0, "invited");
                self.start_to_join(token, Some(vec![address]), Caller::Invitation(answer));
            }
            Err(reason) => drop(answer.send(Err(reason))),
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

#[cfg(test)]
mod tests;
