//! What blobs are called: the SHA-256 of their bytes, computed while these go by.

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

/// The one algorithm that is understood, as it stands in a digest.
const ALGORITHM: &str = "sha256";
/// Digits of a layer's folder.
const SHORT_DIGITS: usize = 12;

/// The SHA-256 of a blob. Written `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; SHA256_OUTPUT_LEN]);

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("a digest is written sha256:DIGITS")]
    NoAlgorithm,
    /// One that the specification allows, perhaps.
    #[error("its algorithm is not sha256, and no other one is understood")]
    Algorithm,
    /// Too few, too many, or none.
    #[error("it has {0} digits, and sha256 has 64")]
    Length(usize),
    /// Upper case, or not hexadecimal.
    #[error("its digits are not all of 0-9 and a-f")]
    Digits,
}

impl Digest {
    /// Of bytes that are there as a whole.
    pub fn of(bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        Self::from_context(context)
    }

    fn from_context(context: Context) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// The 64 digits, without the algorithm.
    pub fn digits(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The first 12 digits: what a layer's folder is called.
    pub fn short(&self) -> String {
        let mut digits = self.digits();
        digits.truncate(SHORT_DIGITS);
        digits
    }

    /// From 64 digits, as a file of a layout is called.
    ///
    /// # Errors
    /// When these are not 64 hexadecimal digits in lower case.
    pub fn from_digits(digits: &str) -> Result<Self, DigestError> {
        if digits.len() != 2 * SHA256_OUTPUT_LEN {
            return Err(DigestError::Length(digits.chars().count()));
        }
        let bytes = HEXLOWER.decode(digits.as_bytes()).map_err(|_| DigestError::Digits)?;
        Ok(Self(bytes.try_into().map_err(|_| DigestError::Digits)?))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        if algorithm != ALGORITHM {
            return Err(DigestError::Algorithm);
        }
        Self::from_digits(digits)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.digits())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes and counts what is read from, or written to, what is inside.
pub struct Hashing<T> {
    inner: T,
    context: Context,
    bytes: u64,
}

impl<T> Hashing<T> {
    /// Nothing has gone by yet.
    pub fn new(inner: T) -> Self {
        Self { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Bytes that have gone by.
    pub fn passed(&self) -> u64 {
        self.bytes
    }

    /// What is inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What is inside, and the digest and number of all bytes that have gone by.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_context(self.context), self.bytes)
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.pass(&buffer[..length]);
        Ok(length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.pass(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
