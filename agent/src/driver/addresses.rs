//! Where this node can be reached, and where a datagram for a peer has to go.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::config::Listen;

/// Addresses told to the others: more would only make everybody's table larger.
const ADVERTISED_MAX: usize = 8;
/// Links that a datagram to a link-local address without a scope is sent on.
const LINKS_MAX: usize = 4;

/// The machine's usable addresses: interface index and address.
pub(super) type Local = BTreeSet<(u32, IpAddr)>;

/// The addresses of all interfaces that are up.
pub(super) fn local() -> Local {
    // Loopback too: it is all that a machine without a network has.
    let all = discovery::Interfaces { only: vec!["*".into()], except: Vec::new() };
    let found = discovery::usable_addresses(&all);
    found.into_iter().map(|(_, index, address)| (index, address)).collect()
}

/// What to tell the others, best first: routable addresses, then those of one link (without a scope,
/// which means nothing on another machine), loopback only when there is nothing else. `port` is the
/// one that the gossip socket is bound to.
pub(super) fn advertised(listen: &Listen, port: u16, local: &Local) -> Vec<SocketAddr> {
    if !listen.advertise.is_empty() {
        return listen.advertise.iter().copied().take(ADVERTISED_MAX).collect();
    }
    if !listen.address.is_unspecified() {
        return vec![SocketAddr::new(listen.address, port)];
    }
    let takes_v6 = listen.address.is_ipv6();
    let all = local.iter().map(|(_, address)| *address).filter(|a| takes_v6 || a.is_ipv4());
    let (loopback, real): (BTreeSet<_>, BTreeSet<_>) =
        all.map(|address| (rank(address), address)).partition(|(_, a)| a.is_loopback());
    let best = if real.is_empty() { loopback } else { real };
    let addresses = best.into_iter().map(|(_, address)| SocketAddr::new(address, port));
    addresses.take(ADVERTISED_MAX).collect()
}

/// Which of two looks at the machine's addresses to tell the others of: the second one, unless it finds a machine
/// that has lost its links. Nobody can reach it then, and loopback would be a lie; what was told before is true again
/// once a link is back.
pub(super) fn worth_telling(before: Local, now: &Local) -> Local {
    let leaves = |local: &Local| local.iter().any(|(_, address)| !address.is_loopback());
    if leaves(&before) && !leaves(now) { before } else { now.clone() }
}

/// Routable before link-local, and IPv4 before IPv6 among the routable: where both are there, both work.
fn rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => 3,
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 2,
        IpAddr::V6(_) => 1,
    }
}

/// Where to send so that `address` is reached: itself, or if it is of a link and does not say which,
/// that address on every link.
pub(super) fn routes(address: SocketAddr, local: &Local) -> Vec<SocketAddr> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            let links: BTreeSet<u32> = local
                .iter()
                .filter(|(_, mine)| matches!(mine, IpAddr::V6(v6) if v6.is_unicast_link_local()))
                .map(|(index, _)| *index)
                .collect();
            let on = |link| SocketAddrV6::new(*v6.ip(), v6.port(), 0, link).into();
            links.into_iter().take(LINKS_MAX).map(on).collect()
        }
        other => vec![other],
    }
}

#[cfg(test)]
mod tests;
