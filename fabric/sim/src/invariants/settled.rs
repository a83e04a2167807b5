//! What must hold once faults have stopped and the fabric had time to settle.
//!
//! What runs is read from the machines' unit managers. What should run is read from the jobs that the
//! nodes agree on; whether a slot could be placed is worked out here, from what really runs where, and
//! errs on the side of 'no'.

use fabric::api::{JobView, NodeState};
use fabric::claim::Claim;
use fabric::id::{AllocId, NodeId, SlotId};
use fabric::job::{CpuRequest, Guarantee, JobKind, JobSpec, NumaPolicy, Smt};
use fabric::limits;
use fabric::table::{Entry, Key, Value};
use fabric::topology::{Device, NodeInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Verdict, all_cpus, deletions, leases, levels, rollouts, sharing, time};
use crate::book::Violation;
use crate::disk::{DiskMode, was_dated_anew};
use crate::node::SimNode;
use crate::units::{BEHAVES, Behaviour, Temper, Unit, UnitState};
use crate::world::World;

/// A node on which a slot failed may be avoided for this long.
const AVOIDED: Duration = Duration::from_secs(limits::FAILED_FOR.as_secs() * 2);

/// Milliseconds within which a row leaves when its time has come: at the next look of its node.
const LEAVES_WITHIN: u64 = 10_000;

/// An invariant of a world at rest.
type AtRest = fn(&World) -> Verdict;

/// All invariants of a world at rest, by name, in the order in which they come true.
const AT_REST: [(&str, AtRest); 12] = [
    ("invariant_views_converge_after_heal", invariant_views_converge_after_heal),
    (
        "invariant_all_members_know_the_level_of_the_fabric",
        levels::invariant_all_members_know_the_level_of_the_fabric,
    ),
    (
        "invariant_a_job_that_was_stopped_does_not_come_back",
        deletions::invariant_a_job_that_was_stopped_does_not_come_back,
    ),
    (
        "invariant_a_committed_spec_is_never_lost_while_a_holder_lives",
        invariant_a_committed_spec_is_never_lost_while_a_holder_lives,
    ),
    ("invariant_nothing_runs_that_nobody_wants", invariant_nothing_runs_that_nobody_wants),
    (
        "invariant_every_feasible_job_reaches_its_count_and_nothing_above_it",
        invariant_every_feasible_job_reaches_its_count_and_nothing_above_it,
    ),
    ("invariant_an_accepted_drain_empties_a_node", invariant_an_accepted_drain_empties_a_node),
    ("invariant_the_table_says_what_really_runs", invariant_the_table_says_what_really_runs),
    ("invariant_quotas_hold_after_heal", sharing::invariant_quotas_hold_after_heal),
    (
        "invariant_no_gang_is_half_reserved_at_rest",
        sharing::invariant_no_gang_is_half_reserved_at_rest,
    ),
    ("invariant_honest_nodes_are_always_understood", invariant_honest_nodes_are_always_understood),
    (
        "invariant_ended_rows_leave_although_a_clock_was_ahead",
        time::invariant_ended_rows_leave_although_a_clock_was_ahead,
    ),
];

/// The first invariant of a world at rest that does not hold now.
pub fn unrest(world: &World) -> Option<Violation> {
    AT_REST.iter().find_map(|(invariant, holds)| {
        let detail = holds(world).err()?;
        Some(Violation { invariant, at: world.time, detail })
    })
}

/// The first entry that two nodes know in different forms, in words. `None`: they differ by nothing but rows that
/// are leaving, each when it is time by the clock of whoever has it.
fn difference(world: &World, one: &str, other: &str) -> Option<String> {
    let latest = world.nodes.iter().map(|machine| machine.clock.read(world.time).wall.0).max();
    let is_leaving = |entry: &Entry| match &entry.value {
        Value::Alloc(row) if row.phase == fabric::alloc::Phase::Ended => {
            let kept_until = entry.stamp.wall().0 + row.keep().as_millis() as u64;
            kept_until <= latest.unwrap_or(0) + LEAVES_WITHIN
        }
        _ => false,
    };
    let entries = |name: &str| {
        let machine = world.nodes.iter().find(|machine| machine.name == name);
        let core = machine.and_then(|machine| machine.core()).into_iter();
        let entries = core.flat_map(|core| core.entries()).map(|entry| &**entry);
        entries.map(|entry| (entry.key.clone(), entry)).collect::<BTreeMap<_, _>>()
    };
    let (mine, theirs) = (entries(one), entries(other));
    let keys: BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
    let mut differing = keys.into_iter().filter(|key| mine.get(key) != theirs.get(key)).peekable();
    if differing.peek().is_none() {
        return Some(format!("the fingerprints of {one} and {other} do, and no entry"));
    }
    let key = differing.find(|key| {
        !mine.get(key).into_iter().chain(theirs.get(key)).any(|entry| is_leaving(entry))
    })?;
    Some(format!("{one} has {:?}, and {other} has {:?}", mine.get(key), theirs.get(key)))
}

/// All agents that run have the same table, and see exactly each other alive.
pub fn invariant_views_converge_after_heal(world: &World) -> Verdict {
    let mut fingerprints: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let running = world.running();
    for machine in running.iter().map(|node| &world.nodes[*node]) {
        if let Some(core) = machine.core() {
            fingerprints.entry(core.status().fingerprint).or_default().push(&machine.name);
        }
    }
    if fingerprints.len() > 1 {
        let groups: Vec<&Vec<&str>> = fingerprints.values().collect();
        for group in &groups[1..] {
            if let Some(difference) = difference(world, groups[0][0], group[0]) {
                return Err(format!("tables differ: {groups:?}: {difference}"));
            }
        }
    }
    let ids: BTreeSet<NodeId> = running.iter().map(|node| world.nodes[*node].identity).collect();
    for machine in running.iter().map(|node| &world.nodes[*node]) {
        let Some(core) = machine.core() else { continue };
        let mut seen = BTreeSet::new();
        for view in core.nodes() {
            let alive = matches!(view.state, NodeState::Alive | NodeState::Suspect);
            if alive {
                seen.insert(view.id);
            }
            if alive != ids.contains(&view.id) {
                let name = world.name_of(&view.id);
                return Err(format!("{} sees {name} {}", machine.name, view.state));
            }
        }
        if let Some(missing) = ids.iter().find(|id| !seen.contains(id)) {
            return Err(format!("{} does not know {}", machine.name, world.name_of(missing)));
        }
    }
    Ok(())
}

/// What a user was told is kept is still there, or something newer is, if the disk of one node that had it
/// was not lost.
pub fn invariant_a_committed_spec_is_never_lost_while_a_holder_lives(world: &World) -> Verdict {
    for (job, commit) in &world.book.commits {
        let holder_lives = world
            .nodes
            .iter()
            .any(|machine| commit.holders.contains(&machine.identity) && machine.agent.is_some());
        if !holder_lives {
            continue;
        }
        for node in world.running() {
            let machine = &world.nodes[node];
            let key = Key::Job(job.clone());
            let order = machine.disk.entry(&key).map(|entry| entry.order());
            let older = |order| order < commit.order && !was_dated_anew(commit.order, order);
            if order.is_none() && deletions::was_stopped(world, job, &commit.order) {
                // Once all have seen its tombstone, that leaves, too.
                continue;
            }
            if order.is_none_or(older) {
                return Err(format!(
                    "{job}, promised at {:.3} s, is not on the disk of {}: {order:?} of {:?}",
                    commit.at.as_secs_f64(),
                    machine.name,
                    commit.order
                ));
            }
        }
    }
    Ok(())
}

/// No unit of a job that does not exist, of a slot that is not wanted, or twice for one slot.
pub fn invariant_nothing_runs_that_nobody_wants(world: &World) -> Verdict {
    let jobs = jobs(world);
    for (slot, there) in units_by_slot(world) {
        let places: Vec<&str> =
            there.iter().map(|(node, _)| world.nodes[*node].name.as_str()).collect();
        let Some(view) = jobs.iter().find(|view| view.name == slot.job) else {
            return Err(format!("{slot} runs on {places:?}, and there is no such job"));
        };
        if view.kind == JobKind::Service && slot.index >= view.spec.count {
            return Err(format!("{slot} runs on {places:?}, wanted are {}", view.spec.count));
        }
        // A slot leaves a draining node once it is healthy elsewhere, and some never are.
        let moving = !Behaviour::of(&view.spec.task).is_sound()
            && there.iter().any(|(node, _)| is_draining(world, *node));
        if view.kind == JobKind::Service && there.len() > 1 && !moving {
            return Err(format!("{slot} runs on {places:?} at once"));
        }
    }
    Ok(())
}

/// Each slot whose units work has one, of the version in force, unless no node could take it.
pub fn invariant_every_feasible_job_reaches_its_count_and_nothing_above_it(
    world: &World,
) -> Verdict {
    let units = units_by_slot(world);
    let none = Vec::new();
    for view in jobs(world) {
        let spec = &view.spec;
        if !Behaviour::of(&spec.task).is_sound() {
            continue;
        }
        let has_begun = units.keys().any(|slot| slot.job == view.name);
        match view.kind {
            // All of it or nothing: whether all of it fits is more than one slot can tell.
            JobKind::Service if spec.gang && !has_begun => {}
            JobKind::Service => {
                for index in 0..spec.count {
                    let slot = SlotId { job: view.name.clone(), index };
                    let there = units.get(&slot).unwrap_or(&none);
                    slot_is_filled(world, &slot, spec, there)?;
                }
            }
            JobKind::System => {
                let slot = SlotId { job: view.name.clone(), index: 0 };
                let there = units.get(&slot).unwrap_or(&none);
                for node in world.running() {
                    let mine = there.iter().filter(|(at, _)| *at == node);
                    let mine: Vec<(usize, &Unit)> = mine.copied().collect();
                    if mine.is_empty() && !room_for(world, node, &slot, spec) {
                        continue;
                    }
                    let name = &world.nodes[node].name;
                    match mine.as_slice() {
                        [(_, unit)] => is_current(world, node, unit, spec)
                            .map_err(|detail| format!("{slot} on {name}: {detail}"))?,
                        _ => return Err(format!("{slot} runs {} times on {name}", mine.len())),
                    }
                }
            }
        }
    }
    Ok(())
}

/// Nothing is left on a draining node that could run elsewhere.
pub fn invariant_an_accepted_drain_empties_a_node(world: &World) -> Verdict {
    let jobs = jobs(world);
    for node in world.running().into_iter().filter(|node| is_draining(world, *node)) {
        for (alloc, unit) in world.nodes[node].units.there() {
            let Some(view) = jobs.iter().find(|view| view.name == alloc.slot.job) else { continue };
            let sound = Behaviour::of(&unit.launch.task).is_sound()
                && Behaviour::of(&view.spec.task).is_sound();
            let elsewhere = world
                .running()
                .into_iter()
                .find(|other| *other != node && room_for(world, *other, &alloc.slot, &view.spec));
            let name = &world.nodes[node].name;
            match (view.kind, elsewhere) {
                (JobKind::System, _) => return Err(format!("{alloc} is still on {name}")),
                (JobKind::Service, Some(other)) if sound => {
                    let other = &world.nodes[other].name;
                    return Err(format!("{alloc} is still on {name}, {other} has room"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A row that says running has a unit, and a unit that runs has such a row.
pub fn invariant_the_table_says_what_really_runs(world: &World) -> Verdict {
    let Some(core) = reference(world) else { return Ok(()) };
    let rows: BTreeMap<_, _> =
        core.allocs(None, false).into_iter().map(|view| ((view.node, view.id), view.row)).collect();
    for node in world.running() {
        let machine = &world.nodes[node];
        for (alloc, unit) in machine.units.there() {
            if unit.state != UnitState::Running || !Behaviour::of(&unit.launch.task).is_sound() {
                continue;
            }
            let name = &machine.name;
            match rows.get(&(machine.identity, alloc.clone())) {
                Some(row) if row.phase == fabric::alloc::Phase::Running && row.healthy => {}
                Some(row) => {
                    let healthy = if row.healthy { "healthy" } else { "unhealthy" };
                    return Err(format!(
                        "{alloc} runs on {name}, its row: {healthy} {}",
                        row.phase
                    ));
                }
                None => return Err(format!("{alloc} runs on {name} without a row")),
            }
        }
        for ((at, alloc), row) in &rows {
            if *at == machine.identity
                && row.phase == fabric::alloc::Phase::Running
                && row.healthy
                && !machine.units.units.get(alloc).is_some_and(Unit::is_there)
            {
                return Err(format!("{alloc} does not run on {}, its row says so", machine.name));
            }
        }
    }
    Ok(())
}

/// Nobody sends nonsense here, so nothing may look like it.
pub fn invariant_honest_nodes_are_always_understood(world: &World) -> Verdict {
    for node in world.running() {
        let machine = &world.nodes[node];
        let Some(core) = machine.core() else { continue };
        let counters = core.counters();
        if counters.malformed > 0 || counters.outputs_dropped > 0 {
            return Err(format!("{}: {counters:?}", machine.name));
        }
    }
    Ok(())
}

/// Whether every slot of a job has a unit: one that waits for room may start whenever there is some.
pub fn is_complete(world: &World, view: &JobView) -> bool {
    let units = units_by_slot(world);
    let has = |index: u32| units.get(&SlotId { job: view.name.clone(), index });
    match view.kind {
        JobKind::Service => (0..view.spec.count).all(|index| has(index).is_some()),
        JobKind::System => has(0).map_or(0, Vec::len) == world.running().len(),
    }
}

fn slot_is_filled(
    world: &World,
    slot: &SlotId,
    spec: &JobSpec,
    there: &[(usize, &Unit)],
) -> Verdict {
    match there {
        [] if spec.guarantee == Guarantee::AtMostOne && !leases::voters_can_grant(world) => Ok(()),
        [] => {
            let may_run = |node: &usize| {
                room_for(world, *node, slot, spec)
                    && (spec.guarantee != Guarantee::AtMostOne
                        || leases::may_hold_one(world, *node))
            };
            match world.running().iter().find(|node| may_run(node)) {
                Some(node) => {
                    Err(format!("{slot} runs nowhere, {} has room", world.nodes[*node].name))
                }
                None => Ok(()),
            }
        }
        [(node, unit)] => is_current(world, *node, unit, spec)
            .map_err(|detail| format!("{slot} on {}: {detail}", world.nodes[*node].name)),
        _ => Err(format!("{slot} runs {} times", there.len())),
    }
}

/// Whether the unit runs what the spec says, and its node knows that.
fn is_current(world: &World, node: usize, unit: &Unit, spec: &JobSpec) -> Verdict {
    if unit.state != UnitState::Running {
        return Err(format!("it is {:?}", unit.state));
    }
    if may_stay(world, node, &unit.launch.alloc, spec) {
        return Ok(());
    }
    for variable in [BEHAVES, "VERSION"] {
        let (has, wants) = (unit.launch.task.env.get(variable), spec.task.env.get(variable));
        if has != wants {
            return Err(format!("{variable} is {has:?}, the version in force says {wants:?}"));
        }
    }
    let (machine, slot) = (&world.nodes[node], &unit.launch.alloc.slot);
    let row = machine.disk.entry(&Key::Alloc(slot.clone(), machine.identity));
    let job = machine.disk.entry(&Key::Job(slot.job.clone()));
    match (row.map(|entry| &entry.value), job.map(|entry| &entry.value)) {
        (Some(Value::Alloc(row)), Some(Value::Job(job))) if row.spec == job.hash() => Ok(()),
        (Some(Value::Alloc(row)), Some(Value::Job(_))) => {
            Err(format!("it runs version {}, another one is in force", row.version))
        }
        _ => Err("its row or its job is not on disk".into()),
    }
}

fn reference(world: &World) -> Option<&fabric::node::Node> {
    world.nodes.iter().find_map(|machine| machine.core())
}

fn jobs(world: &World) -> Vec<JobView> {
    reference(world).map(|core| core.jobs()).unwrap_or_default()
}

fn units_by_slot(world: &World) -> BTreeMap<SlotId, Vec<(usize, &Unit)>> {
    let mut units: BTreeMap<SlotId, Vec<(usize, &Unit)>> = BTreeMap::new();
    for node in world.running() {
        for (alloc, unit) in world.nodes[node].units.there() {
            units.entry(alloc.slot.clone()).or_default().push((node, unit));
        }
    }
    units
}

/// Whether a node takes no new work because somebody said so.
pub fn is_draining(world: &World, node: usize) -> bool {
    let machine = &world.nodes[node];
    match machine.disk.entry(&Key::Node(machine.identity)).map(|entry| &entry.value) {
        Some(Value::Node(info)) => info.draining,
        _ => false,
    }
}

/// Whether a node could surely run one more slot of a job, next to what really runs there.
pub fn room_for(world: &World, node: usize, slot: &SlotId, spec: &JobSpec) -> bool {
    let machine = &world.nodes[node];
    let fit = machine.agent.is_some()
        && machine.disk.mode == DiskMode::Well
        && machine.units.temper == Temper::Well
        && !is_draining(world, node)
        && !world.book.had_trouble(slot, node, world.time, AVOIDED);
    fit && holds_constraints(machine, spec)
        && Left::of(machine, None).covers(spec)
        && sharing::may_have(world, spec)
}

/// Whether a node is of the kind that a job asks for.
pub fn is_of_the_kind(world: &World, node: usize, spec: &JobSpec) -> bool {
    holds_constraints(&world.nodes[node], spec)
}

fn holds_constraints(machine: &SimNode, spec: &JobSpec) -> bool {
    let info = NodeInfo {
        name: machine.name.clone(),
        labels: machine.hardware.labels.clone(),
        topology: machine.hardware.topology.clone(),
        version: "0.1.0".into(),
        executor: "systemd".into(),
        ..NodeInfo::default()
    };
    spec.placement.constraints.iter().all(|constraint| constraint.holds(machine.identity, &info))
}

/// Whether a unit of another version may stay, because what comes after it surely has room nowhere that the one who
/// looks would be sure of: not on its own node when it is gone, nor on another one.
fn may_stay(world: &World, node: usize, alloc: &AllocId, spec: &JobSpec) -> bool {
    let machine = &world.nodes[node];
    let here = !is_draining(world, node)
        && holds_constraints(machine, spec)
        && machine.disk.mode == DiskMode::Well
        && !world.book.had_trouble(&alloc.slot, node, world.time, AVOIDED)
        && Left::of(machine, Some(alloc)).covers(spec);
    let elsewhere = |other: usize| room_for(world, other, &alloc.slot, spec);
    let there = spec.kind == JobKind::Service && world.running().into_iter().any(elsewhere);
    !here && !there || !sharing::may_have(world, spec) || waits_for_others(world, spec)
}

/// Whether a job misses as many slots already as its update may take away at a time: it takes no more then.
fn waits_for_others(world: &World, spec: &JobSpec) -> bool {
    let units = units_by_slot(world);
    let missing =
        |index: &u32| !units.contains_key(&SlotId { job: spec.name.clone(), index: *index });
    let missing = match spec.kind {
        JobKind::Service => (0..spec.count).filter(missing).count(),
        JobKind::System => {
            let known = world.book.emptied.copies(&spec.name);
            known.chain(rollouts::vacated_copies(world, &spec.name)).collect::<BTreeSet<_>>().len()
        }
    };
    missing >= spec.update.max_parallel as usize
}

/// Whether all units of a job run the version in force, in every respect: a roll-out that waits for room goes on whenever
/// there is some.
pub fn is_of_one_version(world: &World, view: &JobView) -> bool {
    let is_current = |machine: &SimNode, alloc: &AllocId| {
        let row = machine.disk.entry(&Key::Alloc(alloc.slot.clone(), machine.identity));
        let job = machine.disk.entry(&Key::Job(view.name.clone()));
        match (row.map(|entry| &entry.value), job.map(|entry| &entry.value)) {
            (Some(Value::Alloc(row)), Some(Value::Job(job))) => row.spec == job.hash(),
            _ => false,
        }
    };
    world.nodes.iter().all(|machine| {
        let mut of_job = machine.units.there().filter(|(alloc, _)| alloc.slot.job == view.name);
        of_job.all(|(alloc, _)| is_current(machine, alloc))
    })
}

/// Claims of jobs that cannot work, while they have no unit: they wait for their next try, and hold their room.
pub(super) fn held_for_another_try(machine: &SimNode) -> Vec<(SlotId, Claim)> {
    let Some(core) = machine.core() else { return Vec::new() };
    let jobs = core.jobs();
    let is_sound = |slot: &SlotId| {
        let view = jobs.iter().find(|view| view.name == slot.job);
        view.is_none_or(|view| Behaviour::of(&view.spec.task).is_sound())
    };
    let has_unit = |alloc| machine.units.there().any(|(there, _)| *there == alloc);
    core.allocs(None, false)
        .into_iter()
        .filter(|view| view.node == machine.identity && !is_sound(&view.id.slot))
        .filter(|view| !has_unit(view.id.clone()))
        .map(|view| (view.id.slot, view.row.claim))
        .collect()
}

/// What really runs, and what is about to, leaves this much of a machine.
struct Left<'a> {
    machine: &'a SimNode,
    cpus: fabric::cpuset::CpuSet,
    /// Thousandths of the free CPUs that are not promised.
    millis: u64,
    in_the_pool: bool,
    memory: u64,
    disk: u64,
    bound: BTreeMap<u16, u64>,
    pages: BTreeMap<(u32, u16), u32>,
    devices: Vec<&'a Device>,
    ports: BTreeSet<u16>,
}

impl<'a> Left<'a> {
    /// `without`: as if this one were gone.
    fn of(machine: &'a SimNode, without: Option<&AllocId>) -> Self {
        let topology = &machine.hardware.topology;
        let mut left = Left {
            machine,
            cpus: all_cpus(machine),
            millis: 0,
            in_the_pool: false,
            memory: topology.memory,
            disk: topology.disk().map_or(0, |pool| pool.capacity),
            bound: topology.numa.iter().map(|numa| (numa.id, numa.memory)).collect(),
            pages: BTreeMap::new(),
            devices: topology.devices.iter().collect(),
            ports: BTreeSet::new(),
        };
        for pool in &topology.hugepages {
            *left.pages.entry((pool.size_kib, pool.numa)).or_default() += pool.count;
        }
        let mut promised = 0;
        let waiting = held_for_another_try(machine);
        let running = machine.units.there().filter(|(alloc, _)| Some(*alloc) != without);
        let running = running.map(|(_, unit)| &unit.launch.claim);
        for claim in running.chain(waiting.iter().map(|(_, claim)| claim)) {
            left.cpus.remove_all(&claim.cpus);
            left.in_the_pool |= claim.cpus.is_empty();
            promised += u64::from(claim.shared_millis);
            left.memory = left.memory.saturating_sub(claim.memory);
            left.disk = left.disk.saturating_sub(claim.disk);
            if let Some(bound) = (claim.mems.len() == 1)
                .then(|| claim.mems.iter().next())
                .flatten()
                .and_then(|mem| left.bound.get_mut(&mem))
            {
                *bound = bound.saturating_sub(claim.memory);
            }
            for (size, numa, count) in &claim.hugepages {
                let pages = left.pages.entry((*size, *numa)).or_default();
                *pages = pages.saturating_sub(*count);
            }
            left.devices.retain(|device| !claim.devices.contains(&device.path));
            left.ports.extend(claim.ports.values());
        }
        left.millis = (left.cpus.len() as u64 * 1000).saturating_sub(promised);
        left
    }

    /// Errs on the side of 'no'.
    fn covers(&self, spec: &JobSpec) -> bool {
        let numa = spec.resources.numa;
        let somewhere = match numa {
            NumaPolicy::Require => {
                let mut nodes = self.machine.hardware.topology.numa.iter();
                nodes.any(|node| self.covers_on(spec, Some(node.id)))
            }
            NumaPolicy::None | NumaPolicy::Prefer => self.covers_on(spec, None),
        };
        somewhere
            && self.memory >= spec.resources.memory
            && self.disk >= spec.resources.disk
            && self.covers_ports(spec)
    }

    fn covers_on(&self, spec: &JobSpec, numa: Option<u16>) -> bool {
        let here = |of: u16| numa.is_none_or(|numa| numa == of);
        let cores = self.machine.hardware.topology.cores.iter().filter(|core| here(core.numa));
        let threads = self.machine.hardware.topology.cores.iter().map(|core| core.cpus.len());
        let threads = threads.max().unwrap_or(1) as u64;
        let pool = u64::from(self.in_the_pool);
        let cpu = match spec.resources.cpu {
            CpuRequest::Shared { millis, .. } => {
                self.millis >= u64::from(millis) && !self.cpus.is_empty()
            }
            CpuRequest::Exclusive { cores: wanted, smt: Smt::Whole } => {
                let free = cores.filter(|core| self.cpus.contains_all(&core.cpus)).count() as u64;
                free >= u64::from(wanted)
                    && self.millis >= (u64::from(wanted) + pool) * threads * 1000
            }
            CpuRequest::Exclusive { cores: wanted, smt: Smt::Share } => {
                let free = cores.map(|core| self.cpus.intersection(&core.cpus).len() as u64);
                free.sum::<u64>() >= u64::from(wanted)
                    && self.millis >= (u64::from(wanted) + pool) * 1000
            }
        };
        let memory = match numa {
            Some(numa) => self.bound.get(&numa).copied().unwrap_or(0) >= spec.resources.memory,
            None => true,
        };
        let pages = spec.resources.hugepages.iter().all(|(size, count)| {
            self.pages.iter().any(|((of, at), free)| of == size && here(*at) && free >= count)
        });
        let devices = spec.resources.devices.iter().all(|wanted| {
            let named = |device: &&&Device| {
                device.path == *wanted
                    || device.class == *wanted
                    || device.hardware.as_ref() == Some(wanted)
            };
            let same = spec.resources.devices.iter().filter(|other| *other == wanted).count();
            let free = self.devices.iter().filter(named);
            free.filter(|device| device.numa.is_none_or(here)).count() >= same
        });
        cpu && memory && pages && devices
    }

    fn covers_ports(&self, spec: &JobSpec) -> bool {
        let (first, last) = self.machine.hardware.topology.ports;
        let dynamic = spec.ports.iter().filter(|port| port.fixed.is_none()).count();
        let taken = self.ports.range(first..=last).count();
        let fixed = spec.ports.iter().filter_map(|port| port.fixed);
        let fixed: BTreeSet<u16> = fixed.collect();
        fixed.is_disjoint(&self.ports)
            && usize::from(last - first) + 1 >= taken + dynamic + fixed.len()
    }
}

impl World {
    /// What a node knows of allocations that hold a claim: which, where, and whether they are live.
    pub fn agent_allocs(&self, node: usize) -> Vec<(fabric::id::AllocId, NodeId, bool)> {
        let Some(core) = self.nodes[node].core() else { return Vec::new() };
        let views = core.allocs(None, false).into_iter();
        views.map(|view| (view.id, view.node, view.row.phase.is_live())).collect()
    }

    /// Why an allocation of its own ends, in the core's own words.
    pub fn agent_ending(
        &self,
        node: usize,
        alloc: &fabric::id::AllocId,
    ) -> Option<fabric::alloc::Ending> {
        let machine = &self.nodes[node];
        let views = machine.core()?.allocs(Some(&alloc.slot.job), true);
        let own =
            |view: &fabric::api::AllocView| view.id == *alloc && view.node == machine.identity;
        views.into_iter().find(own)?.row.ending
    }
}

#[cfg(test)]
pub(crate) mod tests;
