//! `weft query`: PromQL, answered by all nodes, as a table, as lines over time, or as a map of heat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Context;
use crate::arguments::Query;
use crate::chart::{number, shade, sparkline, squeeze};
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::hist::bars;
use crate::histogram::{BOUND, Histogram, by_group};
use crate::prometheus::{Curve, Data, Labels, NAME, Point, When, ask, warn};
use crate::screen::{Cell, Table, Tone};

/// Letters of a line over time, where the terminal does not say how wide it is.
const WIDTH: usize = 60;
/// Letters that names and numbers beside a line over time need.
const BESIDE: usize = 50;
/// A line over time that is shorter says nothing.
const WIDTH_MIN: usize = 20;
/// Samples come once a second: smaller steps show nothing more.
const STEP_MIN: Duration = Duration::from_secs(1);

/// Times of a range: where each value has its place.
#[derive(Clone, Copy, Debug)]
struct Grid {
    start: f64,
    step: f64,
    steps: usize,
}

/// Asks, and shows the answer.
pub async fn query(context: &Context, wanted: Query) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let width = screen.size().map_or(WIDTH, |(columns, _)| columns.saturating_sub(BESIDE));
    let width = width.max(WIDTH_MIN);
    let now_ms = clock::now().0;
    let when = match wanted.range {
        None => When::Now,
        Some(range) => {
            let step = wanted.step.unwrap_or_else(|| (range / width as u32).max(STEP_MIN));
            if range.is_zero() || step.is_zero() {
                return Err(Failure::usage("--range and --step must be longer than nothing: 10m"));
            }
            When::Range { range, step, now_ms }
        }
    };
    let mut found = ask(&context.client, screen, &wanted.expression, when).await?;
    if screen.is_json() {
        screen.json(&found.raw)?;
        return Ok(Exit::Ok);
    }
    match (&found.data, when) {
        (Data::Scalar(sample), _) => screen.data(&number(sample.value))?,
        (Data::String((_, text)), _) => screen.data(&crate::screen::printable(text))?,
        (Data::Vector(points), _) if is_histogram(points.iter().map(|point| &point.metric)) => {
            for (labels, histogram) in by_group(points) {
                heading(context, &labels)?;
                screen.table(&bars(&histogram, number))?;
            }
        }
        (Data::Vector(points), _) => screen.table(&vector_table(points))?,
        (Data::Matrix(curves), When::Range { range, step, now_ms }) => {
            let (range, step) = (range.as_secs_f64(), step.as_secs_f64());
            let start = now_ms as f64 / 1000.0 - range;
            let grid = Grid { start, step, steps: (range / step + 1e-9) as usize + 1 };
            if is_histogram(curves.iter().map(|curve| &curve.metric)) {
                for (labels, rows) in heat(curves, grid) {
                    heading(context, &labels)?;
                    screen.table(&heat_table(&rows, width))?;
                }
            } else {
                screen.table(&curve_table(curves, grid, width))?;
            }
        }
        (Data::Matrix(curves), When::Now) => screen.table(&sample_table(curves))?,
    }
    let empty = matches!(&found.data, Data::Vector(points) if points.is_empty())
        || matches!(&found.data, Data::Matrix(curves) if curves.is_empty());
    if empty {
        screen.say("no series: weft query '{__name__=~\"weft_.*\"}' shows some that there are");
    }
    warn(screen, &mut found.warnings);
    Ok(Exit::Ok)
}

fn heading(context: &Context, labels: &Labels) -> Result<(), Failure> {
    if labels.is_empty() { Ok(()) } else { context.screen.data(&series_name(labels)) }
}

/// Whether all of them are buckets of histograms.
fn is_histogram<'a>(mut metrics: impl Iterator<Item = &'a Labels>) -> bool {
    metrics.next().is_some_and(|labels| labels.contains_key(BOUND))
        && metrics.all(|labels| labels.contains_key(BOUND))
}

/// `name{label="value"}`, as one would write it.
fn series_name(labels: &Labels) -> String {
    let name = labels.get(NAME).map_or("", String::as_str);
    let others = labels.iter().filter(|(label, _)| *label != NAME);
    let others: Vec<_> = others.map(|(label, value)| format!("{label}={value:?}")).collect();
    let text = match (name, others.len()) {
        ("", 0) => "{}".into(),
        (name, 0) => name.into(),
        (name, _) => format!("{name}{{{}}}", others.join(", ")),
    };
    crate::screen::printable(&text)
}

/// A column for each label that there is.
fn vector_table(points: &[Point]) -> Table {
    let labels: BTreeSet<&String> = points.iter().flat_map(|point| point.metric.keys()).collect();
    let head = |label: &&String| match label.as_str() {
        NAME => "SERIES".to_owned(),
        label => label.to_uppercase(),
    };
    let head: Vec<String> = labels.iter().map(head).chain(["VALUE".into()]).collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for point in points {
        let cell =
            |label: &&String| Cell::from(point.metric.get(*label).cloned().unwrap_or_default());
        let value = Cell::from(number(point.value.value));
        table.row_of(labels.iter().map(cell).chain([value]).collect());
    }
    table
}

/// A range vector at one moment: all samples.
fn sample_table(curves: &[Curve]) -> Table {
    let mut table = Table::new(&["SERIES", "AT", "VALUE"]);
    for curve in curves {
        for sample in &curve.values {
            let at = clock::display(fabric::clock::WallTime((sample.at * 1000.0) as u64));
            table.row([series_name(&curve.metric).into(), at.into(), number(sample.value).into()]);
        }
    }
    table
}

/// A line over time for each series, all to one scale.
fn curve_table(curves: &[Curve], grid: Grid, width: usize) -> Table {
    let finite = || {
        let samples = curves.iter().flat_map(|curve| &curve.values);
        samples.map(|sample| sample.value).filter(|value| value.is_finite())
    };
    let low = finite().fold(0.0, f64::min);
    let high = finite().fold(0.0, f64::max);
    let mut table = Table::new(&["SERIES", "OVER TIME", "MIN", "MAX", "LAST"]);
    for curve in curves {
        let values = || curve.values.iter().map(|sample| sample.value);
        let line = sparkline(&squeeze(&grid.place(curve), width), low, high);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        table.row([
            series_name(&curve.metric).into(),
            line.into(),
            number(least).into(),
            number(most).into(),
            number(values().next_back().unwrap_or(f64::NAN)).into(),
        ]);
    }
    table
}

/// Counts of each bucket, over time.
type Heat = BTreeMap<Labels, Vec<(f64, Vec<Option<f64>>)>>;

/// The counts that each bucket has for itself, at each time, from series of what is below their bounds.
fn heat(curves: &[Curve], grid: Grid) -> Heat {
    let mut groups = Heat::new();
    for curve in curves {
        let mut labels = curve.metric.clone();
        let bound = labels.remove(BOUND).and_then(|text| text.parse::<f64>().ok());
        if let Some(bound) = bound.filter(|bound| !bound.is_nan()) {
            groups.entry(labels).or_default().push((bound, grid.place(curve)));
        }
    }
    for rows in groups.values_mut() {
        rows.sort_by(|left, right| left.0.total_cmp(&right.0));
        for time in 0..grid.steps {
            let cumulative = rows.iter().filter_map(|(bound, row)| Some((*bound, row[time]?)));
            let own = Histogram::of(cumulative.collect());
            for (bound, row) in rows.iter_mut() {
                let found = own.buckets().iter().find(|(own, _)| own == bound);
                row[time] = row[time].and(found).map(|(_, count)| *count);
            }
        }
    }
    groups
}

/// The highest bucket first; those above and below all values are left out.
fn heat_table(rows: &[(f64, Vec<Option<f64>>)], width: usize) -> Table {
    let squeezed: Vec<_> = rows.iter().map(|(bound, row)| (*bound, squeeze(row, width))).collect();
    let most =
        squeezed.iter().flat_map(|(_, row)| row.iter().flatten()).copied().fold(0.0, f64::max);
    let used = |(_, row): &(f64, Vec<Option<f64>>)| row.iter().flatten().any(|count| *count > 0.0);
    let first = squeezed.iter().position(used).unwrap_or(0);
    let last = squeezed.iter().rposition(used).map_or(0, |last| last + 1);
    let mut table = Table::new(&["UP TO", "OVER TIME", "MOST"]);
    for (bound, row) in squeezed[first..last.max(first)].iter().rev() {
        let letter = |count: &Option<f64>| count.map_or(' ', |count| shade(count / most));
        let highest = row.iter().flatten().copied().fold(0.0, f64::max);
        table.row([
            Cell::new(number(*bound), Tone::Faint),
            row.iter().map(letter).collect::<String>().into(),
            number(highest).into(),
        ]);
    }
    table
}

impl Grid {
    /// The values of a series in their places.
    fn place(self, curve: &Curve) -> Vec<Option<f64>> {
        let mut values = vec![None; self.steps];
        for sample in &curve.values {
            let place = ((sample.at - self.start) / self.step).round();
            if let Some(value) = values.get_mut(place.max(0.0) as usize) {
                *value = Some(sample.value);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests;
