use super::*;
use crate::screen::Format;
use std::time::Duration;

fn wanted(by: Option<By>, job: Option<&str>) -> Hist {
    Hist {
        kind: HistKind::Runq,
        by,
        on: None,
        job: job.map(|job| job.parse().unwrap()),
        range: Duration::from_secs(60),
    }
}

fn group(unit: &str, cumulative: &[(f64, f64)]) -> Group {
    let labels = [("node", "n1"), ("unit", unit)];
    Group {
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        histogram: Histogram::of(cumulative.to_vec()),
    }
}

#[test]
fn what_is_asked_is_added_up_where_the_data_is() {
    assert_eq!(
        expression(&wanted(None, None), None),
        "sum by (le) (increase(weft_unit_runqueue_seconds_bucket{}[60000ms]))"
    );
    assert_eq!(
        expression(&wanted(Some(By::Unit), Some("web/2")), Some(&["a".into(), "b.c".into()])),
        "sum by (node, unit, le) (increase(weft_unit_runqueue_seconds_bucket\
         {node=~\"a|b\\\\.c\",job=\"web\",slot=\"2\"}[60000ms]))"
    );
    assert!(expression(&wanted(Some(By::Job), None), None).contains("{job!=\"\"}"));
    let trips = Hist { kind: HistKind::Rtt, ..wanted(Some(By::Node), None) };
    assert_eq!(
        expression(&trips, None),
        "sum by (node, le) (increase(weft_unit_tcp_round_trip_seconds_bucket{}[60000ms]))"
    );
}

#[test]
fn one_histogram_is_bars_between_its_ends() {
    let group = group(
        "web",
        &[(1e-6, 0.0), (2e-6, 30.0), (4e-6, 30.0), (8e-6, 40.0), (f64::INFINITY, 40.0)],
    );
    let text = Screen::new(Format::Table).text(&bars(&group.histogram, seconds));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[1].starts_with("2us    30     75 %    ████"), "{text}");
    assert!(lines[2].starts_with("4us    0      0 %"), "{text}");
    assert!(lines[3].starts_with("8us    10     25 %    █████████████"), "{text}");
}

#[test]
fn several_are_a_row_each_on_one_scale() {
    let slow = group("slow", &[(1e-6, 0.0), (2e-6, 1.0), (4e-6, 100.0), (f64::INFINITY, 101.0)]);
    let fast = group("fast", &[(1e-6, 10.0), (2e-6, 10.0), (4e-6, 10.0), (f64::INFINITY, 10.0)]);
    assert!(slow.slowest() > fast.slowest());
    let text = Screen::new(Format::Table).text(&group_table(&[slow, fast], By::Unit));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("MAX   UP TO 1us ... +Inf"), "{text}");
    assert!(lines[1].ends_with(">4us  ·░█░"), "{text}");
    assert!(lines[2].ends_with("1us   █···"), "{text}");
}

#[test]
fn nodes_are_chosen_by_what_holds_for_them() {
    let condition: Constraint = "labels.rack==\"r2\"".parse().unwrap();
    let Err(Failure::Said(exit, message)) = fitting(&[], &condition) else { panic!() };
    assert_eq!(exit, Exit::NotFound);
    assert!(message.contains("labels.rack == \"r2\""), "{message}");
}

#[test]
fn programs_get_what_is_known_and_null_where_it_is_not() {
    let group = group("web", &[(0.5, 1.0), (f64::INFINITY, 4.0)]);
    let json = json(&[group], &["n3 did not answer".into()]);
    let first = &json["histograms"][0];
    assert_eq!(first["labels"]["unit"], "web");
    assert_eq!(first["quantiles"]["p99"], serde_json::Value::Null);
    assert_eq!(first["buckets"][1]["up_to_seconds"], serde_json::Value::Null);
    assert_eq!((&first["count"], &json["warnings"][0]), (&4.0.into(), &"n3 did not answer".into()));
}
