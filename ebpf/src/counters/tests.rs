use super::*;
use proptest::prelude::*;

fn counted(enabled_ns: u64, running_ns: u64, values: &[u64]) -> Counted {
    let mut counted = Counted { enabled_ns, running_ns, ..Counted::default() };
    counted.values[..values.len()].copy_from_slice(values);
    counted
}

#[test]
fn what_was_counted_in_turns_is_taken_for_all_of_the_time() {
    let before = counted(1_000, 1_000, &[500, 70]);
    let always = counted(3_000, 3_000, &[900, 80]);
    assert_eq!(grown(&before, &always).unwrap()[..3], [400, 10, 0]);
    // A quarter of the time.
    let in_turns = counted(3_000, 1_500, &[900, 80]);
    assert_eq!(grown(&before, &in_turns).unwrap()[..2], [1_600, 40]);
    let large = counted(u64::MAX, 1_001, &[u64::MAX, 80]);
    assert_eq!(grown(&before, &large).unwrap()[0], u64::MAX, "no number is too large");
}

#[test]
fn what_nothing_counted_waits_for_the_next_reading() {
    let first = counted(1_000, 1_000, &[500]);
    let starved = counted(2_000, 1_000, &[500]);
    assert_eq!(grown(&first, &starved), None);
    let again = counted(3_000, 2_000, &[600]);
    assert_eq!(grown(&first, &again).unwrap()[0], 200, "half of two thousand nanoseconds");
}

#[test]
fn a_group_is_read_as_the_kernel_writes_it_or_not_at_all() {
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_ne_bytes()).collect() };
    let whole = words(&[2, 10, 5, 7, 8]);
    assert_eq!(Counted::parse(&whole, 2), Some(counted(10, 5, &[7, 8])));
    assert_eq!(Counted::parse(&whole[..39], 2), None, "cut off");
    assert_eq!(Counted::parse(&words(&[1, 10, 5, 7]), 2), None, "its siblings have left");
    assert_eq!(Counted::parse(&[], 2), None);
    assert_eq!(Counted::parse(&words(&[100; 20]), 100), None);
}

#[test]
fn a_list_of_cpus_is_what_the_kernel_means() {
    assert_eq!(cpus("0-3,5\n"), [0, 1, 2, 3, 5]);
    assert_eq!(cpus("0\n"), [0]);
    assert_eq!(cpus(""), [0; 0]);
    assert_eq!(cpus("0-4294967295").len(), COUNTER_DESCRIPTORS_MAX, "no list is too long");
}

proptest! {
    #[test]
    fn totals_never_fall_and_are_never_less_than_what_was_counted(
        steps in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 50), 1..50),
    ) {
        let (mut now, mut seen, mut total) = (Counted::default(), Counted::default(), 0_u64);
        for (enabled_ns, part, value) in steps {
            let running_ns = part.min(enabled_ns);
            now.enabled_ns += enabled_ns;
            now.running_ns += running_ns;
            now.values[0] += if running_ns > 0 { value } else { 0 };
            if let Some(grown) = grown(&seen, &now) {
                prop_assert!(grown[0] >= now.values[0] - seen.values[0]);
                total = total.saturating_add(grown[0]);
                seen = now.clone();
            }
            prop_assert!(total >= seen.values[0]);
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200), events in 0_usize..20) {
        let _counted = Counted::parse(&bytes, events);
    }
}
