//! What must hold while old and new agents live side by side.

use fabric::id::NodeId;
use fabric::level::FORMAT;
use std::collections::BTreeSet;

use super::Verdict;
use crate::world::World;

/// Nothing leaves for a node that its agent is too old to read. Words inside a word that is passed on count, too.
pub fn invariant_nobody_is_sent_what_it_cannot_read(
    world: &World,
    node: usize,
    to: NodeId,
    bytes: &[u8],
) -> Verdict {
    let Some(receiver) = world.index_of(&to).map(|index| &world.nodes[index]) else {
        return Ok(());
    };
    let needed = bytes.first().map_or(0, |first| first.saturating_sub(FORMAT));
    if needed <= receiver.level {
        return Ok(());
    }
    let (sender, name, level) = (&world.nodes[node].name, &receiver.name, receiver.level);
    Err(format!("{sender} sends {name} what needs level {needed}, and it reads up to {level}"))
}

/// At rest all members know the same level, and all can read it.
pub fn invariant_all_members_know_the_level_of_the_fabric(world: &World) -> Verdict {
    let machines = || world.running().into_iter().map(|node| &world.nodes[node]);
    let levels: BTreeSet<u8> =
        machines().filter_map(|it| it.core().map(|core| core.level())).collect();
    if levels.len() > 1 {
        return Err(format!("levels differ: {levels:?}"));
    }
    let members = machines().find_map(|it| it.core().map(|core| core.roster().len()));
    let all_are_up = members == Some(machines().count());
    let lowest = machines().min_by_key(|machine| machine.level);
    match (levels.first(), lowest) {
        (Some(level), Some(machine)) if *level > machine.level => {
            Err(format!("the fabric is at level {level}, and {} reads less", machine.name))
        }
        (Some(level), Some(machine)) if all_are_up && *level < machine.level => {
            Err(format!("the fabric is at level {level}, and all read {}", machine.level))
        }
        _ => Ok(()),
    }
}
