//! The kernel's files that are read again and again: each stays open, and is read from its beginning each time.
//!
//! The kernel writes such a file anew for whoever reads from its first byte (seq_file). Opening it costs three times as much
//! as reading it: looking up its path, checking rights, and giving back what it was read with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that the buffer has between two readings; what a larger file needs is given back.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes by which it grows. Most files are much smaller, and the kernel gives a page at once.
const READ_BYTES: usize = 4 << 10;

/// Files that are kept open.
///
/// Invariant: there are never more descriptors than `descriptors_max`; further files are opened each time.
#[derive(Debug)]
pub struct KeptFiles {
    descriptors_max: usize,
    bytes_max: usize,
    open: BTreeMap<PathBuf, Kept>,
    path: PathBuf,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    /// Since the last [`KeptFiles::sweep`].
    is_read: bool,
}

impl KeptFiles {
    /// Keeps this many open, and reads so many bytes of each. Its descriptors are a quarter of what this process may open at
    /// most: its sockets come first. Each keeps some 4.5 KiB of the kernel's memory.
    pub fn new(descriptors_max: usize, bytes_max: usize) -> Self {
        Self {
            descriptors_max: descriptors_max.min(crate::limits::descriptors() / 4),
            bytes_max,
            open: BTreeMap::new(),
            path: PathBuf::new(),
            buffer: Vec::new(),
        }
    }

    /// How many are open.
    pub fn descriptors(&self) -> usize {
        self.open.len()
    }

    /// The file of this name in a folder, as it is now; `None` if it is not there, or cannot be read.
    pub fn read(&mut self, folder: &Path, name: &str) -> Option<&[u8]> {
        self.path.clear();
        self.path.push(folder);
        self.path.push(name);
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        if let Some(kept) = self.open.get_mut(&self.path) {
            kept.is_read = true;
            if fill(&kept.file, self.bytes_max, &mut self.buffer).is_ok() {
                return Some(&self.buffer);
            }
            // What it was is gone. Another one may have its name.
            self.open.remove(&self.path);
        }
        let file = File::open(&self.path).ok()?;
        fill(&file, self.bytes_max, &mut self.buffer).ok()?;
        if self.open.len() < self.descriptors_max {
            self.open.insert(self.path.clone(), Kept { file, is_read: true });
        }
        Some(&self.buffer)
    }

    /// The same as text, if it is one.
    pub fn text(&mut self, folder: &Path, name: &str) -> Option<&str> {
        std::str::from_utf8(self.read(folder, name)?).ok()
    }

    /// Closes what was not read since the last call of this.
    pub fn sweep(&mut self) {
        self.open.retain(|_, kept| std::mem::take(&mut kept.is_read));
    }
}

/// Reads until the end, or the bound.
fn fill(file: &File, bytes_max: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut length = 0;
    loop {
        if buffer.len() < length + READ_BYTES {
            buffer.resize(length + READ_BYTES, 0);
        }
        let room = buffer.len().min(bytes_max);
        match file.read_at(&mut buffer[length..room], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests;
