//! Which unit a cgroup belongs to, and whose allocation that is.

use fabric::id::AllocId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ebpf::{CgroupId, Cgroups};

/// Units that have series of their own; further ones are counted as [`OTHER`]. A unit has some 80 series
/// once it has done everything that is counted, and the index of the store may take 2 MiB of labels.
pub const UNITS_MAX: usize = 128;
/// Stands for all units that have no series of their own, and for what is gone.
pub const OTHER: &str = "other";
/// Processes at the top of the hierarchy, kernel threads among them.
const ROOT: &str = "root";
/// Ends of names that are units of systemd's with processes in them.
const KINDS: [&str; 5] = [".service", ".scope", ".mount", ".socket", ".swap"];

/// A unit: what series are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    /// Its name.
    pub name: Arc<str>,
    /// The job whose allocation it runs.
    pub job: Option<Arc<str>>,
    /// The slot of the job that the allocation fills.
    pub slot: Option<Arc<str>>,
}

impl Unit {
    /// Labels of its series: `unit`, and `job` and `slot` where it runs an allocation.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        [("unit", Some(&self.name)), ("job", self.job.as_ref()), ("slot", self.slot.as_ref())]
            .into_iter()
            .filter_map(|(label, value)| Some((label, &**value?)))
    }
}

/// Units by their cgroups.
///
/// Invariant: a cgroup keeps its unit for as long as it exists.
#[derive(Debug)]
pub struct Units {
    /// The folder below which this agent's allocations have theirs; without one there is nothing to know
    /// them by.
    ours: Option<PathBuf>,
    by_cgroup: BTreeMap<CgroupId, Arc<Unit>>,
    by_name: BTreeMap<Unit, Arc<Unit>>,
    other: Arc<Unit>,
}

impl Units {
    /// Knows none yet. The folder is one of the hierarchy's, with its mount point.
    pub fn new(ours: Option<&Path>, cgroups: &Cgroups) -> Self {
        let ours =
            ours.and_then(|ours| ours.strip_prefix(cgroups.root()?).ok()).map(Path::to_owned);
        let other = Arc::new(Unit { name: OTHER.into(), job: None, slot: None });
        Self { ours, by_cgroup: BTreeMap::new(), by_name: BTreeMap::new(), other }
    }

    /// Forgets cgroups that are gone, so that their places are free for others.
    pub fn refresh(&mut self, cgroups: &Cgroups) {
        self.by_cgroup.retain(|id, _| cgroups.folder(*id).is_some());
        let used: BTreeSet<Unit> = self.by_cgroup.values().map(|unit| (**unit).clone()).collect();
        self.by_name.retain(|unit, _| used.contains(unit));
    }

    /// Whether it has cgroups, as far as anybody has asked for their unit.
    pub fn is_there(&self, unit: &Unit) -> bool {
        self.by_name.contains_key(unit) || *unit == *self.other
    }

    /// Stands for all that have no place of their own.
    pub fn other(&self) -> Arc<Unit> {
        self.other.clone()
    }

    /// The unit of a cgroup.
    pub fn of(&mut self, id: CgroupId, cgroups: &Cgroups) -> Arc<Unit> {
        if let Some(unit) = self.by_cgroup.get(&id) {
            return unit.clone();
        }
        let Some(folder) = cgroups.folder(id) else { return self.other.clone() };
        let unit = self.named(folder);
        let known = match self.by_name.get(&unit) {
            Some(known) => known.clone(),
            // Allocations are what this is all for: they find a place after all.
            None if self.by_name.len() >= UNITS_MAX && unit.job.is_none() => self.other.clone(),
            None if self.by_name.len() >= 2 * UNITS_MAX => self.other.clone(),
            None => {
                let known = Arc::new(unit.clone());
                self.by_name.insert(unit, known.clone());
                known
            }
        };
        self.by_cgroup.insert(id, known.clone());
        known
    }

    /// Whether a cgroup is the outermost one of its unit.
    pub fn is_whole(&self, id: CgroupId, unit: &Unit, cgroups: &Cgroups) -> bool {
        let folder = cgroups.folder(id);
        folder.is_some_and(|folder| match folder.parent() {
            Some(above) => self.named(above) != *unit,
            None => true,
        })
    }

    /// The cgroups of an allocation: its own and those that it made below.
    pub fn cgroups(&self, alloc: &AllocId, cgroups: &Cgroups) -> Vec<CgroupId> {
        let Some(ours) = &self.ours else { return Vec::new() };
        cgroups.below(&ours.join(alloc.unit())).collect()
    }

    fn named(&self, folder: &Path) -> Unit {
        if let Some(ours) = &self.ours
            && let Ok(rest) = folder.strip_prefix(ours)
            && let Some(first) = rest.components().next()
            && let Some(name) = first.as_os_str().to_str()
            && let Some(alloc) = AllocId::from_unit(name)
        {
            return Unit {
                name: name.into(),
                job: Some(alloc.slot.job.as_str().into()),
                slot: Some(alloc.slot.index.to_string().into()),
            };
        }
        Unit { name: of_system(folder).into(), job: None, slot: None }
    }
}

/// The unit of systemd's that a folder is in: the outermost one, since what a service makes below itself is
/// its own affair. A user's sessions and services are one; without systemd it is the outermost folder.
fn of_system(folder: &Path) -> &str {
    let mut names = folder.components().map(|name| name.as_os_str().to_str().unwrap_or(OTHER));
    let Some(first) = names.next() else { return ROOT };
    let is_unit = |name: &str| KINDS.iter().any(|kind| name.ends_with(kind));
    if is_unit(first) || !first.ends_with(".slice") {
        return first;
    }
    let mut slice = first;
    for name in names {
        if is_unit(name) {
            return name;
        }
        if !name.ends_with(".slice") {
            return slice;
        }
        slice = name;
        if name.starts_with("user-") {
            return name;
        }
    }
    slice
}

#[cfg(test)]
mod tests;
