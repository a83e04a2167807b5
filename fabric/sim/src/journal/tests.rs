use super::*;
use crate::faults::schedule;
use crate::run::{Plan, Run};
use crate::swarm::go;
use crate::trace::Detail;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        nodes: 5,
        turmoil: Duration::from_secs(120),
        canary: None,
        aimed_at_leases: false,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    }
}

#[test]
fn a_journal_played_again_makes_the_same_world_event_by_event() {
    let mut run = Run::new(&plan(21));
    let outcome = go(&mut run).unwrap();
    let text = run.journal.to_string();
    let journal = Journal::parse(&text).unwrap();
    assert_eq!(journal, run.journal);
    let wishes = journal.acts.iter().filter(|entry| matches!(entry.act, Act::Wish { .. }));
    assert!(wishes.count() > 5, "{text}");
    let mut again = Run::replay(&journal, Detail::Nothing, false);
    assert_eq!(go(&mut again).unwrap(), outcome);
}

#[test]
fn every_fault_that_is_drawn_can_be_written_and_read() {
    for seed in 0..50 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for drawn in schedule(&mut random, 20, Duration::from_secs(3600)) {
            let entry = Entry { at: drawn.at, act: Act::Fault(drawn.fault, drawn.lasting) };
            let text = format!("seed 1\nnodes 20\nturmoil 3600s\n{entry}\n");
            let read = Journal::parse(&text).unwrap();
            assert_eq!(read.acts, [entry], "{text}");
        }
    }
}

#[test]
fn what_cannot_be_played_is_refused_with_its_line() {
    let head = "seed 1\nnodes 3\nturmoil 60s\n";
    for (line, expected) in [
        ("12s power-cut n03 for 2s", "there are 3 nodes"),
        ("12s power-cut n01", "FAULT for"),
        ("soon power-cut n01 for 2s", "not a time"),
        ("12s explode n01 for 2s", "no fault \"explode\""),
        ("61s power-cut n01 for 2s", "the turmoil is over"),
        ("12s at n01 dance x", "nobody wishes"),
        ("12s at n01 submit {}", "JSON"),
        ("canary tweets", "no such planted bug"),
        ("12s bad-network fast for 2s", "write `latency"),
    ] {
        let error = format!("{:#}", Journal::parse(&format!("{head}{line}\n")).unwrap_err());
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert!(Journal::parse("seed 1\n").is_err());
    assert!(Journal::parse(&format!("{head}# nothing\n\n")).unwrap().acts.is_empty());
}
