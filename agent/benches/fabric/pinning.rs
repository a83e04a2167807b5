//! What a unit waits for a CPU, with a core of its own and without one, while others want every CPU there is: on the CPUs
//! of this machine, none of which is emulated. No systemd keeps other processes off that core here.
//!
//! The work is this program again, with `--work` or `--noise FILE`.

use super::Effort;
use super::results::{Better, Results};
use super::testbed::{Lab, Machine, api};
use fabric::job::JobSpec;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the work works and then sleeps: it wakes up some two hundred times a second.
const WORKS: Duration = Duration::from_millis(2);
const SLEEPS: Duration = Duration::from_millis(3);
/// How long one look lasts, and what the agent may take to read its probes before it.
const LOOK: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(3);
const UNITS: [&str; 2] = ["pinned", "beside"];

/// Carries out what a unit was started for, and does not come back. `false`: this is not a unit.
pub fn work(arguments: &[String]) -> bool {
    match arguments {
        [mode] if mode == "--work" => loop {
            let until = Instant::now() + WORKS;
            while Instant::now() < until {}
            std::thread::sleep(SLEEPS);
        },
        [mode, file] if mode == "--noise" => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            std::thread::scope(|scope| {
                (0..2 * cpus.max(2)).for_each(|_| drop(scope.spawn(|| noise(Path::new(file)))));
            });
            true
        }
        _ => false,
    }
}

/// Wants a CPU all the time while the file is there.
fn noise(file: &Path) {
    loop {
        let until = Instant::now() + Duration::from_millis(100);
        if !file.exists() {
            std::thread::sleep(Duration::from_millis(100));
        }
        while file.exists() && Instant::now() < until {
            (0..100_000_u32).for_each(|number| _ = std::hint::black_box(number));
        }
    }
}

pub fn measure(results: &mut Results, effort: &Effort) {
    println!("a unit with a core of its own, and noise beside it");
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("  one CPU: there is no other one for the noise");
        return;
    }
    let Some(lab) = Lab::new("pinning") else { return };
    let machines = lab.fabric_with(1, |machine| {
        machine.metrics = "probes = [\"scheduler\"]".to_owned();
    });
    let machine = &machines[0];
    let flag = lab.folder().join("noise");
    let flag_text = flag.to_str().expect("a path of ours");
    for (name, command, resources) in [
        ("pinned", vec!["--work"], "cores = 1"),
        ("beside", vec!["--work"], "cpu = 0.1"),
        ("noise", vec!["--noise", flag_text], "cpu = 0.1"),
    ] {
        machine.submit(&job(name, &command, resources));
        machine.wait_healthy(name);
    }
    let [mut quiet, mut noisy] = [(); 2].map(|()| <[Waits; 2]>::default());
    for _ in 0..effort.pinning_rounds {
        let _ = std::fs::remove_file(&flag);
        look(machine, &mut quiet);
        std::fs::write(&flag, "").expect("a file of ours");
        look(machine, &mut noisy);
    }
    for (what, waits) in [("quiet", &quiet), ("noise", &noisy)] {
        for (unit, waits) in UNITS.iter().zip(waits) {
            println!(
                "  {what}: {unit} came onto a CPU {} times, after {} waits",
                waits.came,
                waits.waited()
            );
        }
    }
    tell(
        results,
        "waits for a CPU",
        [0, 1].map(|unit| [&quiet, &noisy].map(|waits| waits[unit].p99())),
    );
    let all = [0, 1].map(|unit| [&quiet, &noisy].map(|waits| waits[unit].p99_of_all()));
    tell(results, "all times it wants a CPU", all);
}

/// The p99 of both units, without noise and with it.
fn tell(results: &mut Results, of: &str, [pinned, beside]: [[Option<f64>; 2]; 2]) {
    let ([Some(quiet), Some(noisy)], [Some(beside_quiet), Some(beside_noisy)]) = (pinned, beside)
    else {
        println!("  no probe measures single waits here");
        return;
    };
    for (noise, pinned, beside) in
        [("", quiet, beside_quiet), (", with noise", noisy, beside_noisy)]
    {
        let name = format!("unit with a core of its own, p99 of {of}{noise}");
        results.add(&name, pinned * 1e3, "ms", None, Better::Lower);
        results.beside("without one", "", beside * 1e3);
    }
    // Nobody had to wait: there is nothing to raise.
    if quiet == 0.0 || beside_quiet == 0.0 {
        return;
    }
    let name = format!("unit with a core of its own, p99 of {of}: noise raises it by");
    results.add(&name, noisy / quiet, "x", None, Better::Lower);
    results.beside("without one", "", beside_noisy / beside_quiet);
}

fn job(name: &str, arguments: &[&str], resources: &str) -> JobSpec {
    let program = std::env::current_exe().expect("this program");
    let mut command = vec![program.to_str().expect("a path of ours")];
    command.extend(arguments);
    let text = format!(
        "name = \"{name}\"\n[task]\ncommand = {command:?}\nstop_timeout = \"2s\"\n\
         [resources]\nmemory = \"32MiB\"\n{resources}\n"
    );
    fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What a unit waited for a CPU.
#[derive(Default)]
struct Waits {
    /// How many waits were not longer than so many nanoseconds, by the buckets of the agent's histogram. It has none that were
    /// of no length.
    buckets: BTreeMap<u64, f64>,
    /// Times that it came onto a CPU: the kernel's own books (schedstat).
    came: f64,
}

impl Waits {
    fn waited(&self) -> f64 {
        self.buckets.last_key_value().map_or(0.0, |(_, count)| *count)
    }

    /// In seconds, of the waits that had a length.
    fn p99(&self) -> Option<f64> {
        self.quantile_of(self.waited())
    }

    /// In seconds, of all times that it wanted a CPU.
    fn p99_of_all(&self) -> Option<f64> {
        self.quantile_of(self.came.max(self.waited()))
    }

    /// As histogram_quantile() of PromQL has it, if there were so many.
    fn quantile_of(&self, all: f64) -> Option<f64> {
        self.buckets.last_key_value()?;
        let (mut floor, mut below) = (0.0, all - self.waited());
        let rank = all * 0.99;
        if rank <= below {
            return Some(0.0);
        }
        for (bound, count) in &self.buckets {
            let (is_last, bound) = (*bound == u64::MAX, *bound as f64 / 1e9);
            let count = count + all - self.waited();
            if count >= rank && count > below {
                let within = (bound - floor) * (rank - below) / (count - below);
                return Some(if is_last { floor } else { floor + within });
            }
            (floor, below) = (bound, count);
        }
        None
    }
}

/// How often a unit's only thread came onto a CPU so far.
fn came(machine: &Machine, job: &str) -> f64 {
    let pid = machine.processes_of(job)[0];
    let books = machine.shell(&format!("cat /proc/{pid}/schedstat"));
    books.split_whitespace().nth(2).and_then(|count| count.parse().ok()).expect("three numbers")
}

/// Adds what both units waited during one look.
fn look(machine: &Machine, waits: &mut [Waits; 2]) {
    for (sign, pause) in [(-1.0, READ), (1.0, LOOK)] {
        std::thread::sleep(pause);
        let text = api::text(&machine.socket(), "/metrics").expect("what is measured");
        for (unit, waits) in UNITS.into_iter().zip(&mut *waits) {
            let job = format!("job=\"{unit}\"");
            waits.came += sign * came(machine, unit);
            for line in text.lines() {
                let labels = line.strip_prefix("weft_unit_runqueue_seconds_bucket{");
                let Some((labels, value)) = labels.and_then(|rest| rest.split_once("} ")) else {
                    continue;
                };
                if !labels.contains(&job) {
                    continue;
                }
                let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
                let bound: f64 = bound.expect("a bound").0.parse().expect("seconds");
                let count: f64 = value.parse().expect("a count");
                // The last bound, infinity, becomes the largest number.
                *waits.buckets.entry((bound * 1e9).round() as u64).or_default() += sign * count;
            }
        }
    }
}
