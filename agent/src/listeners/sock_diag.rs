//! The kernel's list of sockets that wait for somebody: sock_diag(7), or `/proc/net` where the kernel has no such thing.

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket that waits for connections or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// It waits for datagrams.
    pub is_udp: bool,
    /// Where it is bound.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its number among all sockets; 0 for one of the kernel's own.
    pub inode: u64,
    /// The number of the cgroup in which it was made, if the kernel tells (since 5.7).
    pub cgroup: Option<u64>,
    /// It is for IPv6 alone.
    pub only_ipv6: bool,
}

/// What sockets do, as `net/tcp_states.h` numbers it.
const ESTABLISHED: u32 = 1;
const UNCONNECTED: u32 = 7;
const LISTEN: u32 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const INET: u8 = 2;
const INET6: u8 = 10;

/// Numbers of netlink(7) and `linux/inet_diag.h`.
const REQUEST: u16 = 0x001;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const HEADER: usize = 16;
const MESSAGE: usize = 72;
const ONLY_IPV6: u16 = 11;
const CGROUP: u16 = 21;

/// The kernel fills at most this much of an answer at a time.
const ANSWER_BYTES: usize = 32 << 10;
/// It answers at once, or something is broken.
const ANSWER_SECONDS: i64 = 1;

/// All TCP sockets that listen, and all UDP sockets that are open to everybody.
pub fn all() -> io::Result<Vec<Listener>> {
    let mut all = tcp(0)?;
    for family in [INET, INET6] {
        all.extend(dump(family, UDP, UNCONNECTED, 0)?);
    }
    Ok(all)
}

/// TCP sockets that listen on a port; 0: on any.
pub fn tcp(port: u16) -> io::Result<Vec<Listener>> {
    let mut all = Vec::new();
    for family in [INET, INET6] {
        all.extend(dump(family, TCP, LISTEN, port)?);
    }
    Ok(all)
}

/// The cgroup of the socket at the other end of a connection within this machine, if the kernel tells.
pub fn cgroup_of_peer(own: SocketAddr, peer: SocketAddr) -> io::Result<Option<u64>> {
    let family = if peer.is_ipv4() { INET } else { INET6 };
    let id = socket_id(peer.port(), own.port(), Some((peer.ip(), own.ip())));
    let socket = open()?;
    ask(&socket, REQUEST, family, TCP, u32::MAX, &id)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let mut found = Vec::new();
    take_in(&answer[..length], TCP, ESTABLISHED, &mut found)?;
    Ok(found.first().and_then(|socket| socket.cgroup))
}

fn dump(family: u8, protocol: u8, state: u32, port: u16) -> io::Result<Vec<Listener>> {
    dump_by_netlink(family, protocol, state, port)
        .or_else(|_| read_proc(family, protocol, state, port))
}

fn dump_by_netlink(family: u8, protocol: u8, state: u32, port: u16) -> io::Result<Vec<Listener>> {
    let socket = open()?;
    ask(&socket, REQUEST | DUMP, family, protocol, 1 << state, &socket_id(port, 0, None))?;
    let (mut answer, mut found) = (vec![0; ANSWER_BYTES], Vec::new());
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if length == 0 || take_in(&answer[..length], protocol, state, &mut found)? {
            // A kernel that knows no filter tells of all.
            found.retain(|one: &Listener| port == 0 || one.port == port);
            return Ok(found);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
    Ok(socket)
}

/// `inet_diag_sockid`: ports, addresses, interface, and the cookie that stands for any socket.
fn socket_id(source: u16, target: u16, addresses: Option<(IpAddr, IpAddr)>) -> [u8; 48] {
    let mut id = [0; 48];
    id[0..2].copy_from_slice(&source.to_be_bytes());
    id[2..4].copy_from_slice(&target.to_be_bytes());
    let mut put = |at: usize, address: IpAddr| match address {
        IpAddr::V4(address) => id[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => id[at..at + 16].copy_from_slice(&address.octets()),
    };
    if let Some((source, target)) = addresses {
        put(4, source);
        put(20, target);
    }
    id[40..].fill(0xff);
    id
}

/// Sends `inet_diag_req_v2`.
fn ask(
    socket: &OwnedFd,
    flags: u16,
    family: u8,
    protocol: u8,
    states: u32,
    id: &[u8; 48],
) -> io::Result<()> {
    let mut request = Vec::with_capacity(HEADER + 8 + id.len());
    request.extend(((HEADER + 8 + id.len()) as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, protocol, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(id);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(())
}

/// Reads some messages. True: they were the last.
fn take_in(
    mut messages: &[u8],
    protocol: u8,
    state: u32,
    found: &mut Vec<Listener>,
) -> io::Result<bool> {
    while messages.len() >= HEADER {
        let length = number::<4>(messages, 0) as usize;
        if length < HEADER || length > messages.len() {
            return Err(io::Error::other("the kernel's answer is cut off"));
        }
        let body = &messages[HEADER..length];
        match number::<2>(messages, 4) as u16 {
            DONE => return Ok(true),
            ERROR => {
                let code = (number::<4>(body, 0) as i32).wrapping_neg();
                return Err(io::Error::from_raw_os_error(code));
            }
            // One that was asked for by its addresses may be something else in that moment.
            BY_FAMILY if body.len() >= MESSAGE && u32::from(body[1]) == state => {
                found.push(listener(body, protocol));
            }
            _ => {}
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `inet_diag_msg` and the attributes after it.
fn listener(body: &[u8], protocol: u8) -> Listener {
    let mut octets = [0; 16];
    octets.copy_from_slice(&body[8..24]);
    let address = match body[0] {
        INET => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        _ => IpAddr::V6(Ipv6Addr::from(octets)),
    };
    let mut listener = Listener {
        is_udp: protocol == UDP,
        address,
        port: u16::from_be_bytes([body[4], body[5]]),
        inode: number::<4>(body, 68),
        cgroup: None,
        only_ipv6: false,
    };
    let mut attributes = &body[MESSAGE..];
    while attributes.len() >= 4 {
        let length = number::<2>(attributes, 0) as usize;
        if length < 4 || length > attributes.len() {
            break;
        }
        let value = &attributes[4..length];
        match number::<2>(attributes, 2) as u16 {
            ONLY_IPV6 => listener.only_ipv6 = value.first().is_some_and(|&only| only != 0),
            CGROUP if value.len() == 8 => listener.cgroup = Some(number::<8>(value, 0)),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    listener
}

/// A number in the machine's own order; 0 past the end.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    if let Some(bytes) = bytes.get(at..at + N) {
        match cfg!(target_endian = "little") {
            true => wide[..N].copy_from_slice(bytes),
            false => wide[8 - N..].copy_from_slice(bytes),
        }
    }
    u64::from_ne_bytes(wide)
}

/// The same from `/proc/net`: proc(5).
fn read_proc(family: u8, protocol: u8, state: u32, port: u16) -> io::Result<Vec<Listener>> {
    let name = match (family, protocol) {
        (INET, TCP) => "tcp",
        (INET, _) => "udp",
        (_, TCP) => "tcp6",
        _ => "udp6",
    };
    let text = match std::fs::read_to_string(format!("/proc/net/{name}")) {
        // This kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound && family == INET6 => String::new(),
        text => text?,
    };
    let all = text.lines().skip(1).filter_map(|line| from_line(line, protocol, state));
    Ok(all.filter(|one| port == 0 || one.port == port).collect())
}

fn from_line(line: &str, protocol: u8, state: u32) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if u32::from_str_radix(fields.get(3)?, 16).ok()? != state {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Words of 32 bits, each in the machine's own order.
    let words = (0..address.len() / 8).map(|word| address.get(word * 8..word * 8 + 8));
    let words: Option<Vec<u8>> = words
        .map(|word| Some(u32::from_str_radix(word?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<Vec<_>>>()
        .map(|words| words.concat());
    let address = match words?.as_slice() {
        octets if octets.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        octets => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some(Listener {
        is_udp: protocol == UDP,
        address,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
        cgroup: None,
        only_ipv6: false,
    })
}

#[cfg(test)]
mod tests;
