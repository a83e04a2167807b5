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
