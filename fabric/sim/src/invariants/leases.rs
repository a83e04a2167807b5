//! What must hold for at-most-one work, at any moment.
//!
//! Which jobs promise it is taken from what users submitted, and what runs from the machines' unit managers:
//! a core that forgot that it needs a lease is found as well.

use fabric::id::{AllocId, SlotId};
use fabric::job::Guarantee;
use fabric::table::{Key, Value};
use std::collections::BTreeMap;
use std::time::Duration;

use super::Verdict;
use crate::node::SimNode;
use crate::world::World;

/// After a unit has begun to start. Only then can there be one too many, or when a machine goes on that
/// stood still: see [`observe`].
pub(crate) fn after_begin(world: &mut World, node: usize, alloc: &AllocId) {
    if !world.book.is_at_most_one(&alloc.slot.job) {
        return;
    }
    check!(world, invariant_at_most_one_work_has_a_guard(&world.nodes[node], alloc));
    check!(
        world,
        invariant_fencing_tokens_of_a_slot_only_grow(
            world.book.tokens.get(&alloc.slot).copied(),
            (alloc.epoch, node)
        )
    );
    world.book.tokens.insert(alloc.slot.clone(), (alloc.epoch, node));
    check!(world, invariant_an_at_most_one_slot_never_has_two_live_units(world, Some(&alloc.slot)));
}

/// Every virtual second, and when the guards of a machine that goes on have had their moment.
pub(crate) fn observe(world: &mut World) {
    if world.book.has_at_most_one() {
        check!(world, invariant_an_at_most_one_slot_never_has_two_live_units(world, None));
    }
}

/// How long the successor of an at-most-one allocation may have to wait for its lease.
pub fn longest_hold(world: &World) -> Duration {
    let specs = world.book.submitted.values().flatten();
    let specs = specs.filter(|spec| spec.guarantee == Guarantee::AtMostOne);
    let holds = specs.map(|spec| fabric::lease::hold(spec.task.stop_timeout));
    holds.max().unwrap_or_default()
}

/// Whether enough voters are there for any lease: with the disks of a majority, leases are lost until somebody
/// decrees new voters.
pub fn voters_can_grant(world: &World) -> bool {
    a_majority_of_voters(world, |_| true)
}

/// Whether a node may have a lease: a vote is not passed on by others, so it has to reach a majority itself.
pub fn may_hold_one(world: &World, holder: usize) -> bool {
    a_majority_of_voters(world, |voter| {
        voter == holder
            || world.network.reaches(holder, voter) && world.network.reaches(voter, holder)
    })
}

fn a_majority_of_voters(world: &World, counts: impl Fn(usize) -> bool) -> bool {
    let mut sets = world.running().into_iter().filter_map(|node| {
        match world.nodes[node].disk.entry(&Key::Voters).map(|entry| &entry.value) {
            Some(Value::Voters(set)) => Some(set),
            _ => None,
        }
    });
    let Some(first) = sets.next() else { return false };
    let newest = sets.fold(
        first,
        |newest, set| {
            if set.generation > newest.generation { set } else { newest }
        },
    );
    let is_there = |member: &&fabric::voters::Member| {
        let index = world.index_of(&member.node);
        index.is_some_and(|index| world.nodes[index].agent.is_some() && counts(index))
    };
    newest.members.iter().filter(is_there).count() >= newest.majority()
}

/// Never two of them, on any nodes, whatever those nodes or others believe. `slot`: only this one.
pub fn invariant_an_at_most_one_slot_never_has_two_live_units(
    world: &World,
    slot: Option<&SlotId>,
) -> Verdict {
    let mut live: BTreeMap<&SlotId, (&str, &AllocId)> = BTreeMap::new();
    for machine in &world.nodes {
        for (alloc, unit) in machine.units.there() {
            if slot.is_some_and(|slot| *slot != alloc.slot)
                || !world.book.is_at_most_one(&alloc.slot.job)
                || !machine.is_live(unit, world.time)
            {
                continue;
            }
            let here = (machine.name.as_str(), alloc);
            if let Some((name, other)) = live.insert(&alloc.slot, here) {
                return Err(format!("{other} runs on {name}, and {alloc} on {}", machine.name));
            }
        }
    }
    Ok(())
}

/// Whoever starts later has a higher token; only a restart in place has the same one.
/// Both are an epoch and a node.
pub fn invariant_fencing_tokens_of_a_slot_only_grow(
    before: Option<(u64, usize)>,
    now: (u64, usize),
) -> Verdict {
    match before {
        Some(before) if now.0 < before.0 || (now.0 == before.0 && now.1 != before.1) => {
            let ((epoch, node), (now, at)) = (before, now);
            Err(format!("token {now} starts on node {at} after token {epoch} on node {node}"))
        }
        _ => Ok(()),
    }
}

/// Nothing but a guard ends it when its agent is dead.
pub fn invariant_at_most_one_work_has_a_guard(machine: &SimNode, alloc: &AllocId) -> Verdict {
    match machine.units.units.get(alloc) {
        Some(unit) if unit.is_there() && unit.guard.is_none() => {
            Err(format!("{alloc} starts on {} without a lease", machine.name))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
