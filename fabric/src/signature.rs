//! Who wrote a row that any member may write: its writer signs it.
//!
//! A node's name is its public key, so a signature needs nothing else to be checked, and a row stays good however it
//! travels and whoever brings it. This crate has no cryptography of its own: whoever runs a [`Node`](crate::node::Node)
//! hands it a [`Signer`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{FabricKey, NodeId};
use crate::stamp::Stamp;
use crate::table::{Entry, Key, Value};

/// Bytes of a signature, as of Ed25519 (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// Stands before all that is signed here, so that it is nothing else that a node's key may sign.
const CONTEXT: &[u8] = b"weft row 1\0";

/// Signs in one node's name, and checks what others signed in theirs.
pub trait Signer: std::fmt::Debug + Send + Sync {
    /// Signs in the name of the node that this signer belongs to.
    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES];

    /// Whether `by` signed these bytes.
    fn verify(&self, by: &NodeId, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool;
}

/// A signature. It lies elsewhere in memory: most rows are of allocations, and have none.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Box<[u8; SIGNATURE_BYTES]>);

impl Signature {
    /// These bytes, whatever they are worth.
    pub fn new(bytes: [u8; SIGNATURE_BYTES]) -> Self {
        Self(Box::new(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = *self.0;
        write!(f, "Signature({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// Two halves: serde knows arrays of up to 32.
type Halves = [[u8; SIGNATURE_BYTES / 2]; 2];

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (halves, _) = self.0.as_chunks::<{ SIGNATURE_BYTES / 2 }>();
        let halves: Halves = [halves[0], halves[1]];
        halves.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [first, second] = Halves::deserialize(deserializer)?;
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..first.len()].copy_from_slice(&first);
        bytes[first.len()..].copy_from_slice(&second);
        Ok(Self::new(bytes))
    }
}

impl Entry {
    /// A row as its writer makes it. `signer` is that of `stamp.node`.
    pub fn written(
        fabric: &FabricKey,
        signer: &dyn Signer,
        key: Key,
        stamp: Stamp,
        value: Value,
    ) -> Self {
        let mut entry = Self { key, stamp, value, signature: None };
        if entry.key.is_signed() {
            entry.signature = Some(Signature::new(signer.sign(&entry.signed_bytes(fabric))));
        }
        entry
    }

    /// Whether the row is as the node that its stamp names wrote it, in this fabric. Of a key with an owner nothing is
    /// signed, and nothing can be told.
    pub fn is_authentic(&self, fabric: &FabricKey, signer: &dyn Signer) -> bool {
        match &self.signature {
            Some(signature) if self.key.is_signed() => {
                signer.verify(&self.stamp.node, &self.signed_bytes(fabric), signature.bytes())
            }
            Some(_) => false,
            None => !self.key.is_signed(),
        }
    }

    /// What is signed. That a job's version was reverted is not: whoever sees it fail marks the row, and the row stays
    /// its submitter's.
    fn signed_bytes(&self, fabric: &FabricKey) -> Vec<u8> {
        let context = [CONTEXT, &fabric.0].concat();
        let bytes = postcard::to_extend(&(&self.key, &self.stamp), context);
        let bytes = bytes.expect("a key and a stamp encode");
        let bytes = match &self.value {
            Value::Job(job) if job.reverted => {
                let mut job = job.clone();
                job.reverted = false;
                postcard::to_extend(&Value::Job(job), bytes)
            }
            value => postcard::to_extend(value, bytes),
        };
        bytes.expect("our own types encode")
    }
}

/// A signer for simulators, tests and fuzzers, where a signature may cost no more than a hash. Nothing about it is secret
/// but what its world keeps from those who play in it: it signs in one name, and no other.
#[derive(Clone, Copy, Debug)]
pub struct HashSigner {
    world: u64,
    own: NodeId,
}

impl HashSigner {
    /// Signs for `own`, in the world of that secret.
    pub fn new(world: u64, own: NodeId) -> Self {
        Self { world, own }
    }

    fn signature(&self, by: &NodeId, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let key = xxhash_rust::xxh3::xxh3_64_with_seed(&by.0, self.world);
        let hash = xxhash_rust::xxh3::xxh3_128_with_seed(bytes, key);
        let mut signature = [0; SIGNATURE_BYTES];
        for quarter in signature.as_chunks_mut::<16>().0 {
            *quarter = hash.to_le_bytes();
        }
        signature
    }
}

impl Signer for HashSigner {
    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signature(&self.own, bytes)
    }

    fn verify(&self, by: &NodeId, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.signature(by, bytes) == *signature
    }
}

#[cfg(test)]
mod tests;
