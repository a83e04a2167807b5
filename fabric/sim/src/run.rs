//! One run from one seed: a fabric forms, lives through faults while users change their minds, is left in
//! peace, and has to come to rest. Then a node is killed, comes back, and another one is drained.

use fabric::alloc::Ending;
use fabric::api::JobState;
use fabric::id::{AllocId, JobName, NodeId, SlotId};
use fabric::io::Request;
use fabric::level::{LEVEL, LEVEL_MIN};
use fabric::limits;
use fabric::node::Canary;
use fabric::table::Bounds;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::book::Violation;
use crate::faults::{self, Fault, Scheduled};
use crate::invariants::leases;
use crate::invariants::settled::{self, unrest};
use crate::journal::{Act, Entry, Journal, Wish};
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
/// What a roll-out has stopped last is started and becomes healthy within this: then all of it is of one version, and not yet
/// well.
const LAST_STEP: Duration = Duration::from_secs(45);
/// Rest is rest when it lasts.
const RESTING: u32 = 3;
/// What is wrong at as many looks in a row, a second apart, does not come from jobs that come and go: their share of
/// a quota is given away and taken back within less.
const FLICKER: u32 = 8;
/// How long nothing may be commanded once all is as wanted.
const QUIET: Duration = Duration::from_secs(30);
/// After the death of a node its slots have to run elsewhere within this, at-most-one work when its lease is over.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);
/// After its return nothing may run twice after this.
const RETURNED_WITHIN: Duration = Duration::from_secs(60);
/// While two nodes cannot speak a job has to be updated within this: slots go one by one.
const UPDATED_WITHIN: Duration = Duration::from_secs(240);
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
    /// Faults and jobs that are hard on leases, rather than a bit of everything.
    pub aimed_at_leases: bool,
    /// What is told in words.
    pub detail: Detail,
    /// Print it as it comes.
    pub print: bool,
    /// With the number of its event in front.
    pub numbered: bool,
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
    Run::new(plan).go()
}

/// One in so many seeds begins with old agents beside new ones.
const OLD_AGENTS_EVERY: u64 = 3;

/// One in so many seeds has tables in which there is room for few jobs, and which take in all that the others have made.
const SMALL_TABLES_EVERY: u64 = 5;
const SMALL: Bounds =
    Bounds { entries: limits::ENTRIES_MAX, jobs: 6, quotas: limits::QUOTAS_MAX, spare: 96 };

/// A run under way.
pub struct Run {
    /// The world, to look at when it is over.
    pub world: World,
    /// What was done to it so far.
    pub journal: Journal,
    /// World time at which the turmoil began, and ended.
    began: Option<Duration>,
    ended: bool,
    /// Give up at this world time: what should have broken by then did not.
    pub give_up_at: Option<Duration>,
    aimed: bool,
    /// Invents what users want; `None`: everything is in the journal already.
    workload: Option<Workload>,
    faults: ChaCha8Rng,
    aftermath: ChaCha8Rng,
}

/// What happens next in the turmoil.
enum Turn {
    Begin(Fault, Duration),
    End(Fault),
    Asks(usize, Wish),
    Wish,
}

impl Run {
    /// A run of which everything is drawn from the plan's seed.
    pub fn new(plan: &Plan) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
        let settings = settings(plan, &mut random);
        let mut world = World::new(settings, fleet(plan.nodes, &mut random));
        if plan.seed.is_multiple_of(OLD_AGENTS_EVERY) {
            // An upgrade is under way: every second node has an old agent, the founder among them, until that is restarted.
            // Of any level before ours.
            let older = (plan.seed / OLD_AGENTS_EVERY) % u64::from(LEVEL - LEVEL_MIN);
            let level = LEVEL_MIN + older as u8;
            world.nodes.iter_mut().step_by(2).for_each(|node| node.level = level);
        }
        if plan.seed.is_multiple_of(SMALL_TABLES_EVERY) {
            world.nodes.iter_mut().for_each(|node| node.bounds = SMALL);
        }
        let aimed = plan.aimed_at_leases;
        let workload = Workload::new(ChaCha8Rng::from_rng(&mut random), aimed);
        let journal = Journal {
            seed: plan.seed,
            nodes: plan.nodes,
            turmoil: plan.turmoil,
            canary: plan.canary,
            breaks: None,
            acts: Vec::new(),
        };
        Self {
            world,
            journal,
            began: None,
            ended: false,
            give_up_at: None,
            aimed,
            workload: Some(workload),
            faults: ChaCha8Rng::from_rng(&mut random),
            aftermath: ChaCha8Rng::from_rng(&mut random),
        }
    }

    /// The run that a journal tells, with the words that are wanted.
    pub fn replay(journal: &Journal, detail: Detail, print: bool) -> Self {
        let plan = Plan {
            seed: journal.seed,
            nodes: journal.nodes,
            turmoil: journal.turmoil,
            canary: journal.canary,
            aimed_at_leases: false,
            detail,
            print,
            numbered: true,
        };
        Self { journal: journal.clone(), workload: None, ..Self::new(&plan) }
    }

    /// To its end, or to the first broken invariant.
    pub fn go(&mut self) -> Result<Outcome, Violation> {
        self.world.found_and_join();
        rest_within(&mut self.world, FORMED_WITHIN)?;
        let draining = self.live_through()?;
        let world = &mut self.world;
        let settled = settle(world, draining)?;
        be_quiet(world)?;
        let replaced = kill_one(world, &mut self.aftermath)?;
        drain_one(world, &mut self.aftermath)?;
        break_a_pair(world, &mut self.aftermath)?;

        let units = world.nodes.iter().map(|machine| machine.units.there().count()).sum();
        Ok(Outcome { digest: world.trace.digest(), time: world.time, settled, replaced, units })
    }

    /// Faults and wishes, each at its time. Returns who is draining at the end.
    fn live_through(&mut self) -> Result<BTreeSet<NodeId>, Violation> {
        let start = self.world.time;
        self.began = Some(start);
        self.world.book.copies.begins(start);
        let turmoil = self.journal.turmoil;
        let mut turns = self.turns();
        let mut draining = BTreeSet::new();
        while let Some(((at, _), turn)) = turns.pop_first() {
            self.world.run_until(start + at)?;
            if self.give_up_at.is_some_and(|last| start + at > last) {
                return Err(Violation::stop(self.world.time));
            }
            match turn {
                Turn::Begin(fault, lasting) => {
                    self.world.book.copies.disturbed(self.world.time, &fault);
                    let until = &mut self.world.book.emptied.disturbed_until;
                    *until = (*until).max(start + at + fault.over_after(lasting));
                    fault.begin(&mut self.world, lasting);
                }
                Turn::End(fault) => {
                    fault.end(&mut self.world);
                    self.world.book.copies.disturbed(self.world.time, &fault);
                    if let (Fault::DiskLoss(node), Some(_)) = (&fault, &self.workload)
                        && let Some(member) = self.tidier(*node)
                    {
                        turns.insert((at, usize::MAX - 1), Turn::Asks(member, Wish::Forget(*node)));
                    }
                }
                Turn::Wish => {
                    let Some(workload) = &mut self.workload else { continue };
                    if let Some((node, wish)) = workload.wish(&self.world) {
                        turns.insert((at, usize::MAX - 1), Turn::Asks(node, wish));
                    }
                }
                Turn::Asks(node, wish) => {
                    for request in wish.requests(&self.world) {
                        if let Request::Drain { node, on } = &request {
                            if *on {
                                draining.insert(*node)
                            } else {
                                draining.remove(node)
                            };
                        }
                        self.world.request(node, request);
                    }
                    if self.workload.is_some() {
                        let acts = &mut self.journal.acts;
                        let place = acts.partition_point(|entry| entry.at <= at);
                        acts.insert(place, Entry { at, act: Act::Wish { node, wish } });
                    }
                }
            }
        }
        self.world.run_until(start + turmoil)?;
        if self.give_up_at.is_some_and(|last| self.world.time > last) {
            return Err(Violation::stop(self.world.time));
        }
        self.ended = true;
        self.world.book.copies.over = true;
        Ok(draining)
    }

    /// When the turmoil began, in world time, if it did.
    pub fn turmoil_began(&self) -> Option<Duration> {
        self.began
    }

    /// Whether it is over.
    pub fn turmoil_ended(&self) -> bool {
        self.ended
    }

    /// What the turmoil is made of, by time; what comes at one time, in this order.
    fn turns(&mut self) -> BTreeMap<(Duration, usize), Turn> {
        if let Some(workload) = &mut self.workload {
            let turmoil = self.journal.turmoil;
            let draw = if self.aimed { faults::aimed_at_leases } else { faults::schedule };
            let schedule = draw(&mut self.faults, self.world.nodes.len(), turmoil);
            let act = |it: Scheduled| Entry { at: it.at, act: Act::Fault(it.fault, it.lasting) };
            self.journal.acts = schedule.into_iter().map(act).collect();
            let mut turns = turns_of(&self.journal.acts);
            let mut at = Duration::from_secs(1);
            while at < turmoil {
                turns.insert((at, usize::MAX), Turn::Wish);
                at += workload.pause();
            }
            return turns;
        }
        turns_of(&self.journal.acts)
    }

    /// Somebody may tidy up: remove the identity that a machine lost with its disk.
    fn tidier(&mut self, node: usize) -> Option<usize> {
        let running = self.world.running().into_iter().filter(|other| *other != node);
        let running: Vec<usize> = running.collect();
        let member = *running.choose(&mut self.faults)?;
        self.faults.random_bool(0.5).then_some(member)
    }
}

fn turns_of(acts: &[Entry]) -> BTreeMap<(Duration, usize), Turn> {
    let mut turns = BTreeMap::new();
    for (index, entry) in acts.iter().enumerate() {
        match &entry.act {
            Act::Fault(fault, lasting) => {
                turns.insert((entry.at, 2 * index), Turn::Begin(fault.clone(), *lasting));
                let end = (entry.at + *lasting, 2 * index + 1);
                turns.insert(end, Turn::End(fault.clone()));
            }
            Act::Wish { node, wish } => {
                turns.insert((entry.at, 2 * index), Turn::Asks(*node, wish.clone()));
            }
        }
    }
    turns
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
        numbered: plan.numbered,
    }
}

/// Random machines with names that sort.
fn fleet(nodes: usize, random: &mut ChaCha8Rng) -> Vec<(String, machines::Hardware)> {
    (0..nodes).map(|node| (format!("n{node:02}"), machines::random(random))).collect()
}

/// The last fault is over. Returns how long it took until all was as wanted.
fn settle(world: &mut World, draining: BTreeSet<NodeId>) -> Result<Duration, Violation> {
    let start = world.time;
    world.tell(|_| "all faults are over".into());
    faults::heal(world);
    for node in draining {
        if let Some(index) = world.index_of(&node) {
            world.request(index, Request::Drain { node, on: false });
        }
    }
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

/// Runs until all is as wanted and stays so, or fails with what is not after `within`. What jobs that cannot work
/// take and leave again and again moves the others too: beside them only what stays wrong is wrong.
pub fn rest_within(world: &mut World, within: Duration) -> Result<(), Violation> {
    let start = world.time;
    let patience = if all_are_sound(world) { 1 } else { FLICKER };
    let (mut resting, mut wrong) = (0, 0);
    let (mut last, mut rolled) = (None, None);
    loop {
        world.run_for(Duration::from_secs(1))?;
        let complete = world.running().len() == world.nodes.iter().filter(|n| n.powered).count();
        let unrest = unrest_for_a_second(world)?;
        resting = if unrest.is_none() && complete { resting + 1 } else { 0 };
        let name = unrest.as_ref().map(|violation| violation.invariant);
        wrong = if name == last { wrong + 1 } else { 1 };
        last = name;
        // A roll-out that found room again takes its time, and so does taking it back.
        if unrest.is_some() && rolls_out(world) {
            rolled = Some(world.time);
        }
        let rolls = rolled.is_some_and(|at| world.time - at < LAST_STEP);
        let (waited, longer) = (world.time - start, within.max(SETTLED_WITHIN));
        let is_over = |more: Duration| waited > longer + more || waited > within + more && !rolls;
        if let Some(violation) = unrest.filter(|_| wrong >= patience && is_over(Duration::ZERO)) {
            tell_what_is_wrong(world);
            return Err(violation);
        }
        if resting >= RESTING {
            return Ok(());
        }
        if is_over(Duration::from_secs(10)) {
            if complete && patience > 1 {
                return Ok(());
            }
            let detail = format!("{} of {} run", world.running().len(), world.nodes.len());
            let invariant = "invariant_every_node_gets_in";
            return Err(Violation { invariant, at: world.time, detail });
        }
    }
}

fn rolls_out(world: &World) -> bool {
    let core = world.nodes.iter().find_map(|machine| machine.core());
    let jobs = core.map(|core| core.jobs()).unwrap_or_default();
    jobs.iter().any(|view| !settled::is_of_one_version(world, view))
}

fn all_are_sound(world: &World) -> bool {
    let jobs = world.nodes.iter().find_map(|machine| machine.core()).map(|core| core.jobs());
    jobs.iter().flatten().all(|view| Behaviour::of(&view.spec.task).is_sound())
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
        .filter(|view| {
            Behaviour::of(&view.spec.task).is_sound() && settled::is_complete(world, view)
        })
        .filter(|view| settled::is_of_one_version(world, view));
    let sound: BTreeSet<JobName> = sound.map(|view| view.name).collect();
    world.book.watch_quiet(true);
    world.run_for(QUIET)?;
    let moves = world.book.moves.take().unwrap_or_default();
    let made_room = made_room(world, &sound, &moves);
    for (at, alloc, what) in moves {
        // A slot that failed may wait for its nodes to be worth another try.
        let is_sound = sound.contains(&alloc.slot.job) && !made_room.contains(&alloc.slot);
        if is_sound && !world.book.failed_lately(&alloc.slot, at) {
            let invariant = "invariant_a_fabric_at_rest_gives_no_commands";
            return Err(Violation { invariant, at, detail: format!("{alloc}: {what}") });
        }
    }
    // Jobs that cannot work keep the tables moving.
    rest_within(world, Duration::from_secs(10))
}

/// Slots that had to make room for a job that cannot work, which is tried again and again, or for another of them.
fn made_room(
    world: &World,
    sound: &BTreeSet<JobName>,
    moves: &[(Duration, AllocId, String)],
) -> BTreeSet<SlotId> {
    let rows =
        world.nodes.iter().find_map(|machine| machine.core()).map(|it| it.allocs(None, true));
    let mut displaced = world.book.emptied.displaced.clone();
    for view in rows.unwrap_or_default() {
        if let Some(Ending::Preempted { by, .. }) = view.row.ending
            && moves.iter().any(|(_, alloc, _)| *alloc == view.id)
        {
            displaced.push((view.id.slot, by.slot));
        }
    }
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (slot, by) in &displaced {
            if !sound.contains(&by.job) || found.contains(by) {
                found.insert(slot.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
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
    rest_within(world, REPLACED_WITHIN + leases::longest_hold(world)).map_err(rename)?;
    let replaced = world.time - start;
    world.restart(victim);
    // As a voter it is mute after a boot. If that was one too many, leases are lost, and who asks then asks again after a while.
    let asks_again = world.book.has_at_most_one().then_some(fabric::limits::LEASE_RETRY);
    rest_within(world, RETURNED_WITHIN + asks_again.unwrap_or_default())?;
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
    if !settled::is_draining(world, node) {
        let invariant = "invariant_an_accepted_drain_empties_a_node";
        let detail = format!("{} was not told to drain", world.nodes[node].name);
        return Err(Violation { invariant, at: world.time, detail });
    }
    rest_within(world, DRAINED_WITHIN)
}

/// Two nodes cannot speak any more, in both directions or in one, and all others reach them: the coordinator of a job,
/// and a node that runs a slot of it. Then somebody updates the job.
fn break_a_pair(world: &mut World, random: &mut ChaCha8Rng) -> Result<(), Violation> {
    let jobs = world.nodes.iter().find_map(|machine| machine.core()).map(|core| core.jobs());
    let mut candidates = Vec::new();
    for view in jobs.unwrap_or_default() {
        let is_well =
            Behaviour::of(&view.spec.task).is_sound() && settled::is_complete(world, &view);
        let Some(one) = view.coordinator.and_then(|node| world.index_of(&node)) else { continue };
        if !is_well || view.state == JobState::Reverted || view.spec.count == 0 {
            continue;
        }
        let runs = |node: usize| {
            world.nodes[node].units.there().any(|(alloc, _)| alloc.slot.job == view.name)
        };
        let others = world.running().into_iter().filter(|node| *node != one && runs(*node));
        candidates.extend(others.map(|other| (view.spec.clone(), one, other)));
    }
    let Some((mut spec, one, other)) = candidates.choose(random).cloned() else { return Ok(()) };
    if world.running().len() < 3 {
        return Ok(());
    }
    let (there, back) = match random.random_range(0..3u8) {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    };
    for (from, to) in [(one, other), (other, one)]
        .into_iter()
        .zip([there, back])
        .filter_map(|(pair, is_broken)| is_broken.then_some(pair))
    {
        world.split(&[from], &[to]);
    }
    world.run_for(Duration::from_secs(random.random_range(0..20)))?;
    spec.task.env.insert("VERSION".into(), "across a broken pair".into());
    let asked = *world.running().choose(random).unwrap_or(&one);
    let by = "somebody".into();
    world.request(asked, Request::Submit { spec: Box::new(spec), by, expected_version: None });
    world.run_for(Duration::from_secs(5))?;
    rest_within(world, UPDATED_WITHIN).map_err(|violation| Violation {
        invariant: "invariant_a_job_converges_though_two_nodes_cannot_speak",
        detail: format!("{} ({})", violation.detail, violation.invariant),
        ..violation
    })?;
    world.heal_network();
    rest_within(world, RETURNED_WITHIN)
}

#[cfg(test)]
mod tests;
