use super::*;
use crate::search::{Verdict, search};

fn small(nodes: usize, bug: Option<Bug>) -> Verdict {
    let slots = Slots { nodes, illnesses: 1, failures: 1, doubts: 1, bug };
    search(format!("{bug:?}"), slots.bounds(), slots)
}

#[test]
fn of_two_allocations_exactly_one_gives_way() {
    let verdict = small(2, None);
    println!("{verdict}");
    assert!(verdict.holds(), "{verdict}");
}

#[test]
fn a_rule_without_a_direction_is_found() {
    for bug in [Bug::NoDirection, Bug::NoTieBreak] {
        let verdict = small(2, Some(bug));
        assert!(verdict.breaks(NEVER_ALL), "{verdict}");
    }
}

#[test]
fn giving_way_before_the_other_works_is_found() {
    let verdict = small(2, Some(Bug::TooEarly));
    assert!(verdict.breaks(ONE_STAYS), "{verdict}");
}
