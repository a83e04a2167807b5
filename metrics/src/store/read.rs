//! Finding series and reading them.

use super::bits::Bits;
use super::blocks::NONE;
use super::codec::{Samples, Steps};
use super::{Series, Store};
use crate::labels::{Labels, Matcher};
use crate::limits::TIERS;
use crate::span::Span;

/// Where an evaluation finds its series: a store, or what was fetched from several.
pub trait Source {
    /// The series that all matchers fit, in the order of their labels.
    fn select(&self, matchers: &[Matcher]) -> Vec<(u32, Labels)>;

    /// How many series there are to choose from.
    fn size(&self) -> usize;

    /// Appends what a series has in `from_ms..=until_ms`, in order of time. A span that reaches over an
    /// end is given as a whole.
    fn read(&self, series: u32, from_ms: i64, until_ms: i64, into: &mut Vec<Span>);
}

impl Source for Store {
    fn select(&self, matchers: &[Matcher]) -> Vec<(u32, Labels)> {
        // Each matcher against each text once, not once a series.
        let mut verdicts: Vec<(Option<u32>, Vec<Option<bool>>, bool)> = matchers
            .iter()
            .map(|matcher| {
                let label = self.texts.find(&matcher.label);
                (label, vec![None; self.texts.end() as usize], matcher.matches(""))
            })
            .collect();
        let mut fits = |series: &Series| {
            verdicts.iter_mut().zip(matchers).all(|((label, verdicts, without), matcher)| {
                let value = label.and_then(|label| {
                    series.labels.iter().find(|(name, _)| *name == label).map(|(_, value)| *value)
                });
                match value {
                    None => *without,
                    Some(value) => *verdicts[value as usize]
                        .get_or_insert_with(|| matcher.matches(self.texts.text(value))),
                }
            })
        };
        let found = self.series.iter().filter(|(_, series)| fits(series));
        let mut found: Vec<_> = found.map(|(id, series)| (id, self.labels_of(series))).collect();
        found.sort_by(|(_, left), (_, right)| left.cmp(right));
        found
    }

    fn size(&self) -> usize {
        self.series.len()
    }

    /// The steps of the coarsest tier as far back as the next finer one does not reach, and so on to the
    /// raw samples.
    fn read(&self, series: u32, from_ms: i64, until_ms: i64, into: &mut Vec<Span>) {
        let Some(series) = self.series.get(series) else { return };
        let (from_ms, until_ms) = (self.inner(from_ms), self.inner(until_ms));
        // Where each tier's data begins, the raw samples' last.
        let mut begins = [i64::MAX; TIERS.len() + 1];
        begins[0] = self.begin(series.raw.head);
        for (number, tier) in series.tiers.iter().enumerate() {
            let open = tier.open.map_or(i64::MAX, |open| open.first_ms);
            begins[number + 1] = self.begin(tier.chain.head).min(open);
        }
        let mut done_ms = i64::MIN;
        for level in (0..begins.len()).rev() {
            let finer = begins[..level].iter().copied().min().unwrap_or(i64::MAX);
            let mut add = |span: Span| {
                // A step in which the finer data begins stands for its part of them.
                let wanted = span.first_ms > done_ms && (level == 0 || span.first_ms < finer);
                if wanted {
                    done_ms = span.last_ms;
                    if span.last_ms >= from_ms && span.first_ms <= until_ms {
                        into.push(span.shifted(self.shift_ms));
                    }
                }
                span.first_ms <= until_ms
            };
            if level == 0 {
                self.walk_raw(series.raw.head, from_ms, &mut add);
            } else if begins[level] < finer {
                let tier = &series.tiers[level - 1];
                let more = self.walk_steps(tier.chain.head, TIERS[level - 1].0, from_ms, &mut add);
                if let Some(open) = tier.open.filter(|_| more) {
                    add(open);
                }
            }
        }
    }
}

impl Store {
    /// The labels of a series that [`Source::select`] found.
    pub fn labels(&self, series: u32) -> Option<Labels> {
        self.series.get(series).map(|series| self.labels_of(series))
    }

    /// The last sample of every series that has one after `since_ms`, in no order: its labels, in the order of
    /// their names, its time, and its value, which may be the stale marker.
    pub fn newest(
        &self,
        since_ms: i64,
    ) -> impl Iterator<Item = (impl Iterator<Item = (&str, &str)>, i64, f64)> {
        let since_ms = self.inner(since_ms);
        let fresh = self.series.iter().filter(move |(_, series)| series.last_ms > since_ms);
        fresh.map(move |(_, series)| {
            let text = move |id| &**self.texts.text(id);
            let labels = series.labels.iter().map(move |(name, value)| (text(*name), text(*value)));
            (labels, series.last_ms + self.shift_ms, series.samples.last())
        })
    }

    fn labels_of(&self, series: &Series) -> Labels {
        let text = |id| self.texts.text(id).clone();
        Labels::from_sorted(
            series.labels.iter().map(|(name, value)| (text(*name), text(*value))).collect(),
        )
    }

    fn begin(&self, block: u32) -> i64 {
        if block == NONE { i64::MAX } else { self.blocks.at(block).first_ms }
    }

    fn walk_raw(&self, mut id: u32, from_ms: i64, add: &mut impl FnMut(Span) -> bool) {
        while id != NONE {
            let block = self.blocks.at(id);
            id = block.next;
            if block.end_ms() < from_ms {
                continue;
            }
            let mut bits = Bits::new(&block.words);
            let mut samples = Samples::new(block.first_ms);
            for _ in 0..block.records {
                let (at_ms, value) = samples.take(&mut bits);
                if !add(Span::of(at_ms, value)) {
                    return;
                }
            }
        }
    }

    fn walk_steps(
        &self,
        mut id: u32,
        step_ms: i64,
        from_ms: i64,
        add: &mut impl FnMut(Span) -> bool,
    ) -> bool {
        while id != NONE {
            let block = self.blocks.at(id);
            id = block.next;
            // Not skipped for `done_ms`: a block before `from_ms` cannot hide a later one.
            if block.end_ms() < from_ms {
                continue;
            }
            let mut bits = Bits::new(&block.words);
            let mut steps = Steps::new(block.first_ms, step_ms);
            for _ in 0..block.records {
                if !add(steps.take(&mut bits)) {
                    return false;
                }
            }
        }
        true
    }

    /// The state at the end of a block of steps.
    pub(super) fn steps(&self, id: u32, step_ms: i64) -> Steps {
        let block = self.blocks.at(id);
        let mut bits = Bits::new(&block.words);
        let mut steps = Steps::new(block.first_ms, step_ms);
        for _ in 0..block.records {
            steps.take(&mut bits);
        }
        steps
    }
}
