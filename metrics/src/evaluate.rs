//! Evaluates an expression over the series of a [`Source`], as Prometheus 2.42 does.
//!
//! An instant query is a [`Grid`] of one time, a range query one of many; every operation works on
//! whole series over the grid. Each query has a budget of series, values and samples ([`Limits`]): there
//! is no clock here, and what would take too long is refused by what it looks at.
//!
//! # What is seen of down-sampled data
//!
//! A step (a [`Span`](crate::span::Span)) is never seen outside of its time. One that reaches over the start of a window
//! is seen as its last sample, one that reaches over the end as its first; one within is seen as follows:
//!
//! | what | sees |
//! |---|---|
//! | a selector, `timestamp` | the last sample of the step; within the step, its first |
//! | `count_`, `sum_`, `avg_`, `min_`, `max_`, `last_`, `present_`, `absent_over_time` | all samples |
//! | `rate`, `increase`, `delta`, `changes`, `resets` | all samples, with every reset; the first three extrapolate to an end that a step reaches over |
//! | `irate`, `idelta`, `deriv`, `holt_winters`, `predict_linear`, `mad_`, `quantile_`, `stddev_`, `stdvar_over_time` | the last sample of each step |
//! | a range selector as the whole query | the last sample of each step |

mod aggregate;
mod call;
mod date;
mod histogram;
mod over;
mod pair;
mod select;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;

pub use self::aggregate::{Group, quantile};
pub use self::date::Date;
pub use self::histogram::bucket_quantile;
use crate::labels::{Labels, Matcher};
use crate::limits::{
    PARTS_MAX, QUERY_SAMPLES_MAX, QUERY_SERIES_MAX, QUERY_VALUES_MAX, STEPS_MAX, SUBQUERY_STEP_MS,
    TIME_MS_MAX,
};
use crate::span::{is_stale, stale_marker};
use crate::store::Source;
use crate::syntax::{Expr, Kind};
use serde::{Deserialize, Serialize};

/// The times at which an expression is evaluated.
///
/// Invariants: `start_ms <= end_ms`, `step_ms > 0`, both times within [`TIME_MS_MAX`] of the epoch, at most
/// [`QUERY_VALUES_MAX`] times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(i64, i64, i64)", into = "(i64, i64, i64)")]
pub struct Grid {
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
}

impl Grid {
    /// One time.
    pub fn instant(at_ms: i64) -> Result<Self, EvaluateError> {
        Self::range(at_ms, at_ms, 1)
    }

    /// From `start_ms` to `end_ms`, both included, every `step_ms`: at most [`STEPS_MAX`] times.
    pub fn range(start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Self, EvaluateError> {
        let grid = Self::ordered(start_ms, end_ms, step_ms)?;
        if grid.len() > STEPS_MAX { Err(EvaluateError::Steps(grid.len())) } else { Ok(grid) }
    }

    /// As long as there may be values: a subquery evaluates more often than a query.
    fn bounded(start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Self, EvaluateError> {
        let grid = Self::ordered(start_ms, end_ms, step_ms)?;
        let bound = QUERY_VALUES_MAX;
        if grid.len() as u64 > bound { Err(EvaluateError::Values(bound)) } else { Ok(grid) }
    }

    fn ordered(start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Self, EvaluateError> {
        let time = |ms: i64| (-TIME_MS_MAX..=TIME_MS_MAX).contains(&ms);
        if !time(start_ms) || !time(end_ms) || step_ms <= 0 || end_ms < start_ms {
            return Err(EvaluateError::Range);
        }
        Ok(Grid { start_ms, end_ms, step_ms })
    }

    /// How many times.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        ((self.end_ms - self.start_ms) / self.step_ms) as usize + 1
    }

    /// All of them.
    pub fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let grid = *self;
        (0..grid.len() as i64).map(move |index| grid.start_ms + index * grid.step_ms)
    }

    /// The first time.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// No time is later.
    pub fn end_ms(&self) -> i64 {
        self.end_ms
    }

    /// Between two times.
    pub fn step_ms(&self) -> i64 {
        self.step_ms
    }
}

impl TryFrom<(i64, i64, i64)> for Grid {
    type Error = EvaluateError;

    fn try_from((start_ms, end_ms, step_ms): (i64, i64, i64)) -> Result<Self, EvaluateError> {
        Self::bounded(start_ms, end_ms, step_ms)
    }
}

impl From<Grid> for (i64, i64, i64) {
    fn from(grid: Grid) -> Self {
        (grid.start_ms, grid.end_ms, grid.step_ms)
    }
}

/// One series over a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Its labels.
    pub labels: Labels,
    /// A value for each time of the grid; the [stale marker](crate::span::stale_marker) where there is none.
    pub values: Vec<f64>,
}

/// One series with samples at times of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Its labels.
    pub labels: Labels,
    /// Milliseconds and value, in order of time.
    pub samples: Vec<(i64, f64)>,
}

/// The bits that say 'no value here': those of the stale marker, which is never a value.
pub(crate) fn absent() -> f64 {
    stale_marker()
}

/// Whether there is a value.
pub(crate) fn is_present(value: f64) -> bool {
    !is_stale(value)
}

/// What an expression evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number at each time of the grid.
    Scalar(Vec<f64>),
    /// Series over the grid.
    Vector(Vec<Curve>),
    /// Samples of series, with their own times.
    Matrix(Vec<Samples>),
    /// A text.
    Text(String),
}

/// What a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Series that its selectors find together.
    pub series: usize,
    /// Values that its operations make, all together.
    pub values: u64,
    /// Samples looked at: those of overlapping windows count in each.
    pub samples: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { series: QUERY_SERIES_MAX, values: QUERY_VALUES_MAX, samples: QUERY_SAMPLES_MAX }
    }
}

/// What was used of [`Limits`] so far. Evaluations that share it have together what one may use.
#[derive(Debug, Default)]
pub(crate) struct Used {
    series: Cell<usize>,
    values: Cell<u64>,
    samples: Cell<u64>,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The times of the query are the wrong way round, or out of all bounds.
    #[error("the query ends before it starts, has no step, or is outside of the years 0 to 9999")]
    Range,
    /// More than [`STEPS_MAX`].
    #[error(
        "the query has {0} steps; at most {STEPS_MAX} are evaluated: use a larger step or a shorter range"
    )]
    Steps(usize),
    /// Only for instant queries.
    #[error("invalid expression type \"{0}\" for range query, must be Scalar or instant Vector")]
    Kind(&'static str),
    /// See [`Limits::series`].
    #[error("the query finds more than {0} series: add matchers, or ask fewer nodes")]
    Series(usize),
    /// See [`Limits::values`].
    #[error(
        "the query makes more than {0} values: use a shorter range or subquery, a larger step, or more matchers"
    )]
    Values(u64),
    /// See [`Limits::samples`].
    #[error(
        "the query looks at more than {0} samples: use shorter windows, a larger step, or more matchers"
    )]
    Samples(u64),
    /// An operation makes two series of one.
    #[error("vector cannot contain metrics with the same labelset: {0}")]
    SameLabels(String),
    /// Vector matching.
    #[error("{0}")]
    Matching(String),
    /// An argument that only evaluation can check.
    #[error("{0}")]
    Argument(String),
    /// Only for many nodes.
    #[error(
        "{0} would have to be fetched from every node, because something beside it depends on all of them: ask one node (scope=node), or write a number there"
    )]
    Fleet(String),
    /// More than [`PARTS_MAX`].
    #[error(
        "the query would be cut into {0} parts for the other nodes, {PARTS_MAX} at most are answered: write fewer selectors, or ask one node (scope=node)"
    )]
    Parts(usize),
    /// A part that belongs to another query, or is not as it was asked for.
    #[error("an answer to a part of the query does not fit the query")]
    Part,
}

/// Evaluates at one time.
pub fn instant(
    expr: &Expr,
    source: &dyn Source,
    at_ms: i64,
    limits: Limits,
) -> Result<Value, EvaluateError> {
    let used = Used::default();
    let grid = Grid::instant(at_ms)?;
    at_one_time(expr, &grid, &Context::new(source, &grid, limits, &used))
}

/// Evaluates at the only time of a grid.
pub(crate) fn at_one_time(expr: &Expr, grid: &Grid, context: &Context) -> Evaluated<Value> {
    match expr {
        Expr::Text(text) => Ok(Value::Text(text.clone())),
        Expr::Range(..) | Expr::Subquery(_) => context.matrix(expr, grid).map(Value::Matrix),
        _ => context.value(expr, grid).map(finished),
    }
}

/// Evaluates at all times of a grid.
pub fn range(
    expr: &Expr,
    source: &dyn Source,
    grid: &Grid,
    limits: Limits,
) -> Result<Value, EvaluateError> {
    let used = Used::default();
    at_all_times(expr, grid, &Context::new(source, grid, limits, &used))
}

/// Evaluates at all times of a grid.
pub(crate) fn at_all_times(expr: &Expr, grid: &Grid, context: &Context) -> Evaluated<Value> {
    if !matches!(expr.kind(), Kind::Scalar | Kind::Vector) {
        return Err(EvaluateError::Kind(expr.kind().name()));
    }
    context.value(expr, grid).map(finished)
}

/// Series without any value are no part of an answer.
pub(crate) fn finished(value: Value) -> Value {
    match value {
        Value::Vector(mut curves) => {
            curves.retain(|curve| curve.values.iter().any(|value| is_present(*value)));
            Value::Vector(curves)
        }
        other => other,
    }
}

/// One query.
pub(crate) struct Context<'a> {
    pub source: &'a dyn Source,
    /// What was evaluated elsewhere, by the number of the part.
    pub parts: &'a [(Grid, Value)],
    /// Of the whole query, for `@ start()` and `@ end()`.
    pub start_ms: i64,
    pub end_ms: i64,
    pub limits: Limits,
    used: &'a Used,
}

type Evaluated<T> = Result<T, EvaluateError>;

impl<'a> Context<'a> {
    pub fn new(source: &'a dyn Source, grid: &Grid, limits: Limits, used: &'a Used) -> Self {
        Context { source, parts: &[], start_ms: grid.start_ms, end_ms: grid.end_ms, limits, used }
    }

    /// Anything but a range of samples.
    pub fn value(&self, expr: &Expr, grid: &Grid) -> Evaluated<Value> {
        match expr {
            Expr::Number(number) => {
                self.use_values(grid.len())?;
                Ok(Value::Scalar(vec![*number; grid.len()]))
            }
            Expr::Text(text) => Ok(Value::Text(text.clone())),
            Expr::Selector(selector) => self.selector(selector, grid, false).map(Value::Vector),
            Expr::Range(..) | Expr::Subquery(_) => Err(EvaluateError::Kind(expr.kind().name())),
            Expr::Negative(inner) => match self.value(inner, grid)? {
                Value::Scalar(values) => {
                    Ok(Value::Scalar(values.into_iter().map(|value| -value).collect()))
                }
                Value::Vector(curves) => each(curves, |value, _| -value).map(Value::Vector),
                other => Ok(other),
            },
            Expr::Binary(binary) => self.binary(binary, grid),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, grid).map(Value::Vector),
            Expr::Call(function, arguments) => self.call(function, arguments, grid),
            Expr::Part(number, original) => match self.parts.get(*number) {
                Some((same, value)) if same == grid => {
                    self.use_values(match value {
                        Value::Vector(curves) => curves.len() * grid.len(),
                        _ => grid.len(),
                    })?;
                    let fits = matches!(
                        (value, original.kind()),
                        (Value::Vector(_), Kind::Vector) | (Value::Scalar(_), Kind::Scalar)
                    );
                    if fits { Ok(value.clone()) } else { Err(EvaluateError::Part) }
                }
                _ => Err(EvaluateError::Part),
            },
        }
    }

    /// An expression that was checked to be a vector.
    pub fn vector(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<Curve>> {
        match self.value(expr, grid)? {
            Value::Vector(curves) => Ok(curves),
            _ => Err(EvaluateError::Part),
        }
    }

    /// An expression that was checked to be a scalar.
    pub fn scalar(&self, expr: &Expr, grid: &Grid) -> Evaluated<Vec<f64>> {
        match self.value(expr, grid)? {
            Value::Scalar(values) => Ok(values),
            _ => Err(EvaluateError::Part),
        }
    }

    /// The series that a selector finds. Looking for them counts, also where there are none: a query may have
    /// hundreds of selectors, and each tries its matchers on what all series have.
    pub fn select(&self, matchers: &[Matcher]) -> Evaluated<Vec<(u32, Labels)>> {
        let each: usize = matchers.iter().map(Matcher::cost).sum();
        self.look_at(each.saturating_mul(self.source.size()))?;
        let found = self.source.select(matchers);
        self.use_series(found.len())?;
        Ok(found)
    }

    /// Counts series that a selector found.
    pub fn use_series(&self, count: usize) -> Evaluated<()> {
        self.used.series.set(self.used.series.get().saturating_add(count));
        if self.used.series.get() > self.limits.series {
            return Err(EvaluateError::Series(self.limits.series));
        }
        Ok(())
    }

    /// Counts values before there is memory for them.
    pub fn use_values(&self, count: usize) -> Evaluated<()> {
        self.used.values.set(self.used.values.get().saturating_add(count as u64));
        if self.used.values.get() > self.limits.values {
            return Err(EvaluateError::Values(self.limits.values));
        }
        self.look_at(count)
    }

    /// Counts samples and values that are looked at.
    pub fn look_at(&self, count: usize) -> Evaluated<()> {
        self.used.samples.set(self.used.samples.get().saturating_add(count as u64));
        if self.used.samples.get() > self.limits.samples {
            return Err(EvaluateError::Samples(self.limits.samples));
        }
        Ok(())
    }

    /// The times at which a subquery's expression is evaluated: multiples of its step.
    pub fn subgrid(
        &self,
        subquery: &crate::syntax::Subquery,
        grid: &Grid,
    ) -> Evaluated<Option<Grid>> {
        let step_ms = subquery.step_ms.unwrap_or(SUBQUERY_STEP_MS);
        let first = self.moment(subquery.when, grid.start_ms);
        let last = self.moment(subquery.when, grid.end_ms);
        let from = first - subquery.range_ms;
        let start_ms = -(-from).div_euclid(step_ms) * step_ms;
        if start_ms > last {
            return Ok(None);
        }
        let grid = Grid::bounded(start_ms, last, step_ms)?;
        if grid.len() as u64 > self.limits.values {
            return Err(EvaluateError::Values(self.limits.values));
        }
        Ok(Some(grid))
    }
}

/// A function of single values, which makes the metric's name untrue. Also gets the index of the time.
pub(crate) fn each(
    curves: Vec<Curve>,
    function: impl Fn(f64, usize) -> f64,
) -> Evaluated<Vec<Curve>> {
    let curves = curves.into_iter().map(|mut curve| {
        for (index, value) in curve.values.iter_mut().enumerate() {
            if is_present(*value) {
                *value = function(*value, index);
            }
        }
        Curve { labels: curve.labels.without_name(), values: curve.values }
    });
    unique(curves.collect())
}

/// Series whose labels became equal are one series, if they are never there at the same time.
pub(crate) fn unique(curves: Vec<Curve>) -> Evaluated<Vec<Curve>> {
    let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
    let mut kept: Vec<Curve> = Vec::with_capacity(curves.len());
    for curve in curves {
        let Some(place) = places.get(&curve.labels) else {
            places.insert(curve.labels.clone(), kept.len());
            kept.push(curve);
            continue;
        };
        for (old, new) in kept[*place].values.iter_mut().zip(&curve.values) {
            if is_present(*new) {
                if is_present(*old) {
                    return Err(EvaluateError::SameLabels(curve.labels.to_string()));
                }
                *old = *new;
            }
        }
    }
    Ok(kept)
}
