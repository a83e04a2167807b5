//! Everything that can wake the loop, and waiting for the first of it.

use discovery::{Discovery, LinkWatcher};
use fabric::id::AllocId;
use fabric::io::UnitEvent;
use fabric::topology::{PortsUsed, Topology};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::enter::JoinOutcome;
use crate::api::Call;
use crate::approval::Invited;
use crate::listeners::Wanted;
use crate::quic::{Incoming, node_address};
use crate::seal::SEALED_BYTES_MAX;
use crate::store::{Progress, Written};
use crate::topology::Plugged;

/// Something woke the loop.
#[derive(Debug)]
pub(super) enum Wake {
    /// A datagram came from there; its bytes are what [`Sources::datagram`] gives.
    Datagram(SocketAddr),
    /// Somebody wants something of the API.
    Call(Call),
    /// A peer said something over a stream.
    Incoming(Incoming),
    /// A unit did something.
    Unit(AllocId, u32, UnitEvent),
    /// A health check was made.
    Checked(AllocId, u32, Result<(), String>),
    /// The disk answered.
    Written(Progress),
    /// An attempt to join is over.
    Joined(Box<JoinOutcome>),
    /// A member has invited this node.
    Invited(Box<Invited>),
    /// Another node was found, or is not announced any more.
    Discovered(discovery::Event),
    /// Links or addresses changed.
    Links,
    /// Something was plugged in or out.
    Plugged,
    /// The hardware as it is now.
    Looked(Box<Topology>),
    /// Ports that other programs listen on now, among those that were wanted when it was looked.
    Listening(Wanted, Vec<PortsUsed>),
    /// Who read beside the loop is done.
    Read,
    /// The core's deadline, or that of the agent's own chores.
    Deadline,
    /// systemd wants to know that the loop turns.
    Watchdog,
    /// Somebody wants the agent to end.
    Stop(&'static str),
    /// A part of the agent is gone that it cannot do without.
    Gone(&'static str),
}

/// Everything that can wake the loop. Each future in [`Sources::next`] can be dropped without losing
/// anything, so that none of them is polled twice.
pub(super) struct Sources {
    pub(super) gossip: UdpSocket,
    pub(super) calls: mpsc::Receiver<Call>,
    /// There once the node belongs to a fabric.
    pub(super) incoming: Option<mpsc::Receiver<Incoming>>,
    pub(super) units: mpsc::Receiver<(AllocId, u32, UnitEvent)>,
    pub(super) checked: mpsc::Receiver<(AllocId, u32, Result<(), String>)>,
    pub(super) written: Written,
    pub(super) joined: mpsc::Receiver<JoinOutcome>,
    pub(super) invited: mpsc::Receiver<Invited>,
    pub(super) looked: mpsc::Receiver<Topology>,
    listening: mpsc::Receiver<(Wanted, Vec<PortsUsed>)>,
    read: mpsc::Receiver<()>,
    /// Gone where it could not be started.
    pub(super) discovery: Option<Discovery>,
    links: Option<LinkWatcher>,
    plugged: Option<Plugged>,
    watchdog: Option<Interval>,
    terminate: Signal,
    interrupt: Signal,
    buffer: Box<[u8; BUFFER_BYTES]>,
    length: usize,
}

/// One byte more than any datagram of ours has: what fills it is too long.
const BUFFER_BYTES: usize = SEALED_BYTES_MAX + 1;

/// The channels that others fill.
pub(super) struct Channels {
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) units: mpsc::Receiver<(AllocId, u32, UnitEvent)>,
    pub(super) checked: mpsc::Receiver<(AllocId, u32, Result<(), String>)>,
    pub(super) written: Written,
    pub(super) joined: mpsc::Receiver<JoinOutcome>,
    pub(super) invited: mpsc::Receiver<Invited>,
    pub(super) looked: mpsc::Receiver<Topology>,
    pub(super) listening: mpsc::Receiver<(Wanted, Vec<PortsUsed>)>,
    pub(super) read: mpsc::Receiver<()>,
}

impl Sources {
    /// Starts to listen for signals and changes of links.
    pub(super) fn new(
        gossip: UdpSocket,
        channels: Channels,
        discovery: Option<Discovery>,
    ) -> io::Result<Self> {
        let Channels { calls, units, checked, written, joined, invited, looked, listening, read } =
            channels;
        let links = LinkWatcher::open()
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot watch the network: new addresses are not noticed");
            })
            .ok();
        let plugged = Plugged::open()
            .inspect_err(|error| {
                tracing::info!(%error, "the kernel is not heard: hardware is looked at once a minute");
            })
            .ok();
        let watchdog = sd_notify::watchdog_enabled().map(|period| {
            let mut interval = interval((period / 3).max(Duration::from_millis(100)));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Ok(Self {
            gossip,
            calls,
            incoming: None,
            units,
            checked,
            written,
            joined,
            invited,
            looked,
            listening,
            read,
            discovery,
            links,
            plugged,
            watchdog,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            buffer: Box::new([0; BUFFER_BYTES]),
            length: 0,
        })
    }

    /// Waits for the first thing to happen, at most until `deadline`.
    pub(super) async fn next(&mut self, deadline: Instant) -> Wake {
        loop {
            let wake = tokio::select! {
                received = self.gossip.recv_from(&mut self.buffer[..]) => match received {
                    Ok((length, from)) => {
                        self.length = length;
                        // Gossip comes from the port it is sent to, so no port is subtracted.
                        Wake::Datagram(canonical(from))
                    }
                    // Errors on a datagram socket are news of earlier datagrams (ICMP).
                    Err(error) => {
                        tracing::trace!(%error, "the gossip socket reports");
                        continue;
                    }
                },
                Some(call) = self.calls.recv() => Wake::Call(call),
                Some(incoming) = received(self.incoming.as_mut()) => Wake::Incoming(incoming),
                Some((alloc, run, event)) = self.units.recv() => Wake::Unit(alloc, run, event),
                Some((alloc, run, outcome)) = self.checked.recv() => Wake::Checked(alloc, run, outcome),
                progress = self.written.next() => match progress {
                    Some(progress) => Wake::Written(progress),
                    None => Wake::Gone("the thread that writes to disk"),
                },
                Some(outcome) = self.joined.recv() => Wake::Joined(Box::new(outcome)),
                Some(invited) = self.invited.recv() => Wake::Invited(Box::new(invited)),
                Some(topology) = self.looked.recv() => Wake::Looked(Box::new(topology)),
                Some((wanted, used)) = self.listening.recv() => Wake::Listening(wanted, used),
                Some(()) = self.read.recv() => Wake::Read,
                event = discovered(self.discovery.as_mut()) => Wake::Discovered(event),
                changed = links(self.links.as_ref()) => match changed {
                    Ok(()) => Wake::Links,
                    Err(error) => {
                        tracing::warn!(%error, "the network is not watched any more");
                        self.links = None;
                        continue;
                    }
                },
                changed = plugged(self.plugged.as_ref()) => match changed {
                    Ok(()) => Wake::Plugged,
                    Err(error) => {
                        tracing::warn!(%error, "hardware is looked at once a minute from now on");
                        self.plugged = None;
                        continue;
                    }
                },
                () = tokio::time::sleep_until(deadline) => Wake::Deadline,
                () = watchdog(self.watchdog.as_mut()) => Wake::Watchdog,
                _ = self.terminate.recv() => Wake::Stop("SIGTERM"),
                _ = self.interrupt.recv() => Wake::Stop("SIGINT"),
            };
            return wake;
        }
    }

    /// The bytes of the last datagram.
    pub(super) fn datagram(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// IPv4 in its own family, no flow label.
fn canonical(from: SocketAddr) -> SocketAddr {
    let mut address = node_address(from);
    address.set_port(from.port());
    address
}

async fn received<T>(channel: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => pending().await,
    }
}

async fn discovered(discovery: Option<&mut Discovery>) -> discovery::Event {
    match discovery {
        Some(discovery) => discovery.next().await,
        None => pending().await,
    }
}

async fn links(links: Option<&LinkWatcher>) -> io::Result<()> {
    match links {
        Some(links) => links.changed().await,
        None => pending().await,
    }
}

async fn plugged(plugged: Option<&Plugged>) -> io::Result<()> {
    match plugged {
        Some(plugged) => plugged.changed().await,
        None => pending().await,
    }
}

async fn watchdog(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}
