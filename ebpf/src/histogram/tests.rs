use super::*;
use proptest::prelude::*;

#[test]
fn buckets_touch_and_cover_everything() {
    let mut next = Some(0);
    for number in 0..BUCKETS as u16 {
        let (low, high) = bounds(number);
        assert_eq!(Some(low), next, "bucket {number} starts where the one before ended");
        assert_eq!((bucket(low), bucket(high)), (number, number));
        next = high.checked_add(1);
    }
    assert_eq!(next, None, "the last bucket ends with u64");
}

#[test]
fn a_quantile_is_the_upper_bound_of_its_bucket() {
    let mut counts = [0; BUCKETS];
    counts[usize::from(bucket(10))] = 90;
    counts[usize::from(bucket(1000))] = 10;
    let histogram = Histogram::from_counts(&counts);
    assert_eq!(histogram.quantile(0.5), Some(10));
    assert_eq!(histogram.quantile(0.9), Some(10));
    assert_eq!(histogram.quantile(0.91), Some(1023));
    assert_eq!(Histogram::default().quantile(0.5), None);
}

proptest! {
    #[test]
    fn a_value_is_known_to_an_eighth(value: u64) {
        let (low, high) = bounds(bucket(value));
        prop_assert!(low <= value && value <= high);
        prop_assert!((high - low) as f64 <= value as f64 / 8.0);
    }

    #[test]
    fn merging_is_adding_count_by_count(
        a in proptest::collection::vec(0u64..3, BUCKETS),
        b in proptest::collection::vec(0u64..3, BUCKETS),
    ) {
        let sum: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let mut merged = Histogram::from_counts(&a);
        merged.merge(&Histogram::from_counts(&b));
        prop_assert_eq!(merged, Histogram::from_counts(&sum));
    }
}
