//! Bytes a sample and samples a second of the store, on the kinds of series that a node has.
//!
//! Each case is 200 series with a sample a second for 50 minutes, as an agent takes them: all series of
//! one second, then the next. `raw` are the bytes of the raw samples alone; `day` is what a whole day of
//! one series takes, in all its tiers. Time is the time that the kernel says this process spent on a
//! core. Prints one JSON object a line: `{"name", "value", "unit"}`.

#[path = "../tests/promql/prometheus.rs"]
#[expect(
    dead_code,
    clippy::disallowed_methods,
    reason = "only the size of its chunks and its own benchmark are of interest here"
)]
mod prometheus;
#[path = "../tests/promql/samples.rs"]
#[expect(dead_code, reason = "only its seconds are of interest here")]
mod samples;

mod on_core;

use on_core::{Random, time_on_core};

use metrics::labels::{Labels, Matcher, Matching};
use metrics::store::{Source, Store};

const SERIES: usize = 200;
const SECONDS: i64 = 3000;
const START_MS: i64 = 1_700_000_000_000;
/// The case that Prometheus is beside.
const BESIDE: &str = "busy counter";
const DAY_SECONDS: i64 = 86_400;

fn main() {
    // Each is a function of its random numbers and the value before.
    measure("constant", |_, _| 4096.0);
    measure("busy counter", |random, before| before + (random.next() % 400) as f64);
    measure("steady counter", |random, before| before + 100.0 + (random.next() % 4) as f64);
    measure("idle counter", |random, before| before + f64::from(random.next().is_multiple_of(20)));
    measure("cpu seconds", |random, before| {
        ((before * 100.0).round() + (random.next() % 100) as f64) / 100.0
    });
    measure("memory bytes", |random, before| {
        let pages = (random.next() % 64) as f64 - 31.5;
        if random.next().is_multiple_of(3) {
            before
        } else {
            (before + pages.round() * 4096.0).abs()
        }
    });
    measure("fraction of random bits", |random, _| {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    });
    budget();
    beside();
}

/// What `prometheus` in the tests asks with.
#[derive(Clone, Copy)]
#[expect(dead_code, reason = "nothing is asked here")]
enum Query {
    At(i64),
    Range(i64, i64, i64),
}

/// Bytes of a sample of ours, with its steps, beside those of Prometheus's chunks, where it is installed.
fn beside() {
    let mut store = Store::new(64 << 20);
    samples::seconds(&mut |labels, at_ms, value| {
        let id = store.series(&labels, at_ms).expect("room");
        store.append(id, at_ms, value).expect("in order");
    });
    let count = store.usage().samples as f64;
    let mut row = serde_json::json!({
        "name": "store/beside prometheus",
        "value": store.usage().block_bytes as f64 / count,
        "unit": "B/sample",
    });
    if let Some(theirs) = prometheus::bytes_of_chunks(samples::seconds) {
        let version = prometheus::version();
        let value = theirs as f64 / count;
        row["peer"] =
            serde_json::json!({ "name": "prometheus", "version": version, "value": value });
    }
    println!("{row}");
}

fn measure(case: &str, next: fn(&mut Random, f64) -> f64) {
    let labels: Vec<Labels> = (0..SERIES).map(|number| labels(case, number)).collect();
    let mut random = Random(42);
    let mut values = vec![0.0; SERIES];
    let mut columns = Vec::new();
    for _ in 0..SECONDS {
        values.iter_mut().for_each(|value| *value = next(&mut random, *value));
        columns.push(values.clone());
    }

    let mut store = Store::new(64 << 20);
    let ids: Vec<_> =
        labels.iter().map(|labels| store.series(labels, START_MS).expect("room")).collect();
    let start = time_on_core();
    for (second, values) in columns.iter().enumerate() {
        for (id, value) in ids.iter().zip(values) {
            store.append(*id, START_MS + second as i64 * 1000, *value).expect("in order");
        }
    }
    let taken = time_on_core() - start;
    let samples = SERIES as f64 * SECONDS as f64;
    let rate = samples / taken.as_secs_f64();
    let theirs = (case == BESIDE).then(|| prometheus::samples_a_second(SERIES, SECONDS as usize));
    match theirs.flatten() {
        Some(theirs) => {
            let peer = serde_json::json!({
                "name": "prometheus, with its log", "version": prometheus::version(), "value": theirs
            });
            let name = format!("store/append/{case}");
            println!(
                "{}",
                serde_json::json!({ "name": name, "value": rate, "unit": "1/s", "peer": peer })
            );
        }
        None => print(&format!("store/append/{case}"), rate, "1/s"),
    }
    let bytes = store.usage().block_bytes as f64;
    print(&format!("store/raw and steps/{case}"), bytes / samples, "B/sample");

    let everything = [Matcher::new("__name__", Matching::Equal, "bench").expect("a matcher")];
    let start = time_on_core();
    let mut read = 0;
    let mut spans = Vec::new();
    for (id, _) in store.select(&everything) {
        spans.clear();
        store.read(id, 0, i64::MAX, &mut spans);
        read += spans.len();
    }
    print(
        &format!("store/read/{case}"),
        read as f64 / (time_on_core() - start).as_secs_f64(),
        "1/s",
    );

    // A day of one series, with what is too old for its tier dropped on the way.
    let mut store = Store::new(64 << 20);
    let id = store.series(&labels[0], START_MS).expect("room");
    let mut value = 0.0;
    for second in 0..DAY_SECONDS {
        value = next(&mut random, value);
        store.append(id, START_MS + second * 1000, value).expect("in order");
        if second % 60 == 0 {
            store.expire(START_MS + second * 1000);
        }
    }
    print(&format!("store/day/{case}"), store.usage().block_bytes as f64, "B/series");
}

/// What 4 MiB hold of a node with 1,000 series, a seventh of each kind above.
fn budget() {
    let mut random = Random(7);
    let mut store = Store::new(4 << 20);
    let ids: Vec<_> = (0..1000)
        .map(|number| store.series(&labels("mixed", number), START_MS).expect("room"))
        .collect();
    let mut values = vec![0.0; ids.len()];
    let start = time_on_core();
    for second in 0..DAY_SECONDS / 4 {
        for (index, id) in ids.iter().enumerate() {
            let step = match index % 4 {
                0 => 0.0,
                1 => 100.0 + (random.next() % 4) as f64,
                2 => f64::from(random.next().is_multiple_of(20)),
                _ => (random.next() % 400) as f64,
            };
            values[index] += step;
            store.append(*id, START_MS + second * 1000, values[index]).expect("in order");
        }
        if second % 60 == 0 {
            store.expire(START_MS + second * 1000);
        }
    }
    let usage = store.usage();
    let samples = usage.samples as f64;
    print("store/append/full", samples / (time_on_core() - start).as_secs_f64(), "1/s");
    print("store/index of 1000 series", usage.index_bytes as f64 / 1000.0, "B/series");
    let end_ms = START_MS + DAY_SECONDS / 4 * 1000;
    let hours = (end_ms - store.forgotten_to_ms().max(START_MS)) as f64 / 3_600_000.0;
    print("store/6 hours of 1000 series in 4 MiB", hours, "h");
    print("store/bytes after 6 hours of 1000 series", usage.bytes as f64, "B");
}

fn labels(case: &str, number: usize) -> Labels {
    let number = format!("weft-job-{number}.service");
    let pairs = [("__name__", "bench"), ("case", case), ("unit", &number), ("node", "n1")];
    Labels::new(pairs).expect("labels")
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{{\"name\": \"{name}\", \"value\": {value:.2}, \"unit\": \"{unit}\"}}");
}
