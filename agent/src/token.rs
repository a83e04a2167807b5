//! Tokens: what a person carries from a member to a machine that shall join.
//!
//! `weft1.<fabric>.<id>.<secret>`: the first 16 bytes of the SHA-256 of the fabric's key, so that the
//! joiner knows whom it may tell the secret; the token's name, not secret; and the secret with a
//! checksum, so that a slip of the keyboard is told apart from a token that was revoked. All three
//! are base32 in lower case, which survives being read aloud and double-clicked.

use data_encoding::{Encoding, Specification};
use fabric::id::FabricKey;
use fabric::table::TokenId;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

const PREFIX: &str = "weft1";
/// 80 bits would do against guessing over a network; 168 fill the base32 group with the checksum.
const SECRET_BYTES: usize = 21;
const CHECKSUM_BYTES: usize = 4;
const FABRIC_BYTES: usize = 16;
const ID_BYTES: usize = 5;
const HINT_BYTES: usize = 8;
/// Longer texts are not looked at.
const TEXT_BYTES_MAX: usize = 256;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 distinct symbols are an encoding")
});

/// A token with its secret. `Display` shows all of it, `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    fabric: [u8; FABRIC_BYTES],
    id: TokenId,
    secret: [u8; SECRET_BYTES],
}

/// Why a text is not a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error(
        "this is not a weft token: one looks like weft1.<fabric>.<id>.<secret>; \
         make one with `weft token create` on a member"
    )]
    NotAToken,
    /// `weft2.` and later.
    #[error("this token is of a newer kind ({0}): upgrade weft on this machine")]
    Newer(String),
    /// Cut off, or with something stuck to it.
    #[error("the token's {part} has {found} characters instead of {expected}: copy all of it")]
    Length {
        /// `fabric`, `id` or `secret`.
        part: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A character that no token has.
    #[error("the token's {part} has a character other than a-z and 2-7: it was mistyped")]
    Symbol {
        /// `fabric`, `id` or `secret`.
        part: &'static str,
    },
    /// All characters could be right, but they do not fit together.
    #[error("the token was mistyped: its checksum does not fit")]
    Checksum,
}

impl Token {
    /// A fresh token for the fabric.
    ///
    /// # Errors
    /// Only when the kernel has no random numbers.
    pub fn generate(fabric: &FabricKey) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut secret))
            .map_err(|_| anyhow::anyhow!("the kernel gave no random numbers for a token"))?;
        Ok(Self { fabric: fabric_hash(fabric), id: TokenId(BASE32.encode(&id)), secret })
    }

    /// Its name, for the table.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// SHA-256 of its secret, for the table.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }

    /// Whether it was made for this fabric.
    pub fn is_for(&self, fabric: &FabricKey) -> bool {
        self.fabric == fabric_hash(fabric)
    }

    /// Whether both were made for one fabric.
    pub fn is_of_fabric_of(&self, other: &Token) -> bool {
        self.fabric == other.fabric
    }

    /// What a node of its fabric announces; see [`fabric_hint`].
    pub fn fabric_hint(&self) -> String {
        hint(&self.fabric)
    }

    /// What the fabric's member wants to see.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        let mut whole = Vec::with_capacity(64);
        whole.extend_from_slice(&self.fabric);
        whole.extend_from_slice(self.id.0.as_bytes());
        whole.extend_from_slice(&self.secret);
        first(digest(&SHA256, &whole).as_ref())
    }
}

/// SHA-256 of a token's secret: what the table holds.
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    first(digest(&SHA256, secret).as_ref())
}

/// The part of the hash of a fabric's key that nodes announce, so that they find their own kind: 16 hex
/// digits. A hint only; who is who is decided by keys.
pub fn fabric_hint(fabric: &FabricKey) -> String {
    hint(&fabric_hash(fabric))
}

fn hint(hash: &[u8; FABRIC_BYTES]) -> String {
    data_encoding::HEXLOWER.encode(&hash[..HINT_BYTES])
}

fn fabric_hash(fabric: &FabricKey) -> [u8; FABRIC_BYTES] {
    first(digest(&SHA256, &fabric.0).as_ref())
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&bytes[..N]);
    first
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut secret = self.secret.to_vec();
        secret.extend_from_slice(&self.checksum());
        let (fabric, secret) = (BASE32.encode(&self.fabric), BASE32.encode(&secret));
        write!(f, "{PREFIX}.{fabric}.{id}.{secret}", id = self.id.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token:{}", self.id.0)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::NotAToken);
        }
        let text = text.to_ascii_lowercase();
        let parts: Vec<&str> = text.split('.').collect();
        let [prefix, fabric, id, secret] = parts[..] else { return Err(TokenError::NotAToken) };
        if prefix != PREFIX {
            let newer = prefix.strip_prefix("weft").is_some_and(|n| n.parse::<u32>().is_ok());
            return Err(match newer {
                true => TokenError::Newer(prefix.to_owned()),
                false => TokenError::NotAToken,
            });
        }
        let fabric = part::<FABRIC_BYTES>("fabric", fabric)?;
        let id = TokenId(BASE32.encode(&part::<ID_BYTES>("id", id)?));
        let checked = part::<{ SECRET_BYTES + CHECKSUM_BYTES }>("secret", secret)?;
        let (secret, checksum) = checked.split_at(SECRET_BYTES);
        let token = Self { fabric, id, secret: first(secret) };
        if token.checksum() == *checksum { Ok(token) } else { Err(TokenError::Checksum) }
    }
}

fn part<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    let expected = BASE32.encode_len(N);
    if text.len() != expected {
        return Err(TokenError::Length { part, found: text.chars().count(), expected });
    }
    let bytes = BASE32.decode(text.as_bytes()).map_err(|_| TokenError::Symbol { part })?;
    bytes.try_into().map_err(|_| TokenError::Symbol { part })
}

#[cfg(test)]
mod tests;
