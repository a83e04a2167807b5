//! Whether a row was written by the node that it names. See `docs/PROTOCOL.md`, 'Signatures'.

use crate::clock::{Instant, Now};
use crate::id::NodeId;
use crate::limits;
use crate::stamp::Stamp;
use crate::table::{Entry, Key, SharedEntry, Value};

use super::{Canary, Node};

/// Who brought an entry, and how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Brought {
    /// In a datagram that names this sender. Whoever has a gossip key can seal one.
    ByDatagram(NodeId),
    /// By this member, over a stream: its key was proved.
    ByStream(NodeId),
    /// By whoever let this node in.
    WithWelcome,
}

impl Brought {
    fn sender(self) -> Option<NodeId> {
        match self {
            Brought::ByDatagram(from) | Brought::ByStream(from) => Some(from),
            Brought::WithWelcome => None,
        }
    }
}

/// What was said of rows that their writers did not write.
#[derive(Debug, Default)]
pub(super) struct Writers {
    told: Option<Instant>,
}

impl Node {
    /// An entry of this node's, stamped and signed.
    pub(super) fn written(&self, stamp: Stamp, key: Key, value: Value) -> Entry {
        Entry::written(&self.config.fabric, &*self.config.signer, key, stamp, value)
    }

    /// Whether an entry that somebody brings, and that is news here, is in the name of a node that did not write it. It is
    /// left out, and changes nothing.
    pub(super) fn refuses_writer(
        &mut self,
        now: Now,
        brought: Brought,
        entry: &SharedEntry,
    ) -> bool {
        if self.config.canary == Some(Canary::TakesUnsigned) {
            return false;
        }
        let writer = entry.stamp.node;
        // A key that nobody was let in with is soon made, and a node that was removed has its own. What a member took
        // of their rows comes from that member, by repair.
        if matches!(brought, Brought::ByDatagram(_)) && !self.replica.is_member(&writer) {
            self.counters.strange += 1;
            tracing::debug!(?writer, key = ?entry.key, "left out what no member wrote");
            return true;
        }
        if entry.is_authentic(&self.config.fabric, &*self.config.signer) {
            return false;
        }
        self.counters.forged += 1;
        let again = |told: Instant| now.at.since(told) >= limits::FORGED_TOLD_EVERY;
        if self.writers.told.is_none_or(again) {
            self.writers.told = Some(now.at);
            let from = brought.sender().map(|from| self.name_of(&from));
            let way = if let Brought::ByDatagram(_) = brought { "datagram" } else { "stream" };
            tracing::warn!(
                writer = %self.name_of(&writer), key = ?entry.key, from, way,
                refused = self.counters.forged,
                "refused a row that the node it names did not sign: who has a gossip key of this fabric?"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests;
