//! What an agent costs and how fast a fabric reacts, measured with real agents on this machine, beside
//! other programs that do the same in the same run.
//!
//!     fabric [--small] [--placements FILE] [--only PART]
//!
//! `WEFT_AGENT` names the agent to measure: `make bench` builds a release, and this program without that
//! care. Prints a table and writes `target/bench/results.json`. `--placements` names the output of the bench
//! `placement` of the core, one JSON object a line, which is shown with the rest.

// A benchmark reads the clock.
#![allow(clippy::disallowed_methods)]

#[path = "../../tests/testbed/mod.rs"]
mod testbed;

mod busy;
mod detection;
mod events;
mod pinning;
mod replacement;
mod rest;
mod results;
mod submit;

use results::{Better, Results};
use std::path::PathBuf;
use std::process::ExitCode;

/// How much is measured.
struct Effort {
    /// Seconds of rest that are watched.
    rest_seconds: u64,
    /// Nodes killed at 20 agents.
    deaths: usize,
    /// Nodes killed at 3.
    replacements: usize,
    /// Jobs submitted.
    submits: usize,
    /// Looks at a pinned unit, with noise and without.
    pinning_rounds: usize,
}

type Part = fn(&mut Results, &Effort);

/// What is measured, in this order. `--only` names one, of which no file is written.
const PARTS: [(&str, Part); 8] = [
    ("size", size),
    ("rest", rest::measure),
    ("busy", busy::measure),
    ("replacement", replacement::measure),
    ("submit", submit::measure),
    ("systemd", submit::measure_on_systemd),
    ("pinning", pinning::measure),
    ("detection", detection::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if pinning::work(&arguments) {
        return ExitCode::SUCCESS;
    }
    let mut effort =
        Effort { rest_seconds: 60, deaths: 5, replacements: 7, submits: 40, pinning_rounds: 6 };
    let (mut placements, mut only, mut is_small) = (None, None, false);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--small" => {
                is_small = true;
                effort = Effort {
                    rest_seconds: 15,
                    deaths: 1,
                    replacements: 2,
                    submits: 10,
                    pinning_rounds: 1,
                };
            }
            "--only" => {
                only = arguments.next();
                let known = PARTS.map(|(name, _)| name);
                if !known.iter().any(|name| Some(*name) == only.as_deref()) {
                    eprintln!("--only one of {}", known.join(", "));
                    return ExitCode::from(2);
                }
            }
            "--placements" => placements = arguments.next().map(PathBuf::from),
            // Cargo's word that this is a benchmark.
            "--bench" => {}
            other => {
                eprintln!(
                    "unknown argument {other}: there are --small, --placements FILE and --only PART"
                );
                return ExitCode::from(2);
            }
        }
    }
    let mut results = Results::default();
    if let Some(path) = placements {
        results.read_placements(&path);
    }
    for (name, measure) in PARTS {
        if only.as_deref().is_none_or(|only| only == name) {
            measure(&mut results, &effort);
        }
    }
    results.print();
    if only.is_none() {
        match results.write() {
            Ok(path) => println!("\nwritten to {}", path.display()),
            Err(error) => {
                eprintln!("the results cannot be written: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    // A short run on a busy machine shows that the bench works, and no figures.
    let missed = results.missed();
    if is_small || missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("worse than the budget by more than a tenth: {}", missed.join("; "));
    ExitCode::FAILURE
}

/// Bytes of the agent's program.
fn size(results: &mut Results, _: &Effort) {
    let bytes = std::fs::metadata(testbed::weftd()).expect("the agent was built").len();
    results.add("agent binary, stripped", bytes as f64 / 1e6, "MB", Some(8.5), Better::Lower);
}
