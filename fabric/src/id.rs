//! Names of things: nodes, fabrics, jobs, slots and allocations.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// A node, named by its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first eight hex digits: enough for people to tell two nodes of one fabric apart.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }

    /// A name that no other node has, if this one's host name is `name`.
    pub fn with_name(&self, name: &str) -> String {
        format!("{name}-{}", self.short())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node:{}", self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        unhex(text).map(NodeId).ok_or(IdError::NotANodeId)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(NodeId)
        }
    }
}

/// A fabric, named by its Ed25519 public key (shown as hex, tokens carry its hash).
pub type FabricKey = NodeId;

/// A job's name: a DNS label, so that the job can be found under it.
#[derive(Clone)]
pub struct JobName(Arc<str>);

impl PartialEq for JobName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for JobName {}

impl std::hash::Hash for JobName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialOrd for JobName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JobName {
    /// As the texts compare. Names of one job are mostly copies of one another, and rows of one job are
    /// compared all the time.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match Arc::ptr_eq(&self.0, &other.0) {
            true => std::cmp::Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl JobName {
    /// Checks and takes over a name.
    pub fn new(name: &str) -> Result<Self, IdError> {
        if is_dns_label(name) {
            Ok(Self(name.into()))
        } else {
            Err(IdError::NotAJobName(name.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a group of people or programs calls its share of the fabric: a DNS label. Jobs of all namespaces
/// have their names in common; quotas are given to namespaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks and takes over a name.
    pub fn new(name: &str) -> Result<Self, IdError> {
        if is_dns_label(name) {
            Ok(Self(name.into()))
        } else {
            Err(IdError::NotANamespace(name.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    /// `default`: that of jobs which name none.
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for Namespace {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Namespace::new(&text).map_err(de::Error::custom)
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for JobName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        JobName::new(&text).map_err(de::Error::custom)
    }
}

/// The place that an allocation fills: the `index`-th copy of a job.
/// A system job has one slot, 0, on each matching node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// Whose slot.
    pub job: JobName,
    /// Counted from 0.
    pub index: u32,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.index)
    }
}

/// One run of a slot: the slot and the epoch that the coordinator gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllocId {
    /// Which slot it fills.
    pub slot: SlotId,
    /// Grows with every placement of the slot. Which of two copies goes on is decided in `node/copies.rs`.
    pub epoch: u64,
    /// As good as random, by whoever proposed it: no two allocations are one, though epochs begin anew when the rows of a slot have
    /// left, and two coordinators may give the same.
    pub birth: Birth,
}

/// Tells allocations of one slot and epoch apart. People and programs read it as in a unit's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth(pub u32);

impl std::str::FromStr for Birth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = Some(text).filter(|text| {
            text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.map(Birth).ok_or("a birth is eight hexadecimal digits")
    }
}

impl Serialize for Birth {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => serializer.serialize_u32(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Birth {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom),
            false => u32::deserialize(deserializer).map(Birth),
        }
    }
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl AllocId {
    /// The first, in order, that a slot may have in an epoch: for ranges, and for what is only tried.
    pub fn first(slot: SlotId, epoch: u64) -> Self {
        Self { slot, epoch, birth: Birth(0) }
    }

    /// The same, of `job`'s slot `index`.
    pub fn new(job: JobName, index: u32, epoch: u64) -> Self {
        Self::first(SlotId { job, index }, epoch)
    }

    /// The systemd unit that runs this allocation.
    pub fn unit(&self) -> String {
        let (slot, epoch, birth) = (&self.slot, self.epoch, self.birth);
        format!("weft-{}-{}-{epoch}-{birth}.service", slot.job, slot.index)
    }

    /// Reads a unit's name back; `None` for units that are not ours.
    pub fn from_unit(unit: &str) -> Option<Self> {
        let rest = unit.strip_prefix("weft-")?.strip_suffix(".service")?;
        let mut parts = rest.rsplitn(4, '-');
        let birth: Birth = parts.next()?.parse().ok()?;
        let epoch = parts.next()?.parse().ok()?;
        let index = parts.next()?.parse().ok()?;
        let alloc = Self::new(JobName::new(parts.next()?).ok()?, index, epoch);
        Some(Self { birth, ..alloc })
    }
}

impl fmt::Display for AllocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.slot, self.epoch)
    }
}

/// Why a text is not the name of anything. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 hex digits.
    #[error("a node id is 64 hex digits")]
    NotANodeId,
    /// Not a DNS label.
    #[error(
        "{0:?} is not a job name: use 1 to {max} of a-z, 0-9 and '-', with a letter or digit at both ends",
        max = limits::JOB_NAME_BYTES_MAX
    )]
    NotAJobName(String),
    /// Not a DNS label.
    #[error(
        "{0:?} is not a namespace: use 1 to {max} of a-z, 0-9 and '-', with a letter or digit at both ends",
        max = limits::JOB_NAME_BYTES_MAX
    )]
    NotANamespace(String),
}

/// RFC 1123, section 2.1, in lower case.
fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && bytes.len() <= limits::JOB_NAME_BYTES_MAX
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
