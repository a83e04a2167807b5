//! Tells when the machine's network changes.
//!
//! The kernel announces changes of links and addresses to anyone who listens (rtnetlink(7)). What it
//! says is not read: a look at the addresses tells what is there now, whatever was missed.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockProtocol;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use crate::interfaces::Interfaces;
use crate::news::News;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Flags of an IPv6 address that cannot be used: `IFA_F_DADFAILED`, `IFA_F_TENTATIVE`.
const UNUSABLE: u8 = 0x08 | 0x40;

/// Hears of every change of a link or an address.
#[derive(Debug)]
pub struct LinkWatcher {
    news: News,
}

impl LinkWatcher {
    /// Starts listening. Needs a runtime with I/O. Fails where the agent may not open netlink sockets.
    pub fn open() -> io::Result<Self> {
        News::open(SockProtocol::NetlinkRoute, GROUPS).map(|news| Self { news })
    }

    /// Waits for a change. Several that arrived together count as one. Can be cancelled.
    pub async fn changed(&self) -> io::Result<()> {
        self.news.heard(|_| true).await
    }
}

/// The usable addresses of the interfaces that take part: name, index and address of each.
pub fn usable_addresses(interfaces: &Interfaces) -> BTreeSet<(String, u32, IpAddr)> {
    let usable = assigned_addresses().into_iter().filter(|address| address.usable);
    let usable = usable.filter(|address| interfaces.allows(&address.name, address.loopback));
    usable.map(|address| (address.name, address.index, address.address)).collect()
}

/// An address of an interface.
pub(crate) struct Assigned {
    pub(crate) name: String,
    pub(crate) index: u32,
    loopback: bool,
    pub(crate) address: IpAddr,
    /// Something can be sent from it now.
    pub(crate) usable: bool,
}

/// All addresses of all interfaces.
pub(crate) fn assigned_addresses() -> Vec<Assigned> {
    let unusable = unusable_addresses();
    let mut assigned = Vec::new();
    let Ok(all) = getifaddrs() else {
        return assigned;
    };
    for entry in all {
        let Some(storage) = entry.address else { continue };
        let address = if let Some(v4) = storage.as_sockaddr_in() {
            IpAddr::V4(v4.ip())
        } else if let Some(v6) = storage.as_sockaddr_in6() {
            IpAddr::V6(v6.ip())
        } else {
            continue;
        };
        let name = entry.interface_name;
        let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        assigned.push(Assigned {
            index: nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0),
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            usable: entry.flags.contains(running) && !unusable.contains(&(name.clone(), address)),
            name,
            address,
        });
    }
    assigned
}

/// IPv6 addresses that the kernel has not checked for duplicates yet, or found to be one: nothing
/// can be sent from them.
fn unusable_addresses() -> BTreeSet<(String, IpAddr)> {
    let table = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    table.lines().filter_map(unusable_address).collect()
}

/// Reads a line: address, index, prefix, scope and flags in hex, then the interface's name.
fn unusable_address(line: &str) -> Option<(String, IpAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    let flags = u8::from_str_radix(fields.nth(3)?, 16).ok()?;
    let name = fields.next()?;
    (flags & UNUSABLE != 0).then(|| (name.to_owned(), IpAddr::V6(Ipv6Addr::from_bits(address))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tentative_addresses_are_recognised() {
        let line = "fe800000000000000000000000000001 02 40 20 c0     eth0";
        let tentative = ("eth0".to_owned(), "fe80::1".parse().expect("an address"));
        assert_eq!(unusable_address(line), Some(tentative));
        assert_eq!(unusable_address(&line.replace("c0", "80")), None);
        assert_eq!(unusable_address("fe80 02"), None);
        assert_eq!(unusable_address(""), None);
    }
}
