use super::*;
use crate::dump::dump;
use crate::run::Plan;
use crate::swarm::swarm;
use fabric::node::Canary;

const CLAIMED_TWICE: &str = "invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node";

#[test]
fn a_planted_bug_shrinks_to_a_few_lines_that_can_be_played_again() {
    let plan = Plan {
        seed: 1,
        nodes: 6,
        turmoil: Duration::from_secs(300),
        canary: Some(Canary::ForgetsAClaim),
        aimed_at_leases: false,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    };
    let caught = swarm(&plan, 20, 2, |_, result| {
        result.is_ok_and(|_| true) || result.is_err_and(|it| it.why.name() != CLAIMED_TWICE)
    });
    let failure = caught.failures.iter().find(|failure| failure.why.name() == CLAIMED_TWICE);
    let failure = failure.expect("twenty seeds, and nobody noticed");
    let journal = Journal::parse(&failure.journal.to_string()).unwrap();

    let mut seen = 0;
    let shrunk = shrink(&journal, 120, |progress| seen = progress.tries).unwrap();
    assert_eq!(shrunk.why.name(), CLAIMED_TWICE);
    assert!(shrunk.tries <= 120 && seen <= shrunk.tries);
    let (before, after) = (journal.acts.len(), shrunk.journal.acts.len());
    println!("{before} acts, then {after}:\n{}", shrunk.journal);
    assert!(after * 3 <= before && after <= 8, "{before} acts, then {after}:\n{}", shrunk.journal);

    let small = Journal::parse(&shrunk.journal.to_string()).unwrap();
    let mut run = Run::replay(&small, Detail::Nothing, false);
    let Err(Why::Broken(violation)) = go(&mut run) else { panic!("the replay held") };
    assert_eq!(violation.invariant, CLAIMED_TWICE);
    let last = run.world.happened;

    // One event earlier nothing is broken yet, and the node can be looked at.
    let mut run = Run::replay(&small, Detail::Nothing, false);
    run.world.stop_after = Some(last - 1);
    let Err(Why::Broken(stopped)) = go(&mut run) else { panic!("it did not stop") };
    assert!(stopped.is_stop());
    assert_eq!(run.world.happened, last - 1);
    let text = dump(&run.world, 0);
    for expected in ["n00", "units, and what they hold:", "members, as it sees them", "on its disk"]
    {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_journal_that_breaks_nothing_does_not_shrink() {
    let turmoil = Duration::from_secs(10);
    let (breaks, acts) = (None, Vec::new());
    let quiet = Journal { seed: 3, nodes: 3, turmoil, canary: None, breaks, acts };
    assert!(shrink(&quiet, 10, |_| {}).is_none());
}
