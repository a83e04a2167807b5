use super::*;
use crate::observe::sink::{Metric, Recorder};
use metrics::evaluate::Grid;

/// A node that did `jobs` jobs, and has so many on its hands.
fn node(name: &str, jobs: f64) -> Recorder {
    const DONE: Metric<'_> = Metric::counter("done_total", "Jobs done.");
    let mut recorder = Recorder::new(1 << 20, name);
    for second in 0..=60 {
        recorder.collect(0, second * 1000, None, |sink| {
            sink.put(&DONE, &[("kind", "a")], jobs * second as f64);
        });
    }
    recorder
}

fn evaluate(expression: &str) -> Query {
    let grid = Grid::instant(60_000).unwrap();
    Query::Evaluate { expression: expression.into(), grid, is_range: false }
}

/// Asks the first node; the others answer over the wire.
fn ask(query: Query, nodes: &[Recorder]) -> serde_json::Value {
    let begun = Gathering::begin(query, nodes[0].store(), Limits::default());
    let mut gathering = match begun {
        Ok(gathering) => gathering,
        Err(answer) => return serde_json::to_value(&*answer).unwrap(),
    };
    for (number, node) in nodes.iter().enumerate().skip(1) {
        let answer = respond_to(&gathering.request(), node.store(), Limits::default());
        if let Err(answer) = gathering.take(&format!("n{number}"), &answer) {
            return serde_json::to_value(&*answer).unwrap();
        }
    }
    serde_json::to_value(gathering.finish()).unwrap()
}

#[test]
fn the_answer_is_that_of_one_store_with_everything() {
    let nodes = [node("n0", 1.0), node("n1", 2.0), node("n2", 4.0)];
    let answer = ask(evaluate("sum(rate(done_total[30s]))"), &nodes);
    assert_eq!(answer["data"]["result"][0]["value"][1], "7", "{answer}");
    let answer = ask(evaluate("max by (kind) (done_total) - min by (kind) (done_total)"), &nodes);
    assert_eq!(answer["data"]["result"][0]["value"][1], "180", "{answer}");
    let answer = ask(evaluate("topk(1, done_total)"), &nodes);
    assert_eq!(answer["data"]["result"][0]["metric"]["node"], "n2", "{answer}");
    assert!(answer.get("warnings").is_none(), "{answer}");
    // Nobody needs to be asked.
    let Ok(gathering) = Gathering::begin(evaluate("1 + 1"), nodes[0].store(), Limits::default())
    else {
        panic!("an expression")
    };
    assert!(!gathering.asks_others());
}

#[test]
fn series_labels_and_metadata_are_those_of_all() {
    let nodes = [node("n0", 1.0), node("n1", 2.0)];
    let find = |wanted, limit| Query::Find {
        selectors: vec!["done_total".into()],
        from_ms: 0,
        until_ms: 60_000,
        wanted,
        limit,
    };
    let answer = ask(find(Wanted::Values("node".into()), 9), &nodes);
    assert_eq!(answer["data"], serde_json::json!(["n0", "n1"]));
    let answer = ask(find(Wanted::Names, 9), &nodes);
    assert_eq!(answer["data"], serde_json::json!(["__name__", "kind", "node"]));
    assert_eq!(ask(find(Wanted::Series, 9), &nodes)["data"].as_array().unwrap().len(), 2);
    assert_eq!(ask(find(Wanted::Series, 1), &nodes)["data"].as_array().unwrap().len(), 1);
    let answer = ask(Query::Metadata { metric: None, limit: 9 }, &nodes);
    assert_eq!(answer["data"]["done"][0]["type"], "counter", "{answer}");
}

#[test]
fn who_talks_nonsense_is_named_and_costs_nobody_else_his_answer() {
    let nodes = [node("n0", 1.0), node("n1", 2.0)];
    let strange: [&[u8]; 4] =
        [b"", b"\x01\xff\xff", b"\x02", &wire::encode(&Response::Texts(Default::default()))];
    for bytes in strange {
        let Ok(mut gathering) =
            Gathering::begin(evaluate("sum(done_total)"), nodes[0].store(), Limits::default())
        else {
            panic!("an expression")
        };
        gathering.take("n9", bytes).expect("only a warning");
        let answer = respond_to(&gathering.request(), nodes[1].store(), Limits::default());
        gathering.take("n1", &answer).expect("a good answer");
        let answer = serde_json::to_value(gathering.finish()).unwrap();
        assert_eq!(answer["data"]["result"][0]["value"][1], "180", "{answer}");
        let warning = answer["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("n9 is not in this answer"), "{warning}");
    }
}

#[test]
fn errors_say_where_and_how_to_do_better() {
    let nodes = [node("n0", 1.0)];
    let answer = ask(evaluate("sum(done_total"), &nodes);
    assert_eq!(answer["errorType"], "bad_data");
    let reason = answer["error"].as_str().unwrap();
    assert!(reason.starts_with("1:") || reason.contains("1:"), "a position: {reason}");
    let answer = ask(evaluate("max_over_time((done_total + 1)[50m:1ms])"), &nodes);
    assert_eq!(answer["errorType"], "execution", "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("use a"), "{answer}");
    let refused = respond_to(&wire::encode(&"nonsense"), nodes[0].store(), Limits::default());
    assert!(matches!(wire::decode(&refused), Ok(Response::Refused(_))));
}

#[test]
fn a_question_of_many_parts_takes_no_longer_than_a_query_may() {
    let store = node("n0", 1.0);
    let ask = |request: &Request| respond_to(&wire::encode(request), store.store(), LIMITS);
    // One is within a query's limits, and so each of a thousand would be.
    const LIMITS: Limits = Limits { series: 100, values: 1_000, samples: 1_000 };
    let grid = Grid::range(0, 60_000, 1_000).unwrap();
    let part = |text: &str| metrics::fleet::Part { expression: text.into(), grid, keep: None };
    let parts = |count| Request::Parts(vec![part("sum(done_total)"); count]);
    assert!(matches!(wire::decode(&ask(&parts(2))), Ok(Response::Parts(_))));
    let refused = wire::decode::<Response>(&ask(&parts(50))).unwrap();
    assert!(matches!(&refused, Response::TooMuch(reason) if reason.contains("more than")));
    // One that finds nothing has looked for it all the same.
    let nothing = Request::Parts(vec![part("sum({a=~\"(x+x+)+y\"})"); 500]);
    let refused = wire::decode::<Response>(&ask(&nothing)).unwrap();
    assert!(matches!(&refused, Response::TooMuch(reason) if reason.contains("samples")));
    let refused = wire::decode::<Response>(&ask(&Request::Parts(vec![part("1"); 1_001]))).unwrap();
    assert!(matches!(&refused, Response::TooMuch(reason) if reason.contains("1001 parts")));
    let selectors = vec!["done_total".to_owned(); SELECTORS_MAX + 1];
    let find = Request::Series { selectors, from_ms: 0, until_ms: 60_000 };
    let refused = wire::decode::<Response>(&ask(&find)).unwrap();
    assert!(matches!(&refused, Response::Refused(reason) if reason.contains("selectors")));
}
