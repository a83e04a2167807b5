//! Runs one exhaustive search, and says what came of it.

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was searched.
    pub name: String,
    /// Within which bounds.
    pub bounds: String,
    /// States that are different.
    pub states: usize,
    /// Steps that were taken between them.
    pub steps: usize,
    /// States on the longest path, of those that were found first.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Promises that can be broken, each with a shortest way to do so.
    pub broken: Vec<Broken>,
    /// What should be possible and is not: a model in which nothing happens breaks nothing either.
    pub unreachable: Vec<&'static str>,
}

/// A promise, and the steps that break it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its name: a sentence.
    pub promise: &'static str,
    /// What happens, in order.
    pub steps: Vec<String>,
}

impl Verdict {
    /// Whether every promise holds in every state, and what should be possible is.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.unreachable.is_empty()
    }

    /// Whether this promise can be broken.
    pub fn breaks(&self, promise: &str) -> bool {
        self.broken.iter().any(|broken| broken.promise == promise)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}", self.name, self.bounds)?;
        write!(
            f,
            "    {} states, {} steps, depth {}, {:.1} s",
            self.states,
            self.steps,
            self.depth,
            self.took.as_secs_f64()
        )?;
        if self.holds() {
            return write!(f, ": every promise holds");
        }
        for what in &self.unreachable {
            write!(f, "\n    never happens: {what}")?;
        }
        // Promises that are broken in one and the same state have one and the same story.
        for broken in self.broken.iter().take(1) {
            write!(f, "\n    broken after {} steps: {}", broken.steps.len(), broken.promise)?;
            for step in &broken.steps {
                write!(f, "\n        {step}")?;
            }
        }
        Ok(())
    }
}

/// Visits every state that `model` can reach, breadth first, or stops at the first broken promise.
pub fn search<M>(name: impl Into<String>, bounds: impl Into<String>, model: M) -> Verdict
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    judge(name.into(), bounds.into(), model.checker().threads(threads))
}

/// Visits every state that `model` can reach within so many steps. On one thread, so that each state is found on a
/// shortest way. What should be possible may take more steps: planted bugs show that something happens.
pub fn search_within<M>(
    name: impl Into<String>,
    bounds: impl Into<String>,
    steps: usize,
    model: M,
) -> Verdict
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let bounds = format!("{}, {steps} steps", bounds.into());
    // The checker counts states, the first one included, and does not look at those at its bound.
    let verdict =
        judge(name.into(), bounds, model.checker().threads(1).target_max_depth(steps + 2));
    Verdict { unreachable: Vec::new(), ..verdict }
}

fn judge<M>(name: String, bounds: String, builder: CheckerBuilder<M>) -> Verdict
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    #[expect(clippy::disallowed_methods, reason = "no model knows how long its search takes")]
    let begun = Instant::now();
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut broken = Vec::new();
    let mut unreachable = Vec::new();
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match (property.expectation.discovery_is_failure(), found) {
            (true, Some(path)) => {
                let steps = path.into_actions().into_iter();
                let steps = steps.map(|action| checker.model().format_action(&action)).collect();
                broken.push(Broken { promise: property.name, steps });
            }
            (false, None) => unreachable.push(property.name),
            _ => {}
        }
    }
    if !broken.is_empty() {
        // The search ended early: what it had not seen by then says nothing.
        unreachable.clear();
    }
    Verdict {
        name,
        bounds,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        broken,
        unreachable,
    }
}
