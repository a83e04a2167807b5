use crate::histogram::Histogram;
use crate::table::Row;

/// What a cgroup did with block devices. Devices that have no requests of their own (zram, device mapper) are
/// not counted, but what they make of it on other devices is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What was read.
    pub read: Traffic,
    /// What was written. Pages that the kernel writes back later count for the cgroup that they belong to where
    /// the io controller knows it, and else for the root.
    pub write: Traffic,
    /// Flushes, discards and the like.
    pub other: Traffic,
}

/// One kind of requests. `None` is what the source cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of all answered requests.
    pub bytes: Option<u64>,
    /// Requests that were answered. Several that the kernel has joined are one.
    pub requests: Option<u64>,
    /// From the making of a request until its answer, in nanoseconds. It may lack the first few.
    pub latency: Option<Histogram>,
}

impl Block {
    /// The place of an operation, by its number in `program.bpf.c`.
    pub(crate) fn operation(&mut self, number: u64) -> &mut Traffic {
        match number {
            0 => &mut self.read,
            1 => &mut self.write,
            _ => &mut self.other,
        }
    }

    /// From bytes read, bytes written, reads, writes.
    pub(crate) fn from_io_stat([read, written, reads, writes]: [u64; 4]) -> Self {
        let traffic = |bytes, requests| Traffic {
            bytes: Some(bytes),
            requests: Some(requests),
            latency: None,
        };
        Self {
            read: traffic(read, reads),
            write: traffic(written, writes),
            other: Traffic::default(),
        }
    }

    /// Nothing has been asked of any device.
    pub(crate) fn none() -> Self {
        let zero =
            Traffic { bytes: Some(0), requests: Some(0), latency: Some(Histogram::default()) };
        Self { read: zero.clone(), write: zero.clone(), other: zero }
    }
}

impl Traffic {
    /// From a row of the table in `program.bpf.c`.
    pub(crate) fn from_row(row: Row) -> Self {
        Self {
            bytes: row.numbers.first().copied(),
            requests: row.numbers.get(1).copied(),
            latency: Some(row.histogram),
        }
    }
}
