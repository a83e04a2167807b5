//! What must hold of time: one wrong clock is nobody else's business.

use fabric::limits;
use fabric::table::Value;

use super::Verdict;
use crate::clock::true_wall;
use crate::node::SimNode;
use crate::world::World;

/// Every virtual second.
pub(crate) fn observe(world: &mut World) {
    let wrong = world.nodes.iter().enumerate().filter(|(_, machine)| !is_right(world, machine));
    let wrong: Vec<usize> = wrong.map(|(node, _)| node).collect();
    world.book.wrong_clocks.extend(wrong);
    if !one_clock_at_most_was_wrong(world) {
        return;
    }
    for node in world.running() {
        check!(world, invariant_one_wrong_clock_changes_no_other_nodes_decisions(world, node));
    }
}

/// All that a node dates, deletes and orders goes by the fabric's time as it knows it: with one clock wrong, ever, every
/// other node's is the true time, and nothing that it holds is dated later.
pub fn invariant_one_wrong_clock_changes_no_other_nodes_decisions(
    world: &World,
    node: usize,
) -> Verdict {
    let machine = &world.nodes[node];
    let Some(core) = machine.core().filter(|_| !world.book.wrong_clocks.contains(&node)) else {
        return Ok(());
    };
    let (time, truth) = (core.fabric_time(machine.clock.read(world.time)), true_wall(world.time));
    if time.since(truth).max(truth.since(time)) > limits::STAMP_AHEAD_MAX {
        return Err(format!("{} goes by {time}, and it is {truth}", machine.name));
    }
    let ahead = core.horizon().since(truth);
    if ahead > limits::STAMP_AHEAD_MAX {
        return Err(format!("{} holds what is dated {ahead:?} ahead", machine.name));
    }
    Ok(())
}

/// Whoever ended is forgotten when its job says, twelve hours later if that says nothing, a look at the clock more or less: no row is
/// too old, and none is dated so far ahead that it would stay.
pub fn invariant_ended_rows_leave_although_a_clock_was_ahead(world: &World) -> Verdict {
    if !one_clock_at_most_was_wrong(world) {
        return Ok(());
    }
    let truth = true_wall(world.time);
    for node in world.running() {
        let machine = &world.nodes[node];
        // Its fabric's time may be its own: then it is late by as much as may be told from none.
        let late = match world.book.wrong_clocks.contains(&node) {
            true => limits::STAMP_AHEAD_MAX,
            false => limits::CLOCKS_AGREE,
        };
        let entries = machine.core().into_iter().flat_map(|core| core.entries());
        for entry in entries.filter(|entry| entry.is_over()) {
            let written = entry.stamp.wall();
            let ahead = written.since(truth);
            let kept = truth.since(written);
            let keep = match &entry.value {
                Value::Alloc(row) => row.keep(),
                _ => limits::ENDED_KEEP,
            };
            if ahead > limits::STAMP_AHEAD_MAX || kept > keep + 2 * LOOK + late {
                let (name, key) = (&machine.name, &entry.key);
                return Err(format!("{name} keeps {key:?}, dated {written}, and it is {truth}"));
            }
        }
    }
    Ok(())
}

/// Nodes look once a minute what is old.
const LOOK: std::time::Duration = std::time::Duration::from_secs(60);

fn one_clock_at_most_was_wrong(world: &World) -> bool {
    world.book.wrong_clocks.len() <= 1
}

fn is_right(world: &World, machine: &SimNode) -> bool {
    let (wall, truth) = (machine.clock.read(world.time).wall, true_wall(world.time));
    wall.since(truth).max(truth.since(wall)) < limits::CLOCKS_AGREE / 2
}

#[cfg(test)]
mod tests;
