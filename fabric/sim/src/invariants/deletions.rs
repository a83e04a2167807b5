//! What must hold of what users stopped.

use fabric::id::JobName;
use fabric::table::{Key, Order, Value};

use super::Verdict;
use crate::disk::was_dated_anew;
use crate::node::SimNode;
use crate::world::World;

/// Once a user was told that a job is stopped, no node has a version of it from before, if a node that had it on disk that
/// the job is stopped did not lose its disk.
pub fn invariant_a_job_that_was_stopped_does_not_come_back(world: &World) -> Verdict {
    for (job, commit) in world.book.commits.iter().filter(|(_, commit)| commit.stopped) {
        let knows = |machine: &SimNode| {
            commit.holders.contains(&machine.identity) && machine.agent.is_some()
        };
        if !world.nodes.iter().any(knows) {
            continue;
        }
        for node in world.running() {
            let machine = &world.nodes[node];
            let Some(entry) = machine.disk.entry(&Key::Job(job.clone())) else { continue };
            let is_old =
                entry.order() < commit.order && !was_dated_anew(commit.order, entry.order());
            if is_old && matches!(entry.value, Value::Job(_)) {
                return Err(format!(
                    "{job}, stopped at {:.3} s, is on the disk of {} again: {:?} before {:?}",
                    commit.at.as_secs_f64(),
                    machine.name,
                    entry.order(),
                    commit.order
                ));
            }
        }
    }
    Ok(())
}

/// Every virtual second.
pub(crate) fn observe(world: &mut World) {
    check!(world, invariant_no_disk_drops_a_job_that_nobody_stopped(world));
}

/// Whether somebody stopped a job after this was written, by what was ever on any disk.
pub fn was_stopped(world: &World, job: &JobName, order: &Order) -> bool {
    let mut stops = world.nodes.iter().filter_map(|machine| machine.disk.stopped.get(job));
    stops.any(|stop| stop >= order)
}

/// Whoever was away drops a job that the others know was stopped, and nothing else.
pub fn invariant_no_disk_drops_a_job_that_nobody_stopped(world: &World) -> Verdict {
    for machine in &world.nodes {
        for (job, order) in &machine.disk.dropped {
            if !was_stopped(world, job, order) {
                return Err(format!("{} dropped {job}, written at {order:?}", machine.name));
            }
        }
    }
    Ok(())
}
