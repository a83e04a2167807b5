//! Single events: programs started, files opened, connections made.

use crate::cgroup::CgroupId;
use crate::hooks::Hooks;
use crate::status::Status;
use libbpf_rs::RingBufferBuilder;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Events since they were last asked for, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// What happened.
    pub events: Vec<Event>,
    /// How many there was no room for, since the trace began.
    pub lost: u64,
}

/// A program that was started, a file that was opened, or a connection that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the kernel's monotonic clock.
    pub at: Duration,
    /// In which cgroup.
    pub cgroup: CgroupId,
    /// By which process.
    pub process: u32,
    /// Whose parent is this.
    pub parent: u32,
    /// What the process calls itself: at most 15 bytes.
    pub name: String,
    /// Which program, which file: as it was named, cut off at 255 bytes. Of a connection: address and port.
    pub path: String,
    /// A file's descriptor, the nanoseconds that a connection took, or a negative error number. 0 for programs: those
    /// that fail to start are not seen.
    pub result: i64,
}

impl Events {
    pub(super) fn read(hooks: &Hooks, path: fn(&[u8]) -> String) -> Result<Self, Status> {
        let refused = |error: libbpf_rs::Error| Status::refused("events", &error, "");
        let events = RefCell::new(Vec::new());
        let map = hooks.map("events")?;
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, |bytes| {
                events.borrow_mut().extend(parse(bytes, path));
                0
            })
            .map_err(refused)?;
        let ring = builder.build().map_err(refused)?;
        ring.consume().map_err(refused)?;
        drop(ring);
        Ok(Self { events: events.into_inner(), lost: super::lost(hooks)? })
    }
}

/// `struct event` of `events.bpf.h`. `None` if it is cut off.
fn parse(bytes: &[u8], path: fn(&[u8]) -> String) -> Option<Event> {
    let number =
        |place: usize| Some(u64::from_ne_bytes(bytes.get(place..place + 8)?.try_into().ok()?));
    let short =
        |place: usize| Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?));
    Some(Event {
        at: Duration::from_nanos(number(0)?),
        cgroup: CgroupId(number(8)?),
        process: short(16)?,
        parent: short(20)?,
        result: number(24)? as i64,
        name: text(bytes.get(32..48)?),
        path: path(bytes.get(48..)?),
    })
}

/// Until the first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Family, port and sixteen bytes of address, as `net/program.bpf.c` writes them.
pub(super) fn address(bytes: &[u8]) -> String {
    const AF_INET: u16 = 2;
    let short = |place: usize| Some([*bytes.get(place)?, *bytes.get(place + 1)?]);
    let address = || {
        let (family, port) = (u16::from_ne_bytes(short(0)?), u16::from_be_bytes(short(2)?));
        let octets: [u8; 16] = bytes.get(4..20)?.try_into().ok()?;
        let address = match family {
            AF_INET => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            // A socket for both families that talks IPv4 says so by a mapped address.
            _ => Ipv6Addr::from(octets).to_canonical(),
        };
        Some(SocketAddr::new(address, port).to_string())
    };
    address().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read_and_what_is_cut_off_is_none() {
        let bytes = |family: u16, port: u16, octets: [u8; 16]| {
            [&family.to_ne_bytes()[..], &port.to_be_bytes(), &octets].concat()
        };
        let mut four = [0; 16];
        four[..4].copy_from_slice(&[10, 77, 0, 2]);
        assert_eq!(address(&bytes(2, 443, four)), "10.77.0.2:443");
        assert_eq!(address(&bytes(10, 80, Ipv6Addr::LOCALHOST.octets())), "[::1]:80");
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        assert_eq!(address(&bytes(10, 80, mapped)), "127.0.0.1:80");
        for cut in 0..20 {
            assert_eq!(address(&bytes(2, 443, four)[..cut]), "");
        }
        assert_eq!(parse(&[0; 47], text), None);
    }
}
