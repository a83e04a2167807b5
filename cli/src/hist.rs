//! `weft hist`: how long things took, for whom.

use fabric::api::NodeView;
use fabric::constraint::Constraint;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::Context;
use crate::arguments::{By, Hist, HistKind};
use crate::chart::{bar, number, seconds, shade};
use crate::exit::{Exit, Failure};
use crate::histogram::{Bound, Histogram, by_group};
use crate::prometheus::{any_of, duration, quoted, vector, warn};
use crate::screen::{Cell, Screen, Table, Tone};
use crate::series;

/// Letters of the longest bar.
const BAR: usize = 40;
/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// One row.
#[derive(Clone, Debug)]
struct Group {
    labels: BTreeMap<String, String>,
    histogram: Histogram,
}

/// Asks for histograms and shows them.
pub async fn hist(context: &Context, wanted: Hist) -> Result<Exit, Failure> {
    let nodes = match &wanted.on {
        Some(condition) => {
            Some(fitting(&context.client.get::<Vec<NodeView>>("/v1/nodes").await?, condition)?)
        }
        None => None,
    };
    let expression = expression(&wanted, nodes.as_deref());
    let (points, mut warnings) = vector(&context.client, &context.screen, &expression).await?;
    let groups = by_group(&points).into_iter();
    let groups = groups.map(|(labels, histogram)| Group { labels, histogram });
    let mut groups: Vec<Group> = groups.filter(|group| group.histogram.count() > 0.0).collect();
    groups.sort_by(|left, right| right.slowest().total_cmp(&left.slowest()));
    let screen = &context.screen;
    if screen.is_json() {
        screen.json(&json(&groups, &warnings))?;
        return Ok(Exit::Ok);
    }
    warn(screen, &mut warnings);
    if groups.is_empty() {
        let what = name(wanted.kind);
        screen.say(&format!(
            "nothing was counted: nobody waited ({what}), or the probe does not run; weft doctor says so"
        ));
        return Ok(Exit::Ok);
    }
    match wanted.by {
        None => show_one(screen, &groups[0])?,
        Some(by) => screen.table(&group_table(&groups, by))?,
    }
    Ok(Exit::Ok)
}

fn name(kind: HistKind) -> &'static str {
    match kind {
        HistKind::Runq => series::RUNQUEUE,
        HistKind::Disk => series::BLOCK,
        HistKind::Connect => series::CONNECT,
        HistKind::Rtt => series::ROUND_TRIPS,
    }
}

/// The names of the nodes for which a condition holds.
fn fitting(nodes: &[NodeView], condition: &Constraint) -> Result<Vec<String>, Failure> {
    let holds =
        |node: &&NodeView| node.info.as_ref().is_some_and(|info| condition.holds(node.id, info));
    let names: Vec<String> = nodes.iter().filter(holds).map(|node| node.name.clone()).collect();
    if names.is_empty() {
        return Err(Failure::not_found(format!(
            "there is no node with {condition}: weft nodes shows their labels"
        )));
    }
    Ok(names)
}

/// What is asked: counts of each bucket, added up where the data is.
fn expression(wanted: &Hist, nodes: Option<&[String]>) -> String {
    let mut matchers = Vec::new();
    if let Some(nodes) = nodes {
        matchers.push(format!("node=~{}", any_of(nodes.iter().map(String::as_str))));
    }
    if let Some(what) = &wanted.job {
        matchers.push(format!("job={}", quoted(what.job.as_str())));
        matchers.extend(what.slot.map(|slot| format!("slot=\"{slot}\"")));
    }
    if wanted.by == Some(By::Job) && wanted.job.is_none() {
        matchers.push("job!=\"\"".into());
    }
    let by = match wanted.by {
        None => "le",
        Some(By::Unit) => "node, unit, le",
        Some(By::Job) => "job, le",
        Some(By::Node) => "node, le",
    };
    let (name, matchers) = (name(wanted.kind), matchers.join(","));
    format!("sum by ({by}) (increase({name}_bucket{{{matchers}}}[{}]))", duration(wanted.range))
}

impl Group {
    fn slowest(&self) -> f64 {
        match self.histogram.quantile(0.99) {
            Some(Bound::AtMost(value) | Bound::Above(value)) => value,
            None => 0.0,
        }
    }
}

fn show_one(screen: &Screen, group: &Group) -> Result<(), Failure> {
    screen.table(&bars(&group.histogram, seconds))?;
    screen.data("")?;
    let mut fields = vec![("count", Cell::from(number(group.histogram.count().round())))];
    for (name, quantile) in QUANTILES {
        fields.push((name, shown(group.histogram.quantile(quantile)).into()));
    }
    fields.push(("max", shown(group.histogram.largest()).into()));
    screen.fields(&fields)
}

fn shown(bound: Option<Bound>) -> String {
    bound.map_or("-".into(), |bound| bound.display(seconds))
}

/// A bar for each bucket between the lowest and the highest that have values.
pub fn bars(histogram: &Histogram, write: fn(f64) -> String) -> Table {
    let (buckets, count) = (histogram.buckets(), histogram.count());
    let most = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    let used = |(_, count): &(f64, f64)| *count > 0.0;
    let first = buckets.iter().position(used).unwrap_or(0);
    let last = buckets.iter().rposition(used).map_or(first, |last| last + 1);
    let mut table = Table::new(&["UP TO", "COUNT", "OF ALL", ""]);
    for (bound, own) in &buckets[first..last] {
        table.row([
            Cell::new(write(*bound), Tone::Faint),
            number(own.round()).into(),
            crate::chart::percent(own / count).into(),
            bar(own / most, BAR).into(),
        ]);
    }
    table
}

/// A row for each, the slowest first; the last column shows all buckets, from the shortest to the longest that
/// any has.
fn group_table(groups: &[Group], by: By) -> Table {
    let used = || {
        let all = groups.iter().flat_map(|group| group.histogram.buckets());
        all.filter(|(_, count)| *count > 0.0).map(|(bound, _)| *bound)
    };
    let (low, high) = (used().fold(f64::INFINITY, f64::min), used().fold(0.0, f64::max));
    let scale = format!("UP TO {} ... {}", seconds(low), seconds(high));
    let subject: &[&str] = match by {
        By::Unit => &["node", "unit"],
        By::Job => &["job"],
        By::Node => &["node"],
    };
    let mut head: Vec<String> = subject.iter().map(|label| label.to_uppercase()).collect();
    head.extend(["COUNT", "P50", "P90", "P99", "MAX", &scale].map(str::to_owned));
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for group in groups {
        let label = |label: &&str| group.labels.get(*label).cloned().unwrap_or_default();
        let mut row: Vec<Cell> = subject.iter().map(|name| label(name).into()).collect();
        row.push(number(group.histogram.count().round()).into());
        row.extend(QUANTILES.map(|(_, quantile)| shown(group.histogram.quantile(quantile)).into()));
        row.push(shown(group.histogram.largest()).into());
        row.push(strip(&group.histogram, low, high).into());
        table.row_of(row);
    }
    table
}

/// A letter for each bucket, dark where much is.
fn strip(histogram: &Histogram, low: f64, high: f64) -> String {
    let inside = histogram.buckets().iter().filter(|(bound, _)| (low..=high).contains(bound));
    let most = histogram.buckets().iter().map(|(_, count)| *count).fold(0.0, f64::max);
    inside.map(|(_, count)| shade(count / most)).collect()
}

#[derive(Serialize)]
struct GroupView<'a> {
    labels: &'a BTreeMap<String, String>,
    count: f64,
    /// Seconds; `null` where only a lower bound is known.
    quantiles: BTreeMap<&'static str, Option<f64>>,
    max_seconds: Option<f64>,
    buckets: Vec<BucketView>,
}

#[derive(Serialize)]
struct BucketView {
    /// `null`: without end.
    up_to_seconds: Option<f64>,
    count: f64,
}

fn json(groups: &[Group], warnings: &[String]) -> serde_json::Value {
    let known = |bound: Option<Bound>| match bound {
        Some(Bound::AtMost(value)) => Some(value),
        Some(Bound::Above(_)) | None => None,
    };
    let view = |group: &Group| {
        let quantiles = QUANTILES.map(|(name, at)| (name, known(group.histogram.quantile(at))));
        let buckets = group.histogram.buckets().iter().map(|(bound, count)| BucketView {
            up_to_seconds: bound.is_finite().then_some(*bound),
            count: *count,
        });
        let view = GroupView {
            labels: &group.labels,
            count: group.histogram.count(),
            quantiles: quantiles.into(),
            max_seconds: known(group.histogram.largest()),
            buckets: buckets.collect(),
        };
        serde_json::json!(view)
    };
    let groups: Vec<_> = groups.iter().map(view).collect();
    serde_json::json!({ "histograms": groups, "warnings": warnings })
}

#[cfg(test)]
mod tests;
