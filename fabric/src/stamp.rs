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

/// The highest reading that any clock gives or takes, in the year 6429: above it there is room for a
/// write in each microsecond of another four thousand years, so that no two stamps of a node are equal.
pub const READING_MAX: u64 = u64::MAX >> 1;

/// A node's hybrid clock. It never goes back by itself, whatever time it is given.
#[derive(Clone, Copy, Debug)]
pub struct HybridClock {
    node: NodeId,
    last: u64,
}

impl HybridClock {
    /// A clock that goes on after `last`, the highest reading in the restored table.
    pub fn new(node: NodeId, last: u64) -> Self {
        Self { node, last: last.min(READING_MAX) }
    }

    /// A stamp above everything this clock has given out or seen.
    pub fn tick(&mut self, time: WallTime) -> Stamp {
        let physical = time.0.min(READING_MAX >> COUNTER_BITS) << COUNTER_BITS;
        self.last = physical.max(self.last + 1);
        Stamp { reading: self.last, node: self.node }
    }

    /// Takes note of somebody else's stamp. One that no clock gives is left out.
    pub fn observe(&mut self, stamp: Stamp) {
        if stamp.reading <= READING_MAX {
            self.last = self.last.max(stamp.reading);
        }
    }

    /// Goes on after `last`, also when that is before what it gave out: for whoever has just thrown away, or
    /// stamped anew, everything above.
    pub fn go_back_to(&mut self, last: u64) {
        self.last = self.last.min(last);
    }

    /// The highest reading so far.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The highest reading so far, as a time.
    pub fn time(&self) -> WallTime {
        WallTime(self.last >> COUNTER_BITS)
    }
}

#[cfg(test)]
mod tests;
