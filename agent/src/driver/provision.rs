//! How a node that is in no fabric gets into one without a person at its keyboard: with the token that it was
//! given ([`crate::credentials`]), or because a member lets it in ([`crate::approval`]).
//!
//! It goes on trying its token for as long as it is in no fabric. That there is no network or no member yet is normal, so
//! the pauses stay short; a member that refuses will hardly change its mind, so those grow. Whatever a person
//! asks for meanwhile (`weft init`, `weft join`) goes first, and ends an attempt of the agent's own.

use fabric::clock::Instant;
use serde::Serialize;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::identity::Fabric;
use crate::join::JoinError;
use crate::token::Token;

/// Until the next attempt when nobody was found or reached: each finds out for itself when there is somebody.
const NOBODY_PAUSE_MIN: Duration = Duration::from_secs(1);
const NOBODY_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Until the next attempt when a member refused: a token that was made a moment ago may be new to it.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(10);
/// Then each costs that member a line in its log.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// What this node was given, and how far it came with it.
#[derive(Debug)]
pub(super) struct Provision {
    pub(super) credentials: Credentials,
    /// Whether a member may let it in.
    approval: bool,
    /// When the token is tried next.
    next: Instant,
    /// The last attempt with the token; `None`: there was none yet.
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    /// A member refused. Otherwise nobody was found or reached.
    refused: bool,
    /// As often in a row.
    times: u32,
    /// In words.
    reason: String,
}

/// How a node that is in no fabric means to get into one, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// What it does about it.
    pub(super) way: Way,
    /// What stands in the way of it.
    pub(super) trouble: Option<String>,
}

/// What a node does to get into a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// Nothing: somebody has to type `weft init` or `weft join`.
    ByHand,
    /// It tries the token that it was given.
    Token,
    /// It waits to be approved on a member.
    Approval,
}

impl Provision {
    /// Says once what cannot be used.
    pub(super) fn new(credentials: Credentials, approval: bool, now: Instant) -> Self {
        for trouble in &credentials.troubles {
            tracing::warn!("{trouble}; the agent goes on without it");
        }
        Self { credentials, approval, next: now, failed: None }
    }

    /// The token is of no use to a member of a fabric.
    pub(super) fn belongs_to(&mut self, fabric: &Fabric) {
        if let Some(token) = self.credentials.token.take() {
            if token.is_for(&fabric.key()) {
                tracing::debug!("this node belongs to its token's fabric already");
            } else {
                tracing::warn!(
                    token = %token.id().0, fabric = fabric.name(),
                    "the credential weft.token is for another fabric: ignored, this node belongs to one"
                );
            }
        }
        self.failed = None;
    }

    /// The token, if it is time to try it.
    pub(super) fn due(&self, now: Instant) -> Option<&Token> {
        self.credentials.token.as_ref().filter(|_| self.next <= now)
    }

    /// An attempt with the token came to nothing. Says so once.
    pub(super) fn failed(&mut self, now: Instant, error: &JoinError) {
        let refused = matches!(error, JoinError::Refused { .. });
        let before = self.failed.take().filter(|before| before.refused == refused);
        let times = before.as_ref().map_or(1, |before| before.times.saturating_add(1));
        let reason = error.to_string();
        match before {
            None if refused => tracing::warn!(reason, "not let in with the credential weft.token"),
            None => tracing::info!(reason, "the credential weft.token waits for a member"),
            Some(_) => tracing::debug!(reason, times, "not let in yet"),
        }
        self.next = now + pause(refused, times);
        self.failed = Some(Failed { refused, times, reason });
    }

    /// Somebody was found who may belong to the token's fabric: no reason to wait any longer.
    pub(super) fn found_somebody(&mut self, now: Instant) {
        if self.failed.as_ref().is_some_and(|failed| !failed.refused) {
            self.next = self.next.min(now + NOBODY_PAUSE_MIN);
        }
    }

    /// What people should know of it.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.credentials.troubles.clone();
        warnings.extend(self.token_trouble());
        warnings
    }

    /// How this node means to get into a fabric, while it is in none.
    pub(super) fn entry(&self) -> Entry {
        let refused = self.failed.as_ref().is_some_and(|failed| failed.refused);
        let way = match (&self.credentials.token, self.approval) {
            (Some(_), true) if refused => Way::Approval,
            (Some(_), _) => Way::Token,
            (None, true) => Way::Approval,
            (None, false) => Way::ByHand,
        };
        let given = self.credentials.troubles.first().cloned();
        Entry { way, trouble: self.token_trouble().or(given) }
    }

    fn token_trouble(&self) -> Option<String> {
        let failed = self.failed.as_ref()?;
        let what = if failed.refused { "refused" } else { "waits for a member" };
        Some(format!("credential weft.token: {what}: {}", failed.reason))
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::ByHand => "no fabric yet: weft init or weft join",
            Way::Token => "no fabric yet: joining with the token that was given",
            Way::Approval => "no fabric yet: waiting to be approved on a member",
        })
    }
}

/// How long to wait after so many failures in a row.
fn pause(refused: bool, times: u32) -> Duration {
    let (min, max) = match refused {
        true => (REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX),
        false => (NOBODY_PAUSE_MIN, NOBODY_PAUSE_MAX),
    };
    min.saturating_mul(2u32.saturating_pow(times.saturating_sub(1))).min(max)
}

#[cfg(test)]
mod tests;
