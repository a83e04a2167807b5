//! What discovery tells about other nodes, and whose they are.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::limits;

/// How an instance came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Multicast DNS on a link.
    Mdns,
    /// Unicast DNS-SD.
    Dns,
    /// Configured by hand.
    Seed,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Mdns => "mdns",
            Source::Dns => "dns",
            Source::Seed => "seed",
        })
    }
}

/// Someone who may be a node of ours. Everything in here came from the network unproven: only the
/// handshake tells who answers at these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was seen. One node may be found by several sources; each reports for itself.
    pub source: Source,
    /// The instance's full DNS name, or the seed as it was configured. Names it together with
    /// `source`.
    pub name: String,
    /// The node's id: 64 lower-case hex digits. `None` for a seed, and for a service that does not
    /// say.
    pub node: Option<String>,
    /// Hash of its fabric's key: 16 lower-case hex digits. `None` while it waits to join, and
    /// whenever `node` is `None`.
    pub fabric: Option<String>,
    /// Where it listens: 1 to [`ADDRESSES_PER_INSTANCE_MAX`](limits::ADDRESSES_PER_INSTANCE_MAX),
    /// best guess first. IPv6 link-local ones carry their interface as scope id.
    pub addresses: Vec<SocketAddr>,
}

/// An instance that is not announced any more. Says nothing about the node's health: it may have
/// said goodbye, or the link is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who saw it.
    pub source: Source,
    /// As in [`Found::name`].
    pub name: String,
    /// As it was in [`Found::node`].
    pub node: Option<String>,
}

/// A change of what discovery knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An instance is new, or says something else than before.
    Found(Found),
    /// An instance is gone, or has gone over to another fabric.
    Lost(Lost),
}

/// Whose an instance is, by what it says, as seen by a node of some fabric or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It says that it belongs to our fabric.
    Same,
    /// It waits to join some fabric.
    Waiting,
    /// It belongs to a fabric, and we to none: we might join there.
    Candidate,
    /// It does not say. A seed, or a service that someone published by hand.
    Unknown,
    /// It belongs to another fabric. Never reported.
    Foreign,
}

impl Found {
    /// Whose this is, as seen by a node of the fabric `own`.
    pub fn relation(&self, own: Option<&str>) -> Relation {
        match (&self.node, &self.fabric, own) {
            (None, _, _) => Relation::Unknown,
            (Some(_), None, _) => Relation::Waiting,
            (Some(_), Some(_), None) => Relation::Candidate,
            (Some(_), Some(theirs), Some(own)) if theirs == own => Relation::Same,
            (Some(_), Some(_), Some(_)) => Relation::Foreign,
        }
    }
}

/// Orders addresses by how likely they work, drops those that cannot be a peer's, and bounds their
/// number. `loopback` tells whether the peer may be on this machine under a loopback address.
pub(crate) fn tidy(addresses: impl Iterator<Item = SocketAddr>, loopback: bool) -> Vec<SocketAddr> {
    let usable = addresses.filter(|address| is_a_peers(address, loopback));
    let sorted: BTreeSet<(u8, SocketAddr)> =
        usable.map(|address| (rank(&address), address)).collect();
    let sorted = sorted.into_iter().map(|(_, address)| address);
    sorted.take(limits::ADDRESSES_PER_INSTANCE_MAX).collect()
}

fn is_a_peers(address: &SocketAddr, loopback: bool) -> bool {
    let ip = address.ip();
    let link_local_of_nowhere = match address {
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
        SocketAddr::V4(v4) => v4.ip().is_broadcast(),
    };
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !link_local_of_nowhere
        && (loopback || !ip.to_canonical().is_loopback())
}

/// Routable addresses first, those of one link last.
fn rank(address: &SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(v4) if v4.is_link_local() => 3,
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 2,
        IpAddr::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests;
