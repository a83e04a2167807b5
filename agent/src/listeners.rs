//! Who listens on which port of this machine, so that no port is given away that another program has, and no stranger's
//! answer passes as a task's.
//!
//! A socket is the fabric's when it was made in the cgroup of a unit, or when a process of a unit holds it. All others
//! are strangers', the agent's own among them.

use fabric::limits;
use fabric::topology::PortsUsed;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cgroup;
use crate::process::{self, Members};
use sock_diag::Listener;

mod sock_diag;

/// Ports of which it matters whether a stranger listens there.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Those that the node gives away by itself. Any socket there is reason enough to take another one.
    pub dynamic: RangeInclusive<u16>,
    /// Those that jobs ask for by number. A task that binds one the usual way fails where somebody listens for TCP on all
    /// addresses or on that of this machine itself. Who listens on another address leaves the rest to others, and UDP
    /// sockets can be shared.
    pub fixed: BTreeSet<u16>,
}

impl Wanted {
    fn concerns(&self, one: &Listener) -> bool {
        let is_in_the_way = !one.is_udp && is_usual(one.address);
        self.dynamic.contains(&one.port) || is_in_the_way && self.fixed.contains(&one.port)
    }
}

/// What listens on this machine. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// The folder in which each unit has its cgroup, if there are cgroups.
    units: Option<Arc<Path>>,
    /// Sockets of earlier looks that are still there, by their numbers: a look asks for the owners of new ones only.
    known: Arc<Mutex<BTreeMap<u64, Whose>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    Fabric,
    Stranger(String),
}

/// One task, to tell its sockets from others'.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The cgroup of its unit, if it has one.
    pub cgroup: Option<PathBuf>,
    /// Its main process.
    pub pid: u32,
}

impl Holder {
    /// Whether the main process is in its unit: a number may have been given away again.
    pub fn is_there(&self) -> bool {
        let Some(cgroup) = &self.cgroup else { return true };
        cgroup::of_process(self.pid).is_some_and(|path| path.starts_with(cgroup))
    }
}

impl Listeners {
    /// With the folder of the units' cgroups.
    pub fn new(units: Option<PathBuf>) -> Self {
        Self { units: units.map(Arc::from), known: Arc::default() }
    }

    /// The cgroup that a unit has, if units have any.
    pub fn cgroup_of(&self, unit: &str) -> Option<PathBuf> {
        self.units.as_deref().map(|units| units.join(unit))
    }

    /// Wanted ports that strangers have, and whom they belong to: `nginx (pid 812)`. Blocks for as long as it takes to look at
    /// all processes, if there are new sockets on such a port.
    pub fn strangers(&self, wanted: &Wanted) -> io::Result<BTreeMap<u16, String>> {
        let all = sock_diag::all()?;
        // Nothing panics while holding it.
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let there: BTreeSet<u64> = all.iter().map(|one| one.inode).collect();
        known.retain(|inode, _| there.contains(inode));
        let all: Vec<Listener> = all.into_iter().filter(|one| wanted.concerns(one)).collect();
        let new: Vec<&Listener> =
            all.iter().filter(|one| !known.contains_key(&one.inode)).collect();
        if !new.is_empty() {
            known.extend(self.whose(&new));
        }
        let stranger = |one: &Listener| match known.get(&one.inode) {
            Some(Whose::Stranger(by)) => Some((one.port, by.clone())),
            _ => None,
        };
        Ok(all.iter().filter_map(stranger).collect())
    }

    /// The first of a unit's ports on which its task would find somebody else, and whom. Blocks like
    /// [`Listeners::strangers`].
    pub fn in_the_way(&self, ports: &BTreeMap<String, u16>) -> Option<(u16, String)> {
        #[expect(clippy::reversed_empty_ranges, reason = "these ports are all that is wanted")]
        let wanted = Wanted { dynamic: 1..=0, fixed: ports.values().copied().collect() };
        let strangers = self.strangers(&wanted).inspect_err(|error| {
            tracing::warn!(%error, "the kernel does not say who listens on this machine");
        });
        strangers.ok()?.pop_first()
    }

    fn whose(&self, sockets: &[&Listener]) -> Vec<(u64, Whose)> {
        let ids = self.units.as_deref().map(cgroup_ids).unwrap_or_default();
        let is_ours = |one: &&&Listener| one.cgroup.is_some_and(|id| ids.contains(&id));
        let (ours, others): (Vec<&&Listener>, Vec<_>) = sockets.iter().partition(is_ours);
        let mut whose: Vec<(u64, Whose)> =
            ours.into_iter().map(|one| (one.inode, Whose::Fabric)).collect();
        let owners = owners(&others.iter().map(|one| one.inode).collect());
        whose.extend(others.into_iter().map(|one| {
            let owner = owners.get(&one.inode).copied();
            let of = match owner {
                Some(pid) if self.is_of_a_unit(pid) => Whose::Fabric,
                owner => Whose::Stranger(name_of(owner)),
            };
            (one.inode, of)
        }));
        whose
    }

    /// Whether a process belongs to a unit.
    fn is_of_a_unit(&self, pid: u32) -> bool {
        match self.units.as_deref() {
            Some(units) => cgroup::of_process(pid).is_some_and(|path| path.starts_with(units)),
            None => {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|&byte| byte == 0).any(|one| one.starts_with(b"WEFT_UNIT="))
            }
        }
    }

    /// Whether a connection within this machine goes to a socket that was made in the cgroup of the task's unit: the quick
    /// look, which may miss one.
    pub fn leads_straight_to(&self, task: &Holder, own: SocketAddr, peer: SocketAddr) -> bool {
        let wanted = task.cgroup.as_deref().and_then(id_of);
        wanted.is_some() && sock_diag::cgroup_of_peer(own, peer).is_ok_and(|has| has == wanted)
    }

    /// Whether a connection to this address goes to a task; the error says to whom else. Where nobody listens (the kernel
    /// itself passes it on), or the kernel does not say, there is nobody to name, and it counts as the task's. `known` is
    /// the socket that was found to be the task's. Blocks for as long as it takes to look at the task's processes.
    pub fn leads_to(
        &self,
        task: &Holder,
        peer: SocketAddr,
        known: &mut Option<u64>,
    ) -> Result<(), String> {
        let listening = addressed(sock_diag::tcp(peer.port()).unwrap_or_default(), peer.ip());
        if listening.is_empty() || listening.iter().any(|one| Some(one.inode) == *known) {
            return Ok(());
        }
        let ids = task.cgroup.as_deref().map(cgroup_ids).unwrap_or_default();
        let made_there = |one: &&Listener| one.cgroup.is_some_and(|id| ids.contains(&id));
        let of_task = listening.iter().find(made_there).or_else(|| {
            let held = sockets_of(task);
            listening.iter().find(|one| held.contains(&one.inode))
        });
        if let Some(one) = of_task {
            *known = Some(one.inode);
            return Ok(());
        }
        let inode = listening[0].inode;
        Err(name_of(owners(&BTreeSet::from([inode])).remove(&inode)))
    }
}

/// Ports that strangers have, as the others are told of them.
pub fn used(strangers: BTreeMap<u16, String>, dynamic: &RangeInclusive<u16>) -> Vec<PortsUsed> {
    let mut stretches: Vec<PortsUsed> = Vec::new();
    for (port, by) in strangers {
        match stretches.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(port) && last.by == by => {
                last.last = port
            }
            _ => stretches.push(PortsUsed { first: port, last: port, by }),
        }
    }
    let (inside, mut rest): (Vec<_>, Vec<_>) =
        stretches.into_iter().partition(|one| dynamic.contains(&one.first));
    rest.truncate(limits::PORTS_USED_MAX / 2);
    rest.extend(joined(inside, limits::PORTS_USED_MAX / 2));
    rest.sort_by_key(|one| one.first);
    rest
}

/// At most so many stretches: those with the fewest ports between them become one.
fn joined(stretches: Vec<PortsUsed>, most: usize) -> Vec<PortsUsed> {
    let surplus = stretches.len().saturating_sub(most);
    let mut gaps: Vec<(u16, usize)> = stretches
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1].first - pair[0].last, at))
        .collect();
    gaps.sort_unstable();
    let closed: BTreeSet<usize> = gaps.into_iter().take(surplus).map(|(_, at)| at + 1).collect();
    let mut joined: Vec<PortsUsed> = Vec::new();
    for (at, one) in stretches.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if closed.contains(&at) => {
                last.last = one.last;
                if last.by != one.by {
                    last.by = SEVERAL.to_owned();
                }
            }
            _ => joined.push(one),
        }
    }
    joined
}

/// Who listens on ports that are told of together.
const SEVERAL: &str = "several programs";

/// Where programs listen that have no wish of their own.
fn is_usual(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified()
        || address == IpAddr::from(std::net::Ipv4Addr::LOCALHOST)
        || address == IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
}

/// Those of the sockets on a port that get a connection to this address: the ones that are bound to it, or else those that
/// take every address.
fn addressed(sockets: Vec<Listener>, to: IpAddr) -> Vec<Listener> {
    let rank = |one: &Listener| match one.address.to_canonical() {
        address if address == to.to_canonical() => Some(0),
        IpAddr::V4(address) if address.is_unspecified() && to.is_ipv4() => Some(1),
        IpAddr::V6(address) if address.is_unspecified() => match (to.is_ipv6(), one.only_ipv6) {
            (true, _) => Some(1),
            (false, false) => Some(2),
            (false, true) => None,
        },
        _ => None,
    };
    let best = sockets.iter().filter_map(rank).min();
    sockets.into_iter().filter(|one| best.is_some() && rank(one) == best).collect()
}

/// The kernel's number of a cgroup.
fn id_of(cgroup: &Path) -> Option<u64> {
    std::fs::metadata(cgroup).ok().map(|folder| folder.ino())
}

/// The numbers of a cgroup and of all below it.
fn cgroup_ids(cgroup: &Path) -> BTreeSet<u64> {
    let mut ids: BTreeSet<u64> = id_of(cgroup).into_iter().collect();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.extend(id_of(&entry.path()));
                folders.push(entry.path());
            }
        }
    }
    ids
}

/// The sockets that the processes of a task hold.
fn sockets_of(task: &Holder) -> BTreeSet<u64> {
    let members = match &task.cgroup {
        Some(cgroup) => Members::Cgroup(cgroup.clone()),
        None => {
            let started = process::start_time(task.pid).unwrap_or(0);
            Members::Session { leader: task.pid, started }
        }
    };
    let mut pids = members.pids();
    pids.push(task.pid);
    pids.into_iter().flat_map(held_by).collect()
}

/// The process with the lowest number that holds each of these sockets.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, u32> {
    let mut owners = BTreeMap::new();
    let mut pids = process::all_pids().unwrap_or_default();
    pids.sort_unstable();
    for pid in pids {
        if owners.len() == inodes.len() {
            break;
        }
        for inode in held_by(pid).filter(|inode| inodes.contains(inode)) {
            owners.entry(inode).or_insert(pid);
        }
    }
    owners
}

/// The sockets that a process holds.
fn held_by(pid: u32) -> impl Iterator<Item = u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// A process as people know it.
fn name_of(pid: Option<u32>) -> String {
    let Some(pid) = pid else {
        // In another PID namespace, or the kernel's own.
        return "a program that this machine does not show".into();
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (pid {pid})", name.trim())
}

#[cfg(test)]
mod tests;
