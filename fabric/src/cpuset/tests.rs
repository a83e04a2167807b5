use proptest::prelude::*;
use std::collections::BTreeSet;

use super::*;

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

#[test]
fn lists_are_read_as_the_kernel_writes_them() {
    for (text, shown) in [
        ("", ""),
        ("0", "0"),
        ("0-3,8\n", "0-3,8"),
        ("8,0-3", "0-3,8"),
        ("0,1,2", "0-2"),
        ("63-64", "63-64"),
        ("4095", "4095"),
        (" 1 , 3 ", "1,3"),
    ] {
        assert_eq!(set(text).to_string(), shown, "{text}");
    }
}

#[test]
fn what_is_no_list_is_refused() {
    for text in
        ["a", "1-", "-1", "3-1", "4096", "0-4096", "1;2", "0x1", "1-2-3", "99999999999999999999"]
    {
        assert!(text.parse::<CpuSet>().is_err(), "{text}");
    }
}

#[test]
fn numbers_past_the_limit_are_not_taken_in() {
    let mut cpus = CpuSet::new();
    assert!(!cpus.insert(limits::CPUS_MAX as u16));
    assert!(cpus.is_empty());
}

fn numbers() -> impl Strategy<Value = BTreeSet<u16>> {
    proptest::collection::btree_set(0u16..200, 0..40)
}

proptest! {
    #[test]
    fn a_cpu_set_is_a_set(a in numbers(), b in numbers(), cpu in 0u16..200) {
        let [x, y] = [&a, &b].map(|numbers| numbers.iter().copied().collect::<CpuSet>());
        prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
        prop_assert_eq!(x.len(), a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!(x.contains(cpu), a.contains(&cpu));
        prop_assert_eq!(x.contains_all(&y), a.is_superset(&b));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect());

        let (mut sum, mut difference, mut without) = (x.clone(), x.clone(), x.clone());
        sum.insert_all(&y);
        prop_assert_eq!(&sum, &a.union(&b).copied().collect());
        difference.remove_all(&y);
        prop_assert_eq!(&difference, &a.difference(&b).copied().collect());
        prop_assert_eq!(without.remove(cpu), a.contains(&cpu));
        prop_assert_eq!(&without, &a.iter().copied().filter(|other| *other != cpu).collect());
    }

    #[test]
    fn a_cpu_set_reads_back(a in numbers()) {
        let cpus: CpuSet = a.into_iter().collect();
        prop_assert_eq!(&set(&cpus.to_string()), &cpus);
        let json = serde_json::to_string(&cpus).unwrap();
        prop_assert_eq!(&serde_json::from_str::<CpuSet>(&json).unwrap(), &cpus);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9,\\- ]{0,12}|\\PC{0,12}") {
        let _ = text.parse::<CpuSet>();
    }
}
