//! Commands to the unit manager that are given again. Any of them may be lost on its way, so each is repeated until it is
//! seen to have worked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::id::AllocId;
use crate::io::Output;
use crate::limits;

/// When a command is given again: after a while, then after twice as long, and so on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    at: Instant,
    after: Duration,
    times: u32,
}

impl Retry {
    /// The command was given just now.
    pub(super) fn new(now: Instant, after: Duration) -> Self {
        Self { at: now + after, after, times: 1 }
    }

    /// When it is given again.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// How often it was given.
    pub(super) fn times(&self) -> u32 {
        self.times
    }

    /// Whether to give it again now. If so, it counts as given.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.at <= now;
        if is_due {
            self.after = (self.after * 2).min(limits::UNIT_RETRY_MAX);
            self.at = now + self.after;
            self.times += 1;
        }
        is_due
    }
}

/// Units that no record explains. They are told to stop until the unit manager says that they are gone.
#[derive(Debug, Default)]
pub(super) struct Strays(BTreeMap<(AllocId, u32), Retry>);

impl Strays {
    /// Such a unit runs: what to do about it.
    pub(super) fn found(&mut self, now: Instant, alloc: AllocId, run: u32) -> Output {
        self.0.insert((alloc.clone(), run), Retry::new(now, limits::UNIT_RETRY));
        Output::Stop { alloc, run }
    }

    /// A unit is gone.
    pub(super) fn gone(&mut self, alloc: &AllocId, run: u32) {
        if !self.0.is_empty() {
            self.0.remove(&(alloc.clone(), run));
        }
    }

    /// What is to be said again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Output> {
        let due = self.0.iter_mut().filter_map(|((alloc, run), retry)| {
            retry.is_due(now).then(|| Output::Stop { alloc: alloc.clone(), run: *run })
        });
        due.collect()
    }

    /// When that is.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(Retry::at).min()
    }
}
