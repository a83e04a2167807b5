//! What a job wishes for beyond room: levels of spread, weights, company, architectures, whole holes.

use super::*;
use crate::id::JobName;
use crate::job::TaskVariant;

fn in_rack(number: u32, rack: &str) -> NodeInfo {
    labelled(number, "rack", rack)
}

fn attributes(names: &[&str]) -> Vec<crate::constraint::Attribute> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// How many of the slots each node got.
fn spread(fleet: &mut Fleet, spec: &JobSpec, slots: u32, seed: u64) -> BTreeMap<NodeId, u32> {
    let mut placer = Placer::new(fleet, spec, &BTreeMap::new());
    let mut random = random(seed);
    let mut counts: BTreeMap<NodeId, u32> = fleet.iter().map(|node| (node.id(), 0)).collect();
    for index in 0..slots {
        *counts.get_mut(&place(fleet, &mut placer, index, &mut random)).unwrap() += 1;
    }
    counts
}

fn spread_of(counts: impl Iterator<Item = u32> + Clone) -> u32 {
    counts.clone().max().unwrap() - counts.min().unwrap()
}

#[test]
fn slots_spread_over_racks_first_and_within_each_over_its_nodes() {
    // A rack of one node, one of two and one of three: six slots are two in each.
    let racks = ["a", "b", "b", "c", "c", "c"];
    for seed in 0..20 {
        let mut fleet = fleet(racks.iter().zip(0..).map(|(rack, number)| in_rack(number, rack)));
        let mut spec = shared(100, 0);
        spec.placement.spread = attributes(&["labels.rack", "name"]);
        let counts = spread(&mut fleet, &spec, 6, seed);
        let of = |number| counts[&node(number)];
        assert_eq!((of(0), of(1), of(2)), (2, 1, 1));
        assert_eq!(of(3) + of(4) + of(5), 2);
        assert!(of(3).max(of(4)).max(of(5)) == 1, "{counts:?}");
    }
}

/// What boards are called out of the box.
#[test]
fn nodes_of_one_host_name_are_told_apart_by_spreads_and_constraints() {
    let named = |number| NodeInfo { name: "debian".into(), ..in_rack(number, "a") };
    let mut spec = shared(100, 0);
    spec.placement.spread = attributes(&["name"]);
    for seed in 0..20 {
        let mut fleet = fleet((0..3).map(named));
        let counts = spread(&mut fleet, &spec, 6, seed);
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }
    let mut fleet = fleet((0..3).map(named));
    let shown = node(1).with_name("debian");
    spec.placement.constraints = vec![constraint(&format!("name == \"{shown}\""))];
    assert_eq!(spread(&mut fleet, &spec, 3, 1)[&node(1)], 3);
    spec.placement.constraints = vec![constraint("name == debian")];
    let counts = spread(&mut fleet, &spec, 3, 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    spec.placement.constraints = vec![constraint("name == debian-ffffffff")];
    let verdicts = Placer::new(&fleet, &spec, &BTreeMap::new()).verdicts(&fleet, &[]);
    for verdict in verdicts {
        let rejection = verdict.rejection.expect("none is called that").to_string();
        assert!(rejection.contains(&verdict.node.with_name("debian")), "{rejection}");
    }
}

#[test]
fn a_rack_without_room_does_not_hold_up_the_levels_below() {
    let mut fleet = fleet((0..200).map(|number| {
        let mut info = in_rack(number, ["a", "b", "c"][number as usize % 3]);
        info.labels.insert("row".into(), format!("row{}", number % 4));
        info
    }));
    for number in (0..200).filter(|number| number % 3 == 0) {
        fleet.hold(
            node(number),
            &alloc(1000 + number),
            &Claim { shared_millis: 8000, ..Claim::default() },
        );
    }
    let mut spec = shared(100, 0);
    spec.placement.spread = attributes(&["labels.rack", "labels.row", "name"]);
    let counts = spread(&mut fleet, &spec, 32, 7);
    assert!(counts.values().all(|count| *count <= 1), "no node twice");
    let mut by_row: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for (node, count) in &counts {
        let number = u32::from_be_bytes(node.0[..4].try_into().unwrap());
        *by_row.entry((number % 3, number % 4)).or_default() += count;
    }
    let open = by_row.iter().filter(|((rack, _), _)| *rack != 0).map(|(_, count)| *count);
    assert_eq!(open.clone().count(), 8);
    assert!(open.clone().all(|count| count == 4), "{by_row:?}");
}

#[test]
fn a_greater_weight_wins_and_a_negative_one_repels() {
    let labels = [vec!["ssd"], vec!["ssd", "noisy"], vec!["near"], vec!["noisy"], vec![]];
    let mut infos = Vec::new();
    for (number, labels) in (0..).zip(&labels) {
        let mut info = info(number, machine(1, 1, 8, 1));
        info.labels = labels.iter().map(|label| ((*label).into(), "yes".into())).collect();
        infos.push(info);
    }
    let fleet = fleet(infos);
    let mut spec = shared(100, 0);
    let weighted = |label: &str, weight| Affinity {
        condition: constraint(&format!("labels.{label} == yes")),
        weight,
    };
    spec.placement.affinity =
        vec![weighted("ssd", 30), weighted("noisy", -40), weighted("near", 20)];
    let verdicts = Placer::new(&fleet, &spec, &BTreeMap::new()).verdicts(&fleet, &[]);
    let order: Vec<NodeId> = verdicts.iter().map(|verdict| verdict.node).collect();
    assert_eq!(order, [0, 2, 4, 1, 3].map(node));
    for seed in 0..20 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        assert_eq!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(0));
    }
}

#[test]
fn a_job_stays_away_from_jobs_that_it_names_and_not_the_other_way_round() {
    let mut fleet = equal_nodes(3);
    let database = JobName::new("database").unwrap();
    let at = |index| AllocId::new(database.clone(), index, 1);
    let claim = Claim { shared_millis: 10, ..Claim::default() };
    fleet.hold(node(0), &at(0), &claim);
    fleet.hold(node(2), &at(1), &claim);
    let mut spec = job("web");
    spec.placement.anti_affinity = vec![database.clone()];
    let verdicts = Placer::new(&fleet, &spec, &BTreeMap::new()).verdicts(&fleet, &[]);
    let rejected: Vec<_> = verdicts.iter().filter(|v| v.score.is_none()).collect();
    assert_eq!(rejected.len(), 2);
    for verdict in rejected {
        assert_eq!(verdict.rejection, Some(Rejection::AntiAffinity { job: "database".into() }));
    }
    let mut random = random(1);
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let choice = placer.choose(&fleet, &[], &mut random).unwrap();
    assert_eq!(choice.node, node(1));
    assert!(fleet.propose(&node(1), &AllocId::new(spec.name.clone(), 0, 1), choice.claim));
    // The database has said nothing of the web.
    let other = job("database");
    assert!(fleet.get(&node(1)).unwrap().check(&other).is_ok());
    // A name that begins alike is another job.
    fleet.release(&node(0), &at(0));
    let alike = AllocId::new(JobName::new("database-2").unwrap(), 0, 1);
    fleet.hold(node(0), &alike, &claim);
    assert!(fleet.get(&node(0)).unwrap().check(&spec).is_ok());
}

#[test]
fn a_job_that_names_itself_gets_one_slot_a_node() {
    let mut fleet = equal_nodes(80);
    let mut spec = job("index");
    spec.placement.anti_affinity = vec![spec.name.clone()];
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let mut random = random(3);
    for index in 0..80 {
        let choice = placer.choose(&fleet, &[], &mut random).expect("a node without one");
        let alloc = AllocId::new(spec.name.clone(), index, 1);
        assert!(fleet.propose(&choice.node, &alloc, choice.claim));
    }
    assert_eq!(placer.choose(&fleet, &[], &mut random), None);
}

#[test]
fn a_job_runs_only_where_it_has_a_task_for_the_architecture() {
    let arches = ["x86_64", "aarch64", "riscv64", "aarch64"];
    let fleet = fleet((0..).zip(arches).map(|(number, arch)| {
        let mut info = info(number, machine(1, 1, 8, 1));
        info.topology.arch = arch.into();
        info
    }));
    let mut spec = shared(100, 0);
    let variant =
        |command: &str| TaskVariant { command: vec![command.into()], ..TaskVariant::default() };
    spec.task.arch = [("aarch64".into(), variant("/a")), ("x86_64".into(), variant("/x"))].into();
    spec.task.arch.insert("riscv64".into(), TaskVariant::default());
    let open = |spec: &JobSpec| fleet.iter().filter(|node| node.check(spec).is_ok()).count();
    assert_eq!(open(&spec), 4, "the task itself runs anywhere");
    spec.task.command.clear();
    assert_eq!(open(&spec), 3);
    let rejection = fleet.get(&node(2)).unwrap().check(&spec).unwrap_err();
    assert_eq!(rejection.to_string(), "the job has no task for riscv64, only for aarch64, x86_64");
    for seed in 0..20 {
        let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
        assert_ne!(placer.choose(&fleet, &[], &mut random(seed)).unwrap().node, node(2));
    }
}

#[test]
fn there_or_nowhere_is_counted_like_any_other_choice() {
    let mut fleet = fleet([in_rack(0, "a"), in_rack(1, "a"), in_rack(2, "b")]);
    let mut spec = shared(5000, 0);
    spec.placement.spread = attributes(&["labels.rack"]);
    let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
    let choice = placer.choose_there(&fleet, &node(1), &[]).expect("it is empty");
    assert_eq!(choice.node, node(1));
    assert!(fleet.propose(&node(1), &alloc(0), choice.claim));
    assert_eq!(placer.choose_there(&fleet, &node(1), &[]), None, "it is full");
    assert_eq!(placer.choose_there(&fleet, &node(0), &[(node(0), Duration::from_secs(1))]), None);
    assert_eq!(placer.choose_there(&fleet, &node(77), &[]), None, "nobody knows it");
    assert_eq!(place(&mut fleet, &mut placer, 1, &mut random(1)), node(2), "the other rack");
}

#[test]
fn the_best_fit_of_cores_leaves_machines_whole_where_an_equal_load_breaks_them() {
    // Eight machines with two memory nodes of eight cores. Four jobs of three cores and four of five
    // fill four memory nodes, which are two machines.
    let whole_after = |strategy: PlacementStrategy| {
        let mut fleet = fleet((0..8).map(|number| info(number, machine(2, 1, 8, 1))));
        let mut random = random(5);
        for round in 0..4u32 {
            for (part, cores) in [3u16, 5].into_iter().enumerate() {
                let mut spec = pinned(cores, NumaPolicy::None);
                spec.placement.strategy = strategy;
                let mut placer = Placer::new(&fleet, &spec, &BTreeMap::new());
                place(&mut fleet, &mut placer, round * 2 + part as u32, &mut random);
            }
        }
        let whole = pinned(16, NumaPolicy::None);
        let mut placer = Placer::new(&fleet, &whole, &BTreeMap::new());
        let mut count = 0;
        while let Some(choice) = placer.choose(&fleet, &[], &mut random) {
            assert!(fleet.propose(&choice.node, &alloc(900 + count), choice.claim));
            count += 1;
        }
        count
    };
    assert_eq!(whole_after(PlacementStrategy::BestFit), 6);
    assert_eq!(whole_after(PlacementStrategy::LeastLoaded), 0);
}

#[test]
fn cores_come_from_the_socket_that_is_broken_into_already() {
    // Two sockets with two memory nodes of four cores each.
    let mut topology = machine(4, 1, 4, 1);
    for core in &mut topology.cores {
        core.package = core.numa / 2;
    }
    let mut ledger = Ledger::new(&topology);
    let mut take = |index: u32, cores, numa| {
        let claim = ledger.admit(&pinned(cores, numa)).unwrap();
        ledger.hold(&alloc(index), claim.clone()).unwrap();
        claim.cpus.to_string()
    };
    assert_eq!(take(0, 4, NumaPolicy::Require), "0-3");
    // Three whole memory nodes are left; the one beside the full one goes first.
    assert_eq!(take(1, 2, NumaPolicy::Require), "4-5");
    assert_eq!(take(2, 1, NumaPolicy::None), "6");
    // More than any memory node has: both of one socket, and not a piece of each.
    assert_eq!(take(3, 8, NumaPolicy::None), "8-15");
}

proptest! {
    #[test]
    fn slots_spread_evenly_on_every_level(
        nodes in 1u32..150, racks in 1u32..6, slots in 1u32..60, seed: u64,
    ) {
        let mut fleet = fleet((0..nodes).map(|n| in_rack(n, &format!("r{}", n % racks))));
        let mut spec = shared(10, 0);
        spec.placement.spread = attributes(&["labels.rack", "name"]);
        let counts = spread(&mut fleet, &spec, slots, seed);
        let mut by_rack: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for candidate in fleet.iter() {
            let rack = candidate.info().unwrap().labels["rack"].clone();
            by_rack.entry(rack).or_default().push(counts[&candidate.id()]);
        }
        prop_assert!(spread_of(by_rack.values().map(|rack| rack.iter().sum())) <= 1);
        for nodes in by_rack.values() {
            prop_assert!(spread_of(nodes.iter().copied()) <= 1, "{by_rack:?}");
        }
    }
}
