use proptest::prelude::*;

use super::bits::{Bits, Record};
use super::blocks::WORDS;
use super::codec::{Samples, Steps};
use super::*;
use crate::labels::{Matcher, Matching};
use crate::span::stale_marker;

/// Values as metrics have them, and values as nobody has them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0u64..5000).prop_map(|n| n as f64),
        4 => (0i64..10_000_000).prop_map(|n| n as f64 / 100.0),
        2 => (-1000i64..1000).prop_map(|n| n as f64 / 1e9),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(f64::INFINITY),
        1 => Just(-0.0),
        1 => Just(stale_marker()),
    ]
}

fn samples(count: usize) -> impl Strategy<Value = Vec<(i64, f64)>> {
    prop::collection::vec((prop_oneof![9 => 990i64..1010, 1 => 1i64..2_000_000], value()), 1..count)
        .prop_map(|gaps| {
            let mut at = 1_700_000_000_000;
            gaps.into_iter().map(|(gap, value)| (at += gap, (at, value)).1).collect()
        })
}

fn labels(number: usize) -> Labels {
    let number = number.to_string();
    Labels::new([("__name__", "m"), ("number", &*number), ("same", "everywhere")]).expect("labels")
}

fn all(store: &Store) -> Vec<(u32, Labels)> {
    store.select(&[Matcher::new("__name__", Matching::Equal, "m").expect("a matcher")])
}

/// Equal to the bit, apart from which NaN and which zero.
fn same_span(left: &Span, right: &Span) -> bool {
    let values = |span: &Span| [span.first, span.last, span.min, span.max, span.sum, span.lost];
    let numbers = |span: &Span| {
        (span.first_ms, span.last_ms, span.count, span.changes, span.resets, span.stale)
    };
    let same = |(left, right): (f64, f64)| left == right || (left.is_nan() && right.is_nan());
    numbers(left) == numbers(right) && values(left).into_iter().zip(values(right)).all(same)
}

proptest! {
    #[test]
    fn samples_come_back_to_the_bit(samples in samples(200)) {
        let (mut words, mut used) = ([0u32; 4096], 0);
        let mut writer = Samples::new(samples[0].0);
        for (at, value) in &samples {
            let mut record = Record::new();
            writer.put(&mut record, *at, *value);
            record.copy_to(&mut words, &mut used);
        }
        let (mut bits, mut reader) = (Bits::new(&words), Samples::new(samples[0].0));
        for (at, value) in samples {
            let (at_back, back) = reader.take(&mut bits);
            prop_assert_eq!((at_back, back.to_bits()), (at, value.to_bits()));
        }
    }

    #[test]
    fn steps_come_back(samples in samples(300), length in 1usize..40) {
        let step_ms = TIERS[0].0;
        let mut spans: Vec<Span> = Vec::new();
        for (at, value) in samples {
            let span = Span::of(at, value);
            match spans.last_mut() {
                Some(last) if last.first_ms / step_ms == at / step_ms && (last.count as usize) < length => last.append(&span),
                _ => spans.push(span),
            }
        }
        spans.iter_mut().for_each(Span::settle);
        let (mut words, mut used) = (vec![0u32; 16384], 0);
        let mut writer = Steps::new(spans[0].first_ms, step_ms);
        for span in &spans {
            let mut record = Record::new();
            writer.put(&mut record, span);
            record.copy_to(&mut words, &mut used);
            let mut alone = Record::new();
            Steps::new(span.first_ms, step_ms).put(&mut alone, span);
            prop_assert!(alone.length() <= WORDS * 32, "a step fits an empty block");
        }
        let (mut bits, mut reader) = (Bits::new(&words), Steps::new(spans[0].first_ms, step_ms));
        for span in spans {
            let back = reader.take(&mut bits);
            prop_assert!(same_span(&back, &span), "{:?} became {:?}", span, back);
        }
    }

    #[test]
    fn spans_append_associatively(samples in samples(30), first in 0usize..30, second in 0usize..30) {
        let spans: Vec<Span> = samples.iter().map(|(at, value)| Span::of(*at, *value)).collect();
        let join = |spans: &[Span]| spans.iter().copied().reduce(|mut left, right| { left.append(&right); left });
        let (first, second) = (first.min(spans.len()), second.min(spans.len()));
        let (first, second) = (first.min(second), first.max(second));
        let parts: Vec<Span> = [&spans[..first], &spans[first..second], &spans[second..]]
            .into_iter().filter_map(join).collect();
        let (mut whole, mut parted) = (join(&spans).expect("some"), join(&parts).expect("some"));
        // Sums are associative up to rounding, which cancels nothing here only without huge values.
        (whole.sum, parted.sum, whole.lost, parted.lost) = (0.0, 0.0, 0.0, 0.0);
        prop_assert!(same_span(&whole, &parted), "{:?} is not {:?}", whole, parted);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever is dropped for the budget ended before anything that stays.
    #[test]
    fn the_budget_is_never_exceeded_and_the_oldest_goes_first(
        rounds in prop::collection::vec((0usize..60, 1usize..60, any::<u32>()), 20..80),
    ) {
        let mut store = Store::new(STORE_BYTES_MIN);
        let mut given: Vec<Vec<(i64, u64)>> = vec![Vec::new(); 60];
        let mut known = vec![None; 60];
        let mut now = 1_700_000_000_000;
        for (start, count, seed) in rounds {
            for number in start..(start + count).min(60) {
                let Ok(id) = store.series(&labels(number), now) else { continue };
                if known[number].replace(id) != Some(id) {
                    given[number].clear();
                }
                for step in 0..20u32 {
                    let value = f64::from(seed.wrapping_mul(step + 1)) / 7.0;
                    let at = now + i64::from(step) * 1000;
                    store.append(id, at, value).expect("in order");
                    given[number].push((at, value.to_bits()));
                    let usage = store.usage();
                    prop_assert!(usage.bytes <= usage.budget, "{:?}", usage);
                }
            }
            now += 20_000;
        }
        let bound = store.forgotten_to_ms();
        for (id, labels) in all(&store) {
            let number: usize = labels.value("number").parse().expect("a number");
            let mut spans = Vec::new();
            store.read(id, bound + 1, i64::MAX, &mut spans);
            // Each span is exactly the samples of its time, and none is in two.
            let mut whole = Vec::new();
            store.read(id, 0, i64::MAX, &mut whole);
            prop_assert!(whole.windows(2).all(|pair| pair[0].last_ms < pair[1].first_ms));
            for span in whole {
                let inside = given[number].iter().filter(|(at, _)| (span.first_ms..=span.last_ms).contains(at));
                let spans = inside.map(|(at, bits)| Span::of(*at, f64::from_bits(*bits)));
                let mut wanted = spans.reduce(|mut left, right| { left.append(&right); left }).expect("some");
                // Settled twice, in two tiers, a sum may differ in its last bits.
                prop_assert!((wanted.sum - span.sum).abs() <= 1e-9 * span.sum.abs());
                (wanted.sum, wanted.lost) = (span.sum, span.lost);
                prop_assert!(same_span(&span, &wanted), "{:?} is not {:?}", span, wanted);
            }
            // A step in which the raw samples begin stands for its part of them.
            let steps = spans.iter().filter(|span| span.count > 1);
            let raw_from = steps.map(|span| span.last_ms).max().unwrap_or(bound) .max(bound);
            let raw: Vec<_> = spans.iter().filter(|span| span.first_ms > raw_from)
                .map(|span| (span.first_ms, span.first.to_bits())).collect();
            let count = given[number].iter().filter(|(at, _)| *at > bound).count();
            prop_assert!(spans.iter().map(|span| span.count as usize).sum::<usize>() >= count);
            let wanted: Vec<_> = given[number].iter().copied().filter(|(at, _)| *at > raw_from).collect();
            prop_assert_eq!(raw, wanted, "all that ended after what was dropped is there");
        }
    }
}

/// A store with one series, one sample a second.
fn filled(seconds: i64) -> (Store, u32, Vec<Span>) {
    let mut store = Store::new(4 << 20);
    let start = 1_699_999_920_000;
    let id = store.series(&labels(0), start).expect("room");
    let mut given = Vec::new();
    for second in 0..seconds {
        let value = (second * 7919 % 1009) as f64;
        store.append(id, start + second * 1000, value).expect("in order");
        given.push(Span::of(start + second * 1000, value));
    }
    store.expire(start + seconds * 1000);
    let index = all(&store)[0].0;
    (store, index, given)
}

#[test]
fn a_day_is_there_in_steps_without_gap_or_overlap() {
    let (store, series, given) = filled(24 * 3600);
    let mut spans = Vec::new();
    store.read(series, 0, i64::MAX, &mut spans);
    assert!(spans.windows(2).all(|pair| pair[0].last_ms < pair[1].first_ms), "in order");
    let count: u32 = spans.iter().map(|span| span.count).sum();
    assert_eq!(count as usize, given.len(), "each sample is in exactly one span");
    let sum: f64 = spans.iter().map(|span| span.sum).sum();
    assert_eq!(sum, given.iter().map(|span| span.sum).sum::<f64>());
    let raw = spans.iter().filter(|span| span.count == 1).count();
    assert!((600..=700).contains(&raw), "{raw} raw samples: ten minutes, to the next block");
    let minutes = spans.iter().filter(|span| span.count == 60).count();
    assert!((160..=240).contains(&minutes), "{minutes} minutes: three hours, to the next block");
    let mut whole = spans[0];
    spans[1..].iter().for_each(|span| whole.append(span));
    let mut wanted = given[0];
    given[1..].iter().for_each(|span| wanted.append(span));
    assert!(same_span(&whole, &wanted), "{whole:?} is not {wanted:?}");
}

#[test]
fn a_read_of_a_part_gives_what_touches_it() {
    let (store, series, given) = filled(4 * 3600);
    let start = given[0].first_ms;
    for (from, until) in
        [(0, 100), (3600, 3601), (7000, 12_000), (14_000, 14_399), (13_000, 99_999)]
    {
        let (from, until) = (start + from * 1000, start + until * 1000);
        let (mut part, mut whole) = (Vec::new(), Vec::new());
        store.read(series, from, until, &mut part);
        store.read(series, 0, i64::MAX, &mut whole);
        whole.retain(|span| span.last_ms >= from && span.first_ms <= until);
        assert_eq!(part, whole);
    }
}

#[test]
fn samples_out_of_order_and_out_of_time_are_refused() {
    let mut store = Store::new(1 << 20);
    let id = store.series(&labels(0), 0).expect("room");
    assert_eq!(store.append(id, 5000, 1.0), Ok(()));
    assert_eq!(store.append(id, 5000, 2.0), Err(Unfit::OutOfOrder));
    assert_eq!(store.append(id, 4000, 2.0), Err(Unfit::OutOfOrder));
    assert_eq!(store.append(id, -1, 2.0), Err(Unfit::Time));
    assert_eq!(store.append(id, i64::MAX, 2.0), Err(Unfit::Time));
    let mut spans = Vec::new();
    store.read(all(&store)[0].0, 0, i64::MAX, &mut spans);
    assert_eq!(spans, [Span::of(5000, 1.0)], "nothing changed");
}

#[test]
fn a_full_index_forgets_the_silent_and_refuses_the_rest() {
    let mut store = Store::new(STORE_BYTES_MIN);
    let mut ids = Vec::new();
    let refused = loop {
        match store.series(&labels(ids.len()), 1000) {
            Ok(id) => ids.push(id),
            Err(refused) => break refused,
        }
        store.append(ids[ids.len() - 1], 1000, 1.0).expect("in order");
    };
    assert!(matches!(refused, Refused::Index { .. }), "{refused}");
    assert_eq!(store.usage().refused_series, 1);
    let later = 1000 + SILENT_MS + 1;
    for id in &ids[..ids.len() / 2] {
        store.append(*id, later, 1.0).expect("in order");
    }
    store.series(&labels(99_999), later).expect("room: half of them are silent");
    for id in &ids[..ids.len() / 2] {
        store.append(*id, later + 1, 1.0).expect("the living stay");
    }
    let gone = ids.iter().filter(|id| store.append(**id, later + 2, 1.0) == Err(Unfit::Forgotten));
    assert!(gone.count() > 0);
}

#[test]
fn silent_series_end_their_steps_and_are_forgotten_after_a_day() {
    let mut store = Store::new(1 << 20);
    let id = store.series(&labels(0), 0).expect("room");
    for second in 0..90 {
        store.append(id, second * 1000, 3.0).expect("in order");
    }
    store.expire(3_600_000);
    let mut spans = Vec::new();
    store.read(all(&store)[0].0, 0, i64::MAX, &mut spans);
    assert_eq!(spans.iter().map(|span| span.count).sum::<u32>(), 90);
    assert!(spans.iter().all(|span| span.count > 1), "only steps are left: {spans:?}");
    store.expire(25 * 3_600_000);
    assert_eq!(store.usage().series, 0);
    assert_eq!(store.append(id, 26 * 3_600_000, 1.0), Err(Unfit::Forgotten));
    assert_eq!(store.usage().block_bytes, 0);
}

#[test]
fn matchers_choose() {
    let mut store = Store::new(1 << 20);
    for (name, rack) in [("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "")] {
        let labels = Labels::new([("__name__", name), ("rack", rack)]).expect("labels");
        store.series(&labels, 0).expect("room");
    }
    let count = |matchers: &[(&str, Matching, &str)]| {
        let matchers: Vec<_> = matchers
            .iter()
            .map(|(label, matching, value)| Matcher::new(label, *matching, value).expect("valid"))
            .collect();
        store.select(&matchers).len()
    };
    assert_eq!(count(&[("__name__", Matching::Equal, "a")]), 2);
    assert_eq!(count(&[("rack", Matching::Equal, "")]), 1);
    assert_eq!(count(&[("rack", Matching::NotEqual, "r1")]), 2);
    assert_eq!(count(&[("rack", Matching::Regex, "r.")]), 3);
    assert_eq!(count(&[("rack", Matching::Regex, "r")]), 0, "all of the text must match");
    assert_eq!(
        count(&[("rack", Matching::NotRegex, "r[1]"), ("__name__", Matching::Equal, "b")]),
        1
    );
    assert_eq!(count(&[("nowhere", Matching::Equal, "")]), 4);
    assert!(Matcher::new("a", Matching::Regex, "(").is_err());
}

/// Everything that a store has of a series, as samples.
fn raw(store: &Store) -> Vec<(i64, f64)> {
    let mut spans = Vec::new();
    for (id, _) in all(store) {
        store.read(id, 0, i64::MAX, &mut spans);
    }
    spans.iter().map(|span| (span.first_ms, span.first)).collect()
}

#[test]
fn a_clock_that_steps_back_loses_no_samples() {
    for step_ms in [-7_200_000, 7_200_000, -60_000, 50 * 365 * 86_400_000] {
        let start = 1_700_000_000_000;
        let mut store = Store::new(STORE_BYTES_MIN);
        let id = store.series(&labels(1), start).unwrap();
        for second in 0..100 {
            store.append(id, start + second * 1000, second as f64).unwrap();
        }
        store.shift(step_ms);
        let set = start + step_ms;
        for second in 100..200 {
            store.append(id, set + second * 1000, second as f64).unwrap();
        }
        let wanted: Vec<(i64, f64)> = (0..200).map(|s| (set + s * 1000, s as f64)).collect();
        assert_eq!(raw(&store), wanted, "the time between two samples is what it was");
        let (_, at_ms, value) = store.newest(set + 150_000).next().unwrap();
        assert_eq!((at_ms, value), (set + 199_000, 199.0));
        assert!(store.newest(set + 199_000).next().is_none());
        store.expire(set + 200_000);
        assert_eq!(raw(&store).len(), 200, "nothing of it is old");
        store.expire(set + 200_000 + RAW_MS);
        assert!(raw(&store).iter().all(|(at_ms, _)| *at_ms >= set), "{:?}", raw(&store));
    }
}
