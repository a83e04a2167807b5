//! What must hold on the way, and not only at rest: ordinary operations (agents that are restarted, a pulled cable, a
//! node that is removed) neither end nor double what runs well.

use fabric::alloc::Ending;
use fabric::id::{AllocId, NodeId};
use fabric::io::{Launch, Request};
use fabric::job::JobKind;
use fabric::limits;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Verdict;
use crate::faults::Fault;
use crate::node::SimNode;
use crate::units::{Behaviour, Temper, Unit, UnitState};
use crate::world::World;

/// A unit that has been active for this long is known to be healthy, by everybody who can be told.
const KNOWN: Duration = Duration::from_secs(60);
/// After a disturbance of another kind the fabric has found its feet.
const CALM: Duration = Duration::from_secs(60);
/// A removed node that could speak to a member for this long runs nothing any more.
const TOLD: Duration = Duration::from_secs(30);

/// What these invariants remember.
#[derive(Debug, Default)]
pub struct Notes {
    /// When a user last had something moved: by node that was drained, or anywhere.
    drained: BTreeMap<NodeId, Duration>,
    rebalanced: Option<Duration>,
    /// When the last fault began or ended that is more than a restart of agents.
    disturbed: Option<Duration>,
    /// When the last one did that is more than a pulled cable, or when faults began to come.
    shaken: Option<Duration>,
    /// When a node's cable was last pulled or plugged in.
    cables: BTreeMap<usize, Duration>,
    /// What comes now is no turmoil: machines are switched off and drained one by one.
    pub over: bool,
    /// Since when a removed node could speak to a member that knows.
    could_know: BTreeMap<usize, Duration>,
}

impl Notes {
    /// A user asks for something.
    pub fn asked(&mut self, time: Duration, request: &Request) {
        match request {
            Request::Drain { node, .. } => drop(self.drained.insert(*node, time)),
            Request::Rebalance { .. } => self.rebalanced = Some(time),
            _ => {}
        }
    }

    /// The fabric is formed, and faults come from now on.
    pub fn begins(&mut self, time: Duration) {
        self.shaken = Some(time);
    }

    /// A fault begins or ends.
    pub fn disturbed(&mut self, time: Duration, fault: &Fault) {
        if !matches!(fault, Fault::AgentAway(_) | Fault::AllAgentsRestart(..)) {
            self.disturbed = Some(time);
        }
        match fault {
            Fault::CableOut(node) => drop(self.cables.insert(*node, time)),
            _ => self.shaken = Some(time),
        }
    }

    fn was_moved(&self, time: Duration, node: &NodeId) -> bool {
        let lately = |at: &Duration| time - *at <= limits::MOVE_WITHIN + KNOWN;
        self.drained.get(node).is_some_and(lately) || self.rebalanced.as_ref().is_some_and(lately)
    }
}

/// Every virtual second: who was removed and could know it.
pub(super) fn observe(world: &mut World) {
    for node in 0..world.nodes.len() {
        let identity = world.nodes[node].identity;
        let awake = world.nodes[node].is_awake(world.time)
            && world.nodes[node].frozen_until <= world.time
            && world.nodes[node].units.temper == Temper::Well
            && world.nodes[node].lost_commands_permille == 0;
        let told = (0..world.nodes.len()).any(|other| {
            other != node
                && world.network.connects(node, other)
                && world.nodes[other].is_awake(world.time)
                && world.nodes[other].frozen_until <= world.time
                && world.nodes[other]
                    .core()
                    .is_some_and(|core| core.removal_of(&identity).is_some())
        });
        let since = world.book.copies.could_know.remove(&node);
        if awake && told {
            world.book.copies.could_know.insert(node, since.unwrap_or(world.time));
        }
    }
}

/// A node that was removed, and has been able to speak to a member that knows it, has ended all that it ran.
pub fn invariant_a_removed_node_runs_nothing_once_it_can_know(world: &World) -> Verdict {
    for (node, since) in &world.book.copies.could_know {
        let machine = &world.nodes[*node];
        if world.time - *since < TOLD {
            continue;
        }
        let running = |(alloc, unit): (&AllocId, &Unit)| {
            let old = world.time - unit.since >= TOLD && unit.state == UnitState::Running;
            old.then(|| alloc.clone())
        };
        if let Some(alloc) = machine.units.there().find_map(running) {
            return Err(format!("{} was removed and still runs {alloc}", machine.name));
        }
    }
    Ok(())
}

/// Of two copies of a slot, the one that ran well before the other was started goes on: neither a cut nor a restart of
/// agents ends it.
pub fn invariant_a_healthy_original_is_not_ended_for_a_copy(
    world: &World,
    node: usize,
    alloc: &AllocId,
    run: u32,
) -> Verdict {
    let machine = &world.nodes[node];
    let Some(Ending::Superseded { epoch }) = world.agent_ending(node, alloc) else { return Ok(()) };
    let Some(unit) = machine.units.units.get(alloc).filter(|unit| unit.launch.run == run) else {
        return Ok(());
    };
    let disturbed = world.book.troubles.contains_key(&(alloc.slot.clone(), node));
    // Each node had one of a system job. When it becomes a service, one of them is its slot's.
    let submitted = world.book.submitted.get(&alloc.slot.job);
    let of_a_system_job =
        submitted.is_some_and(|all| all.iter().any(|spec| spec.kind == JobKind::System));
    let excused = epoch <= alloc.epoch
        || of_a_system_job
        || !is_well(machine, unit)
        || disturbed
        || world.book.is_at_most_one(&alloc.slot.job)
        || world.book.copies.was_moved(world.time, &machine.identity);
    if excused {
        return Ok(());
    }
    let winner = world.nodes.iter().enumerate().find_map(|(at, other)| {
        let is_later = |it: &AllocId| it.slot == alloc.slot && it.epoch == epoch;
        let (later, unit) = other.units.there().find(|(it, _)| is_later(it))?;
        Some((at, later.clone(), unit, *world.book.active.get(&(at, later.clone()))?))
    });
    let (Some((at, later, copy, begun)), Some(first)) =
        (winner, world.book.active.get(&(node, alloc.clone())))
    else {
        return Ok(());
    };
    let is_copy = copy.launch.task == unit.launch.task
        && same_version(world, node, alloc, at, &later)
        && *first + KNOWN <= begun
        && world.time - begun + KNOWN < limits::STAND_IN_MAX;
    match is_copy {
        true => Err(format!(
            "{} ends {alloc}, active since {first:?}, for {later} on {}, active since {begun:?}",
            machine.name, world.nodes[at].name
        )),
        false => Ok(()),
    }
}

/// Nothing that runs is started a second time because agents were restarted, all at once or one after the other.
pub fn invariant_restarts_of_agents_start_nothing_again(
    world: &World,
    node: usize,
    launch: &Launch,
) -> Verdict {
    let calm = world.book.copies.disturbed.is_some_and(|at| world.time - at >= CALM);
    match doubled(world, node, launch).filter(|_| calm) {
        Some((_, what)) => Err(what),
        None => Ok(()),
    }
}

/// A pulled cable is no reason to start what runs on a node whose own cable stayed in, neither for the node that had none
/// and hears again what others say, nor for those who hear it.
pub fn invariant_a_pulled_cable_concerns_nobody_elses_work(
    world: &World,
    node: usize,
    launch: &Launch,
) -> Verdict {
    let notes = &world.book.copies;
    let calm = notes.shaken.is_some_and(|at| world.time - at >= CALM);
    let stayed_in = |at: &usize| {
        let lately = notes.cables.get(at).is_some_and(|at| world.time - *at < CALM);
        world.nodes[*at].connected && !lately
    };
    match doubled(world, node, launch).filter(|(at, _)| calm && stayed_in(at)) {
        Some((_, what)) => Err(what),
        None => Ok(()),
    }
}

/// The node that runs well, and has for long, what is to be started, in words: nobody asked for another copy, and no
/// trouble of its own explains it.
fn doubled(world: &World, node: usize, launch: &Launch) -> Option<(usize, String)> {
    let notes = &world.book.copies;
    if notes.over || world.book.is_at_most_one(&launch.alloc.slot.job) {
        return None;
    }
    world.nodes.iter().enumerate().find_map(|(at, other)| {
        let same_slot = |(alloc, unit): &(&AllocId, &Unit)| {
            at != node
                && alloc.slot == launch.alloc.slot
                && unit.launch.task == launch.task
                && is_well(other, unit)
        };
        let (alloc, _) = other.units.there().find(same_slot)?;
        let begun = world.book.active.get(&(at, alloc.clone()));
        let old = begun.is_some_and(|begun| world.time - *begun >= KNOWN);
        let disturbed = world.book.troubles.contains_key(&(alloc.slot.clone(), at));
        let system = other.core().is_none_or(|core| core.is_system_job(&alloc.slot.job));
        // What a removed node still runs, because it cannot know, is no reason to leave a slot empty.
        let removal = |machine: &SimNode| {
            machine.core().is_some_and(|core| core.removal_of(&other.identity).is_some())
        };
        let removed = world.nodes.iter().any(removal);
        let excused = disturbed || system || removed;
        let asked = notes.was_moved(world.time, &other.identity);
        let name = &world.nodes[node].name;
        (old && !excused && !asked)
            .then(|| (at, format!("{name} starts {}, {} runs {alloc}", launch.alloc, other.name)))
    })
}

fn is_well(machine: &SimNode, unit: &Unit) -> bool {
    Behaviour::of(&unit.launch.task).is_sound()
        && unit.state == UnitState::Running
        && machine.units.temper == Temper::Well
}

/// Whether two allocations of a slot run the same version of their job, as far as one of their nodes knows.
fn same_version(world: &World, node: usize, one: &AllocId, at: usize, other: &AllocId) -> bool {
    let Some(core) = world.nodes[node].core() else { return false };
    let views = core.allocs(Some(&one.slot.job), true);
    let spec = |alloc: &AllocId, at: usize| {
        let of = |view: &&fabric::api::AllocView| {
            view.id == *alloc && view.node == world.nodes[at].identity
        };
        views.iter().find(of).map(|view| view.row.spec)
    };
    spec(one, node).is_some() && spec(one, node) == spec(other, at)
}
