use super::*;
use crate::prometheus::Sample;

fn point(labels: &[(&str, &str)], value: f64) -> Point {
    let metric = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Point { metric, value: Sample { at: 0.0, value } }
}

#[test]
fn quantiles_are_those_of_promql() {
    // What Prometheus 2.42 answers to histogram_quantile over these buckets.
    let histogram =
        Histogram::of(vec![(f64::INFINITY, 100.0), (0.1, 50.0), (0.2, 90.0), (0.4, 98.0)]);
    assert_eq!(histogram.count(), 100.0);
    let near = |bound: Option<Bound>, wanted: f64| match bound {
        Some(Bound::AtMost(value)) => assert!((value - wanted).abs() < 1e-12, "{value} {wanted}"),
        other => panic!("{other:?}"),
    };
    near(histogram.quantile(0.0), 0.0);
    near(histogram.quantile(0.25), 0.05);
    near(histogram.quantile(0.5), 0.1);
    near(histogram.quantile(0.9), 0.2);
    near(histogram.quantile(0.94), 0.3);
    assert_eq!(histogram.quantile(0.99), Some(Bound::Above(0.4)));
    assert_eq!(histogram.largest(), Some(Bound::Above(0.4)));
    assert_eq!(Bound::Above(0.4).display(|value| format!("{value}")), ">0.4");
}

#[test]
fn what_was_never_counted_has_no_quantile() {
    let empty = Histogram::of(vec![(0.1, 0.0), (f64::INFINITY, 0.0)]);
    assert_eq!((empty.quantile(0.5), empty.largest(), empty.count()), (None, None, 0.0));
    assert_eq!(Histogram::default().quantile(0.5), None);
}

#[test]
fn counts_that_fall_count_as_nothing() {
    let histogram = Histogram::of(vec![(1.0, 5.0), (2.0, 4.0), (4.0, 7.0)]);
    assert_eq!(histogram.buckets(), [(1.0, 5.0), (2.0, 0.0), (4.0, 2.0)]);
    let broken = Histogram::of(vec![(1.0, f64::NAN), (2.0, -4.0)]);
    assert_eq!(broken.count(), 0.0);
}

#[test]
fn series_are_grouped_by_all_but_their_bound() {
    let points = [
        point(&[("unit", "a"), ("le", "0.5")], 1.0),
        point(&[("unit", "b"), ("le", "0.5")], 7.0),
        point(&[("unit", "a"), ("le", "+Inf")], 3.0),
        point(&[("unit", "a")], 9.0),
        point(&[("unit", "a"), ("le", "x")], 9.0),
    ];
    let groups = by_group(&points);
    let of = |unit: &str| &groups[&[("unit".to_owned(), unit.to_owned())].into()];
    assert_eq!(of("a").buckets(), [(0.5, 1.0), (f64::INFINITY, 2.0)]);
    assert_eq!(of("b").count(), 7.0);
    assert_eq!(groups.len(), 2);
}
