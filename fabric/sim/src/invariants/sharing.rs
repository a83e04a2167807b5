//! What must hold of priorities, quotas and gangs.

use fabric::alloc::{Ending, Phase};
use fabric::api::{AllocView, JobView, NodeState, QuotaView};
use fabric::id::{AllocId, JobName, Namespace, NodeId, SlotId};
use fabric::job::{JobKind, JobSpec};
use fabric::quota::Amount;
use fabric::table::{Key, Value};
use fabric::topology::Topology;
use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use super::settled::held_for_another_try;
use crate::disk::{Change, entry_of};
use crate::world::World;

/// Every virtual second, on what the first node that runs knows.
pub(super) fn observe(world: &World) -> Verdict {
    let submitted = &world.book.submitted;
    let equal = |spec: &JobSpec| spec.priority == fabric::limits::PRIORITY_DEFAULT;
    if submitted.values().flatten().all(equal) {
        return Ok(());
    }
    match world.nodes.iter().find_map(|machine| machine.core()) {
        Some(core) => {
            invariant_preemption_never_cascades_into_itself(&core.allocs(None, true), submitted)
        }
        None => Ok(()),
    }
}

/// Whoever had to make room was less important than who needed it, by the specs that users submitted: the core's
/// own word for it is not asked. So no chain of displacements leads back to where it began.
pub fn invariant_preemption_never_cascades_into_itself(
    rows: &[AllocView],
    submitted: &BTreeMap<JobName, Vec<JobSpec>>,
) -> Verdict {
    for view in rows {
        let Some(Ending::Preempted { by, .. }) = &view.row.ending else { continue };
        let priorities = |job: &JobName| {
            let specs = submitted.get(job).map_or(&[][..], Vec::as_slice);
            specs.iter().map(|spec| spec.priority)
        };
        let (most, least) = (priorities(&by.slot.job).max(), priorities(&view.id.slot.job).min());
        if let (Some(most), Some(least)) = (most, least)
            && most <= least
        {
            return Err(format!(
                "{} (priority {least}) made room for {by} (priority {most} at most)",
                view.id
            ));
        }
    }
    Ok(())
}

/// Allocations that `node` claims something for in this write, and that it claimed nothing for before.
pub(super) fn new_claims(world: &mut World, node: usize, changes: &[Change]) -> Vec<AllocId> {
    let machine = &mut world.nodes[node];
    let (me, disk) = (machine.identity, &machine.disk);
    let Some(agent) = &mut machine.agent else { return Vec::new() };
    let mut made = Vec::new();
    for entry in changes.iter().filter_map(entry_of) {
        let (Key::Alloc(slot, owner), Value::Alloc(row)) = (&entry.key, &entry.value) else {
            continue;
        };
        let alloc = row.of(slot.clone());
        if *owner != me || !row.phase.holds_claim() || !agent.claimed.insert(alloc.clone()) {
            continue;
        }
        let adopted = match disk.entry(&entry.key).map(|entry| &entry.value) {
            Some(Value::Alloc(before)) => before.epoch >= row.epoch,
            _ => false,
        };
        if !adopted {
            made.push(alloc);
        }
    }
    made
}

/// What the core of a node says of the namespaces that have a quota and of `made`, at this time.
pub(super) fn claims_within_quotas(world: &World, node: usize, made: &[AllocId]) -> Verdict {
    let machine = &world.nodes[node];
    let Some(core) = machine.core().filter(|_| !made.is_empty()) else { return Ok(()) };
    let quotas = core.quotas();
    if quotas.is_empty() {
        return Ok(());
    }
    let topology =
        |node: &NodeId| world.index_of(node).map(|index| &world.nodes[index].hardware.topology);
    let rows = core.allocs(None, false);
    invariant_no_claim_goes_above_a_quota_that_its_node_knows(
        machine.identity,
        made,
        &rows,
        &core.jobs(),
        &quotas,
        topology,
    )
}

/// When a node makes a claim, all claims that it knows of on nodes that answer are within the namespace's quota,
/// the new ones included, and without those that the new ones replace. Only a quota that is lowered, or claims that
/// the node had not heard of, may lead above it.
pub fn invariant_no_claim_goes_above_a_quota_that_its_node_knows<'w>(
    node: NodeId,
    made: &[AllocId],
    rows: &[AllocView],
    jobs: &[JobView],
    quotas: &[QuotaView],
    topology: impl Fn(&NodeId) -> Option<&'w Topology>,
) -> Verdict {
    let jobs: BTreeMap<&JobName, &JobSpec> =
        jobs.iter().map(|job| (&job.name, &job.spec)).collect();
    let namespace = |slot: &SlotId| jobs.get(&slot.job).map(|spec| &spec.namespace);
    let is_service =
        |slot: &SlotId| jobs.get(&slot.job).is_some_and(|spec| spec.kind == JobKind::Service);
    let touched: BTreeSet<&Namespace> =
        made.iter().filter_map(|alloc| namespace(&alloc.slot)).collect();
    for view in quotas.iter().filter(|view| touched.contains(&view.namespace)) {
        let mut sum = Amount::default();
        for row in rows.iter().filter(|row| namespace(&row.id.slot) == Some(&view.namespace)) {
            let is_new = row.node == node && made.contains(&row.id);
            let is_replaced =
                is_service(&row.id.slot) && made.iter().any(|alloc| alloc.slot == row.id.slot);
            let answers = row.node == node || row.node_state == NodeState::Alive;
            if is_new || answers && !is_replaced {
                sum.add(&Amount::of(&row.row.claim, topology(&row.node)));
            }
        }
        if let Err(excess) = view.quota.check(&sum) {
            let made: Vec<String> = made.iter().map(ToString::to_string).collect();
            return Err(format!("{} with {}: {excess}", view.namespace, made.join(", ")));
        }
    }
    Ok(())
}

/// What really runs of a namespace is within its quota once the fabric has settled, and every node sees it so.
pub fn invariant_quotas_hold_after_heal(world: &World) -> Verdict {
    for node in world.running() {
        let Some(core) = world.nodes[node].core() else { continue };
        for view in core.quotas() {
            let namespace = &view.namespace;
            let used = really_used(world, &core.jobs(), |spec| spec.namespace == *namespace);
            for (whose, amount) in [("what runs", &used), ("the view", &view.used)] {
                if let Err(excess) = view.quota.check(amount) {
                    let name = &world.nodes[node].name;
                    let claims = claims_of(core, namespace).join(", ");
                    return Err(format!(
                        "{whose} of {namespace}, as {name} sees it, is {excess}: {claims}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The allocations that a node knows to hold a claim in a namespace.
fn claims_of(core: &fabric::node::Node, namespace: &Namespace) -> Vec<String> {
    let jobs = core.jobs().into_iter().filter(|view| view.spec.namespace == *namespace);
    let rows = jobs.flat_map(|view| core.allocs(Some(&view.name), false));
    let held = rows.filter(|view| view.row.phase.holds_claim());
    held.map(|view| format!("{} on {}", view.id, view.node_name)).collect()
}

/// Whether the quota of a job's namespace, if it has one, lets it have one more slot next to what really runs or
/// is about to.
pub(super) fn may_have(world: &World, spec: &JobSpec) -> bool {
    let Some(core) = world.nodes.iter().find_map(|machine| machine.core()) else { return true };
    let quotas = core.quotas();
    let Some(view) = quotas.iter().find(|view| view.namespace == spec.namespace) else {
        return true;
    };
    let jobs = core.jobs();
    let mut used = really_used(world, &jobs, |other| other.namespace == spec.namespace);
    let one = Amount::least(&JobSpec { count: 1, ..spec.clone() });
    for node in world.running() {
        let machine = &world.nodes[node];
        let jobs: BTreeMap<_, _> = jobs.iter().map(|view| (&view.name, &view.spec)).collect();
        for (slot, claim) in held_for_another_try(machine) {
            if jobs.get(&slot.job).is_some_and(|other| other.namespace == spec.namespace) {
                used.add(&Amount::of(&claim, Some(&machine.hardware.topology)));
            }
        }
    }
    // A whole core may have more threads than one: errs on the side of 'no'.
    used.add(&Amount { cpu_millis: one.cpu_millis * 2, ..one });
    view.quota.check(&used).is_ok()
}

/// The sum of what unit managers really run of the jobs that fit.
fn really_used(world: &World, jobs: &[JobView], fits: impl Fn(&JobSpec) -> bool) -> Amount {
    let mut used = Amount::default();
    for node in world.running() {
        let machine = &world.nodes[node];
        for (alloc, unit) in machine.units.there() {
            let job = jobs.iter().find(|view| view.name == alloc.slot.job);
            if job.is_some_and(|view| fits(&view.spec)) {
                used.add(&Amount::of(&unit.launch.claim, Some(&machine.hardware.topology)));
            }
        }
    }
    used
}

/// The first unit of a gang starts: each of its slots has a claim on some disk at this time.
pub fn invariant_no_unit_of_a_gang_starts_unless_all_slots_were_reserved(
    job: &JobName,
    count: u32,
    reserved: &BTreeSet<u32>,
) -> Verdict {
    match (0..count).find(|index| !reserved.contains(index)) {
        Some(index) => Err(format!("{job} begins, and {job}/{index} is reserved nowhere")),
        None => Ok(()),
    }
}

/// If `job` is a gang, as `node` knows it, of which nothing has started yet: how many slots it has, and which of
/// them have a claim on a disk.
pub(super) fn gang_at_start(
    world: &World,
    node: usize,
    job: &JobName,
) -> Option<(u32, BTreeSet<u32>)> {
    let view = world.nodes[node].core()?.job(job).ok()?;
    if !view.spec.gang || world.book.whole_gangs.contains(job) {
        return None;
    }
    let mut reserved = BTreeSet::new();
    for machine in &world.nodes {
        for index in 0..view.spec.count {
            let slot = SlotId { job: job.clone(), index };
            let row = machine.disk.entry(&Key::Alloc(slot, machine.identity));
            if let Some(Value::Alloc(row)) = row.map(|entry| &entry.value)
                && row.phase.holds_claim()
            {
                reserved.insert(index);
            }
        }
    }
    Some((view.spec.count, reserved))
}

/// The same for a world.
pub fn invariant_no_gang_is_half_reserved_at_rest(world: &World) -> Verdict {
    for core in world.nodes.iter().filter_map(|machine| machine.core()) {
        let jobs = core.jobs();
        if jobs.iter().any(|view| view.spec.gang) {
            invariant_a_gang_is_never_half_reserved_at_rest(&core.allocs(None, false), &jobs)?;
        }
    }
    Ok(())
}

/// At rest either all slots of a gang live, or none holds a claim: unless it had begun, and lost one since.
pub fn invariant_a_gang_is_never_half_reserved_at_rest(
    rows: &[AllocView],
    jobs: &[JobView],
) -> Verdict {
    for view in jobs.iter().filter(|view| view.spec.gang) {
        let live = |phase: fn(Phase) -> bool| {
            let of_job = rows.iter().filter(|row| row.id.slot.job == view.name);
            of_job.filter(|row| phase(row.row.phase)).count()
        };
        let (reserved, begun) = (
            live(|phase| phase == Phase::Reserved),
            live(|phase| phase > Phase::Reserved && phase < Phase::Ended),
        );
        if reserved > 0 && begun == 0 {
            return Err(format!(
                "{} has {reserved} reservations of {}",
                view.name, view.spec.count
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
