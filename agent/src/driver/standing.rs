//! How the fabric stands, for counters and for the service manager: a thousand slots are not counted every second, or for
//! every scrape, to find that nothing has changed.

use fabric::api::{FabricStatus, NodeState};
use fabric::clock::Instant;
use fabric::node::Node;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Driver;

/// It is counted again after this, whatever is known to have changed: whether a slot can be placed depends on time, too.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// What was counted last, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    counted: Option<Counted>,
    /// What the service manager knows.
    said: String,
}

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
        let kept = self.counted.take().filter(fresh);
        let counted = kept.unwrap_or_else(|| Counted { at, of, status: node.status() });
        &self.counted.insert(counted).status
    }
}

impl Driver {
    /// Tells the service manager how it stands, when that changed.
    pub(super) fn tell_status(&mut self) {
        let now = self.clock.now().at;
        let text = match &self.member {
            None => self.entrance.provision.entry().way.to_string(),
            Some(member) => {
                let status = self.measuring.standing.of(&member.node, now);
                let alive = status.nodes.get(&NodeState::Alive).copied().unwrap_or(0);
                format!(
                    "{}: {alive} nodes alive, {} of {} slots healthy",
                    status.name, status.healthy, status.wanted
                )
            }
        };
        let text = status_line(text, self.addresses.is_connected());
        if text != self.measuring.standing.said {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&text)]);
            self.measuring.standing.said = text;
        }
    }
}

/// What the service manager shows of this agent in one line.
fn status_line(text: String, connected: bool) -> String {
    match connected {
        true => text,
        false => format!("no network: no link has a cable and an address; {text}"),
    }
}

#[cfg(test)]
mod tests;
