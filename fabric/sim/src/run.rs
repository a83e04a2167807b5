//! One run from one seed: a fabric forms, lives through faults while users change their minds, is left in
//! peace, and has to come to rest. Then a node is killed, comes back, and another one is drained.

use fabric::api::JobState;
use fabric::id::JobName;
use fabric::io::Request;
use fabric::node::Canary;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::book::Violation;
use crate::faults::{self, Fault};
use crate::invariants::rest::{self, unrest};
use crate::machines;
use crate::network::Quality;
use crate::trace::Detail;
use crate::units::{Behaviour, UnitState};
use crate::workload::Workload;
use crate::world::{Settings, World};

/// A new fabric has to be complete within this.
const FORMED_WITHIN: Duration = Duration::from_secs(60);
/// After the last fault everything has to be as wanted within this. Restarts that failed are tried again
/// after five minutes at the latest.
const SETTLED_WITHIN: Duration = Duration::from_secs(420);
/// Rest is rest when it lasts.
const RESTING: u32 = 3;
/// How long nothing may be commanded once all is as wanted.
const QUIET: Duration = Duration::from_secs(30);
/// After the death of a node its slots have to run elsewhere within this.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);
/// After its return nothing may run twice after this.
const RETURNED_WITHIN: Duration = Duration::from_secs(60);
/// A drained node has to be empty within this: slots leave one by one.
const DRAINED_WITHIN: Duration = Duration::from_secs(240);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// How long faults and users keep at it, in world time.
    pub turmoil: Duration,
    /// A planted bug.
    pub canary: Option<Canary>,
    /// What is told in words.
    pub detail: Detail,
    /// Print it as it comes.
    pub print: bool,
}

/// How a run went that broke no invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub digest: u64,
    /// World time at the end.
    pub time: Duration,
    /// From the last fault to rest.
    pub settled: Duration,
    /// From the death of a node to rest without it; `None`: nothing ran there.
    pub replaced: Option<Duration>,
    /// Units that were there at the end.
    pub units: usize,
}

/// Runs a plan to its end, or to the first broken invariant.
pub fn run(plan: &Plan) -> Result<Outcome, Violation> {
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut world = World::new(settings(plan, &mut random), fleet(plan.nodes, &mut random));
    let mut workload = Workload::new(ChaCha8Rng::from_rng(&mut random));

    world.found_and_join();
    rest_within(&mut world, FORMED_WITHIN)?;
    live_through(&mut world, &mut workload, &mut random, plan.turmoil)?;
    let settled = settle(&mut world, &mut workload)?;
    be_quiet(&mut world)?;
    let replaced = kill_one(&mut world, &mut random)?;
    drain_one(&mut world, &mut random)?;

    let units = world.nodes.iter().map(|machine| machine.units.there().count()).sum();
    Ok(Outcome { digest: world.trace.digest(), time: world.time, settled, replaced, units })
}

fn settings(plan: &Plan, random: &mut ChaCha8Rng) -> Settings {
    Settings {
        seed: random.random(),
        quality: Quality {
            latency: Duration::from_micros(random.random_range(100..3_000)),
            tail: Duration::from_millis(random.random_range(1..30)),
            loss_permille: 0,
            repeat_permille: random.random_range(0..5),
        },
        canary: plan.canary,
        // Some networks announce everybody again and again, some only once.
        rediscovery: random.random_bool(0.5).then_some(Duration::from_secs(60)),
        detail: plan.detail,
        print: plan.print,
    }
}

/// Random machines with names that sort.
fn fleet(nodes: usize, random: &mut ChaCha8Rng) -> Vec<(String, machines::Hardware)> {
    (0..nodes).map(|node| (format!("n{node:02}"), machines::random(random))).collect()
}

/// Faults and wishes, each at its time.
fn live_through(
    world: &mut World,
    workload: &mut Workload,
    random: &mut ChaCha8Rng,
    turmoil: Duration,
) -> Result<(), Violation> {
    enum Turn {
        Begin(usize),
        End(usize),
        Wish,
    }
    let start = world.time;
    let schedule = faults::schedule(random, world.nodes.len(), turmoil);
    let mut turns: BTreeMap<(Duration, usize), Turn> = BTreeMap::new();
    for (index, scheduled) in schedule.iter().enumerate() {
        turns.insert((start + scheduled.at, 3 * index), Turn::Begin(index));
        turns.insert((start + scheduled.at + scheduled.lasting, 3 * index + 1), Turn::End(index));
    }
    let mut at = start + Duration::from_secs(1);
    while at < start + turmoil {
        turns.insert((at, usize::MAX), Turn::Wish);
        at += workload.pause();
    }
    for ((at, _), turn) in turns {
        world.run_until(at)?;
        match turn {
            Turn::Begin(index) => {
                let scheduled = &schedule[index];
                scheduled.fault.begin(world, scheduled.lasting);
            }
            Turn::End(index) => {
                schedule[index].fault.end(world);
                if let Fault::DiskLoss(node) = schedule[index].fault {
                    maybe_remove_former_selves(world, node, random);
                }
            }
            Turn::Wish => workload.wish(world),
        }
    }
    world.run_until(start + turmoil)
}

/// Somebody tidies up: the identity that a machine lost with its disk is removed from the roster.
fn maybe_remove_former_selves(world: &mut World, node: usize, random: &mut ChaCha8Rng) {
    let running: Vec<usize> = world.running().into_iter().filter(|other| *other != node).collect();
    let Some(&member) = running.choose(random) else { return };
    if random.random() {
        let lost = world.book.former.get(&node).cloned().unwrap_or_default();
        for identity in lost {
            let mut new_key = [0; 32];
            rand::Rng::fill_bytes(random, &mut new_key);
            world.request(member, Request::Remove { node: identity, new_key, force: false });
        }
    }
}

/// The last fault is over. Returns how long it took until all was as wanted.
fn settle(world: &mut World, workload: &mut Workload) -> Result<Duration, Violation> {
    let start = world.time;
    world.tell(|_| "all faults are over".into());
    faults::heal(world);
    workload.undrain_all(world);
    world.run_for(Duration::from_secs(20))?;
    let strangers: Vec<usize> = world.strangers();
    for node in strangers {
        // The only member that had heard of it lost its disk: somebody has to let it in again.
        world.wipe(node);
        world.restart(node);
    }
    rest_within(world, SETTLED_WITHIN)?;
    Ok(world.time - start)
}

/// Runs until all is as wanted and stays so, or fails with what is not after `within`.
pub fn rest_within(world: &mut World, within: Duration) -> Result<(), Violation> {
    let start = world.time;
    let mut resting = 0;
    loop {
        world.run_for(Duration::from_secs(1))?;
        let complete = world.running().len() == world.nodes.iter().filter(|n| n.powered).count();
        match unrest_for_a_second(world)? {
            None if complete => resting += 1,
            None => resting = 0,
            Some(violation) if world.time - start > within => {
                tell_what_is_wrong(world);
                return Err(violation);
            }
            Some(_) => resting = 0,
        }
        if resting >= RESTING {
            return Ok(());
        }
        if world.time - start > within + Duration::from_secs(10) {
            let detail = format!("{} of {} run", world.running().len(), world.nodes.len());
            let invariant = "invariant_every_node_gets_in";
            return Err(Violation { invariant, at: world.time, detail });
        }
    }
}

/// What a node says of the jobs that are not as they should be, for whoever reads the story.
fn tell_what_is_wrong(world: &mut World) {
    let Some(node) = world.running().first().copied() else { return };
    let now = world.nodes[node].clock.read(world.time);
    let Some(core) = world.nodes[node].core() else { return };
    let mut lines = Vec::new();
    for view in core.jobs().into_iter().filter(|view| view.state != JobState::Healthy) {
        lines.push(format!("{}: {}, {:?}", view.name, view.state, view.reason));
        for verdict in core.explain(now, &view.name).map(|it| it.nodes).unwrap_or_default() {
            let rejection = verdict.rejection.map_or("takes it".into(), |why| why.to_string());
            lines.push(format!("    {}: {rejection}", verdict.name));
        }
    }
    for line in lines {
        world.tell(|_| line);
    }
}

/// What is not as wanted at any moment of a second. Rows of jobs that cannot work are always under way
/// somewhere, but not at every moment.
fn unrest_for_a_second(world: &mut World) -> Result<Option<Violation>, Violation> {
    let mut last = unrest(world);
    for _ in 0..10 {
        if last.as_ref().is_none_or(|violation| !violation.detail.starts_with("tables differ")) {
            break;
        }
        world.run_for(Duration::from_millis(100))?;
        last = unrest(world);
    }
    Ok(last)
}

/// Nothing is commanded any more, except about jobs that cannot work.
fn be_quiet(world: &mut World) -> Result<(), Violation> {
    let jobs = world.nodes.iter().find_map(|machine| machine.core()).map(|core| core.jobs());
    let sound = jobs.unwrap_or_default().into_iter();
    let sound = sound
        .filter(|view| Behaviour::of(&view.spec.task).is_sound() && rest::is_complete(world, view));
    let sound: BTreeSet<JobName> = sound.map(|view| view.name).collect();
    world.book.watch_quiet(true);
    world.run_for(QUIET)?;
    for (at, alloc, what) in world.book.moves.take().unwrap_or_default() {
        // A slot that failed may wait for its nodes to be worth another try.
        if sound.contains(&alloc.slot.job) && !world.book.failed_lately(&alloc.slot, at) {
            let invariant = "invariant_a_fabric_at_rest_gives_no_commands";
            return Err(Violation { invariant, at, detail: format!("{alloc}: {what}") });
        }
    }
    // Jobs that cannot work keep the tables moving.
    rest_within(world, Duration::from_secs(10))
}

/// A machine that runs something loses its power. Its slots have to run elsewhere; then it comes back.
fn kill_one(world: &mut World, random: &mut ChaCha8Rng) -> Result<Option<Duration>, Violation> {
    let busy = |node: &usize| {
        let mut units = world.nodes[*node].units.there();
        units.any(|(_, unit)| {
            unit.state == UnitState::Running && Behaviour::of(&unit.launch.task).is_sound()
        })
    };
    let candidates: Vec<usize> = world.running().into_iter().filter(busy).collect();
    let Some(&victim) = candidates.choose(random) else { return Ok(None) };
    if world.running().len() < 2 {
        return Ok(None);
    }
    let start = world.time;
    world.power_off(victim);
    let rename = |violation: Violation| Violation {
        invariant: "invariant_a_dead_nodes_slots_run_elsewhere_in_time",
        detail: format!("{} ({})", violation.detail, violation.invariant),
        ..violation
    };
    rest_within(world, REPLACED_WITHIN).map_err(rename)?;
    let replaced = world.time - start;
    world.restart(victim);
    rest_within(world, RETURNED_WITHIN)?;
    Ok(Some(replaced))
}

/// A user drains a node at another node.
fn drain_one(world: &mut World, random: &mut ChaCha8Rng) -> Result<(), Violation> {
    let running = world.running();
    let (Some(&node), Some(&asked)) = (running.choose(random), running.choose(random)) else {
        return Ok(());
    };
    let id = world.nodes[node].identity;
    world.request(asked, Request::Drain { node: id, on: true });
    world.run_for(Duration::from_secs(5))?;
    if !rest::is_draining(world, node) {
        let invariant = "invariant_an_accepted_drain_empties_a_node";
        let detail = format!("{} was not told to drain", world.nodes[node].name);
        return Err(Violation { invariant, at: world.time, detail });
    }
    rest_within(world, DRAINED_WITHIN)
}

#[cfg(test)]
mod tests;
