//! Where this node can be reached, and where a datagram for a peer has to go.
//!
//! A machine has more addresses than others can reach: a container engine alone brings a bridge for each of its
//! networks, with the same address on every machine. What others are told is in the order in which it is likely to
//! work, so that the first one does: first the links over which peers are spoken with, then those that lead out of
//! the machine, the one with the default route before the others. What only leads to containers is left out as
//! long as there is anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use discovery::{Link, LinkKind};

use crate::config::Listen;
use crate::quic::Own;

/// Addresses told to the others: more would only make everybody's table larger.
const ADVERTISED_MAX: usize = 8;
/// Of one link, as long as others have some to tell: one with many IPv6 addresses does not hide the others.
const ADVERTISED_PER_LINK_MAX: usize = 4;
/// Links that something for a link-local address without a scope is sent on. More than any machine has that is no
/// router; what leads only to containers does not count.
const LINKS_MAX: usize = 16;
/// Peers that are looked up to see which of our addresses they know us by: a few say it as well as all.
pub(super) const PEERS_MAX: usize = 32;

/// The machine's links and addresses, and what is known of their use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Local {
    links: Vec<Link>,
    /// Addresses that peers see when they are spoken with.
    seen: BTreeSet<IpAddr>,
    /// Addresses that somebody sees to whom only a default route leads.
    routed: BTreeSet<IpAddr>,
    /// Peers were heard, and no route leads to where any of them was over a link that has a carrier.
    cut_off: bool,
}

impl Local {
    /// Looks at what there is now. `peers` are addresses at which peers were heard; `before` is what was there at the
    /// look before: an address that was seen once stays seen as long as the machine has it, or the order would change
    /// with every peer.
    pub(super) fn look(peers: &BTreeSet<SocketAddr>, before: &Local) -> Self {
        let links = discovery::links().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel does not tell its links: all count as network cards");
            without_kinds()
        });
        let has = |address: &IpAddr| links.iter().any(|link| link.usable.contains(address));
        let some = peers.iter().take(PEERS_MAX);
        let sources: Vec<IpAddr> = some.filter_map(|peer| source_towards(*peer)).collect();
        // A route stays when its link has lost its carrier.
        let cut_off = !peers.is_empty() && !sources.iter().any(has);
        let seen = sources.into_iter().chain(before.seen.iter().copied()).filter(has).collect();
        let routed = FAR_AWAY.into_iter().filter_map(source_towards).filter(has).collect();
        Self { links, seen, routed, cut_off }
    }

    /// The addresses at which this agent itself answers.
    pub(super) fn own(&self, listen: &Listen, port: u16) -> Own {
        if !listen.address.is_unspecified() {
            return Own::new([(0, listen.address)], port);
        }
        let assigned = self.links.iter().flat_map(|link| {
            let addresses = link.assigned.iter().chain(&link.usable);
            addresses.map(|address| (link.index, *address))
        });
        let everywhere = [IpAddr::from([0, 0, 0, 0]), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        Own::new(assigned.chain(everywhere.map(|address| (0, address))), port)
    }

    /// Whether peers are spoken with over this link.
    fn is_seen(&self, link: &Link) -> bool {
        link.usable.iter().any(|address| self.seen.contains(address))
    }

    /// What leads out of the machine, and what peers are spoken with over, whatever it is.
    fn leads_out(&self, link: &Link) -> bool {
        match link.kind {
            LinkKind::Wire | LinkKind::Tunnel | LinkKind::Veth => true,
            // A bridge to virtual machines may have members behind it, or the way out.
            LinkKind::Inner => {
                self.is_seen(link) || link.usable.iter().any(|a| self.routed.contains(a))
            }
            // Somebody may have given it an address that is routed here.
            LinkKind::Loopback => link.usable.iter().any(|address| !address.is_loopback()),
        }
    }

    /// Addresses that something can be sent from, except loopback, best first.
    fn ranked(&self) -> Vec<(Rank, IpAddr)> {
        let all = self.links.iter().flat_map(|link| link.usable.iter().map(move |a| (link, *a)));
        let real = all.filter(|(_, address)| !address.is_loopback());
        let mut ranked: Vec<_> = real.map(|(link, a)| (self.rank(link, a), a)).collect();
        ranked.sort_unstable();
        ranked
    }

    fn rank(&self, link: &Link, address: IpAddr) -> Rank {
        Rank {
            inner: !self.leads_out(link),
            unseen: !self.is_seen(link),
            reach: Reach::of(address),
            address_unseen: !self.seen.contains(&address),
            unrouted: !self.routed.contains(&address),
            kind: link.kind,
            is_v6: address.is_ipv6(),
            link: link.index,
        }
    }
}

/// How likely it is that others reach an address. The lowest one is the best; the first field in which two differ
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    inner: bool,
    unseen: bool,
    reach: Reach,
    address_unseen: bool,
    unrouted: bool,
    kind: LinkKind,
    /// Where both are there, both work: IPv4 first.
    is_v6: bool,
    link: u32,
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Everywhere,
    /// On its link. IPv6 has such an address on every link.
    Link,
    /// On its link, by IPv4: for want of anything better.
    Stopgap,
}

impl Reach {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) if v4.is_link_local() => Reach::Stopgap,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Reach::Link,
            _ => Reach::Everywhere,
        }
    }
}

/// Nothing is sent there: the kernel is asked for its route to somewhere on the internet (a root name server).
const FAR_AWAY: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 41, 0, 4)), 53),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)), 53),
];

/// The address of ours that whoever is at `peer` sees, if there is a route. Sends nothing.
fn source_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

/// The links, as far as they can be seen by their addresses.
fn without_kinds() -> Vec<Link> {
    // Loopback too: it is all that a machine without a network has.
    let all = discovery::Interfaces { only: vec!["*".into()], except: Vec::new() };
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    for (name, index, address) in discovery::usable_addresses(&all) {
        let link = links.entry(index).or_insert_with(|| Link {
            index,
            name,
            kind: if address.is_loopback() { LinkKind::Loopback } else { LinkKind::Wire },
            usable: BTreeSet::new(),
            assigned: BTreeSet::new(),
        });
        link.usable.insert(address);
    }
    links.into_values().collect()
}

/// What to tell the others, best first: without a scope, which means nothing on another machine, and loopback only
/// when there is nothing else. `port` is the one that the gossip socket is bound to.
pub(super) fn advertised(listen: &Listen, port: u16, local: &Local) -> Vec<SocketAddr> {
    if !listen.advertise.is_empty() {
        return listen.advertise.iter().copied().take(ADVERTISED_MAX).collect();
    }
    if !listen.address.is_unspecified() {
        return vec![SocketAddr::new(listen.address, port)];
    }
    let takes_v6 = listen.address.is_ipv6();
    let mut ranked = local.ranked();
    ranked.retain(|(_, address)| takes_v6 || address.is_ipv4());
    if ranked.iter().any(|(rank, _)| !rank.inner) {
        ranked.retain(|(rank, _)| !rank.inner);
    }
    let mut told: BTreeMap<u32, usize> = BTreeMap::new();
    // Stable: among those that may be told, and among those beyond the bound, the order stays.
    ranked.sort_by_cached_key(|(rank, _)| {
        let before = told.entry(rank.link).or_default();
        *before += 1;
        *before > ADVERTISED_PER_LINK_MAX
    });
    let mut best: Vec<IpAddr> = ranked.into_iter().map(|(_, address)| address).collect();
    if best.is_empty() {
        let all: BTreeSet<IpAddr> =
            local.links.iter().flat_map(|link| &link.usable).copied().collect();
        best = all.into_iter().filter(|address| takes_v6 || address.is_ipv4()).collect();
    }
    best.into_iter().take(ADVERTISED_MAX).map(|address| SocketAddr::new(address, port)).collect()
}

/// Which of two looks at the machine's addresses to tell the others of: the second one, unless it finds a machine
/// that has lost its links. Nobody can reach it then, and loopback, or the bridge of a container, would be a lie; what
/// was told before is true again once a link is back.
pub(super) fn worth_telling(before: Local, now: &Local) -> Local {
    let leaves = |local: &Local| local.ranked().iter().any(|(rank, _)| !rank.inner);
    if leaves(&before) && !leaves(now) { before } else { now.clone() }
}

/// Whether any link of this machine has a carrier and an address, and one of those leads to where peers were heard.
/// Without that, silence of others is this machine's own.
///
/// A bridge of containers keeps its carrier when the cable is out, and so does a tunnel: they count only where peers
/// are spoken with over the first, and where there is no link that could carry the second. Likewise loopback: members
/// may share one machine. An agent that listens at one address is heard over the link that has it.
pub(super) fn is_connected(listen: &Listen, local: &Local) -> bool {
    if !listen.address.is_unspecified() {
        return local.links.iter().any(|link| link.usable.contains(&listen.address))
            && !local.cut_off;
    }
    let has_wire = local.links.iter().any(|link| match link.kind {
        LinkKind::Wire | LinkKind::Veth => true,
        LinkKind::Tunnel | LinkKind::Inner | LinkKind::Loopback => false,
    });
    let has_link = local.links.iter().any(|link| match link.kind {
        LinkKind::Wire | LinkKind::Veth => !link.usable.is_empty(),
        LinkKind::Tunnel => !link.usable.is_empty() && !has_wire,
        LinkKind::Inner | LinkKind::Loopback => local.is_seen(link),
    });
    has_link && !local.cut_off
}

/// Where to send so that `address` is reached: itself, or if it is of a link and does not say which, that address on
/// every link. A link that is not there any more, or has another number since its adapter was replaced, says nothing.
pub(super) fn routes(address: SocketAddr, local: &Local) -> Vec<SocketAddr> {
    let SocketAddr::V6(v6) = address else { return vec![address] };
    if !v6.ip().is_unicast_link_local() {
        return vec![address];
    }
    let links: Vec<(Rank, u32)> = local
        .links
        .iter()
        .filter_map(|link| {
            let mine = link
                .usable
                .iter()
                .find(|mine| matches!(mine, IpAddr::V6(v6) if v6.is_unicast_link_local()))?;
            Some((local.rank(link, *mine), link.index))
        })
        .collect();
    let on = |link| SocketAddrV6::new(*v6.ip(), v6.port(), 0, link).into();
    if links.iter().any(|(_, link)| *link == v6.scope_id()) {
        return vec![on(v6.scope_id())];
    }
    let leads_out = links.iter().any(|(rank, _)| !rank.inner);
    let ranked: BTreeSet<_> =
        links.into_iter().filter(|(rank, _)| !leads_out || !rank.inner).collect();
    ranked.into_iter().take(LINKS_MAX).map(|(_, link)| on(link)).collect()
}

#[cfg(test)]
mod tests;
