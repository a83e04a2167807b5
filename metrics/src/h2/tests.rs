use proptest::prelude::*;

use super::*;

#[test]
fn buckets_are_without_gap_or_overlap() {
    let mut next = 0u64;
    for index in 0..BUCKETS {
        let (low, high) = bounds(index);
        assert_eq!(low, next, "bucket {index}");
        assert_eq!((bucket_of(low), bucket_of(high)), (index, index));
        assert!((high - low) as f64 <= low as f64 / 8.0, "known to an eighth");
        next = high.wrapping_add(1);
    }
    assert_eq!(next, 0, "the last one ends with the largest number");
}

#[test]
fn as_a_classic_histogram() {
    let mut histogram = H2::default();
    for value in [1, 3, 15, 16, 100, 1 << 40] {
        histogram.add(value, 1);
    }
    let classic = histogram.classic(2..=5, 0.5);
    assert_eq!(classic, [(2.0, 2), (4.0, 2), (8.0, 3), (16.0, 4), (f64::INFINITY, 6)]);
}

#[test]
fn what_is_no_histogram_is_refused() {
    for buckets in [vec![(496u16, 1u64)], vec![(3, 1), (2, 1)], vec![(3, 1), (3, 1)]] {
        assert_eq!(H2::try_from(buckets.clone()), Err(NoHistogram));
        let bytes = postcard::to_stdvec(&buckets).expect("encodes");
        assert!(postcard::from_bytes::<H2>(&bytes).is_err());
    }
}

proptest! {
    #[test]
    fn merging_keeps_the_laws_and_quantiles_are_in_their_bucket(
        values in prop::collection::vec(prop_oneof![0u64..100, any::<u64>()], 1..60), cut in 0usize..60, quantile in 0.0f64..=1.0,
    ) {
        let of = |values: &[u64]| {
            let mut histogram = H2::default();
            values.iter().for_each(|value| histogram.add(*value, 1));
            histogram
        };
        let whole = of(&values);
        let (left, right) = values.split_at(cut.min(values.len()));
        let (mut one, mut two) = (of(left), of(right));
        one.merge(&of(right));
        two.merge(&of(left));
        prop_assert_eq!(&one, &whole);
        prop_assert_eq!(&two, &whole);
        one.merge(&H2::default());
        prop_assert_eq!(&one, &whole);
        let bytes = postcard::to_stdvec(&whole).expect("encodes");
        prop_assert_eq!(postcard::from_bytes::<H2>(&bytes).expect("decodes"), whole.clone());

        let mut sorted = values.clone();
        sorted.sort_unstable();
        let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
        let (low, high) = whole.quantile(quantile).expect("some");
        prop_assert!((low..=high).contains(&sorted[rank - 1]));
    }
}
