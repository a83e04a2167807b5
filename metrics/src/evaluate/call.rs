//! Functions that are not of a window of samples.

use super::aggregate::rank;
use super::{
    Context, Curve, Date, EvaluateError, Evaluated, Grid, Value, absent, each, is_present, unique,
};
use crate::labels::{Labels, Matching, NAME, anchored, is_label_name};
use crate::limits::LABEL_VALUE_BYTES_MAX;
use crate::syntax::{Expr, Function, How, Over};

impl Context<'_> {
    pub fn call(&self, function: &Function, arguments: &[Expr], grid: &Grid) -> Evaluated<Value> {
        let seconds = || grid.times().map(|time| time as f64 / 1000.0);
        let vector = |index: usize| self.vector(&arguments[index], grid);
        let scalar = |index: usize| self.scalar(&arguments[index], grid);
        let curves = match function.how {
            How::Over(over) => self.over(over, arguments, grid)?,
            How::Each(function) => each(vector(0)?, |value, _| function(value))?,
            How::Date(part) => match arguments.first() {
                Some(argument) => {
                    each(self.vector(argument, grid)?, |value, _| part(&Date::of(value)))?
                }
                None => {
                    let values = seconds().map(|seconds| part(&Date::of(seconds))).collect();
                    vec![Curve { labels: Labels::default(), values }]
                }
            },
            How::Absent => self.absent(&arguments[0], vector(0)?, grid),
            How::AbsentOverTime => {
                let present = self.windows(&arguments[0], grid, |_, _| 1.0)?;
                self.absent(&arguments[0], present, grid)
            }
            How::Clamp => {
                let (low, high) = (scalar(1)?, scalar(2)?);
                let clamped = each(vector(0)?, |value, index| {
                    if low[index] > high[index] {
                        absent()
                    } else {
                        least(high[index], most(low[index], value))
                    }
                });
                clamped?
            }
            How::ClampMin => {
                let low = scalar(1)?;
                each(vector(0)?, |value, index| most(low[index], value))?
            }
            How::ClampMax => {
                let high = scalar(1)?;
                each(vector(0)?, |value, index| least(high[index], value))?
            }
            How::Round => {
                let nearest = match arguments.get(1) {
                    Some(argument) => self.scalar(argument, grid)?,
                    None => vec![1.0; grid.len()],
                };
                // Prometheus inverts, so that 0.1 is exact.
                each(vector(0)?, |value, index| {
                    let inverse = 1.0 / nearest[index];
                    (value * inverse + 0.5).floor() / inverse
                })?
            }
            How::HistogramQuantile => self.histogram_quantile(arguments, grid)?,
            How::LabelReplace => label_replace(vector(0)?, arguments)?,
            How::LabelJoin => label_join(vector(0)?, arguments)?,
            How::Sort | How::SortDesc => {
                let largest = matches!(function.how, How::SortDesc);
                let mut curves = vector(0)?;
                if grid.len() == 1 {
                    curves.sort_by(|left, right| rank(left.values[0], right.values[0], largest));
                }
                curves
            }
            How::Timestamp => match &arguments[0] {
                Expr::Selector(selector) => {
                    let curves = self.selector(selector, grid, true)?;
                    each(curves, |value, _| value)?
                }
                argument => {
                    let times: Vec<f64> = seconds().collect();
                    each(self.vector(argument, grid)?, |_, index| times[index])?
                }
            },
            How::Vector => vec![Curve { labels: Labels::default(), values: scalar(0)? }],
            How::Scalar => return vector(0).map(|curves| Value::Scalar(only(&curves, grid))),
            How::Time => return Ok(Value::Scalar(seconds().collect())),
            How::Pi => return Ok(Value::Scalar(vec![std::f64::consts::PI; grid.len()])),
        };
        Ok(Value::Vector(curves))
    }

    fn over(&self, over: Over, arguments: &[Expr], grid: &Grid) -> Evaluated<Vec<Curve>> {
        let (range, parameters) = match over {
            Over::Quantile => (&arguments[1], vec![self.scalar(&arguments[0], grid)?]),
            Over::PredictLinear => (&arguments[0], vec![self.scalar(&arguments[1], grid)?]),
            Over::HoltWinters => {
                let factor = |index: usize, what| {
                    let factors = self.scalar(&arguments[index], grid)?;
                    let odd = factors.iter().find(|factor| !(**factor > 0.0 && **factor < 1.0));
                    match odd {
                        None => Ok(factors),
                        Some(odd) => Err(EvaluateError::Argument(format!(
                            "invalid {what} factor. Expected: 0 < factor < 1, got: {odd}"
                        ))),
                    }
                };
                (&arguments[0], vec![factor(1, "smoothing")?, factor(2, "trend")?])
            }
            _ => (&arguments[0], Vec::new()),
        };
        let parameter = |which: usize, index: usize| {
            let values: Option<&Vec<f64>> = parameters.get(which);
            values.map_or(0.0, |values| values[index])
        };
        let mut curves = self.windows(range, grid, |index, window| {
            window.value(over, [parameter(0, index), parameter(1, index)])
        })?;
        if !over.keeps_name() {
            for curve in &mut curves {
                curve.labels = std::mem::take(&mut curve.labels).without_name();
            }
        }
        unique(curves)
    }

    /// 1 where there is no series, with the labels that its selector says it should have.
    fn absent(&self, argument: &Expr, curves: Vec<Curve>, grid: &Grid) -> Vec<Curve> {
        let none = |index: usize| !curves.iter().any(|curve| is_present(curve.values[index]));
        let values =
            (0..grid.len()).map(|index| if none(index) { 1.0 } else { absent() }).collect();
        vec![Curve { labels: absent_labels(argument), values }]
    }
}

fn absent_labels(argument: &Expr) -> Labels {
    let matchers = match argument {
        Expr::Selector(selector) | Expr::Range(selector, _) => &selector.matchers,
        Expr::Part(_, original) => return absent_labels(original),
        _ => return Labels::default(),
    };
    let mut labels = Labels::default();
    for matcher in matchers.iter().filter(|matcher| matcher.label != NAME) {
        let twice = matchers.iter().filter(|other| other.label == matcher.label).count() > 1;
        if matcher.matching == Matching::Equal && !twice {
            labels.set(&matcher.label, &matcher.value);
        }
    }
    labels
}

/// The only value at each time; NaN where there is none, or several.
fn only(curves: &[Curve], grid: &Grid) -> Vec<f64> {
    let at = |index: usize| {
        let mut present =
            curves.iter().map(|curve| curve.values[index]).filter(|value| is_present(*value));
        match (present.next(), present.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    };
    (0..grid.len()).map(at).collect()
}

/// The larger one; NaN if one is, unless the other is infinite, as in Go.
fn most(left: f64, right: f64) -> f64 {
    if left == f64::INFINITY || right == f64::INFINITY {
        return f64::INFINITY;
    }
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.max(right) }
}

/// The smaller one, likewise.
fn least(left: f64, right: f64) -> f64 {
    -most(-left, -right)
}

/// The text of an argument that was checked to be one.
fn text(argument: &Expr) -> &str {
    match argument {
        Expr::Text(text) => text,
        _ => "",
    }
}

fn label_replace(curves: Vec<Curve>, arguments: &[Expr]) -> Evaluated<Vec<Curve>> {
    let [_, target, replacement, source, pattern] = arguments else {
        return Err(EvaluateError::Part);
    };
    let (target, replacement, source) = (text(target), text(replacement), text(source));
    if !is_label_name(target) {
        let reason = format!("invalid destination label name in label_replace(): {target}");
        return Err(EvaluateError::Argument(reason));
    }
    let pattern = anchored(text(pattern)).map_err(EvaluateError::Argument)?;
    let replaced = curves.into_iter().map(|mut curve| {
        if let Some(captures) = pattern.captures(curve.labels.value(source)) {
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            check_value(&value)?;
            curve.labels.set(target, &value);
        }
        Ok(curve)
    });
    unique(replaced.collect::<Evaluated<_>>()?)
}

fn label_join(curves: Vec<Curve>, arguments: &[Expr]) -> Evaluated<Vec<Curve>> {
    let [_, target, separator, sources @ ..] = arguments else { return Err(EvaluateError::Part) };
    let target = text(target);
    for label in std::iter::once(target).chain(sources.iter().map(text)) {
        if !is_label_name(label) {
            return Err(EvaluateError::Argument(format!(
                "invalid label name in label_join(): {label}"
            )));
        }
    }
    let joined = curves.into_iter().map(|mut curve| {
        let values: Vec<&str> =
            sources.iter().map(|source| curve.labels.value(text(source))).collect();
        let value = values.join(text(separator));
        check_value(&value)?;
        curve.labels.set(target, &value);
        Ok(curve)
    });
    unique(joined.collect::<Evaluated<_>>()?)
}

fn check_value(value: &str) -> Evaluated<()> {
    if value.len() <= LABEL_VALUE_BYTES_MAX {
        return Ok(());
    }
    let reason = format!(
        "a label would get a value of {} bytes; at most {LABEL_VALUE_BYTES_MAX} are kept",
        value.len()
    );
    Err(EvaluateError::Argument(reason))
}
