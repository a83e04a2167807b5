//! `weft-model`: searches all models, and says of each whether its promises hold. Then plants one bug after the
//! other: a search that finds nothing must be one that could.

use anyhow::ensure;
use clap::Parser;
use std::process::ExitCode;
use weft_model::lease::{self, Drift, Lease};
use weft_model::search::{Verdict, search, search_within};
use weft_model::slots::{self, Slots};
use weft_model::voters::{self, Voters};

/// Steps of a change of the voter set with leases, from one voter and from three: the whole space does not fit
/// this machine's memory. Every planted bug takes at most 22 from one voter.
const CHANGE_STEPS: [usize; 2] = [26, 15];

/// Searches small clusters exhaustively for a broken promise.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only the searches that take seconds.
    #[arg(long)]
    small: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().small) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(small: bool) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut states = 0;
    let mut tell = |verdict: Verdict| {
        println!("{verdict}");
        states += verdict.states;
        if !verdict.holds() {
            wrong.push(verdict.name);
        }
    };
    tell(lease(2, 1, 1, Drift::Hostile, None));
    tell(lease(2, 2, 0, Drift::Hostile, None));
    tell(lease(2, 1, 0, Drift::Changing, None));
    tell(slots(2, 2, None));
    tell(choice(0b001, None));
    tell(choice(0b111, None));
    if !small {
        tell(slots(3, 0, None));
        tell(change(0b001, None));
        tell(change(0b111, None));
        tell(lease(2, 1, 1, Drift::Constant, None));
        tell(lease(3, 1, 1, Drift::Hostile, None));
        tell(lease(3, 2, 0, Drift::Hostile, None));
    }
    ensure!(wrong.is_empty(), "promises that can be broken: {}", wrong.join(", "));
    println!("{states} states: every promise holds in all of them\n\nplanted bugs:");
    plant(small)
}

/// Each planted bug, in the smallest search that can find it.
fn plant(small: bool) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    let mut found = |verdict: Verdict| match verdict.broken.first() {
        Some(broken) => {
            let (name, steps, promise) = (&verdict.name, broken.steps.len(), broken.promise);
            println!("found after {steps} steps: {name}: {promise}");
        }
        None => missed.push(verdict.name),
    };
    for bug in [
        lease::Bug::HoldsTooLong,
        lease::Bug::EntryIgnoresTheStop,
        lease::Bug::EntryIgnoresTheDrift,
        lease::Bug::CountsFromTheAnswer,
        lease::Bug::OldAnswersCount,
        lease::Bug::ReleasesTooEarly,
        lease::Bug::EqualEpochs,
    ] {
        found(lease(2, 0, 0, Drift::Hostile, Some(bug)));
    }
    for bug in [lease::Bug::NotMute, lease::Bug::ForgetsItsFloor] {
        found(lease(2, 2, 0, Drift::Hostile, Some(bug)));
    }
    for bug in [slots::Bug::NoDirection, slots::Bug::NoTieBreak, slots::Bug::TooEarly] {
        found(slots(2, 1, Some(bug)));
    }
    found(choice(0b111, Some(voters::Bug::ProposesUnasked)));
    found(change(0b001, Some(voters::Bug::TwoAtATime)));
    if !small {
        found(lease(3, 1, 0, Drift::Hostile, Some(lease::Bug::PromisesNeverAge)));
        found(lease(3, 1, 0, Drift::Hostile, Some(lease::Bug::FirstBelowTheFloor)));
        found(change(0b001, Some(voters::Bug::NoWait)));
        found(change(0b001, Some(voters::Bug::AnyGeneration)));
    }
    ensure!(missed.is_empty(), "planted bugs that nobody found: {}", missed.join(", "));
    Ok(())
}

fn lease(
    voters: usize,
    voter_restarts: u8,
    holder_restarts: u8,
    drift: Drift,
    bug: Option<lease::Bug>,
) -> Verdict {
    let lease = Lease { voters, epochs: 2, voter_restarts, holder_restarts, drift, bug };
    search(named("lease", bug), lease.bounds(), lease)
}

fn slots(nodes: usize, doubts: u8, bug: Option<slots::Bug>) -> Verdict {
    let (illnesses, failures) = if nodes == 2 { (2, 2) } else { (1, 1) };
    let slots = Slots { nodes, illnesses, failures, doubts, bug };
    search(named("allocations of one slot", bug), slots.bounds(), slots)
}

fn choice(first: u8, bug: Option<voters::Bug>) -> Verdict {
    let voters = Voters { first, ballots: 2, leases: false, bug };
    search(named("choice of the voter set", bug), voters.bounds(), voters)
}

fn change(first: u8, bug: Option<voters::Bug>) -> Verdict {
    let voters = Voters { first, ballots: 1, leases: true, bug };
    let steps = CHANGE_STEPS[usize::from(first != 0b001)];
    search_within(named("change of the voter set", bug), voters.bounds(), steps, voters)
}

fn named(what: &str, bug: Option<impl std::fmt::Debug>) -> String {
    match bug {
        Some(bug) => format!("{what}, with the bug {bug:?}"),
        None => what.into(),
    }
}
