//! The plug is pulled at random moments while somebody submits, changes and stops jobs.

use crate::machine::PATIENCE;
use crate::node::{self, Node};
use crate::workshop::Bench;
use anyhow::{Context, Result, ensure};
use fabric::api::JobView;
use nix::sys::signal::{Signal, kill};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How often the plug is pulled, unless `WEFT_PULLS` says otherwise.
const PULLS: u32 = 20;
/// Milliseconds after the first one was acknowledged within which it is pulled.
const SUBMITTING: u64 = 8000;

const STEADY: &str = r#"name = "steady"
[task]
command = ["/bin/sleep", "100000"]
[resources]
cpu = 0.1
memory = "16MiB"
"#;

/// Jobs by name, with what they say: what the fabric has acknowledged. `None`: stopped.
type Ledger = BTreeMap<String, Option<u64>>;

pub fn tell(bench: &Bench) -> Result<()> {
    let pulls = match std::env::var("WEFT_PULLS") {
        Ok(text) => text.parse().context("WEFT_PULLS is no number")?,
        Err(_) => PULLS,
    };
    let seed = match std::env::var("WEFT_SEED") {
        Ok(text) => text.parse().context("WEFT_SEED is no number")?,
        Err(_) => SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64,
    };
    println!("    seed {seed} (WEFT_SEED), {pulls} pulls (WEFT_PULLS)");
    let mut random = Random(seed);
    let machine = node::machine(bench, "power")?;
    let mut node = Node::install(&machine, bench, "[metrics]\nprobes = []\n")?;
    node.init()?;
    node.apply(STEADY)?;
    let mut ledger = Ledger::new();
    let (mut next, mut acknowledged) = (0, 0);
    for pull in 1..=pulls {
        let delay = Duration::from_millis(random.below(SUBMITTING));
        let process = node.machine.process();
        let pulled = AtomicBool::new(false);
        let mut doubtful = None;
        let before = acknowledged;
        // One at least is acknowledged, however slow the machine is.
        let (name, wanted) = wish(&mut random, &ledger, &mut next);
        submit(&mut node, &name, wanted)?;
        acknowledged += 1;
        ledger.insert(name, wanted);
        std::thread::scope(|scope| -> Result<()> {
            let pulling = scope.spawn(|| {
                std::thread::sleep(delay);
                pulled.store(true, Ordering::SeqCst);
                kill(process, Signal::SIGKILL)
            });
            loop {
                let (name, wanted) = wish(&mut random, &ledger, &mut next);
                match submit(&mut node, &name, wanted) {
                    Ok(()) => {
                        acknowledged += 1;
                        ledger.insert(name, wanted);
                    }
                    Err(_) if pulled.load(Ordering::SeqCst) => {
                        doubtful = Some((name, wanted));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            pulling.join().ok().context("the thread has panicked")?.context("the plug is stuck")
        })?;
        node.machine.pull_the_plug();
        let begun = Instant::now();
        node = Node::boot(&machine, bench)?;
        let answers = begun.elapsed().as_secs_f64();
        let found = compare(&mut node, &mut ledger, doubtful.as_ref())?;
        let healthy = node.wait_healthy("steady")?;
        ensure!(healthy.wanted == 1, "{healthy:?}");
        let steady = node.alloc("steady")?;
        node.main_pid(&steady.unit)?;
        println!(
            "    pull {pull}: after {:.1} s and {} acknowledged; {found}; \
             the agent answers after {answers:.0} s, {} is healthy after {:.0} s",
            delay.as_secs_f64(),
            acknowledged - before,
            steady.unit,
            begun.elapsed().as_secs_f64()
        );
    }
    println!("    {acknowledged} acknowledged in all, none lost");
    Ok(())
}

/// A new job, a change of one, or the end of one.
fn wish(random: &mut Random, ledger: &Ledger, next: &mut u64) -> (String, Option<u64>) {
    *next += 1;
    let live: Vec<&String> =
        ledger.iter().filter(|(_, says)| says.is_some()).map(|(name, _)| name).collect();
    let chosen = random.below(live.len().max(1) as u64) as usize;
    match (live.get(chosen), random.below(4)) {
        (Some(name), 0) => ((*name).clone(), None),
        (Some(name), 1) => ((*name).clone(), Some(*next)),
        _ => (format!("job-{next}"), Some(*next)),
    }
}

/// Returns once `weft` has said that it is done.
fn submit(node: &mut Node, name: &str, wish: Option<u64>) -> Result<()> {
    let Some(says) = wish else {
        return node.machine.run(&format!("weft stop {name} --yes --detach")).map(drop);
    };
    // Nobody takes it: what is looked at is whether it is there.
    let file = format!(
        "name = \"{name}\"\n[task]\ncommand = [\"/bin/true\"]\nenv = {{ SAYS = \"{says}\" }}\n\
         [placement]\nconstraints = ['name == \"nowhere\"']\n"
    );
    let said = node.try_apply(&file, "--detach")?;
    ensure!(said.status == 0, "weft apply: {}: {}", said.status, said.text);
    ensure!(said.text.contains("is on the disk of 1 of 1 nodes"), "weft apply: {}", said.text);
    Ok(())
}

/// What was acknowledged is there. What was under way may be, and counts from now on.
fn compare(
    node: &mut Node,
    ledger: &mut Ledger,
    doubtful: Option<&(String, Option<u64>)>,
) -> Result<String> {
    let text = node.machine.try_run("weft --json jobs 2>/dev/null", PATIENCE)?.text;
    let jobs: Vec<JobView> = serde_json::from_str(&text).context(text)?;
    let says =
        |job: &JobView| job.spec.task.env.get("SAYS").and_then(|text| text.parse::<u64>().ok());
    let mut there: BTreeMap<String, Option<u64>> =
        jobs.iter().map(|job| (job.name.to_string(), says(job))).collect();
    ensure!(there.remove("steady").is_some(), "the job that ran is lost");
    let mut under_way = "had not begun";
    if let Some((name, wish)) = doubtful {
        let now = there.get(name).copied().flatten();
        let before = ledger.get(name).copied().flatten();
        ensure!(
            now == *wish || now == before,
            "{name}: {before:?} was acknowledged, {wish:?} under way, {now:?} is there"
        );
        under_way = if now == *wish { "was done" } else { "was not done" };
        ledger.insert(name.clone(), now);
    }
    for (name, wanted) in ledger.iter() {
        let now = there.remove(name).flatten();
        ensure!(now == *wanted, "{name}: {wanted:?} was acknowledged, {now:?} is there");
    }
    ensure!(there.is_empty(), "nobody submitted these: {there:?}");
    let kept = ledger.values().filter(|says| says.is_some()).count();
    let gone = ledger.len() - kept;
    Ok(format!("{kept} jobs are there, {gone} stay stopped; what was under way {under_way}"))
}

/// A splitmix64 generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
