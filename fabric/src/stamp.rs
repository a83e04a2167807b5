//! Stamps order the writes to one key: a hybrid logical clock reading and the writer.
//!
//! Source: Kulkarni, Demirbas et al., "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases" (2014), figure 5, with both parts packed into one number: 48 bits of
//! milliseconds and 16 bits of counter, so that a counter that runs over carries into the time.

use serde::{Deserialize, Serialize};

use crate::clock::WallTime;
use crate::id::NodeId;

const COUNTER_BITS: u32 = 16;

/// A reading of the hybrid clock and who read it. Unique for each write in a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since 1970 shifted left by 16, plus a counter.
    pub reading: u64,
    /// Breaks ties.
    pub node: NodeId,
}

impl Stamp {
    /// The wall time of the write, as far as the writer's clock was right.
    pub fn wall(self) -> WallTime {
        WallTime(self.reading >> COUNTER_BITS)
    }
}

/// A node's hybrid clock. It never goes back, whatever the wall clock does.
#[derive(Clone, Copy, Debug)]
pub struct HybridClock {
    node: NodeId,
    last: u64,
}

impl HybridClock {
    /// A clock that goes on after `last`, the highest reading in the restored table.
    pub fn new(node: NodeId, last: u64) -> Self {
        Self { node, last }
    }

    /// A stamp above everything this clock has given out or seen.
    pub fn tick(&mut self, wall: WallTime) -> Stamp {
        let physical = wall.0.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS;
        self.last = physical.max(self.last.saturating_add(1));
        Stamp { reading: self.last, node: self.node }
    }

    /// Takes note of somebody else's stamp.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp.reading);
    }

    /// The highest reading so far.
    pub fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests;
