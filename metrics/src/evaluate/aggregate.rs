//! Aggregations: many series become one for each group.

use std::collections::BTreeMap;

use super::{Context, Curve, EvaluateError, Evaluated, Grid, absent, is_present, unique};
use crate::fleet::Row;
use crate::labels::{Labels, is_label_name};
use crate::syntax::{Aggregate, Aggregation, Expr, Grouping};

/// A sum that loses less: Neumaier, 'Rundungsfehleranalyse einiger Verfahren zur Summation endlicher
/// Summen', ZAMM 1974.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;
    }

    pub fn value(&self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

impl FromIterator<f64> for Sum {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sum = Sum::default();
        values.into_iter().for_each(|value| sum.add(value));
        sum
    }
}

/// What has been seen of a group, for those aggregations that need no more than this of any number of
/// values. What `value` and `extra` are depends on the aggregation; a group of nothing has count 0.
///
/// Laws, for one aggregation, up to rounding: merging is commutative and associative, an empty
/// group is neutral, and merging the groups of two lists is the group of both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Group {
    pub(crate) count: f64,
    pub(crate) value: f64,
    pub(crate) extra: f64,
}

impl Group {
    pub(crate) fn add(&mut self, operation: Aggregation, value: f64) {
        let alone = match operation {
            Aggregation::Count | Aggregation::Group => Group { count: 1.0, value: 0.0, extra: 0.0 },
            _ => Group { count: 1.0, value, extra: 0.0 },
        };
        self.merge(operation, &alone);
    }

    pub(crate) fn merge(&mut self, operation: Aggregation, other: &Group) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        match operation {
            Aggregation::Avg if self.is_vast_with(other) => {
                let count = self.count + other.count;
                let mean =
                    self.mean() * (self.count / count) + other.mean() * (other.count / count);
                let sum = mean * count;
                (self.value, self.extra) = (sum, if sum.is_finite() { 0.0 } else { mean });
            }
            Aggregation::Sum | Aggregation::Avg => {
                let mut sum = Sum { sum: self.value, lost: self.extra };
                sum.add(other.value);
                (self.value, self.extra) = (sum.sum, sum.lost + other.extra);
            }
            Aggregation::Min if other.value < self.value || self.value.is_nan() => {
                self.value = other.value;
            }
            Aggregation::Max if other.value > self.value || self.value.is_nan() => {
                self.value = other.value;
            }
            // Mean and squared deviations of both; Chan, Golub and LeVeque, 'Updating formulae and a
            // pairwise algorithm for computing sample variances', 1979.
            Aggregation::Stddev | Aggregation::Stdvar => {
                let count = self.count + other.count;
                let apart = other.value - self.value;
                self.value += apart * other.count / count;
                self.extra += other.extra + apart * apart * self.count * other.count / count;
            }
            _ => {}
        }
        self.count += other.count;
    }

    /// Whether the sum of both is beyond all numbers, and their mean is not. Then `value` is infinite and `extra` is the mean,
    /// which is not zero; of a value that is infinite itself, `extra` is zero or NaN.
    fn is_vast_with(&self, other: &Group) -> bool {
        let is_infinite = |group: &Group| !group.value.is_finite() && !group.is_vast();
        (self.is_vast() || other.is_vast() || !(self.value + other.value).is_finite())
            && !is_infinite(self)
            && !is_infinite(other)
    }

    fn is_vast(&self) -> bool {
        self.value.is_infinite() && self.extra.is_finite() && self.extra != 0.0
    }

    fn mean(&self) -> f64 {
        match self.is_vast() {
            true => self.extra,
            false => Sum { sum: self.value, lost: self.extra }.value() / self.count,
        }
    }

    pub(crate) fn finish(&self, operation: Aggregation) -> f64 {
        if self.count == 0.0 {
            return absent();
        }
        let sum = Sum { sum: self.value, lost: self.extra }.value();
        match operation {
            Aggregation::Sum => sum,
            Aggregation::Avg => self.mean(),
            Aggregation::Count => self.count,
            Aggregation::Group => 1.0,
            Aggregation::Stdvar => self.extra / self.count,
            Aggregation::Stddev => (self.extra / self.count).sqrt(),
            _ => self.value,
        }
    }
}

/// The labels that the group of a series has.
fn group_key(grouping: &Grouping, labels: &Labels) -> Labels {
    if grouping.without { labels.drop(&grouping.labels) } else { labels.keep(&grouping.labels) }
}

impl Context<'_> {
    pub fn aggregate(&self, aggregate: &Aggregate, grid: &Grid) -> Evaluated<Vec<Curve>> {
        let curves = self.vector(&aggregate.expr, grid)?;
        self.look_at(curves.len() * grid.len())?;
        let grouping = &aggregate.grouping;
        match (aggregate.operation, &aggregate.parameter) {
            (operation @ (Aggregation::Topk | Aggregation::Bottomk), Some(parameter)) => {
                let counts = self.scalar(parameter, grid)?;
                let whole = |count: &f64| (-9.2e18..9.2e18).contains(count);
                if let Some(count) = counts.iter().find(|count| !whole(count)) {
                    let reason = format!("Scalar value {count} overflows int64");
                    return Err(EvaluateError::Argument(reason));
                }
                Ok(choose(curves, grouping, operation == Aggregation::Topk, &counts))
            }
            (Aggregation::Quantile, Some(parameter)) => {
                let quantiles = self.scalar(parameter, grid)?;
                Ok(grouped(curves, grouping, |members| {
                    let at = |index: usize| members.iter().map(move |member| member.values[index]);
                    let values = (0..grid.len()).map(|index| {
                        let present: Vec<f64> =
                            at(index).filter(|value| is_present(*value)).collect();
                        if present.is_empty() {
                            absent()
                        } else {
                            quantile(quantiles[index], present)
                        }
                    });
                    values.collect()
                }))
            }
            (Aggregation::CountValues, Some(Expr::Text(label))) => {
                count_values(curves, grouping, label, grid.len())
            }
            (operation, _) => {
                let rows = self.rows(curves, aggregate, grid.len());
                let finish =
                    |groups: &[Group]| groups.iter().map(|group| group.finish(operation)).collect();
                Ok(rows
                    .into_iter()
                    .map(|(labels, groups)| Curve { labels, values: finish(&groups) })
                    .collect())
            }
        }
    }

    /// The groups of an aggregation, before they become values.
    pub fn groups(&self, aggregate: &Aggregate, grid: &Grid) -> Evaluated<Vec<Row>> {
        let curves = self.vector(&aggregate.expr, grid)?;
        self.look_at(curves.len() * grid.len())?;
        let rows = self.rows(curves, aggregate, grid.len()).into_iter();
        let rows = rows.filter(|(_, groups)| groups.iter().any(|group| group.count > 0.0));
        Ok(rows.map(|(labels, groups)| Row { labels, groups, slack: Vec::new() }).collect())
    }

    fn rows(
        &self,
        curves: Vec<Curve>,
        aggregate: &Aggregate,
        length: usize,
    ) -> BTreeMap<Labels, Vec<Group>> {
        let mut rows: BTreeMap<Labels, Vec<Group>> = BTreeMap::new();
        for curve in curves {
            let key = group_key(&aggregate.grouping, &curve.labels);
            let groups = rows.entry(key).or_insert_with(|| vec![Group::default(); length]);
            for (group, value) in groups.iter_mut().zip(&curve.values) {
                if is_present(*value) {
                    group.add(aggregate.operation, *value);
                }
            }
        }
        rows
    }
}

fn grouped(
    curves: Vec<Curve>,
    grouping: &Grouping,
    aggregate: impl Fn(&[Curve]) -> Vec<f64>,
) -> Vec<Curve> {
    let mut groups: BTreeMap<Labels, Vec<Curve>> = BTreeMap::new();
    for curve in curves {
        groups.entry(group_key(grouping, &curve.labels)).or_default().push(curve);
    }
    let groups = groups.into_iter();
    groups.map(|(labels, members)| Curve { labels, values: aggregate(&members) }).collect()
}

/// `topk` and `bottomk`: series keep their labels, and their values where they are among the first.
fn choose(curves: Vec<Curve>, grouping: &Grouping, largest: bool, counts: &[f64]) -> Vec<Curve> {
    let mut groups: BTreeMap<Labels, Vec<Curve>> = BTreeMap::new();
    for curve in curves {
        groups.entry(group_key(grouping, &curve.labels)).or_default().push(curve);
    }
    let mut chosen = Vec::new();
    for mut members in groups.into_values() {
        for (index, count) in counts.iter().enumerate() {
            let mut ranked: Vec<usize> = (0..members.len())
                .filter(|place| is_present(members[*place].values[index]))
                .collect();
            let count = if *count >= 1.0 { (*count as usize).min(ranked.len()) } else { 0 };
            ranked.sort_by(|left, right| {
                rank(members[*left].values[index], members[*right].values[index], largest)
            });
            for loser in &ranked[count..] {
                members[*loser].values[index] = absent();
            }
        }
        members.retain(|member| member.values.iter().any(|value| is_present(*value)));
        if counts.len() == 1 {
            members.sort_by(|left, right| rank(left.values[0], right.values[0], largest));
        }
        chosen.extend(members);
    }
    chosen
}

/// The better one first, NaN last.
pub(super) fn rank(left: f64, right: f64, largest: bool) -> std::cmp::Ordering {
    let better = if largest { right.total_cmp(&left) } else { left.total_cmp(&right) };
    left.is_nan().cmp(&right.is_nan()).then(if left == right {
        std::cmp::Ordering::Equal
    } else {
        better
    })
}

fn count_values(
    curves: Vec<Curve>,
    grouping: &Grouping,
    label: &str,
    length: usize,
) -> Evaluated<Vec<Curve>> {
    if !is_label_name(label) {
        return Err(EvaluateError::Argument(format!("invalid label name {label:?}")));
    }
    let mut counted: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for curve in curves {
        let key = group_key(grouping, &curve.labels);
        for (index, value) in
            curve.values.iter().enumerate().filter(|(_, value)| is_present(**value))
        {
            let mut labels = key.clone();
            labels.set(label, &plain(*value));
            let counts = counted.entry(labels).or_insert_with(|| vec![absent(); length]);
            counts[index] = if is_present(counts[index]) { counts[index] + 1.0 } else { 1.0 };
        }
    }
    unique(counted.into_iter().map(|(labels, values)| Curve { labels, values }).collect())
}

/// A number without exponent, as short as it can be.
fn plain(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        value => value.to_string(),
    }
}

/// By linear interpolation between the two nearest ranks; NaN is smaller than any number.
pub fn quantile(quantile: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if quantile > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|left, right| right.is_nan().cmp(&left.is_nan()).then(left.total_cmp(right)));
    let rank = quantile * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}
