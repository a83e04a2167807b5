use super::*;
use crate::invariants::settled::tests::at_rest;
use crate::workload::service;

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
fn a_slot_of_a_dead_node_that_runs_nowhere_else_is_found() {
    let mut world = at_rest();
    // Nobody starts anything any more.
    for machine in &mut world.nodes {
        machine.lost_commands_permille = 1000;
    }
    let found = kill_one(&mut world, &mut ChaCha8Rng::seed_from_u64(1)).unwrap_err();
    assert_eq!(found.invariant, "invariant_a_dead_nodes_slots_run_elsewhere_in_time");
    assert!(found.detail.contains("runs nowhere"), "{found}");
}

#[test]
fn what_is_commanded_at_rest_is_found() {
    let mut world = at_rest();
    let (mut spec, by) = (service(JobName::new("web").unwrap()), "somebody".to_owned());
    spec.count = 3;
    let spec = Box::new(spec);
    world.request(0, Request::Submit { spec, by, expected_version: None });
    let found = be_quiet(&mut world).unwrap_err();
    assert_eq!(found.invariant, "invariant_a_fabric_at_rest_gives_no_commands");
    assert!(found.detail.contains("web/2"), "{found}");
}
