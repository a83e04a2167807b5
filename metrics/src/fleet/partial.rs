//! What nodes say of a part, and how it is put together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Keep, Part};
use crate::evaluate::{Curve, EvaluateError, Group, Samples, Value, is_present, unique};
use crate::labels::Labels;
use crate::limits::{QUERY_SERIES_MAX, QUERY_VALUES_MAX};
use crate::syntax::{Aggregation, Kind};

/// The answer of one node to a part, or of several together.
///
/// Laws, up to rounding: merging is commutative and associative, and what no node said is neutral.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Partial {
    /// Series, of disjoint sets of labels.
    Curves(Vec<Curve>),
    /// Samples of series, likewise.
    Samples(Vec<Samples>),
    /// Groups of an aggregation.
    Groups {
        /// In the order of their labels.
        rows: Vec<Row>,
        /// For each time, the smallest and the largest that any group which is not among the rows can
        /// have; empty: there is none.
        left_out: Vec<(f64, f64)>,
    },
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its labels.
    pub labels: Labels,
    /// One for each time.
    #[serde(with = "columns")]
    pub groups: Vec<Group>,
    /// For each time, by how much nodes that did not send this group may change it; empty: not at all.
    pub slack: Vec<(f64, f64)>,
}

/// Groups on the wire: most have small counts and no more than one number.
mod columns {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Group;

    #[derive(Serialize, Deserialize)]
    struct Columns {
        counts: Vec<u64>,
        /// Empty if all are zero; so are `extras`.
        values: Vec<f64>,
        extras: Vec<f64>,
    }

    pub fn serialize<S: Serializer>(groups: &[Group], serializer: S) -> Result<S::Ok, S::Error> {
        let column = |of: fn(&Group) -> f64| {
            let some = groups.iter().any(|group| of(group).to_bits() != 0);
            if some { groups.iter().map(of).collect() } else { Vec::new() }
        };
        let counts = groups.iter().map(|group| group.count as u64).collect();
        let (values, extras) = (column(|group| group.value), column(|group| group.extra));
        Columns { counts, values, extras }.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Group>, D::Error> {
        let Columns { counts, values, extras } = Columns::deserialize(deserializer)?;
        for column in [&values, &extras] {
            if !column.is_empty() && column.len() != counts.len() {
                return Err(D::Error::custom("groups with and without values"));
            }
        }
        let at = |column: &[f64], index: usize| column.get(index).copied().unwrap_or(0.0);
        let groups = counts.iter().enumerate().map(|(index, count)| Group {
            count: *count as f64,
            value: at(&values, index),
            extra: at(&extras, index),
        });
        Ok(groups.collect())
    }
}

impl Partial {
    pub(super) fn of_groups(rows: Vec<Row>, keep: Option<Keep>, operation: Aggregation) -> Self {
        match keep {
            Some(keep) if rows.len() > keep.groups as usize => leave_out(rows, keep, operation),
            _ => Partial::Groups { rows, left_out: Vec::new() },
        }
    }

    /// What no node has said anything to yet.
    pub fn nothing(part: &Part) -> Self {
        match part.aggregation() {
            Some(_) => Partial::Groups { rows: Vec::new(), left_out: Vec::new() },
            None if part.kind() == Some(Kind::Matrix) => Partial::Samples(Vec::new()),
            None => Partial::Curves(Vec::new()),
        }
    }

    /// Puts another answer to the same part to this one.
    pub fn merge(self, other: Partial, part: &Part) -> Result<Partial, EvaluateError> {
        self.check(part)?;
        other.check(part)?;
        Ok(match (self, other) {
            (Partial::Curves(mut curves), Partial::Curves(others)) => {
                curves.extend(others);
                bounded(curves.len(), part.grid.len())?;
                curves.sort_by(|left, right| left.labels.cmp(&right.labels));
                Partial::Curves(unique(curves)?)
            }
            (Partial::Samples(mut samples), Partial::Samples(others)) => {
                samples.extend(others);
                bounded(samples.len(), 1)?;
                samples.sort_by(|left, right| left.labels.cmp(&right.labels));
                Partial::Samples(samples)
            }
            // Nothing was said yet, and of what kind it will be is not known.
            (Partial::Curves(nothing), other) | (other, Partial::Curves(nothing))
                if nothing.is_empty() =>
            {
                other
            }
            (
                Partial::Groups { rows, left_out },
                Partial::Groups { rows: others, left_out: other_out },
            ) => {
                let operation = part.aggregation().ok_or(EvaluateError::Part)?;
                let rows = merge_rows(rows, &left_out, others, &other_out, operation);
                bounded(rows.len(), part.grid.len())?;
                Partial::Groups { rows, left_out: add(&left_out, &other_out) }
            }
            _ => return Err(EvaluateError::Part),
        })
    }

    /// Whether it has the shape that the part asks for: it may come from anywhere.
    pub fn check(&self, part: &Part) -> Result<(), EvaluateError> {
        let length = part.grid.len();
        let optional = |list: &[(f64, f64)]| {
            let ordered = |pair: &(f64, f64)| pair.0 <= 0.0 && pair.1 >= 0.0;
            list.is_empty() || (list.len() == length && list.iter().all(ordered))
        };
        let fits = match self {
            Partial::Curves(curves) => curves.iter().all(|curve| curve.values.len() == length),
            Partial::Samples(samples) => {
                samples.iter().all(|one| one.samples.is_sorted_by_key(|sample| sample.0))
            }
            Partial::Groups { rows, left_out } => {
                part.aggregation().is_some()
                    && optional(left_out)
                    && rows.iter().all(|row| row.groups.len() == length && optional(&row.slack))
            }
        };
        let count = match self {
            Partial::Curves(curves) => curves.len(),
            Partial::Samples(samples) => {
                let count = samples.iter().map(|one| one.samples.len()).sum::<usize>();
                bounded(samples.len(), 1)?;
                return if fits && count as u64 <= QUERY_VALUES_MAX {
                    Ok(())
                } else {
                    Err(EvaluateError::Part)
                };
            }
            Partial::Groups { rows, .. } => rows.len(),
        };
        bounded(count, length)?;
        if fits { Ok(()) } else { Err(EvaluateError::Part) }
    }

    pub(super) fn value(self, part: &Part) -> Result<Value, EvaluateError> {
        Ok(match self {
            Partial::Curves(curves) => Value::Vector(unique(curves)?),
            Partial::Samples(samples) => Value::Matrix(samples),
            Partial::Groups { rows, .. } => {
                let operation = part.aggregation().ok_or(EvaluateError::Part)?;
                let curves = rows.into_iter().map(|row| Curve {
                    labels: row.labels,
                    values: row.groups.iter().map(|group| group.finish(operation)).collect(),
                });
                Value::Vector(unique(curves.collect())?)
            }
        })
    }

    /// By how much what is left out may change the answer.
    pub(super) fn warning(&self, part: &Part) -> Option<String> {
        let Partial::Groups { rows, left_out } = self else { return None };
        let keep = part.keep.filter(|_| !left_out.is_empty())?;
        let slack = rows.iter().flat_map(|row| &row.slack).chain(left_out);
        let (low, high) =
            slack.fold((0.0f64, 0.0f64), |(low, high), pair| (low.min(pair.0), high.max(pair.1)));
        let side = if keep.largest { "largest" } else { "smallest" };
        Some(format!(
            "each node sent its {} {side} groups only: a value may be off by {low} to +{high}, and a group that none sent is within the same bound",
            keep.groups
        ))
    }
}

/// Refuses what would outgrow a query's limits.
fn bounded(count: usize, length: usize) -> Result<(), EvaluateError> {
    if count > QUERY_SERIES_MAX {
        return Err(EvaluateError::Series(QUERY_SERIES_MAX));
    }
    if count as u64 * length as u64 > QUERY_VALUES_MAX {
        return Err(EvaluateError::Values(QUERY_VALUES_MAX));
    }
    Ok(())
}

/// A group that only one side has may still be among what the other side left out.
fn merge_rows(
    rows: Vec<Row>,
    left_out: &[(f64, f64)],
    others: Vec<Row>,
    other_out: &[(f64, f64)],
    operation: Aggregation,
) -> Vec<Row> {
    let mut merged: BTreeMap<Labels, (Row, bool)> = BTreeMap::new();
    for row in rows {
        merged.insert(row.labels.clone(), (row, false));
    }
    for mut row in others {
        match merged.get_mut(&row.labels) {
            Some((known, both)) => {
                *both = true;
                for (group, other) in known.groups.iter_mut().zip(&row.groups) {
                    group.merge(operation, other);
                }
                known.slack = add(&known.slack, &row.slack);
            }
            None => {
                row.slack = add(&row.slack, left_out);
                merged.insert(row.labels.clone(), (row, true));
            }
        }
    }
    let rows = merged.into_values().map(|(mut row, complete)| {
        if !complete {
            row.slack = add(&row.slack, other_out);
        }
        row
    });
    rows.collect()
}

fn add(left: &[(f64, f64)], right: &[(f64, f64)]) -> Vec<(f64, f64)> {
    match (left, right) {
        ([], only) | (only, []) => only.to_vec(),
        _ => left
            .iter()
            .zip(right)
            .map(|(left, right)| (left.0 + right.0, left.1 + right.1))
            .collect(),
    }
}

/// Keeps the groups that are among the best at any time.
fn leave_out(rows: Vec<Row>, keep: Keep, operation: Aggregation) -> Partial {
    let length = rows.first().map_or(0, |row| row.groups.len());
    let value = |row: &Row, index: usize| row.groups[index].finish(operation);
    let mut kept = vec![false; rows.len()];
    for index in 0..length {
        let mut order: Vec<usize> =
            (0..rows.len()).filter(|place| is_present(value(&rows[*place], index))).collect();
        order.sort_by(|left, right| {
            let (left, right) = (value(&rows[*left], index), value(&rows[*right], index));
            if keep.largest { right.total_cmp(&left) } else { left.total_cmp(&right) }
        });
        order.truncate(keep.groups as usize);
        order.into_iter().for_each(|place| kept[place] = true);
    }
    let mut left_out = vec![(0.0f64, 0.0f64); length];
    let mut stay = Vec::new();
    for (row, kept) in rows.into_iter().zip(kept) {
        if kept {
            stay.push(row);
            continue;
        }
        for (index, bound) in left_out.iter_mut().enumerate() {
            let value = value(&row, index);
            if is_present(value) {
                *bound = (bound.0.min(value), bound.1.max(value));
            }
        }
    }
    Partial::Groups { rows: stay, left_out }
}
