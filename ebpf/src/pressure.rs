//! Pressure stall information: what a cgroup's threads stood still for. Read from cgroupfs; there is no probe.

/// How long threads of a cgroup, or below it, stood still for want of something. `None` where the kernel keeps no
/// account (`psi=0`, or the controller is missing).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// A CPU.
    pub cpu: Option<Stalled>,
    /// Memory.
    pub memory: Option<Stalled>,
    /// Block devices.
    pub io: Option<Stalled>,
}

/// Time since the cgroup was made, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// At least one thread stood still.
    pub some_us: u64,
    /// All that had something to do stood still at once.
    pub full_us: Option<u64>,
}
