//! Cores that a job has for itself are kept free of what is not a job: services, sessions, containers and virtual
//! machines, and the agent. systemd lets their slices run on the other CPUs (`AllowedCPUs=`) until it is told
//! otherwise, or the machine restarts.
//!
//! What the kernel does of its own on each CPU, and interrupts, stay where they are.

use fabric::cpuset::CpuSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::bus::Bus;
use super::properties;
use crate::{cgroup, process};

/// What is beside `weft.slice` at the top of the tree of cgroups, in systemd's own arrangement. `images/deb/postrm` has
/// the same list.
const OTHERS: [&str; 4] = ["system.slice", "user.slice", "machine.slice", "init.scope"];
/// The kernel's lists of CPUs that are switched on, and of all that there may ever be.
const ONLINE: &str = "/sys/devices/system/cpu/online";
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
/// Where systemd keeps what was configured until the next start of the machine.
const TOLD: &str = "/run/systemd/system.control";
/// systemd answers first and writes to cgroups then.
const WRITTEN_WITHIN: u32 = 20;
const WRITTEN_EVERY: Duration = Duration::from_millis(50);

/// The cores of one machine that are kept free. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Exclusive {
    free: Arc<Mutex<CpuSet>>,
    /// The CPUs that the others are configured to.
    told: Arc<tokio::sync::Mutex<Option<CpuSet>>>,
}

impl Exclusive {
    /// CPUs that the agent keeps itself off. They are missing in its affinity, and not in the machine.
    pub fn cpus(&self) -> CpuSet {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps these CPUs free from now on, and no other ones. Where nothing would be left for the others, they stay where
    /// they are. Repeating the current set is a no-op.
    pub async fn keep(&self, bus: &Bus, wanted: &CpuSet) -> io::Result<()> {
        let mut told = self.told.lock().await;
        let online = cpus(ONLINE)?;
        let mut rest = online.clone();
        rest.remove_all(wanted);
        let is_all = rest.is_empty() || rest == online;
        // Said, and not left out: systemd does not take back what it wrote to a cgroup when the list is empty.
        let allowed = if is_all { cpus(POSSIBLE)? } else { rest };
        let wanted = if is_all { CpuSet::new() } else { wanted.clone() };
        // An agent before this one may have said something else.
        let was_told = told.is_some() || OTHERS.iter().any(|unit| told_file(unit).exists());
        if told.as_ref() == Some(&allowed) || (is_all && !was_told) {
            return Ok(());
        }
        // Until the others are where they should be, both what was kept free and what will be is missing here.
        self.change(|free| free.insert_all(&wanted));
        let mut refused = None;
        for unit in OTHERS.into_iter().filter(|unit| !has_its_own(unit)) {
            let bits = properties::bits(&allowed);
            if let Err(error) = bus.set(unit, "AllowedCPUs", bits.into()).await {
                refused = Some(io::Error::other(format!("{unit}: {error}")));
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        let own = allowed.intersection(&online);
        for _ in 0..WRITTEN_WITHIN {
            if process::affinity(0).is_ok_and(|now| now == own) {
                break;
            }
            tokio::time::sleep(WRITTEN_EVERY).await;
        }
        self.change(|free| *free = wanted.clone());
        match is_all {
            true => tracing::info!("services and sessions run on all CPUs again"),
            false => tracing::info!(
                free = %wanted, others = %allowed,
                "cores of jobs are kept free of services and sessions"
            ),
        }
        *told = Some(allowed);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut CpuSet)) {
        change(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn cpus(list: impl AsRef<Path>) -> io::Result<CpuSet> {
    std::fs::read_to_string(list)?.trim().parse().map_err(io::Error::other)
}

/// The CPUs that everything beside jobs may run on right now, by its slice. `None`: cgroups have no cpusets here, or are not
/// arranged by systemd.
pub fn others() -> Option<Vec<(&'static str, CpuSet)>> {
    let top = cgroup::mount()?;
    let found: Vec<_> = OTHERS
        .into_iter()
        .filter_map(|unit| {
            let list = top.join(unit).join("cpuset.cpus.effective");
            Some((unit, cpus(list).ok()?))
        })
        .collect();
    (!found.is_empty()).then_some(found)
}

/// There if something is configured about this unit's CPUs.
fn told_file(unit: &str) -> PathBuf {
    Path::new(TOLD).join(format!("{unit}.d/50-AllowedCPUs.conf"))
}

/// Whether the machine's owner has said which CPUs this unit may use, which is then left as it is.
fn has_its_own(unit: &str) -> bool {
    let limit = cgroup::mount().map(|mount| mount.join(unit).join("cpuset.cpus"));
    let limit = limit.and_then(|limit| std::fs::read_to_string(limit).ok()).unwrap_or_default();
    !limit.trim().is_empty() && !told_file(unit).exists()
}
