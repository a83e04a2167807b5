use super::*;
use crate::evaluate::{Limits, instant, range};
use crate::store::Store;
use crate::syntax::parse;

fn store() -> Store {
    let mut store = Store::new(1 << 20);
    for (unit, value) in [("a", 1.5), ("b", f64::NAN)] {
        let labels = Labels::new([("__name__", "x"), ("unit", unit)]).expect("labels");
        let id = store.series(&labels, 0).expect("room");
        store.append(id, 1000, value).expect("in order");
        store.append(id, 2000, value).expect("in order");
    }
    store
}

fn json(answer: &Answer) -> String {
    serde_json::to_string(answer).expect("JSON")
}

fn ask(text: &str) -> String {
    let value = instant(&parse(text).expect(text), &store(), 2500, Limits::default()).expect(text);
    json(&Answer::value(value, &Grid::instant(2500).expect("a time"), false))
}

#[test]
fn instant_queries_have_prometheus_shapes() {
    assert_eq!(
        ask("x"),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[\
         {\"metric\":{\"__name__\":\"x\",\"unit\":\"a\"},\"value\":[2.5,\"1.5\"]},\
         {\"metric\":{\"__name__\":\"x\",\"unit\":\"b\"},\"value\":[2.5,\"NaN\"]}]}}"
    );
    assert_eq!(
        ask("1 / 0"),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[2.5,\"+Inf\"]}}"
    );
    assert_eq!(
        ask("\"text\""),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":[2.5,\"text\"]}}"
    );
    assert_eq!(
        ask("x{unit=\"a\"}[5s]"),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[\
         {\"metric\":{\"__name__\":\"x\",\"unit\":\"a\"},\"values\":[[1,\"1.5\"],[2,\"1.5\"]]}]}}"
    );
    assert_eq!(
        ask("nothing"),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}"
    );
}

#[test]
fn range_queries_are_matrices() {
    let grid = Grid::range(0, 2000, 1000).expect("a grid");
    let expr = parse("x{unit=\"a\"}").expect("valid");
    let value = range(&expr, &store(), &grid, Limits::default()).expect("a value");
    let mut answer = Answer::value(value, &grid, true);
    answer.warnings.push("node n2 did not answer within 1 s".into());
    assert_eq!(
        json(&answer),
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[\
         {\"metric\":{\"__name__\":\"x\",\"unit\":\"a\"},\"values\":[[1,\"1.5\"],[2,\"1.5\"]]}]},\
         \"warnings\":[\"node n2 did not answer within 1 s\"]}"
    );
}

#[test]
fn errors_have_prometheus_form_and_status() {
    let answer = Answer::from(parse("sum(").expect_err("not valid"));
    assert_eq!(
        json(&answer),
        "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"1:4: parse error: unclosed left parenthesis\"}"
    );
    assert_eq!(answer.status(), 400);
    assert_eq!(Answer::from(EvaluateError::Series(5)).status(), 422);
    assert_eq!(Answer::from(EvaluateError::Steps(20_000)).status(), 400);
}

#[test]
fn names_values_series_and_metadata() {
    let mut store = store();
    let found = selected(&store, &["x{unit=\"a\"}", "{unit=~\".\"}"], 0, 3000).expect("selectors");
    assert_eq!(
        json(&Answer::series(found.clone())),
        "{\"status\":\"success\",\"data\":[{\"__name__\":\"x\",\"unit\":\"a\"},{\"__name__\":\"x\",\"unit\":\"b\"}]}"
    );
    let values = label_values(&found, "unit");
    assert_eq!(json(&Answer::texts(values)), "{\"status\":\"success\",\"data\":[\"a\",\"b\"]}");
    assert_eq!(label_names(&found).into_iter().collect::<Vec<_>>(), ["__name__", "unit"]);
    assert!(selected(&store, &["x"], 5000, 6000).expect("a selector").is_empty());
    assert!(selected(&store, &["rate(x[5m])"], 0, 1).is_err(), "an expression is no selector");
    store.describe("x", Kind::Gauge, "An x.", "bytes").expect("room");
    let metadata = store.metadata().iter().map(|(name, metadata)| (&**name, metadata));
    assert_eq!(
        json(&Answer::metadata(metadata)),
        "{\"status\":\"success\",\"data\":{\"x\":[{\"type\":\"gauge\",\"help\":\"An x.\",\"unit\":\"bytes\"}]}}"
    );
}

#[test]
fn numbers_are_written_as_prometheus_does() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e-7, "1.5e-07"),
        (-2e-300, "-2e-300"),
        (0.000001, "0.000001"),
        (f64::NEG_INFINITY, "-Inf"),
    ] {
        assert_eq!(number(value), text);
    }
}
