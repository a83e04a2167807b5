//! Selectors: which sample of a series is seen at a time, and which are seen in a window.

use super::over::Window;
use super::{Context, Curve, Evaluated, Grid, Samples, absent, is_present};
use crate::labels::Labels;
use crate::limits::LOOKBACK_MS;
use crate::span::Span;
use crate::syntax::{At, Expr, Selector, When};

impl Context<'_> {
    /// The time that is looked at, for a time of evaluation.
    pub fn moment(&self, when: When, time_ms: i64) -> i64 {
        let base = match when.at {
            None => time_ms,
            Some(At::Time(at_ms)) => at_ms,
            Some(At::Start) => self.start_ms,
            Some(At::End) => self.end_ms,
        };
        base - when.offset_ms
    }

    /// The newest sample of each series, not older than [`LOOKBACK_MS`]; or when it was taken, in
    /// seconds.
    pub fn selector(&self, selector: &Selector, grid: &Grid, times: bool) -> Evaluated<Vec<Curve>> {
        let found = self.select(&selector.matchers)?;
        let moments: Vec<i64> = grid.times().map(|time| self.moment(selector.when, time)).collect();
        let (from, until) = ends(&moments);
        let mut spans = Vec::new();
        let mut curves = Vec::with_capacity(found.len());
        for (series, labels) in found {
            spans.clear();
            self.source.read(series, from - LOOKBACK_MS, until, &mut spans);
            self.look_at(spans.len())?;
            self.use_values(moments.len())?;
            let mut at = 0;
            let seen = moments.iter().map(|moment| {
                while at < spans.len() && spans[at].first_ms <= *moment {
                    at += 1;
                }
                let sample = at.checked_sub(1).and_then(|last| newest(&spans[last], *moment));
                match sample {
                    Some((taken_ms, _)) if times => taken_ms as f64 / 1000.0,
                    Some((_, value)) => value,
                    None => absent(),
                }
            });
            curves.push(Curve { labels, values: seen.collect() });
        }
        Ok(curves)
    }

    /// For each series of a range, `see` gets the window of each time of the grid.
    pub fn windows(
        &self,
        expr: &Expr,
        grid: &Grid,
        mut see: impl FnMut(usize, &Window) -> f64,
    ) -> Evaluated<Vec<Curve>> {
        let mut curves = Vec::new();
        self.ranges(expr, grid, |context, labels, spans, moments, range_ms| {
            let (mut first, mut clipped) = (0, Vec::new());
            let mut values = Vec::with_capacity(moments.len());
            for (index, until_ms) in moments.iter().copied().enumerate() {
                let from_ms = until_ms - range_ms;
                while first < spans.len() && spans[first].last_ms < from_ms {
                    first += 1;
                }
                let length = spans[first..].partition_point(|span| span.first_ms <= until_ms);
                context.look_at(length + 1)?;
                let spans = &spans[first..first + length];
                // Where a step reaches over an end of the window, there were samples up to that end.
                let began = spans.first().is_some_and(|span| span.first_ms < from_ms);
                let goes_on = spans.last().is_some_and(|span| span.last_ms > until_ms);
                let spans = clip(spans, from_ms, until_ms, &mut clipped);
                let window = Window {
                    spans,
                    began,
                    goes_on,
                    from_ms,
                    until_ms,
                    time_ms: grid.start_ms + index as i64 * grid.step_ms,
                };
                values.push(if spans.is_empty() { absent() } else { see(index, &window) });
            }
            curves.push(Curve { labels, values });
            Ok(())
        })?;
        Ok(curves)
    }

    /// The samples of each series of a range, at one time.
    pub fn matrix(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<Samples>> {
        let mut matrix = Vec::new();
        self.ranges(expr, grid, |_, labels, spans, moments, range_ms| {
            let mut clipped = Vec::new();
            let (from_ms, until_ms) = (moments[0] - range_ms, moments[0]);
            let first = spans.partition_point(|span| span.last_ms < from_ms);
            let spans = clip(&spans[first..], from_ms, until_ms, &mut clipped);
            self.use_values(spans.len())?;
            if !spans.is_empty() {
                let samples = spans.iter().map(|span| (span.last_ms, span.last)).collect();
                matrix.push(Samples { labels, samples });
            }
            Ok(())
        })?;
        Ok(matrix)
    }

    /// For each series of a range selector or subquery: its spans without stale markers, the end of the
    /// window at each time of the grid, and the length of the window.
    fn ranges(
        &self,
        expr: &Expr,
        grid: &Grid,
        mut see: impl FnMut(&Self, Labels, &[Span], &[i64], i64) -> Evaluated<()>,
    ) -> Evaluated<()> {
        match expr {
            Expr::Range(selector, range_ms) => {
                let found = self.select(&selector.matchers)?;
                let moments: Vec<i64> =
                    grid.times().map(|time| self.moment(selector.when, time)).collect();
                let (from, until) = ends(&moments);
                let mut spans = Vec::new();
                for (series, labels) in found {
                    spans.clear();
                    self.source.read(series, from - range_ms, until, &mut spans);
                    self.look_at(spans.len())?;
                    self.use_values(moments.len())?;
                    spans.retain(|span| span.count > 0);
                    see(self, labels, &spans, &moments, *range_ms)?;
                }
                Ok(())
            }
            Expr::Subquery(subquery) => {
                let moments: Vec<i64> =
                    grid.times().map(|time| self.moment(subquery.when, time)).collect();
                let Some(inner) = self.subgrid(subquery, grid)? else { return Ok(()) };
                for curve in self.vector(&subquery.expr, &inner)? {
                    let present =
                        inner.times().zip(curve.values).filter(|(_, value)| is_present(*value));
                    let spans: Vec<Span> =
                        present.map(|(at_ms, value)| Span::of(at_ms, value)).collect();
                    see(self, curve.labels, &spans, &moments, subquery.range_ms)?;
                }
                Ok(())
            }
            _ => Err(super::EvaluateError::Kind(expr.kind().name())),
        }
    }
}

/// The newest sample of a span that began before a time.
fn newest(span: &Span, at_ms: i64) -> Option<(i64, f64)> {
    let (taken_ms, value) = match span {
        span if span.count == 0 || (span.stale && span.last_ms < at_ms) => return None,
        span if span.last_ms <= at_ms => (span.last_ms, span.last),
        span => (span.first_ms, span.first),
    };
    (at_ms - taken_ms <= LOOKBACK_MS).then_some((taken_ms, value))
}

/// Spans that touch a window, without what is outside of it.
fn clip<'a>(
    spans: &'a [Span],
    from_ms: i64,
    until_ms: i64,
    clipped: &'a mut Vec<Span>,
) -> &'a [Span] {
    let spans = &spans[..spans.partition_point(|span| span.first_ms <= until_ms)];
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return spans };
    if first.first_ms >= from_ms && last.last_ms <= until_ms {
        return spans;
    }
    clipped.clear();
    for span in spans {
        match (span.first_ms >= from_ms, span.last_ms <= until_ms) {
            (true, true) => clipped.push(*span),
            (false, true) => clipped.push(span.tail()),
            (true, false) => clipped.push(span.head()),
            (false, false) => {}
        }
    }
    clipped
}

fn ends(moments: &[i64]) -> (i64, i64) {
    // Times only grow along a grid, and `@` makes them all the same.
    (moments.first().copied().unwrap_or(0), moments.last().copied().unwrap_or(0))
}
