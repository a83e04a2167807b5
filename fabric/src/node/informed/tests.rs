use super::*;
use std::time::Duration;

#[test]
fn a_word_of_a_member_that_is_called_dead_still_frees_nothing() {
    let (start, node) = (Instant::default(), NodeId([1; 32]));
    let mut informed = Informed::new(start);
    let soon = start + Duration::from_secs(1);
    informed.settle();
    assert!(informed.hold(soon, &node, false).is_some(), "it was not heard since the start");
    informed.hear(soon, node, false);
    assert!(informed.hold(soon, &node, false).is_some(), "membership has not found it");
    informed.hear(soon, node, true);
    assert_eq!(informed.hold(soon + limits::HEARS_WITHIN, &node, false), None);
}

/// Informed, and long enough after its start.
fn settled(heard: &[NodeId]) -> (Informed, Instant) {
    let mut informed = Informed::new(Instant::default());
    heard.iter().for_each(|node| informed.hear(Instant::default(), *node, true));
    informed.settle();
    (informed, Instant::default() + limits::UNHEARD_HOLD * 2)
}

#[test]
fn who_was_heard_a_moment_ago_is_not_gone_whoever_says_so() {
    let node = NodeId([1; 32]);
    let (mut informed, now) = settled(&[node]);
    assert_eq!(informed.hold(now, &node, false), None, "silent for long");
    informed.hear(now, node, true);
    let until = now + limits::HEARS_WITHIN;
    assert_eq!(informed.hold(now, &node, false), Some(Hold::Heard { until }));
    assert_eq!(informed.fallen_silent(now), []);
    assert_eq!(informed.fallen_silent(until), [node]);
    assert_eq!(informed.hold(until, &node, false), None);
    // It says itself that it goes.
    informed.hear(until, node, true);
    informed.part(&node);
    assert_eq!(informed.hold(until, &node, false), None);
    // What comes of it after that was said before, or on its way out.
    informed.hear(until, node, false);
    assert_eq!(informed.hold(until, &node, false), None);
    informed.find(&node);
    informed.hear(until, node, true);
    assert!(informed.hold(until, &node, false).is_some());
}

#[test]
fn who_was_not_found_since_the_link_is_back_is_waited_for_though_another_knows_all() {
    let [lost, found] = [1, 2].map(|number| NodeId([number; 32]));
    let (mut informed, now) = settled(&[lost, found]);
    informed.link(now, false);
    assert_eq!(informed.hold(now, &lost, false), Some(Hold::NoLink { until: None }));
    let back = now + limits::UNHEARD_HOLD;
    informed.link(back, true);
    // Somebody compares tables at once, and nothing is missing.
    informed.hear(back, found, true);
    informed.settle();
    let until = back + limits::RECONNECT_HOLD;
    assert_eq!(informed.hold(back, &lost, false), Some(Hold::NoLink { until: Some(until) }));
    // That one was there: should it die now, it is dead.
    let later = back + limits::HEARS_WITHIN;
    assert_eq!(informed.hold(later, &found, false), None);
    informed.find(&lost);
    assert_eq!(informed.hold(later, &lost, false), None);
    // Not for ever, and what else changes of this machine meanwhile does not make it longer.
    informed.link(later, false);
    informed.link(later, true);
    informed.link(later + limits::HEARS_WITHIN, true);
    informed.settle();
    let over = later + limits::RECONNECT_HOLD;
    assert!(informed.hold(later, &lost, false).is_some());
    assert_eq!(informed.next_deadline(), Some(over));
    assert!(informed.review(over, false), "it is looked again");
    assert_eq!(informed.hold(over, &lost, false), None);
}

#[test]
fn a_goodbye_outlives_what_was_sent_before_it_and_not_what_is_sent_later() {
    let (start, node) = (Instant::default(), NodeId([1; 32]));
    let mut informed = Informed::new(start);
    informed.leave(start, node);
    informed.find_comparing(start + limits::OVERTAKEN, &node);
    assert!(informed.away().any(|(it, _)| it == node));
    informed.find_comparing(start + limits::OVERTAKEN * 2, &node);
    assert_eq!(informed.away().next(), None);
}
