//! The bytes of a layer: they are decompressed while they come in, and both their digests are computed on the way.
//!
//! ```text
//! blob ──► counted and hashed (digest of the manifest) ──► gzip, zstd or nothing ──► counted and hashed (diffID) ──► tar
//! ```
//!
//! What comes out is believed only when [`Layer::finish`] says so. Which compression it is, is seen in the first bytes: what media types
//! say of it is often wrong.

use crate::digest::{Digest, Hashing};
use crate::limits;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Read};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that show what compression there is.
const HEAD_BYTES: usize = 6;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A frame of zstd that holds no data (RFC 8878, section 3.1.2): the last 4 bits of its first byte are free.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z'];
const BZIP2: &[u8] = b"BZh";

/// What a layer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of the bytes as they travel.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Of the bytes when they are decompressed.
    pub diff_id: Digest,
}

/// How much a layer may become. Less than the limits where there is less room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes when it is decompressed.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: limits::LAYER_BYTES_MAX, entries: limits::LAYER_ENTRIES_MAX }
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, in one member or many.
    Gzip,
    /// RFC 8878, in one frame or many.
    Zstd,
}

/// Why the bytes of a layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Of wherever they come from, or of the decoder.
    #[error(transparent)]
    Io(io::Error),
    /// With something that is not understood.
    #[error("it is compressed by {0}: gzip and zstd are read")]
    Compression(&'static str),
    /// It decompresses to too much.
    #[error("it is more than {0} bytes when it is decompressed")]
    TooLarge(u64),
    /// A bomb.
    #[error(
        "{compressed} bytes of it become {bytes}: more than {max} for each are refused",
        max = limits::LAYER_RATIO_MAX
    )]
    Ratio {
        /// That were read.
        compressed: u64,
        /// That they became, at least.
        bytes: u64,
    },
    /// Too few bytes came.
    #[error("it ends after {got} bytes of {expected}")]
    Short {
        /// How many came.
        got: u64,
        /// How many there should be.
        expected: u64,
    },
    /// Other bytes came.
    #[error("its bytes are {got}, and {expected} was asked for")]
    Digest {
        /// What was wanted.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// They become something else than the image says.
    #[error("decompressed it is {got}, and the image's configuration says {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
}

impl From<io::Error> for LayerError {
    /// What was wrong on the way comes out of a reader as an error of it.
    fn from(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Io(error) => error,
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

impl Compression {
    /// What compresses bytes that begin so.
    ///
    /// # Errors
    /// When it is something that is not read.
    pub fn of(head: &[u8]) -> Result<Self, LayerError> {
        let is_skippable = |head: &[u8]| head.len() > 3 && head[1..].starts_with(ZSTD_SKIPPABLE);
        match head {
            _ if head.starts_with(GZIP) => Ok(Self::Gzip),
            _ if head.starts_with(ZSTD) => Ok(Self::Zstd),
            [first, ..] if first >> 4 == 5 && is_skippable(head) => Ok(Self::Zstd),
            _ if head.starts_with(XZ) => Err(LayerError::Compression("xz")),
            _ if head.starts_with(BZIP2) => Err(LayerError::Compression("bzip2")),
            _ => Ok(Self::Plain),
        }
    }
}

/// What is read ahead of the decoder, and then everything else.
struct Source<R> {
    reader: Hashing<R>,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that there are, and that were read.
    length: usize,
    read: usize,
}

impl<R: Read> Source<R> {
    fn new(reader: R) -> io::Result<Self> {
        let (mut reader, mut head, mut length) = (Hashing::new(reader), [0; HEAD_BYTES], 0);
        while length < HEAD_BYTES {
            match reader.read(&mut head[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { reader, head, length, read: 0 })
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ahead = &self.head[self.read..self.length];
        if ahead.is_empty() {
            return self.reader.read(buffer);
        }
        let length = ahead.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ahead[..length]);
        self.read += length;
        Ok(length)
    }
}

enum Decoder<R: Read> {
    Plain(Box<Source<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Source<R>>>>),
}

impl<R: Read> Decoder<R> {
    fn new(reader: R) -> Result<Self, LayerError> {
        let source = Source::new(reader)?;
        let compression = Compression::of(&source.head[..source.length])?;
        let buffered = |source| BufReader::with_capacity(BUFFER_BYTES, source);
        Ok(match compression {
            Compression::Plain => Self::Plain(Box::new(source)),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(buffered(source)))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(buffered(source))?;
                decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn source(&self) -> &Source<R> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn into_source(self) -> Source<R> {
        match self {
            Self::Plain(source) => *source,
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Decompresses what it reads from `R` within bounds, and knows the digests of both sides.
pub struct Decoded<R: Read> {
    inner: Hashing<Decoder<R>>,
    bytes_max: u64,
}

impl<R: Read> Decoded<R> {
    /// Reads the first bytes.
    ///
    /// # Errors
    /// When these cannot be read, or it is compressed by something else.
    pub fn new(reader: R, bytes_max: u64) -> Result<Self, LayerError> {
        Ok(Self { inner: Hashing::new(Decoder::new(reader)?), bytes_max })
    }

    /// Whether what is read is what comes in.
    pub fn is_plain(&self) -> bool {
        matches!(self.inner.inner(), Decoder::Plain(_))
    }

    /// Reads the rest. Digests and numbers of bytes, of what came in and of what it became.
    fn sums(mut self) -> Result<[(Digest, u64); 2], LayerError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (decoder, diff_id, bytes) = self.inner.finish();
        let (_, digest, size) = decoder.into_source().reader.finish();
        Ok([(digest, size), (diff_id, bytes)])
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let bytes = self.inner.passed();
        if bytes > self.bytes_max {
            return Err(LayerError::TooLarge(self.bytes_max).into());
        }
        let compressed = self.inner.inner().source().reader.passed();
        let most = compressed.saturating_mul(limits::LAYER_RATIO_MAX);
        if bytes > most.saturating_add(limits::LAYER_RATIO_FREE_BYTES) {
            return Err(LayerError::Ratio { compressed, bytes }.into());
        }
        Ok(length)
    }
}

/// A layer that comes in: what is read from it is its tar archive.
pub struct Layer<R: Read> {
    decoded: Decoded<io::Take<R>>,
    expected: Expected,
}

impl<R: Read> Layer<R> {
    /// Reads the first bytes of a layer, and never more than it has to have.
    ///
    /// # Errors
    /// When these cannot be read, it is compressed by something that is not understood, or it is to be larger than allowed.
    pub fn new(reader: R, expected: Expected, bounds: Bounds) -> Result<Self, LayerError> {
        if expected.size > limits::LAYER_BYTES_MAX {
            return Err(LayerError::TooLarge(limits::LAYER_BYTES_MAX));
        }
        let decoded = Decoded::new(reader.take(expected.size), bounds.bytes)?;
        Ok(Self { decoded, expected })
    }

    /// Reads what is left and says whether both digests hold. Bytes of it when it is decompressed.
    ///
    /// # Errors
    /// When one of them does not, or something cannot be read.
    pub fn finish(self) -> Result<u64, LayerError> {
        let expected = self.expected;
        let [(digest, size), (diff_id, bytes)] = self.decoded.sums()?;
        if size < expected.size {
            return Err(LayerError::Short { got: size, expected: expected.size });
        }
        if digest != expected.digest {
            return Err(LayerError::Digest { expected: expected.digest, got: digest });
        }
        if diff_id != expected.diff_id {
            return Err(LayerError::DiffId { expected: expected.diff_id, got: diff_id });
        }
        Ok(bytes)
    }
}

impl<R: Read> Read for Layer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoded.read(buffer)
    }
}

/// What a blob becomes when it is decompressed, by reading all of it: its diffID and its number of bytes.
///
/// # Errors
/// When it cannot be read or is outside of the bounds.
pub fn diff_id(blob: impl Read, bounds: Bounds) -> Result<(Digest, u64), LayerError> {
    Decoded::new(blob, bounds.bytes)?.sums().map(|[_, decoded]| decoded)
}

#[cfg(test)]
mod tests;
