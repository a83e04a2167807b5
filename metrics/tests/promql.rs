//! The same expressions over the same samples, asked of Prometheus and of this crate.
//!
//! Prometheus (Debian's package) runs on loopback with a folder of its own. An hour of history is put there
//! with its `promtool`; what it scrapes from three small exporters in here is read back through its API.
//! The list of expressions and its format: `expressions.txt`. Run it with `make test-promql`.

#![expect(
    clippy::disallowed_methods,
    reason = "another program is waited for, and exporters are threads of the test"
)]

#[path = "promql/prometheus.rs"]
mod prometheus;
#[path = "promql/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::evaluate::{self, Grid, Limits};
use metrics::store::Store;
use metrics::{answer, syntax};
use prometheus::Prometheus;
use samples::{END_MS, START_MS};
use serde_json::Value as Json;

const EXPRESSIONS: &str = include_str!("expressions.txt");
/// Answers are equal if they differ by no more than this part of them.
const TOLERANCE: f64 = 1e-9;

struct Line {
    number: usize,
    mode: String,
    expression: String,
    explained: bool,
}

#[derive(Clone, Copy)]
enum Query {
    At(i64),
    Range(i64, i64, i64),
}

#[test]
#[ignore = "needs Debian's prometheus: run it with `make test-promql`"]
fn prometheus_and_this_crate_agree() {
    let Some(mut prometheus) = Prometheus::start() else {
        assert!(
            std::env::var("WEFT_MUST").as_deref() != Ok("prometheus"),
            "prometheus is not installed"
        );
        println!("skipped: prometheus and promtool are not installed (`demo/setup.sh promql`)");
        return;
    };
    let mut store = Store::new(64 << 20);
    samples::history(&mut |labels, at_ms, value| {
        let id = store.series(&labels, at_ms).expect("room");
        store.append(id, at_ms, value).expect("in order");
    });
    let live_ms = prometheus.scrape_for(Duration::from_secs(14));
    let live = prometheus.read_back(live_ms, &mut store);
    println!("{} samples, {live} of them scraped just now", store.usage().samples);

    let history = [
        Query::At(START_MS + 1_234_567),
        Query::At(START_MS + 3_000_500),
        Query::At(END_MS + 200_000),
        Query::Range(START_MS - 60_000, END_MS + 400_000, 97_000),
        Query::Range(START_MS + 1_800_000, START_MS + 1_860_000, 1_000),
    ];
    let now = [Query::At(live_ms), Query::Range(live_ms - 13_000, live_ms, 1_000)];

    let lines = lines();
    let (mut asked, mut agreed, mut wrong) = (0, 0, Vec::new());
    for line in &lines {
        let queries = match &*line.mode {
            "instant" | "ordered" => &history[..3],
            "error" => &history[1..2],
            "live" => &now[..],
            _ => &history[..],
        };
        let mut differences = Vec::new();
        for query in queries {
            asked += 1;
            let theirs = prometheus.ask(&line.expression, *query);
            let ours = ask(&line.expression, &store, *query);
            match compare(&theirs, &ours, &line.mode) {
                Ok(()) => agreed += 1,
                Err(difference) => differences.push(difference),
            }
        }
        match (differences.first(), line.explained) {
            (Some(difference), false) => {
                wrong.push(format!("line {}: {}\n    {difference}", line.number, line.expression));
            }
            (None, true) => wrong.push(format!(
                "line {}: {} agrees: take its explanation away",
                line.number, line.expression
            )),
            _ => {}
        }
    }
    prometheus.stop();
    println!("{} expressions, {asked} queries, {agreed} answers alike", lines.len());
    for line in lines.iter().filter(|line| line.explained) {
        println!("explained: line {}: {}", line.number, line.expression);
    }
    assert!(lines.len() >= 200);
    assert!(wrong.is_empty(), "{} expressions differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Bytes a sample of ours, with its down-sampled steps, beside those of Prometheus's chunks without its index.
#[test]
#[ignore = "needs Debian's prometheus: run it with `make test-promql`"]
fn a_sample_takes_no_more_bytes_than_prometheus_needs() {
    let mut store = Store::new(64 << 20);
    samples::seconds(&mut |labels, at_ms, value| {
        let id = store.series(&labels, at_ms).expect("room");
        store.append(id, at_ms, value).expect("in order");
    });
    let Some(theirs) = prometheus::bytes_of_chunks(samples::seconds) else {
        println!("skipped: prometheus and promtool are not installed (`demo/setup.sh promql`)");
        return;
    };
    let usage = store.usage();
    let (ours, samples) = (usage.block_bytes as f64, usage.samples as f64);
    println!(
        "{samples} samples, one a second: {:.2} bytes each, with steps of a minute and of four; Prometheus {:.2}",
        ours / samples,
        theirs as f64 / samples
    );
    assert!(ours <= theirs as f64);
}

fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in EXPRESSIONS.lines().enumerate() {
        if text.starts_with("! ") {
            lines.last_mut().expect("a line to explain").explained = true;
        } else if !text.is_empty() && !text.starts_with('#') {
            let modes = ["instant", "ordered", "live", "error"];
            let mode = text.split_once(": ").filter(|(mode, _)| modes.contains(mode));
            let (mode, expression) = mode.unwrap_or(("", text));
            lines.push(Line {
                number: index + 1,
                mode: mode.into(),
                expression: expression.into(),
                explained: false,
            });
        }
    }
    lines
}

/// Our answer in the form of the API.
fn ask(expression: &str, store: &Store, query: Query) -> Json {
    let grid = match query {
        Query::At(at_ms) => Grid::instant(at_ms),
        Query::Range(start_ms, end_ms, step_ms) => Grid::range(start_ms, end_ms, step_ms),
    };
    let grid = grid.expect("a grid");
    let answer = match syntax::parse(expression) {
        Err(error) => answer::Answer::from(error),
        Ok(expr) => {
            let value = match query {
                Query::At(at_ms) => evaluate::instant(&expr, store, at_ms, Limits::default()),
                Query::Range(..) => evaluate::range(&expr, store, &grid, Limits::default()),
            };
            match value {
                Ok(value) => answer::Answer::value(value, &grid, matches!(query, Query::Range(..))),
                Err(error) => answer::Answer::from(error),
            }
        }
    };
    serde_json::to_value(answer).expect("JSON")
}

fn compare(theirs: &Json, ours: &Json, mode: &str) -> Result<(), String> {
    let refused = |answer: &Json| answer["status"] == "error";
    if refused(theirs) || refused(ours) {
        let alike = refused(theirs) && refused(ours) && theirs["errorType"] == ours["errorType"];
        return if alike && mode == "error" {
            Ok(())
        } else {
            Err(format!("theirs: {}\n    ours:   {}", shown(theirs), shown(ours)))
        };
    }
    if mode == "error" {
        return Err(format!("not refused: {}", shown(ours)));
    }
    let (theirs, ours) = (&theirs["data"], &ours["data"]);
    if theirs["resultType"] != ours["resultType"] {
        return Err(format!("{} is not {}", ours["resultType"], theirs["resultType"]));
    }
    if !matches!(theirs["resultType"].as_str(), Some("vector" | "matrix")) {
        return same_samples(&theirs["result"], &ours["result"]);
    }
    let list = |data: &Json| -> Vec<(String, Json)> {
        let series = data["result"].as_array().expect("a list").iter();
        let series = series.map(|one| {
            let labels: BTreeMap<_, _> =
                one["metric"].as_object().expect("labels").iter().collect();
            let values = if one["values"].is_array() {
                one["values"].clone()
            } else {
                Json::Array(vec![one["value"].clone()])
            };
            (serde_json::to_string(&labels).expect("JSON"), values)
        });
        series.collect()
    };
    let (mut theirs, mut ours) = (list(theirs), list(ours));
    if mode != "ordered" {
        theirs.sort_by(|left, right| left.0.cmp(&right.0));
        ours.sort_by(|left, right| left.0.cmp(&right.0));
    }
    let names =
        |list: &[(String, Json)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(&theirs) != names(&ours) {
        return Err(format!("theirs has {:?}\n    ours has   {:?}", names(&theirs), names(&ours)));
    }
    for ((name, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        let (theirs, ours) =
            (theirs.as_array().expect("samples"), ours.as_array().expect("samples"));
        if theirs.len() != ours.len() {
            return Err(format!(
                "{name}: theirs has {} samples, ours {}",
                theirs.len(),
                ours.len()
            ));
        }
        for (theirs, ours) in theirs.iter().zip(ours) {
            same_samples(theirs, ours).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}

/// `[seconds, "value"]`
fn same_samples(theirs: &Json, ours: &Json) -> Result<(), String> {
    if let (Some(left), Some(right)) = (theirs.as_array(), ours.as_array())
        && left.first().is_some_and(Json::is_array)
    {
        if left.len() != right.len() {
            return Err(format!("theirs has {} samples, ours {}", left.len(), right.len()));
        }
        return left.iter().zip(right).try_for_each(|(left, right)| same_samples(left, right));
    }
    let number = |sample: &Json| -> f64 {
        let text = sample[1].as_str().unwrap_or("");
        text.parse().unwrap_or_else(|_| panic!("{sample} is no sample"))
    };
    let (left, right) = (number(theirs), number(ours));
    let near = (left - right).abs() <= TOLERANCE * left.abs().max(right.abs())
        || (left - right).abs() < 1e-12;
    let same = left == right || (left.is_nan() && right.is_nan()) || near;
    if same && theirs[0].as_f64() == ours[0].as_f64() {
        Ok(())
    } else {
        Err(format!("theirs {theirs}, ours {ours}"))
    }
}

fn shown(answer: &Json) -> String {
    answer.to_string().chars().take(300).collect()
}
