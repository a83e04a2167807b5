use super::*;
use std::collections::BTreeSet;

#[test]
fn the_bounds_are_powers_of_two_of_nanoseconds() {
    for (place, bound) in BOUNDS.iter().enumerate().take(BOUNDS.len() - 1) {
        let wanted = 2f64.powi(FIRST_POWER as i32 + place as i32) / 1e9;
        assert_eq!(bound.parse::<f64>().unwrap(), wanted);
    }
}

#[test]
fn buckets_are_cumulative_and_lose_nothing() {
    let values = [0u64, 900, 1023, 1024, 5000, 1 << 29, 1 << 30, 1 << 40];
    let mut counted = Histogram::default();
    for value in values {
        let mut counts = vec![0; ebpf::BUCKETS];
        counts[usize::from(ebpf::bucket(value))] = 1;
        counted.merge(&Histogram::from_counts(&counts));
    }
    let row = histogram(&counted, Some(17));
    assert_eq!(row[0], 17);
    for (place, count) in row[1..].iter().enumerate() {
        let bound = 1u128 << (FIRST_POWER as usize + place);
        let last = place == BOUNDS.len() - 1;
        let below = values.iter().filter(|value| last || u128::from(**value) < bound).count();
        assert_eq!(*count, below as u64, "le={}", BOUNDS[place]);
    }
    let exact: u64 = values.iter().sum();
    let guessed = histogram(&counted, None)[0];
    assert!(guessed.abs_diff(exact) * 16 <= exact, "{guessed} is not {exact}");
}

#[test]
fn no_two_families_give_the_same_series() {
    let mut names = BTreeSet::new();
    for family in FAMILIES {
        for (metric, label, _) in family.columns {
            assert!(metric.name.starts_with("weft_unit_") && metric.name.ends_with("_total"));
            assert!(names.insert((metric.name, *label, family.label)), "{} twice", metric.name);
        }
        let histogram = family.histogram.map(|metric| (metric.name, None, family.label));
        assert!(histogram.is_none_or(|histogram| names.insert(histogram)));
    }
}

#[test]
fn what_is_counted_in_microseconds_has_the_same_buckets() {
    let mut counted = Histogram::default();
    for value_us in [0u64, 1, 40, 2_000_000] {
        let mut counts = vec![0; ebpf::BUCKETS];
        counts[usize::from(ebpf::bucket(value_us))] = 1;
        counted.merge(&Histogram::from_counts(&counts));
    }
    let row = cumulative(&counted, 1_000, Some(5));
    let at_most = |bound| row[1 + BOUNDS.iter().position(|one| *one == bound).unwrap()];
    assert_eq!((row[0], at_most("0.000001024"), at_most("0.000032768")), (5, 2, 2));
    assert_eq!((at_most("0.000065536"), at_most("1.073741824"), at_most("+Inf")), (3, 3, 4));
}
