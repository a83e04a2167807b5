use super::*;
use crate::admission::tests::{machine, pinned, shared};
use crate::claim::Claim;
use crate::job::NumaPolicy;
use crate::topology::NodeInfo;
use std::sync::Arc;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn named(mut spec: JobSpec, name: &str) -> JobSpec {
    spec.name = JobName::new(name).unwrap();
    spec
}

fn fleet(nodes: u8, rack: impl Fn(u8) -> &'static str) -> Fleet {
    let mut fleet = Fleet::new();
    for number in 0..nodes {
        let info = NodeInfo {
            name: format!("n{number}"),
            topology: machine(1, 1, 8, 1),
            labels: [("rack".to_owned(), rack(number).to_owned())].into(),
            ..NodeInfo::default()
        };
        fleet.upsert(node(number), Arc::new(info));
        fleet.set_alive(node(number), true);
    }
    fleet
}

/// Puts slots of `spec` on nodes, one each.
fn put<'s>(fleet: &mut Fleet, spec: &'s JobSpec, nodes: &[u8]) -> Vec<Movable<'s>> {
    let mut movable = Vec::new();
    for (index, number) in (0..).zip(nodes) {
        let alloc = AllocId::new(spec.name.clone(), index, 1);
        let claim = fleet.get(&node(*number)).unwrap().ledger().admit(spec).unwrap();
        assert!(fleet.propose(&node(*number), &alloc, claim));
        movable.push(Movable { alloc, node: node(*number), spec });
    }
    movable
}

#[test]
fn nothing_to_gain_nothing_to_move() {
    let spec = named(shared(100, 64 << 20), "web");
    let mut fleet = fleet(3, |_| "r");
    let movable = put(&mut fleet, &spec, &[0, 1]);
    assert_eq!(rebalance(&mut fleet, &movable, 10), [], "one node is empty already");
    assert_eq!(rebalance(&mut Fleet::new(), &[], 10), []);
}

#[test]
fn small_pieces_make_room_for_a_large_one() {
    // Four machines of eight cores with two taken on each: nowhere are eight together.
    let spec = named(pinned(2, NumaPolicy::None), "small");
    let mut fleet = fleet(4, |_| "r");
    let movable = put(&mut fleet, &spec, &[0, 1, 2, 3]);
    assert_eq!(holes(&fleet).cores, 6);
    let large = pinned(8, NumaPolicy::Require);
    assert!(fleet.iter().all(|node| node.check(&large).is_err()));
    let moves = rebalance(&mut fleet, &movable, 10);
    assert_eq!(moves.len(), 1, "{moves:?}");
    assert_eq!(moves[0].gain, Gain::Cores { before: 6, after: 8 });
    assert_eq!(moves[0].gain.to_string(), "free cores on one memory node there: 6 -> 8");
    assert_eq!(holes(&fleet).cores, 8);
    assert!(fleet.get(&moves[0].from).unwrap().check(&large).is_ok());
}

#[test]
fn moves_are_bounded_and_all_or_none_for_one_hole() {
    // Two machines with four pieces of two cores each: one can be emptied by no number of moves.
    let spec = named(pinned(2, NumaPolicy::None), "small");
    let mut full = fleet(2, |_| "r");
    let movable = put(&mut full, &spec, &[0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(rebalance(&mut full, &movable, 10), []);
    // With a third one there are holes: two pieces away make one of eight out of one of six.
    let mut fleet = fleet(3, |_| "r");
    let movable = put(&mut fleet, &spec, &[0, 0, 0, 1, 1, 2, 2]);
    let before = holes(&fleet);
    assert_eq!(rebalance(&mut fleet, &movable, 0), []);
    assert_eq!(holes(&fleet), before);
    let moves = rebalance(&mut fleet, &movable, 2);
    assert_eq!(moves.len(), 2, "{moves:?}");
    assert_eq!(holes(&fleet).cores, 8);
    assert_eq!(moves[0].from, moves[1].from);
}

#[test]
fn a_hole_is_not_made_at_the_price_of_a_spread() {
    let mut spec = named(pinned(2, NumaPolicy::None), "small");
    spec.placement.spread = vec!["name".parse().unwrap()];
    let mut fleet = fleet(3, |_| "r");
    let movable = put(&mut fleet, &spec, &[0, 1, 2]);
    assert_eq!(rebalance(&mut fleet, &movable, 10), []);
}

#[test]
fn what_may_not_move_stays() {
    let spec = named(pinned(2, NumaPolicy::None), "small");
    let mut fleet = fleet(2, |_| "r");
    let movable = put(&mut fleet, &spec, &[0, 1]);
    let moves = rebalance(&mut fleet, &movable[1..], 10);
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].from, moves[0].to), (node(1), node(0)));
}

#[test]
fn a_broken_spread_is_restored_before_anything_else() {
    let mut spec = named(shared(100, 64 << 20), "web");
    spec.placement.spread = vec!["labels.rack".parse().unwrap(), "name".parse().unwrap()];
    let rack = |number| if number < 3 { "r1" } else { "r2" };
    let mut fleet = fleet(6, rack);
    let movable = put(&mut fleet, &spec, &[0, 0, 1, 2]);
    let moves = rebalance(&mut fleet, &movable, 2);
    assert_eq!(moves.len(), 2, "{moves:?}");
    assert_eq!(moves[0].gain, Gain::Spread { level: "labels.rack".into(), from: 4, to: 1 });
    let in_r2 = moves.iter().filter(|made| made.to >= node(3)).count();
    assert_eq!(in_r2, 2);
    // As even as it can be: no further move.
    let after: Vec<Movable<'_>> = movable
        .iter()
        .map(|one| {
            let made = moves.iter().find(|made| made.alloc == one.alloc);
            Movable { node: made.map_or(one.node, |made| made.to), ..one.clone() }
        })
        .collect();
    let again = rebalance(&mut fleet, &after, 10);
    assert!(again.iter().all(|made| !matches!(made.gain, Gain::Spread { .. })), "{again:?}");
}

#[test]
fn a_job_is_moved_away_from_one_that_came_later() {
    let mut web = named(shared(100, 64 << 20), "web");
    web.placement.anti_affinity = vec![JobName::new("database").unwrap()];
    let mut fleet = fleet(3, |_| "r");
    let movable = put(&mut fleet, &web, &[0, 1]);
    let database = AllocId::new(JobName::new("database").unwrap(), 0, 1);
    fleet.hold(node(0), &database, &Claim { shared_millis: 10, ..Claim::default() });
    let moves = rebalance(&mut fleet, &movable, 10);
    assert_eq!(moves.len(), 1, "{moves:?}");
    assert_eq!(moves[0].gain, Gain::Apart(JobName::new("database").unwrap()));
    assert_eq!((moves[0].from, moves[0].to), (node(0), node(2)));
}

#[test]
fn a_job_leaves_a_node_that_its_constraints_exclude_now() {
    let mut web = named(shared(100, 64 << 20), "web");
    web.placement.constraints = vec!["labels.rack == r2".parse().unwrap()];
    let mut fleet = fleet(2, |number| if number == 0 { "r1" } else { "r2" });
    let alloc = AllocId::new(web.name.clone(), 0, 1);
    fleet.hold(node(0), &alloc, &Claim { shared_millis: 100, ..Claim::default() });
    let movable = [Movable { alloc, node: node(0), spec: &web }];
    let moves = rebalance(&mut fleet, &movable, 10);
    assert_eq!(moves.len(), 1);
    assert!(matches!(&moves[0].gain, Gain::Constraint(text) if text.contains("labels.rack")));
}

proptest::proptest! {
    #[test]
    fn moves_are_possible_bounded_and_make_no_hole_smaller(
        places in proptest::collection::vec((0u8..6, 1u16..4), 0..24), max in 0usize..12,
    ) {
        let specs: Vec<JobSpec> = places
            .iter()
            .enumerate()
            .map(|(index, (_, cores))| named(pinned(*cores, NumaPolicy::None), &format!("j{index}")))
            .collect();
        let mut fleet = fleet(6, |_| "r");
        let mut movable = Vec::new();
        for (spec, (number, _)) in specs.iter().zip(&places) {
            if fleet.get(&node(*number)).unwrap().check(spec).is_ok() {
                movable.extend(put(&mut fleet, spec, &[*number]));
            }
        }
        let (before, start) = (holes(&fleet), fleet.clone());
        let moves = rebalance(&mut fleet, &movable, max);
        proptest::prop_assert!(moves.len() <= max);
        proptest::prop_assert!(holes(&fleet).cores >= before.cores);
        proptest::prop_assert!(moves.is_empty() || holes(&fleet) != before);
        // Each can be made as drain makes it: the second allocation first.
        let mut fleet = start;
        for made in &moves {
            let one = movable.iter().find(|one| one.alloc == made.alloc).unwrap();
            let claim = fleet.get(&made.to).unwrap().check(one.spec);
            proptest::prop_assert!(claim.is_ok(), "{made:?}: {claim:?}");
            fleet.release(&made.from, &made.alloc);
            fleet.hold(made.to, &made.alloc, &claim.unwrap());
        }
    }
}
