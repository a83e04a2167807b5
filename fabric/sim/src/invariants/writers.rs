//! What must hold of rows: whoever is named as a row's writer wrote it.

use super::Verdict;
use crate::world::World;

/// Every virtual second.
pub(crate) fn observe(world: &mut World) {
    if world.book.forged.is_empty() {
        return;
    }
    for node in world.running() {
        check!(world, invariant_no_row_is_taken_in_a_name_that_did_not_write_it(world, node));
    }
}

/// What somebody wrote who has the gossip keys, in a member's name or in one that nobody was let in with, is in no table.
pub fn invariant_no_row_is_taken_in_a_name_that_did_not_write_it(
    world: &World,
    node: usize,
) -> Verdict {
    let machine = &world.nodes[node];
    for entry in machine.core().into_iter().flat_map(|core| core.entries()) {
        let forged = world.book.forged.get(&entry.stamp).is_some_and(|key| *key == entry.key);
        if forged {
            let (name, key) = (&machine.name, &entry.key);
            let writer = world.name_of(&entry.stamp.node);
            return Err(format!("{name} holds {key:?}, and {writer} did not write it"));
        }
    }
    Ok(())
}
