//! What is made on this machine so that the files of tasks can be mounted, and removed again afterwards.
//!
//! A file can be mounted only over a file. Where a task wants to see one at a path that this machine does not have, an
//! empty file and the folders above it are made, and removed when the unit has ended, so that no other program finds
//! them later. A path that several units need goes with the last of them.
//!
//! ```text
//!   claim:    what is missing? ──► write it down in the unit's folder ──► make it
//!   release:  what is written down, nobody else has written down, and is as it was made ──► remove it ──► forget it
//! ```
//!
//! It is written down first, so an agent that ends in between leaves a list, which the next agent works off.
//!
//! Parts of such a path may belong to a task, which may put a link to `/etc` in its place at any moment. So a path is
//! walked folder by folder, each opened below the one before, and a link is followed only where nobody but root can have
//! put it.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The list in a unit's folder.
const LIST: &str = "mount-points";
/// Links that are followed for one path: as many as the kernel does.
const LINKS_MAX: u32 = 40;
/// Stack of the thread that looks at the whole machine.
const STACK_BYTES: usize = 256 << 10;

/// As whom the units see the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As this process: its children.
    Own,
    /// As process 1, which starts them. The agent's own service may have only a part of it, or must not write there.
    Machine,
}

/// The mount points of all units of one agent. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct MountPoints {
    /// With one folder a unit.
    units: PathBuf,
    view: View,
    /// One look and what follows from it at a time.
    turn: Arc<Mutex<()>>,
}

impl MountPoints {
    /// Those of the units whose folders are in `units`.
    pub fn new(units: PathBuf, view: View) -> Self {
        Self { units, view, turn: Arc::default() }
    }

    /// Sees to it that there is a file at each of these paths, and says where that really is: without links.
    pub fn claim(&self, unit: &str, paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
        let _turn = self.turn();
        let found = self.on_machine(|| paths.iter().map(|path| walk(path, Make::No)).collect());
        let found: Vec<Place> = found?;
        // What is there because another unit, or an earlier run of this one, has had it made.
        let listed = self.listed(|_| true);
        let ancestors = found.iter().flat_map(|place| place.path.ancestors());
        let shared = ancestors.filter(|part| listed.contains(*part)).map(Path::to_owned);
        let missing = found.iter().flat_map(|place| place.missing.iter().cloned());
        self.write(unit, &shared.chain(missing).collect())?;
        let made = || found.iter().try_for_each(|place| walk(&place.path, Make::Missing).map(drop));
        self.on_machine(made)?;
        Ok(found.into_iter().map(|place| place.path).collect())
    }

    /// Removes what was made for a unit that has ended, unless another one needs it or somebody has made use of it.
    pub fn release(&self, unit: &str) -> io::Result<()> {
        let _turn = self.turn();
        let own = self.read(unit)?;
        if own.is_empty() {
            return Ok(());
        }
        let others = self.listed(|other| other != unit);
        let mut failed = None;
        let left = self.on_machine(|| {
            let mut left = BTreeSet::new();
            // In this order a folder comes before what is in it.
            for path in own.iter().rev().filter(|path| !others.contains(*path)) {
                if let Err(error) = remove(path) {
                    failed = Some(named(path, error));
                    left.insert(path.clone());
                }
            }
            Ok(left)
        })?;
        self.write(unit, &left)?;
        failed.map_or(Ok(()), Err)
    }

    /// Removes what is left of units that are not among `kept`: of an agent that has ended before it could.
    pub fn release_others(&self, kept: &BTreeSet<String>) {
        for unit in self.units().into_iter().filter(|unit| !kept.contains(unit)) {
            if let Err(error) = self.release(&unit) {
                tracing::warn!(unit, %error, "an empty file that was made for a unit stays");
            }
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        // Nothing panics while holding it.
        self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Units that have a folder.
    fn units(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.units).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Every path that one of these units has written down.
    fn listed(&self, which: impl Fn(&str) -> bool) -> BTreeSet<PathBuf> {
        let units = self.units().into_iter().filter(|unit| which(unit));
        units.flat_map(|unit| self.read(&unit).unwrap_or_default()).collect()
    }

    fn read(&self, unit: &str) -> io::Result<BTreeSet<PathBuf>> {
        match std::fs::read(self.units.join(unit).join(LIST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            bytes => Ok(serde_json::from_slice(&bytes?)?),
        }
    }

    /// Durable: what is made outlives a power cut, too.
    fn write(&self, unit: &str, paths: &BTreeSet<PathBuf>) -> io::Result<()> {
        let folder = self.units.join(unit);
        let (list, new) = (folder.join(LIST), folder.join(format!("{LIST}.new")));
        if paths.is_empty() {
            return match std::fs::remove_file(list) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(paths)?)?;
        file.sync_all()?;
        std::fs::rename(new, list)?;
        File::open(folder)?.sync_all()
    }

    /// Does something where the units see the same files.
    fn on_machine<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        const INIT: &str = "/proc/1/ns/mnt";
        if self.view == View::Own
            || std::fs::read_link("/proc/self/ns/mnt")? == std::fs::read_link(INIT)?
        {
            return act();
        }
        let init = File::open(INIT)?;
        let enter = || {
            // A mount namespace is entered by one thread, once it shares its directory with no other.
            // SAFETY: no memory is passed.
            Errno::result(unsafe { libc::unshare(libc::CLONE_FS) })?;
            nix::sched::setns(&init, nix::sched::CloneFlags::CLONE_NEWNS)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mounts".into()).stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || {
                enter().map_err(|error| {
                    io::Error::other(format!("the mounts of process 1 cannot be entered: {error}"))
                })?;
                act()
            })?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
        })
    }
}

/// A path, looked at.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The same without links.
    path: PathBuf,
    /// What of it is not there, or was not, from the top.
    missing: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Make {
    No,
    Missing,
}

/// Goes to a file, or to where it would be.
fn walk(path: &Path, make: Make) -> io::Result<Place> {
    let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = || nix::fcntl::open("/", look | OFlag::O_DIRECTORY, Mode::empty());
    let mut at = root()?;
    let mut real = PathBuf::from("/");
    let mut missing = Vec::new();
    let mut ahead: VecDeque<OsString> = parts(path)?;
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            // Of a link that root has put there. Nothing before it was a link that was not followed.
            at = openat(&at, "..", look | OFlag::O_DIRECTORY, Mode::empty())?;
            real.pop();
            continue;
        }
        let here = real.join(&part);
        let said = |error: Errno| named(&here, error.into());
        let found = match missing.is_empty() || make == Make::Missing {
            true => openat(&at, part.as_os_str(), look, Mode::empty()),
            false => Err(Errno::ENOENT),
        };
        match found {
            Err(Errno::ENOENT) if ahead.iter().any(|part| part == "..") => {
                return Err(said(Errno::ENOENT));
            }
            Err(Errno::ENOENT) => {
                if make == Make::Missing {
                    let made = match ahead.is_empty() {
                        true => make_file(&at, &part),
                        false => make_folder(&at, &part),
                    };
                    at = made.map_err(said)?;
                }
                missing.push(here.clone());
                real = here;
            }
            Err(error) => return Err(said(error)),
            Ok(found) => {
                let what = fstat(&found).map_err(said)?;
                match kind(&what) {
                    SFlag::S_IFLNK => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(said(Errno::ELOOP));
                        }
                        if !is_of_root_alone(&what, &fstat(&at).map_err(said)?) {
                            return Err(named(
                                &here,
                                io::Error::other(
                                    "is a symbolic link that others than root may have put there: \
                                     name the file by a path without it",
                                ),
                            ));
                        }
                        let target = PathBuf::from(readlinkat(&found, "").map_err(said)?);
                        if target.is_absolute() {
                            (at, real) = (root()?, PathBuf::from("/"));
                        }
                        for part in parts(&target)?.into_iter().rev() {
                            ahead.push_front(part);
                        }
                    }
                    SFlag::S_IFDIR if ahead.is_empty() => {
                        return Err(named(&here, io::Error::other("is a folder")));
                    }
                    SFlag::S_IFDIR => (at, real) = (found, here),
                    _ if ahead.is_empty() => real = here,
                    _ => return Err(said(Errno::ENOTDIR)),
                }
            }
        }
    }
    Ok(Place { path: real, missing })
}

fn parts(path: &Path) -> io::Result<VecDeque<OsString>> {
    let part = |part: Component<'_>| match part {
        Component::RootDir | Component::CurDir => None,
        part => Some(part.as_os_str().to_owned()),
    };
    let parts: VecDeque<_> = path.components().filter_map(part).collect();
    match parts.is_empty() {
        true => Err(named(path, io::Error::other("is not the path of a file"))),
        false => Ok(parts),
    }
}

fn kind(what: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(what.st_mode) & SFlag::S_IFMT
}

/// Whether only root, or who the agent runs as, can have put a link into a folder.
fn is_of_root_alone(link: &FileStat, folder: &FileStat) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let is_ours = |what: &FileStat| what.st_uid == 0 || what.st_uid == own;
    let for_others = Mode::S_IWGRP | Mode::S_IWOTH;
    is_ours(link) && is_ours(folder) && folder.st_mode & for_others.bits() == 0
}

fn make_folder(at: &OwnedFd, name: &OsString) -> Result<OwnedFd, Errno> {
    let made = mkdirat(at, name.as_os_str(), Mode::from_bits_truncate(0o755));
    let opened = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(at, name.as_os_str(), opened, Mode::empty());
    match made {
        // Somebody was quicker.
        Err(Errno::EEXIST) => folder,
        Err(error) => Err(error),
        Ok(()) => {
            let folder = folder?;
            // Whatever this process keeps from others by its umask: the task goes through here.
            fchmod(&folder, Mode::from_bits_truncate(0o755))?;
            Ok(folder)
        }
    }
}

/// An empty file that nobody may read: what is mounted over it has a mode of its own.
fn make_file(at: &OwnedFd, name: &OsString) -> Result<OwnedFd, Errno> {
    let fresh = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    match openat(at, name.as_os_str(), fresh | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::EEXIST) => {
            let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(at, name.as_os_str(), look, Mode::empty())
        }
        made => made,
    }
}

/// Removes an empty file or folder that was made here, if it still is one. That it is gone, or somebody's by now, is fine.
fn remove(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let removed = (|| {
        let folder = open_folder(folder)?;
        let what = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let permissions = Mode::from_bits_truncate(what.st_mode);
        match kind(&what) {
            SFlag::S_IFDIR => unlinkat(&folder, name, UnlinkatFlags::RemoveDir),
            SFlag::S_IFREG
                if what.st_size == 0
                    && permissions.is_empty()
                    && what.st_uid == nix::unistd::geteuid().as_raw() =>
            {
                unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir)
            }
            _ => Ok(()),
        }
    })();
    match removed {
        Err(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ELOOP
            | Errno::ENOTEMPTY
            | Errno::EEXIST
            | Errno::EBUSY,
        ) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Opens a folder by a path without links. (`openat2` would do it at once, and is not let through by `RestrictSUIDSGID=`.)
fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let look = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open("/", look, Mode::empty())?;
    let mut parts = path.components().filter(|part| *part != Component::RootDir);
    parts.try_fold(root, |at, part| openat(&at, part.as_os_str(), look, Mode::empty()))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
