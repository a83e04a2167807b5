//! All probes together: loading, reading, what became of each.

use crate::block::{Block, BlockDevices};
use crate::cgroup::{CgroupId, Cgroups};
use crate::cost::{Cost, Meter};
use crate::fallback::{self, Fallback};
use crate::faults::{Faults, PageFaults};
use crate::hooks::Hooks;
use crate::kept::KeptFiles;
use crate::kernel::Kernel;
use crate::limits::{CGROUPS_MAX, PEERS_MAX, PRESSURE_BYTES_MAX, PRESSURE_DESCRIPTORS_MAX};
use crate::network::{Network, Packets};
use crate::oom::{Kills, OutOfMemory};
use crate::pressure::Pressure;
use crate::processes::{Lives, Processes};
use crate::scheduler::{Scheduler, Scheduling};
use crate::status::Status;
use crate::tcp::{Connecting, Peer, Repeats, RoundTrips, Tcp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// Run-queue latency, time on and off CPU, context switches.
    Scheduler,
    /// Latency and bytes of block devices.
    Block,
    /// Connecting, round-trip times, retransmissions.
    Tcp,
    /// Bytes and packets of the network.
    Network,
    /// Page faults.
    Faults,
    /// Processes killed for want of memory.
    OutOfMemory,
    /// Starts and ends of processes.
    Processes,
}

impl Probe {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Scheduler,
        Self::Block,
        Self::Tcp,
        Self::Network,
        Self::Faults,
        Self::OutOfMemory,
        Self::Processes,
    ];

    /// A word for people and for labels: the name of the probe's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Block => "block",
            Self::Tcp => "tcp",
            Self::Network => "network",
            Self::Faults => "faults",
            Self::OutOfMemory => "oom",
            Self::Processes => "processes",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which probes.
    pub probes: BTreeSet<Probe>,
    /// Rows of each table that is kept by cgroup, at least 1.
    pub cgroups_max: u32,
    /// Rows of the tables that are kept by cgroup and peer, at least 1.
    pub peers_max: u32,
    /// Load programs at all. Without them, readings come from procfs and cgroupfs where they can.
    pub bpf: bool,
    /// Have the kernel measure what the probes cost, which makes each event a little dearer.
    pub cost: bool,
    /// Take the variants for kernels and architectures that lack a hook also where it is not missing.
    pub older_hooks: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probes: BTreeSet::from(Probe::ALL),
            cgroups_max: CGROUPS_MAX,
            peers_max: PEERS_MAX,
            bpf: true,
            cost: true,
            older_hooks: false,
        }
    }
}

/// Where a reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Counted by programs in the kernel.
    Bpf,
    /// The kernel's own books about threads and the network, in `/proc`.
    Procfs,
    /// The kernel's own books about cgroups.
    Cgroupfs,
}

/// What was read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// Where it comes from.
    pub source: Source,
    /// By cgroup, or by cgroup and peer. Counts only grow, and start when the probes were loaded.
    pub rows: T,
}

/// What all probes have counted since they were loaded. `None` is not measured, which is not zero:
/// [`Probes::status`] says why.
#[derive(Clone, Debug)]
pub struct Readings {
    /// Run-queue latency, time on and off CPU, context switches.
    pub scheduler: Option<Reading<BTreeMap<CgroupId, Scheduling>>>,
    /// Latency and bytes of block devices.
    pub block: Option<Reading<BTreeMap<CgroupId, Block>>>,
    /// Connecting.
    pub connecting: Option<Reading<BTreeMap<CgroupId, Connecting>>>,
    /// Retransmissions.
    pub peers: Option<Reading<BTreeMap<Peer, Repeats>>>,
    /// Bytes and packets of the network.
    pub network: Option<Reading<BTreeMap<CgroupId, Network>>>,
    /// Page faults.
    pub faults: Option<Reading<BTreeMap<CgroupId, Faults>>>,
    /// Processes killed for want of memory.
    pub oom: Option<Reading<BTreeMap<CgroupId, OutOfMemory>>>,
    /// Starts and ends of processes.
    pub processes: Option<Reading<BTreeMap<CgroupId, Processes>>>,
}

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmeasured(pub String);

/// Probes in the kernel. Dropping it takes them out.
pub struct Probes {
    cgroups: Cgroups,
    meter: Result<Meter, Unmeasured>,
    fallback: Fallback,
    pressure: KeptFiles,
    scheduler: Slot<Scheduler>,
    block: Slot<BlockDevices>,
    tcp: Slot<Tcp>,
    network: Slot<Packets>,
    faults: Slot<PageFaults>,
    oom: Slot<Kills>,
    processes: Slot<Lives>,
}

/// A probe that runs, or why it does not.
type Slot<T> = Result<T, Status>;

impl Probes {
    /// Loads what the configuration asks for. What cannot be loaded does not keep the rest from running.
    pub fn load(config: &Config) -> Self {
        let kernel = match crate::available() {
            Ok(()) if !config.bpf => {
                Err(Status::Unsupported("the configuration asks for no eBPF".into()))
            }
            Ok(()) => Kernel::new(),
            Err(reason) => Err(Status::Unsupported(reason)),
        };
        let cgroups = Cgroups::new();
        let rows = config.cgroups_max.max(1);
        let peers = config.peers_max.max(1);
        let old = config.older_hooks;
        let wanted = Wanted { config, kernel: &kernel };
        let mut probes = Self {
            fallback: Fallback::default(),
            pressure: KeptFiles::new(PRESSURE_DESCRIPTORS_MAX, PRESSURE_BYTES_MAX),
            meter: match config.cost {
                true => Meter::new().map_err(Unmeasured),
                false => Err(Unmeasured("not asked for".into())),
            },
            scheduler: wanted.load(Probe::Scheduler, |kernel| Scheduler::load(kernel, rows)),
            block: wanted.load(Probe::Block, |kernel| BlockDevices::load(kernel, rows, old)),
            tcp: wanted.load(Probe::Tcp, |kernel| Tcp::load(kernel, rows, peers)),
            network: wanted.load(Probe::Network, |_| Packets::load(&cgroups, rows)),
            faults: wanted.load(Probe::Faults, |kernel| PageFaults::load(kernel, rows, old)),
            oom: wanted.load(Probe::OutOfMemory, |kernel| Kills::load(kernel, rows, old)),
            processes: wanted.load(Probe::Processes, |kernel| Lives::load(kernel, rows, old)),
            cgroups,
        };
        // Where counting starts for what is read elsewhere.
        probes.read();
        probes
    }

    /// What became of each probe.
    pub fn status(&self) -> Vec<(Probe, Status)> {
        Probe::ALL
            .into_iter()
            .map(|probe| (probe, self.hooks(probe).err().unwrap_or(Status::Running)))
            .collect()
    }

    /// What has been counted since the probes were loaded.
    pub fn read(&mut self) -> Readings {
        let cgroups = &mut self.cgroups;
        cgroups.begin();
        let other = &mut self.fallback;
        other.refresh();
        // First: it knows whose the rows are of a cgroup that came and went since the last reading.
        let oom = read(&mut self.oom, |probe| probe.read(cgroups)).map(Reading::bpf);
        let connecting_and_peers = read(&mut self.tcp, |probe| probe.read(cgroups));
        let (connecting, peers) = connecting_and_peers.unzip();
        let scheduler = read(&mut self.scheduler, |probe| probe.read(cgroups)).map(Reading::bpf);
        let block = read(&mut self.block, |probe| probe.read(cgroups)).map(Reading::bpf);
        let network = read(&mut self.network, |probe| probe.read(cgroups)).map(Reading::bpf);
        let faults = read(&mut self.faults, |probe| probe.read(cgroups)).map(Reading::bpf);
        let processes = read(&mut self.processes, |probe| probe.read(cgroups)).map(Reading::bpf);
        let readings = Readings {
            scheduler: instead(&self.scheduler, scheduler, || {
                other.scheduler(cgroups).map(Reading::procfs)
            }),
            block: instead(&self.block, block, || other.block(cgroups).map(Reading::cgroupfs)),
            connecting: connecting.map(Reading::bpf),
            peers: instead(&self.tcp, peers.map(Reading::bpf), || {
                other.peers().map(Reading::procfs)
            }),
            network,
            faults: instead(&self.faults, faults, || other.faults(cgroups).map(Reading::procfs)),
            oom: instead(&self.oom, oom, || other.oom(cgroups).map(Reading::cgroupfs)),
            processes,
        };
        self.cgroups.end();
        readings
    }

    /// The round-trip times of the connections that there are now. This looks at every connection, and at every place
    /// where the kernel could have one: milliseconds on a machine with much memory.
    pub fn round_trips(&mut self) -> Option<Reading<BTreeMap<Peer, RoundTrips>>> {
        read(&mut self.tcp, |probe| probe.round_trips()).map(Reading::bpf)
    }

    /// What threads of the cgroups that are `wanted` stood still for since those were made. This reads three files for
    /// each, of which the first [`PRESSURE_DESCRIPTORS_MAX`] stay open.
    pub fn pressure(
        &mut self,
        wanted: impl FnMut(CgroupId, &Cgroups) -> bool,
    ) -> Option<Reading<BTreeMap<CgroupId, Pressure>>> {
        self.cgroups.refresh();
        fallback::pressure(&mut self.cgroups, &mut self.pressure, wanted).map(Reading::cgroupfs)
    }

    /// The cgroups that there were at the last reading, by name.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// What each program of each probe has cost; why that is not known, otherwise.
    pub fn cost(&self) -> Result<Vec<(Probe, Cost)>, Unmeasured> {
        let meter = self.meter.as_ref().map_err(Clone::clone)?;
        let of = |probe: Probe| {
            let costs = self.hooks(probe).map(|hooks| meter.read(hooks)).unwrap_or_default();
            costs.into_iter().map(move |cost| (probe, cost))
        };
        Ok(Probe::ALL.into_iter().flat_map(of).collect())
    }

    fn hooks(&self, probe: Probe) -> Result<&Hooks, Status> {
        match probe {
            Probe::Scheduler => self.scheduler.as_ref().map(|probe| &probe.hooks),
            Probe::Block => self.block.as_ref().map(|probe| &probe.hooks),
            Probe::Tcp => self.tcp.as_ref().map(|probe| &probe.hooks),
            Probe::Network => self.network.as_ref().map(|probe| &probe.hooks),
            Probe::Faults => self.faults.as_ref().map(|probe| &probe.hooks),
            Probe::OutOfMemory => self.oom.as_ref().map(|probe| &probe.hooks),
            Probe::Processes => self.processes.as_ref().map(|probe| &probe.hooks),
        }
        .map_err(Clone::clone)
    }
}

impl<T> Reading<T> {
    fn bpf(rows: T) -> Self {
        Self { source: Source::Bpf, rows }
    }

    fn procfs(rows: T) -> Self {
        Self { source: Source::Procfs, rows }
    }

    fn cgroupfs(rows: T) -> Self {
        Self { source: Source::Cgroupfs, rows }
    }
}

struct Wanted<'a> {
    config: &'a Config,
    kernel: &'a Result<Kernel, Status>,
}

impl Wanted<'_> {
    fn load<T>(&self, probe: Probe, load: impl FnOnce(&Kernel) -> Slot<T>) -> Slot<T> {
        if !self.config.probes.contains(&probe) {
            return Err(Status::Off);
        }
        load(self.kernel.as_ref().map_err(Clone::clone)?)
    }
}

/// A probe whose tables cannot be read any more is out.
fn read<P, T>(slot: &mut Slot<P>, read: impl FnOnce(&mut P) -> libbpf_rs::Result<T>) -> Option<T> {
    match read(slot.as_mut().ok()?) {
        Ok(rows) => Some(rows),
        Err(error) => {
            *slot = Err(Status::refused("reading", &error, ""));
            None
        }
    }
}

/// What else there is to read if a probe that was asked for does not run.
fn instead<P, T>(
    slot: &Slot<P>,
    reading: Option<T>,
    other: impl FnOnce() -> Option<T>,
) -> Option<T> {
    match slot {
        Err(Status::Unsupported(_) | Status::Failed(_)) => other(),
        _ => reading,
    }
}
