//! Many seeds, one run each, on all cores of this machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::book::Violation;
use crate::journal::Journal;
use crate::run::{Outcome, Plan, Run};

/// A seed that broke an invariant, or the core's own assertions.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Gives the same run again.
    pub seed: u64,
    /// What went wrong.
    pub why: Why,
    /// What was done to the world until then.
    pub journal: Box<Journal>,
}

/// How a run failed.
#[derive(Clone, Debug)]
pub enum Why {
    /// An invariant.
    Broken(Violation),
    /// A panic, in words.
    Panicked(String),
}

impl Why {
    /// The invariant, or that it panicked: what a shrunk journal must still do.
    pub fn name(&self) -> String {
        match self {
            Why::Broken(violation) => violation.invariant.into(),
            Why::Panicked(_) => "a_core_never_panics".into(),
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Broken(violation) => violation.fmt(f),
            Why::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// What a swarm found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that held, by seed order.
    pub outcomes: Vec<Outcome>,
    /// Runs that did not.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// The world time of all runs together.
    pub fn time(&self) -> Duration {
        self.outcomes.iter().map(|outcome| outcome.time).sum()
    }

    /// The middle and the largest of a duration over all runs that have it.
    pub fn spread(&self, of: impl Fn(&Outcome) -> Option<Duration>) -> (Duration, Duration) {
        let mut all: Vec<Duration> = self.outcomes.iter().filter_map(of).collect();
        all.sort();
        let at = |index: usize| all.get(index).copied().unwrap_or_default();
        (at(all.len() / 2), at(all.len().saturating_sub(1)))
    }
}

/// Runs `plan` once with one seed. A panic of the core is a failure like any other.
pub fn run_one(plan: &Plan) -> Result<Outcome, Failure> {
    let mut run = Run::new(plan);
    go(&mut run).map_err(|why| {
        let journal = Box::new(Journal { breaks: Some(why.name()), ..run.journal });
        Failure { seed: plan.seed, why, journal }
    })
}

/// Lets a run go on to its end. Afterwards its world is as it was when it failed.
pub fn go(run: &mut Run) -> Result<Outcome, Why> {
    match catch_unwind(AssertUnwindSafe(|| run.go())) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(violation)) => Err(Why::Broken(violation)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            Err(Why::Panicked(text.unwrap_or_else(|| "without a word".into())))
        }
    }
}

/// A seed and how it went.
type Judged = (u64, Result<Outcome, Failure>);

/// Runs `plan` with `seeds` seeds, from its own on. `told` hears of every run as it ends: how many are
/// done, and how this one went. It returns whether to go on.
///
/// Runs share nothing, so that threads cannot change what any of them does.
pub fn swarm(
    plan: &Plan,
    seeds: u64,
    threads: usize,
    told: impl Fn(u64, Result<&Outcome, &Failure>) -> bool + Sync,
) -> Summary {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let results: Mutex<(u64, Vec<Judged>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds {
                        return;
                    }
                    let result = run_one(&Plan { seed: plan.seed + index, ..plan.clone() });
                    let mut results = results.lock().unwrap_or_else(|broken| broken.into_inner());
                    results.0 += 1;
                    if !told(results.0, result.as_ref()) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    results.1.push((index, result));
                }
            });
        }
    });
    let (_, mut results) = results.into_inner().unwrap_or_else(|broken| broken.into_inner());
    results.sort_by_key(|(index, _)| *index);
    let mut summary = Summary::default();
    for (_, result) in results {
        match result {
            Ok(outcome) => summary.outcomes.push(outcome),
            Err(failure) => summary.failures.push(failure),
        }
    }
    summary
}

#[cfg(test)]
mod tests;
