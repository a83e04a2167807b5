//! The checkers themselves: each of them must be able to fail.

use super::*;
use crate::machines;
use crate::network::Quality;
use crate::run::rest_within;
use crate::trace::Detail;
use crate::workload::service;
use crate::world::Settings;
use fabric::id::JobName;
use fabric::io::Request;
use fabric::node::Canary;
use std::time::Duration;

const FIFTY_YEARS_MS: i64 = 50 * 365 * 86_400_000;

/// Three nodes.
fn at_rest(canary: Option<Canary>) -> World {
    let settings = Settings {
        seed: 5,
        quality: Quality::default(),
        canary,
        rediscovery: None,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    };
    let fleet = ["a", "b", "c"].map(|name| (name.to_owned(), machines::plain()));
    let mut world = World::new(settings, fleet.into());
    world.found_and_join();
    rest_within(&mut world, Duration::from_secs(60)).unwrap();
    world
}

/// A job that is scaled away by a node whose clock is ahead.
fn scaled_away_by_a_clock_that_is_ahead(canary: Option<Canary>) -> World {
    let mut world = at_rest(canary);
    let job = JobName::new("web").unwrap();
    let spec = Box::new(service(job.clone()));
    world.request(0, Request::Submit { spec, by: "me".into(), expected_version: None });
    rest_within(&mut world, Duration::from_secs(60)).unwrap();
    // Nobody looks meanwhile.
    world.book.wrong_clocks.extend([0, 1]);
    world.set_clock(2, None, FIFTY_YEARS_MS);
    world.run_for(Duration::from_secs(2)).unwrap();
    world.request(2, Request::Scale { job, count: 0, by: "me".into() });
    world.run_for(Duration::from_secs(20)).unwrap();
    world.book.wrong_clocks = [2].into();
    world
}

#[test]
fn whoever_is_dated_ahead_by_another_is_found() {
    let world = scaled_away_by_a_clock_that_is_ahead(Some(Canary::BelievesEveryClock));
    let found = invariant_one_wrong_clock_changes_no_other_nodes_decisions(&world, 0).unwrap_err();
    assert!(found.contains("dated"), "{found}");
    let world = scaled_away_by_a_clock_that_is_ahead(None);
    for node in 0..3 {
        let found = invariant_one_wrong_clock_changes_no_other_nodes_decisions(&world, node);
        assert_eq!(found, Ok(()));
    }
}

#[test]
fn whoever_ended_and_would_stay_is_found() {
    let mut world = scaled_away_by_a_clock_that_is_ahead(None);
    assert_eq!(invariant_ended_rows_leave_although_a_clock_was_ahead(&world), Ok(()));
    // Half a day later by the clock on the wall, and no agent was told.
    world.time += limits::ENDED_KEEP + limits::CLOCKS_AGREE + 3 * LOOK;
    assert!(invariant_ended_rows_leave_although_a_clock_was_ahead(&world).is_err());
}

/// A job that asks for two minutes, and agents that forget nothing.
#[test]
fn whoever_stays_for_longer_than_its_job_says_is_found() {
    for (canary, holds) in [(None, true), (Some(Canary::KeepsWhatEnded), false)] {
        let mut world = at_rest(canary);
        let job = JobName::new("web").unwrap();
        let mut spec = Box::new(service(job.clone()));
        spec.keep.ended = Duration::from_secs(120);
        world.request(0, Request::Submit { spec, by: "me".into(), expected_version: None });
        rest_within(&mut world, Duration::from_secs(60)).unwrap();
        world.request(0, Request::Scale { job, count: 0, by: "me".into() });
        world.run_for(Duration::from_secs(60)).unwrap();
        assert_eq!(invariant_ended_rows_leave_although_a_clock_was_ahead(&world), Ok(()));
        world.run_for(limits::CLOCKS_AGREE + Duration::from_secs(120) + 2 * LOOK).unwrap();
        let found = invariant_ended_rows_leave_although_a_clock_was_ahead(&world);
        assert_eq!(found.is_ok(), holds, "{found:?}");
    }
}
