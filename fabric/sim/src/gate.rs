//! What lies before a core: a model of how agents seal datagrams and refuse them (`agent/src/seal.rs`).
//!
//! A datagram opens at the one node that it was sealed for, and once. What the network itself repeats is let through, because a
//! core has to bear it; what a stranger brings is not.

use fabric::id::NodeId;
use fabric::node::Canary;
use std::collections::{BTreeMap, BTreeSet};

/// Datagrams of one sender may overtake each other by this many.
const REPLAY_WINDOW: u64 = 256;

/// What is authenticated with a datagram, and who brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// For whom it is.
    pub receiver: NodeId,
    /// The sender's start.
    pub start: u64,
    /// The sender's datagrams in that start, this one included.
    pub counter: u64,
    /// A stranger has copied it.
    pub copied: bool,
}

/// What an agent remembers of those who send to it.
#[derive(Debug, Default)]
pub struct Gate {
    senders: BTreeMap<NodeId, Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: u64,
    seen: BTreeSet<u64>,
}

impl Gate {
    /// Whether the node `own` hands a datagram of `from` to its core.
    pub fn opens(
        &mut self,
        own: NodeId,
        from: NodeId,
        sealed: &Sealed,
        canary: Option<Canary>,
    ) -> bool {
        if sealed.receiver != own && canary != Some(Canary::IgnoresReceivers) {
            return false;
        }
        let window = self.senders.entry(from).or_default();
        if sealed.start > window.start {
            *window = Window { start: sealed.start, seen: BTreeSet::new() };
        }
        let highest = window.seen.last().copied().unwrap_or(0);
        let is_old = sealed.start < window.start
            || sealed.counter + REPLAY_WINDOW <= highest
            || !window.seen.insert(sealed.counter);
        while window.seen.len() > REPLAY_WINDOW as usize {
            window.seen.pop_first();
        }
        !(is_old && sealed.copied)
    }
}
