use super::*;

#[test]
fn quantiles_are_ranks() {
    let sorted: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
    for (percent, seconds) in [(50, 50), (90, 90), (99, 99), (100, 100)] {
        assert_eq!(quantile(&sorted, percent), Duration::from_secs(seconds));
    }
    assert_eq!(quantile(&[], 50), Duration::ZERO);
}

/// The budget: usually every one of 20 nodes knows within 3 s, and the work always runs elsewhere within 5 s.
#[test]
fn twenty_nodes_notice_a_death_and_replace_its_work_within_the_budget() {
    let report = measure(1, 20, 10).unwrap();
    assert_eq!(report.all.len(), 10);
    let (knows, runs) = (quantile(&report.all, 50), quantile(&report.replaced, 100));
    assert!(knows <= Duration::from_secs(3), "{report}");
    assert!(runs <= Duration::from_secs(5), "{report}");
}
