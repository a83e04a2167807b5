use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::admission::properties::any_spec;
use crate::admission::tests::{GIB, alloc, device, job, machine, pinned, pool, shared};
use crate::constraint::Constraint;
use crate::id::AllocId;
use crate::job::{Affinity, NumaPolicy, Port, Strategy as PlacementStrategy};
use crate::topology::{Enforced, Topology};

mod wishes;

fn node(number: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn info(number: u32, topology: Topology) -> NodeInfo {
    NodeInfo {
        name: format!("n{number}"),
        topology,
        executor: "direct".into(),
        ..NodeInfo::default()
    }
}

fn labelled(number: u32, label: &str, value: &str) -> NodeInfo {
    let mut info = info(number, machine(1, 1, 8, 1));
    info.labels.insert(label.into(), value.into());
    info
}

fn fleet(infos: impl IntoIterator<Item = NodeInfo>) -> Fleet {
    let mut fleet = Fleet::new();
    for (number, info) in infos.into_iter().enumerate() {
        fleet.upsert(node(number as u32), Arc::new(info));
        fleet.set_alive(node(number as u32), true);
    }
    fleet
}

fn equal_nodes(count: u32) -> Fleet {
    fleet((0..count).map(|number| info(number, machine(1, 1, 8, 1))))
}

fn constraint(text: &str) -> Constraint {
    text.parse().unwrap()
}

fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Places one more slot and sets it aside.
fn place(fleet: &mut Fleet, placer: &mut Placer, index: u32, random: &mut ChaCha8Rng) -> NodeId {
    let choice = placer.choose(fleet, &[], random).expect("some node can take it");
    assert!(fleet.propose(&choice.node, &alloc(index), choice.claim));
    choice.node
}

fn why_not(fleet: &Fleet, spec: &JobSpec) -> Rejection {
    let mut placer = Placer::new(fleet, spec, &BTreeMap::new());
    assert_eq!(placer.choose(fleet, &[], &mut random(1)), None);
    let verdicts = placer.verdicts(fleet, &[]);
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].score, None);
    verdicts[0].rejection.clone().expect("a reason")
}

#[test]
fn each_filter_says_why() {
    let spec = shared(100, GIB);
    let mut one = fleet([info(0, machine(1, 1, 8, 1))]);
    assert!(Placer::new(&one, &spec, &BTreeMap::new()).choose(&one, &[], &mut random(1)).is_some());

    one.set_alive(node(0), false);
    assert_eq!(why_not(&one, &spec), Rejection::NotAlive);

    let draining = NodeInfo { draining: true, ..info(0, machine(1, 1, 8, 1)) };
    assert_eq!(why_not(&fleet([draining]), &spec), Rejection::Draining);

    let impaired = NodeInfo { impaired: Some("disk full".into()), ..info(0, machine(1, 1, 8, 1)) };
    assert_eq!(
        why_not(&fleet([impaired]), &spec),
        Rejection::Impaired { reason: "disk full".into() }
    );

    let mut particular = spec.clone();
    particular.placement.constraints = vec![constraint("labels.rack == \"r1\"")];
    assert_eq!(
        why_not(&fleet([labelled(0, "rack", "r2")]), &particular),
        Rejection::Constraint {
            constraint: "labels.rack == \"r1\"".into(),
            actual: Some("r2".into())
        }
    );
    assert_eq!(
        why_not(&fleet([labelled(0, "row", "r1")]), &particular),
        Rejection::Constraint { constraint: "labels.rack == \"r1\"".into(), actual: None }
    );

    let lax = Topology { enforced: Enforced::default(), ..machine(1, 1, 8, 1) };
    assert_eq!(
        why_not(&fleet([info(0, lax)]), &pinned(1, NumaPolicy::None)),
        Rejection::NotEnforced { limit: "pinning".into() }
    );
    let small = fleet([info(0, machine(1, 1, 2, 1))]);
    assert_eq!(
        why_not(&small, &pinned(3, NumaPolicy::None)),
        Rejection::Cores { wanted: 3, free: 2 }
    );
    assert_eq!(
        why_not(&small, &shared(0, 5 * GIB)),
        Rejection::Memory { wanted: 5 * GIB, free: 4 * GIB }
    );
    let mut wants_disk = spec.clone();
    wants_disk.resources.disk = 2 * GIB;
    let with_pool = Topology { pools: vec![pool(GIB)], ..machine(1, 1, 2, 1) };
    let refused = why_not(&fleet([info(0, with_pool)]), &wants_disk);
    assert_eq!(refused.to_string(), "2GiB disk wanted, 1GiB free of 1GiB in pool default");
    assert!(matches!(why_not(&small, &wants_disk), Rejection::Disk { of: 0, .. }));
    let mut wants_gpu = spec.clone();
    wants_gpu.resources.devices = vec!["gpu".into()];
    assert_eq!(why_not(&small, &wants_gpu), Rejection::Device { device: "gpu".into() });
}

#[test]
fn the_first_filter_that_fails_is_named() {
    let mut broken = labelled(0, "rack", "r2");
    broken.draining = true;
    broken.impaired = Some("disk full".into());
    let mut spec = pinned(99, NumaPolicy::None);
    spec.placement.constraints = vec![constraint("labels.rack == \"r1\"")];
    let mut all = fleet([broken.clone()]);
    all.set_alive(node(0), false);
    assert_eq!(why_not(&all, &spec), Rejection::NotAlive);
    all.set_alive(node(0), true);
    assert_eq!(why_not(&all, &spec), Rejection::Draining);
    broken.draining = false;
    all.upsert(node(0), Arc::new(broken.clone()));
    assert!(matches!(why_not(&all, &spec), Rejection::Impaired { .. }));
    broken.impaired = None;
    all.upsert(node(0), Arc::new(broken.clone()));
    assert!(matches!(why_not(&all, &spec), Rejection::Constraint { .. }));
    broken.labels.insert("rack".into(), "r1".into());
    all.upsert(node(0), Arc::new(broken));
    assert!(matches!(why_not(&all, &spec), Rejection::Cores { .. }));
}

#[test]
fn a_node_where_the_slot_failed_is_avoided() {
    let fleet = equal_nodes(2);
    let spec = shared(100, 0);
    let avoid = [(node(0), Duration::from_secs(30))];
    for seed in 0..50 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        assert_eq!(placer.choose(&fleet, &avoid, &mut random(seed)).unwrap().node, node(1));
    }
    let verdicts = Placer::new(&fleet, &spec, &BTreeMap::new()).verdicts(&fleet, &avoid);
    assert_eq!((verdicts[0].node, verdicts[0].rejection.is_none()), (node(1), true));
    let for_another = Duration::from_secs(30);
    assert_eq!(verdicts[1].rejection, Some(Rejection::FailedHere { for_another }));
}

#[test]
fn constraints_choose_among_many() {
    let racks = (0..500).map(|number| labelled(number, "rack", &format!("r{}", number % 50)));
    let mut fleet = fleet(racks);
    let mut spec = shared(100, 0);
    spec.placement.constraints = vec![constraint("labels.rack == \"r7\"")];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let mut random = random(1);
    for index in 0..20 {
        let chosen = place(&mut fleet, &mut placer, index, &mut random);
        assert_eq!(fleet.get(&chosen).unwrap().info().unwrap().labels["rack"], "r7");
    }
}

#[test]
fn a_changed_row_is_looked_at_again() {
    let mut fleet = fleet([labelled(0, "rack", "r1"), labelled(1, "rack", "r2")]);
    let mut spec = shared(100, 0);
    spec.placement.constraints = vec![constraint("labels.rack == \"r1\"")];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)).unwrap().node, node(0));
    fleet.upsert(node(0), Arc::new(labelled(0, "rack", "r3")));
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)), None);
    fleet.upsert(node(1), Arc::new(labelled(1, "rack", "r1")));
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)).unwrap().node, node(1));
    fleet.remove(&node(0));
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)).unwrap().node, node(1));
}

#[test]
fn least_loaded_goes_where_there_is_most_and_best_fit_where_there_is_least() {
    let mut fleet = equal_nodes(3);
    for (number, millis) in [(0, 1000), (1, 6000), (2, 3500)] {
        let claim = Claim { shared_millis: millis, ..Claim::default() };
        fleet.hold(node(number), &alloc(number), &claim);
    }
    let mut spec = shared(500, 0);
    for seed in 0..50 {
        for (strategy, best) in
            [(PlacementStrategy::LeastLoaded, 0), (PlacementStrategy::BestFit, 1)]
        {
            spec.placement.strategy = strategy;
            let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
            assert_eq!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(best));
        }
    }
}

#[test]
fn the_scarcest_resource_decides_how_full_a_node_is() {
    let mut fleet = equal_nodes(2);
    fleet.hold(node(0), &alloc(0), &Claim { memory: 3 * GIB, ..Claim::default() });
    fleet.hold(node(1), &alloc(1), &Claim { shared_millis: 4000, ..Claim::default() });
    let spec = shared(100, 0);
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)).unwrap().node, node(1));
}

#[test]
fn affinity_draws_and_does_not_force() {
    let mut fleet =
        fleet([labelled(0, "disk", "hdd"), labelled(1, "disk", "ssd"), labelled(2, "disk", "hdd")]);
    // Even a full node beats an empty one without the affinity.
    fleet.hold(node(1), &alloc(9), &Claim { shared_millis: 7000, ..Claim::default() });
    let mut spec = shared(500, 0);
    spec.placement.affinity = vec![Affinity::new(constraint("labels.disk == \"ssd\""))];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let mut random = random(1);
    assert_eq!(place(&mut fleet, &mut placer, 0, &mut random), node(1));
    assert_ne!(place(&mut fleet, &mut placer, 1, &mut random), node(1), "slots do not stack");
}

#[test]
fn prefer_goes_where_one_memory_node_holds_it() {
    // Both have six free cores; only on node 1 are four of them together.
    let mut fleet = fleet([info(0, machine(2, 1, 6, 1)), info(1, machine(2, 1, 6, 1))]);
    let on = |cpus: &str| Claim { cpus: cpus.parse().unwrap(), ..Claim::default() };
    fleet.hold(node(0), &alloc(0), &on("0-2,6-8"));
    fleet.hold(node(1), &alloc(1), &on("0-3,6-7"));
    let spec = pinned(4, NumaPolicy::Prefer);
    for seed in 0..20 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        let choice = placer.choose(&fleet, &[], &mut random(seed)).unwrap();
        assert_eq!((choice.node, choice.claim.mems.len()), (node(1), 1));
    }
}

#[test]
fn rare_devices_are_left_to_those_who_need_them() {
    let mut with_gpu = machine(1, 1, 8, 1);
    with_gpu.devices = vec![device("/dev/gpu0", "gpu", None, None)];
    let mut fleet = fleet([
        info(0, machine(1, 1, 8, 1)),
        info(1, with_gpu),
        info(2, machine(1, 1, 8, 1)),
        info(3, machine(1, 1, 8, 1)),
    ]);
    for number in [0, 2, 3] {
        let claim = Claim { shared_millis: 6000, ..Claim::default() };
        fleet.hold(node(number), &alloc(number), &claim);
    }
    let spec = shared(500, 0);
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    for seed in 0..20 {
        let mut placer = placer.clone();
        assert_ne!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(1));
    }
    // Once the device is given away there is nothing left to spare.
    let claim = Claim { devices: vec!["/dev/gpu0".into()], ..Claim::default() };
    fleet.hold(node(1), &alloc(8), &claim);
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)).unwrap().node, node(1));
}

#[test]
fn fixed_ports_keep_slots_apart() {
    let mut fleet = equal_nodes(3);
    let mut spec = shared(0, 0);
    spec.ports = vec![Port { name: "http".into(), fixed: Some(80) }];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let mut random = random(1);
    let mut nodes: Vec<_> =
        (0..3).map(|index| place(&mut fleet, &mut placer, index, &mut random)).collect();
    nodes.sort();
    assert_eq!(nodes, [node(0), node(1), node(2)]);
    assert_eq!(placer.choose(&fleet, &[], &mut random), None);
}

#[test]
fn nodes_that_hold_slots_already_come_last() {
    let fleet = equal_nodes(3);
    let spec = shared(100, 0);
    let taken = [(node(0), 1), (node(2), 2)].into();
    let mut placer = Placer::new(&fleet, &spec, &taken);
    let chosen: Vec<_> =
        (0..3).map(|seed| placer.choose(&fleet, &[], &mut random(seed)).unwrap().node).collect();
    assert_eq!(chosen[0], node(1));
    assert!(!chosen.contains(&node(2)), "two slots are there: {chosen:?}");
}

#[test]
fn equal_seeds_choose_equally_and_different_ones_do_not_stampede() {
    let fleet = equal_nodes(1000);
    let spec = shared(100, GIB);
    let choose =
        |seed| Placer::new(&fleet, &spec, &BTreeMap::new()).choose(&fleet, &[], &mut random(seed));
    assert_eq!(choose(7), choose(7));
    let nodes: std::collections::BTreeSet<NodeId> =
        (0..100).map(|seed| choose(seed).unwrap().node).collect();
    assert!(nodes.len() > 50, "a hundred coordinators chose {} nodes", nodes.len());
}

#[test]
fn the_only_node_of_five_thousand_that_fits_is_found() {
    let mut fleet = equal_nodes(5000);
    let mut with_gpu = machine(1, 1, 8, 1);
    with_gpu.devices = vec![device("/dev/gpu0", "gpu", None, None)];
    fleet.upsert(node(3210), Arc::new(info(3210, with_gpu)));
    let mut spec = shared(100, 0);
    spec.resources.devices = vec!["gpu".into()];
    for seed in 0..20 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        assert_eq!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(3210));
    }
    spec.resources.devices = vec!["tty".into()];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)), None);
    assert_eq!(placer.verdicts(&fleet, &[]).len(), 5000);
}

#[test]
fn nodes_that_only_look_as_if_they_fit_are_passed_over() {
    // Huge pages are not part of the first look.
    let mut fleet = equal_nodes(300);
    let mut with_pages = machine(1, 1, 8, 1);
    with_pages.hugepages =
        vec![crate::topology::HugepagePool { size_kib: 2048, numa: 0, count: 8 }];
    fleet.upsert(node(123), Arc::new(info(123, with_pages)));
    let mut spec = shared(0, 0);
    spec.resources.hugepages = [(2048, 8)].into();
    for seed in 0..20 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        assert_eq!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(123));
    }
}

#[test]
fn rows_beat_proposals_and_wait_for_each_other() {
    let mut fleet = equal_nodes(1);
    let on = |cpus: &str| Claim { cpus: cpus.parse().unwrap(), ..Claim::default() };
    let held = |fleet: &Fleet| -> Vec<AllocId> {
        fleet.get(&node(0)).unwrap().ledger().claims().map(|(id, _)| id.clone()).collect()
    };
    assert!(fleet.propose(&node(0), &alloc(0), on("0-1")));
    assert!(!fleet.propose(&node(0), &alloc(1), on("1-2")), "it is set aside");
    // The target gave our cores to somebody else's slot: ours is forgotten until its row comes.
    fleet.hold(node(0), &alloc(2), &on("0"));
    assert_eq!(held(&fleet), [alloc(2)]);
    fleet.hold(node(0), &alloc(0), &on("1-2"));
    assert_eq!(held(&fleet), [alloc(0), alloc(2)]);
    // The next holder of core 0 is heard of before the end of the last one.
    fleet.hold(node(0), &alloc(3), &on("0"));
    assert_eq!(held(&fleet), [alloc(0), alloc(2)]);
    fleet.release(&node(0), &alloc(2));
    assert_eq!(held(&fleet), [alloc(0), alloc(3)]);
    // A proposal becomes a fact with what the target really picked.
    assert!(fleet.propose(&node(0), &alloc(4), on("5")));
    fleet.hold(node(0), &alloc(4), &on("6"));
    assert_eq!(fleet.get(&node(0)).unwrap().ledger().claim(&alloc(4)), Some(&on("6")));
    fleet.release(&node(0), &alloc(4));
    fleet.release(&node(0), &alloc(4));
    assert_eq!(held(&fleet), [alloc(0), alloc(3)]);
}

#[test]
fn rows_of_a_node_may_come_before_the_node_itself() {
    let mut fleet = Fleet::new();
    let claim = Claim { memory: GIB, shared_millis: 500, ..Claim::default() };
    fleet.hold(node(0), &alloc(0), &claim);
    fleet.set_alive(node(0), true);
    assert_eq!(fleet.get(&node(0)).unwrap().check(&shared(0, 0)), Err(Rejection::NotAlive));
    fleet.upsert(node(0), Arc::new(info(0, machine(1, 1, 2, 1))));
    assert_eq!(fleet.get(&node(0)).unwrap().ledger().free().memory, 3 * GIB);
    assert!(fleet.get(&node(0)).unwrap().check(&shared(1500, 0)).is_ok());
    assert!(fleet.get(&node(0)).unwrap().check(&shared(1501, 0)).is_err());
}

#[test]
fn slots_spread_to_values_that_few_nodes_have() {
    // Three nodes of two thousand are in the other rack, and one of these is full.
    let rack = |number| if [17, 900, 1800].contains(&number) { "r2" } else { "r1" };
    let mut fleet = fleet((0..2000).map(|number| labelled(number, "rack", rack(number))));
    fleet.hold(node(17), &alloc(99), &Claim { shared_millis: 8000, ..Claim::default() });
    let mut spec = shared(5000, 0);
    spec.placement.spread = vec!["labels.rack".parse().unwrap()];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let mut random = random(1);
    let mut in_r2 = Vec::new();
    for index in 0..8 {
        let chosen = place(&mut fleet, &mut placer, index, &mut random);
        if fleet.get(&chosen).unwrap().info().unwrap().labels["rack"] == "r2" {
            in_r2.push(index / 2);
        }
    }
    // One slot of the first two, one of the next two, then there is no room.
    assert_eq!(in_r2, [0, 1]);
}

#[test]
fn no_nodes_no_choice() {
    let fleet = Fleet::new();
    let spec = job("lonely");
    let mut placer = Placer::new(&fleet, &spec, &[(node(3), 1)].into());
    assert_eq!(placer.choose(&fleet, &[], &mut random(1)), None);
    assert!(placer.verdicts(&fleet, &[]).is_empty());
}

proptest! {
    #[test]
    fn a_walk_visits_every_node_once(limit in 0usize..3000, seed: u64) {
        for walk in [Walk::in_order(limit), Walk::random(limit, &mut random(seed))] {
            let mut seen: Vec<usize> = walk.collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..limit));
        }
    }

    #[test]
    fn slots_spread_evenly(
        nodes in 1u32..200, values in 1u32..6, slots in 1u32..60, seed: u64, by_label: bool,
    ) {
        let mut fleet = fleet((0..nodes).map(|n| labelled(n, "rack", &format!("r{}", n % values))));
        let mut spec = shared(10, 0);
        spec.placement.spread = by_label.then(|| "labels.rack".parse().unwrap()).into_iter().collect();
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        let mut random = random(seed);
        let mut by_node: BTreeMap<NodeId, u32> = fleet.iter().map(|n| (n.id(), 0)).collect();
        let mut by_value: BTreeMap<String, u32> = BTreeMap::new();
        for candidate in fleet.iter() {
            by_value.insert(candidate.info().unwrap().labels["rack"].clone(), 0);
        }
        for index in 0..slots {
            let chosen = place(&mut fleet, &mut placer, index, &mut random);
            *by_node.get_mut(&chosen).unwrap() += 1;
            let rack = &fleet.get(&chosen).unwrap().info().unwrap().labels["rack"];
            *by_value.get_mut(rack).unwrap() += 1;
        }
        let difference = |counts: Vec<u32>| counts.iter().max().unwrap() - counts.iter().min().unwrap();
        if by_label {
            prop_assert!(difference(by_value.into_values().collect()) <= 1);
        } else if nodes <= SCAN_NODES as u32 {
            prop_assert!(difference(by_node.into_values().collect()) <= 1);
        }
    }

    #[test]
    fn a_choice_can_be_held_and_no_fitting_node_is_overlooked(
        nodes in 1u32..150, specs in proptest::collection::vec(any_spec(), 1..40), seed: u64,
    ) {
        let mut random = random(seed);
        let mut fleet = fleet((0..nodes).map(|number| {
            let mut topology = machine(1 + (number % 2) as u16, 1, 3, 1 + (number % 3 / 2) as u16);
            if number % 4 == 0 {
                topology.devices = vec![device("/dev/d1", "gpu", Some("usb:1:1"), Some(0))];
            }
            if number % 5 == 0 {
                topology.enforced.numa = false;
            }
            info(number, topology)
        }));
        for (index, spec) in specs.iter().enumerate() {
            let mut placer = Placer::new(&fleet, spec, &BTreeMap::new());
            let verdicts = placer.verdicts(&fleet, &[]);
            prop_assert_eq!(verdicts.len(), nodes as usize);
            for verdict in &verdicts {
                let checked = fleet.get(&verdict.node).unwrap().check(spec);
                prop_assert_eq!(checked.err(), verdict.rejection.clone());
                let glance = &fleet.glances()[fleet.index_of(&verdict.node).unwrap()];
                prop_assert!(verdict.rejection.is_some() || Needs::new(spec).may_fit(glance));
            }
            match placer.choose(&fleet, &[], &mut random) {
                Some(choice) => {
                    let candidate = fleet.get(&choice.node).unwrap();
                    prop_assert_eq!(candidate.check(spec), Ok(choice.claim.clone()));
                    let verdict = verdicts.iter().find(|v| v.node == choice.node).unwrap();
                    prop_assert_eq!(verdict.score, Some(choice.score));
                    prop_assert!(fleet.propose(&choice.node, &alloc(index as u32), choice.claim));
                }
                None => prop_assert!(verdicts.iter().all(|verdict| verdict.rejection.is_some())),
            }
        }
    }
}
