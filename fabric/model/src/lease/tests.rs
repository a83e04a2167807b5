use super::*;
use crate::search::{Verdict, search};

fn small(voters: usize, voter_restarts: u8, holder_restarts: u8, bug: Option<Bug>) -> Verdict {
    let drift = Drift::Hostile;
    let lease = Lease { voters, epochs: 2, voter_restarts, holder_restarts, drift, bug };
    search(format!("{bug:?}"), lease.bounds(), lease)
}

#[test]
fn two_voters_never_let_two_hold() {
    for (voter_restarts, holder_restarts) in [(1, 1), (2, 0)] {
        let verdict = small(2, voter_restarts, holder_restarts, None);
        println!("{verdict}");
        assert!(verdict.holds(), "{verdict}");
    }
}

#[test]
fn whoever_counts_time_wrongly_is_found() {
    for bug in [
        Bug::HoldsTooLong,
        Bug::EntryIgnoresTheStop,
        Bug::EntryIgnoresTheDrift,
        Bug::CountsFromTheAnswer,
        Bug::OldAnswersCount,
        Bug::ReleasesTooEarly,
    ] {
        let verdict = small(2, 0, 0, Some(bug));
        assert!(verdict.breaks(NEVER_TWO), "{verdict}");
    }
}

#[test]
fn a_voter_that_does_not_stay_mute_after_a_restart_is_found() {
    let verdict = small(2, 2, 0, Some(Bug::NotMute));
    assert!(verdict.breaks(NEVER_TWO), "{verdict}");
}

#[test]
fn an_epoch_that_comes_twice_or_falls_is_found() {
    let verdict = small(2, 0, 0, Some(Bug::EqualEpochs));
    assert!(verdict.breaks(TOKENS_GROW), "{verdict}");
    let verdict = small(2, 2, 0, Some(Bug::ForgetsItsFloor));
    assert!(!verdict.broken.is_empty(), "{verdict}");
}

/// With two voters every promise is remembered by one of a majority: it takes a third.
#[test]
#[ignore = "a minute: make test-model"]
fn a_voter_whose_past_counts_after_it_forgot_it_is_found() {
    for bug in [Bug::PromisesNeverAge, Bug::FirstBelowTheFloor] {
        let verdict = small(3, 1, 0, Some(bug));
        assert!(!verdict.broken.is_empty(), "{verdict}");
    }
}

#[test]
fn a_model_in_which_nothing_can_happen_does_not_hold() {
    let lease = Lease {
        voters: 2,
        epochs: 1,
        voter_restarts: 0,
        holder_restarts: 0,
        drift: Drift::None,
        bug: None,
    };
    let verdict = search("one epoch", lease.bounds(), lease);
    assert_eq!(verdict.unreachable, [A_SUCCESSOR]);
}
