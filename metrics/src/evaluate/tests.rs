use super::*;
use crate::labels::Labels;
use crate::limits::LOOKBACK_MS;
use crate::store::Store;
use crate::syntax::{Aggregation, parse};

const START_MS: i64 = 1_699_999_920_000;
const _: () = assert!(START_MS % 240_000 == 0);

fn series(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).expect("labels")
}

type Given<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn store(list: &[Given]) -> Store {
    let mut store = Store::new(4 << 20);
    for (labels, samples) in list {
        let id = store.series(&series(labels), START_MS).expect("room");
        for (second, value) in *samples {
            store.append(id, START_MS + second * 1000, *value).expect("in order");
        }
    }
    store
}

/// The vector at a second.
fn at(store: &Store, text: &str, second: i64) -> Vec<(String, f64)> {
    let expr = parse(text).expect(text);
    match instant(&expr, store, START_MS + second * 1000, Limits::default()).expect(text) {
        Value::Vector(curves) => {
            curves.iter().map(|curve| (curve.labels.to_string(), curve.values[0])).collect()
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn one(store: &Store, text: &str, second: i64) -> f64 {
    let found = at(store, text, second);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found[0].1
}

#[test]
fn a_rate_is_extrapolated_to_the_window_as_prometheus_does() {
    let samples: Vec<(i64, f64)> =
        (0..10).map(|index| (10 + index * 10, index as f64 * 10.0)).collect();
    let store = store(&[(&[("__name__", "c")], &samples)]);
    // Samples at 50 to 100 within a window from 45 to 105, half an interval at each end: 60 seconds of 1.
    assert_eq!(one(&store, "rate(c[1m])", 105), 1.0);
    assert_eq!(one(&store, "increase(c[1m])", 105), 60.0);
    // The counter began at zero, 10 s into the window: no further back than there.
    assert_eq!(one(&store, "increase(c[100s])", 100), 90.0);
    // The last sample is further from the end than 1.1 intervals: half an interval is added.
    assert!((one(&store, "increase(c[100s])", 150) - 55.0).abs() < 1e-9);
    assert!(at(&store, "rate(c[10s])", 15).is_empty(), "one sample has no rate");
}

#[test]
fn a_counter_that_starts_again_loses_nothing() {
    let store = store(&[(&[("__name__", "c")], &[(0, 5.0), (10, 9.0), (20, 2.0), (30, 4.0)])]);
    assert_eq!(one(&store, "increase(c[30s])", 30), 8.0);
    assert_eq!(one(&store, "resets(c[30s])", 30), 1.0);
    assert_eq!(one(&store, "delta(c[30s])", 30), -1.0);
    assert_eq!(one(&store, "irate(c[15s])", 22), 0.2);
}

#[test]
fn a_selector_looks_back_five_minutes_and_stops_at_a_stale_marker() {
    let marker = crate::span::stale_marker();
    let store = store(&[
        (&[("__name__", "x"), ("a", "1")], &[(0, 1.0)]),
        (&[("__name__", "x"), ("a", "2")], &[(0, 2.0), (10, marker)]),
    ]);
    let lookback = LOOKBACK_MS / 1000;
    assert_eq!(at(&store, "x", 9).len(), 2);
    assert_eq!(at(&store, "x", 10).len(), 1);
    assert_eq!(at(&store, "x", lookback).len(), 1);
    assert!(at(&store, "x", lookback + 1).is_empty());
    assert_eq!(one(&store, "absent(x{a=\"2\"})", 10), 1.0);
    assert_eq!(at(&store, "count_over_time(x[1m])", 20).len(), 2, "a marker is no sample");
}

#[test]
fn histogram_quantiles_interpolate() {
    let buckets = vec![(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
    assert_eq!(bucket_quantile(0.5, buckets.clone()), 1.5);
    assert_eq!(bucket_quantile(0.125, buckets.clone()), 0.5);
    assert_eq!(bucket_quantile(0.9, buckets.clone()), 2.0, "the largest bound that is known");
    assert!(bucket_quantile(0.5, buckets[..2].to_vec()).is_nan(), "without +Inf");
    assert!(bucket_quantile(0.5, Vec::new()).is_nan());
    assert_eq!(bucket_quantile(0.5, vec![(2.0, 5.0), (1.0, 6.0), (f64::INFINITY, 6.0)]), 0.5);
}

/// What Prometheus 2.42 answers to each.
#[test]
fn corner_cases_are_as_in_prometheus() {
    let store = store(&[]);
    let one = |text: &str| one(&store, text, 0);
    let vast = "label_replace(vector(1e308), 'a', '1', '', '')";
    assert_eq!(one(&format!("avg({vast} or vector(1.5e308))")), 1.25e308);
    assert_eq!(one(&format!("avg({vast} or vector(Inf))")), f64::INFINITY);
    assert_eq!(one(&format!("sum({vast} or vector(1.5e308))")), f64::INFINITY);
    assert_eq!(one("avg_over_time(vector(1e308)[2m:1m])"), 1e308);
    assert_eq!(one("stdvar_over_time(vector(1e308)[2m:1m])"), 0.0);
    assert_eq!(one("vector(010 + 08)"), 16.0);
    let nan = "label_replace(vector(NaN), 'le', '+Inf', '', '')";
    let le1 = "label_replace(vector(1), 'le', '1', '', '')";
    assert_eq!(one(&format!("histogram_quantile(0.5, {le1} or {nan})")), 1.0);
    assert!(parse("1e1000").is_err());
}

/// Mean and overflow: whatever the order and however they are split over nodes.
#[test]
fn means_of_vast_values_are_the_same_in_any_order() {
    let values = [1.5e308, -1e308, 1.7e308, 1.7e308, 3.0];
    let mean = values.iter().map(|value| value / 5.0).sum::<f64>();
    for split in 0..=values.len() {
        for turned in 0..values.len() {
            let mut turned_values = values;
            turned_values.rotate_left(turned);
            let group = |part: &[f64]| {
                let mut group = Group::default();
                part.iter().for_each(|value| group.add(Aggregation::Avg, *value));
                group
            };
            let mut all = group(&turned_values[..split]);
            all.merge(Aggregation::Avg, &group(&turned_values[split..]));
            let found = all.finish(Aggregation::Avg);
            assert!((found / mean - 1.0).abs() < 1e-9, "{turned_values:?} at {split}: {found}");
        }
    }
}

#[test]
fn smoothing_follows_level_and_trend() {
    let samples: Vec<(i64, f64)> = (0..10i64).map(|at| (at * 10, at as f64 * 2.0)).collect();
    let store = store(&[(&[("__name__", "x")], &samples)]);
    // What grows evenly is where it is, however it is smoothed.
    for text in ["holt_winters(x[90s], 0.3, 0.6)", "double_exponential_smoothing(x[90s], 0.9, 0.1)"]
    {
        assert!((one(&store, text, 90) - 18.0).abs() < 1e-9, "{text}");
    }
    assert_eq!(one(&store, "mad_over_time(x[90s])", 90), 5.0);
    assert!(at(&store, "holt_winters(x[5s], 0.3, 0.6)", 90).is_empty(), "one sample has no trend");
}

#[test]
fn dates() {
    let date = Date::of(1_709_210_096.0);
    assert_eq!((date.year, date.month, date.day, date.hour, date.minute), (2024, 2, 29, 12, 34));
    assert_eq!((date.weekday, date.day_of_year, date.days_in_month), (4, 60, 29));
    assert_eq!(Date::of(-1.0).year, 1969);
    assert_eq!(Date::of(f64::NAN), Date::of(0.0));
    Date::of(f64::INFINITY);
    Date::of(f64::NEG_INFINITY);
}

/// Four hours of a counter with resets and of a noisy gauge: one store keeps all of it raw, of the other
/// only the last ten minutes are.
fn twins() -> (Store, Store) {
    let (mut raw, mut aged) = (Store::new(64 << 20), Store::new(64 << 20));
    let mut counter = 0.0;
    for second in 0..4 * 3600 {
        counter = if second % 1111 == 1110 { 3.0 } else { counter + f64::from(second % 7) };
        for (name, value) in [("c", counter), ("g", f64::from(second * 7919 % 1009) / 4.0)] {
            let labels = series(&[("__name__", name)]);
            for store in [&mut raw, &mut aged] {
                let at_ms = START_MS + i64::from(second) * 1000;
                let id = store.series(&labels, at_ms).expect("room");
                store.append(id, at_ms, value).expect("in order");
            }
        }
    }
    aged.expire(START_MS + 4 * 3_600_000);
    (raw, aged)
}

#[test]
fn windows_of_whole_steps_see_the_same_down_sampled() {
    let (raw, aged) = twins();
    for function in ["count", "sum", "avg", "min", "max", "last", "present"] {
        for (window, second) in [("1h", 3599), ("4m", 2639), ("30m", 2 * 3600 - 1)] {
            // A step ends before its last second does: whole steps, and nothing at the edge.
            let text = format!("{function}_over_time(g[{window}] offset -1ms)");
            let (wanted, got) = (one(&raw, &text, second), one(&aged, &text, second));
            // The closed window has one more sample at its start, which is a step's last.
            let near = (wanted - got).abs() <= 1e-9 * wanted.abs();
            assert!(near, "{text} at {second}: {got} is not {wanted}");
        }
    }
    for function in ["rate", "increase", "changes", "resets"] {
        let text = format!("{function}(c[1h])");
        for second in [3599, 2 * 3600 - 1, 3 * 3600 - 1, 4 * 3600 - 1] {
            let (wanted, got) = (one(&raw, &text, second), one(&aged, &text, second));
            assert!(
                (wanted - got).abs() <= 1e-9 * wanted.abs(),
                "{text} at {second}: {got} is not {wanted}"
            );
        }
    }
}

#[test]
fn down_sampled_data_is_never_seen_outside_of_its_time() {
    let (raw, aged) = twins();
    for second in (300..4 * 3600).step_by(97) {
        // Any window: no sample that was not there, no extreme that was not one.
        for (text, below) in [
            ("max_over_time(g[10m])", true),
            ("min_over_time(g[10m])", false),
            ("count_over_time(g[10m])", true),
        ] {
            let (wanted, got) = (one(&raw, text, second), one(&aged, text, second));
            assert!(
                if below { got <= wanted } else { got >= wanted },
                "{text} at {second}: {got}, {wanted}"
            );
        }
        let (wanted, got) =
            (one(&raw, "increase(c[20m])", second), one(&aged, "increase(c[20m])", second));
        assert!((wanted - got).abs() <= 0.05 * wanted, "increase at {second}: {got}, {wanted}");
        let age = second as f64 - (one(&aged, "timestamp(g)", second) - START_MS as f64 / 1000.0);
        assert!((0.0..240.0).contains(&age), "the newest sample at {second} is {age} s old");
    }
}

#[test]
fn too_much_is_refused_with_the_limit() {
    let lists: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let mut store = Store::new(4 << 20);
    for number in &lists {
        let id =
            store.series(&series(&[("__name__", "x"), ("n", number)]), START_MS).expect("room");
        for second in 0..100 {
            store.append(id, START_MS + second * 1000, 1.0).expect("in order");
        }
    }
    let ask = |text: &str, limits: Limits| {
        let grid = Grid::range(START_MS, START_MS + 100_000, 1000).expect("a grid");
        range(&parse(text).expect(text), &store, &grid, limits).expect_err(text)
    };
    let limits = Limits::default();
    assert_eq!(ask("x + x", Limits { series: 99, ..limits }), EvaluateError::Series(99));
    assert_eq!(ask("x", Limits { values: 1000, ..limits }), EvaluateError::Values(1000));
    assert_eq!(ask("1", Limits { values: 100, ..limits }), EvaluateError::Values(100));
    assert_eq!(
        ask("rate(x[1m])", Limits { samples: 100_000, ..limits }),
        EvaluateError::Samples(100_000)
    );
    assert!(matches!(ask("sum_over_time(x[1000y:1ms])", limits), EvaluateError::Values(_)));
    assert!(matches!(ask("max_over_time(vector(1)[1y:1s])", limits), EvaluateError::Values(_)));
    assert!(matches!(Grid::range(0, i64::MAX, 1), Err(EvaluateError::Range)));
    assert!(matches!(Grid::range(0, 1_000_000, 1), Err(EvaluateError::Steps(1_000_001))));
    assert!(
        ask("rate(x[1m])", Limits { samples: 10, ..limits })
            .to_string()
            .contains("shorter windows")
    );
}

#[test]
fn deep_expressions_do_not_exhaust_the_stack() {
    let store = store(&[(&[("__name__", "x")], &[(0, 1.0)])]);
    let text = format!("{}x{}", "abs(".repeat(45), ")".repeat(45));
    assert_eq!(one(&store, &text, 0), 1.0);
    let text = format!("{}x", "x + ".repeat(90));
    assert_eq!(one(&store, &text, 0), 91.0);
}
