//! What this machine is made of, and how much disk it has, as it is now: looked at again when something is plugged in, when
//! jobs get cores for themselves or give them back, and once a minute.

use anyhow::Context;
use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::io::Launch;
use fabric::topology::{DiskPool, Topology};
use std::time::Duration;
use tokio::sync::mpsc;

use super::listening::{self, PortLooks, PortsFound};
use super::{Driver, OUTCOMES_MAX};
use crate::config::Config;
use crate::executor::Executor;
use crate::listeners::Listeners;
use crate::topology::disk::{self, Space};
use crate::topology::{Settling, Sysfs, narrow};

/// Time between two looks at the hardware.
const PERIOD: Duration = Duration::from_secs(60);

/// What is known of disk before it is looked at.
#[derive(Debug)]
pub(super) struct DiskBefore {
    /// As they were found last.
    pub pools: Vec<DiskPool>,
    /// Bytes that claims add up to.
    pub claimed: u64,
}

/// What was found when this machine was looked at, and when that is done again.
///
/// Invariant: `topology` is what the core knows: whoever changes it calls [`Driver::changed`].
pub(super) struct Looks {
    pub(super) topology: Topology,
    looked: Instant,
    /// What was plugged in or out since then.
    pub(super) plugged: Settling,
    /// CPUs that jobs have for themselves.
    kept_free: CpuSet,
    results: mpsc::Sender<Topology>,
    pub(super) ports: PortLooks,
}

impl Looks {
    /// Looks for the first time. `running` are units of the agent before. What later looks find comes out of the channels.
    pub(super) async fn start(
        config: &Config,
        executor: &Executor,
        running: &[Launch],
        listeners: Listeners,
        before: DiskBefore,
        now: Instant,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Topology>, PortsFound)> {
        let kept_free = keep_from(config, executor, running).await;
        let mut topology = topology(config, executor, before)?;
        topology.ports_used = listening::at_start(&listeners, topology.ports);
        let (results, looked) = mpsc::channel(OUTCOMES_MAX);
        let (ports, found) = PortLooks::start(listeners);
        let plugged = Settling::default();
        Ok((Self { topology, looked: now, plugged, kept_free, results, ports }, looked, found))
    }
}

/// The share of the machine that work may use.
fn topology(config: &Config, executor: &Executor, before: DiskBefore) -> anyhow::Result<Topology> {
    let sysfs = Sysfs::default().giving_up(executor.kept_free());
    let machine = sysfs.read().context("cannot read what this machine is made of")?;
    let share = config.share()?;
    let mut topology = narrow(machine, &share)?;
    topology.pools = pools(config, share.disk, before)?;
    topology.enforced = executor.enforced();
    Ok(topology)
}

fn pools(config: &Config, given: Option<u64>, before: DiskBefore) -> anyhow::Result<Vec<DiskPool>> {
    let space = match Space::of(&config.state) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(%error, state = %config.state.display(), "cannot see how much disk there is");
            return Ok(before.pools);
        }
    };
    let known = before.pools.iter().find(|pool| pool.name == DiskPool::DEFAULT);
    Ok(vec![disk::pool(space, given, known, before.claimed)?])
}

/// At the start: those that run have their cores for themselves, and the agent must know which of its own it was moved
/// away from. Says which those are.
async fn keep_from(config: &Config, executor: &Executor, running: &[Launch]) -> CpuSet {
    let mut free = CpuSet::new();
    if config.resources.confine_system {
        running.iter().for_each(|launch| free.insert_all(&launch.claim.cpus));
    }
    keep_free(executor, &free).await;
    free
}

async fn keep_free(executor: &Executor, free: &CpuSet) {
    if let Err(error) = executor.keep_free(free).await {
        tracing::warn!(%error, cpus = %free, "cores of jobs are not kept free");
    }
}

impl Driver {
    /// Looks at the hardware if there is a reason to.
    pub(super) fn notice_hardware(&mut self, now: Instant) {
        let free = match self.config.resources.confine_system {
            true => self.exclusive_cpus(),
            false => CpuSet::new(),
        };
        if self.looks.plugged.is_over(now) || free != self.looks.kept_free {
            self.looks.kept_free = free;
            self.look_at_hardware();
        }
        let is_due = now.since(self.looks.looked) >= PERIOD;
        if is_due && !self.looks.plugged.is_going_on() {
            self.looks.looked = now;
            self.look_at_hardware();
            crate::footprint::trim();
        }
    }

    /// Looks at the hardware beside the loop: on a large machine that takes a while. What is to be kept free of everything
    /// but jobs depends on it, too.
    fn look_at_hardware(&self) {
        let (config, executor) = (self.config.clone(), self.work.executor.clone());
        let (looks, free) = (self.looks.results.clone(), self.looks.kept_free.clone());
        let claimed = self.member.as_ref().map_or(0, |member| member.node.disk_claimed());
        let before = DiskBefore { pools: self.looks.topology.pools.clone(), claimed };
        tokio::spawn(async move {
            keep_free(&executor, &free).await;
            let look = tokio::task::spawn_blocking(move || topology(&config, &executor, before));
            match look.await {
                // Nobody listens: the agent ends. Full: another look is about to be taken in.
                Ok(Ok(topology)) => drop(looks.try_send(topology)),
                Ok(Err(error)) => tracing::warn!(%error, "cannot look at the hardware"),
                Err(error) => tracing::warn!(%error, "the hardware was not looked at"),
            }
        });
    }

    /// CPUs that jobs have for themselves.
    pub(super) fn exclusive_cpus(&self) -> CpuSet {
        let member = self.member.as_ref();
        member.map_or_else(CpuSet::new, |member| member.node.exclusive_cpus().clone())
    }

    /// Takes in what was seen.
    pub(super) fn looked(&mut self, mut topology: Topology) {
        topology.ports_used.clone_from(&self.looks.topology.ports_used);
        if topology != self.looks.topology {
            tracing::info!("the hardware, or the room on the disk, changed");
            self.looks.topology = topology;
            self.changed();
        }
    }
}
