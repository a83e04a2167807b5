//! Images in a tar file: what `docker save`, `podman save` and `skopeo copy` write, perhaps compressed as a whole.
//!
//! It is read once, from its first byte to its last, so that it may come through a pipe. Layers go to a [`Keep`] while they go by, because an
//! archive names them at its end; where the archive is a file that is not compressed, [`Source::File`] says where in it they are instead. Two
//! forms are known: an OCI layout (`index.json`, `blobs/`), which Docker writes from version 25 on, too; and Docker's own (`manifest.json`,
//! a file for each layer), of which a manifest of OCI is made, with the same bytes whenever it is read.
//!
//! [`Source::File`]: crate::contents::Source::File

mod docker;

use crate::contents::{ArchiveError, Blob, Contents, Files, Source, digest_of, of_layout};
use crate::digest::{Digest, Hashing};
use crate::entries::{Entries, Kind};
use crate::layer::{Compression, Decoded};
use crate::limits;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// Bytes of a file that show what it is.
const HEAD_BYTES: usize = 6;
/// What Docker's first form had for programs that are no more.
const OBSOLETE: [&str; 3] = ["json", "VERSION", "repositories"];

/// Who keeps the layers of an archive while it goes by.
pub trait Keep {
    /// A layer, or a file that may be one: what it is called in the archive, and its bytes. What is not read is skipped. Some tools write
    /// one twice, with the same bytes. Its digest is known at the end, in [`Contents::blobs`], and was verified if it is called by it.
    ///
    /// # Errors
    /// When it cannot be kept; a failed read is passed on.
    fn keep(&mut self, path: &str, size: u64, bytes: &mut dyn Read) -> io::Result<()>;
}

/// Nobody: the archive is a file, and can be read again.
impl Keep for () {
    fn keep(&mut self, _: &str, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// A file that went by.
struct Stored {
    digest: Digest,
    size: u64,
    offset: Option<u64>,
    compression: Compression,
}

/// All files that went by.
#[derive(Default)]
struct Passed {
    /// Those that are JSON, whole.
    documents: BTreeMap<String, Vec<u8>>,
    document_bytes: u64,
    /// Those that may be layers.
    stored: BTreeMap<String, Stored>,
    /// Paths that are links to other ones.
    links: BTreeMap<String, String>,
}

/// Reads an archive whole and says what is in it.
///
/// # Errors
/// When it is no archive with an image, a blob is not what it is called, something is missing, or it is outside of the limits.
pub fn read(reader: impl Read, keep: &mut dyn Keep) -> Result<Contents, ArchiveError> {
    let decoded = Decoded::new(reader, limits::ARCHIVE_BYTES_MAX).map_err(ArchiveError::Read)?;
    let is_plain = decoded.is_plain();
    let mut entries = Entries::new(decoded);
    let mut passed = Passed::default();
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > limits::ARCHIVE_ENTRIES_MAX {
            return Err(ArchiveError::TooManyFiles);
        }
        let path = path(&entry.path, &[])?;
        match &entry.kind {
            Kind::File => {
                let offset = is_plain.then_some(entry.offset);
                passed.take(path, entry.size, offset, &mut entries, keep)?;
            }
            // From the folder that it is in; a hard link from the root.
            Kind::Symlink(target) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = self::path(target, folder.as_bytes())?;
                passed.link(path, target)?;
            }
            Kind::HardLink(target) => {
                let target = self::path(target, &[])?;
                passed.link(path, target)?;
            }
            Kind::Folder | Kind::Fifo | Kind::Device => {}
        }
    }
    // A pipe is read to its end: whoever writes into it would be told that nobody reads.
    entries.drain().map_err(|error| ArchiveError::Read(error.into()))?;
    match of_layout(&mut passed)? {
        Some(contents) => Ok(contents),
        None => docker::read(&passed),
    }
}

impl Passed {
    /// A file, which is hashed while it goes by.
    fn take<R: Read>(
        &mut self,
        path: String,
        size: u64,
        offset: Option<u64>,
        entries: &mut Entries<R>,
        keep: &mut dyn Keep,
    ) -> Result<(), ArchiveError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if OBSOLETE.contains(&name) {
            return Ok(());
        }
        let read = |error: io::Error| ArchiveError::Read(error.into());
        let mut head = Vec::new();
        entries.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?;
        let is_json =
            matches!(head.first(), Some(b'{' | b'[')) && size <= limits::MANIFEST_BYTES_MAX;
        if is_json {
            self.document_bytes += size;
            if self.document_bytes > limits::ARCHIVE_JSON_BYTES_MAX {
                return Err(ArchiveError::TooMuchJson);
            }
            let mut bytes = head;
            entries.read_to_end(&mut bytes).map_err(read)?;
            let got = Digest::of(&bytes);
            if digest_of(&path).is_some_and(|digest| digest != got) {
                return Err(ArchiveError::Digest { path, got });
            }
            return match self.documents.get(&path) {
                Some(other) if *other != bytes => Err(ArchiveError::Twice(path)),
                _ => {
                    self.documents.insert(path, bytes);
                    Ok(())
                }
            };
        }
        // Something else may be in an archive, compressed by whatever: only layers have to be read.
        let compression = Compression::of(&head).unwrap_or(Compression::Plain);
        let mut hashing = Hashing::new(head.as_slice().chain(entries));
        let kept = keep.keep(&path, size, &mut hashing);
        // What the archive's end or a limit did to the reader is the archive's fault.
        let rest = io::copy(&mut hashing, &mut io::sink()).map_err(read);
        kept.map_err(|error| ArchiveError::Keep { path: path.clone(), error })?;
        rest?;
        let (_, digest, size) = hashing.finish();
        if digest_of(&path).is_some_and(|wanted| wanted != digest) {
            return Err(ArchiveError::Digest { path, got: digest });
        }
        match self.stored.get(&path) {
            Some(other) if other.digest != digest => Err(ArchiveError::Twice(path)),
            _ => {
                self.stored.insert(path, Stored { digest, size, offset, compression });
                Ok(())
            }
        }
    }

    fn link(&mut self, path: String, target: String) -> Result<(), ArchiveError> {
        match self.links.get(&path) {
            Some(other) if *other != target => Err(ArchiveError::Twice(path)),
            _ => {
                self.links.insert(path, target);
                Ok(())
            }
        }
    }

    /// A path without links.
    fn resolved<'p>(&'p self, path: &'p str) -> &'p str {
        let follow = |path: &'p str| self.links.get(path).map(String::as_str);
        std::iter::successors(Some(path), |path| follow(path))
            .take(limits::ARCHIVE_LINKS_MAX)
            .last()
            .unwrap_or(path)
    }
}

impl Files for Passed {
    fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        Ok(self.documents.get(self.resolved(path)).cloned())
    }

    fn file(&mut self, path: &str) -> Result<Option<Blob>, ArchiveError> {
        let path = self.resolved(path);
        let stored = self.stored.get(path).map(|stored| Blob {
            size: stored.size,
            source: Source::File { path: path.to_owned(), offset: stored.offset },
        });
        // An archive that happens to begin with a brace is a layer all the same.
        let document = || {
            let bytes = self.documents.get(path)?.clone();
            Some(Blob { size: bytes.len() as u64, source: Source::Bytes(bytes) })
        };
        Ok(stored.or_else(document))
    }
}

/// A path within the archive, from a folder of it on, without `.` and `..`.
fn path(bytes: &[u8], folder: &[u8]) -> Result<String, ArchiveError> {
    let wrong = || ArchiveError::Path(String::from_utf8_lossy(bytes).chars().take(80).collect());
    if bytes.len() > limits::PATH_BYTES_MAX || folder.len() > limits::PATH_BYTES_MAX {
        return Err(wrong());
    }
    let mut names: Vec<&str> = Vec::new();
    for name in folder.split(|byte| *byte == b'/').chain(bytes.split(|byte| *byte == b'/')) {
        match std::str::from_utf8(name).map_err(|_| wrong())? {
            "" | "." => {}
            ".." => drop(names.pop().ok_or_else(wrong)?),
            name => names.push(name),
        }
    }
    Ok(names.join("/"))
}
