use super::*;
use crate::search::{Verdict, search};

fn with_leases(first: u8, bug: Bug) -> Verdict {
    let voters = Voters { first, ballots: 1, leases: true, bug: Some(bug) };
    search(format!("{bug:?}"), voters.bounds(), voters)
}

fn choice(first: u8, bug: Option<Bug>) -> Verdict {
    let voters = Voters { first, ballots: 2, leases: false, bug };
    search(format!("{bug:?}"), voters.bounds(), voters)
}

#[test]
fn a_generation_has_one_set() {
    for first in [0b001, 0b111] {
        let verdict = choice(first, None);
        println!("{verdict}");
        assert!(verdict.holds(), "{verdict}");
    }
}

#[test]
fn two_sets_of_one_generation_are_found() {
    let verdict = choice(0b111, Some(Bug::ProposesUnasked));
    assert!(verdict.breaks(ONE_SET), "{verdict}");
}

#[test]
fn two_members_at_a_time_are_found() {
    let verdict = with_leases(0b001, Bug::TwoAtATime);
    assert!(verdict.breaks(NEVER_TWO), "{verdict}");
}

#[test]
#[ignore = "a minute: make test-model"]
fn the_next_change_right_after_one_is_found() {
    let verdict = with_leases(0b001, Bug::NoWait);
    assert!(verdict.breaks(NEVER_TWO), "{verdict}");
}

#[test]
#[ignore = "a minute: make test-model"]
fn an_answer_under_any_generation_is_found() {
    let verdict = with_leases(0b001, Bug::AnyGeneration);
    assert!(verdict.breaks(NEVER_TWO), "{verdict}");
}
