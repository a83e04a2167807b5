//! What an agent costs while its units work and nothing changes: what it measures of them, and how often it opens files for it.

use super::Effort;
use super::rest::{Awake, cpu};
use super::results::{Better, Results};
use super::testbed::cost::SETTLE;
use super::testbed::{Lab, Machine};
use fabric::job::JobSpec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;
use std::time::{Duration, Instant};

/// Units, the budget of CPU in percent of a core, and that of files opened in [`OPENS_SECONDS`]: more units open no more.
const ROWS: [(u32, f64, f64); 2] = [(30, 0.8, 300.0), (64, 1.2, 300.0)];
/// How long files that are opened are counted: the longest period of what an agent reads often is half of that.
const OPENS_SECONDS: u64 = 30;

pub fn measure(results: &mut Results, effort: &Effort) {
    for (units, share_budget, opens_budget) in ROWS {
        println!("an agent with {units} busy units, {} s", effort.rest_seconds);
        let Some(lab) = Lab::new("busy") else { return };
        let machines = lab.fabric_with(1, |machine| {
            machine.use_copy();
            machine.metrics = "probes = [\"auto\"]".to_owned();
        });
        let machine = &machines[0];
        machine.submit(&busy(units));
        machine.wait_healthy("busy");
        std::thread::sleep(SETTLE);
        let share = share(machine, effort.rest_seconds);
        let name = format!("agent with {units} busy units");
        let row = format!("{name}: share of a core");
        results.add(&row, share, "%", Some(share_budget), Better::Lower);
        let row = format!("{name}: files opened in {OPENS_SECONDS} s");
        results.add(&row, opens(machine.agent_pid()), "", Some(opens_budget), Better::Lower);
    }
}

/// Units that do a little of everything, each second.
fn busy(units: u32) -> JobSpec {
    let text = format!(
        "name = \"busy\"\ncount = {units}\n\
         [task]\ncommand = [\"/bin/sh\", \"-c\", \"while :; do cat /proc/version | head -c 9; sleep 1; done > /dev/null\"]\n\
         stop_timeout = \"2s\"\n\
         [resources]\ncpu = 0.01\nmemory = \"6MiB\"\n"
    );
    fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn share(machine: &Machine, seconds: u64) -> f64 {
    let agent = [machine.agent_pid()];
    let _awake = Awake::begin();
    let (start, before) = (Instant::now(), cpu(&agent)[0]);
    std::thread::sleep(Duration::from_secs(seconds));
    100.0 * (cpu(&agent)[0] - before) / start.elapsed().as_secs_f64()
}

/// Files that a process opens, as strace sees it.
fn opens(process: u32) -> f64 {
    let calls = tempfile::NamedTempFile::new().expect("a file");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=?open,openat,?openat2", "-p", &process.to_string(), "-o"])
        .arg(calls.path())
        .spawn()
        .expect("strace");
    std::thread::sleep(Duration::from_secs(OPENS_SECONDS));
    let id = Pid::from_raw(i32::try_from(strace.id()).expect("a process number"));
    kill(id, Signal::SIGINT).expect("it runs as long as the agent");
    strace.wait().expect("it lets go");
    let text = std::fs::read_to_string(calls.path()).expect("what it wrote");
    // A call that takes a while has two lines. Where there is no such controller, nothing is opened.
    let calls = text.lines().filter(|line| line.contains(" = ") && !line.contains(" = -1 "));
    calls.count() as f64
}
