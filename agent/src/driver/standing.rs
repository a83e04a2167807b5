//! How the fabric stands, for counters and for the service manager: a thousand slots are not counted every second, or for
//! every scrape, to find that nothing has changed.

use fabric::api::{FabricStatus, NodeState};
use fabric::clock::Instant;
use fabric::node::Node;
use std::collections::BTreeMap;
use std::time::Duration;

/// It is counted again after this, whatever is known to have changed: whether a slot can be placed depends on time, too.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// What was counted last.
#[derive(Debug, Default)]
pub(super) struct Standing(Option<Counted>);

#[derive(Debug)]
struct Counted {
    at: Instant,
    /// Of which table, with members in which states, and how slow to react.
    of: (u64, BTreeMap<NodeState, u32>, u32),
    status: FabricStatus,
}

impl Standing {
    /// How the fabric of `node` stands.
    pub(super) fn of(&mut self, node: &Node, at: Instant) -> &FabricStatus {
        let of = (node.fingerprint(), node.node_states(), node.local_health());
        let fresh = |counted: &Counted| counted.of == of && at.since(counted.at) < COUNT_AGAIN;
        let kept = self.0.take().filter(fresh);
        let counted = kept.unwrap_or_else(|| Counted { at, of, status: node.status() });
        &self.0.insert(counted).status
    }
}

#[cfg(test)]
mod tests;
