//! How long a death takes to be noticed and to be made good, in world time.
//!
//! Each sample is a fabric of its own on a wired local network without loss: it comes to rest, a machine that
//! runs something loses its power at a random moment, and the clock runs until every survivor knows and
//! every slot runs elsewhere. Units take 20 to 500 ms to become active.

use fabric::api::NodeState;
use fabric::id::{AllocId, JobName};
use fabric::io::Request;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

use crate::book::Violation;
use crate::machines;
use crate::network::Quality;
use crate::run::rest_within;
use crate::trace::Detail;
use crate::workload;
use crate::world::{Settings, World};

/// After this a death that nobody noticed is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the world is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Durations of many deaths, sorted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Machines in each fabric.
    pub nodes: usize,
    /// Until the first survivor knew.
    pub first: Vec<Duration>,
    /// Until every survivor knew.
    pub all: Vec<Duration>,
    /// Until every slot of the dead node ran elsewhere.
    pub replaced: Vec<Duration>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deaths = self.all.len();
        writeln!(f, "{deaths} deaths, each in a fabric of {} nodes; seconds", self.nodes)?;
        writeln!(f, "{:<40} {:>6} {:>6} {:>6} {:>6}", "", "p50", "p90", "p99", "max")?;
        for (what, durations) in [
            ("killed -> the first survivor knows", &self.first),
            ("killed -> every survivor knows", &self.all),
            ("killed -> every replacement runs", &self.replaced),
        ] {
            write!(f, "{what:<40}")?;
            for percent in [50, 90, 99, 100] {
                write!(f, " {:>6.2}", quantile(durations, percent).as_secs_f64())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The smallest duration that `percent` of all are not above; zero without any.
pub fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

/// Kills a node in each of `kills` fabrics of `nodes` nodes.
pub fn measure(seed: u64, nodes: usize, kills: u32) -> anyhow::Result<Report> {
    anyhow::ensure!(nodes >= 2, "somebody has to notice: give --nodes 2 or more");
    let mut report = Report { nodes, ..Report::default() };
    for kill in 0..u64::from(kills) {
        let [first, all, replaced] = deaths(seed + kill, nodes, 1)?;
        report.first.push(first);
        report.all.push(all);
        report.replaced.push(replaced);
    }
    for durations in [&mut report.first, &mut report.all, &mut report.replaced] {
        durations.sort();
    }
    Ok(report)
}

/// Kills `deaths` of `nodes` nodes at once. How long it took until the first survivor knew of all of them, until
/// every survivor did, and until every slot that was lost ran elsewhere.
pub fn deaths(seed: u64, nodes: usize, deaths: usize) -> Result<[Duration; 3], Violation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut world = busy_world(&mut random, nodes)?;
    world.run_for(Duration::from_millis(random.random_range(0..5_000)))?;

    let busy = |node: &usize| world.nodes[*node].units.there().next().is_some();
    let mut victims: Vec<usize> = (0..nodes).filter(busy).collect();
    if deaths == 1 {
        victims = vec![victims[random.random_range(0..victims.len())]];
    } else {
        victims.shuffle(&mut random);
        victims.truncate(deaths);
    }
    let units = |node: &usize| world.nodes[*node].units.there().map(|(alloc, _)| alloc.clone());
    let lost: Vec<AllocId> = victims.iter().flat_map(units).collect();
    let start = world.time;
    for victim in &victims {
        world.power_off(*victim);
    }
    let (mut first, mut all, mut replaced) = (None, None, None);
    while all.is_none() || replaced.is_none() {
        world.run_for(STEP)?;
        let passed = world.time - start;
        let survivors = world.running();
        let knows = |node: &&usize| {
            victims.iter().all(|victim| {
                let view = world.book.views.get(&(**node, world.nodes[*victim].identity));
                view.is_some_and(|(state, _)| *state == NodeState::Dead)
            })
        };
        let known = survivors.iter().filter(knows).count();
        let runs = |alloc: &AllocId| {
            let mut active = world.book.active.keys();
            active.any(|(_, other)| other.slot == alloc.slot && other.epoch > alloc.epoch)
        };
        first = first.or((known > 0).then_some(passed));
        all = all.or((known == survivors.len()).then_some(passed));
        replaced = replaced.or(lost.iter().all(runs).then_some(passed));
        if passed > PATIENCE {
            let detail = format!("{known} of {} know, seed {seed}", survivors.len());
            let invariant = "invariant_a_dead_nodes_slots_run_elsewhere_in_time";
            return Err(Violation { invariant, at: world.time, detail });
        }
    }
    Ok([first, all, replaced].map(Option::unwrap_or_default))
}

/// A fabric on a good network that runs one job with as many slots as nodes.
fn busy_world(random: &mut ChaCha8Rng, nodes: usize) -> Result<World, Violation> {
    let settings = Settings {
        seed: random.random(),
        quality: Quality::default(),
        canary: None,
        rediscovery: None,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    };
    let fleet = (0..nodes).map(|node| (format!("n{node:02}"), machines::plain())).collect();
    let mut world = World::new(settings, fleet);
    world.found_and_join();
    rest_within(&mut world, PATIENCE)?;
    let mut spec = workload::service(JobName::new("web").expect("a job's name"));
    spec.count = nodes as u32;
    let by = "measure".into();
    world.request(0, Request::Submit { spec: Box::new(spec), by, expected_version: None });
    rest_within(&mut world, PATIENCE)?;
    Ok(world)
}

/// What a node did that was cut off from all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Solitude {
    /// From the cut until it doubted itself.
    pub doubted: Duration,
    /// From the cut until it acted.
    pub acted: Option<Duration>,
    /// Proposals before and in its doubt.
    pub rash: u64,
}

/// Cuts one of `nodes` nodes off, and watches it for a while.
pub fn solitude(seed: u64, nodes: usize, time: Duration) -> Result<Solitude, Violation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut world = busy_world(&mut random, nodes)?;
    world.run_for(Duration::from_millis(random.random_range(0..5_000)))?;
    let alone = random.random_range(0..nodes);
    let others: Vec<usize> = (0..nodes).filter(|node| *node != alone).collect();
    world.split(&[alone], &others);
    world.split(&others, &[alone]);
    let look = |world: &World| {
        let core = world.nodes[alone].core().expect("it runs");
        (core.doubts_itself(), core.counters().proposed)
    };
    let (start, (_, before)) = (world.time, look(&world));
    let (mut solitude, mut has_doubted, mut is_over) = (Solitude::default(), false, false);
    while world.time - start < time {
        world.run_for(STEP)?;
        let (doubts, proposed) = look(&world);
        if doubts && !has_doubted {
            has_doubted = true;
            solitude.doubted = world.time - start;
        }
        // A second doubt is about others: what the first one was about is placed meanwhile.
        is_over |= has_doubted && !doubts;
        if !is_over {
            solitude.rash = proposed - before;
        }
        if has_doubted && !doubts && proposed > before {
            solitude.acted = solitude.acted.or(Some(world.time - start));
        }
    }
    Ok(solitude)
}

#[cfg(test)]
mod tests;
