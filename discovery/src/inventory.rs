//! The links that the machine has, what kind each is, and the addresses on it.
//!
//! Asked of the kernel by rtnetlink(7): `RTM_GETLINK` tells what nothing else tells everywhere, the kind of a link and
//! the one that it is a port of. /sys/class/net tells of the network that it was mounted in.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use crate::link::{Assigned, assigned_addresses};

/// Bytes of one answer of the kernel, which holds several links.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The kernel answers at once, or there is something wrong with it: the loop does not wait for it.
const ANSWER_SECONDS: i64 = 1;
/// Links that are looked at. A machine with more of them has one for each of its containers.
const LINKS_MAX: usize = 4096;

// linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;
/// Of `nlmsghdr`, and of `ifinfomsg` behind it.
const HEADER_BYTES: usize = 16;
// linux/if_link.h.
const IFLA_MASTER: u16 = 10;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: nobody here wants to know how many bytes went over it.
const SKIP_STATISTICS: u32 = 1 << 3;
/// What is set in an attribute's type beside the type.
const TYPE_MASK: u16 = 0x3fff;
const IFF_LOOPBACK: u32 = 0x8;

/// A link and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it. A link that is removed and made anew has another one.
    pub index: u32,
    /// Its name, which may change.
    pub name: String,
    /// Where it may lead.
    pub kind: LinkKind,
    /// Addresses that something can be sent from now: the link is up, has a carrier, and nobody else on it has them.
    pub usable: BTreeSet<IpAddr>,
    /// All its addresses. What is sent to one of them stays on this machine, whatever the link's state.
    pub assigned: BTreeSet<IpAddr>,
}

/// Where a link may lead, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// Out of the machine: a network card, or what is built of one (bond, VLAN, a bridge with such a port).
    Wire,
    /// Out of it by way of another link.
    Tunnel,
    /// To another network namespace. In a container it is the way out.
    Veth,
    /// To what runs on this machine: a bridge without a port that leads out, its other ports, dummies.
    Inner,
    /// Nowhere.
    Loopback,
}

/// All links of the machine.
///
/// # Errors
/// When the kernel does not answer.
pub fn links() -> io::Result<Vec<Link>> {
    let told = ask_links()?;
    let mut addresses: BTreeMap<u32, Vec<Assigned>> = BTreeMap::new();
    for address in assigned_addresses() {
        addresses.entry(address.index).or_default().push(address);
    }
    let kinds = kinds(&told);
    let links = told.into_iter().zip(kinds).map(|(told, kind)| {
        let here = addresses.remove(&told.index).unwrap_or_default();
        Link {
            index: told.index,
            name: told.name,
            kind,
            usable: here.iter().filter(|a| a.usable).map(|a| a.address).collect(),
            assigned: here.iter().map(|a| a.address).collect(),
        }
    });
    Ok(links.collect())
}

/// What the kernel tells of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    index: u32,
    name: String,
    loopback: bool,
    /// As `ip link add type` calls it; empty for hardware.
    kind: String,
    /// The link that it is a port of.
    master: Option<u32>,
}

fn ask_links() -> io::Result<Vec<Told>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut links = Vec::new();
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let bytes = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if read(&answer[..bytes], &mut links)? || links.len() >= LINKS_MAX {
            links.truncate(LINKS_MAX);
            return Ok(links);
        }
    }
}

/// Asks for all links.
fn request() -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend_from_slice(&8_u16.to_ne_bytes());
    attribute.extend_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    attribute.extend_from_slice(&SKIP_STATISTICS.to_ne_bytes());
    let length = 2 * HEADER_BYTES + attribute.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    bytes.extend_from_slice(&DUMP.to_ne_bytes());
    // Sequence and port: there is one question on this socket.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    bytes.extend_from_slice(&attribute);
    bytes
}

/// Reads the messages of one answer. True: that was the last one.
fn read(mut bytes: &[u8], links: &mut Vec<Told>) -> io::Result<bool> {
    let cut_off = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut off");
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).ok_or_else(cut_off)? as usize;
        let kind = u16_at(bytes, 4).ok_or_else(cut_off)?;
        let message = bytes.get(HEADER_BYTES..length).ok_or_else(cut_off)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            RTM_NEWLINK => links.extend(link(message)),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads an `ifinfomsg` and what follows.
fn link(message: &[u8]) -> Option<Told> {
    let index = u32_at(message, 4)?;
    let flags = u32_at(message, 8)?;
    let mut told = Told { index, loopback: flags & IFF_LOOPBACK != 0, ..Told::default() };
    for (kind, value) in attributes(message.get(HEADER_BYTES..)?) {
        match kind {
            IFLA_IFNAME => told.name = text(value),
            IFLA_MASTER => told.master = u32_at(value, 0).filter(|master| *master != 0),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                told.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(told)
}

/// `rtattr`s, one after the other, as far as they make sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The kind of each link, in their order.
fn kinds(links: &[Told]) -> Vec<LinkKind> {
    let is_bridge = |kind: &str| matches!(kind, "bridge" | "openvswitch");
    let in_bridge: BTreeMap<u32, bool> =
        links.iter().map(|link| (link.index, is_bridge(&link.kind))).collect();
    let alone = |link: &Told| match link.kind.as_str() {
        _ if link.loopback => LinkKind::Loopback,
        "veth" | "netkit" => LinkKind::Veth,
        "dummy" | "ifb" => LinkKind::Inner,
        "tun" | "wireguard" | "vxlan" | "geneve" | "gre" | "gretap" | "ip6gre" | "ip6gretap"
        | "erspan" | "ipip" | "ip6tnl" | "sit" | "vti" | "vti6" | "xfrm" => LinkKind::Tunnel,
        // A kind that is not known may lead anywhere.
        _ => LinkKind::Wire,
    };
    let leads_out = |bridge: u32| {
        let ports = links.iter().filter(|port| port.master == Some(bridge));
        ports.into_iter().any(|port| alone(port) == LinkKind::Wire && !is_bridge(&port.kind))
    };
    let kind = |link: &Told| match alone(link) {
        LinkKind::Wire if link.kind == "bridge" && !leads_out(link.index) => LinkKind::Inner,
        // The other end of a container's or a virtual machine's cable.
        LinkKind::Veth | LinkKind::Tunnel
            if link.master.is_some_and(|master| in_bridge.get(&master) == Some(&true)) =>
        {
            LinkKind::Inner
        }
        other => other,
    };
    links.iter().map(kind).collect()
}

#[cfg(test)]
mod tests;
