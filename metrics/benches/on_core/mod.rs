//! What the benchmarks share: the time on a core, and numbers that are the same in every run.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time that this process has run on a core.
pub fn time_on_core() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every process has one").into()
}

/// Marsaglia's xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
