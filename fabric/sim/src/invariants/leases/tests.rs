//! The checkers themselves: each of them must be able to fail.

use super::*;
use crate::machines;
use crate::network::Quality;
use crate::trace::Detail;
use crate::workload::service;
use crate::world::Settings;
use fabric::claim::Claim;
use fabric::clock::Instant;
use fabric::id::JobName;
use fabric::io::{Launch, Lease, Request};

/// Two machines without agents, and users who submitted an at-most-one job.
fn world() -> World {
    let settings = Settings {
        seed: 1,
        quality: Quality::default(),
        canary: None,
        rediscovery: None,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    };
    let fleet = ["a", "b"].map(|name| (name.to_owned(), machines::plain()));
    let mut world = World::new(settings, fleet.into());
    let mut spec = service(JobName::new("only").unwrap());
    spec.guarantee = Guarantee::AtMostOne;
    let by = "somebody".into();
    let submit = Request::Submit { spec: Box::new(spec), by, expected_version: None };
    world.book.asked(Duration::ZERO, 0, &submit);
    world
}

/// Starts a unit of the slot's epoch under a lease for ten seconds from now.
fn start(world: &mut World, node: usize, job: &str, epoch: u64, leased: bool) -> AllocId {
    let spec = service(JobName::new(job).unwrap());
    let at = world.nodes[node].clock.read(world.time).at;
    let stop_timeout = Duration::from_secs(5);
    let lease = Lease { until: at + Duration::from_secs(10), stop_timeout };
    let launch = Launch {
        alloc: AllocId::new(spec.name, 0, epoch),
        run: 1,
        node: world.nodes[node].name.clone(),
        task: spec.task,
        memory: 1,
        swap: 0,
        cpu_hard: false,
        claim: Claim::default(),
        cpus: [1].into_iter().collect(),
        health: None,
        lease: leased.then_some(lease),
    };
    let alloc = launch.alloc.clone();
    world.nodes[node].units.start(launch, Instant::at(Duration::ZERO), world.time);
    alloc
}

fn holds(world: &World) -> Verdict {
    invariant_an_at_most_one_slot_never_has_two_live_units(world, None)
}

#[test]
fn two_live_units_of_one_slot_are_found() {
    let mut world = world();
    start(&mut world, 0, "only", 1, true);
    assert_eq!(holds(&world), Ok(()));
    start(&mut world, 0, "other", 1, true);
    start(&mut world, 1, "other", 2, true);
    assert_eq!(holds(&world), Ok(()), "the other job promises nothing of the kind");
    start(&mut world, 1, "only", 2, true);
    assert!(holds(&world).unwrap_err().contains("only/0@1 runs on a, and only/0@2 on b"));
}

#[test]
fn a_unit_that_stands_still_does_nothing_and_one_that_runs_on_afterwards_is_found() {
    let mut world = world();
    start(&mut world, 0, "only", 1, true);
    world.freeze(0, Duration::from_secs(120));
    world.time = Duration::from_secs(60);
    start(&mut world, 1, "only", 2, true);
    assert_eq!(holds(&world), Ok(()), "it stands still");
    world.time = Duration::from_secs(120) + fabric::limits::LEASE_SLACK / 2;
    assert_eq!(holds(&world), Ok(()), "its guard has a moment");
    world.time = Duration::from_secs(120) + fabric::limits::LEASE_SLACK;
    assert!(holds(&world).is_err(), "the moment is over");
}

#[test]
fn a_machine_that_goes_on_before_its_lease_is_over_is_live_at_once() {
    let mut world = world();
    start(&mut world, 0, "only", 1, true);
    world.freeze(0, Duration::from_secs(3));
    start(&mut world, 1, "only", 2, true);
    world.time = Duration::from_secs(3);
    assert!(holds(&world).is_err());
}

#[test]
fn a_guard_ends_what_ran_on_while_its_machine_stood_still() {
    let mut world = world();
    let alloc = start(&mut world, 0, "only", 1, true);
    world.freeze(0, Duration::from_secs(120));
    world.guard_from_now_on(0, &alloc);
    world.run_until(Duration::from_secs(119)).unwrap();
    assert_eq!(world.nodes[0].units.there().count(), 1);
    world.run_until(Duration::from_secs(121)).unwrap();
    assert_eq!(world.nodes[0].units.there().count(), 0);
}

#[test]
fn tokens_that_fall_or_come_twice_are_found() {
    let grow = invariant_fencing_tokens_of_a_slot_only_grow;
    assert!(grow(None, (7, 0)).is_ok());
    assert!(grow(Some((7, 0)), (8, 1)).is_ok());
    assert!(grow(Some((7, 0)), (7, 0)).is_ok(), "a restart in place");
    assert!(grow(Some((7, 0)), (7, 1)).is_err(), "two holders with one token");
    assert!(grow(Some((7, 0)), (6, 0)).is_err());
}

#[test]
fn at_most_one_work_without_a_guard_is_found() {
    let mut world = world();
    let alloc = start(&mut world, 0, "only", 1, true);
    assert_eq!(invariant_at_most_one_work_has_a_guard(&world.nodes[0], &alloc), Ok(()));
    let bare = start(&mut world, 1, "only", 1, false);
    assert!(invariant_at_most_one_work_has_a_guard(&world.nodes[1], &bare).is_err());
}
