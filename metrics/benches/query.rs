//! How long queries take: on the store of one node, and of the asker that merges 200 nodes' answers.
//!
//! A node has 1,000 series (100 units, ten metrics each) and ten minutes of samples, one a second. Time is the
//! time that the kernel says this process spent on a core. Prints one JSON object a line:
//! `{"name", "value", "unit"}`.

mod on_core;

use on_core::{Random, time_on_core};
use std::time::Duration;

use metrics::evaluate::{Grid, Limits, range};
use metrics::fleet::{Partial, Plan};
use metrics::labels::Labels;
use metrics::store::Store;
use metrics::syntax::parse;

const START_MS: i64 = 1_700_000_000_000;
const SECONDS: i64 = 600;
const UNITS: usize = 100;
const METRICS: usize = 10;
const NODES: usize = 200;
/// Each query is asked until it has taken this long, and so often that one of a hundred means something.
const MEASURED: Duration = Duration::from_millis(300);
const TIMES_MIN: usize = 200;

fn main() {
    let store = store(0);
    let end_ms = START_MS + SECONDS * 1000;
    let now = Grid::instant(end_ms).expect("a time");
    let graph = Grid::range(end_ms - 600_000, end_ms, 10_000).expect("a grid");
    for (name, text, grid) in [
        ("one series, now", "m_total{metric=\"1\", unit=\"u7\"}", now),
        ("rates of 100 series, now", "rate(m_total{metric=\"1\"}[1m])", now),
        ("sum of 100 rates, now", "sum(rate(m_total{metric=\"1\"}[1m]))", now),
        ("sum of 1,000 rates by unit, now", "sum by (unit) (rate(m_total[1m]))", now),
        ("sum of 100 rates, 61 steps", "sum(rate(m_total{metric=\"1\"}[1m]))", graph),
        ("sum of 1,000 rates by unit, 61 steps", "sum by (unit) (rate(m_total[1m]))", graph),
    ] {
        let expr = parse(text).expect(text);
        let ms = measure(|| drop(range(&expr, &store, &grid, Limits::default()).expect(text)));
        print(&format!("query/one node/{name}"), ms, "ms");
    }

    let nodes: Vec<Store> = (0..8).map(self::store).collect();
    for (name, text, grid) in [
        ("sum", "sum(rate(m_total{metric=\"1\"}[1m]))", now),
        ("sum by unit", "sum by (unit) (rate(m_total{metric=\"1\"}[1m]))", now),
        ("topk of sums", "topk(5, sum by (unit) (rate(m_total{metric=\"1\"}[1m])))", now),
        ("sum by unit, 61 steps", "sum by (unit) (rate(m_total{metric=\"1\"}[1m]))", graph),
    ] {
        let plan = Plan::of(&parse(text).expect(text), &grid, true, "node").expect(text);
        let part = &plan.parts()[0];
        let answers = nodes.iter().map(|store| part.answer(store, Limits::default()).expect(text));
        let answers: Vec<Vec<u8>> =
            answers.map(|answer| postcard::to_stdvec(&answer).expect("encodes")).collect();
        let times = times(|| {
            let mut merged = Partial::nothing(part);
            for node in 0..NODES {
                let answer = postcard::from_bytes(&answers[node % answers.len()]).expect("decodes");
                merged = merged.merge(answer, part).expect("merges");
            }
            plan.finish(vec![merged], Limits::default()).expect(text);
        });
        for (word, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let ms = times[((times.len() - 1) as f64 * quantile) as usize];
            print(&format!("query/merge of {NODES} nodes/{name}, {word}"), ms, "ms");
        }
        print(&format!("query/bytes from a node/{name}"), answers[0].len() as f64, "B");
    }
}

fn store(number: usize) -> Store {
    let mut store = Store::new(64 << 20);
    let mut random = Random(42 + number as u64);
    let node = format!("n{number}");
    for unit in 0..UNITS {
        for metric in 0..METRICS {
            let (metric, unit) = (metric.to_string(), format!("u{unit}"));
            let pairs =
                [("__name__", "m_total"), ("metric", &metric), ("unit", &unit), ("node", &node)];
            let labels = Labels::new(pairs);
            let id = store.series(&labels.expect("labels"), START_MS).expect("room");
            let mut total = 0.0;
            for second in 0..=SECONDS {
                total += (random.next() % 100) as f64;
                store.append(id, START_MS + second * 1000, total).expect("in order");
            }
        }
    }
    store
}

/// Milliseconds of one run.
fn measure(run: impl FnMut()) -> f64 {
    let times = times(run);
    times.iter().sum::<f64>() / times.len() as f64
}

/// Milliseconds of each run, in order.
fn times(mut run: impl FnMut()) -> Vec<f64> {
    run();
    let (start, mut times) = (time_on_core(), Vec::new());
    while times.len() < TIMES_MIN || time_on_core() - start < MEASURED {
        let before = time_on_core();
        run();
        times.push((time_on_core() - before).as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    times
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{{\"name\": \"{name}\", \"value\": {value:.3}, \"unit\": \"{unit}\"}}");
}
