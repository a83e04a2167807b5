//! Entries of a tar archive, one after the other, from a stream that does not come back.
//!
//! What a header says is read by the crate `tar`. What is between headers is read here, because that crate keeps whatever an
//! archive calls a long name in memory, gibibytes of it, and takes a line feed in an attribute's value for its end: see
//! `docs/DECISIONS.md`. Formats are old, ustar, GNU (long names) and pax (POSIX.1-2001); sparse files are refused.

use crate::limits;
use std::collections::BTreeMap;
use std::io::{self, Read};

const BLOCK_BYTES: usize = 512;
/// What a reader of data skips at a time.
const SKIP_BYTES: usize = 64 << 10;
/// How pax calls an extended attribute of Linux.
const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
const NANOSECOND_DIGITS: usize = 9;

/// What an archive says of a file. Its data come after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is written: no zero in it, and else anything.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Bytes of data that follow; 0 for whatever is not a file.
    pub size: u64,
    /// Permissions, with setuid, setgid and the sticky bit: 12 bits.
    pub mode: u32,
    /// Its user.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
    /// When it was changed: seconds since 1970, and nanoseconds of them.
    pub modified: (i64, u32),
    /// Extended attributes, by their names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where its data begin in the archive, in bytes.
    pub offset: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With data.
    File,
    /// A folder.
    Folder,
    /// A symbolic link to whatever this says.
    Symlink(Vec<u8>),
    /// Another name of the file of this path.
    HardLink(Vec<u8>),
    /// A pipe with a name.
    Fifo,
    /// A character or block device.
    Device,
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Of whatever it comes from.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ends in the middle.
    #[error("the archive ends at byte {0}, in the middle of an entry")]
    Short(u64),
    /// Not an archive, or damaged.
    #[error("at byte {at} of the archive: {problem}")]
    Header {
        /// Where the header begins.
        at: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads entries from `R`. Each [`Entries::next`] skips what was not read of the last one's data.
pub struct Entries<R> {
    reader: R,
    /// Bytes that were read.
    position: u64,
    /// Bytes of data of the last entry that were not read.
    data: u64,
    /// Zeros that follow them, up to a whole block.
    padding: u64,
    ended: bool,
}

/// What headers before the entry's own say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> Entries<R> {
    /// From the first byte of an archive on.
    pub fn new(reader: R) -> Self {
        Self { reader, position: 0, data: 0, padding: 0, ended: false }
    }

    /// The next entry; `None` at the end of the archive: two blocks of zeros, or where nothing follows.
    ///
    /// # Errors
    /// When it cannot be read, is no archive, or is outside of the limits.
    #[allow(clippy::should_implement_trait, reason = "an error ends it, which no iterator says")]
    pub fn next(&mut self) -> Result<Option<Entry>, EntryError> {
        let mut extensions = Extensions::default();
        let mut extended = 0;
        loop {
            self.skip()?;
            let at = self.position;
            let problem = |problem: String| EntryError::Header { at, problem };
            let Some(block) = self.block()? else { return Ok(None) };
            let header = tar::Header::from_byte_slice(&block);
            check_sum(header).map_err(problem)?;
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|error| problem(error.to_string()))?;
            if kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
            {
                // Of all that one entry has: they are kept until it comes.
                extended = size.saturating_add(extended);
                if extended > limits::EXTENSION_BYTES_MAX {
                    let max = limits::EXTENSION_BYTES_MAX;
                    return Err(problem(format!(
                        "extended headers of {extended} bytes, and {max} are allowed"
                    )));
                }
            }
            if kind.is_gnu_longname() {
                extensions.path = Some(until_zero(&self.extension(size)?).to_vec());
            } else if kind.is_gnu_longlink() {
                extensions.link = Some(until_zero(&self.extension(size)?).to_vec());
            } else if kind.is_pax_local_extensions() {
                let records = self.extension(size)?;
                extensions.read(&records).map_err(problem)?;
            } else if kind.is_pax_global_extensions() {
                // Comments, such as git's: of a layer's files it says nothing.
                self.extension(size)?;
            } else {
                let mut entry = entry(header, size, extensions).map_err(problem)?;
                entry.offset = self.position;
                self.expect(entry.size);
                return Ok(Some(entry));
            }
        }
    }

    /// Whatever is left behind the last entry, so that all bytes have been read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; SKIP_BYTES];
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.position += length as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the entries are read from.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn expect(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
    }

    /// Skips what is left of the last entry.
    fn skip(&mut self) -> Result<(), EntryError> {
        let mut buffer = [0; BLOCK_BYTES];
        let mut large =
            if self.data > BLOCK_BYTES as u64 { vec![0; SKIP_BYTES] } else { Vec::new() };
        while self.data > 0 {
            let buffer = if large.is_empty() { &mut buffer[..] } else { &mut large[..] };
            if self.read(buffer)? == 0 {
                return Err(EntryError::Short(self.position));
            }
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.exact(&mut buffer[..padding])
    }

    /// The next header that is not zero.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, EntryError> {
        let mut zeros = 0;
        while !self.ended {
            let mut block = [0; BLOCK_BYTES];
            let mut length = 0;
            while length < BLOCK_BYTES {
                match self.reader.read(&mut block[length..]) {
                    Ok(0) => break,
                    Ok(more) => length += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.position += length as u64;
            match length {
                0 => self.ended = true,
                BLOCK_BYTES if block.iter().any(|byte| *byte != 0) => return Ok(Some(block)),
                BLOCK_BYTES => {
                    zeros += 1;
                    self.ended = zeros == 2;
                }
                _ => return Err(EntryError::Short(self.position)),
            }
        }
        Ok(None)
    }

    /// The data of a header that extends the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, EntryError> {
        let mut data = vec![0; size as usize];
        self.exact(&mut data)?;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
        Ok(data)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), EntryError> {
        match self.reader.read_exact(buffer) {
            Ok(()) => {
                self.position += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(EntryError::Short(self.position))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The data of the last entry.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let length = self.reader.read(&mut buffer[..most])?;
        if length == 0 {
            let problem = EntryError::Short(self.position).to_string();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        self.position += length as u64;
        self.data -= length as u64;
        Ok(length)
    }
}

impl Extensions {
    /// Records of pax: `LENGTH KEY=VALUE` and a line feed, where the length counts all of these.
    fn read(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let broken = || "a record of its extended header is broken".to_owned();
            let space =
                records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length = number(&records[..space]).ok_or_else(broken)?;
            let length = usize::try_from(length).map_err(|_| broken())?;
            let record = records.get(space + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let shown = || String::from_utf8_lossy(key).into_owned();
        let numeric =
            || number(value).map(Some).ok_or_else(|| format!("its {} is no number", shown()));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = numeric()?,
            b"uid" => self.uid = numeric()?,
            b"gid" => self.gid = numeric()?,
            b"mtime" => {
                let time = time(value).ok_or_else(|| "its mtime is no time".to_owned())?;
                self.modified = Some(time);
            }
            _ if key.starts_with(SPARSE) => {
                return Err(
                    "it is a sparse file, which layers have not: make the layer without --sparse"
                        .into(),
                );
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    if value.len() > limits::XATTR_BYTES_MAX || name.is_empty() || name.contains(&0)
                    {
                        return Err(format!("its {} cannot be an attribute", shown()));
                    }
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

fn entry(header: &tar::Header, size: u64, extensions: Extensions) -> Result<Entry, String> {
    use tar::EntryType;
    let wrong = |error: io::Error| error.to_string();
    let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let link = || match extensions.link.clone() {
        Some(link) => link,
        None => header.link_name_bytes().unwrap_or_default().into_owned(),
    };
    let kind = match header.entry_type() {
        // Before there were types, a folder was a file whose name ends in a slash.
        EntryType::Regular
            if path.ends_with(b"/") && header.as_ustar().is_none() && header.as_gnu().is_none() =>
        {
            Kind::Folder
        }
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink(link()),
        EntryType::Link => Kind::HardLink(link()),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        EntryType::GNUSparse => {
            return Err(
                "it is a sparse file, which layers have not: make the layer without --sparse"
                    .into(),
            );
        }
        other => {
            return Err(format!("entries of type {:?} are not known", other.as_byte() as char));
        }
    };
    let zero = |bytes: &[u8]| bytes.contains(&0);
    let in_link = matches!(&kind, Kind::Symlink(link) | Kind::HardLink(link) if zero(link));
    if zero(&path) || in_link {
        return Err("there is a zero byte in its name".into());
    }
    let modified = match extensions.modified {
        Some(time) => time,
        // Times before 1970 are in two's complement, where they do not fit the digits.
        None => (header.mtime().map_err(wrong)?.cast_signed(), 0),
    };
    // Only files have data, whatever is said of the others' size: so does Go read them, which most layers are made by.
    let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
    Ok(Entry {
        path,
        kind,
        size,
        mode: header.mode().map_err(wrong)? & 0o7777,
        uid: extensions.uid.map_or_else(|| header.uid().map_err(wrong), Ok)?,
        gid: extensions.gid.map_or_else(|| header.gid().map_err(wrong), Ok)?,
        modified,
        xattrs: extensions.xattrs,
        offset: 0,
    })
}

/// The sum of all bytes of a header, as if its own digits were spaces.
fn check_sum(header: &tar::Header) -> Result<(), String> {
    let bytes = header.as_bytes();
    let sum = |range: std::ops::Range<usize>| {
        bytes[range].iter().map(|byte| u32::from(*byte)).sum::<u32>()
    };
    let sum = sum(0..148) + 8 * u32::from(b' ') + sum(156..BLOCK_BYTES);
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ => Err("this is no tar header, or it is damaged".into()),
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Decimal digits, and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// Seconds since 1970 with decimals, as pax has them: `-1.5` is half a second before -1.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(number(parts.next()?)?).ok()?;
    let nanoseconds = match parts.next() {
        None | Some([]) => 0,
        Some(digits) => {
            let mut kept = digits.to_vec();
            number(&digits[..1]).filter(|_| digits.iter().all(u8::is_ascii_digit))?;
            kept.resize(NANOSECOND_DIGITS, b'0');
            number(&kept)? as u32
        }
    };
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, nanoseconds) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests;
