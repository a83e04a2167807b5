//! The agent's two clocks, and the only module that reads them.
//!
//! The monotonic clock drives every timer; its origin is the start of the agent. The wall clock may jump
//! either way at any moment; it goes into stamps and into what people read.
#![allow(clippy::disallowed_methods, reason = "the one place of this crate that reads clocks")]

use fabric::clock::{Instant, Now, WallTime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads both clocks. Copies share their origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    /// Both clocks, read together.
    pub fn now(&self) -> Now {
        Now { at: Instant::at(self.origin.elapsed()), wall: wall() }
    }

    /// The runtime's name for `instant`, to sleep until.
    pub fn deadline(&self, instant: Instant) -> tokio::time::Instant {
        self.origin + instant.since_origin()
    }
}

/// The wall clock. Before 1970 it reads 0.
pub fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
