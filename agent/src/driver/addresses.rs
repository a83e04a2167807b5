//! Where this node can be reached, and where a datagram for a peer has to go.
//!
//! A machine has more addresses than others can reach: a container engine alone brings a bridge for each of its
//! networks, with the same address on every machine. What is advertised is in the order in which it is likely to
//! work, so that the first one does: first the links over which peers are spoken with, then those that lead out of
//! the machine, the one with the default route before the others. What only leads to containers is left out as
//! long as there is anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use discovery::{Link, LinkKind};

use super::Driver;
use crate::config::Listen;
use crate::quic::{Own, TARGETS_MAX};

/// Addresses that are advertised: more would only make everybody's table larger.
const ADVERTISED_MAX: usize = 8;
/// Per link, as long as other links have some to advertise: one with many IPv6 addresses does not hide the others.
const ADVERTISED_PER_LINK_MAX: usize = 4;
/// Links that something for a link-local address without a scope is sent on. More than any machine has that is no
/// router; what leads only to containers does not count.
const LINKS_MAX: usize = 16;
/// Peers that are looked up to see which of our addresses they know us by: a few say it as well as all.
const PEERS_MAX: usize = 32;

/// Where this agent listens and can be reached.
///
/// Invariant: what is advertised, what is its own, and whether it is connected follow from one look at the links
/// ([`Addresses::look`]), and change with the next one.
pub(super) struct Addresses {
    listen: Listen,
    /// Where the gossip socket is bound.
    bound: SocketAddr,
    links: LinkAddresses,
    /// The last links with which anybody could reach this machine.
    advertised: LinkAddresses,
    /// Where this agent answers: whoever is looked for is not there.
    own: Own,
    /// Where members were heard when the links were looked at.
    heard_at: BTreeSet<SocketAddr>,
    /// Whether any link has a carrier and leads to where members were heard: without one, silence of others is this
    /// machine's own.
    connected: bool,
}

impl Addresses {
    /// Looks at the links for the first time. Nobody was heard yet.
    pub(super) fn start(listen: Listen, bound: SocketAddr) -> Self {
        let links = LinkAddresses::look(&BTreeSet::new(), &LinkAddresses::default());
        Self {
            bound,
            advertised: links.clone(),
            own: links.own(&listen, bound.port()),
            heard_at: BTreeSet::new(),
            connected: is_connected(&listen, &links),
            links,
            listen,
        }
    }

    /// Looks at the links again. False: all is as it was.
    fn look(&mut self) -> bool {
        let links = LinkAddresses::look(&self.heard_at, &self.links);
        if links == self.links {
            return false;
        }
        self.advertised = worth_telling(std::mem::take(&mut self.advertised), &links);
        self.connected = is_connected(&self.listen, &links);
        self.links = links;
        self.own = self.links.own(&self.listen, self.bound.port());
        true
    }

    /// Where the gossip socket is bound.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// The machine's links.
    pub(super) fn links(&self) -> &LinkAddresses {
        &self.links
    }

    /// Where this agent answers.
    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// Whether any link leads to the others.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What is advertised, best first.
    pub(super) fn advertised(&self) -> Vec<SocketAddr> {
        advertised(&self.listen, self.bound.port(), &self.advertised)
    }

    /// Where whoever has these addresses can be reached, best first; not where this agent itself would answer.
    pub(super) fn elsewhere(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for route in addresses.iter().flat_map(|address| routes(*address, &self.links)) {
            if !self.own.contains(route) && !found.contains(&route) && found.len() < TARGETS_MAX {
                found.push(route);
            }
        }
        found
    }
}

impl Driver {
    /// Links or addresses changed, or it is to be seen whether they have.
    pub(super) fn look_at_addresses(&mut self) {
        let before = (self.addresses.advertised(), self.addresses.connected);
        if !self.addresses.look() {
            return;
        }
        if let Some(member) = &mut self.member {
            member.answers_at(self.addresses.own.clone());
        }
        let after = (self.addresses.advertised(), self.addresses.connected);
        if before != after {
            let (addresses, connected) = &after;
            tracing::info!(?addresses, connected, "addresses changed");
            self.changed();
        }
    }

    /// Members were heard elsewhere than before: that says which of our addresses lead to them. And a route that comes back
    /// after its link and address is announced by nobody who is listened to here.
    pub(super) fn notice_peers(&mut self) {
        let Some(member) = &self.member else { return };
        let heard_at: BTreeSet<SocketAddr> = member.peers().take(PEERS_MAX).collect();
        if heard_at != self.addresses.heard_at || !self.addresses.connected {
            self.addresses.heard_at = heard_at;
            self.look_at_addresses();
        }
    }
}

/// The machine's links and addresses, and what is known of their use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkAddresses {
    links: Vec<Link>,
    /// Addresses that peers see when they are spoken with.
    seen: BTreeSet<IpAddr>,
    /// Addresses that somebody sees to whom only a default route leads.
    routed: BTreeSet<IpAddr>,
    /// Peers were heard, and no route leads to where any of them was over a link that has a carrier.
    cut_off: bool,
}

impl LinkAddresses {
    /// Looks at what there is now. `peers` are addresses at which peers were heard; `before` is what was there at the
    /// look before: an address that was seen once stays seen as long as the machine has it, or the order would change
    /// with every peer.
    pub(super) fn look(peers: &BTreeSet<SocketAddr>, before: &LinkAddresses) -> Self {
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
    fn own(&self, listen: &Listen, port: u16) -> Own {
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
fn advertised(listen: &Listen, port: u16, local: &LinkAddresses) -> Vec<SocketAddr> {
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
    // Stable: among those that may be advertised, and among those beyond the bound, the order stays.
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

/// Which of two looks at the machine's addresses to advertise: the second one, unless it finds a machine
/// that has lost its links. Nobody can reach it then, and loopback, or the bridge of a container, would be a lie; what
/// was advertised before is true again once a link is back.
fn worth_telling(before: LinkAddresses, now: &LinkAddresses) -> LinkAddresses {
    let leaves = |local: &LinkAddresses| local.ranked().iter().any(|(rank, _)| !rank.inner);
    if leaves(&before) && !leaves(now) { before } else { now.clone() }
}

/// Whether any link of this machine has a carrier and an address, and one of those leads to where peers were heard.
/// Without that, silence of others is this machine's own.
///
/// A bridge of containers keeps its carrier when the cable is out, and so does a tunnel: they count only where peers
/// are spoken with over the first, and where there is no link that could carry the second. Likewise loopback: members
/// may share one machine. An agent that listens at one address is heard over the link that has it.
fn is_connected(listen: &Listen, local: &LinkAddresses) -> bool {
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
pub(super) fn routes(address: SocketAddr, local: &LinkAddresses) -> Vec<SocketAddr> {
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
