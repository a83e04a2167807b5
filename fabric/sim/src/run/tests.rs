use super::*;

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        nodes: 5,
        turmoil: Duration::from_secs(120),
        canary: None,
        aimed_at_leases: false,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    }
}

#[test]
fn the_same_seed_makes_the_same_world_event_by_event() {
    let (one, other) = (run(&plan(11)).unwrap(), run(&plan(11)).unwrap());
    assert_eq!(one, other);
    assert_ne!(one.digest, run(&plan(12)).unwrap().digest);
}

#[test]
fn a_quota_is_the_same_wrong_only_with_the_same_claims() {
    let wrong = |invariant, detail: &str| {
        let at = Duration::from_secs(1);
        the_same_wrong(&Violation { invariant, at, detail: detail.into() })
    };
    let quotas = "invariant_quotas_hold_after_heal";
    assert_eq!(wrong(quotas, "4 of 3: a on n1"), wrong(quotas, "4 of 3: a on n1"));
    assert_ne!(wrong(quotas, "4 of 3: a on n1"), wrong(quotas, "4 of 3: a on n2"));
    // Of all others it does not matter how they are wrong.
    let views = "invariant_views_converge_after_heal";
    assert_eq!(wrong(views, "n1 sees n2 dead"), wrong(views, "n2 sees n1 dead"));
    assert_ne!(wrong(views, ""), wrong("invariant_the_table_says_what_really_runs", ""));
    let names: Vec<_> = crate::invariants::rest::names().collect();
    assert!(names.contains(&quotas) && names.contains(&views), "{names:?}");
}
