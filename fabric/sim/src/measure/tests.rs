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

/// Half of the fabric is gone at once: the other half doubts itself first, and is done well within its bound.
#[test]
fn the_loss_of_half_the_fabric_is_doubted_and_made_good_within_the_bound() {
    for seed in 0..3 {
        let [_, all, replaced] = deaths(seed, 20, 10).unwrap();
        println!("10 of 20: known {all:?}, replaced {replaced:?}");
        assert!(replaced > all, "seed {seed}");
        assert!(replaced <= Duration::from_secs(15), "seed {seed}: {replaced:?}");
    }
}

/// A node that is cut off from all others notices that it may be itself, proposes nothing meanwhile, and then
/// takes over what it can: the last one keeps scheduling.
#[test]
fn a_node_that_is_cut_off_proposes_nothing_in_its_doubt_and_then_acts() {
    // It becomes every job's coordinator when it has noticed all losses; of twenty nodes, with a local health
    // that makes its probes rare, that takes more than a minute.
    for (nodes, seconds) in [(8, 20), (20, 120)] {
        for seed in 0..3 {
            let solitude = solitude(seed, nodes, Duration::from_secs(seconds)).unwrap();
            println!("{nodes} nodes, seed {seed}: {solitude:?}");
            assert_eq!(solitude.rash, 0, "{nodes} nodes, seed {seed}: {solitude:?}");
            assert!(solitude.doubted > Duration::ZERO, "{solitude:?}");
            assert!(solitude.acted.is_some(), "{nodes} nodes, seed {seed}: {solitude:?}");
        }
    }
}
