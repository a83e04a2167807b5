//! Leases for at-most-one work: who may run a slot, for how long, granted by a majority of the voters.
//!
//! In the manner of PaxosLease (Trencseni, Gazso, Reinhardt, "PaxosLease: Diskless Paxos for Leases",
//! arXiv 1209.4187): no grant is on any disk; a voter that restarts without what it had granted
//! ([`Handover`]) stays mute until all of that has run out. The argument why two nodes never hold one slot is in `docs/PROTOCOL.md`.
//!
//! ```text
//!   holder                          voter
//!   Prepare(epoch)      ─────────►  free, and the epoch is higher than any before: Promised
//!   Propose(epoch)      ─────────►  still free: Accepted; locked for `hold`, by the voter's clock
//!   a majority accepted: owned until the moment of asking + LEASE, by the holder's clock
//!   Propose, again and again        the same holder's lock starts anew
//!   Release             ─────────►  free
//! ```
//!
//! Everything here is state machines without clock, network or disk. Asks and answers travel in datagrams
//! and may be lost, repeated and late.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::id::{NodeId, SlotId};
use crate::limits;

mod holder;
#[cfg(test)]
mod tests;
mod voter;

pub use holder::{Holder, Outcome, Standing};
pub use voter::{Handover, Voter};

/// What lies between a holder's lease and its voters' locks: how long a lock lasts, on a voter's clock, so
/// that at its end the unit is gone. The holder counts `LEASE + stop_timeout` from before it asked, on a clock
/// that may be slow by the drift bound; the voter counts from when it was asked, on one that may be as fast.
pub fn hold(stop_timeout: Duration) -> Duration {
    let run = limits::LEASE + stop_timeout.min(limits::LEASE_STOP_MAX);
    let parts = 1_000_000u32;
    run * (parts + limits::DRIFT_PPM_MAX) / (parts - limits::DRIFT_PPM_MAX) + limits::LEASE_SLACK
}

/// The longest lock of any slot: what a voter waits out after its restart.
pub fn longest_hold() -> Duration {
    hold(limits::LEASE_STOP_MAX)
}

/// How long a target keeps its claim while it asks for a lease.
pub fn attempt_max(stop_timeout: Duration) -> Duration {
    hold(stop_timeout) + limits::LEASE_PATIENCE
}

/// Who asks, and with which fencing token. A voter hears of each epoch from one node only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The allocation's epoch: the fencing token.
    pub epoch: u64,
    /// Whose allocation.
    pub node: NodeId,
}

/// What a holder asks of a voter. The node is the sender of the datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which slot.
    pub slot: SlotId,
    /// Of which allocation.
    pub epoch: u64,
    /// Comes back with the answer: answers count for the round that they were given in. Of one node and slot later
    /// asks have higher rounds, also in a later life of it, and a release frees what lower ones asked for.
    pub round: u64,
    /// What.
    pub wish: Wish,
}

/// The three things that a holder may want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// 'Would you?' Locks nothing.
    Prepare,
    /// 'Do.'
    Propose {
        /// From the job: part of how long the lock lasts.
        stop_timeout: Duration,
        /// The holder's own lease is unexpired. Nobody else was granted one since, so the floor is not for it.
        renewal: bool,
    },
    /// 'It has ended.'
    Release,
}

/// What a voter answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// From the ask.
    pub slot: SlotId,
    /// From the ask.
    pub epoch: u64,
    /// From the ask.
    pub round: u64,
    /// Yes, or why not.
    pub verdict: Verdict,
}

/// Yes, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It would grant this ballot, and none that is lower any more.
    Promised,
    /// It is locked for this ballot.
    Accepted,
    /// It is not locked for this ballot any more.
    Released,
    /// Another allocation has it.
    Held {
        /// Which.
        by: Ballot,
        /// For so much longer unless it is renewed, on the voter's clock.
        for_another: Duration,
    },
    /// The epoch is too low.
    Below {
        /// The lowest that is not.
        at_least: u64,
    },
    /// The voter restarted a short time ago and does not know what it granted.
    Mute {
        /// For so much longer, on the voter's clock.
        for_another: Duration,
    },
    /// The voter looks after as many leases as it can.
    Full,
}

/// What travels in one datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseMessage {
    /// From a holder to a voter.
    Asks {
        /// The voter set that the holder knows.
        generation: u64,
        /// At most [`limits::LEASE_ENTRIES_MAX`].
        asks: Vec<Ask>,
    },
    /// From a voter to a holder.
    Answers {
        /// The voter set that the voter acts under. Without answers: it was asked under another one.
        generation: u64,
        /// At most [`limits::LEASE_ENTRIES_MAX`].
        answers: Vec<Answer>,
    },
}
