//! Keys and values of the table.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::alloc::{AllocRow, Phase};
use crate::clock::WallTime;
use crate::id::{JobName, Namespace, NodeId, SlotId};
use crate::job::{JobSpec, SpecHash};
use crate::level::{LEVEL_MIN, Leveled, evolving};
use crate::limits;
use crate::quota::Quota;
use crate::signature::Signature;
use crate::stamp::{READING_MAX, Stamp};
use crate::topology::NodeInfo;
use crate::voters::VoterSet;

/// What an entry is about. The order of the variants is the order on disk: append only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A node that belongs to the fabric. Written by any member.
    Roster(NodeId),
    /// What a node says of itself. Written by that node only.
    Node(NodeId),
    /// A job. Written by any node.
    Job(JobName),
    /// An allocation. Written by that node only.
    Alloc(SlotId, NodeId),
    /// The gossip keys. Written by any member, never sent in a datagram.
    Keyring,
    /// An invitation to join. Written by any member, never sent in a datagram.
    Token(TokenId),
    /// Who grants leases. Written by whoever saw the set chosen.
    Voters,
    /// What a namespace may have. Written by any node.
    Quota(Namespace),
}

impl Key {
    /// The only node that may write this key, where there is one.
    pub fn owner(&self) -> Option<NodeId> {
        match self {
            Key::Node(node) | Key::Alloc(_, node) => Some(*node),
            Key::Roster(_)
            | Key::Job(_)
            | Key::Keyring
            | Key::Token(_)
            | Key::Voters
            | Key::Quota(_) => None,
        }
    }

    /// Whether the writer signs it: any member may write it, so that the key does not say who did.
    pub fn is_signed(&self) -> bool {
        self.owner().is_none()
    }

    /// Whether the entry may travel in gossip datagrams. Secrets travel over authenticated streams
    /// only: a node that was removed still holds the old gossip key.
    pub fn may_gossip(&self) -> bool {
        !matches!(self, Key::Keyring | Key::Token(_))
    }
}

/// Names a token. Not secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub String);

/// What an entry says. The order of the variants is the order on disk: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// For [`Key::Roster`].
    Roster(RosterEntry),
    /// For [`Key::Node`].
    Node(Box<NodeInfo>),
    /// For [`Key::Job`].
    Job(Box<JobEntry>),
    /// For [`Key::Alloc`].
    Alloc(Box<AllocRow>),
    /// For [`Key::Keyring`].
    Keyring(Keyring),
    /// For [`Key::Token`].
    Token(TokenEntry),
    /// Deleted. For an allocation: its row was cleared away, and `epoch` was the last.
    Tombstone {
        /// The last epoch of a cleared allocation row; a deleted job's version; otherwise 0.
        rank: u64,
    },
    /// For [`Key::Voters`].
    Voters(VoterSet),
    /// For [`Key::Quota`].
    Quota(Quota),
}

/// Why a node belongs to the fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RosterEntry {
    /// Host name when it joined.
    pub name: String,
    /// The member that let it in.
    pub vouched_by: NodeId,
    /// When.
    pub joined: WallTime,
}

evolving!(RosterEntry { name, vouched_by, joined });

/// A job in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JobEntry {
    /// What the user submitted last.
    pub spec: JobSpec,
    /// Grows by one with each submit.
    pub version: u64,
    /// Grows when the user asks for a restart.
    pub generation: u32,
    /// The last version that was healthy on all slots, to go back to.
    pub previous: Option<Box<Previous>>,
    /// The spec failed, and `previous` is in force again. Whoever marks it writes the same.
    pub reverted: bool,
    /// Who submitted: a user's name at a node's name.
    pub by: String,
}

evolving!(JobEntry { spec, version, generation, previous, reverted, by } within spec, previous);

/// A version of a job that is known to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its spec.
    pub spec: JobSpec,
    /// Its version.
    pub version: u64,
    /// Its generation.
    pub generation: u32,
}

impl JobEntry {
    /// The spec in force, its version and its generation.
    pub fn effective(&self) -> (&JobSpec, u64, u32) {
        match (self.reverted, &self.previous) {
            (true, Some(previous)) => (&previous.spec, previous.version, previous.generation),
            _ => (&self.spec, self.version, self.generation),
        }
    }

    /// The hash of the spec in force.
    pub fn hash(&self) -> SpecHash {
        let (spec, _, generation) = self.effective();
        spec.hash(generation)
    }
}

/// The gossip keys of a fabric. The newest seals, all of them open.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Key id to key. Ids grow; the highest is the newest.
    pub keys: BTreeMap<u32, [u8; 32]>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keyring").field(&self.keys.keys().collect::<Vec<_>>()).finish()
    }
}

/// An invitation to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TokenEntry {
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// After this it is refused.
    pub expires: WallTime,
    /// Labels that every node that joins with it gets.
    pub labels: BTreeMap<String, String>,
}

evolving!(TokenEntry { secret_hash, expires, labels });

/// One row of the table. Whoever holds an equal `(key, order)` holds an equal value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is about.
    pub key: Key,
    /// Who wrote it and when.
    pub stamp: Stamp,
    /// What it says.
    pub value: Value,
    /// The writer's, if the key [is signed](Key::is_signed).
    pub signature: Option<Signature>,
}

/// Decides which of two entries of one key stays: the greater. Compared field by field from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// For allocation rows the epoch and the phase, so that a late `running` never beats an `ended`
    /// of the same epoch; for the voter set its generation; 0 for everything else.
    pub rank: u64,
    /// Who wrote it and when.
    pub stamp: Stamp,
    /// 1 for a job whose version was reverted: beats the version it reverts, loses to every later
    /// submit, whoever marked it and however late.
    pub mark: u8,
}

impl Leveled for Previous {
    fn level(&self) -> u8 {
        self.spec.level()
    }
}

impl Leveled for Entry {
    fn level(&self) -> u8 {
        let key = match self.key {
            Key::Roster(_)
            | Key::Node(_)
            | Key::Job(_)
            | Key::Alloc(..)
            | Key::Keyring
            | Key::Token(_)
            | Key::Voters
            | Key::Quota(_) => LEVEL_MIN,
        };
        key.max(self.value.level())
    }
}

impl Leveled for Value {
    fn level(&self) -> u8 {
        match self {
            Value::Roster(entry) => entry.level(),
            Value::Node(info) => info.level(),
            Value::Job(job) => job.level(),
            Value::Alloc(row) => row.level(),
            Value::Token(token) => token.level(),
            Value::Quota(quota) => quota.level(),
            Value::Keyring(_) | Value::Tombstone { .. } | Value::Voters(_) => LEVEL_MIN,
        }
    }
}

impl Entry {
    /// This entry's place among all entries of its key.
    pub fn order(&self) -> Order {
        let (rank, mark) = match (&self.key, &self.value) {
            (Key::Alloc(..), Value::Alloc(row)) => (row.epoch << 8 | row.phase as u64, 0),
            (Key::Alloc(..), Value::Tombstone { rank: epoch }) => (epoch << 8 | 0xff, 0),
            (_, Value::Job(job)) => (0, u8::from(job.reverted)),
            (_, Value::Voters(set)) => (set.generation, 0),
            _ => (0, 0),
        };
        Order { rank, stamp: self.stamp, mark }
    }

    /// Whether it leaves the table some time after it was written.
    pub fn is_over(&self) -> bool {
        match &self.value {
            Value::Alloc(row) => row.phase == Phase::Ended,
            Value::Tombstone { .. } => matches!(self.key, Key::Alloc(..)),
            _ => false,
        }
    }

    /// Whether the value is of the key's kind, the writer may write it, a clock can have stamped it, and it is signed if
    /// and only if its key is. Whether the signature holds is another question.
    pub fn is_proper(&self) -> bool {
        let fits = match (&self.key, &self.value) {
            (Key::Roster(_), Value::Roster(_))
            | (Key::Node(_), Value::Node(_))
            | (Key::Keyring, Value::Keyring(_))
            | (Key::Token(_), Value::Token(_)) => true,
            (Key::Alloc(..), Value::Alloc(row)) => row.epoch <= limits::EPOCH_MAX,
            (Key::Alloc(..), Value::Tombstone { rank: epoch }) => *epoch <= limits::EPOCH_MAX,
            (Key::Quota(_), Value::Quota(quota)) => quota.validate().is_ok(),
            (Key::Job(name), Value::Job(job)) => {
                job.spec.name == *name
                    && job.previous.as_ref().is_none_or(|previous| previous.spec.name == *name)
            }
            (Key::Voters, Value::Voters(set)) => set.is_proper(),
            (Key::Keyring | Key::Voters, Value::Tombstone { .. }) => false,
            (_, Value::Tombstone { .. }) => true,
            _ => false,
        };
        let stamped = self.stamp.reading <= READING_MAX;
        let signed = self.signature.is_some() == self.key.is_signed();
        fits && stamped && signed && self.key.owner().is_none_or(|owner| owner == self.stamp.node)
    }
}
