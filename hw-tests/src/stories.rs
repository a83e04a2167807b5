//! One story a file. Each prints what it saw.

mod agent_upgrade_keeps_work;
mod boards_join;
mod boots_and_joins;
mod cut_the_cable;
mod disk_health;
mod extends;
mod fill_the_disk;
mod hotplug;
mod hotplug_usb;
mod memory_limit_kills_only_the_guilty;
mod mixed_architectures;
mod netboots;
mod pins_hold;
mod probes_on_debian_kernel;
mod pull_power;
mod remote_shell;
mod upgrade_and_roll_back;

use crate::workshop::Bench;
use anyhow::Result;

/// A story.
pub struct Story {
    /// Its file.
    pub name: &'static str,
    /// What it shows.
    pub promise: &'static str,
    /// After so many minutes it is ended: far more than it was seen to take beside other work.
    pub minutes: u64,
    /// Tells it.
    pub tell: fn(&Bench) -> Result<()>,
}

/// All there are, the longest last.
pub const ALL: &[Story] = &[
    Story {
        name: "memory_limit_kills_only_the_guilty",
        promise: "who takes too much memory is killed, nobody else, and weft says why",
        minutes: 15,
        tell: memory_limit_kills_only_the_guilty::tell,
    },
    Story {
        name: "agent_upgrade_keeps_work",
        promise: "an agent that is replaced, restarted or killed has its jobs back as they were",
        minutes: 20,
        tell: agent_upgrade_keeps_work::tell,
    },
    Story {
        name: "pins_hold",
        promise: "a pinned unit has what its claim says, and no other runs there",
        minutes: 20,
        tell: pins_hold::tell,
    },
    Story {
        name: "fill_the_disk",
        promise: "a full disk is told, keeps new work away, stops nothing, and is got over",
        minutes: 20,
        tell: fill_the_disk::tell,
    },
    Story {
        name: "hotplug",
        promise: "a CPU that appears is shown and can be claimed",
        minutes: 20,
        tell: hotplug::tell,
    },
    Story {
        name: "disk_health",
        promise: "an ATA disk is asked for its health only by an agent that was allowed to, and tells it",
        minutes: 15,
        tell: disk_health::tell,
    },
    Story {
        name: "cut_the_cable",
        promise: "two nodes without a link stop nothing, and agree again afterwards",
        minutes: 30,
        tell: cut_the_cable::tell,
    },
    Story {
        name: "boots_and_joins",
        promise: "machines that start from our image join by a token, untouched by hand",
        minutes: 45,
        tell: boots_and_joins::tell,
    },
    Story {
        name: "boards_join",
        promise: "boards are switched on, say on their serial ports who they are, and are the same after a power cut",
        minutes: 60,
        tell: boards_join::tell,
    },
    Story {
        name: "netboots",
        promise: "a machine without a disk starts from its memory, 256 MB of it, and joins by a token",
        minutes: 30,
        tell: netboots::tell,
    },
    Story {
        name: "hotplug_usb",
        promise: "a USB device or disk that appears is shown and claimed, and a claim is not kept of one that is gone",
        minutes: 30,
        tell: hotplug_usb::tell,
    },
    Story {
        name: "remote_shell",
        promise: "a machine that was given a key has a shell for it, and nobody else; without one it has none",
        minutes: 45,
        tell: remote_shell::tell,
    },
    Story {
        name: "extends",
        promise: "a read-only node has the software of its extensions, and a broken one stops nothing",
        minutes: 30,
        tell: extends::tell,
    },
    Story {
        name: "mixed_architectures",
        promise: "x86-64 and ARM are one fabric, and a job has a program for each",
        minutes: 45,
        tell: mixed_architectures::tell,
    },
    Story {
        name: "upgrade_and_roll_back",
        promise: "a node takes a good image, refuses a damaged one, and goes back from one that does not work",
        minutes: 60,
        tell: upgrade_and_roll_back::tell,
    },
    Story {
        name: "pull_power",
        promise: "what was acknowledged outlives power cuts, and the node comes back",
        minutes: 75,
        tell: pull_power::tell,
    },
    Story {
        name: "probes_on_debian_kernel",
        promise: "every eBPF probe loads on Debian's kernel and counts what the kernel counts",
        minutes: 45,
        tell: probes_on_debian_kernel::tell,
    },
];

#[cfg(test)]
mod tests;
