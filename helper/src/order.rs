//! What the agent orders, and how the helper answers: both come from one package, and each says so if they do not.
//!
//! An order is JSON; an answer is a row of frames:
//!
//! | byte 0 | bytes 1 to 4 | then |
//! |---|---|---|
//! | `p` | length, little-endian | a piece of the answer: JSON that is passed on as it is |
//! | `e` | 0 | nothing: it is done |
//! | `r` | length | a [`Problem`] as JSON: it is not done |
//!
//! An order has the same head, with `o`. Lengths have a bound: [`FRAME_BYTES_MAX`].

use fabric::api::{Problem, ProblemKind, TraceWhat};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Which orders and answers these are. It rises with every change of them.
pub const LEVEL: u32 = 1;
/// Bytes of a frame's body. Stacks are the largest.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of what stands before a body.
pub const HEAD_BYTES: usize = 5;
/// First byte of an order.
pub const ORDER: u8 = b'o';

/// Something for the helper to do: one for each start of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`LEVEL`] of whoever orders.
    pub level: u32,
    /// What.
    pub verb: Verb,
}

/// What the helper can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Look closely at cgroups, for a while. Pieces are [`TraceEvent`](fabric::api::TraceEvent)s.
    Trace(Subject),
    /// Try each kind of trace. One piece: [`Tried`].
    TryTraces,
    /// What the machine is made of. One piece: [`Hardware`](fabric::api::Hardware).
    Hardware,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The name of this node.
    pub node: String,
    /// At what.
    pub what: TraceWhat,
    /// For how long.
    pub time: Duration,
    /// Its cgroups, and the slot of each. At least one: none would mean all of the machine.
    pub cgroups: BTreeMap<u64, String>,
}

/// What can be traced here, and why not: as it was tried just now.
pub type Tried = Vec<(TraceWhat, Result<(), String>)>;

/// What a verb keeps of what root may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// These capabilities.
    pub capabilities: CapabilitySet,
    /// System calls for eBPF and performance counters.
    pub kernel_programs: bool,
}

impl Verb {
    /// A word for it, for names of units and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Trace(_) => "trace",
            Verb::TryTraces => "try-traces",
            Verb::Hardware => "hardware",
        }
    }

    /// The least that it can do its work with.
    pub fn rights(&self) -> Rights {
        match self {
            Verb::Trace(_) | Verb::TryTraces => Rights {
                // Symbols of the kernel have addresses for SYSLOG only. Programs of other users, whose symbols it reads, are
                // behind /proc/PID/root.
                capabilities: CapabilitySet::BPF
                    .union(CapabilitySet::PERFMON)
                    .union(CapabilitySet::SYS_PTRACE)
                    .union(CapabilitySet::DAC_READ_SEARCH)
                    .union(CapabilitySet::SYSLOG),
                kernel_programs: true,
            },
            Verb::Hardware => {
                Rights { capabilities: CapabilitySet::empty(), kernel_programs: false }
            }
        }
    }

    /// By then it is done, or will never be.
    pub fn takes(&self) -> Duration {
        /// Loading programs on a slow board, and reading the symbols of large ones.
        const BESIDE: Duration = Duration::from_secs(60);
        match self {
            Verb::Trace(subject) => subject.time.saturating_add(BESIDE),
            Verb::TryTraces | Verb::Hardware => BESIDE,
        }
    }

    /// Bytes of memory that it may come to use.
    pub fn memory(&self) -> u64 {
        match self {
            // Symbol tables of large programs, and stacks.
            Verb::Trace(_) | Verb::TryTraces => 256 << 20,
            Verb::Hardware => 32 << 20,
        }
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of it, as JSON.
    Piece(Vec<u8>),
    /// It is complete.
    End,
    /// It is not done, for this reason.
    Refused(Problem),
}

impl Frame {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Frame::Piece(body) => framed(b'p', body),
            Frame::End => framed(b'e', &[]),
            Frame::Refused(problem) => {
                framed(b'r', &serde_json::to_vec(problem).unwrap_or_default())
            }
        }
    }

    /// How many bytes follow a head.
    ///
    /// # Errors
    /// When it is no head of a frame, or the frame is too long.
    pub fn length(head: [u8; HEAD_BYTES]) -> Result<usize, Problem> {
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if !b"per".contains(&kind) || length > FRAME_BYTES_MAX {
            return Err(strange(format!("a frame {kind:?} of {length} bytes")));
        }
        Ok(length)
    }

    /// Reads a frame from its first byte and what follows its head.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(kind: u8, body: Vec<u8>) -> Result<Self, Problem> {
        match kind {
            b'p' => Ok(Frame::Piece(body)),
            b'e' if body.is_empty() => Ok(Frame::End),
            b'r' => serde_json::from_slice(&body)
                .map(Frame::Refused)
                .map_err(|error| strange(error.to_string())),
            _ => Err(strange(format!("a frame {kind:?}"))),
        }
    }
}

impl Order {
    /// An order of this program's level.
    pub fn new(verb: Verb) -> Self {
        Self { level: LEVEL, verb }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        framed(ORDER, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads an order.
    ///
    /// # Errors
    /// When it makes no sense to this program.
    pub fn decode(body: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Level {
            level: u32,
        }
        let Level { level } =
            serde_json::from_slice(body).map_err(|error| strange(error.to_string()))?;
        if level != LEVEL {
            return Err(Problem::new(
                ProblemKind::Unavailable,
                "weftd and weft-helper are of different versions",
                format!(
                    "orders of level {level} and {LEVEL}: restart weftd after an upgrade, and install both"
                ),
            ));
        }
        serde_json::from_slice(body).map_err(|error| strange(error.to_string()))
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.push(kind);
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn strange(what: String) -> Problem {
    Problem::new(
        ProblemKind::Internal,
        "weftd and weft-helper do not understand each other",
        format!("{what}: are both of one version? If so, report this"),
    )
}

#[cfg(test)]
mod tests;
