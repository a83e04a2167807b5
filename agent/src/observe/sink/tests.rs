use super::*;
use metrics::evaluate::{Limits, Value, instant};
use metrics::exposition::{Exposition, Format};
use metrics::syntax::parse;

const JOBS: Metric<'_> = Metric::counter("weft_jobs_done_total", "Jobs.");
const LOAD: Metric<'_> = Metric::gauge("node_load1", "Load.");

fn recorder() -> Recorder {
    Recorder::new(1 << 20, "one")
}

fn ask(recorder: &Recorder, expression: &str, at_ms: i64) -> Vec<(String, f64)> {
    let expr = parse(expression).unwrap();
    let value = instant(&expr, recorder.store(), at_ms, Limits::default()).unwrap();
    let Value::Vector(curves) = value else { panic!("{value:?}") };
    curves.into_iter().map(|curve| (curve.labels.to_string(), curve.values[0])).collect()
}

#[test]
fn every_series_has_the_label_of_its_node() {
    let mut recorder = recorder();
    recorder.collect(0, 1000, None, |sink| sink.put(&LOAD, &[("a", "b"), ("c", "")], 0.5));
    let found = ask(&recorder, "node_load1", 1000);
    assert_eq!(found, [("node_load1{a=\"b\", node=\"one\"}".to_owned(), 0.5)]);
    recorder.rename("two", 2000);
    recorder.collect(0, 3000, Some(1000), |sink| sink.put(&LOAD, &[], 0.7));
    assert_eq!(ask(&recorder, "node_load1", 3000), [("node_load1{node=\"two\"}".to_owned(), 0.7)]);
}

#[test]
fn what_a_collector_gives_no_more_has_ended() {
    let mut recorder = recorder();
    for (at_ms, both) in [(1000, true), (2000, false), (3000, false)] {
        recorder.collect(0, at_ms, None, |sink| {
            sink.put(&LOAD, &[("of", "a")], 1.0);
            if both {
                sink.put(&LOAD, &[("of", "b")], 1.0);
            }
        });
        // What another gave is none of its business.
        if at_ms == 1000 {
            recorder.collect(1, at_ms, None, |sink| sink.put(&LOAD, &[("of", "c")], 1.0));
        }
    }
    assert_eq!(ask(&recorder, "node_load1", 1500).len(), 3);
    assert_eq!(ask(&recorder, "node_load1", 3000).len(), 2);
}

#[test]
fn the_first_events_of_a_counter_are_an_increase() {
    let mut recorder = recorder();
    recorder.collect(0, 1000, None, |_| {});
    recorder.collect(0, 2000, Some(1000), |sink| sink.count(&JOBS, &[], 3.0));
    let found = ask(&recorder, "increase(weft_jobs_done_total[1s])", 2000);
    assert_eq!(found, [("{node=\"one\"}".to_owned(), 3.0)]);
    // A gauge, or a counter that may have been there before, has no such beginning.
    recorder.collect(1, 2000, Some(1000), |sink| sink.put(&LOAD, &[], 3.0));
    assert!(ask(&recorder, "increase(node_load1[1s])", 2000).is_empty());
}

#[test]
fn nothing_that_is_given_can_break_the_text_for_scrapers() {
    let mut recorder = recorder();
    recorder.collect(0, 1000, None, |sink| {
        sink.put(&JOBS, &[("job", "a \"quoted\" \\ name\n")], 1.0);
        sink.put(&Metric::counter("node_forks", "Without its end."), &[], 2.0);
        sink.put(&Metric::info("weft_thing_info", "Thing."), &[("version", "1")], 1.0);
        sink.put(&Metric::gauge("not a name", ""), &[], 1.0);
        sink.put(&LOAD, &[("not-a-label", "x")], 1.0);
        sink.put(&LOAD, &[("node", "mine")], 1.0);
        sink.histogram(&Metric::histogram("h", "H."), &[], [("0.5", 1), ("+Inf", 2)], 1.5);
    });
    assert_eq!(recorder.refusals().series, 3);
    let text = Exposition::of_store(recorder.store(), 1000, Format::Prometheus).unwrap();
    for line in [
        "weft_jobs_done_total{job=\"a \\\"quoted\\\" \\\\ name\\n\",node=\"one\"} 1",
        "# TYPE weft_jobs_done_total counter",
        "# TYPE node_forks untyped",
        "# TYPE weft_thing_info gauge",
        "h_bucket{le=\"+Inf\",node=\"one\"} 2",
        "h_sum{node=\"one\"} 1.5",
        "# TYPE h histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_clock_that_was_set_back_costs_samples_and_nothing_else() {
    let mut recorder = recorder();
    for at_ms in [5000, 4000, 6000] {
        recorder.collect(0, at_ms, None, |sink| sink.put(&LOAD, &[], at_ms as f64));
    }
    assert_eq!(recorder.refusals(), Refusals { series: 0, out_of_order: 1 });
    assert_eq!(ask(&recorder, "node_load1", 6000)[0].1, 6000.0);
}
