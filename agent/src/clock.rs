//! The agent's two clocks, and the only module that reads them.
//!
//! The monotonic clock drives every timer; its origin is the start of the agent. It is
//! `CLOCK_BOOTTIME`, which also counts while the machine is suspended: a lease that ran out meanwhile
//! has run out. The wall clock may jump either way at any moment; it goes into stamps and into what
//! people read.
//!
//! The runtime's timers stand still during a suspension. So nothing relies on them to be told that time
//! has passed: the loop never sleeps longer than its chores' period (1 s), reads this clock whenever it
//! wakes, and decides from what it reads. What must happen at its instant also while the agent does not
//! run at all is the guard's ([`crate::guard`]), which has a timer of the kernel's on this same clock.
#![allow(clippy::disallowed_methods, reason = "the one place of this crate that reads clocks")]

use fabric::clock::{Instant, Now, WallTime};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the machine came up, suspensions included: what agent and guard tell each other. Of use
/// only within the boot that it was read in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime {
    nanoseconds: u64,
}

impl BootTime {
    /// Now.
    pub fn now() -> Self {
        // Cannot fail: every kernel that has pidfds has this clock.
        let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self::after_boot(since)
    }

    /// This long after the machine came up.
    pub fn after_boot(since: Duration) -> Self {
        Self { nanoseconds: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Time since the machine came up.
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// Time from `earlier` until this; zero when `earlier` is later.
    pub fn since(self, earlier: BootTime) -> Duration {
        self.since_boot().saturating_sub(earlier.since_boot())
    }
}

impl std::ops::Add<Duration> for BootTime {
    type Output = BootTime;
    fn add(self, after: Duration) -> BootTime {
        Self::after_boot(self.since_boot().saturating_add(after))
    }
}

/// Reads both clocks. Copies share their origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: BootTime,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self { origin: BootTime::now() }
    }

    /// Both clocks, read together.
    pub fn now(&self) -> Now {
        Now { at: self.instant(BootTime::now()), wall: wall() }
    }

    /// The core's name for a boot time. What lies before the start of the agent is its origin.
    pub fn instant(&self, time: BootTime) -> Instant {
        Instant::at(time.since(self.origin))
    }

    /// The boot time of one of the core's instants.
    pub fn boot_time(&self, instant: Instant) -> BootTime {
        self.origin + instant.since_origin()
    }

    /// The runtime's name for `instant`, to sleep until. It names a later moment once the machine was
    /// suspended, so sleeps are short.
    pub fn deadline(&self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::now() + instant.since(self.now().at)
    }
}

/// The wall clock. Before 1970 it reads 0.
pub fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_and_its_boot_time_are_the_same_moment() {
        let clock = Clock::start();
        let later = BootTime::now() + Duration::from_secs(7);
        assert_eq!(clock.boot_time(clock.instant(later)), later);
        let before = BootTime::default();
        assert_eq!(clock.instant(before), Instant::default(), "long past, and not in the future");
        let now = clock.now().at;
        let sleep = clock.deadline(now + Duration::from_secs(5)) - tokio::time::Instant::now();
        assert!(sleep <= Duration::from_secs(5) && sleep > Duration::from_secs(4), "{sleep:?}");
    }
}
