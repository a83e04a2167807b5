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
    assert_eq!(informed.hold(soon, &node, false), None);
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
