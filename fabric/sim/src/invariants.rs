//! What must hold, whatever happens: each promise is a function named as a sentence.
//!
//! Those in this file are checked all the time, at the moment when a core gives a command. Those in
//! [`settled`] are checked once faults have stopped and the fabric had time to settle. None of them asks
//! the core's own bookkeeping: claims are summed from the commands that the unit manager really
//! carries out, promises are compared with what is really on a disk.

use fabric::alloc::Ending;
use fabric::cpuset::CpuSet;
use fabric::id::{AllocId, NodeId};
use fabric::io::Launch;
use fabric::job::JobKind;
use fabric::limits;
use fabric::message::Message;
use fabric::table::{Key, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::book::Command;
use crate::disk::Change;
use crate::gate::Sealed;
use crate::node::SimNode;
use crate::units::{Behaviour, Temper, Unit, UnitState};
use crate::world::World;

/// Notes a broken invariant down under its function's name.
macro_rules! check {
    ($world:expr, $invariant:ident ( $($argument:expr),* )) => {
        if let Err(detail) = $invariant($($argument),*) {
            let time = $world.time;
            $world.book.violate(time, stringify!($invariant), detail);
        }
    };
}

mod answers;
pub mod copies;
pub mod deletions;
pub mod leases;
pub mod levels;
pub mod rollouts;
pub mod settled;
pub mod sharing;
use copies::{
    invariant_a_healthy_original_is_not_ended_for_a_copy,
    invariant_a_pulled_cable_concerns_nobody_elses_work,
    invariant_a_removed_node_runs_nothing_once_it_can_know,
    invariant_restarts_of_agents_start_nothing_again,
};
pub mod time;
pub mod writers;
use levels::invariant_nobody_is_sent_what_it_cannot_read;
use sharing::invariant_no_unit_of_a_gang_starts_unless_all_slots_were_reserved;

/// Commands about one allocation within a minute that change nothing.
const REPEATS_MAX: usize = 30;
/// Outputs of one `handle`.
const OUTPUTS_AT_ONCE_MAX: usize = 20_000;
/// Wake-ups at one and the same moment that make no progress any more.
const WAKES_AT_ONCE_MAX: u32 = 1000;
/// An answer to a user may take this long, with slow disks and stalled processors.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A node that has been alone for this long has heard all that was under way.
const ALONE: Duration = Duration::from_secs(15);

type Verdict = Result<(), String>;

/// Every virtual second.
pub(crate) fn observe(world: &mut World) {
    note_loneliness(world);
    leases::observe(world);
    copies::observe(world);
    check!(world, invariant_a_removed_node_runs_nothing_once_it_can_know(world));
    time::observe(world);
    deletions::observe(world);
    writers::observe(world);
    answers::observe(world);
    check!(world, invariant_every_request_is_answered(world));
    check!(world, invariant_rows_on_disk_are_readable_and_never_go_back(world));
    if let Err(detail) = sharing::observe(world) {
        let time = world.time;
        world.book.violate(time, "invariant_preemption_never_cascades_into_itself", detail);
    }
}

/// Before a core is woken, as often as said at this moment. Whether it still makes progress.
pub(crate) fn before_tick(world: &mut World, node: usize, wakes: u32) -> bool {
    let name = &world.nodes[node].name;
    let progress = invariant_a_tick_makes_progress(name, wakes).is_ok();
    check!(world, invariant_a_tick_makes_progress(name, wakes));
    progress
}

/// Before a core hears a message of another node.
pub(crate) fn before_message(world: &mut World, from: usize, bytes: &[u8]) {
    let name = &world.nodes[from].name;
    check!(world, invariant_what_a_node_sends_can_be_read(name, bytes));
}

/// Before a datagram leaves.
pub(crate) fn before_transmit(world: &mut World, node: usize, to: NodeId, payload: &[u8]) {
    check!(world, invariant_nobody_is_sent_what_it_cannot_read(world, node, to, payload));
    let name = &world.nodes[node].name;
    check!(
        world,
        invariant_datagrams_messages_and_queues_stay_within_their_limits(
            name,
            "a datagram",
            payload.len(),
            limits::DATAGRAM_BYTES_MAX
        )
    );
}

/// Before a core hears a datagram.
pub(crate) fn before_datagram(world: &mut World, node: usize, from: NodeId, sealed: &Sealed) {
    check!(
        world,
        invariant_no_datagram_from_a_non_member_changes_a_decision(world, node, from, sealed)
    );
    world.book.hears(node, world.nodes[node].generation, from, sealed);
}

/// Before a message leaves.
pub(crate) fn before_send(
    world: &mut World,
    node: usize,
    to: NodeId,
    message: &Message,
    bytes: &[u8],
) {
    check!(world, invariant_nobody_is_sent_what_it_cannot_read(world, node, to, bytes));
    let name = &world.nodes[node].name;
    check!(
        world,
        invariant_datagrams_messages_and_queues_stay_within_their_limits(
            name,
            "a message",
            bytes.len(),
            limits::MESSAGE_BYTES_MAX
        )
    );
    let passed_on = said_by_another(message);
    let message = passed_on.as_ref().unwrap_or(message);
    check!(world, invariant_what_is_promised_to_a_peer_is_on_disk(world, node, to, message));
    match message {
        Message::Propose { alloc, .. } => command(world, node, Command::Propose, alloc, 0),
        Message::Retire { alloc, .. } => command(world, node, Command::Retire, alloc, 0),
        _ => {}
    }
}

/// The word inside one that is to be passed on by somebody else.
fn said_by_another(message: &Message) -> Option<Message> {
    match message {
        Message::PassOn { bytes, .. } => Message::decode(bytes).ok(),
        _ => None,
    }
}

/// Before a write begins.
pub(crate) fn before_persist(world: &mut World, node: usize, sequence: u64, changes: &[Change]) {
    let Some(agent) = &mut world.nodes[node].agent else { return };
    let before = agent.sequence.replace(sequence);
    check!(world, invariant_writes_are_numbered_one_by_one(before, sequence));
    let made = sharing::new_claims(world, node, changes);
    for alloc in &made {
        let machine = &world.nodes[node];
        check!(
            world,
            invariant_no_two_allocations_share_an_identity(machine, node, alloc, 0, None)
        );
    }
    if let Err(detail) = sharing::claims_within_quotas(world, node, &made) {
        let (time, name) = (world.time, &world.nodes[node].name);
        let detail = format!("{name} claims: {detail}");
        let name = "invariant_no_claim_goes_above_a_quota_that_its_node_knows";
        world.book.violate(time, name, detail);
    }
}

/// Before a unit is started.
pub(crate) fn before_start(world: &mut World, node: usize, launch: &Launch) {
    check!(world, invariant_nothing_starts_before_its_claim_is_on_disk(&world.nodes[node], launch));
    check!(world, invariant_nothing_starts_before_it_is_prepared(&world.nodes[node], launch));
    let earlier = world.book.first_start(node, launch);
    let (machine, alloc, run) = (&world.nodes[node], &launch.alloc, launch.run);
    check!(
        world,
        invariant_no_two_allocations_share_an_identity(machine, node, alloc, run, earlier)
    );
    let job = &launch.alloc.slot.job;
    if let Some((count, reserved)) = sharing::gang_at_start(world, node, job) {
        check!(
            world,
            invariant_no_unit_of_a_gang_starts_unless_all_slots_were_reserved(
                job, count, &reserved
            )
        );
        world.book.whole_gangs.insert(job.clone());
    }
    if !world.nodes[node].units.units.get(&launch.alloc).is_some_and(Unit::is_there) {
        check!(world, invariant_restarts_of_agents_start_nothing_again(world, node, launch));
        check!(world, invariant_a_pulled_cable_concerns_nobody_elses_work(world, node, launch));
        command(world, node, Command::Start, &launch.alloc, launch.run);
    }
}

/// What was started before, and is told again, needs nothing.
pub fn invariant_nothing_starts_before_it_is_prepared(
    machine: &SimNode,
    launch: &Launch,
) -> Verdict {
    let units = &machine.units;
    if !units.is_new(launch) || units.is_prepared(launch) {
        return Ok(());
    }
    Err(format!(
        "{} starts {}, run {}, before it is prepared",
        machine.name, launch.alloc, launch.run
    ))
}

/// What has ended on a node, by a row that was ever on its disk, neither claims nor starts anything there again, also when that
/// row has left. Nor are there two at a time: `earlier` is where it was started first, and the highest run that
/// has begun, unless the disk refused a write since. What is started anew in its place has a higher run; the same run is told again to
/// whoever adopts it.
pub fn invariant_no_two_allocations_share_an_identity(
    machine: &SimNode,
    node: usize,
    alloc: &AllocId,
    run: u32,
    earlier: Option<(usize, u32)>,
) -> Verdict {
    let (name, unit) = (&machine.name, alloc.unit());
    if machine.disk.ended.contains(&(machine.identity, alloc.clone())) {
        return Err(format!("{alloc} ({unit}), run {run}, begins on {name}, and has ended there"));
    }
    match earlier {
        Some((at, before)) if at != node || before > run => Err(format!(
            "{alloc} ({unit}), run {run}, begins on node {node}, and run {before} of it was on node {at}"
        )),
        _ => Ok(()),
    }
}

/// After a unit has begun to start.
pub(crate) fn after_start(world: &mut World, node: usize) {
    let machine = &world.nodes[node];
    check!(world, invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node(machine));
    let machine = &world.nodes[node];
    check!(world, invariant_a_claim_names_only_what_the_machine_has(machine));
}

/// Before a unit is stopped.
pub(crate) fn before_stop(world: &mut World, node: usize, alloc: &AllocId, run: u32) {
    note_loneliness(world);
    check!(
        world,
        invariant_no_running_allocation_is_stopped_by_mere_loss_of_peers(world, node, alloc, run)
    );
    check!(world, invariant_a_healthy_original_is_not_ended_for_a_copy(world, node, alloc, run));
    rollouts::before_stop(world, node, alloc);
    command(world, node, Command::Stop, alloc, run);
}

/// After a core wanted nothing more.
pub(crate) fn after_outputs(world: &mut World, node: usize, outputs: usize) {
    let machine = &world.nodes[node];
    check!(
        world,
        invariant_datagrams_messages_and_queues_stay_within_their_limits(
            &machine.name,
            "outputs at once",
            outputs,
            OUTPUTS_AT_ONCE_MAX
        )
    );
    if outputs > 0 {
        let machine = &world.nodes[node];
        check!(world, invariant_an_exclusive_core_runs_nobody_elses_work(machine));
        let machine = &world.nodes[node];
        check!(world, invariant_no_node_has_more_disk_promised_than_its_pool(machine));
    }
}

/// Sums up what the unit manager's units hold, from the commands that started them.
pub fn invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node(
    machine: &SimNode,
) -> Verdict {
    let topology = &machine.hardware.topology;
    let mut cpus: BTreeMap<u16, &AllocId> = BTreeMap::new();
    let mut devices: BTreeMap<&str, &AllocId> = BTreeMap::new();
    let mut ports: BTreeMap<u16, &AllocId> = BTreeMap::new();
    let mut pages: BTreeMap<(u32, u16), u32> = BTreeMap::new();
    let mut bound: BTreeMap<u16, u64> = BTreeMap::new();
    let (mut memory, mut shared) = (0u64, 0u64);
    let name = &machine.name;
    for (alloc, unit) in machine.units.there() {
        let claim = &unit.launch.claim;
        for cpu in claim.cpus.iter() {
            if let Some(other) = cpus.insert(cpu, alloc) {
                return Err(format!("cpu {cpu} of {name} is held by {other} and {alloc}"));
            }
        }
        for device in &claim.devices {
            if let Some(other) = devices.insert(device, alloc) {
                return Err(format!("{device} of {name} is held by {other} and {alloc}"));
            }
        }
        for port in claim.ports.values() {
            if let Some(other) = ports.insert(*port, alloc) {
                return Err(format!("port {port} of {name} is held by {other} and {alloc}"));
            }
        }
        for (size, numa, count) in &claim.hugepages {
            *pages.entry((*size, *numa)).or_default() += count;
        }
        memory += unit.launch.memory.max(claim.memory);
        shared += u64::from(claim.shared_millis);
        let mut mems = claim.mems.iter();
        if let (Some(only), None) = (mems.next(), mems.next()) {
            *bound.entry(only).or_default() += claim.memory;
        }
    }
    if memory > topology.memory {
        return Err(format!("{memory} bytes of {}'s {} are held", name, topology.memory));
    }
    for numa in &topology.numa {
        let held = bound.get(&numa.id).copied().unwrap_or(0);
        if held > numa.memory {
            return Err(format!("{held} bytes of memory node {} of {name} are held", numa.id));
        }
    }
    for ((size, numa), held) in pages {
        let pools = topology.hugepages.iter();
        let pool = pools.filter(|pool| pool.size_kib == size && pool.numa == numa);
        let there: u32 = pool.map(|pool| pool.count).sum();
        if held > there {
            return Err(format!("{held} pages of {size} KiB of memory node {numa} of {name}"));
        }
    }
    let free = all_cpus(machine).iter().filter(|cpu| !cpus.contains_key(cpu)).count() as u64;
    if shared > free * 1000 {
        return Err(format!("{shared} thousandths of {free} shared CPUs of {name} are promised"));
    }
    Ok(())
}

/// Neither by what its units hold, nor by what it has said yes to and not started yet.
pub fn invariant_no_node_has_more_disk_promised_than_its_pool(machine: &SimNode) -> Verdict {
    let pool = machine.hardware.topology.disk().map_or(0, |pool| pool.capacity);
    let held: u64 = machine.units.there().map(|(_, unit)| unit.launch.claim.disk).sum();
    let promised = machine.core().map_or(0, |core| core.disk_claimed());
    match (held, promised) {
        (held, _) if held > pool => {
            Err(format!("{held} bytes of the {pool} of {}'s disk are held", machine.name))
        }
        (_, promised) if promised > pool => {
            Err(format!("{promised} bytes of the {pool} of {}'s disk are promised", machine.name))
        }
        _ => Ok(()),
    }
}

/// No claim names what is not there, or what belongs to the system.
pub fn invariant_a_claim_names_only_what_the_machine_has(machine: &SimNode) -> Verdict {
    let topology = &machine.hardware.topology;
    let all = all_cpus(machine);
    let wrong = |alloc: &AllocId, what: String| Err(format!("{alloc} on {}: {what}", machine.name));
    for (alloc, unit) in machine.units.there() {
        let launch = &unit.launch;
        if !all.contains_all(&launch.cpus) || launch.cpus.is_empty() {
            return wrong(alloc, format!("cpus {} of {all}", launch.cpus));
        }
        if !launch.claim.cpus.is_empty() && launch.claim.cpus != launch.cpus {
            return wrong(alloc, format!("runs on {}, not {}", launch.cpus, launch.claim.cpus));
        }
        if let Some(mem) =
            launch.claim.mems.iter().find(|mem| topology.numa.iter().all(|numa| numa.id != *mem))
        {
            return wrong(alloc, format!("memory node {mem}"));
        }
        let unknown = |path: &&String| topology.devices.iter().all(|device| device.path != **path);
        if let Some(device) = launch.claim.devices.iter().find(unknown) {
            return wrong(alloc, format!("device {device}"));
        }
        if launch.claim.memory != launch.memory {
            return wrong(
                alloc,
                format!("{} bytes, claimed {}", launch.memory, launch.claim.memory),
            );
        }
    }
    Ok(())
}

/// What runs on the shared CPUs has left a core before its owner starts on it.
pub fn invariant_an_exclusive_core_runs_nobody_elses_work(machine: &SimNode) -> Verdict {
    let mut exclusive = CpuSet::new();
    for (_, unit) in machine.units.there() {
        exclusive.insert_all(&unit.launch.claim.cpus);
    }
    if exclusive.is_empty() {
        return Ok(());
    }
    for (alloc, unit) in machine.units.there() {
        let misplaced = Behaviour::of(&unit.launch.task).misplaced;
        let shared = unit.launch.claim.cpus.is_empty();
        if shared && !misplaced && unit.cpus.intersects(&exclusive) {
            let (name, cpus) = (&machine.name, &unit.cpus);
            return Err(format!("{alloc} runs on {cpus} of {name}, exclusive are {exclusive}"));
        }
    }
    Ok(())
}

/// The row with exactly this claim is on disk, not merely on its way there.
pub fn invariant_nothing_starts_before_its_claim_is_on_disk(
    machine: &SimNode,
    launch: &Launch,
) -> Verdict {
    let alloc = &launch.alloc;
    let key = Key::Alloc(alloc.slot.clone(), machine.identity);
    match machine.disk.entry(&key).map(|entry| &entry.value) {
        Some(Value::Alloc(row)) if row.epoch == alloc.epoch && row.claim == launch.claim => Ok(()),
        Some(Value::Alloc(row)) => {
            Err(format!("{} starts {alloc}, on disk is epoch {}", machine.name, row.epoch))
        }
        _ => Err(format!("{} starts {alloc}, nothing of it is on disk", machine.name)),
    }
}

/// An accepted proposal's claim, and entries confirmed as held, survive a power cut.
pub fn invariant_what_is_promised_to_a_peer_is_on_disk(
    world: &World,
    node: usize,
    to: NodeId,
    message: &Message,
) -> Verdict {
    let machine = &world.nodes[node];
    match message {
        Message::Accept { alloc } => {
            let key = Key::Alloc(alloc.slot.clone(), machine.identity);
            match machine.disk.entry(&key).map(|entry| &entry.value) {
                Some(Value::Alloc(row)) if row.epoch >= alloc.epoch => Ok(()),
                _ => Err(format!("{} accepts {alloc} without a claim on disk", machine.name)),
            }
        }
        Message::Held { ticket } => {
            let lost = world.book.hold(node, to, *ticket).iter().find(|(key, order)| {
                machine.disk.entry(key).is_none_or(|entry| entry.order() < *order)
            });
            match lost {
                Some((key, _)) => Err(format!("{} holds {key:?} not on disk", machine.name)),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Within a start of the agent, each write has the number after the one before.
pub fn invariant_writes_are_numbered_one_by_one(before: Option<u64>, sequence: u64) -> Verdict {
    match before {
        Some(before) if sequence != before + 1 => Err(format!("{sequence} follows {before}")),
        _ => Ok(()),
    }
}

/// Nothing that leaves a core, or waits in it, is larger than its limit.
pub fn invariant_datagrams_messages_and_queues_stay_within_their_limits(
    name: &str,
    what: &str,
    size: usize,
    limit: usize,
) -> Verdict {
    if size <= limit { Ok(()) } else { Err(format!("{name}: {what}: {size} of at most {limit}")) }
}

/// The same command about the same allocation, again and again, while nothing changes for it.
pub fn invariant_no_command_repeats_without_progress(
    name: &str,
    command: Command,
    alloc: &AllocId,
    times: usize,
) -> Verdict {
    if times <= REPEATS_MAX {
        Ok(())
    } else {
        Err(format!("{name}: {command:?} {alloc}, {times} times within a minute"))
    }
}

/// A node without peers stops only what its own table tells it to stop, and at-most-one work whose lease
/// nobody renews.
pub fn invariant_no_running_allocation_is_stopped_by_mere_loss_of_peers(
    world: &World,
    node: usize,
    alloc: &AllocId,
    run: u32,
) -> Verdict {
    let machine = &world.nodes[node];
    let alone = world.book.alone_since[node].is_some_and(|since| world.time - since >= ALONE);
    let user = world.book.user_asked[node]
        .is_some_and(|at| world.book.alone_since[node].is_none_or(|since| at >= since));
    let Some(unit) = machine.units.units.get(alloc).filter(|unit| unit.launch.run == run) else {
        return Ok(());
    };
    let sound = Behaviour::of(&unit.launch.task).is_sound() && machine.units.temper == Temper::Well;
    let asked = world.book.was_asked_to_end(node, alloc);
    let leased = world.book.is_at_most_one(&alloc.slot.job);
    if !alone || user || !sound || asked || leased || unit.state != UnitState::Running {
        return Ok(());
    }
    match reason_to_stop(world, node, alloc) {
        Some(_) => Ok(()),
        None => Err(format!("{} stops {alloc} for no reason that it could know", machine.name)),
    }
}

/// Why a node should stop an allocation, by what it has written down itself.
fn reason_to_stop(world: &World, node: usize, alloc: &AllocId) -> Option<&'static str> {
    let machine = &world.nodes[node];
    let read = |key: Key| machine.disk.entry_under_way(&key).map(|entry| entry.value);
    let Some(Value::Alloc(row)) = read(Key::Alloc(alloc.slot.clone(), machine.identity)) else {
        return Some("no row explains it");
    };
    if row.epoch != alloc.epoch {
        return Some("another epoch is on disk");
    }
    // The command comes before the write that explains it.
    let told = world.agent_ending(node, alloc);
    match told.as_ref().or(row.ending.as_ref()) {
        Some(Ending::Preempted { .. }) => return Some("something more important runs here"),
        Some(Ending::Retired { reason }) if reason.contains("quota") => {
            return Some("its namespace has more than its quota");
        }
        _ => {}
    }
    let Some(Value::Job(job)) = read(Key::Job(alloc.slot.job.clone())) else {
        return Some("its job is gone");
    };
    let (spec, ..) = job.effective();
    if row.spec != job.hash() {
        return Some("another version is in force");
    }
    if alloc.slot.index >= spec.count {
        return Some("scaled down");
    }
    let Some(Value::Node(info)) = read(Key::Node(machine.identity)) else {
        return Some("the node's own row is gone");
    };
    if info.draining {
        return Some("draining");
    }
    let elsewhere = world.agent_allocs(node).into_iter().any(|(other, at, live)| {
        other.slot == alloc.slot && at != machine.identity && live && other.epoch >= alloc.epoch
    });
    match (elsewhere, spec.kind) {
        (true, JobKind::Service) => Some("the slot is filled elsewhere"),
        _ => None,
    }
}

/// A core that is woken again and again while no time passes does nothing but wake.
pub fn invariant_a_tick_makes_progress(name: &str, wakes: u32) -> Verdict {
    match wakes {
        0..=WAKES_AT_ONCE_MAX => Ok(()),
        _ => Err(format!("{name} is woken again and again")),
    }
}

/// Whoever receives a message of a member can read it.
pub fn invariant_what_a_node_sends_can_be_read(name: &str, bytes: &[u8]) -> Verdict {
    Message::decode(bytes).map(drop).map_err(|error| format!("{name}: {error}"))
}

/// Every request gets its answer while the agent that took it lives.
pub fn invariant_every_request_is_answered(world: &World) -> Verdict {
    let late = world.asked.values().find(|asked| {
        let awake_since = world.nodes[asked.node].paused_until.max(asked.at);
        world.time.saturating_sub(awake_since) > ANSWER_MAX
    });
    match late {
        Some(asked) => {
            Err(format!("{}: no answer to {}", world.nodes[asked.node].name, asked.what))
        }
        None => Ok(()),
    }
}

/// What is on disk can be read back, and an older row never replaces a newer one.
pub fn invariant_rows_on_disk_are_readable_and_never_go_back(world: &World) -> Verdict {
    for machine in &world.nodes {
        if let Some(wrong) = machine.disk.wrongs.first() {
            return Err(format!("{}: {wrong}", machine.name));
        }
    }
    Ok(())
}

/// Every CPU that the fabric may use on a machine.
pub(crate) fn all_cpus(machine: &SimNode) -> CpuSet {
    let mut all = CpuSet::new();
    for core in &machine.hardware.topology.cores {
        all.insert_all(&core.cpus);
    }
    all
}

fn command(world: &mut World, node: usize, command: Command, alloc: &AllocId, run: u32) {
    let time = world.time;
    let times = world.book.commanded(time, node, command, alloc, run);
    let name = &world.nodes[node].name;
    check!(world, invariant_no_command_repeats_without_progress(name, command, alloc, times));
}

/// Keeps track of who has had no peer for how long.
fn note_loneliness(world: &mut World) {
    let running: BTreeSet<usize> = world.running().into_iter().collect();
    for node in 0..world.nodes.len() {
        let peers = running.iter().filter(|peer| **peer != node);
        let heard = peers.filter(|peer| world.network.reaches(**peer, node)).count();
        let alone = world.nodes[node].agent.is_some() && heard == 0;
        let since = world.book.alone_since[node];
        world.book.alone_since[node] = if alone { since.or(Some(world.time)) } else { None };
    }
}

/// What somebody brings who has no key is for this node, and new to it: as if its sender's own packet had taken
/// another way.
fn invariant_no_datagram_from_a_non_member_changes_a_decision(
    world: &World,
    node: usize,
    from: NodeId,
    sealed: &Sealed,
) -> Verdict {
    let machine = &world.nodes[node];
    let (here, there) = (&machine.name, world.name_of(&from));
    if sealed.copied && sealed.receiver != machine.identity {
        let meant = world.name_of(&sealed.receiver);
        return Err(format!("{here} hears what {there} said to {meant}"));
    }
    if sealed.copied && world.book.has_heard(node, machine.generation, from, sealed) {
        return Err(format!("{here} hears once more what {there} said to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
