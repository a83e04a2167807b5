use crate::cgroup::CgroupId;
use crate::histogram::{BUCKETS, Histogram};
use crate::table::Row;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Connections that a cgroup has made itself. `None` is what the source cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connecting {
    /// Those that came about.
    pub connected: Option<u64>,
    /// Those that were refused, or given up.
    pub failed: Option<u64>,
    /// From the first SYN until the connection was there, in nanoseconds. It may lack the first few.
    pub latency: Option<Histogram>,
}

impl Connecting {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: Row) -> Self {
        Self {
            connected: row.numbers.first().copied(),
            failed: row.numbers.get(1).copied(),
            latency: Some(row.histogram),
        }
    }
}

/// Whom a cgroup talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The cgroup of the socket on this machine.
    pub cgroup: CgroupId,
    /// Who is at the other end; `None` for all peers beyond the bound together.
    pub address: Option<IpAddr>,
}

/// What was sent again to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Segments, as `RetransSegs` in `/proc/net/snmp` counts them.
    pub segments: u64,
}

/// Connections with one peer that there are now, in the network namespace of who reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// How many.
    pub connections: u64,
    /// The smoothed round-trip time of each (`tcpi_rtt`), in microseconds: how often each bucket.
    pub round_trip_us: Histogram,
    /// The lowest of them.
    pub round_trip_min_us: Option<u64>,
    /// The highest of them.
    pub round_trip_max_us: Option<u64>,
    /// All of them together, for an average.
    pub round_trip_sum_us: u64,
}

impl Peer {
    /// From a key of the table in `program.bpf.c`: cgroup, family, sixteen bytes of address.
    pub(crate) fn from_key(key: [u64; 4]) -> Self {
        const AF_INET: u64 = 2;
        const AF_INET6: u64 = 10;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key[2].to_ne_bytes());
        bytes[8..].copy_from_slice(&key[3].to_ne_bytes());
        let address = match key[1] {
            AF_INET => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
            // A socket for both families that talks IPv4 says so by a mapped address.
            AF_INET6 => Some(Ipv6Addr::from(bytes).to_canonical()),
            _ => None,
        };
        Self { cgroup: CgroupId(key[0]), address }
    }
}

impl RoundTrips {
    /// Adds a connection with this round-trip time.
    pub(crate) fn add(&mut self, round_trip_us: u64) {
        let mut counts = [0; BUCKETS];
        counts[usize::from(crate::histogram::bucket(round_trip_us))] = 1;
        self.connections += 1;
        self.round_trip_us.merge(&Histogram::from_counts(&counts));
        self.round_trip_sum_us += round_trip_us;
        let lower = |lowest: u64| lowest.min(round_trip_us);
        let higher = |highest: u64| highest.max(round_trip_us);
        self.round_trip_min_us = Some(self.round_trip_min_us.map_or(round_trip_us, lower));
        self.round_trip_max_us = Some(self.round_trip_max_us.map_or(round_trip_us, higher));
    }
}
