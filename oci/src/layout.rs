//! An OCI layout: a folder with `index.json` and `blobs/sha256/`.
//!
//! Whoever names the folder may mean a stranger's. So everything in it is opened within it, whatever links it has, and only files are read.

use crate::contents::{ArchiveError, Blob, Contents, Files, Source, of_layout, path_of};
use crate::digest::Digest;
use crate::limits;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

const RESOLVE_TRIES: usize = 128;

/// A folder with images.
pub struct Layout {
    folder: OwnedFd,
}

impl Layout {
    /// Opens the folder.
    ///
    /// # Errors
    /// When it is none, or cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// What is in it. Documents have been verified, of layers size and presence.
    ///
    /// # Errors
    /// When there is no image in it, something is missing, or it is outside of the limits.
    pub fn read(&self) -> Result<Contents, ArchiveError> {
        of_layout(&mut &*self)?.ok_or(ArchiveError::NoImage)
    }

    /// A blob of it, whose bytes nobody has verified.
    ///
    /// # Errors
    /// When it is not there, or cannot be opened.
    pub fn blob(&self, digest: Digest) -> Result<File, ArchiveError> {
        let path = path_of(digest);
        let file = self.file(&path)?;
        file.map(|(file, _)| file).ok_or(ArchiveError::Missing(path))
    }

    /// A file and its size; `None`: there is none.
    fn file(&self, path: &str) -> Result<Option<(File, u64)>, ArchiveError> {
        let failed = |error: io::Error| ArchiveError::File { path: path.to_owned(), error };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        let file = loop {
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), within) {
                Ok(file) => break file,
                Err(Errno::AGAIN) if tries < RESOLVE_TRIES => tries += 1,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is no file")));
        }
        Ok(Some((File::from(file), u64::try_from(stat.st_size).unwrap_or_default())))
    }
}

impl Files for &Layout {
    fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some((file, size)) = Layout::file(self, path)? else { return Ok(None) };
        let failed = |error: io::Error| ArchiveError::File { path: path.to_owned(), error };
        let max = limits::MANIFEST_BYTES_MAX;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > max {
            return Err(failed(io::Error::other(format!(
                "it has {size} bytes, and {max} are allowed for a document"
            ))));
        }
        Ok(Some(bytes))
    }

    fn file(&mut self, path: &str) -> Result<Option<Blob>, ArchiveError> {
        let file = Layout::file(self, path)?;
        Ok(file.map(|(_, size)| Blob {
            size,
            source: Source::File { path: path.to_owned(), offset: Some(0) },
        }))
    }
}
