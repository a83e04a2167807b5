//! Who may have a connection that was not welcomed yet: strangers cost a bounded amount, and do not keep
//! members waiting.
//!
//! A stranger can begin connections and leave them at that, for a few packets each. So one source gets a few
//! at a time; members, at the addresses that the table names, have a share that nobody else can take; and whoever
//! comes beside others from the same source, or while there are many, must first show that its address is its own
//! (a Retry, RFC 9000, section 8.1.2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attempts::network;

/// Connections that were not welcomed yet: each takes some 40 KiB, and five seconds at most.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Of these only members may have the last quarter.
const STRANGERS_MAX: usize = CONNECTIONS_MAX - CONNECTIONS_MAX / 4;
/// Of one source: a machine that joins tries several addresses of ours at a time, and needs one to come through.
const SOURCE_MAX: usize = 4;
/// With this many under way everybody must first show that its address is its own.
const TRUSTED_MAX: usize = 16;

/// Whom a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A node of the table, by its address and port: others on its network do not count for it.
    Member(IpAddr, u16),
    /// Anybody else, by what one party controls.
    Network(IpAddr),
}

/// What to do with somebody who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may greet; [`Counts::give_back`] this when it has.
    Admit(Source),
    /// It is to come again, with a proof of its address.
    Validate,
    /// There are enough.
    Refuse,
}

/// The rule.
///
/// Invariants:
/// - at most [`CONNECTIONS_MAX`] connections, of which at most [`STRANGERS_MAX`] are not of members;
/// - at most [`SOURCE_MAX`] of one source.
#[derive(Debug, Default)]
pub(super) struct Counts {
    members: BTreeSet<(IpAddr, u16)>,
    taken: BTreeMap<Source, usize>,
}

impl Counts {
    /// Takes over where the table says that members are: addresses of nodes, not of their streams. What is
    /// under way stays counted for whom it was.
    pub(super) fn know(&mut self, members: impl IntoIterator<Item = SocketAddr>) {
        self.members = members.into_iter().map(place).collect();
    }

    /// Decides on somebody who comes from the node address `from`, and counts it when it is admitted.
    pub(super) fn judge(&mut self, from: SocketAddr, validated: bool) -> Verdict {
        let source = self.source(from);
        let of_source = self.taken.get(&source).copied().unwrap_or(0);
        let (all, strangers) = (self.under_way(), self.strangers());
        let is_full = match source {
            Source::Member(..) => all >= CONNECTIONS_MAX,
            Source::Network(_) => strangers >= STRANGERS_MAX || all >= CONNECTIONS_MAX,
        };
        if is_full || of_source >= SOURCE_MAX {
            return Verdict::Refuse;
        }
        if !validated && (of_source > 0 || all >= TRUSTED_MAX) {
            return Verdict::Validate;
        }
        self.taken.insert(source, of_source + 1);
        Verdict::Admit(source)
    }

    /// One of this source is over.
    pub(super) fn give_back(&mut self, source: Source) {
        if let Some(count) = self.taken.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&source);
            }
        }
    }

    fn source(&self, from: SocketAddr) -> Source {
        let (address, port) = place(from);
        match self.members.contains(&(address, port)) {
            true => Source::Member(address, port),
            false => Source::Network(network(address)),
        }
    }

    fn under_way(&self) -> usize {
        self.taken.values().sum()
    }

    fn strangers(&self) -> usize {
        let strangers = self.taken.iter().filter(|(of, _)| matches!(of, Source::Network(_)));
        strangers.map(|(_, count)| count).sum()
    }
}

/// An address without what means nothing on another machine.
fn place(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// The rule, shared by the tasks.
#[derive(Debug, Default)]
pub(super) struct Permits(Mutex<Counts>);

impl Permits {
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a place until it is dropped.
pub(super) struct Permit {
    permits: Arc<Permits>,
    source: Source,
}

impl Permit {
    /// For a source that was admitted.
    pub(super) fn new(permits: Arc<Permits>, source: Source) -> Self {
        Self { permits, source }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.counts().give_back(self.source);
    }
}

#[cfg(test)]
mod tests;
