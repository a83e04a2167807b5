//! Members that come and go: each return makes the next piece of new work for them wait longer, so that a
//! machine that dies every few seconds is not handed the same slots again and again. What runs there stays.
//!
//! Every node keeps its own count of what it saw. It is not in the table: a coordinator that has seen no flapping
//! places as before, and learns.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;

/// Members that came back from the dead a short time ago, and those that are dead.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    members: BTreeMap<NodeId, Flap>,
}

#[derive(Clone, Debug, Default)]
struct Flap {
    is_gone: bool,
    returns: u32,
    /// The last return, and how long it gets no new work from then on.
    returned: Option<(Instant, Duration)>,
    /// Said by [`Flaps::rested`] already.
    has_rested: bool,
}

impl Flaps {
    /// A member is dead.
    pub fn lose(&mut self, node: NodeId) {
        self.members.entry(node).or_default().is_gone = true;
    }

    /// A member is up, for the first time or again.
    pub fn find(&mut self, at: Instant, node: &NodeId) {
        let Some(flap) = self.members.get_mut(node).filter(|flap| flap.is_gone) else { return };
        flap.is_gone = false;
        flap.has_rested = false;
        flap.returns += 1;
        let doublings = (flap.returns - 1).min(16);
        let hold = (limits::FLAP_HOLD_MIN * (1 << doublings)).min(limits::FLAP_HOLD_MAX);
        flap.returned = Some((at, hold));
    }

    /// For how long a member gets no new work after its last return, until [`Flaps::rested`] says that this is
    /// over.
    pub fn rest_of(&self, node: &NodeId) -> Option<Duration> {
        let flap = self.members.get(node)?;
        flap.returned.filter(|_| !flap.has_rested).map(|(_, hold)| hold)
    }

    /// Members whose rest is over since the last call. Forgets those that have been calm for long.
    pub fn rested(&mut self, at: Instant) -> Vec<NodeId> {
        let mut rested = Vec::new();
        self.members.retain(|node, flap| {
            let Some((returned, hold)) = flap.returned else { return flap.is_gone };
            let passed = at.since(returned);
            if passed >= hold && !flap.has_rested {
                flap.has_rested = true;
                rested.push(*node);
            }
            flap.is_gone || passed < limits::FLAP_CALM
        });
        rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::at(Duration::from_secs(seconds))
    }

    #[test]
    fn each_return_makes_the_rest_longer_until_there_was_calm() {
        let node = NodeId([1; 32]);
        let mut flaps = Flaps::default();
        flaps.find(at(0), &node);
        assert_eq!(flaps.rest_of(&node), None, "it never went");
        let mut time = 0;
        for seconds in [2, 4, 8, 16, 32, 64, 64, 64] {
            flaps.lose(node);
            flaps.lose(node);
            time += 10;
            flaps.find(at(time), &node);
            let hold = Duration::from_secs(seconds);
            assert_eq!(flaps.rested(at(time + seconds - 1)), []);
            assert_eq!(flaps.rest_of(&node), Some(hold));
            assert_eq!(flaps.rested(at(time + seconds)), [node]);
            assert_eq!(flaps.rested(at(time + seconds)), [], "said once");
            assert_eq!(flaps.rest_of(&node), None);
        }
        flaps.rested(at(time + limits::FLAP_CALM.as_secs()));
        assert!(flaps.members.is_empty());
        flaps.lose(node);
        flaps.find(at(time), &node);
        assert_eq!(flaps.rest_of(&node), Some(limits::FLAP_HOLD_MIN));
    }
}
