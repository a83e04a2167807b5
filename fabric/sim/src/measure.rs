//! How long a death takes to be noticed and to be made good, in world time.
//!
//! Each sample is a fabric of its own on a wired local network without loss: it comes to rest, a machine that
//! runs something loses its power at a random moment, and the clock runs until every survivor knows and
//! every slot runs elsewhere. Units take 20 to 500 ms to become active.

use fabric::api::NodeState;
use fabric::id::{AllocId, JobName};
use fabric::io::Request;
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
        let [first, all, replaced] = one_death(seed + kill, nodes)?;
        report.first.push(first);
        report.all.push(all);
        report.replaced.push(replaced);
    }
    for durations in [&mut report.first, &mut report.all, &mut report.replaced] {
        durations.sort();
    }
    Ok(report)
}

fn one_death(seed: u64, nodes: usize) -> Result<[Duration; 3], Violation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let settings = Settings {
        seed: random.random(),
        quality: Quality::default(),
        canary: None,
        rediscovery: None,
        detail: Detail::Nothing,
        print: false,
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
    world.run_for(Duration::from_millis(random.random_range(0..5_000)))?;

    let busy = |node: &usize| world.nodes[*node].units.there().next().is_some();
    let candidates: Vec<usize> = (0..nodes).filter(busy).collect();
    let victim = candidates[random.random_range(0..candidates.len())];
    let lost: Vec<AllocId> =
        world.nodes[victim].units.there().map(|(alloc, _)| alloc.clone()).collect();
    let (identity, start) = (world.nodes[victim].identity, world.time);
    world.power_off(victim);
    let (mut first, mut all, mut replaced) = (None, None, None);
    while all.is_none() || replaced.is_none() {
        world.run_for(STEP)?;
        let passed = world.time - start;
        let survivors = world.running();
        let knows = |node: &&usize| {
            let view = world.book.views.get(&(**node, identity));
            view.is_some_and(|(state, _)| *state == NodeState::Dead)
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

#[cfg(test)]
mod tests;
