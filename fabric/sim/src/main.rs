//! `weft-sim`: one seed, a swarm of seeds, a journal, a scenario, or a measurement.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use fabric::node::Canary;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use weft_sim::journal::{self, Journal};
use weft_sim::run::{Plan, Run};
use weft_sim::scale::{Results, Scene, measures, plot};
use weft_sim::shrink::shrink;
use weft_sim::swarm::{Failure, Why, go, run_one, swarm};
use weft_sim::trace::Detail;
use weft_sim::{dump, measure, scenario};

/// Nearly half of a swarm's time went to the system's allocator: with this one it takes 0.56 times as long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        /// Something is wrong on purpose: go on until a promise is broken that reads so, and fail if none is.
        #[arg(long)]
        until_broken: Option<String>,
        #[command(flatten)]
        one: One,
    },
    /// Does to a world again what a journal says, step by step: each line begins with the number of its event.
    Replay {
        /// As a failed seed wrote it, or as you changed it.
        file: PathBuf,
        /// Stop after this event.
        #[arg(long)]
        until: Option<u64>,
        /// Say in the end all there is to say of these nodes: n03.
        #[arg(long)]
        dump: Vec<String>,
        /// Print every input and output, not only decisions and faults.
        #[arg(long)]
        trace: bool,
    },
    /// Takes out of a journal what its invariant breaks without.
    Shrink {
        /// As a failed seed wrote it.
        file: PathBuf,
        /// Where to write what is left; without it, beside the file.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Runs at most.
        #[arg(long, default_value_t = 300)]
        tries: u32,
    },
    /// Runs scenario files, and compares their traces with what the files say.
    Scenario {
        /// Files; WEFT_REWRITE=1 writes the traces that came out back into them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Measures large fabrics.
    Scale {
        /// What.
        #[command(subcommand)]
        what: Scale,
        /// Where to begin.
        #[arg(long, global = true, default_value_t = 1)]
        seed: u64,
        /// Write the figures there, as JSON.
        #[arg(long, global = true)]
        out: Option<PathBuf>,
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

#[derive(Subcommand)]
enum Scale {
    /// A fabric at rest, and a job that spreads through it.
    Spread {
        /// Nodes; may be given several times.
        #[arg(long, default_value = "1000")]
        nodes: Vec<usize>,
    },
    /// Nodes die, and what ran there runs elsewhere.
    Deaths {
        /// Nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Jobs.
        #[arg(long, default_value_t = 20)]
        jobs: usize,
        /// Slots of each.
        #[arg(long, default_value_t = 100)]
        slots: u32,
        /// How many nodes of a hundred; may be given several times.
        #[arg(long, default_value = "1")]
        percent: Vec<usize>,
    },
    /// Many slots are submitted at once.
    Submit {
        /// Nodes.
        #[arg(long, default_value_t = 100)]
        nodes: usize,
        /// Jobs.
        #[arg(long, default_value_t = 10)]
        jobs: usize,
        /// Slots of each.
        #[arg(long, default_value_t = 1000)]
        slots: u32,
        /// Rows of allocations go to their coordinators only.
        #[arg(long)]
        rows_stay: bool,
        /// Seconds that it may take until all run.
        #[arg(long)]
        budget: Option<f64>,
        /// What to call it.
        #[arg(long, default_value = "mass submit")]
        name: String,
    },
    /// More slots are submitted than there is room for.
    Overfull {
        /// Nodes.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Slots.
        #[arg(long, default_value_t = 100_000)]
        slots: u32,
    },
    /// Ten people ask one of 20 nodes for everything at once.
    Readers {
        /// Jobs.
        #[arg(long, default_value_t = 20)]
        jobs: usize,
        /// Slots of each.
        #[arg(long, default_value_t = 100)]
        slots: u32,
    },
    /// One table with many entries.
    Table {
        /// Entries; may be given several times.
        #[arg(long, default_value = "100000")]
        entries: Vec<u32>,
    },
    /// Collects what others measured: a table, a file, a picture.
    Report {
        /// What the bench of placements printed.
        #[arg(long)]
        placements: Option<PathBuf>,
        /// Where to write the picture.
        #[arg(long)]
        svg: Option<PathBuf>,
        /// Files that `--out` wrote.
        files: Vec<PathBuf>,
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
    /// Plant a bug: one of the names that `--help` of a swarm says.
    #[arg(long, value_parser = bug)]
    canary: Option<Canary>,
    /// Faults and jobs that are hard on leases, rather than a bit of everything.
    #[arg(long)]
    aim_at_leases: bool,
    /// Where failed seeds write their journals.
    #[arg(long, default_value = "target/swarm")]
    journals: PathBuf,
}

fn bug(name: &str) -> Result<Canary, String> {
    journal::canary_named(name).ok_or_else(|| {
        let names: Vec<&str> = journal::CANARIES.iter().map(|(name, _)| *name).collect();
        format!("bugs that can be planted: {}", names.join(", "))
    })
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
            canary: self.canary,
            aimed_at_leases: self.aim_at_leases,
            detail: match (self.trace, self.story) {
                (true, _) => Detail::Everything,
                (false, true) => Detail::Story,
                (false, false) => Detail::Nothing,
            },
            print: true,
            numbered: false,
        }
    }

    /// The command that repeats a run.
    fn replay(&self, seed: u64) -> String {
        let canary = self.canary.map(|it| format!(" --canary {}", journal::canary_name(it)));
        let canary = canary.unwrap_or_default();
        let aim = if self.aim_at_leases { " --aim-at-leases" } else { "" };
        let (nodes, minutes) = (self.nodes, self.minutes());
        format!(
            "cargo run -p weft-sim -- --seed {seed} --nodes {nodes} --minutes {minutes}{canary}{aim} --story"
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => one_seed(&arguments.one),
        Some(Command::Swarm { seeds, threads, until_broken: Some(promise), one }) => {
            until_broken(&promise, seeds, threads, &one)
        }
        Some(Command::Swarm { seeds, threads, until_broken: None, one }) => {
            many_seeds(seeds, threads, &one)
        }
        Some(Command::Scenario { files }) => scenarios(&files),
        Some(Command::Replay { file, until, dump, trace }) => replay(&file, until, &dump, trace),
        Some(Command::Shrink { file, out, tries }) => shrink_file(&file, out, tries),
        Some(Command::Scale { what, seed, out }) => large(&what, seed, out.as_deref()),
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

fn large(what: &Scale, seed: u64, out: Option<&Path>) -> anyhow::Result<()> {
    let mut results = Results::default();
    match what {
        Scale::Spread { nodes } => {
            for nodes in nodes {
                measures::rest_and_spread(&mut results, seed, *nodes)?;
            }
        }
        Scale::Deaths { nodes, jobs, slots, percent } => {
            for percent in percent {
                measures::deaths(&mut results, seed, *nodes, *jobs, *slots, *percent)?;
            }
        }
        Scale::Submit { nodes, jobs, slots, rows_stay, budget, name } => {
            let (nodes, rows_stay) = (*nodes, *rows_stay);
            let quality = measures::LAN;
            let scene = Scene { seed, nodes, running: (0, 0), quality, rows_stay };
            measures::submit(&mut results, scene, *jobs, *slots, name, *budget)?;
        }
        Scale::Overfull { nodes, slots } => {
            measures::overfull(&mut results, seed, *nodes, *slots);
        }
        Scale::Readers { jobs, slots } => measures::readers(&mut results, seed, *jobs, *slots),
        Scale::Table { entries } => {
            for entries in entries {
                measures::one_table(&mut results, *entries);
            }
        }
        Scale::Report { placements, svg, files } => {
            if let Some(path) = placements {
                results.read_placements(path).with_context(|| path.display().to_string())?;
            }
            for path in files {
                results.read(path).with_context(|| path.display().to_string())?;
            }
            println!("\n{}", results.table());
            if let Some(path) = svg {
                let picture = plot::svg(&results);
                std::fs::write(path, picture).with_context(|| path.display().to_string())?;
            }
        }
    }
    if let Some(path) = out {
        results.write(path).with_context(|| path.display().to_string())?;
    }
    let missed = results.missed();
    anyhow::ensure!(
        !matches!(what, Scale::Report { .. }) || missed.is_empty(),
        "worse than the budget by more than a tenth: {}",
        missed.join("; ")
    );
    Ok(())
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
    let file = one.journals.join(format!("{}.journal", failure.seed));
    let text = format!("# {}\n{}", failure.why.to_string().replace('\n', " "), failure.journal);
    let written = std::fs::create_dir_all(&one.journals).and_then(|()| std::fs::write(&file, text));
    let journal = match written {
        Ok(()) => format!("cargo run -p weft-sim -- shrink {}", file.display()),
        Err(error) => format!("its journal could not be written to {}: {error}", file.display()),
    };
    let (seed, why, again) = (failure.seed, &failure.why, one.replay(failure.seed));
    println!("seed {seed}: {why}\n    {again}\n    {journal}");
}

fn read_journal(file: &Path) -> anyhow::Result<Journal> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Journal::parse(&text).with_context(|| file.display().to_string())
}

fn replay(file: &Path, until: Option<u64>, dump: &[String], trace: bool) -> anyhow::Result<()> {
    let journal = read_journal(file)?;
    let detail = if trace { Detail::Everything } else { Detail::Story };
    let mut run = Run::replay(&journal, detail, true);
    let mut nodes = Vec::new();
    for name in dump {
        let known =
            || format!("there is no node {name}: they are n00 to n{:02}", journal.nodes - 1);
        nodes.push(run.world.named(name).with_context(known)?);
    }
    run.world.stop_after = until;
    let result = go(&mut run);
    println!("after event {}, at {:.3} s", run.world.happened, run.world.time.as_secs_f64());
    for node in nodes {
        print!("{}", dump::dump(&run.world, node));
    }
    match result {
        Ok(_) => {
            println!("held");
            Ok(())
        }
        Err(Why::Broken(violation)) if violation.is_stop() => Ok(()),
        Err(why) => bail!("{why}"),
    }
}

fn shrink_file(file: &Path, out: Option<PathBuf>, tries: u32) -> anyhow::Result<()> {
    let journal = read_journal(file)?;
    let before = journal.acts.len();
    let shrunk = shrink(&journal, tries, |progress| {
        println!("try {}: {} of {before} acts are left", progress.tries, progress.acts);
    });
    let Some(shrunk) = shrunk else { bail!("{}: nothing breaks", file.display()) };
    let out = out.unwrap_or_else(|| file.with_extension("small.journal"));
    let text = format!("# {}\n{}", shrunk.why.to_string().replace('\n', " "), shrunk.journal);
    std::fs::write(&out, text).with_context(|| out.display().to_string())?;
    println!(
        "{}\n{} of {before} acts are left: {}",
        shrunk.why,
        shrunk.journal.acts.len(),
        out.display()
    );
    println!("    cargo run -p weft-sim -- replay {}", out.display());
    Ok(())
}

/// What a swarm runs, and in how many threads.
fn begin_swarm(seeds: u64, threads: Option<usize>, one: &One) -> anyhow::Result<(Plan, usize)> {
    if one.nodes == 0 {
        bail!("a fabric needs at least one node: give --nodes 1 or more");
    }
    println!("seeds {} to {}, {} nodes", one.seed, one.seed + seeds - 1, one.nodes);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Ok((Plan { detail: Detail::Nothing, ..one.plan() }, threads.unwrap_or(cores)))
}

fn until_broken(
    promise: &str,
    seeds: u64,
    threads: Option<usize>,
    one: &One,
) -> anyhow::Result<()> {
    let (plan, threads) = begin_swarm(seeds, threads, one)?;
    let breaks = |failure: &Failure| failure.why.to_string().contains(promise);
    let summary = swarm(&plan, seeds, threads, |_, result| {
        if let Err(failure) = result {
            tell_failure(one, failure);
        }
        !result.is_err_and(&breaks)
    });
    let caught = summary.failures.iter().any(breaks);
    anyhow::ensure!(caught, "no seed of {seeds} broke a promise that reads {promise:?}");
    Ok(())
}

fn many_seeds(seeds: u64, threads: Option<usize>, one: &One) -> anyhow::Result<()> {
    let (plan, threads) = begin_swarm(seeds, threads, one)?;
    let summary = swarm(&plan, seeds, threads, |done, result| {
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
