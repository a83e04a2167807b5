//! TCP: how long connecting takes, and round-trip times and retransmissions by peer.
//!
//! - Hooks in: `tp_btf/inet_sock_set_state`, `tcp_retransmit_skb` (with or without an error, which Linux 6.16 or so
//!   added), `tcp_retransmit_synack`; `iter/tcp` when round-trip times are asked for.
//! - Metrics out: [`Connecting`] by cgroup, [`Repeats`] and [`RoundTrips`] by cgroup and peer.
//!
//! Hooks see every network namespace; `iter/tcp`, and with it the round-trip times, only the one of who reads.

mod metrics;

pub use metrics::{Connecting, Peer, Repeats, RoundTrips};

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::limits::CONNECTIONS_MAX;
use crate::status::Status;
use crate::table::{HISTOGRAMS, Table, words};
use libbpf_rs::{Iter, IterOpts, Link};
use std::collections::BTreeMap;
use std::io::Read;

/// Bytes of `struct connection` in `program.bpf.c`: a key of four words, and three more.
const CONNECTION: usize = 7 * 8;

pub(crate) struct Tcp {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
    peers: Table<4>,
    connections: Link,
    peers_max: usize,
}

/// By cgroup, and by peer.
pub(crate) type Both = (BTreeMap<CgroupId, Connecting>, BTreeMap<Peer, Repeats>);

impl Tcp {
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32, peers_max: u32) -> Result<Self, Status> {
        kernel.require(&["inet_sock_set_state", "tcp_retransmit_skb", "tcp_retransmit_synack"])?;
        let tells_errors =
            kernel.arguments("tcp_retransmit_skb").is_some_and(|list| list.len() > 2);
        let again = if tells_errors { "tcp_retransmit_skb_error" } else { "tcp_retransmit_skb" };
        let programs = ["inet_sock_set_state", again, "tcp_retransmit_synack", "connections"];
        let sizes = [("cgroups", cgroups_max), (HISTOGRAMS, cgroups_max), ("peers", peers_max)];
        let mut hooks = Hooks::load(object!("tcp"), &programs, &sizes)?;
        let cgroups = Table::with_histograms(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        let peers = Table::new(&hooks, "peers", &[[CgroupId::OTHER.0, 0, 0, 0]])?;
        let connections = hooks
            .attach_with("connections", |program| program.attach_iter_with_opts(IterOpts::None))?;
        hooks.attach(&programs[..3])?;
        Ok(Self { hooks, cgroups, peers, connections, peers_max: peers_max as usize })
    }

    pub(crate) fn read(&mut self, live: &mut Cgroups) -> Result<Both, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        let connecting =
            rows.into_iter().map(|([id], row)| (CgroupId(id), Connecting::from_row(row))).collect();
        let mut peers: BTreeMap<Peer, Repeats> = BTreeMap::new();
        for (key, row) in self.peers.read(live)? {
            // Two keys may name one peer: by its IPv4 address, and by that address mapped into IPv6.
            peers.entry(Peer::from_key(key)).or_default().segments +=
                row.numbers.first().unwrap_or(&0);
        }
        Ok((connecting, peers))
    }

    /// Walks through the kernel's table of connections, which takes milliseconds where there is much memory.
    pub(crate) fn round_trips(&self) -> Result<BTreeMap<Peer, RoundTrips>, libbpf_rs::Error> {
        let mut peers: BTreeMap<Peer, RoundTrips> = BTreeMap::new();
        let mut bytes = Vec::new();
        let room = (CONNECTIONS_MAX * CONNECTION) as u64;
        Iter::new(&self.connections)?.take(room).read_to_end(&mut bytes)?;
        for connection in bytes.chunks_exact(CONNECTION) {
            let mut all = words(connection);
            let mut key = [0; 4];
            key.fill_with(|| all.next().unwrap_or_default());
            let mut peer = Peer::from_key(key);
            if peers.len() >= self.peers_max && !peers.contains_key(&peer) {
                peer = Peer { cgroup: CgroupId::OTHER, address: None };
            }
            peers.entry(peer).or_default().add(all.next().unwrap_or_default());
        }
        Ok(peers)
    }
}
