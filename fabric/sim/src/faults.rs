//! What goes wrong, and when: a schedule drawn from the seed. Every fault ends.

use fabric::id::NodeId;
use fabric::io::Request;
use fabric::limits;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

use crate::clock::TRUE_RATE_PPM;
use crate::disk::DiskMode;
use crate::network::Quality;
use crate::units::Temper;
use crate::world::World;

const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 365 * DAY_MS;
/// Longer than any lease of the workload's jobs lasts with what its voters add.
const LONG_ENOUGH: (Duration, Duration) = (Duration::from_secs(26), Duration::from_secs(40));

/// A restarted agent is back within this, however slow its package manager is.
const AGENT_IS_BACK: Duration = Duration::from_millis(300 + SLOW_MS);
const SLOW_MS: u64 = 5_000;

/// Something that goes wrong for a while. Nodes are indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The agent is killed; units live on.
    AgentCrash(usize),
    /// The power fails.
    PowerCut(usize),
    /// The power fails, and the disk is replaced by an empty one: the node joins anew.
    DiskLoss(usize),
    /// Somebody locks a node out of the fabric while it runs; later it joins anew, without its disk.
    Removal(usize),
    /// The machine stands still, units and all, as when a virtual machine is stopped. Its clocks go on.
    Freeze(usize),
    /// Nothing passes between the two sides.
    Split(Vec<usize>, Vec<usize>),
    /// Nothing passes from the first side to the second.
    OneWaySplit(Vec<usize>, Vec<usize>),
    /// Packets get lost and repeated, and take long.
    BadNetwork(Quality),
    /// Writes take seconds.
    SlowDisk(usize),
    /// Writes fail.
    FullDisk(usize),
    /// The agent gets no processor.
    Stall(usize),
    /// The wall clock jumps by milliseconds, and stays there.
    ClockJump(usize, i64),
    /// The monotonic clock runs at this many parts per million from now on.
    ClockDrift(usize, u32),
    /// The unit manager misbehaves.
    Units(usize, Temper),
    /// Some commands to the unit manager get lost.
    LostCommands(usize, u32),
    /// Something outside kills a unit.
    UnitKill(usize),
    /// The machine gets another address.
    Renumbering(usize),
    /// The agent stops and says so, or its service manager says it for it; units live on.
    AgentAway(usize),
    /// All agents are restarted: at once (0), or one after the other, so many milliseconds apart.
    AllAgentsRestart(usize, u64),
    /// Somebody pulls a machine's only cable.
    CableOut(usize),
    /// A machine is off when it is locked out of the fabric. It comes back with its disk, and at last joins anew.
    RemovalWhileOff(usize),
    /// A machine's cable is out when it is locked out of the fabric.
    RemovalWhileCutOff(usize),
    /// Somebody without a key copies every datagram, and sends it to everybody, at once or seconds later.
    Stranger,
    /// Somebody with the gossip keys writes rows in others' names.
    Forger,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// When it begins, from the beginning of the schedule.
    pub at: Duration,
    /// How long it lasts.
    pub lasting: Duration,
    /// What it is.
    pub fault: Fault,
}

/// In a fabric of so few nodes what happens is mostly what every owner does.
const FEW: usize = 3;

/// Draws a schedule for `nodes` nodes over `span`. Everything begins and ends within it.
pub fn schedule(random: &mut ChaCha8Rng, nodes: usize, span: Duration) -> Vec<Scheduled> {
    if nodes <= FEW {
        return ordinary_operations(random, nodes, span);
    }
    let mut schedule = Vec::new();
    let mut at = Duration::ZERO;
    // Some worlds are quiet, some are not.
    let mean_ms = random.random_range(4_000..40_000u64);
    let mut losses = nodes / 4;
    loop {
        at += Duration::from_millis(random.random_range(0..2 * mean_ms));
        let lasting = Duration::from_millis(match random.random_range(0..4u8) {
            0 => random.random_range(100..2_000),
            1 | 2 => random.random_range(2_000..30_000),
            _ => random.random_range(30_000..120_000),
        });
        if at + lasting >= span {
            return schedule;
        }
        let fault = draw(random, nodes, &mut losses);
        schedule.push(Scheduled { at, lasting, fault });
    }
}

/// Agents are restarted, all at once, in waves or one of them, for a moment or a minute; cables are pulled; machines are
/// switched off, and locked out while they run, are off or are cut off. In between it is calm.
fn ordinary_operations(random: &mut ChaCha8Rng, nodes: usize, span: Duration) -> Vec<Scheduled> {
    let mut schedule = Vec::new();
    let mut at = Duration::from_secs(90);
    let mut losses = 2;
    loop {
        let node = random.random_range(0..nodes);
        let fault = match random.random_range(0..16u8) {
            0..6 => {
                let spacing = if random.random() { 0 } else { random.random_range(500..4_000) };
                Fault::AllAgentsRestart(nodes, spacing)
            }
            6..9 => Fault::AgentAway(node),
            9..12 => Fault::CableOut(node),
            12 => Fault::AgentCrash(node),
            13 => Fault::PowerCut(node),
            14 if nodes > 2 && losses > 0 => {
                losses -= 1;
                match random.random_range(0..3u8) {
                    0 => Fault::Removal(node),
                    1 => Fault::RemovalWhileOff(node),
                    _ => Fault::RemovalWhileCutOff(node),
                }
            }
            _ => Fault::AllAgentsRestart(nodes, 0),
        };
        let lasting = Duration::from_millis(match &fault {
            Fault::AgentAway(_) => random.random_range(500..28_000),
            Fault::Removal(_) | Fault::RemovalWhileOff(_) | Fault::RemovalWhileCutOff(_) => {
                random.random_range(90_000..150_000)
            }
            _ => random.random_range(1_000..60_000),
        });
        if at + lasting >= span {
            return schedule;
        }
        schedule.push(Scheduled { at, lasting, fault });
        at += lasting + Duration::from_millis(random.random_range(2_000..90_000));
    }
}

/// Draws a schedule that is hard on leases: every clock is off by the bound, one way or the other, and again and
/// again holders are cut off, lose their agents or stand still while voters restart.
pub fn aimed_at_leases(random: &mut ChaCha8Rng, nodes: usize, span: Duration) -> Vec<Scheduled> {
    let bound = limits::DRIFT_PPM_MAX;
    let drift = |random: &mut ChaCha8Rng, node: usize| {
        let rate = if random.random() { TRUE_RATE_PPM + bound } else { TRUE_RATE_PPM - bound };
        Fault::ClockDrift(node, rate)
    };
    let moment = Duration::from_millis(1);
    let mut schedule: Vec<Scheduled> = (0..nodes)
        .map(|node| drift(random, node))
        .map(|fault| Scheduled { at: moment, lasting: moment, fault })
        .collect();
    let mut at = Duration::from_secs(30);
    loop {
        at += Duration::from_millis(random.random_range(20_000..50_000));
        if at + LONG_ENOUGH.1 >= span {
            return schedule;
        }
        let mut order: Vec<usize> = (0..nodes).collect();
        order.shuffle(random);
        let (some, others) = order.split_at(nodes.div_ceil(4));
        let long = |random: &mut ChaCha8Rng| random.random_range(LONG_ENOUGH.0..LONG_ENOUGH.1);
        let mut add = |lasting, fault| schedule.push(Scheduled { at, lasting, fault });
        match random.random_range(0..4u8) {
            // A new version of the agent everywhere, and some do not come back at once.
            0 => {
                for node in some {
                    add(long(random), Fault::AgentCrash(*node));
                }
                for node in others {
                    let short = Duration::from_millis(random.random_range(100..2_000));
                    add(short, Fault::AgentCrash(*node));
                }
            }
            1 => some.iter().for_each(|node| add(long(random), Fault::AgentCrash(*node))),
            2 => some.iter().for_each(|node| add(long(random), Fault::Freeze(*node))),
            _ => add(long(random), Fault::Split(some.to_vec(), others.to_vec())),
        }
    }
}

fn draw(random: &mut ChaCha8Rng, nodes: usize, losses: &mut usize) -> Fault {
    let node = random.random_range(0..nodes);
    match random.random_range(0..100u8) {
        0..5 => Fault::AgentCrash(node),
        5..10 => Fault::AgentAway(node),
        10..14 => {
            let spacing = if random.random() { 0 } else { random.random_range(500..4_000) };
            Fault::AllAgentsRestart(nodes, spacing)
        }
        14..24 => Fault::PowerCut(node),
        24..26 => Fault::Forger,
        26..28 | 31..32 => Fault::Freeze(node),
        28..31 if *losses > 0 => {
            *losses -= 1;
            match random.random_range(0..6u8) {
                0 => Fault::Removal(node),
                1 => Fault::RemovalWhileOff(node),
                2 => Fault::RemovalWhileCutOff(node),
                _ => Fault::DiskLoss(node),
            }
        }
        28..33 => Fault::CableOut(node),
        33..42 => {
            let (one, other) = sides(random, nodes);
            Fault::Split(one, other)
        }
        42..50 => {
            let (one, other) = sides(random, nodes);
            Fault::OneWaySplit(one, other)
        }
        50..58 => Fault::BadNetwork(Quality {
            latency: Duration::from_micros(random.random_range(200..20_000)),
            tail: Duration::from_millis(random.random_range(5..500)),
            loss_permille: random.random_range(0..150),
            repeat_permille: random.random_range(0..100),
        }),
        58..63 => Fault::SlowDisk(node),
        63..68 => Fault::FullDisk(node),
        68..76 => Fault::Stall(node),
        76..80 => {
            let jumps = [DAY_MS, -DAY_MS, 5_000, -5_000, 50 * YEAR_MS, -5 * YEAR_MS];
            Fault::ClockJump(node, jumps[random.random_range(0..jumps.len())])
        }
        80..84 => {
            // The bound itself, which is what leases are made for, or anything within it.
            let bound = limits::DRIFT_PPM_MAX;
            let drift = match random.random_range(0..4u8) {
                0 => 0,
                1 => 2 * bound,
                _ => random.random_range(0..=2 * bound),
            };
            Fault::ClockDrift(node, TRUE_RATE_PPM - bound + drift)
        }
        84..90 => {
            let tempers = [Temper::Slow, Temper::Refusing, Temper::CrashLooping];
            Fault::Units(node, tempers[random.random_range(0..tempers.len())])
        }
        90..93 => Fault::Renumbering(node),
        93..95 => Fault::LostCommands(node, random.random_range(10..300)),
        95..97 => Fault::UnitKill(node),
        97.. => Fault::Stranger,
    }
}

/// Two sides, the first not empty; often a single node is cut off, and sometimes they are a pair that all others reach.
fn sides(random: &mut ChaCha8Rng, nodes: usize) -> (Vec<usize>, Vec<usize>) {
    let mut all: Vec<usize> = (0..nodes).collect();
    all.shuffle(random);
    if nodes > 2 && random.random_ratio(1, 4) {
        return (vec![all[0]], vec![all[1]]);
    }
    let one = if random.random() { 1 } else { random.random_range(1..=nodes.div_ceil(2)) };
    let other = all.split_off(one);
    (all, other)
}

impl Fault {
    /// Every node that it names.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Fault::AgentCrash(node)
            | Fault::PowerCut(node)
            | Fault::DiskLoss(node)
            | Fault::Removal(node)
            | Fault::Freeze(node)
            | Fault::SlowDisk(node)
            | Fault::FullDisk(node)
            | Fault::Stall(node)
            | Fault::ClockJump(node, _)
            | Fault::ClockDrift(node, _)
            | Fault::Units(node, _)
            | Fault::LostCommands(node, _)
            | Fault::UnitKill(node)
            | Fault::Renumbering(node)
            | Fault::AgentAway(node)
            | Fault::CableOut(node)
            | Fault::RemovalWhileOff(node)
            | Fault::RemovalWhileCutOff(node) => vec![*node],
            Fault::AllAgentsRestart(nodes, _) => (0..*nodes).collect(),
            Fault::Split(one, other) | Fault::OneWaySplit(one, other) => {
                one.iter().chain(other).copied().collect()
            }
            Fault::BadNetwork(_) | Fault::Stranger | Fault::Forger => Vec::new(),
        }
    }

    /// When all that it does has happened, from its beginning.
    pub fn over_after(&self, lasting: Duration) -> Duration {
        match self {
            Fault::AllAgentsRestart(nodes, spacing) => {
                let last = Duration::from_millis(spacing * nodes.saturating_sub(1) as u64);
                lasting.max(last + AGENT_IS_BACK)
            }
            _ => lasting,
        }
    }

    /// It begins.
    pub fn begin(&self, world: &mut World, lasting: Duration) {
        match self {
            Fault::AgentCrash(node) => world.crash_agent(*node),
            Fault::PowerCut(node) => world.power_off(*node),
            Fault::DiskLoss(node) => world.wipe(*node),
            Fault::Removal(node) => {
                lock_out(world, *node);
            }
            Fault::RemovalWhileOff(node) => {
                world.power_off(*node);
                lock_out(world, *node);
                world.boot_at(*node, lasting / 3);
            }
            Fault::RemovalWhileCutOff(node) => {
                world.plug(*node, false);
                lock_out(world, *node);
            }
            Fault::CableOut(node) => world.plug(*node, false),
            Fault::AgentAway(node) => world.stop_agent(*node, false),
            Fault::AllAgentsRestart(nodes, spacing) => {
                for node in 0..*nodes {
                    let after = Duration::from_millis(spacing * node as u64);
                    // A package manager is slow on some, and all are back within their grace.
                    let slow = (lasting.as_millis() as u64 + 977 * node as u64) % SLOW_MS;
                    world.restart_at(node, after, Duration::from_millis(300 + slow));
                }
            }
            Fault::Freeze(node) => world.freeze(*node, world.time + lasting),
            Fault::Split(one, other) => {
                world.split(one, other);
                world.split(other, one);
            }
            Fault::OneWaySplit(from, to) => world.split(from, to),
            Fault::BadNetwork(quality) => {
                world.tell(|_| format!("the network is bad: {quality:?}"));
                world.network.quality = *quality;
            }
            Fault::SlowDisk(node) => world.set_disk(*node, DiskMode::Slow),
            Fault::FullDisk(node) => world.set_disk(*node, DiskMode::Refusing),
            Fault::Stall(node) => {
                let lasting = lasting.min(Duration::from_secs(10));
                world.tell(|world| format!("{} stalls for {lasting:?}", world.nodes[*node].name));
                world.pause(*node, world.time + lasting);
            }
            Fault::ClockJump(node, by_ms) => world.set_clock(*node, None, *by_ms),
            Fault::ClockDrift(node, rate_ppm) => world.set_clock(*node, Some(*rate_ppm), 0),
            Fault::Units(node, temper) => world.set_temper(*node, *temper),
            Fault::LostCommands(node, permille) => {
                world.nodes[*node].lost_commands_permille = *permille;
            }
            Fault::Renumbering(node) => world.renumber(*node),
            Fault::Stranger => world.set_stranger(true),
            Fault::Forger => world.set_forger(true),
            Fault::UnitKill(node) => {
                let units: Vec<_> =
                    world.nodes[*node].units.there().map(|(alloc, _)| alloc.clone()).collect();
                if let Some(alloc) = units.get(lasting.as_millis() as usize % units.len().max(1)) {
                    world.kill_unit(*node, alloc);
                }
            }
        }
    }

    /// It ends. Clocks stay where they are.
    pub fn end(&self, world: &mut World) {
        match self {
            Fault::AgentCrash(node)
            | Fault::AgentAway(node)
            | Fault::PowerCut(node)
            | Fault::DiskLoss(node) => world.restart(*node),
            Fault::CableOut(node) => world.plug(*node, true),
            Fault::Removal(node)
            | Fault::RemovalWhileOff(node)
            | Fault::RemovalWhileCutOff(node) => {
                world.plug(*node, true);
                world.wipe(*node);
                world.restart(*node);
            }
            Fault::Split(one, other) => {
                world.unsplit(one, other);
                world.unsplit(other, one);
            }
            Fault::OneWaySplit(from, to) => world.unsplit(from, to),
            Fault::BadNetwork(_) => world.network.quality = world.settings.quality,
            Fault::SlowDisk(node) | Fault::FullDisk(node) => world.set_disk(*node, DiskMode::Well),
            Fault::Units(node, _) => world.set_temper(*node, Temper::Well),
            Fault::LostCommands(node, _) => world.nodes[*node].lost_commands_permille = 0,
            Fault::Stranger => world.set_stranger(false),
            Fault::Forger => world.set_forger(false),
            Fault::AllAgentsRestart(..)
            | Fault::Stall(_)
            | Fault::Freeze(_)
            | Fault::ClockJump(..)
            | Fault::ClockDrift(..)
            | Fault::Renumbering(_)
            | Fault::UnitKill(_) => {}
        }
    }
}

/// Another member removes the node from the fabric.
fn lock_out(world: &mut World, node: usize) {
    let identity = world.nodes[node].identity;
    let others = world.running().into_iter().filter(|other| *other != node);
    let awake = others.filter(|other| world.nodes[*other].is_awake(world.time));
    if let Some(member) = awake.max() {
        world.request(member, remove(identity));
    }
}

/// All is well again: every fault ends, whatever the schedule says, and every machine is on.
pub fn heal(world: &mut World) {
    world.heal_network();
    world.set_stranger(false);
    world.set_forger(false);
    for node in 0..world.nodes.len() {
        if !world.nodes[node].connected {
            world.nodes[node].connected = true;
            world.tell_link(node);
        }
        world.nodes[node].disk.mode = DiskMode::Well;
        world.nodes[node].units.temper = Temper::Well;
        world.nodes[node].lost_commands_permille = 0;
        if world.nodes[node].agent.is_none() {
            world.restart(node);
        }
    }
}

/// The request that locks an identity out. The new key follows from it, so that it needs no random numbers.
pub fn remove(node: NodeId) -> Request {
    let new_key = node.0.map(|byte| !byte);
    Request::Remove { node, new_key, force: false }
}

#[cfg(test)]
mod tests;
