use super::*;
use crate::prometheus::Sample;

fn labels(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn curve(metric: &[(&str, &str)], values: &[(f64, f64)]) -> Curve {
    let values = values.iter().map(|(at, value)| Sample { at: *at, value: *value }).collect();
    Curve { metric: labels(metric), values }
}

const GRID: Grid = Grid { start: 100.0, step: 10.0, steps: 4 };

fn text(table: &Table) -> String {
    crate::screen::Screen::new(crate::screen::Format::Table).text(table)
}

#[test]
fn a_vector_has_a_column_for_each_label() {
    let point = |metric: &[(&str, &str)], value| Point {
        metric: labels(metric),
        value: Sample { at: 0.0, value },
    };
    let points =
        [point(&[(NAME, "up"), ("job", "web")], 1.0), point(&[(NAME, "up"), ("node", "n2")], 0.25)];
    assert_eq!(
        text(&vector_table(&points)),
        "SERIES  JOB  NODE  VALUE\nup      web        1\nup           n2    0.25\n"
    );
}

#[test]
fn lines_have_one_scale_and_gaps_where_nothing_was_measured() {
    let curves = [
        curve(&[("node", "a")], &[(100.0, 0.0), (110.0, 4.0), (130.0, 8.0)]),
        curve(&[("node", "b")], &[(120.0, 2.0)]),
    ];
    let shown = text(&curve_table(&curves, GRID, 60));
    assert!(shown.contains("{node=\"a\"}  ▁▅ █       0    8    8"), "{shown}");
    assert!(shown.contains("{node=\"b\"}    ▃        2    2    2"), "{shown}");
}

#[test]
fn a_histogram_over_time_is_a_map_without_its_empty_edges() {
    let curves = [
        curve(&[("le", "1")], &[(100.0, 0.0), (110.0, 0.0), (120.0, 0.0)]),
        curve(&[("le", "2")], &[(100.0, 8.0), (110.0, 0.0), (120.0, 1.0)]),
        curve(&[("le", "4")], &[(100.0, 8.0), (110.0, 0.0), (120.0, 5.0)]),
        curve(&[("le", "+Inf")], &[(100.0, 8.0), (110.0, 0.0), (120.0, 5.0)]),
    ];
    assert!(is_histogram(curves.iter().map(|curve| &curve.metric)));
    let groups = heat(&curves, GRID);
    let rows = &groups[&Labels::new()];
    assert_eq!(
        text(&heat_table(rows, 60)),
        "UP TO  OVER TIME  MOST\n4      ··▓        4\n2      █·░        8\n"
    );
    assert!(!is_histogram([labels(&[])].iter()));
    assert!(!is_histogram(std::iter::empty()));
}

#[test]
fn series_are_named_as_one_would_ask_for_them() {
    assert_eq!(series_name(&labels(&[])), "{}");
    assert_eq!(series_name(&labels(&[(NAME, "up")])), "up");
    assert_eq!(
        series_name(&labels(&[(NAME, "up"), ("a", "x\"y"), ("b", "\x1b[2J")])),
        "up{a=\"x\\\"y\", b=\"\\u{1b}[2J\"}"
    );
}
