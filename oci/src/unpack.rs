//! Layers on disk: one folder each, named by its diffID, with whiteouts as overlayfs has them.
//!
//! ```text
//! layers/3f1a9c…           a layer: the first 12 digits of its diffID
//! layers/3f1a9c….diffid    all digits, so that two that begin alike are told apart
//! layers/.tmp-…            one that is being unpacked, or was when the power went
//! ```
//!
//! A layer comes from whoever made the image, so nothing in it is believed: every path is resolved by the kernel within the layer's folder
//! (`unpack/tree.rs`), bytes and files are bounded, and the folder gets its name only after both digests have held and all of it is on disk. What
//! fails leaves nothing behind.
//!
//! | in the archive | on disk |
//! |---|---|
//! | `.wh.NAME` | a character device 0:0 called `NAME`; where this layer has such a folder itself, that one hides what is below |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on its folder |
//! | files, folders, links, FIFOs | themselves, with owner, mode (setuid too) and time |
//! | hard links | to a file of the same layer, or refused |
//! | devices | nothing, and a warning |
//! | `security.capability` and `user.*` | themselves; every other extended attribute is left out, with a warning |
//!
//! Needs CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP and, for the attribute, CAP_SYS_ADMIN.

mod place;
mod remove;
mod tree;

use crate::digest::Digest;
use crate::entries::{Entries, EntryError};
use crate::layer::{Bounds, Expected, Layer, LayerError};
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tree::Tree;

/// What folders begin with that are not layers yet.
const UNFINISHED: &str = ".tmp-";
/// What the file with a layer's whole diffID ends in.
const WHOLE: &str = ".diffid";
const RANDOM_BYTES: usize = 8;
/// Bytes of such a file at most.
const WHOLE_BYTES_MAX: u64 = 128;

/// The folder of all layers.
pub struct Layers {
    folder: OwnedFd,
}

/// What became of a layer.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already. Nothing was read.
    Present,
    /// It is there now.
    Unpacked(Box<Summary>),
}

/// What a layer came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of its archive.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Folders that it has files in and does not have itself: they belong to root, with mode 0755, and would hide
    /// the owner and mode of the same folder in a layer below.
    pub implied: u64,
    /// It hides everything below.
    pub is_opaque: bool,
    /// What was left out, the first of it.
    pub warnings: Vec<Warning>,
    /// How much more was left out.
    pub more_warnings: u64,
}

/// Something in a layer that is not on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A device node: a container has a `/dev` of its own.
    #[error("{0}: a device, left out")]
    Device(String),
    /// What aufs kept for itself.
    #[error("{0}: a file of aufs, left out")]
    Aufs(String),
    /// An extended attribute that layers may not have, or that this file system does not take.
    #[error("{path}: its attribute {name} is left out{why}")]
    Attribute {
        /// Of the file.
        path: String,
        /// Of the attribute.
        name: String,
        /// Empty, or what the file system says.
        why: String,
    },
}

/// Why a layer is not unpacked. Nothing of it is on disk.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Its bytes are wrong, or cannot be read.
    #[error("layer: {0}")]
    Layer(LayerError),
    /// It is no archive.
    #[error("layer: {0}")]
    Archive(EntryError),
    /// Something in it that no layer may have.
    #[error("layer: {path}: {problem}")]
    Entry {
        /// Of the entry, or the first characters of it.
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The disk, or the file system, does not take it.
    #[error("layer: {what}: {error}")]
    Disk {
        /// What was done, and to which file.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// Another one has its short name: that happens once in a lifetime, or was made to happen.
    #[error("layer: {short} is the folder of {other} already, which begins alike")]
    Collision {
        /// The name of the folder.
        short: String,
        /// Whose it is.
        other: String,
    },
}

impl UnpackError {
    /// Whether there would have to be more room.
    pub fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        matches!(self, Self::Disk { error, .. } if full.contains(&error.raw_os_error()))
    }

    fn disk(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |errno| Self::Disk { what, error: errno.into() }
    }
}

impl From<EntryError> for UnpackError {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Io(error) => Self::Layer(error.into()),
            error => Self::Archive(error),
        }
    }
}

/// What no layer may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It leads upwards.
    #[error("it has .. in its path")]
    Climbs,
    /// Of the whole path, or of one name in it.
    #[error("its path, or a name in it, is longer than Linux takes")]
    TooLong,
    /// Folders in folders.
    #[error("its path has more than {max} names", max = crate::limits::PATH_COMPONENTS_MAX)]
    TooDeep,
    /// It has no name of its own.
    #[error("it would be the root, which is a folder")]
    Root,
    /// A whiteout of nothing, or of a folder's own entries.
    #[error("it hides nothing that could be there")]
    Whiteout,
    /// Its folder cannot be reached.
    #[error("{0} is no folder within the layer: a file, or a link that leads nowhere")]
    NoFolder(String),
    /// A hard link to what is not there.
    #[error("it is a hard link to {0}, which is no file of this layer")]
    HardLink(String),
    /// Of a symbolic link.
    #[error("it is a link to nothing, or to more than Linux takes")]
    Symlink,
    /// Of a user or group.
    #[error("its owner {0} is no number of a user or group")]
    Owner(u64),
    /// Of all of them.
    #[error("it is one file, folder or link more than the {0} that are allowed")]
    TooMany(u64),
    /// Of all folders.
    #[error("paths of folders come to more than {max} bytes", max = crate::limits::FOLDER_PATHS_BYTES_MAX)]
    TooManyFolders,
}

impl Layers {
    /// Opens the folder of all layers, which is there. No part of its path is anybody else's.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Whether a layer is there, whole.
    ///
    /// # Errors
    /// When that cannot be found out, or another one has its short name.
    pub fn has(&self, diff_id: Digest) -> Result<bool, UnpackError> {
        let short = diff_id.short();
        match rustix::fs::statat(&self.folder, &short, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(UnpackError::disk(format!("looking at {short}")))?,
        };
        let what = || format!("reading {short}{WHOLE}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::openat(&self.folder, format!("{short}{WHOLE}"), flags, Mode::empty())
                .map_err(UnpackError::disk(what()))?;
        let mut text = String::new();
        File::from(file)
            .take(WHOLE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| UnpackError::Disk { what: what(), error })?;
        match text.trim_end() {
            whole if whole == diff_id.to_string() => Ok(true),
            other => Err(UnpackError::Collision { short, other: other.to_owned() }),
        }
    }

    /// Unpacks a layer that is read from `blob`, and gives it its name. Returns when it is on disk.
    ///
    /// # Errors
    /// When its digests do not hold, it has something in it that no layer may have, is outside of the bounds, or the disk
    /// does not take it. Then nothing of it is on disk.
    pub fn unpack(
        &self,
        blob: impl Read,
        expected: Expected,
        bounds: Bounds,
    ) -> Result<Outcome, UnpackError> {
        if self.has(expected.diff_id)? {
            return Ok(Outcome::Present);
        }
        let mut unfinished = Unfinished::new(&self.folder)?;
        let summary = fill(&unfinished.root, blob, expected, bounds)?;
        // Files whose bytes are still in memory would be there after a power cut, and empty.
        rustix::fs::syncfs(&unfinished.root).map_err(UnpackError::disk("writing to disk"))?;
        if !unfinished.publish(expected.diff_id)? {
            return match self.has(expected.diff_id)? {
                true => Ok(Outcome::Present),
                false => Err(UnpackError::disk("naming it")(Errno::EXIST)),
            };
        }
        Ok(Outcome::Unpacked(Box::new(summary)))
    }

    /// Removes what was being unpacked when the power went, or a process was killed. To be called before anything is unpacked here. How many there were.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_unfinished(&self) -> io::Result<usize> {
        let mut removed = 0;
        for name in remove::names(self.folder.as_fd())? {
            if name.to_bytes().starts_with(UNFINISHED.as_bytes()) {
                remove::tree(self.folder.as_fd(), &name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Reads an archive into an empty folder, and its digests.
fn fill(
    root: &OwnedFd,
    blob: impl Read,
    expected: Expected,
    bounds: Bounds,
) -> Result<Summary, UnpackError> {
    let layer = Layer::new(blob, expected, bounds).map_err(UnpackError::Layer)?;
    let mut entries = Entries::new(layer);
    let mut tree = Tree::new(root, bounds.entries)?;
    while let Some(entry) = entries.next()? {
        tree.add(&entry, &mut entries)?;
    }
    entries.drain().map_err(|error| UnpackError::Layer(error.into()))?;
    let bytes = entries.into_inner().finish().map_err(UnpackError::Layer)?;
    tree.finish().map(|summary| Summary { bytes, ..summary })
}

/// A folder that is removed with all that is in it, unless it becomes a layer.
struct Unfinished<'l> {
    layers: &'l OwnedFd,
    name: String,
    root: OwnedFd,
    is_published: bool,
}

impl<'l> Unfinished<'l> {
    fn new(layers: &'l OwnedFd) -> Result<Self, UnpackError> {
        let what = || UnpackError::disk("making a folder for it");
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_| what()(Errno::IO))?;
        let name = format!("{UNFINISHED}{}", HEXLOWER.encode(&random));
        rustix::fs::mkdirat(layers, &name, Mode::RWXU).map_err(what())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(layers, &name, flags, Mode::empty());
        let root = opened.map_err(|errno| {
            let _ = rustix::fs::unlinkat(layers, &name, AtFlags::REMOVEDIR);
            what()(errno)
        })?;
        Ok(Self { layers, name, root, is_published: false })
    }

    /// Gives it the name of its layer. `false`: there is such a folder already, of somebody who was faster.
    fn publish(&mut self, diff_id: Digest) -> Result<bool, UnpackError> {
        let short = diff_id.short();
        self.write_whole(&short, diff_id)?;
        let what = || UnpackError::disk(format!("naming it {short}"));
        match rustix::fs::renameat_with(
            self.layers,
            &self.name,
            self.layers,
            &short,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => self.is_published = true,
            Err(Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(what()(errno)),
        }
        rustix::fs::fsync(self.layers).map_err(what())?;
        Ok(true)
    }

    /// Whether something has this name among the layers.
    fn is_there(&self, name: &str) -> bool {
        let stat = rustix::fs::statat(self.layers, name, AtFlags::SYMLINK_NOFOLLOW);
        !matches!(stat, Err(Errno::NOENT))
    }

    /// Says whose folder it will be. That file may be there without the folder; the folder never without it.
    fn write_whole(&self, short: &str, diff_id: Digest) -> Result<(), UnpackError> {
        let (name, whole) = (format!("{}{WHOLE}", self.name), format!("{short}{WHOLE}"));
        let write = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            let mut file = File::from(rustix::fs::openat(self.layers, &name, flags, mode)?);
            writeln!(file, "{diff_id}")?;
            file.sync_all()?;
            match rustix::fs::renameat_with(
                self.layers,
                &name,
                self.layers,
                &whole,
                RenameFlags::NOREPLACE,
            ) {
                // Of this layer, or of one that never got its folder.
                Err(Errno::EXIST) if !self.is_there(short) => {
                    rustix::fs::renameat(self.layers, &name, self.layers, &whole)?;
                }
                Err(Errno::EXIST) => rustix::fs::unlinkat(self.layers, &name, AtFlags::empty())?,
                other => other?,
            }
            rustix::fs::fsync(self.layers)?;
            Ok(())
        };
        write().map_err(|error: io::Error| {
            let _ = rustix::fs::unlinkat(self.layers, &name, AtFlags::empty());
            UnpackError::Disk { what: format!("writing {whole}"), error }
        })
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        if let Ok(name) = std::ffi::CString::new(self.name.as_str()) {
            // What cannot be removed now is removed at the next start.
            let _ = remove::tree(self.layers.as_fd(), &name);
        }
    }
}

/// How paths in a layer are resolved: within it, whatever links there are, and never into another file system.
const WITHIN: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Bytes of an archive as people are shown them.
fn shown(path: &[u8]) -> String {
    const SHOWN_CHARACTERS: usize = 200;
    let text = String::from_utf8_lossy(path);
    text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect()
}
