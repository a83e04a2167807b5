//! The clocks of one machine: a monotonic one that runs a little fast or slow, and a wall clock that jumps.

use fabric::clock::{Instant, Now, WallTime};
use std::time::Duration;

/// What every wall clock shows when the world begins: 2026-01-01T00:00Z, in milliseconds.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// What a right wall clock shows at world time `time`.
pub fn true_wall(time: Duration) -> WallTime {
    WallTime(EPOCH_MS as u64 + time.as_millis() as u64)
}

/// A clock that is right, in parts per million.
pub const TRUE_RATE_PPM: u32 = 1_000_000;

/// Invariant: the monotonic reading never falls, whatever rates and jumps are set.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    /// World time at which `local` was read.
    base: Duration,
    /// Monotonic reading at `base`.
    local: Duration,
    /// Microseconds of local time in a second of world time.
    rate_ppm: u32,
    /// What the wall clock shows at `base`, in milliseconds since 1970.
    wall_ms: i64,
}

impl VirtualClock {
    /// A clock that is right, of a machine that has been up for `uptime` at world time zero.
    pub fn new(uptime: Duration) -> Self {
        Self { base: Duration::ZERO, local: uptime, rate_ppm: TRUE_RATE_PPM, wall_ms: EPOCH_MS }
    }

    /// Both readings at world time `time`.
    pub fn read(&self, time: Duration) -> Now {
        let passed = self.passed(time);
        let wall = self.wall_ms + passed.as_millis() as i64;
        Now { at: Instant::at(self.local + passed), wall: WallTime(wall.max(0) as u64) }
    }

    /// The first world time, not before `time`, at which the monotonic reading is at least `at`.
    pub fn when(&self, at: Instant, time: Duration) -> Duration {
        let ahead = at.since_origin().saturating_sub(self.local).as_nanos();
        let rate = u128::from(self.rate_ppm);
        let world = (ahead * u128::from(TRUE_RATE_PPM)).div_ceil(rate);
        (self.base + Duration::from_nanos(world as u64)).max(time)
    }

    /// From `time` on the clock runs at `rate_ppm` (1,000,000 is right).
    pub fn set_rate(&mut self, time: Duration, rate_ppm: u32) {
        self.rebase(time);
        self.rate_ppm = rate_ppm.max(1);
    }

    /// The wall clock jumps by `by_ms` milliseconds; the monotonic clock does not notice.
    pub fn jump(&mut self, time: Duration, by_ms: i64) {
        self.rebase(time);
        self.wall_ms += by_ms;
    }

    /// The machine starts anew: its monotonic clock counts from zero, its wall clock goes on.
    pub fn reboot(&mut self, time: Duration) {
        self.rebase(time);
        self.local = Duration::ZERO;
    }

    fn passed(&self, time: Duration) -> Duration {
        let nanos = time.saturating_sub(self.base).as_nanos() * u128::from(self.rate_ppm);
        Duration::from_nanos((nanos / u128::from(TRUE_RATE_PPM)) as u64)
    }

    fn rebase(&mut self, time: Duration) {
        let passed = self.passed(time);
        self.local += passed;
        self.wall_ms += passed.as_millis() as i64;
        self.base = time;
    }
}

#[cfg(test)]
mod tests;
