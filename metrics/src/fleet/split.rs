//! Which part of an expression is evaluated where.

use std::sync::Arc;

use super::{Keep, Nothing, Part, is_additive};
use crate::evaluate::{Context, EvaluateError, Grid, Limits, Used};
use crate::limits::PARTIAL_GROUPS_MAX;
use crate::syntax::{
    Aggregate, Aggregation, At, Binary, Expr, Function, Grouping, How, Kind, Pairing, Subquery,
    When,
};

/// Where an expression can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Anywhere, to the same scalar: it looks at no series.
    Anywhere,
    /// On each node for its own series. Whether the results still have the home label.
    Node { home: bool },
    /// Only where all nodes' answers are.
    Asker,
}

pub(super) fn split(
    expr: &Expr,
    grid: &Grid,
    home: &str,
) -> Result<(Expr, Vec<Part>), EvaluateError> {
    let used = Used::default();
    let context = Context::new(&Nothing, grid, Limits::default(), &used);
    let mut splitter = Splitter { context, home, parts: Vec::new() };
    let rest = match (expr.kind(), splitter.place(expr)) {
        // A range of samples as the whole query.
        (Kind::Matrix, Place::Node { .. }) => splitter.part(expr, grid, None),
        _ => splitter.split(expr, grid, None)?,
    };
    Ok((rest, splitter.parts))
}

struct Splitter<'a> {
    context: Context<'a>,
    home: &'a str,
    parts: Vec<Part>,
}

impl Splitter<'_> {
    /// `keep`: what is around the expression needs only some groups of it.
    fn split(
        &mut self,
        expr: &Expr,
        grid: &Grid,
        keep: Option<Keep>,
    ) -> Result<Expr, EvaluateError> {
        match self.place(expr) {
            Place::Anywhere => return Ok(expr.clone()),
            Place::Node { .. } if expr.kind() != Kind::Matrix => {
                return Ok(self.part(expr, grid, None));
            }
            _ => {}
        }
        Ok(match expr {
            Expr::Negative(inner) => Expr::Negative(Box::new(self.split(inner, grid, None)?)),
            Expr::Binary(binary) => {
                let left = self.split(&binary.left, grid, None)?;
                let right = self.split(&binary.right, grid, None)?;
                Expr::Binary(Box::new(Binary { left, right, ..(**binary).clone() }))
            }
            Expr::Aggregate(aggregate) => return self.aggregate(aggregate, grid, keep),
            Expr::Call(function, arguments) if matches!(function.how, How::AbsentOverTime) => {
                return self.absent_over_time(&arguments[0], grid);
            }
            Expr::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| self.split(argument, grid, None));
                Expr::Call(function, arguments.collect::<Result<_, _>>()?)
            }
            Expr::Subquery(subquery) => match self.context.subgrid(subquery, grid)? {
                Some(inner) => {
                    let expr = self.split(&subquery.expr, &inner, None)?;
                    Expr::Subquery(Box::new(Subquery { expr, ..(**subquery).clone() }))
                }
                None => expr.clone(),
            },
            Expr::Range(..) => return Err(EvaluateError::Fleet(expr.to_string())),
            other => other.clone(),
        })
    }

    /// As `absent(present_over_time(...))`: who has something says so.
    fn absent_over_time(&mut self, range: &Expr, grid: &Grid) -> Result<Expr, EvaluateError> {
        let named = |name| Function::named(name).ok_or(EvaluateError::Part);
        let present = Expr::Call(named("present_over_time")?, vec![range.clone()]);
        let argument = match (self.split(&present, grid, None)?, range) {
            // The labels of the answer are those of the selector.
            (Expr::Part(number, _), Expr::Range(selector, _)) => {
                Expr::Part(number, Arc::new(Expr::Selector(selector.clone())))
            }
            (argument, _) => argument,
        };
        Ok(Expr::Call(named("absent")?, vec![argument]))
    }

    fn aggregate(
        &mut self,
        aggregate: &Aggregate,
        grid: &Grid,
        keep: Option<Keep>,
    ) -> Result<Expr, EvaluateError> {
        let whole = || Expr::Aggregate(Box::new(aggregate.clone()));
        let alone = matches!(self.place(&aggregate.expr), Place::Node { .. });
        let Some(parameter) = &aggregate.parameter else {
            if alone {
                return Ok(self.part(
                    &whole(),
                    grid,
                    keep.filter(|_| is_additive(aggregate.operation)),
                ));
            }
            let expr = self.split(&aggregate.expr, grid, None)?;
            return Ok(Expr::Aggregate(Box::new(Aggregate { expr, ..aggregate.clone() })));
        };
        let largest = aggregate.operation == Aggregation::Topk;
        let choice = largest || aggregate.operation == Aggregation::Bottomk;
        let expr = match parameter {
            // The best of all are among the best of each.
            Expr::Number(_) if choice && alone => self.part(&whole(), grid, None),
            Expr::Number(count) if choice => {
                // In each group of a choice by labels there may be as many.
                let single = !aggregate.grouping.without && aggregate.grouping.labels.is_empty();
                let groups = PARTIAL_GROUPS_MAX.max((*count).clamp(0.0, 1e6) as usize * 8) as u32;
                self.split(&aggregate.expr, grid, single.then_some(Keep { largest, groups }))?
            }
            _ => self.split(&aggregate.expr, grid, None)?,
        };
        let parameter = Some(self.split(parameter, grid, None)?);
        Ok(Expr::Aggregate(Box::new(Aggregate { expr, parameter, ..aggregate.clone() })))
    }

    fn part(&mut self, expr: &Expr, grid: &Grid, keep: Option<Keep>) -> Expr {
        let expression = self.pinned(expr).to_string();
        let part = Part { expression, grid: *grid, keep };
        let number = self.parts.iter().position(|known| *known == part).unwrap_or(self.parts.len());
        if number == self.parts.len() {
            self.parts.push(part);
        }
        Expr::Part(number, Arc::new(expr.clone()))
    }

    /// With times in place of `@ start()` and `@ end()`, which a part's grid does not have.
    fn pinned(&self, expr: &Expr) -> Expr {
        let pin = |when: When| When {
            at: when.at.map(|at| match at {
                At::Start => At::Time(self.context.start_ms),
                At::End => At::Time(self.context.end_ms),
                time => time,
            }),
            ..when
        };
        match expr {
            Expr::Selector(selector) => {
                let mut selector = selector.clone();
                selector.when = pin(selector.when);
                Expr::Selector(selector)
            }
            Expr::Range(selector, range_ms) => {
                let mut selector = selector.clone();
                selector.when = pin(selector.when);
                Expr::Range(selector, *range_ms)
            }
            Expr::Subquery(subquery) => {
                let (expr, when) = (self.pinned(&subquery.expr), pin(subquery.when));
                Expr::Subquery(Box::new(Subquery { expr, when, ..(**subquery).clone() }))
            }
            Expr::Negative(inner) => Expr::Negative(Box::new(self.pinned(inner))),
            Expr::Binary(binary) => {
                let (left, right) = (self.pinned(&binary.left), self.pinned(&binary.right));
                Expr::Binary(Box::new(Binary { left, right, ..(**binary).clone() }))
            }
            Expr::Aggregate(aggregate) => {
                let expr = self.pinned(&aggregate.expr);
                let parameter =
                    aggregate.parameter.as_ref().map(|parameter| self.pinned(parameter));
                Expr::Aggregate(Box::new(Aggregate { expr, parameter, ..(**aggregate).clone() }))
            }
            Expr::Call(function, arguments) => Expr::Call(
                function,
                arguments.iter().map(|argument| self.pinned(argument)).collect(),
            ),
            other => other.clone(),
        }
    }

    fn place(&self, expr: &Expr) -> Place {
        match expr {
            Expr::Number(_) | Expr::Text(_) => Place::Anywhere,
            Expr::Selector(_) | Expr::Range(..) => Place::Node { home: true },
            Expr::Subquery(subquery) => self.place(&subquery.expr),
            Expr::Negative(inner) => self.place(inner),
            Expr::Binary(binary) => self.place_of_binary(binary),
            Expr::Aggregate(aggregate) => {
                let parameter = aggregate.parameter.as_ref().map(|parameter| self.place(parameter));
                let overwritten =
                    matches!(&aggregate.parameter, Some(Expr::Text(label)) if label == self.home);
                let alone = self.place(&aggregate.expr) == Place::Node { home: true }
                    && parameter.is_none_or(|place| place == Place::Anywhere)
                    && !overwritten
                    && self.keeps_home(&aggregate.grouping);
                if alone { Place::Node { home: true } } else { Place::Asker }
            }
            Expr::Call(function, arguments) => self.place_of_call(function.how, arguments),
            Expr::Part(..) => Place::Asker,
        }
    }

    fn place_of_binary(&self, binary: &Binary) -> Place {
        let (left, right) = (self.place(&binary.left), self.place(&binary.right));
        let scalar = |expr: &Expr| expr.kind() == Kind::Scalar;
        match (left, right) {
            (Place::Anywhere, Place::Anywhere) => Place::Anywhere,
            (Place::Anywhere, node @ Place::Node { .. }) if scalar(&binary.left) => node,
            (node @ Place::Node { .. }, Place::Anywhere) if scalar(&binary.right) => node,
            (Place::Node { home: true }, Place::Node { home: true }) => {
                let Pairing { on, labels, .. } = &binary.pairing;
                if labels.iter().any(|label| label == self.home) == *on {
                    Place::Node { home: true }
                } else {
                    Place::Asker
                }
            }
            _ => Place::Asker,
        }
    }

    fn place_of_call(&self, how: How, arguments: &[Expr]) -> Place {
        let places: Vec<Place> = arguments.iter().map(|argument| self.place(argument)).collect();
        let node = places.iter().copied().find(|place| matches!(place, Place::Node { .. }));
        let others = places.iter().all(|place| *place == Place::Anywhere || Some(*place) == node);
        match (how, node) {
            (How::Time | How::Pi, _) => Place::Anywhere,
            // One more vector on each node would be one too many; what is missing on one node may be on
            // another; and order is lost on the way.
            (
                How::Vector
                | How::Scalar
                | How::Absent
                | How::AbsentOverTime
                | How::Sort
                | How::SortDesc,
                _,
            ) => Place::Asker,
            (How::HistogramQuantile, Some(Place::Node { home: false })) => Place::Asker,
            (How::LabelReplace | How::LabelJoin, Some(place)) if others => match &arguments[1] {
                Expr::Text(label) if label == self.home => Place::Node { home: false },
                _ => place,
            },
            (_, Some(place)) if others => place,
            // Dates without an argument are a vector of no node.
            _ => Place::Asker,
        }
    }

    fn keeps_home(&self, grouping: &Grouping) -> bool {
        grouping.labels.iter().any(|label| label == self.home) != grouping.without
    }
}
