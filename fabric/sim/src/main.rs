//! `weft-sim`: one seed, a swarm of seeds, a scenario, or a measurement.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use fabric::node::Canary;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use weft_sim::run::Plan;
use weft_sim::swarm::{Failure, run_one, swarm};
use weft_sim::trace::Detail;
use weft_sim::{measure, scenario};

/// Runs weft's core in virtual time under faults.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    one: One,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds on all cores, and says which ones failed.
    Swarm {
        /// How many seeds.
        #[arg(long, default_value_t = 500)]
        seeds: u64,
        /// Threads; without it, as many as there are cores.
        #[arg(long)]
        threads: Option<usize>,
        #[command(flatten)]
        one: One,
    },
    /// Runs scenario files, and compares their traces with what the files say.
    Scenario {
        /// Files; WEFT_REWRITE=1 writes the traces that came out back into them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Kills a node many times, and prints how long the others took to notice and to replace its work.
    Measure {
        /// Machines.
        #[arg(long, default_value_t = 20)]
        nodes: usize,
        /// How many times.
        #[arg(long, default_value_t = 50)]
        kills: u32,
        /// Where to begin.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args, Clone)]
struct One {
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Machines.
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// World time under faults, in hours (plus --minutes).
    #[arg(long, default_value_t = 0)]
    hours: u64,
    /// World time under faults, in minutes; 10 if neither is given.
    #[arg(long)]
    minutes: Option<u64>,
    /// Print every input and output.
    #[arg(long)]
    trace: bool,
    /// Print decisions and faults.
    #[arg(long)]
    story: bool,
    /// Plant a bug.
    #[arg(long)]
    canary: Option<Bug>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bug {
    /// Admission forgets the claim it gave last.
    ForgetsAClaim,
}

impl One {
    fn minutes(&self) -> u64 {
        self.hours * 60 + self.minutes.unwrap_or(if self.hours > 0 { 0 } else { 10 })
    }

    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            nodes: self.nodes,
            turmoil: Duration::from_secs(self.minutes() * 60),
            canary: self.canary.map(|Bug::ForgetsAClaim| Canary::ForgetsAClaim),
            detail: match (self.trace, self.story) {
                (true, _) => Detail::Everything,
                (false, true) => Detail::Story,
                (false, false) => Detail::Nothing,
            },
            print: true,
        }
    }

    /// The command that repeats a run.
    fn replay(&self, seed: u64) -> String {
        let canary = if self.canary.is_some() { " --canary forgets-a-claim" } else { "" };
        let (nodes, minutes) = (self.nodes, self.minutes());
        format!(
            "cargo run -p weft-sim -- --seed {seed} --nodes {nodes} --minutes {minutes}{canary} --story"
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => one_seed(&arguments.one),
        Some(Command::Swarm { seeds, threads, one }) => many_seeds(seeds, threads, &one),
        Some(Command::Scenario { files }) => scenarios(&files),
        Some(Command::Measure { nodes, kills, seed }) => {
            measure::measure(seed, nodes, kills).map(|report| println!("{report}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one_seed(one: &One) -> anyhow::Result<()> {
    if one.nodes == 0 {
        bail!("a fabric needs at least one node: give --nodes 1 or more");
    }
    println!("seed {}", one.seed);
    match run_one(&one.plan()) {
        Ok(outcome) => {
            println!(
                "held: {:.0} s of world time, at rest {:.0} s after the last fault, {} units at the end, trace {:016x}",
                outcome.time.as_secs_f64(),
                outcome.settled.as_secs_f64(),
                outcome.units,
                outcome.digest
            );
            Ok(())
        }
        Err(failure) => {
            tell_failure(one, &failure);
            bail!("seed {} failed", failure.seed)
        }
    }
}

fn tell_failure(one: &One, failure: &Failure) {
    println!("seed {}: {}\n    {}", failure.seed, failure.why, one.replay(failure.seed));
}

fn many_seeds(seeds: u64, threads: Option<usize>, one: &One) -> anyhow::Result<()> {
    if one.nodes == 0 {
        bail!("a fabric needs at least one node: give --nodes 1 or more");
    }
    println!("seeds {} to {}, {} nodes", one.seed, one.seed + seeds - 1, one.nodes);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let plan = Plan { detail: Detail::Nothing, ..one.plan() };
    let summary = swarm(&plan, seeds, threads.unwrap_or(cores), |done, result| {
        if let Err(failure) = result {
            tell_failure(one, failure);
        }
        if done % 25 == 0 {
            println!("{done} of {seeds}");
        }
        true
    });
    let (settled, longest) = summary.spread(|outcome| Some(outcome.settled));
    let (replaced, slowest) = summary.spread(|outcome| outcome.replaced);
    println!(
        "{} held, {} failed; {:.1} hours of world time; at rest after the last fault: half within {:.0} s, all within {:.0} s; after a death: half within {:.0} s, all within {:.0} s",
        summary.outcomes.len(),
        summary.failures.len(),
        summary.time().as_secs_f64() / 3600.0,
        settled.as_secs_f64(),
        longest.as_secs_f64(),
        replaced.as_secs_f64(),
        slowest.as_secs_f64(),
    );
    if summary.failures.is_empty() {
        Ok(())
    } else {
        let seeds: Vec<String> =
            summary.failures.iter().map(|failure| failure.seed.to_string()).collect();
        bail!("failed seeds: {}", seeds.join(" "))
    }
}

fn scenarios(files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let result = scenario::play(&text).with_context(|| file.display().to_string())?;
        if result == text {
            println!("{}: as expected", file.display());
        } else if scenario::rewrites() {
            std::fs::write(file, &result).with_context(|| file.display().to_string())?;
            println!("{}: rewritten", file.display());
        } else {
            print!("{}", scenario::difference(&text, &result));
            bail!("{}: another trace; WEFT_REWRITE=1 writes it down", file.display());
        }
    }
    Ok(())
}
