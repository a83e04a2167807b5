//! An hour of samples, with everything in it that is hard: resets, gaps, jitter, NaN, infinities.

use metrics::labels::Labels;

/// When the hour begins.
pub const START_MS: i64 = 1_700_000_000_000;
/// When it ends.
pub const END_MS: i64 = START_MS + 3_600_000;

const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// Calls `add` for each sample, series by series.
pub fn history(add: &mut dyn FnMut(Labels, i64, f64)) {
    let mut random = Random(42);
    for (place, instance) in INSTANCES.into_iter().enumerate() {
        for (code, method) in [("200", "get"), ("200", "post"), ("500", "get"), ("500", "post")] {
            let labels = labels(
                "requests_total",
                &[("code", code), ("instance", instance), ("method", method)],
            );
            let mut total = 0.0;
            let most = if code == "200" { 900 } else { 7 };
            for at in times(&mut random, 15_000, 40) {
                total += (random.next() % most) as f64;
                if random.next().is_multiple_of(60 + place as u64 * 40) {
                    total = (random.next() % 5) as f64;
                }
                add(labels.clone(), at, total);
            }
        }
        for sensor in ["s1", "s2"] {
            let labels = labels("temperature", &[("instance", instance), ("sensor", sensor)]);
            for at in times(&mut random, 10_000, 3000) {
                let slow = ((at - START_MS) as f64 / 600_000.0 + place as f64).sin() * 15.0;
                add(labels.clone(), at, 12.0 + slow + (random.next() % 1000) as f64 / 100.0);
            }
        }
        let mut memory = 1e9;
        for at in times(&mut random, 15_000, 0) {
            memory += 4096.0 * ((random.next() % 2000) as f64 - 900.0);
            add(labels("memory_bytes", &[("instance", instance)]), at, memory);
        }
        let mut counts = [0u64; 6];
        let mut sum = 0.0;
        for at in times(&mut random, 15_000, 0) {
            for _ in 0..random.next() % 20 {
                let bucket = (random.next() % 36).isqrt() as usize;
                counts[5 - bucket] += 1;
                sum += bucket as f64 / 10.0;
            }
            let mut total = 0;
            for (bound, count) in
                ["0.005", "0.05", "0.5", "1", "2.5", "+Inf"].into_iter().zip(counts)
            {
                total += count;
                add(
                    labels("latency_seconds_bucket", &[("instance", instance), ("le", bound)]),
                    at,
                    total as f64,
                );
            }
            add(labels("latency_seconds_count", &[("instance", instance)]), at, total as f64);
            add(labels("latency_seconds_sum", &[("instance", instance)]), at, sum);
        }
        let version = ["2.4", "2.4", "10.12"][place];
        let role = ["db", "web", "web"][place];
        for at in times(&mut random, 60_000, 0) {
            add(
                labels(
                    "build_info",
                    &[("instance", instance), ("version", version), ("role", role)],
                ),
                at,
                1.0,
            );
            add(labels("constant", &[("instance", instance)]), at, [20.0, 20.0, 40.0][place]);
        }
        // Away for seven minutes: longer than the look-back.
        for (index, at) in times(&mut random, 20_000, 0).into_iter().enumerate() {
            if index % (40 + place) < 21 {
                add(labels("flaky", &[("instance", instance)]), at, (random.next() % 100) as f64);
            }
        }
        for at in times(&mut random, 240_000, 0) {
            add(labels("sparse", &[("instance", instance)]), at, (at - START_MS) as f64 / 7.0);
        }
    }
    for at in times(&mut random, 15_000, 0).into_iter().filter(|at| (at - START_MS) / 300_000 == 5)
    {
        add(labels("short", &[("instance", "a")]), at, ((at - START_MS) / 1000) as f64);
    }
    for (index, at) in times(&mut random, 15_000, 0).into_iter().enumerate() {
        let mixed = [1.0, f64::NAN, -3.0, f64::INFINITY, 0.0, 1e-300, -0.0, 1e300][index % 8];
        let kinds = [
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("less", f64::NEG_INFINITY),
            ("zero", 0.0),
            ("mixed", mixed),
        ];
        for (kind, value) in kinds {
            add(labels("strange", &[("kind", kind)]), at, value);
        }
    }
}

/// An hour of a sample a second, of series as a node has them: counters busy, steady and idle, seconds of a
/// core, memory, a load.
pub fn seconds(add: &mut dyn FnMut(Labels, i64, f64)) {
    let mut random = Random(7);
    for number in 0..24u64 {
        let number_text = number.to_string();
        let labels = labels("seconds", &[("number", &number_text)]);
        let mut value = 0.0;
        for second in 0..3600 {
            let noise = random.next();
            value = match number % 6 {
                0 => value + (noise % 400) as f64,
                1 => value + 100.0 + (noise % 4) as f64,
                2 => value + f64::from(noise.is_multiple_of(20)),
                3 => ((value * 100.0).round() + (noise % 100) as f64) / 100.0,
                4 => (value + ((noise % 64) as f64 - 31.0) * 4096.0).abs(),
                _ => (noise % 1000) as f64 / 100.0,
            };
            add(labels.clone(), START_MS + second * 1000, value);
        }
    }
}

fn labels(name: &str, pairs: &[(&str, &str)]) -> Labels {
    let all = [("__name__", name), ("job", "history")];
    Labels::new(all.into_iter().chain(pairs.iter().copied())).expect("labels")
}

/// One time each `interval_ms`, moved by up to `jitter_ms`.
fn times(random: &mut Random, interval_ms: i64, jitter_ms: i64) -> Vec<i64> {
    let phase = (random.next() % interval_ms.min(15_000) as u64) as i64;
    let count = 3_600_000 / interval_ms;
    let time = |index: i64| START_MS + phase.min(interval_ms / 2) + index * interval_ms;
    (0..count)
        .map(|index| {
            time(index) + if jitter_ms > 0 { (random.next() % jitter_ms as u64) as i64 } else { 0 }
        })
        .collect()
}

/// Marsaglia's xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
