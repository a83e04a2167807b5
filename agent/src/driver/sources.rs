//! Everything that can wake the loop, and waiting for the first of it.

use fabric::clock::Instant;
use fabric::id::AllocId;
use fabric::io::UnitEvent;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::http::Call;
use crate::join::JoinOutcome;
use crate::quic::Incoming;
use crate::seal::SEALED_BYTES_MAX;

/// Something woke the loop.
#[derive(Debug)]
pub(super) enum Wake {
    /// A datagram came; its bytes are in [`Sources::datagram`].
    Datagram(SocketAddr),
    /// Somebody wants something of the API.
    Call(Call),
    /// A peer said something over a stream.
    Incoming(Incoming),
    /// A unit did something.
    Unit(AllocId, u32, UnitEvent),
    /// A health check was made.
    Checked(crate::health::Checked),
    /// The disk answered.
    Stored(crate::store::Stored),
    /// An attempt to join is over.
    Joined(Box<JoinOutcome>),
    /// Another node was found, or is not announced any more.
    Discovered(discovery::Event),
    /// Links or addresses changed.
    Links,
    /// The core's deadline, or that of the agent's own chores.
    Deadline,
    /// systemd wants to know that the loop turns.
    Watchdog,
    /// Somebody wants the agent to end.
    Stop(&'static str),
}
