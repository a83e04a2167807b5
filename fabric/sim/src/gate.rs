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

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);

    fn opens(gate: &mut Gate, receiver: NodeId, start: u64, counter: u64, copied: bool) -> bool {
        gate.opens(BOB, ALICE, &Sealed { receiver, start, counter, copied }, None)
    }

    #[test]
    fn a_copy_opens_once_at_the_node_that_it_is_for() {
        let mut gate = Gate::default();
        assert!(!opens(&mut gate, ALICE, 1, 1, false) && !opens(&mut gate, ALICE, 1, 1, true));
        assert!(opens(&mut gate, BOB, 1, 1, false), "the packet itself");
        assert!(!opens(&mut gate, BOB, 1, 1, true), "its copy");
        assert!(opens(&mut gate, BOB, 1, 1, false), "the network may repeat");
        assert!(opens(&mut gate, BOB, 1, 2, true), "a copy that comes first");
        assert!(opens(&mut gate, BOB, 1, 1000, false));
        assert!(!opens(&mut gate, BOB, 1, 500, true), "too old to tell");
        assert!(opens(&mut gate, BOB, 2, 1, false));
        assert!(!opens(&mut gate, BOB, 1, 1001, true), "of an earlier start");
    }
}
