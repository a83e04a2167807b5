//! What nodes say to each other. Encoded by postcard, after a byte with the [level](crate::level) that is needed to read it.
//!
//! A [`Datagram`] may be lost, repeated or late. A [`Message`] travels over an authenticated stream: it
//! arrives whole or not at all, but it too may be lost, and every sender derives it again.

use serde::{Deserialize, Serialize};

use crate::alloc::Succession;
use crate::clock::WallTime;
use crate::id::{AllocId, NodeId};
use crate::lease::LeaseMessage;
use crate::level::{FORMAT, LEVEL, LEVEL_MIN, Leveled};
use crate::limits;
use crate::resources::Rejection;
use crate::table::{Entry, Key, Order, SharedEntry};
use crate::timekeeper::ClockReading;
use crate::voters;

/// First byte of what every agent reads, whatever its level.
pub const FIRST_LEVEL: u8 = FORMAT + LEVEL_MIN;

/// One gossip payload, before sealing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datagram {
    /// Membership: a packet of foca's, and who else suspects whom.
    Swim {
        /// For foca.
        packet: Vec<u8>,
        /// Shortens suspicions.
        confirms: Vec<Confirm>,
    },
    /// Fresh entries, pushed.
    Push(Vec<SharedEntry>),
    /// 'This is my whole table in one number; tell me if yours differs.'
    Fingerprint {
        /// Of the table.
        table: u64,
        /// What the sender's clocks show, while it is at it.
        clock: ClockReading,
        /// Up to when all members have seen what was deleted, as far as the sender knows.
        purged_until: WallTime,
    },
    /// 'Mine is the same.'
    InSync {
        /// The table in one number.
        fingerprint: u64,
        /// As in the question.
        purged_until: WallTime,
        /// The sender knows what the others run: it has not just started itself.
        settled: bool,
    },
    /// Leases: asked for, and granted.
    Lease(LeaseMessage),
    /// The sender's agent stops.
    Leaving {
        /// The machine goes with it; otherwise its units run on, and the agent will be back.
        ends: bool,
    },
}

/// 'I could not reach it either.'
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Confirm {
    /// Who did not answer.
    pub subject: NodeId,
    /// In which life.
    pub generation: u64,
    /// Who probed it himself.
    pub by: NodeId,
}

/// One message over a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// 'These are my buckets.' Answered by `Rows` for those that differ.
    Buckets(Vec<u64>),
    /// 'This is what I hold in these buckets.' Answered by `Entries` and `Want`.
    Rows {
        /// Which buckets are described, completely.
        buckets: Vec<u16>,
        /// Key and order of every entry in them.
        rows: Vec<(Key, Order)>,
        /// What is older than this and not among the rows was deleted, as all members knew.
        purged_until: WallTime,
    },
    /// 'Send me these.'
    Want(Vec<Key>),
    /// Entries to merge.
    Entries {
        /// What was wanted, or is newer here.
        entries: Vec<SharedEntry>,
        /// There was more than fits; it comes in the next round.
        more: bool,
        /// Up to when all members have seen what was deleted, as far as the sender knows.
        purged_until: WallTime,
        /// The sender knows what the others run: it has not just started itself.
        settled: bool,
    },
    /// Entries to merge and to confirm once they are on disk.
    Hold {
        /// Named again in the answer.
        ticket: u64,
        /// What to hold.
        entries: Vec<SharedEntry>,
    },
    /// 'Those are on my disk.'
    Held {
        /// From the question.
        ticket: u64,
    },
    /// A coordinator asks a node to run a slot.
    Propose {
        /// Slot and epoch.
        alloc: AllocId,
        /// The job, so that the node need not have heard of it.
        job: SharedEntry,
        /// What was there of the slot, as far as the coordinator knows.
        succession: Option<Box<Succession>>,
    },
    /// The node has claimed what the slot needs and written it down.
    Accept {
        /// Slot and epoch.
        alloc: AllocId,
    },
    /// The node will not run it.
    Reject {
        /// Slot and epoch.
        alloc: AllocId,
        /// Why.
        reason: Rejection,
    },
    /// A coordinator asks a node to end an allocation, gracefully.
    Retire {
        /// Slot and epoch.
        alloc: AllocId,
        /// In words, for the row.
        reason: String,
    },
    /// A member passes on a user's wish: hand over your work, or take work again.
    Drain {
        /// True: drain. False: take work again.
        on: bool,
        /// Who asked.
        by: NodeId,
    },
    /// A member passes on a user's wish: restart one allocation in place.
    Restart {
        /// Slot and epoch.
        alloc: AllocId,
    },
    /// The voter set changes.
    Voters(voters::Change),
    /// A coordinator asks a node to run a slot, and to end what is less important if it has to.
    Displace {
        /// Slot and epoch.
        alloc: AllocId,
        /// The job, so that the node need not have heard of it.
        job: SharedEntry,
        /// What was there of the slot, as far as the coordinator knows.
        succession: Option<Box<Succession>>,
    },
    /// A member passes on a user's wish to its job's coordinator: a slot is to move.
    Move {
        /// What is to go, by its epoch: if the slot has moved on, nothing happens.
        alloc: AllocId,
        /// Where it is.
        from: NodeId,
        /// Where it is to go.
        to: NodeId,
    },
    /// A coordinator asks a node to claim what a slot of a gang needs, and to start nothing yet.
    Reserve {
        /// Slot and epoch.
        alloc: AllocId,
        /// The job, so that the node need not have heard of it.
        job: SharedEntry,
        /// What was there of the slot, as far as the coordinator knows.
        succession: Option<Box<Succession>>,
    },
    /// All slots of the gang are reserved: this one may start.
    Commit {
        /// Slot and epoch.
        alloc: AllocId,
    },
    /// Rows of allocations that the receiver proposed. They are pushed to everybody as well, but it waits
    /// for them.
    News {
        /// What has changed.
        entries: Vec<SharedEntry>,
    },
    /// 'Do you hear me?', and 'I do'. Over a stream, so both directions work if it arrives.
    Reach {
        /// It is an answer.
        answer: bool,
    },
    /// 'I cannot reach that member: hand it this word of mine.'
    PassOn {
        /// Whom.
        to: NodeId,
        /// An encoded message that [may be passed on](Message::may_be_passed_on).
        bytes: Vec<u8>,
    },
    /// 'That member cannot reach you, and says this.' Not passed on again.
    PassedOn {
        /// Whose word it is.
        from: NodeId,
        /// From [`Message::PassOn`].
        bytes: Vec<u8>,
    },
    /// A member passes on a user's wish: stamp anew what is stamped further ahead than any clock explains.
    Reclock,
    /// What the sender's clocks show: for those who get no datagrams, because they do not have the newest key.
    Clock(ClockReading),
}

impl Leveled for Datagram {
    fn level(&self) -> u8 {
        match self {
            Datagram::Push(entries) => entries.level(),
            Datagram::Swim { .. }
            | Datagram::Fingerprint { .. }
            | Datagram::InSync { .. }
            | Datagram::Lease(_)
            | Datagram::Leaving { .. } => LEVEL_MIN,
        }
    }
}

impl Leveled for Message {
    fn level(&self) -> u8 {
        match self {
            Message::Entries { entries, .. }
            | Message::Hold { entries, .. }
            | Message::News { entries } => entries.level(),
            Message::Propose { job, succession, .. }
            | Message::Displace { job, succession, .. }
            | Message::Reserve { job, succession, .. } => job.level().max(succession.level()),
            Message::Reject { reason, .. } => reason.level(),
            Message::Buckets(_)
            | Message::Rows { .. }
            | Message::Want(_)
            | Message::Held { .. }
            | Message::Accept { .. }
            | Message::Retire { .. }
            | Message::Drain { .. }
            | Message::Restart { .. }
            | Message::Voters(_)
            | Message::Move { .. }
            | Message::Commit { .. }
            | Message::Reach { .. }
            | Message::Reclock
            | Message::Clock(_) => LEVEL_MIN,
            // Whoever passes it on reads what is in it, too.
            Message::PassOn { bytes, .. } | Message::PassedOn { bytes, .. } => {
                bytes.first().and_then(|first| read_level(*first).ok()).unwrap_or(LEVEL_MIN)
            }
        }
    }
}

impl Message {
    /// Whether another member may hand it over: what coordinators and targets say to each other, and users' wishes.
    /// Whoever receives these looks at what they say and not at who says it.
    pub fn may_be_passed_on(&self) -> bool {
        match self {
            Message::Propose { .. }
            | Message::Accept { .. }
            | Message::Reject { .. }
            | Message::Retire { .. }
            | Message::Drain { .. }
            | Message::Restart { .. }
            | Message::Displace { .. }
            | Message::Move { .. }
            | Message::Reserve { .. }
            | Message::Commit { .. }
            | Message::News { .. } => true,
            Message::Buckets(_)
            | Message::Rows { .. }
            | Message::Want(_)
            | Message::Entries { .. }
            | Message::Hold { .. }
            | Message::Held { .. }
            | Message::Voters(_)
            | Message::Reach { .. }
            | Message::PassOn { .. }
            | Message::PassedOn { .. }
            | Message::Reclock
            | Message::Clock(_) => false,
        }
    }
}

/// Bytes that are not a message. They change nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any message may be.
    #[error("{bytes} bytes are more than the {max} allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
        /// How many may.
        max: usize,
    },
    /// From before the first release, or nothing at all.
    #[error("its first byte is {0:?}, which begins nothing that an agent writes")]
    Version(Option<u8>),
    /// A newer agent wrote it.
    #[error("it is of level {0}, and this agent reads up to level {LEVEL}: upgrade it")]
    Level(u8),
    /// Not what the version says.
    #[error("malformed: {0}")]
    Malformed(String),
}

fn encode<T: Serialize + Leveled>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT + value.level()]).expect("our own types encode")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { bytes: bytes.len(), max });
    }
    let (first, rest) = bytes.split_first().ok_or(DecodeError::Version(None))?;
    read_level(*first)?;
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::Malformed(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// The level that the first byte asks for, if this agent has it.
fn read_level(first: u8) -> Result<u8, DecodeError> {
    match first.checked_sub(FORMAT) {
        Some(level @ LEVEL_MIN..=LEVEL) => Ok(level),
        Some(level @ 1..0x10) => Err(DecodeError::Level(level)),
        _ => Err(DecodeError::Version(Some(first))),
    }
}

/// The bytes of a row on disk.
pub(crate) fn encode_row<T: Serialize + Leveled>(row: &T) -> Vec<u8> {
    encode(row)
}

/// Reads a row from disk.
pub(crate) fn decode_row<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    decode(bytes, limits::ENTRY_BYTES_MAX)
}

macro_rules! coded {
    ($type:ty, $max:expr) => {
        impl $type {
            /// The bytes to send or store.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }
            /// Reads untrusted bytes: never panics, never allocates more than the bytes could hold.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode(bytes, $max)
            }
        }
    };
}
coded!(Datagram, limits::DATAGRAM_BYTES_MAX);
coded!(Message, limits::MESSAGE_BYTES_MAX);
coded!(Entry, limits::ENTRY_BYTES_MAX);

#[cfg(test)]
mod tests;
