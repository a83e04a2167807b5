//! Puts entries of a layer into its folder.
//!
//! Two rules keep it inside, whatever links the layer has made for itself:
//!
//! 1. the folder of an entry is opened by `openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_XDEV)` from the layer's own folder: links are
//!    followed as they will be in the container, so `var/run -> /run` is the layer's `run`, and never leave it;
//! 2. in that folder, the entry's own name is one name, and no call that uses it follows a link.

use super::place::{Place, prefixes};
use super::{Problem, Summary, UnpackError, WITHIN, Warning, shown};
use crate::entries::{Entries, Entry, Kind};
use crate::limits;
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// What a name begins with that hides another one, what hides all of a folder, and what aufs kept beside these.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
/// How overlayfs has them: a device that is none, and an attribute.
const WHITEOUT_DEVICE: Dev = 0;
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Attributes that a layer may have. Those of overlayfs would let it read other folders of the machine.
const CAPABILITY: &[u8] = b"security.capability";
const USER: &[u8] = b"user.";
const USER_OVERLAY: &[u8] = b"user.overlay.";
/// Mode of folders that no entry speaks of.
const IMPLIED_MODE: u32 = 0o755;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 128 << 10;
/// How often a path is resolved anew when something else on the machine is renamed meanwhile.
const RESOLVE_TRIES: usize = 128;

/// A layer's folder while it is filled.
pub(super) struct Tree<'t> {
    root: &'t OwnedFd,
    /// The folder of the last entry, and its path in the archive: most entries follow one of the same folder.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Folders whose mode and time are set when nothing is put into them any more.
    folders: Vec<Folder>,
    /// Folders that were made for what is in them, and that no entry has spoken of yet.
    implied: BTreeSet<Vec<u8>>,
    /// Of all their paths.
    folder_bytes: usize,
    entries_max: u64,
    summary: Summary,
    buffer: Vec<u8>,
}

struct Folder {
    place: Place,
    mode: u32,
    modified: (i64, u32),
}

/// What was there before an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing, or what is removed.
    Nothing,
    /// A whiteout of the same layer, which is removed.
    Whiteout,
    /// A folder, which stays.
    Folder,
}

/// Owner, mode and time, as the file system takes them.
struct Attributes {
    user: Uid,
    group: Gid,
    mode: Mode,
    times: Timestamps,
}

impl<'t> Tree<'t> {
    /// Into an empty folder.
    pub(super) fn new(root: &'t OwnedFd, entries_max: u64) -> Result<Self, UnpackError> {
        let mode = Mode::from_raw_mode(IMPLIED_MODE);
        rustix::fs::fchmod(root, mode).map_err(UnpackError::disk("its root's mode"))?;
        Ok(Self {
            root,
            last: None,
            folders: Vec::new(),
            implied: BTreeSet::new(),
            folder_bytes: 0,
            entries_max,
            summary: Summary::default(),
            buffer: vec![0; COPY_BYTES],
        })
    }

    /// Puts an entry there, with its data.
    pub(super) fn add<R: Read>(
        &mut self,
        entry: &Entry,
        data: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        let refused = |problem| UnpackError::Entry { path: shown(&entry.path), problem };
        let place = Place::parse(&entry.path).map_err(refused)?;
        let attributes = attributes(entry).map_err(refused)?;
        self.count().map_err(refused)?;
        if place.is_root() {
            return match entry.kind {
                Kind::Folder => {
                    let root = self.root.as_fd();
                    self.furnish(root, entry, &attributes)?;
                    self.remember(place, entry)
                }
                _ => Err(refused(Problem::Root)),
            };
        }
        let (_, name) = place.split();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, &place);
        }
        if entry.kind == Kind::Device {
            self.warn(Warning::Device(shown(&entry.path)));
            return Ok(());
        }
        let parent = self.parent(&place, &entry.path)?;
        let name = name_of(name).map_err(refused)?;
        match &entry.kind {
            Kind::Folder => self.folder(entry, place, &parent, &name, &attributes),
            Kind::File => self.file(entry, &parent, &name, &attributes, data),
            Kind::Symlink(target) => self.symlink(entry, &parent, &name, &attributes, target),
            Kind::HardLink(target) => self.hard_link(entry, &parent, &name, target),
            Kind::Fifo => self.fifo(entry, &parent, &name, &attributes),
            Kind::Device => Ok(()),
        }
    }

    /// Sets what is set last.
    pub(super) fn finish(self) -> Result<Summary, UnpackError> {
        for folder in &self.folders {
            let path = folder.place.bytes();
            let opened = match resolve(self.root.as_fd(), path, OFlags::NOFOLLOW) {
                // Something else took its place later.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed("opening", path))?,
            };
            let mode = Mode::from_raw_mode(folder.mode);
            rustix::fs::fchmod(&opened, mode).map_err(failed("the mode of", path))?;
            let times = times(folder.modified);
            rustix::fs::futimens(&opened, &times).map_err(failed("the time of", path))?;
        }
        Ok(Summary { implied: self.implied.len() as u64, ..self.summary })
    }

    fn folder(
        &mut self,
        entry: &Entry,
        place: Place,
        parent: &OwnedFd,
        name: &CString,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let before = self.make_room(parent, name, true, &entry.path)?;
        if before != Before::Folder {
            rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(failed("making", &entry.path))?;
        }
        let folder = child(parent, name).map_err(failed("opening", &entry.path))?;
        if before == Before::Whiteout {
            hide_below(folder.as_fd(), &entry.path)?;
        }
        self.furnish(folder.as_fd(), entry, attributes)?;
        self.remember(place, entry)
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        attributes: &Attributes,
        data: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        self.make_room(parent, name, false, &entry.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(parent, name, flags | OFlags::CLOEXEC, mode)
            .map_err(failed("making", &entry.path))?;
        let mut file = File::from(file);
        loop {
            match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => file.write_all(&self.buffer[..length]).map_err(|error| {
                    UnpackError::Disk { what: format!("writing {}", shown(&entry.path)), error }
                })?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Layer(error.into())),
            }
        }
        self.furnish(file.as_fd(), entry, attributes)?;
        // After the owner, which takes setuid away.
        rustix::fs::fchmod(&file, attributes.mode).map_err(failed("the mode of", &entry.path))?;
        rustix::fs::futimens(&file, &attributes.times).map_err(failed("the time of", &entry.path))
    }

    fn symlink(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        attributes: &Attributes,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        if target.is_empty() || target.len() > limits::PATH_BYTES_MAX {
            let path = shown(&entry.path);
            return Err(UnpackError::Entry { path, problem: Problem::Symlink });
        }
        self.make_room(parent, name, false, &entry.path)?;
        rustix::fs::symlinkat(target, parent, name).map_err(failed("making", &entry.path))?;
        self.leave_out_attributes(entry, " on a link");
        own(parent, name, entry, attributes)
    }

    fn fifo(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        self.make_room(parent, name, false, &entry.path)?;
        rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(failed("making", &entry.path))?;
        self.leave_out_attributes(entry, " on a FIFO");
        own(parent, name, entry, attributes)?;
        // It was made here, so the name is that of a FIFO, and there is no link to follow.
        rustix::fs::chmodat(parent, name, attributes.mode, AtFlags::empty())
            .map_err(failed("the mode of", &entry.path))
    }

    /// Gives a file of this layer another name. The link is made to what stands under that name in its folder, never to
    /// what that leads to.
    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let refused = |problem| UnpackError::Entry { path: shown(&entry.path), problem };
        let nowhere = || refused(Problem::HardLink(shown(target)));
        let other = Place::parse(target).map_err(|_| nowhere())?;
        let (folder, other) = other.split();
        let other = name_of(other).map_err(|_| nowhere())?;
        let folder = match resolve(self.root.as_fd(), folder, OFlags::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(nowhere()),
            opened => opened.map_err(failed("opening the folder of", target))?,
        };
        let there = stat(&folder, &other).map_err(failed("looking at", target))?;
        let is_file = |stat: &Stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Fifo)
        };
        let there = there.filter(is_file).ok_or_else(nowhere)?;
        let here = stat(parent, name).map_err(failed("looking at", &entry.path))?;
        if here.is_some_and(|here| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        self.make_room(parent, name, false, &entry.path)?;
        match rustix::fs::linkat(&folder, &other, parent, name, AtFlags::empty()) {
            // It was in what made room.
            Err(Errno::NOENT) => Err(nowhere()),
            other => other.map_err(failed("linking", &entry.path)),
        }
    }

    /// An entry that is about another one, in a layer below.
    fn whiteout(&mut self, entry: &Entry, place: &Place) -> Result<(), UnpackError> {
        let refused = |problem| UnpackError::Entry { path: shown(&entry.path), problem };
        let (folder, name) = place.split();
        if name == OPAQUE {
            let parent = self.parent(place, &entry.path)?;
            self.summary.is_opaque |= folder.is_empty();
            return hide_below(parent.as_fd(), &entry.path);
        }
        if name.starts_with(AUFS) {
            self.warn(Warning::Aufs(shown(&entry.path)));
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(Problem::Whiteout));
        }
        let parent = self.parent(place, &entry.path)?;
        let hidden = name_of(hidden).map_err(refused)?;
        match stat(&parent, &hidden).map_err(failed("looking at", &entry.path))? {
            None => rustix::fs::mknodat(
                &*parent,
                &hidden,
                FileType::CharacterDevice,
                Mode::empty(),
                WHITEOUT_DEVICE,
            )
            .map_err(failed("making", &entry.path)),
            // This layer's own: it stays, and what is below it does not show.
            Some(own) if FileType::from_raw_mode(own.st_mode) == FileType::Directory => {
                let own = child(&parent, &hidden).map_err(failed("opening", &entry.path))?;
                hide_below(own.as_fd(), &entry.path)
            }
            Some(_) => Ok(()),
        }
    }

    /// The folder of a place, opened. It is made if nothing is there.
    fn parent(&mut self, place: &Place, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        let (folder, _) = place.split();
        if let Some((last, opened)) = &self.last
            && last == folder
        {
            return Ok(opened.clone());
        }
        let opened = match resolve(self.root.as_fd(), folder, OFlags::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_folders(folder, path)?,
            Err(errno) => return Err(failed("opening the folder of", path)(errno)),
        };
        let opened = Rc::new(opened);
        self.last = Some((folder.to_vec(), opened.clone()));
        Ok(opened)
    }

    /// Makes folders that no entry speaks of, from the root on.
    fn make_folders(&mut self, folder: &[u8], path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let refused = |problem| UnpackError::Entry { path: shown(path), problem };
        let nowhere = |prefix: &[u8]| refused(Problem::NoFolder(shown(prefix)));
        let mut opened = resolve(self.root.as_fd(), b"", OFlags::empty())
            .map_err(failed("opening the folder of", path))?;
        for (prefix, name) in prefixes(folder) {
            opened = match resolve(self.root.as_fd(), prefix, OFlags::empty()) {
                Ok(inner) => inner,
                Err(Errno::LOOP) => return Err(nowhere(prefix)),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let name = name_of(name).map_err(refused)?;
                    let before = stat(&opened, &name).map_err(failed("looking at", prefix))?;
                    match before {
                        None => {}
                        // A name that this layer hides below, and then uses.
                        Some(stat) if is_whiteout(&stat) => {
                            rustix::fs::unlinkat(&opened, &name, AtFlags::empty())
                                .map_err(failed("removing", prefix))?;
                        }
                        // A file; or a link to nothing.
                        Some(_) => return Err(nowhere(prefix)),
                    }
                    self.count().map_err(refused)?;
                    self.charge(prefix).map_err(refused)?;
                    self.implied.insert(prefix.to_vec());
                    rustix::fs::mkdirat(&opened, &name, Mode::RWXU)
                        .map_err(failed("making", prefix))?;
                    let made = child(&opened, &name).map_err(failed("opening", prefix))?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(IMPLIED_MODE))
                        .map_err(failed("the mode of", prefix))?;
                    if before.is_some() {
                        hide_below(made.as_fd(), prefix)?;
                    }
                    made
                }
                Err(errno) => return Err(failed("opening", prefix)(errno)),
            };
        }
        Ok(opened)
    }

    /// Removes what is in the way of an entry: the later one of two counts.
    fn make_room(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        is_folder: bool,
        path: &[u8],
    ) -> Result<Before, UnpackError> {
        let Some(stat) = stat(parent, name).map_err(failed("looking at", path))? else {
            return Ok(Before::Nothing);
        };
        let is_there = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_there && is_folder {
            return Ok(Before::Folder);
        }
        super::remove::tree(parent.as_fd(), name).map_err(|error| UnpackError::Disk {
            what: format!("making room for {}", shown(path)),
            error,
        })?;
        // It may have been what the last path led through.
        self.last = None;
        Ok(if is_whiteout(&stat) { Before::Whiteout } else { Before::Nothing })
    }

    /// Owner and extended attributes of what is open.
    fn furnish(
        &mut self,
        file: BorrowedFd<'_>,
        entry: &Entry,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        rustix::fs::fchown(file, Some(attributes.user), Some(attributes.group))
            .map_err(failed("the owner of", &entry.path))?;
        for (name, value) in &entry.xattrs {
            if !is_kept(name) {
                self.leave_out(entry, name, String::new());
                continue;
            }
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(errno @ (Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::RANGE)) => {
                    self.leave_out(entry, name, format!(": {errno}"));
                }
                Err(errno) => return Err(failed("an attribute of", &entry.path)(errno)),
            }
        }
        Ok(())
    }

    /// Attributes of what cannot have any.
    fn leave_out_attributes(&mut self, entry: &Entry, why: &str) {
        for name in entry.xattrs.keys() {
            self.leave_out(entry, name, why.to_owned());
        }
    }

    fn leave_out(&mut self, entry: &Entry, name: &[u8], why: String) {
        let (path, name) = (shown(&entry.path), shown(name));
        self.warn(Warning::Attribute { path, name, why });
    }

    fn remember(&mut self, place: Place, entry: &Entry) -> Result<(), UnpackError> {
        self.charge(place.bytes())
            .map_err(|problem| UnpackError::Entry { path: shown(&entry.path), problem })?;
        self.implied.remove(place.bytes());
        self.folders.push(Folder { place, mode: entry.mode, modified: entry.modified });
        Ok(())
    }

    /// Notes that a folder's path is kept in memory.
    fn charge(&mut self, path: &[u8]) -> Result<(), Problem> {
        self.folder_bytes += path.len() + size_of::<Folder>();
        let is_too_much = self.folder_bytes > limits::FOLDER_PATHS_BYTES_MAX;
        if is_too_much { Err(Problem::TooManyFolders) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), Problem> {
        if self.summary.entries == self.entries_max {
            return Err(Problem::TooMany(self.entries_max));
        }
        self.summary.entries += 1;
        Ok(())
    }

    fn warn(&mut self, warning: Warning) {
        if self.summary.warnings.len() < limits::WARNINGS_MAX {
            self.summary.warnings.push(warning);
        } else {
            self.summary.more_warnings += 1;
        }
    }
}

/// Opens a folder of the layer, by a path within it.
fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), WITHIN) {
            // The kernel is not sure of a `..` in a link, because somewhere something was renamed.
            Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Opens a folder by its own name.
fn child(parent: &OwnedFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn stat(parent: &OwnedFd, name: &CString) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether it is what [`Tree::whiteout`] makes. Nothing else here makes devices.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == WHITEOUT_DEVICE
}

fn hide_below(folder: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
        .map_err(failed("hiding what is below", path))
}

/// Owner and time of what cannot be opened.
fn own(
    parent: &OwnedFd,
    name: &CString,
    entry: &Entry,
    attributes: &Attributes,
) -> Result<(), UnpackError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(attributes.user), Some(attributes.group), flags)
        .map_err(failed("the owner of", &entry.path))?;
    rustix::fs::utimensat(parent, name, &attributes.times, flags)
        .map_err(failed("the time of", &entry.path))
}

fn is_kept(xattr: &[u8]) -> bool {
    xattr == CAPABILITY || xattr.starts_with(USER) && !xattr.starts_with(USER_OVERLAY)
}

fn attributes(entry: &Entry) -> Result<Attributes, Problem> {
    // The highest number means "as it is" to the kernel.
    let number = |id: u64| {
        let number = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        number.ok_or(Problem::Owner(id))
    };
    Ok(Attributes {
        user: Uid::from_raw(number(entry.uid)?),
        group: Gid::from_raw(number(entry.gid)?),
        mode: Mode::from_raw_mode(entry.mode),
        times: times(entry.modified),
    })
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn name_of(name: &[u8]) -> Result<CString, Problem> {
    if name.is_empty() {
        return Err(Problem::Root);
    }
    CString::new(name).map_err(|_| Problem::TooLong)
}

fn failed(what: &str, path: &[u8]) -> impl FnOnce(Errno) -> UnpackError {
    UnpackError::disk(format!("{what} {}", shown(path)))
}
