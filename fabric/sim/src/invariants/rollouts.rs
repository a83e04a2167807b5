//! Roll-outs on their way: what a new version may stop, and how much of it at a time. Looked at while nothing else goes
//! wrong: who has just lost his coordinator, or hears late, may see two of them.

use fabric::alloc::{Ending, Phase};
use fabric::id::{AllocId, JobName, SlotId};
use fabric::job::{JobKind, JobSpec};
use fabric::table::{Entry, Key, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Verdict, settled};
use crate::units::UnitState;
use crate::world::World;

/// After the last fault all nodes know what the others know, and roll-outs that saw less have been seen through.
const CALM: Duration = Duration::from_secs(30);
/// What the core says in the row of an allocation that makes room for a new version.
const REPLACED: &str = "a new version replaces it";

/// Copies that a roll-out stopped and that nothing has come after: by job, the slots, of a system job with their nodes.
#[derive(Debug, Default)]
pub struct Emptied {
    by_job: BTreeMap<JobName, BTreeSet<(u32, Option<usize>)>>,
    /// The last fault is over by then.
    pub disturbed_until: Duration,
    /// Whose unit was stopped for which more important slot, while nothing should be commanded: a later allocation on
    /// the same node has its row.
    pub displaced: Vec<(SlotId, SlotId)>,
}

impl Emptied {
    /// A unit runs.
    pub fn filled(&mut self, node: usize, alloc: &AllocId) {
        if let Some(slots) = self.by_job.get_mut(&alloc.slot.job) {
            slots.remove(&(alloc.slot.index, None));
            slots.remove(&(alloc.slot.index, Some(node)));
        }
    }

    /// Where copies of a system job were stopped, and none has run since.
    pub fn copies(&self, job: &JobName) -> impl Iterator<Item = usize> + '_ {
        self.by_job.get(job).into_iter().flatten().filter_map(|(_, at)| *at)
    }

    /// Somebody wants something else of a job.
    pub fn forget(&mut self, job: &JobName) {
        self.by_job.remove(job);
    }
}

/// Nodes whose last row of a system job says that a roll-out stopped its copy and that nothing has run since, also from
/// before the job was stopped and submitted anew: the core waits for these.
pub(super) fn vacated_copies(world: &World, job: &JobName) -> impl Iterator<Item = usize> {
    world.nodes.iter().enumerate().filter_map(move |(at, machine)| {
        let rows = machine.core()?.allocs(Some(job), true).into_iter();
        let own = rows.filter(|view| view.node == machine.identity).map(|view| view.row);
        let last = own.max_by_key(|row| (row.epoch, row.since))?;
        let replaced =
            matches!(&last.ending, Some(Ending::Retired { reason }) if reason == REPLACED);
        let is_vacated = last.phase == Phase::Ended && (replaced || last.vacant && !last.ran);
        is_vacated.then_some(at)
    })
}

/// Before a unit is stopped.
pub(crate) fn before_stop(world: &mut World, node: usize, alloc: &AllocId) {
    let ending = world.agent_ending(node, alloc);
    if let (Some(Ending::Preempted { by, .. }), Some(_)) = (&ending, &world.book.moves) {
        let pair = (alloc.slot.clone(), by.slot.clone());
        world.book.emptied.displaced.push(pair);
    }
    let is_replaced = matches!(ending, Some(Ending::Retired { reason }) if reason == REPLACED);
    let is_calm = world.time >= world.book.emptied.disturbed_until + CALM;
    let view = world.nodes[node].core().and_then(|core| core.job(&alloc.slot.job).ok());
    let Some(view) = view.filter(|_| is_replaced) else { return };
    let of = (alloc.slot.index, (view.kind == JobKind::System).then_some(node));
    let slots = world.book.emptied.by_job.entry(alloc.slot.job.clone()).or_default();
    slots.insert(of);
    if !is_calm {
        return;
    }
    // One that runs elsewhere as well has lost nothing.
    let (job, slots) = (&alloc.slot.job, slots.clone());
    let runs = |index: u32, at: Option<usize>| {
        let machines = world.nodes.iter().enumerate();
        let machines = machines.filter(|(machine, _)| at.is_none_or(|at| at == *machine));
        let mut units =
            machines.flat_map(|(machine, it)| it.units.there().map(move |u| (machine, u)));
        units.any(|(machine, (other, unit))| {
            other.slot.job == *job
                && other.slot.index == index
                && (machine, other) != (node, alloc)
                && unit.state == UnitState::Running
        })
    };
    // A drain takes a system job's copy away for good, whoever stopped it first: nothing comes after it that a roll-out
    // could wait for.
    let is_for =
        |at: usize| settled::is_of_the_kind(world, at, &view.spec) && !is_told_to_drain(world, at);
    let waited_for = |at: Option<usize>| at.is_none_or(|at| at == node || is_for(at));
    // Whoever paces the roll-out may know of a version that this node has not heard of yet.
    let known = world.nodes.iter().filter_map(|machine| machine.core()?.job(&alloc.slot.job).ok());
    let known: Vec<JobSpec> = known.map(|view| view.spec).collect();
    // What was there of a larger count is not missed, nor what was there when the job was of another kind.
    let wanted = |index: u32, at: Option<usize>| match view.kind {
        JobKind::System => at.is_some(),
        JobKind::Service => at.is_none() && known.iter().all(|spec| index < spec.count),
    };
    let is_emptied = |(index, at): &&(u32, Option<usize>)| {
        wanted(*index, *at) && waited_for(*at) && !runs(*index, *at)
    };
    let emptied = slots.iter().filter(is_emptied).count();
    let time = world.time;
    if known.iter().any(|spec| spec.kind != view.kind) {
        // It becomes another kind of job, and not all have heard: what is a slot of it is not agreed upon.
        return;
    }
    let verdict = invariant_a_roll_out_stops_only_what_can_be_replaced(world, alloc, &known);
    if let Err(detail) = verdict {
        let name = "invariant_a_roll_out_stops_only_what_can_be_replaced";
        world.book.violate(time, name, detail);
    }
    let verdict = invariant_a_roll_out_leaves_as_many_as_its_update_allows(&known, emptied);
    if let Err(detail) = verdict {
        let name = "invariant_a_roll_out_leaves_as_many_as_its_update_allows";
        world.book.violate(time, name, format!("{alloc}: {detail}"));
    }
}

/// Whether anybody has heard that a node is to be drained; whoever paces a roll-out may be the first.
fn is_told_to_drain(world: &World, node: usize) -> bool {
    let key = Key::Node(world.nodes[node].identity);
    let drains = |entry: Entry| matches!(&entry.value, Value::Node(info) if info.draining);
    world.nodes.iter().any(|machine| machine.disk.entry_under_way(&key).is_some_and(drains))
}

/// Some node is of the kind that the version asks for, in one of the forms in which it is known. Whether it has room is for those who know
/// what else is about to go.
pub fn invariant_a_roll_out_stops_only_what_can_be_replaced(
    world: &World,
    alloc: &AllocId,
    known: &[JobSpec],
) -> Verdict {
    let is_for = |spec: &JobSpec| {
        world.running().into_iter().any(|node| settled::is_of_the_kind(world, node, spec))
    };
    match known.iter().any(is_for) {
        true => Ok(()),
        false => Err(format!("{alloc} is stopped, and no node is of the kind of its successor")),
    }
}

/// No more slots at a time are without a unit for the sake of a new version than the job says, in one of the forms in
/// which it is known. Gangs go as a whole.
pub fn invariant_a_roll_out_leaves_as_many_as_its_update_allows(
    known: &[JobSpec],
    emptied: usize,
) -> Verdict {
    let most = known.iter().map(|spec| spec.update.max_parallel as usize).max().unwrap_or(0);
    if known.iter().any(|spec| spec.gang) || emptied <= most {
        return Ok(());
    }
    Err(format!("{emptied} slots were emptied for it, {most} may be"))
}
