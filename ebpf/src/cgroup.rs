//! Cgroups by the number that the kernel knows them by.

use crate::kept::KeptFiles;
use crate::limits::CGROUP_FOLDERS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of `cgroup.stat`: a line for each controller, and one more.
const STAT_BYTES_MAX: usize = 16 << 10;

/// The number of a cgroup in the hierarchy of version 2: the inode of its folder, and systemd's
/// `ControlGroupId`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// Stands for all cgroups that have no row of their own: those that are gone, and those beyond the bound.
    pub const OTHER: Self = Self(0);
}

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OTHER => write!(f, "other"),
            Self(id) => write!(f, "{id}"),
        }
    }
}

/// Which cgroups there are, and what their folders are called.
///
/// Invariant: whose folder is known has it until the end of one reading after it is gone, so that what it did last is
/// still its own.
#[derive(Debug)]
pub struct Cgroups {
    root: Option<PathBuf>,
    folders: BTreeMap<CgroupId, PathBuf>,
    /// Those that are gone, and whether a reading has ended since.
    gone: BTreeMap<CgroupId, (PathBuf, bool)>,
    /// The folders were walked through since the last [`refresh`](Self::refresh).
    walked: bool,
    /// How often they were.
    walks: u64,
    /// Those that were there since the last [`refresh`](Self::refresh).
    seen: BTreeSet<CgroupId>,
    /// Numbers that no walk has found, with the walks until then. Such a cgroup is gone or out of sight; a number
    /// that one more walk has not found either never comes: whose events are counted was there before.
    missed: BTreeMap<CgroupId, u64>,
    /// How many there are, as the kernel tells it.
    count: KeptFiles,
}

impl Cgroups {
    /// Of this machine's version 2 hierarchy, unified or hybrid. Without one nothing is known, and nothing
    /// counts as gone.
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // One that another mount lies over cannot be reached.
        let root = mount_points(&mounts).find(|root| root.join("cgroup.controllers").exists());
        Self { root, ..Self::default() }
    }

    /// Of a folder that is like a hierarchy.
    #[cfg(test)]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root: Some(root), ..Self::default() }
    }

    /// Where the hierarchy is mounted.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The folder of a cgroup that is known to exist or has just gone, relative to [`root`](Self::root).
    pub fn folder(&self, id: CgroupId) -> Option<&Path> {
        let gone = || self.gone.get(&id).map(|(folder, _)| folder);
        let folder = self.folders.get(&id).or_else(gone)?;
        folder.strip_prefix(self.root.as_ref()?).ok()
    }

    /// The numbers of the cgroup of this folder, relative to [`root`](Self::root), and of all below it that
    /// are known to exist.
    pub fn below(&self, folder: &Path) -> impl Iterator<Item = CgroupId> {
        let top = self.root.as_ref().map(|root| root.join(folder));
        let inside = move |path: &Path| top.as_ref().is_some_and(|top| path.starts_with(top));
        self.folders.iter().filter(move |(_, path)| inside(path)).map(|(id, _)| *id)
    }

    /// Allows for one more walk through the folders: what is asked next is about now.
    pub(crate) fn refresh(&mut self) {
        self.walked = false;
        self.seen.clear();
    }

    /// A reading begins: who was gone in the last one is forgotten.
    pub(crate) fn begin(&mut self) {
        self.refresh();
        self.gone.retain(|_, (_, told)| !*told);
    }

    /// A reading ends.
    pub(crate) fn end(&mut self) {
        self.gone.values_mut().for_each(|(_, told)| *told = true);
    }

    /// A cgroup was here whose folder, relative to [`root`](Self::root), the kernel has told.
    pub(crate) fn was(&mut self, id: CgroupId, folder: &Path) {
        let Some(root) = self.root.clone() else { return };
        if !self.exists(id) && self.gone.len() < CGROUP_FOLDERS_MAX {
            self.gone.entry(id).or_insert_with(|| (root.join(folder), false));
        }
    }

    /// The number of the cgroup at which the hierarchy is mounted.
    pub(crate) fn root_id(&self) -> Option<CgroupId> {
        inode(self.root.as_ref()?)
    }

    /// The number of the cgroup whose folder is this, relative to [`root`](Self::root).
    pub(crate) fn id(&self, folder: &str) -> Option<CgroupId> {
        inode(&self.root.as_ref()?.join(folder))
    }

    /// Whether it was there when the folders were last walked through.
    pub(crate) fn knows(&self, id: CgroupId) -> bool {
        self.folders.contains_key(&id)
    }

    /// All that there were when they were last walked through.
    pub(crate) fn known(&self) -> impl Iterator<Item = (CgroupId, &Path)> {
        self.folders.iter().map(|(id, folder)| (*id, folder.as_path()))
    }

    /// All that there are now.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = (CgroupId, &Path)> {
        self.walk();
        self.known()
    }

    /// Walks through the folders, once between two calls of [`refresh`](Self::refresh), unless they are those that are known.
    pub(crate) fn walk(&mut self) {
        if self.walked {
            return;
        }
        let Some(root) = self.root.clone() else { return };
        self.walked = true;
        self.walks += 1;
        if self.are_known() {
            return;
        }
        let before = std::mem::replace(&mut self.folders, walk(&root));
        let gone = before.into_iter().filter(|(id, _)| !self.folders.contains_key(id));
        self.gone.extend(gone.map(|(id, folder)| (id, (folder, false))));
        self.seen = self.folders.keys().copied().collect();
        self.missed.retain(|id, _| !self.folders.contains_key(id));
    }

    /// Whether all that are known are there, and there are as many as are known.
    fn are_known(&mut self) -> bool {
        let known: Vec<CgroupId> = self.folders.keys().copied().collect();
        !known.is_empty()
            && known.into_iter().all(|id| self.is_in_place(id))
            && self
                .root
                .as_ref()
                .and_then(|root| descendants(self.count.text(root, "cgroup.stat")?))
                == Some(self.folders.len() - 1)
    }

    /// Whether it is where it was. It is looked up once between two calls of [`refresh`](Self::refresh).
    fn is_in_place(&mut self, id: CgroupId) -> bool {
        let there = self.seen.contains(&id)
            || self.folders.get(&id).is_some_and(|folder| inode(folder) == Some(id));
        if there {
            self.seen.insert(id);
        }
        there
    }

    /// Whether it is looked for no more: a walk has not found it that began after it was missed. It is gone, or belongs
    /// to a part of the hierarchy that this process does not see.
    pub(crate) fn is_out_of_sight(&self, id: CgroupId) -> bool {
        self.missed.get(&id).is_some_and(|walks| *walks < self.walks)
    }

    /// Whether the cgroup still exists.
    pub(crate) fn exists(&mut self, id: CgroupId) -> bool {
        if self.root.is_none() || self.is_in_place(id) {
            return true;
        }
        if self.is_out_of_sight(id) {
            return false;
        }
        self.walk();
        if self.folders.contains_key(&id) {
            return true;
        }
        // A walk that stopped at its bound says nothing about the rest.
        if self.folders.len() < CGROUP_FOLDERS_MAX {
            if self.missed.len() >= CGROUP_FOLDERS_MAX {
                self.missed.clear();
            }
            self.missed.entry(id).or_insert(self.walks);
        }
        false
    }
}

impl Default for Cgroups {
    /// Without a hierarchy.
    fn default() -> Self {
        Self {
            root: None,
            folders: BTreeMap::new(),
            gone: BTreeMap::new(),
            walked: false,
            walks: 0,
            seen: BTreeSet::new(),
            missed: BTreeMap::new(),
            count: KeptFiles::new(1, STAT_BYTES_MAX),
        }
    }
}

/// Cgroups below one, from its `cgroup.stat`.
fn descendants(stat: &str) -> Option<usize> {
    stat.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
}

/// Where version 2 hierarchies are mounted, from the text of `/proc/self/mountinfo` (proc(5)): the fields after
/// a lone hyphen begin with the type. Spaces in names are written as `\040`.
fn mount_points(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let folder = mount.split(' ').nth(4)?;
        (kind.split(' ').next() == Some("cgroup2")).then(|| folder.replace("\\040", " ").into())
    })
}

pub(crate) fn inode(folder: &Path) -> Option<CgroupId> {
    fs::metadata(folder).ok().map(|metadata| CgroupId(metadata.ino()))
}

fn walk(root: &Path) -> BTreeMap<CgroupId, PathBuf> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        if found.len() == CGROUP_FOLDERS_MAX {
            break;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
        if let Some(id) = inode(&folder) {
            found.insert(id, folder);
        }
    }
    found
}

#[cfg(test)]
mod tests;
