use super::*;

fn written(format: Format) -> String {
    let mut exposition = Exposition::new(format);
    let mut family = exposition
        .family("weft_waits_seconds", Kind::Counter, "seconds", "Time that \"threads\"\nwaited.")
        .expect("new");
    family.sample(&[("unit", "a\"b\\c\n")], 1.5).expect("valid").sample(&[], 1e21).expect("valid");
    exposition
        .family("weft_build", Kind::Info, "", "")
        .expect("new")
        .sample(&[("version", "1")], 1.0)
        .expect("valid");
    exposition
        .family("latency", Kind::Histogram, "", "Of requests.")
        .expect("new")
        .histogram(&[("unit", "a")], &[(0.5, 1), (1.0, 3), (f64::INFINITY, 4)], 2.5)
        .expect("valid");
    exposition.finish()
}

#[test]
fn openmetrics() {
    assert_eq!(
        written(Format::OpenMetrics),
        "# HELP weft_waits_seconds Time that \\\"threads\\\"\\nwaited.\n\
         # TYPE weft_waits_seconds counter\n\
         # UNIT weft_waits_seconds seconds\n\
         weft_waits_seconds_total{unit=\"a\\\"b\\\\c\\n\"} 1.5\n\
         weft_waits_seconds_total 1e+21\n\
         # TYPE weft_build info\n\
         weft_build_info{version=\"1\"} 1\n\
         # HELP latency Of requests.\n\
         # TYPE latency histogram\n\
         latency_bucket{unit=\"a\",le=\"0.5\"} 1\n\
         latency_bucket{unit=\"a\",le=\"1\"} 3\n\
         latency_bucket{unit=\"a\",le=\"+Inf\"} 4\n\
         latency_sum{unit=\"a\"} 2.5\n\
         latency_count{unit=\"a\"} 4\n\
         # EOF\n"
    );
}

#[test]
fn the_older_format() {
    let text = written(Format::Prometheus);
    assert!(text.starts_with(
        "# HELP weft_waits_seconds_total Time that \"threads\"\\nwaited.\n\
         # TYPE weft_waits_seconds_total counter\n\
         weft_waits_seconds_total{unit=\"a\\\"b\\\\c\\n\"} 1.5\n"
    ));
    assert!(text.contains("# TYPE weft_build_info gauge\nweft_build_info{version=\"1\"} 1\n"));
    assert!(!text.contains("UNIT") && !text.contains("EOF"));
}

#[test]
fn what_is_not_valid_is_refused() {
    let mut exposition = Exposition::new(Format::OpenMetrics);
    exposition.family("a", Kind::Gauge, "", "").expect("new");
    assert!(exposition.family("a", Kind::Gauge, "", "").is_err(), "twice");
    assert!(exposition.family("a b", Kind::Gauge, "", "").is_err());
    let mut family = exposition.family("b", Kind::Histogram, "", "").expect("new");
    assert!(family.sample(&[("a-b", "c")], 1.0).is_err());
    assert!(family.histogram(&[], &[(1.0, 1)], 1.0).is_err(), "without +Inf");
    assert!(family.histogram(&[], &[(2.0, 1), (1.0, 1), (f64::INFINITY, 1)], 1.0).is_err());
    assert!(family.histogram(&[], &[(1.0, 2), (f64::INFINITY, 1)], 1.0).is_err());
    assert_eq!(exposition.finish(), "# TYPE a gauge\n# TYPE b histogram\n# EOF\n");
}

#[test]
fn openmetrics_is_for_those_who_name_it() {
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    assert_eq!(Format::accepted(""), Format::Prometheus);
}

#[test]
fn a_store_is_written_by_family() {
    let mut store = Store::new(1 << 20);
    store.describe("load", Kind::Gauge, "Running threads.", "").expect("room");
    store.describe("waits", Kind::Counter, "Waits.", "").expect("room");
    store.describe("latency", Kind::Histogram, "", "").expect("room");
    for (name, labels, value) in [
        ("latency_bucket", vec![("le", "+Inf"), ("unit", "a")], 4.0),
        ("latency_bucket", vec![("le", "10"), ("unit", "a")], 3.0),
        ("latency_bucket", vec![("le", "2.5"), ("unit", "a")], 1.0),
        ("latency_count", vec![("unit", "a")], 4.0),
        ("latency_sum", vec![("unit", "a")], 20.0),
        ("waits_total", vec![("unit", "b")], 2.0),
        ("waits_total", vec![("unit", "a")], 1.0),
        ("load", vec![], 0.5),
        ("other_total", vec![], 7.0),
    ] {
        let labels = Labels::new(labels.into_iter().chain([(NAME, name)])).expect("labels");
        let id = store.series(&labels, 0).expect("room");
        store.append(id, 1000, value).expect("in order");
    }
    assert_eq!(
        Exposition::of_store(&store, 2000, Format::OpenMetrics).expect("a text"),
        "# TYPE latency histogram\n\
         latency_bucket{le=\"2.5\",unit=\"a\"} 1\n\
         latency_bucket{le=\"10\",unit=\"a\"} 3\n\
         latency_bucket{le=\"+Inf\",unit=\"a\"} 4\n\
         latency_sum{unit=\"a\"} 20\n\
         latency_count{unit=\"a\"} 4\n\
         # HELP load Running threads.\n\
         # TYPE load gauge\n\
         load 0.5\n\
         # TYPE other_total unknown\n\
         other_total 7\n\
         # HELP waits Waits.\n\
         # TYPE waits counter\n\
         waits_total{unit=\"a\"} 1\n\
         waits_total{unit=\"b\"} 2\n\
         # EOF\n"
    );
    let later = Exposition::of_store(&store, 1_000_000, Format::OpenMetrics).expect("a text");
    assert_eq!(later, "# EOF\n", "nothing that is gone");
}
