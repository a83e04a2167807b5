/// What a cgroup's sockets received and sent, from the IP header on, on whichever interface: what two cgroups of
/// one machine say to each other is sent by one and received by the other. A socket belongs to the cgroup that
/// made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent, with those sent again.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

impl Network {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: &[u64]) -> Self {
        let word = |place: usize| row.get(place).copied().unwrap_or_default();
        Self {
            received_bytes: word(0),
            received_packets: word(1),
            sent_bytes: word(2),
            sent_packets: word(3),
        }
    }
}
