//! The node's two UDP ports.

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

/// Ports tried before giving up when any pair will do.
const ATTEMPTS_MAX: u32 = 64;

/// The node's sockets: gossip on a port, streams on the next. Both are non-blocking.
#[derive(Debug)]
pub struct Sockets {
    /// For sealed datagrams.
    pub gossip: UdpSocket,
    /// For [`listen`](crate::quic::listen).
    pub streams: UdpSocket,
    /// Where the gossip socket listens: the address that the node goes by.
    pub address: SocketAddr,
}

impl Sockets {
    /// Binds both. Port 0 finds any pair of neighbours. `[::]` hears IPv4 too, and becomes
    /// `0.0.0.0` on machines without IPv6.
    ///
    /// # Errors
    /// When a port is taken, or the address is not one of this machine.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            match Self::bind_pair(address) {
                Ok(sockets) => return Ok(sockets),
                Err(error) if address.port() == 0 => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no two neighbouring UDP ports are free")))
    }

    fn bind_pair(address: SocketAddr) -> anyhow::Result<Self> {
        let gossip = bind_one(address)?;
        let address = gossip.local_addr().context("cannot ask a socket for its address")?;
        let streams = stream_address(address).with_context(|| {
            format!("{address}: the port after it is needed too, choose one below 65535")
        })?;
        Ok(Self { gossip, streams: bind_one(streams)?, address })
    }
}

/// A UDP socket, non-blocking.
pub(super) fn bind_one(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let bound = match open(address) {
        Err(error) if address.ip().is_unspecified() && is_no_ipv6(&error) => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        other => other,
    };
    bound.with_context(|| {
        format!(
            "cannot listen on UDP {address}: if another agent runs on this machine, \
             give this one another port or address"
        )
    })
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}

/// The addresses at which this very agent answers. Others may be known by the same ones: a container engine gives every
/// machine's bridge the same address. Whoever dials it there finds itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    addresses: BTreeSet<(u32, IpAddr)>,
    port: u16,
}

impl Own {
    /// Addresses, each with the number of its link, and the port of gossip. An unspecified one stands for loopback.
    pub fn new(addresses: impl IntoIterator<Item = (u32, IpAddr)>, port: u16) -> Self {
        Self { addresses: addresses.into_iter().collect(), port }
    }

    /// Whether `address`, of which another machine says where it is, is this agent's: which link it means there is
    /// unknown here.
    pub fn contains_on_any_link(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        address.port() == self.port && self.addresses.iter().any(|(_, own)| *own == ip)
    }

    /// Whether what is sent to `address`, which is a node's, comes to this agent.
    pub fn contains(&self, address: SocketAddr) -> bool {
        if address.port() != self.port {
            return false;
        }
        let ip = address.ip().to_canonical();
        match address {
            // Another machine may have it on another link.
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                self.addresses.contains(&(v6.scope_id(), ip))
            }
            _ => self
                .addresses
                .iter()
                .any(|(_, own)| *own == ip || (own.is_unspecified() && ip.is_loopback())),
        }
    }
}

/// Where a node that goes by `address` listens for streams; `None` for the last port.
pub fn stream_address(mut address: SocketAddr) -> Option<SocketAddr> {
    address.set_port(address.port().checked_add(1)?);
    Some(address)
}

/// The address that a node goes by whose streams come from `stream`; IPv4 looks like IPv4.
pub fn node_address(stream: SocketAddr) -> SocketAddr {
    let mut address = match stream.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, stream.port())),
        IpAddr::V6(_) => stream,
    };
    address.set_port(stream.port().saturating_sub(1));
    address
}

/// The form of `address` that a socket of `local`'s family can send to.
pub fn for_socket(address: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (address, local) {
        (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        _ => address,
    }
}
