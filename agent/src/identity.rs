//! Keys on disk: who this node is, and which fabric it belongs to.
//!
//! `node.key` is the node's Ed25519 key, `fabric.key` the fabric's, both PKCS#8, readable by the
//! agent's user only; `fabric.name` is the fabric's name for people. They lie outside the store,
//! because losing the store costs a round of repair, and losing the key costs the identity. Every file
//! is written whole or not at all. A node is in a fabric when `fabric.key` is there.

use anyhow::{Context, bail};
use fabric::id::{FabricKey, NodeId};
use fabric::signature::{SIGNATURE_BYTES, Signer};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const NODE_KEY: &str = "node.key";
const FABRIC_KEY: &str = "fabric.key";
const FABRIC_NAME: &str = "fabric.name";
const GENERATION: &str = "generation";
/// None of our files is larger; more is not read.
const FILE_BYTES_MAX: u64 = 4096;
/// Numbers that one start may use.
const LIFE: u64 = 1000;
/// Bytes of a fabric's name.
pub const FABRIC_NAME_BYTES_MAX: usize = 63;

/// This node's key pair.
pub struct Identity {
    keys: Keys,
}

impl Identity {
    /// Reads the node's key, or makes one if there is none. Makes the directory, too.
    ///
    /// # Errors
    /// When the key cannot be read or written, is damaged, or may be read by others.
    pub fn load_or_create(state: &Path) -> anyhow::Result<Self> {
        make_directory(state)?;
        let path = state.join(NODE_KEY);
        let pkcs8 = match read_secret(&path)? {
            Some(pkcs8) => pkcs8,
            None => {
                let pkcs8 = generate()?;
                write_whole(&path, &pkcs8)
                    .with_context(|| format!("cannot write the node's key to {path:?}"))?;
                pkcs8
            }
        };
        let keys = Keys::from_pkcs8(pkcs8).with_context(|| {
            format!(
                "{path:?} is not an Ed25519 key: restore it from a backup, or remove it to give \
                 this node a new identity (it must join again)"
            )
        })?;
        Ok(Self { keys })
    }

    /// A key that lives in memory only.
    ///
    /// # Errors
    /// Only when the kernel has no random numbers.
    #[cfg(test)]
    pub fn ephemeral() -> anyhow::Result<Self> {
        Ok(Self { keys: Keys::from_pkcs8(generate()?)? })
    }

    /// The node's name: its public key.
    pub fn id(&self) -> NodeId {
        self.keys.public()
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.keys.pkcs8
    }

    /// The same node once more: for tests in which an agent is started anew.
    #[cfg(test)]
    pub(crate) fn clone_for_tests(&self) -> Self {
        let keys = Keys::from_pkcs8(self.keys.pkcs8.clone());
        Self { keys: keys.expect("it was a key before") }
    }
}

impl Signer for Identity {
    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.keys.sign(bytes)
    }

    fn verify(&self, by: &NodeId, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, by.0).verify(bytes, signature).is_ok()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id()).finish()
    }
}

/// Hex digits of a fingerprint: 80 bits. To make a key that has somebody else's fingerprint takes 2^80 keys.
const FINGERPRINT_DIGITS: usize = 20;

/// The part of a node's key that people compare, in groups of four digits. It begins like the short form of the
/// key does.
pub fn fingerprint(node: &NodeId) -> String {
    let digits = node.to_string();
    let groups = digits.as_bytes()[..FINGERPRINT_DIGITS].chunks(4);
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
}

/// The fabric's key pair and name. Every member holds it, so that any member can admit others.
pub struct Fabric {
    keys: Keys,
    name: String,
}

impl Fabric {
    /// A new fabric.
    ///
    /// # Errors
    /// When the name is empty, too long, or has control characters.
    pub fn found(name: &str) -> anyhow::Result<Self> {
        Self::from_pkcs8(generate()?, name)
    }

    /// A fabric that this node was let into.
    ///
    /// # Errors
    /// When the bytes are not an Ed25519 key, or the name is not one.
    pub fn from_pkcs8(pkcs8: Vec<u8>, name: &str) -> anyhow::Result<Self> {
        if name.is_empty()
            || name.len() > FABRIC_NAME_BYTES_MAX
            || name.chars().any(|c| c.is_control())
        {
            bail!(
                "{:?} is not a fabric's name: use 1 to {FABRIC_NAME_BYTES_MAX} printable characters",
                name.chars().take(80).collect::<String>()
            );
        }
        Ok(Self { keys: Keys::from_pkcs8(pkcs8)?, name: name.to_owned() })
    }

    /// The fabric this node belongs to; `None` before init or join.
    ///
    /// # Errors
    /// When the files cannot be read, are damaged, or may be read by others.
    pub fn load(state: &Path) -> anyhow::Result<Option<Self>> {
        let path = state.join(FABRIC_KEY);
        let Some(pkcs8) = read_secret(&path)? else { return Ok(None) };
        let name = read_bounded(&state.join(FABRIC_NAME))
            .with_context(|| format!("cannot read the fabric's name beside {path:?}"))?
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| "weft".to_owned());
        let fabric = Self::from_pkcs8(pkcs8, name.trim_end()).with_context(|| {
            format!("{path:?} is damaged: restore it from a backup, or remove it and join again")
        })?;
        Ok(Some(fabric))
    }

    /// Writes the key and the name. After this the node belongs to the fabric.
    ///
    /// # Errors
    /// When the disk refuses. Then the node does not belong to the fabric.
    pub fn save(&self, state: &Path) -> anyhow::Result<()> {
        make_directory(state)?;
        // The key last: it is what says that there is a fabric.
        for (file, bytes) in [(FABRIC_NAME, self.name.as_bytes()), (FABRIC_KEY, &self.keys.pkcs8)] {
            let path = state.join(file);
            write_whole(&path, bytes).with_context(|| format!("cannot write {path:?}"))?;
        }
        Ok(())
    }

    /// The fabric's public key: its identity.
    pub fn key(&self) -> FabricKey {
        self.keys.public()
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.keys.pkcs8
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.keys.sign(message)
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric").field("key", &self.key()).field("name", &self.name).finish()
    }
}

/// The number of this start of the agent: greater than that of every earlier start, for
/// [`Config::generation`](fabric::node::Config::generation) and [`Seal`](crate::seal::Seal).
///
/// It is the wall clock in milliseconds, or [`LIFE`] more than the last number if the clock went back: a life may take
/// later numbers, when its address changes.
/// The last number is kept on disk; where that fails the clock alone must do, with a warning.
pub fn next_generation(state: &Path, wall_millis: u64) -> u64 {
    let path = state.join(GENERATION);
    let last = last_generation(state);
    let next = wall_millis.max(last.map_or(0, |last| last.saturating_add(LIFE)));
    if let Err(error) = write_whole(&path, format!("{next}\n").as_bytes()) {
        tracing::warn!(
            ?path,
            %error,
            "cannot note this start: if the clock goes back before the next start, \
             others will not hear this node until the clock has caught up"
        );
    }
    next
}

/// The number that was given last, as far as the disk knows.
pub fn last_generation(state: &Path) -> Option<u64> {
    let bytes = read_bounded(&state.join(GENERATION)).ok().flatten()?;
    String::from_utf8(bytes).ok()?.trim().parse().ok()
}

struct Keys {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl Keys {
    fn from_pkcs8(pkcs8: Vec<u8>) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8)
            .map_err(|error| anyhow::anyhow!("not an Ed25519 key in PKCS#8: {error}"))?;
        Ok(Self { pair, pkcs8 })
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(signature.as_ref());
        bytes
    }

    fn public(&self) -> NodeId {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        NodeId(key)
    }
}

fn generate() -> anyhow::Result<Vec<u8>> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("the kernel gave no random numbers for a key"))?;
    Ok(document.as_ref().to_vec())
}

/// Makes the state directory, for the agent's user only. One that is there is left as it is.
pub(crate) fn make_directory(state: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state).with_context(|| {
        format!("cannot make the state directory {state:?}: make it, or name another in weftd.toml")
    })
}

/// `None`: there is no such file.
fn read_secret(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {path:?}")),
    };
    let metadata = file.metadata().with_context(|| format!("cannot read {path:?}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            "{path:?} has mode {mode:04o}, so others can read the key: if nobody did, run \
             `chmod 600 {}` and start again; if somebody may have, remove it and join again",
            path.display()
        );
    }
    bounded(file).map(Some).with_context(|| format!("cannot read {path:?}"))
}

pub(crate) fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => bounded(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file whole or not at all, readable by its owner only.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension("new");
    // A rest of an earlier attempt may have any mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
