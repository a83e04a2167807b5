use std::time::Duration;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn at(millis: u64) -> Instant {
    Instant::at(Duration::from_millis(millis))
}

fn sight(up: usize, suspects: usize, local_health: u32) -> Sight {
    Sight { up, suspects, local_health, deaf: false }
}

#[test]
fn one_loss_is_believed_at_once_and_that_of_all_others_is_not() {
    let mut doubt = Doubt::default();
    doubt.lose(at(0), node(1));
    assert_eq!(doubt.review(at(0), sight(1, 0, 0)), Turn::None, "the last of two");
    assert!(!doubt.covers(&node(1)));
    doubt.lose(at(1), node(2));
    assert_eq!(doubt.review(at(1), sight(1, 0, 0)), Turn::Begun, "the last of three");
    assert!(doubt.covers(&node(1)) && doubt.covers(&node(2)));
    let end = at(1) + limits::DOUBT_MAX;
    assert_eq!(doubt.review(end, sight(1, 0, 0)), Turn::Over, "and acts in the end");
}

#[test]
fn a_loss_is_doubted_while_nobody_else_is_heard() {
    let mut doubt = Doubt::default();
    doubt.lose(at(0), node(1));
    assert_eq!(doubt.review(at(0), Sight { deaf: true, ..sight(2, 0, 0) }), Turn::Begun);
    assert!(doubt.covers(&node(1)));
}

#[test]
fn three_of_a_hundred_are_believed_by_a_node_that_is_well() {
    let mut doubt = Doubt::default();
    for number in 1..=3 {
        doubt.lose(at(u64::from(number)), node(number));
    }
    assert_eq!(doubt.review(at(3), sight(97, 0, 2)), Turn::None);
    assert_eq!(doubt.review(at(4), sight(97, 0, 3)), Turn::Begun, "its own probes fail");
}

#[test]
fn losses_that_are_far_apart_have_nothing_to_do_with_each_other() {
    let mut doubt = Doubt::default();
    for number in 1..=5 {
        let now = at(u64::from(number) * 10_000);
        doubt.lose(now, node(number));
        assert_eq!(doubt.review(now, sight(6, 0, 8)), Turn::None);
    }
}

#[test]
fn suspects_count_before_they_are_lost() {
    let mut doubt = Doubt::default();
    assert_eq!(doubt.review(at(0), sight(8, 4, 0)), Turn::None, "nobody is lost yet");
    doubt.lose(at(100), node(1));
    assert_eq!(doubt.review(at(100), sight(7, 3, 0)), Turn::Begun);
    assert!(doubt.covers(&node(1)) && !doubt.covers(&node(2)));
    doubt.lose(at(200), node(2));
    assert_eq!(doubt.review(at(200), sight(6, 2, 0)), Turn::Doubting);
    assert!(doubt.covers(&node(2)));
    assert_eq!(doubt.about(), Some(2));
}

#[test]
fn who_sees_half_of_the_fabric_acts_when_it_is_calm() {
    let mut doubt = Doubt::default();
    for number in 1..=10 {
        doubt.lose(at(0), node(number));
    }
    assert_eq!(doubt.review(at(0), sight(10, 0, 2)), Turn::Begun);
    assert_eq!(doubt.review(at(1_000), sight(10, 1, 2)), Turn::Doubting, "a suspect");
    let calm = 1_000 + limits::DOUBT_CALM.as_millis() as u64;
    assert_eq!(doubt.review(at(calm - 1), sight(10, 0, 2)), Turn::Doubting);
    assert_eq!(doubt.review(at(calm), sight(10, 0, 2)), Turn::Over);
    assert!(!doubt.covers(&node(1)));
    // The most important slots go at once, the others in their turn.
    assert_eq!(doubt.holds_until(at(calm), &node(1), 100), None);
    assert_eq!(doubt.holds_until(at(calm + 1_499), &node(1), 50), Some(at(calm + 1_500)));
    assert_eq!(doubt.holds_until(at(calm + 1_500), &node(1), 50), None);
    assert_eq!(doubt.holds_until(at(calm), &node(11), 1), None, "that one was never lost");
    assert_eq!(doubt.review(at(calm + 2_999), sight(10, 0, 2)), Turn::After);
    assert!(doubt.is_awake());
    assert_eq!(doubt.review(at(calm + 3_000), sight(10, 0, 2)), Turn::After, "the last turn");
    assert_eq!(doubt.review(at(calm + 3_001), sight(10, 0, 2)), Turn::None, "and not again");
    assert!(!doubt.is_awake());
}

#[test]
fn the_smaller_side_and_whoever_is_ill_wait_to_the_end() {
    for (up, health) in [(9, 0), (10, 3)] {
        let mut doubt = Doubt::default();
        for number in 1..=10 {
            doubt.lose(at(0), node(number));
        }
        assert_eq!(doubt.review(at(0), sight(up, 0, health)), Turn::Begun);
        let end = limits::DOUBT_MAX.as_millis() as u64;
        assert_eq!(doubt.review(at(end - 1), sight(up, 0, health)), Turn::Doubting);
        assert_eq!(doubt.review(at(end), sight(up, 0, health)), Turn::Over);
    }
}

#[test]
fn who_comes_back_is_not_doubted_any_more() {
    let mut doubt = Doubt::default();
    for number in 1..=4 {
        doubt.lose(at(0), node(number));
    }
    assert_eq!(doubt.review(at(0), sight(4, 0, 0)), Turn::Begun);
    doubt.find(&node(1));
    assert!(!doubt.covers(&node(1)) && doubt.covers(&node(2)));
    assert_eq!(doubt.about(), Some(3));
}
