//! Makes a journal that breaks an invariant as short as possible: takes acts out as long as what is left breaks
//! the same invariant.
//!
//! Delta debugging (Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): halves
//! first, then smaller and smaller parts. Every try is a run of its own, so tries are bounded.

use std::time::Duration;

use crate::journal::{Act, Entry, Journal};
use crate::run::Run;
use crate::swarm::{Why, go};
use crate::trace::Detail;

/// An invariant that broke during the turmoil has to break again at most this much later.
const LATER: Duration = Duration::from_secs(60);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Runs so far.
    pub tries: u32,
    /// Acts that are left.
    pub acts: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// It breaks the same invariant.
    pub journal: Journal,
    /// Runs that it took.
    pub tries: u32,
    /// When the invariant breaks, in world time, and in words.
    pub why: Why,
}

/// Shrinks `journal` with at most `tries_max` runs. `None`: it breaks nothing.
pub fn shrink(journal: &Journal, tries_max: u32, mut told: impl FnMut(Progress)) -> Option<Shrunk> {
    let mut run = Run::replay(journal, Detail::Nothing, false);
    let why = go(&mut run).err()?;
    let turmoil_ended = run.turmoil_ended();
    let broke = run.world.time;
    let mut shrinking = Shrinking {
        name: why.name(),
        give_up_at: (!turmoil_ended).then_some(broke + LATER),
        tries: 1,
        tries_max,
        best: Journal { breaks: Some(why.name()), ..journal.clone() },
        why,
    };
    if let (false, Some(started)) = (turmoil_ended, run.turmoil_began()) {
        let acts = shrinking.best.acts.iter();
        let before: Vec<Entry> =
            acts.filter(|entry| entry.at <= broke - started).cloned().collect();
        shrinking.keep_if_broken(before);
    }
    let mut parts = 2;
    while parts <= 2 * shrinking.best.acts.len() && shrinking.may_try() {
        let size = shrinking.best.acts.len().div_ceil(parts).max(1);
        let mut from = 0;
        let mut shorter = false;
        while from < shrinking.best.acts.len() && shrinking.may_try() {
            let mut left = shrinking.best.acts.clone();
            left.drain(from..(from + size).min(left.len()));
            if shrinking.keep_if_broken(left) {
                shorter = true;
            } else {
                from += size;
            }
            told(Progress { tries: shrinking.tries, acts: shrinking.best.acts.len() });
        }
        if size == 1 && !shorter {
            break;
        }
        parts = if shorter { parts.max(2) } else { parts * 2 };
    }
    shrinking.shorten(&mut told);
    let Shrinking { best: journal, tries, why, .. } = shrinking;
    Some(Shrunk { journal, tries, why })
}

struct Shrinking {
    name: String,
    give_up_at: Option<Duration>,
    tries: u32,
    tries_max: u32,
    best: Journal,
    why: Why,
}

impl Shrinking {
    fn may_try(&self) -> bool {
        self.tries < self.tries_max
    }

    fn keep_if_broken(&mut self, acts: Vec<Entry>) -> bool {
        if acts.len() > self.best.acts.len() || !self.may_try() {
            return false;
        }
        self.tries += 1;
        let candidate = Journal { acts, ..self.best.clone() };
        let mut run = Run::replay(&candidate, Detail::Nothing, false);
        run.give_up_at = self.give_up_at;
        match go(&mut run) {
            Err(why) if why.name() == self.name => {
                self.best = candidate;
                self.why = why;
                true
            }
            _ => false,
        }
    }

    /// Faults that last as long as needed are easier to understand: each is cut to a quarter if that will do.
    fn shorten(&mut self, told: &mut impl FnMut(Progress)) {
        for index in 0..self.best.acts.len() {
            let mut acts = self.best.acts.clone();
            let Act::Fault(_, lasting) = &mut acts[index].act else { continue };
            if *lasting < Duration::from_secs(4) || !self.may_try() {
                continue;
            }
            *lasting = Duration::from_millis(lasting.as_millis() as u64 / 4);
            self.keep_if_broken(acts);
            told(Progress { tries: self.tries, acts: self.best.acts.len() });
        }
    }
}

#[cfg(test)]
mod tests;
