//! Binary operations, and how series find each other for them.

use std::collections::BTreeMap;

use super::{Context, Curve, EvaluateError, Evaluated, Grid, Value, absent, is_present, unique};
use crate::labels::Labels;
use crate::syntax::{Binary, Many, Operator, Pairing};

impl Context<'_> {
    pub fn binary(&self, binary: &Binary, grid: &Grid) -> Evaluated<Value> {
        let (left, right) = (self.value(&binary.left, grid)?, self.value(&binary.right, grid)?);
        match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                let values = left.into_iter().zip(right);
                let values = values.map(|(left, right)| apply(binary.operator, left, right).0);
                Ok(Value::Scalar(values.collect()))
            }
            (Value::Vector(curves), Value::Scalar(scalar)) => {
                self.with_scalar(binary, curves, |value, index| (value, scalar[index]))
            }
            (Value::Scalar(scalar), Value::Vector(curves)) => {
                self.with_scalar(binary, curves, |value, index| (scalar[index], value))
            }
            (Value::Vector(left), Value::Vector(right)) => {
                self.look_at((left.len() + right.len()) * grid.len())?;
                if binary.operator.is_set() {
                    return combine(binary, left, right, grid.len()).map(Value::Vector);
                }
                self.paired(binary, left, right, grid.len()).map(Value::Vector)
            }
            _ => Err(EvaluateError::Part),
        }
    }

    fn with_scalar(
        &self,
        binary: &Binary,
        curves: Vec<Curve>,
        sides: impl Fn(f64, usize) -> (f64, f64),
    ) -> Evaluated<Value> {
        let compares = binary.operator.compares();
        let mut done = Vec::with_capacity(curves.len());
        for mut curve in curves {
            for (index, value) in
                curve.values.iter_mut().enumerate().filter(|(_, value)| is_present(**value))
            {
                let (left, right) = sides(*value, index);
                let (result, holds) = apply(binary.operator, left, right);
                *value = match (compares, binary.bool) {
                    (false, _) => result,
                    (true, true) => f64::from(holds),
                    (true, false) if holds => *value,
                    (true, false) => absent(),
                };
            }
            if !compares || binary.bool {
                curve.labels = curve.labels.without_name();
            }
            done.push(curve);
        }
        unique(done).map(Value::Vector)
    }

    /// One to one, or many to one.
    fn paired(
        &self,
        binary: &Binary,
        left: Vec<Curve>,
        right: Vec<Curve>,
        length: usize,
    ) -> Evaluated<Vec<Curve>> {
        let pairing = &binary.pairing;
        let swapped = pairing.many == Many::Right;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let mut keys = Keys::default();
        let many_keys: Vec<usize> =
            many.iter().map(|curve| keys.of(pairing, &curve.labels)).collect();
        let one_keys: Vec<usize> =
            one.iter().map(|curve| keys.of(pairing, &curve.labels)).collect();

        let mut results: Vec<Curve> = Vec::new();
        let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
        // Pairs rarely change from one time to the next: the last one of each series, and its result.
        let mut known: Vec<Option<(usize, usize)>> = vec![None; many.len()];
        let mut ones: Vec<Option<usize>> = vec![None; keys.count()];
        let mut taken: Vec<Option<usize>> = vec![None; keys.count()];
        for index in 0..length {
            ones.fill(None);
            for (place, curve) in
                one.iter().enumerate().filter(|(_, curve)| is_present(curve.values[index]))
            {
                if let Some(other) = ones[one_keys[place]].replace(place) {
                    let side = if swapped { "left" } else { "right" };
                    return Err(EvaluateError::Matching(format!(
                        "found duplicate series for the match group on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                        one[other].labels, curve.labels,
                    )));
                }
            }
            for (place, curve) in
                many.iter().enumerate().filter(|(_, curve)| is_present(curve.values[index]))
            {
                let key = many_keys[place];
                let Some(partner) = ones[key] else { continue };
                let (value, other) = (curve.values[index], one[partner].values[index]);
                let (left, right) = if swapped { (other, value) } else { (value, other) };
                let (mut result, holds) = apply(binary.operator, left, right);
                if binary.operator.compares() {
                    if binary.bool {
                        result = f64::from(holds);
                    } else if holds {
                        result = left;
                    } else {
                        continue;
                    }
                }
                if pairing.many == Many::None && taken[key].replace(index) == Some(index) {
                    return Err(EvaluateError::Matching("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)".into()));
                }
                let place = match known[place] {
                    Some((same, result)) if same == partner => result,
                    _ => {
                        let labels = result_labels(binary, &curve.labels, &one[partner].labels);
                        let result = match places.get(&labels) {
                            Some(result) => *result,
                            None => {
                                self.use_values(length)?;
                                places.insert(labels.clone(), results.len());
                                results.push(Curve { labels, values: vec![absent(); length] });
                                results.len() - 1
                            }
                        };
                        known[place] = Some((partner, result));
                        result
                    }
                };
                let slot = &mut results[place].values[index];
                if is_present(*slot) {
                    return Err(EvaluateError::Matching(
                        "multiple matches for labels: grouping labels must ensure unique matches"
                            .into(),
                    ));
                }
                *slot = result;
            }
        }
        Ok(results)
    }
}

/// `and`, `or`, `unless`.
fn combine(
    binary: &Binary,
    left: Vec<Curve>,
    right: Vec<Curve>,
    length: usize,
) -> Evaluated<Vec<Curve>> {
    let pairing = &binary.pairing;
    let mut keys = Keys::default();
    let left_keys: Vec<usize> = left.iter().map(|curve| keys.of(pairing, &curve.labels)).collect();
    let right_keys: Vec<usize> =
        right.iter().map(|curve| keys.of(pairing, &curve.labels)).collect();
    let seen = |curves: &[Curve], places: &[usize]| {
        let mut seen = vec![false; keys.count() * length];
        for (curve, key) in curves.iter().zip(places) {
            for (index, _) in
                curve.values.iter().enumerate().filter(|(_, value)| is_present(**value))
            {
                seen[key * length + index] = true;
            }
        }
        seen
    };
    let keep = |mut curve: Curve, key: usize, seen: &[bool], wanted: bool| {
        for (index, value) in curve.values.iter_mut().enumerate() {
            if seen[key * length + index] != wanted {
                *value = absent();
            }
        }
        curve
    };
    if binary.operator == Operator::Or {
        let seen = seen(&left, &left_keys);
        let others = right.into_iter().zip(right_keys);
        let others = others.map(|(curve, key)| keep(curve, key, &seen, false));
        return unique(left.into_iter().chain(others).collect());
    }
    let seen = seen(&right, &right_keys);
    let wanted = binary.operator == Operator::And;
    let kept = left.into_iter().zip(left_keys);
    Ok(kept.map(|(curve, key)| keep(curve, key, &seen, wanted)).collect())
}

/// Numbers for the labels that must be equal.
#[derive(Default)]
struct Keys(BTreeMap<Labels, usize>);

impl Keys {
    fn of(&mut self, pairing: &Pairing, labels: &Labels) -> usize {
        let key =
            if pairing.on { labels.keep(&pairing.labels) } else { labels.drop(&pairing.labels) };
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

/// `resultMetric` of Prometheus's engine.
fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let pairing = &binary.pairing;
    let mut labels = many.clone();
    if !binary.operator.compares() || binary.bool {
        labels = labels.without_name();
    }
    if pairing.many == Many::None {
        labels = if pairing.on {
            labels.keep(&pairing.labels)
        } else {
            pairing.labels.iter().for_each(|label| labels.set(label, ""));
            labels
        };
    }
    for label in &pairing.include {
        labels.set(label, one.value(label));
    }
    labels
}

/// The result, and for a comparison whether it holds.
fn apply(operator: Operator, left: f64, right: f64) -> (f64, bool) {
    let holds = match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::Greater => left > right,
        Operator::LessEqual => left <= right,
        Operator::GreaterEqual => left >= right,
        _ => false,
    };
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Power => left.powf(right),
        Operator::Atan2 => left.atan2(right),
        _ => f64::from(holds),
    };
    (result, holds)
}
