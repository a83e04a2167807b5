//! Where this node can be reached, and where a datagram for a peer has to go.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::config::Listen;

/// Addresses told to the others: more would only make everybody's table larger.
const ADVERTISED_MAX: usize = 8;
/// Links that a datagram to a link-local address without a scope is sent on.
const LINKS_MAX: usize = 4;
/// Bytes that the kernel may queue for us while the loop is busy: some thousand datagrams.
const QUEUE_BYTES: usize = 1 << 20;

/// The machine's usable addresses: interface index and address.
pub(super) type Local = BTreeSet<(u32, IpAddr)>;

/// The addresses of all interfaces that are up.
pub(super) fn local() -> Local {
    discovery::usable_addresses().into_iter().map(|(_, index, address)| (index, address)).collect()
}

/// What to tell the others, best first: routable addresses, then those of one link (without a scope,
/// which means nothing on another machine), loopback only when there is nothing else.
pub(super) fn advertised(listen: &Listen, local: &Local) -> Vec<SocketAddr> {
    if !listen.advertise.is_empty() {
        return listen.advertise.iter().copied().take(ADVERTISED_MAX).collect();
    }
    if !listen.address.is_unspecified() {
        return vec![SocketAddr::new(listen.address, listen.port)];
    }
    let takes_v6 = listen.address.is_ipv6();
    let all = local.iter().map(|(_, address)| *address).filter(|a| takes_v6 || a.is_ipv4());
    let (loopback, real): (BTreeSet<_>, BTreeSet<_>) =
        all.map(|address| (rank(address), address)).partition(|(_, a)| a.is_loopback());
    let best = if real.is_empty() { loopback } else { real };
    let addresses = best.into_iter().map(|(_, address)| SocketAddr::new(address, listen.port));
    addresses.take(ADVERTISED_MAX).collect()
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

/// An address as people and tables write it: IPv4 in its own family, no flow label.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        v4 => v4,
    }
}

/// An address as a socket of both families takes it.
pub(super) fn mapped(address: SocketAddr, socket: SocketAddr) -> SocketAddr {
    match (address, socket) {
        (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        (other, _) => other,
    }
}

/// The address where streams (QUIC) are spoken, given the one of gossip: the next port.
pub(super) fn stream_address(gossip: SocketAddr) -> SocketAddr {
    SocketAddr::new(gossip.ip(), gossip.port().saturating_add(1)).with_scope_of(gossip)
}

/// The address of gossip, given the one where streams are spoken.
pub(super) fn gossip_address(stream: SocketAddr) -> SocketAddr {
    SocketAddr::new(stream.ip(), stream.port().saturating_sub(1)).with_scope_of(stream)
}

trait WithScope {
    fn with_scope_of(self, other: SocketAddr) -> SocketAddr;
}

impl WithScope for SocketAddr {
    fn with_scope_of(mut self, other: SocketAddr) -> SocketAddr {
        if let (SocketAddr::V6(mine), SocketAddr::V6(other)) = (&mut self, other) {
            mine.set_scope_id(other.scope_id());
        }
        self
    }
}

/// Opens the gossip socket. `[::]` takes IPv4 too, and becomes `0.0.0.0` where there is no IPv6.
pub(super) fn open(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let open = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // A hint: the kernel caps it.
        let _ = socket.set_recv_buffer_size(QUEUE_BYTES);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    match open(address) {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && matches!(
                    error.raw_os_error(),
                    Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)
                ) =>
        {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
