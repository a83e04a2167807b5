//! One node in words: everything that somebody wants to know who wonders why it did what it did.

use fabric::table::{Key, Value};
use std::fmt::Write;

use crate::world::World;

/// The state of a node: machine, clocks, disk, units and their guards, whom it sees, and its table.
pub fn dump(world: &World, node: usize) -> String {
    let mut text = String::new();
    write_machine(&mut text, world, node);
    write_units(&mut text, world, node);
    write_members(&mut text, world, node);
    write_disk(&mut text, world, node);
    text
}

// Writing to a string never fails.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => { let _ = writeln!($text, $($argument)*); };
}

fn write_machine(text: &mut String, world: &World, node: usize) {
    let machine = &world.nodes[node];
    let clock = machine.clock.read(world.time);
    line!(text, "{} ({}), event {}", machine.name, machine.identity.short(), world.happened);
    line!(
        text,
        "  world {:.3} s, own clock {:.3} s, wall {} ms",
        world.time.as_secs_f64(),
        clock.at.since_origin().as_secs_f64(),
        clock.wall.0
    );
    let state = match (&machine.agent, machine.powered) {
        _ if machine.frozen_until > world.time => "stands still".to_owned(),
        (_, false) => "off".into(),
        (None, true) => "on, no agent".into(),
        (Some(agent), true) => {
            let stalled = if machine.paused_until > world.time { ", stalled" } else { "" };
            format!("agent since {:.3} s{stalled}", agent.started.as_secs_f64())
        }
    };
    line!(text, "  {state}; disk {:?}, unit manager {:?}", machine.disk.mode, machine.units.temper);
}

fn write_units(text: &mut String, world: &World, node: usize) {
    let machine = &world.nodes[node];
    line!(text, "units, and what they hold:");
    for (alloc, unit) in &machine.units.units {
        let claim = &unit.launch.claim;
        line!(
            text,
            "  {alloc} run {} {:?} since {:.3} s on cpus {}: own cpus {}, {} MiB, {} GiB of disk, devices {:?}, ports {:?}",
            unit.launch.run,
            unit.state,
            unit.since.as_secs_f64(),
            unit.cpus,
            claim.cpus,
            claim.memory >> 20,
            claim.disk >> 30,
            claim.devices,
            claim.ports
        );
        if let Some(guard) = unit.guard {
            line!(
                text,
                "    lease until {:.3} s by its own clock, killed at {:.3} s",
                guard.until.since_origin().as_secs_f64(),
                guard.kill_at().since_origin().as_secs_f64()
            );
        }
    }
}

fn write_members(text: &mut String, world: &World, node: usize) {
    let Some(core) = world.nodes[node].core() else { return };
    let status = core.status();
    line!(text, "members, as it sees them; table {}:", status.fingerprint);
    for view in core.nodes() {
        line!(text, "  {} ({}) {}", world.name_of(&view.id), view.id.short(), view.state);
    }
    line!(text, "jobs, as it sees them:");
    for view in core.jobs() {
        line!(text, "  {} {} {:?}", view.name, view.state, view.reason);
    }
    line!(text, "allocations, as it sees them:");
    for view in core.allocs(None, true) {
        let (row, at) = (&view.row, world.name_of(&view.node));
        let healthy = if row.healthy { "healthy" } else { "not healthy" };
        let ending = row.ending.as_ref().map_or(String::new(), |ending| format!(", {ending}"));
        line!(
            text,
            "  {} on {at}: {}, {healthy}, run {}{ending}",
            view.id,
            row.phase,
            row.restarts
        );
    }
    line!(text, "counters: {:?}", core.counters());
}

fn write_disk(text: &mut String, world: &World, node: usize) {
    let machine = &world.nodes[node];
    line!(text, "on its disk, {} writes under way:", machine.disk.pending());
    for entry in machine.disk.entries() {
        let what = match &entry.value {
            Value::Job(job) => format!("version {:?}", job.effective().1),
            Value::Alloc(row) => {
                format!(
                    "epoch {}, {}, healthy {} since {}, spec {:?}, contests {}, after {:?}",
                    row.epoch,
                    row.phase,
                    row.healthy,
                    row.healthy_since.0,
                    row.spec,
                    row.contests,
                    row.succession
                )
            }
            Value::Node(info) => {
                format!("{}, draining {}, {:?}", info.name, info.draining, info.addresses)
            }
            other => format!("{other:?}"),
        };
        let key = match &entry.key {
            Key::Alloc(slot, at) => format!("alloc {slot} {}", world.name_of(at)),
            Key::Job(job) => format!("job {job}"),
            Key::Node(of) => format!("node {}", world.name_of(of)),
            Key::Roster(of) => format!("roster {}", world.name_of(of)),
            other => format!("{other:?}"),
        };
        line!(text, "  {key}: {what}");
    }
}
