use super::*;
use crate::trace::Detail;
use fabric::node::Canary;

const THREADS: usize = 2;

fn plan(seed: u64, canary: Option<Canary>) -> Plan {
    Plan {
        seed,
        nodes: 8,
        turmoil: Duration::from_secs(600),
        canary,
        aimed_at_leases: false,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    }
}

/// Every promise holds in the worlds of these seeds.
fn hold(seeds: &[u64], nodes: usize, seconds: u64) {
    for seed in seeds {
        let plan = Plan { nodes, turmoil: Duration::from_secs(seconds), ..plan(*seed, None) };
        let outcome = run_one(&plan).map_err(|failure| failure.why.to_string());
        assert!(outcome.is_ok(), "{seed}: {outcome:?}");
    }
}

#[test]
fn a_small_swarm_breaks_nothing() {
    let summary = swarm(&plan(1000, None), 10, THREADS, |_, result| result.is_ok());
    let told: Vec<String> = summary
        .failures
        .iter()
        .map(|failure| format!("{}: {}", failure.seed, failure.why))
        .collect();
    assert!(told.is_empty(), "{told:#?}");
    assert_eq!(summary.outcomes.len(), 10);
}

/// A roll-out of a system job that is taken back goes on for longer than anybody waits for rest. All that runs is of one
/// version when its last copy has been stopped, or has just been started: nothing is wrong then.
#[test]
fn a_roll_out_at_its_last_copy_is_not_over() {
    hold(&[1093, 1197], 20, 120);
}

/// The last member to say that it has seen what was deleted says something else with it: all the same, whoever hears that looks at
/// once, and not at the next look, ten seconds later, while the others have no tombstone any more.
#[test]
fn tombstones_leave_everywhere_within_moments() {
    hold(&[559, 748], 20, 120);
}

/// A version is taken back to one with fewer slots, and a node stops what it runs for that before it has heard of it.
#[test]
fn a_slot_that_is_wanted_no_more_is_not_missed() {
    hold(&[156], 3, 600);
}

/// Of two allocations of a slot in two parts of the fabric the one with the higher epoch ends for a more important job. The
/// other goes on, and is stopped for a new version, whose slot finds no place: the roll-out waits for that slot.
#[test]
fn a_roll_out_waits_for_what_it_emptied_although_a_stand_in_had_a_higher_epoch() {
    hold(&[33], 3, 600);
}

/// Each planted bug breaks what it should within twenty seeds, of a world that is hard on leases; the same seed
/// without it is clean.
#[test]
fn planted_bugs_of_leases_are_caught_within_twenty_seeds() {
    for canary in [Canary::HoldsALeaseTooLong, Canary::VoterForgets] {
        let twice = |failure: &Failure| {
            failure.why.name() == "invariant_an_at_most_one_slot_never_has_two_live_units"
        };
        let turmoil = Duration::from_secs(300);
        let plan = Plan { turmoil, aimed_at_leases: true, ..plan(1, Some(canary)) };
        let caught = swarm(&plan, 20, THREADS, |_, result| !result.is_err_and(twice));
        let Some(failure) = caught.failures.iter().find(|failure| twice(failure)) else {
            panic!("{canary:?}: 20 seeds, and nobody noticed: {:?}", caught.failures);
        };
        let clean = Plan { seed: failure.seed, canary: None, ..plan };
        let outcome = run_one(&clean);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

/// An agent that does not look for whom a datagram is hands in what a stranger has copied; the same seed without the bug
/// is clean.
#[test]
fn what_a_stranger_copies_is_noticed_where_receivers_are_ignored() {
    let heard = |failure: &Failure| {
        failure.why.name() == "invariant_no_datagram_from_a_non_member_changes_a_decision"
    };
    let plan = plan(1, Some(Canary::IgnoresReceivers));
    let caught = swarm(&plan, 40, THREADS, |_, result| !result.is_err_and(heard));
    let Some(failure) = caught.failures.iter().find(|failure| heard(failure)) else {
        panic!("40 seeds, and nobody noticed: {:?}", caught.failures);
    };
    let clean = Plan { seed: failure.seed, canary: None, ..plan };
    assert!(run_one(&clean).is_ok());
}

/// The planted bug gives a core away twice; the same seeds without it are clean.
#[test]
fn the_canary_is_caught_within_twenty_seeds() {
    let claimed_twice = |failure: &Failure| match &failure.why {
        Why::Broken(violation) => {
            violation.invariant
                == "invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node"
        }
        Why::Panicked(_) => false,
    };
    let plan = plan(1, Some(Canary::ForgetsAClaim));
    let caught = swarm(&plan, 20, THREADS, |_, result| !result.is_err_and(claimed_twice));
    let Some(failure) = caught.failures.iter().find(|failure| claimed_twice(failure)) else {
        panic!("20 seeds, and nobody noticed: {:?}", caught.failures);
    };
    let clean = Plan { seed: failure.seed, canary: None, ..plan };
    assert!(run_one(&clean).is_ok());
}

/// The planted bug goes by every node's own clock; the same seeds without it are clean.
#[test]
fn believing_every_clock_is_caught_within_twenty_seeds() {
    let deceived = |failure: &Failure| {
        failure.why.name() == "invariant_one_wrong_clock_changes_no_other_nodes_decisions"
    };
    let plan = plan(1, Some(Canary::BelievesEveryClock));
    let caught = swarm(&plan, 20, THREADS, |_, result| !result.is_err_and(deceived));
    let Some(failure) = caught.failures.iter().find(|failure| deceived(failure)) else {
        panic!("20 seeds, and nobody noticed: {:?}", caught.failures);
    };
    let clean = Plan { seed: failure.seed, canary: None, ..plan };
    let outcome = run_one(&clean);
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The planted bug takes rows for the writing of whoever they name; the same seed without it is clean.
#[test]
fn what_a_forger_writes_is_noticed_where_signatures_are_not_checked() {
    let believed = |failure: &Failure| {
        failure.why.name() == "invariant_no_row_is_taken_in_a_name_that_did_not_write_it"
    };
    let plan = plan(1, Some(Canary::TakesUnsigned));
    let caught = swarm(&plan, 20, THREADS, |_, result| !result.is_err_and(believed));
    let Some(failure) = caught.failures.iter().find(|failure| believed(failure)) else {
        panic!("20 seeds, and nobody noticed: {:?}", caught.failures);
    };
    let clean = Plan { seed: failure.seed, canary: None, ..plan };
    let outcome = run_one(&clean);
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Agents that forget nothing, and full tables that refuse and are answered for as if they had not; the same seeds without are
/// clean.
#[test]
fn planted_bugs_of_tables_are_caught_within_thirty_seeds() {
    for (canary, invariant) in [
        (Canary::KeepsWhatEnded, "invariant_ended_rows_leave_although_a_clock_was_ahead"),
        (Canary::IgnoresFull, "invariant_an_answer_counts_only_real_holders"),
    ] {
        let noticed = |failure: &Failure| failure.why.name() == invariant;
        let plan = Plan { nodes: 3, ..plan(1, Some(canary)) };
        let caught = swarm(&plan, 30, THREADS, |_, result| !result.is_err_and(noticed));
        let Some(failure) = caught.failures.iter().find(|failure| noticed(failure)) else {
            panic!("{canary:?}: 30 seeds, and nobody noticed: {:?}", caught.failures);
        };
        println!("{canary:?}: caught by seed {}", failure.seed);
        let clean = Plan { seed: failure.seed, canary: None, ..plan };
        let outcome = run_one(&clean);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

/// One of two voters has begun anew, and cannot accept a next set for a while: nobody binds itself to one before that.
#[test]
fn a_change_of_voters_waits_for_those_that_can_accept_it() {
    hold(&[49], 3, 600);
}
