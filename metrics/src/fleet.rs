//! One question, answered by many nodes.
//!
//! [`Plan::of`] cuts an expression into parts. Each node [answers](Part::answer) a part over its own store;
//! answers [merge](Partial::merge) in any order and grouping; and [`Plan::finish`] evaluates what is left
//! of the expression over the merged answers. What comes out is what one store with all series would give.
//!
//! | expression | what a node sends |
//! |---|---|
//! | `sum`, `avg`, `min`, `max`, `count`, `group`, `stddev`, `stdvar` of what a node can evaluate alone | a [`Group`](crate::evaluate::Group) for each group and time |
//! | `topk(5, ...)`, `bottomk` of such | its own best five |
//! | `topk(5, sum by (...) (...))` | its largest groups; what it left out becomes an error bound |
//! | everything else that it can evaluate alone | the resulting series |
//! | a range selector as the whole query | its samples |
//!
//! A node can evaluate alone what never brings two of its series together with another node's: selectors,
//! functions, and operations that keep the *home* label, which every series has and which is different on
//! every store. Aggregated are thus `sum(rate(a[5m]) / b)` (pairs have equal labels, also the home label)
//! but not `sum(a / on (job) b)`: there both sides are fetched, and what that may cost is bounded by
//! [`Limits`] like everything.

mod partial;
mod split;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::partial::{Partial, Row};
use crate::evaluate::{
    Context, EvaluateError, Grid, Limits, Used, Value, at_all_times, at_one_time, finished,
};
use crate::labels::{Labels, Matcher};
use crate::limits::PARTS_MAX;
use crate::span::Span;
use crate::store::Source;
use crate::syntax::{Aggregation, Expr, Kind, parse};

/// An expression in parts.
#[derive(Clone, Debug)]
pub struct Plan {
    rest: Expr,
    parts: Vec<Part>,
    grid: Grid,
    is_range: bool,
}

/// What is asked of every node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// An expression, as text.
    pub expression: String,
    /// When it is evaluated.
    pub grid: Grid,
    /// Only the groups that matter are sent, if there are many.
    pub keep: Option<Keep>,
}

/// Which groups of a sum matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The largest ones; else the smallest.
    pub largest: bool,
    /// How many of each time.
    pub groups: u32,
}

/// An answer to the whole question.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The value.
    pub value: Value,
    /// What a reader must know: error bounds.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Of a query over a grid; `is_range`: not an instant one. `home` is the label that tells stores apart.
    pub fn of(expr: &Expr, grid: &Grid, is_range: bool, home: &str) -> Result<Self, EvaluateError> {
        if is_range && !matches!(expr.kind(), Kind::Scalar | Kind::Vector) {
            return Err(EvaluateError::Kind(expr.kind().name()));
        }
        let (rest, parts) = split::split(expr, grid, home)?;
        Ok(Plan { rest, parts, grid: *grid, is_range })
    }

    /// What is to be asked. Without parts the answer is known already.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Takes the merged answers to the parts, in their order.
    pub fn finish(&self, answers: Vec<Partial>, limits: Limits) -> Result<Finished, EvaluateError> {
        if answers.len() != self.parts.len() {
            return Err(EvaluateError::Part);
        }
        let mut warnings = Vec::new();
        let mut values = Vec::with_capacity(answers.len());
        for (part, answer) in self.parts.iter().zip(answers) {
            answer.check(part)?;
            warnings.extend(answer.warning(part));
            values.push((part.grid, answer.value(part)?));
        }
        // A range selector that was the whole query.
        if let (Expr::Part(0, original), [(_, Value::Matrix(_))]) = (&self.rest, &mut values[..])
            && original.kind() == Kind::Matrix
        {
            return Ok(Finished { value: values.remove(0).1, warnings });
        }
        let used = Used::default();
        let mut context = Context::new(&Nothing, &self.grid, limits, &used);
        context.parts = &values;
        let value = match &self.rest {
            rest if rest.kind() == Kind::Matrix && !self.is_range => {
                Value::Matrix(context.matrix(rest, &self.grid)?)
            }
            rest => finished(context.value(rest, &self.grid)?),
        };
        Ok(Finished { value, warnings })
    }
}

impl Part {
    /// One node's answer. The part may come from anywhere: it is checked like any query.
    pub fn answer(&self, source: &dyn Source, limits: Limits) -> Result<Partial, PartError> {
        self.answer_within(source, limits, &Used::default())
    }

    fn answer_within(
        &self,
        source: &dyn Source,
        limits: Limits,
        used: &Used,
    ) -> Result<Partial, PartError> {
        let expr = parse(&self.expression)?;
        let grid = self.grid;
        if let Expr::Aggregate(aggregate) = &expr
            && aggregate.operation.parameter().is_none()
        {
            let context = Context::new(source, &grid, limits, used);
            let rows = context.groups(aggregate, &grid)?;
            return Ok(Partial::of_groups(
                rows,
                self.keep.filter(|_| is_additive(aggregate.operation)),
                aggregate.operation,
            ));
        }
        let value = if expr.kind() == Kind::Matrix {
            let grid = Grid::instant(grid.start_ms())?;
            at_one_time(&expr, &grid, &Context::new(source, &grid, limits, used))?
        } else {
            at_all_times(&expr, &grid, &Context::new(source, &grid, limits, used))?
        };
        match value {
            Value::Vector(curves) => Ok(Partial::Curves(curves)),
            Value::Matrix(samples) => Ok(Partial::Samples(samples)),
            _ => Err(EvaluateError::Part.into()),
        }
    }

    /// What kind of value it has; `None` if it is no expression.
    fn kind(&self) -> Option<Kind> {
        parse(&self.expression).ok().map(|expr| expr.kind())
    }

    /// The aggregation whose groups are sent, if it is one.
    fn aggregation(&self) -> Option<Aggregation> {
        match parse(&self.expression) {
            Ok(Expr::Aggregate(aggregate)) if aggregate.operation.parameter().is_none() => {
                Some(aggregate.operation)
            }
            _ => None,
        }
    }
}

/// One node's answers to all parts of a question, which together may use what one query may: else a question of a
/// thousand parts would take as long as a thousand.
pub fn answer_all(
    parts: &[Part],
    source: &dyn Source,
    limits: Limits,
) -> Result<Vec<Partial>, PartError> {
    if parts.len() > PARTS_MAX {
        return Err(EvaluateError::Parts(parts.len()).into());
    }
    let used = Used::default();
    parts.iter().map(|part| part.answer_within(source, limits, &used)).collect()
}

/// Why a node does not answer a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Not an expression of this node's version.
    #[error(transparent)]
    Syntax(#[from] crate::syntax::SyntaxError),
    /// As of any query.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// Whether sums of parts are the whole's.
fn is_additive(operation: Aggregation) -> bool {
    matches!(operation, Aggregation::Sum | Aggregation::Count)
}

/// What the asker evaluates over has no series but the answers.
struct Nothing;

impl Source for Nothing {
    fn select(&self, _: &[Matcher]) -> Vec<(u32, Labels)> {
        Vec::new()
    }

    fn size(&self) -> usize {
        0
    }

    fn read(&self, _: u32, _: i64, _: i64, _: &mut Vec<Span>) {}
}
