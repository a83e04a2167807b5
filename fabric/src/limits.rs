//! Every bound of the core: its unit last in the name, its reason beside it.

use std::time::Duration;

/// Bytes of one gossip payload before sealing. A sealed datagram must fit an Ethernet frame over IPv6
/// without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1350;
/// What sealing adds to a payload: version (1), key id (4), sender (32), generation (8), salt (8),
/// counter (8) and tag (16).
pub const SEAL_BYTES: usize = 77;
const _: () = assert!(DATAGRAM_BYTES_MAX + SEAL_BYTES + 8 + 40 <= 1500);

/// Bytes of one encoded [`Message`](crate::message::Message): bounds what a peer can make us buffer.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries put into one message; the rest waits for the next round of repair.
pub const ENTRIES_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(ENTRIES_BYTES_MAX + ENTRY_BYTES_MAX < MESSAGE_BYTES_MAX);
/// Bytes of one encoded entry. The largest is a job with files.
pub const ENTRY_BYTES_MAX: usize = 192 << 10;

/// Members of one fabric.
pub const MEMBERS_MAX: usize = 16_384;
/// Entries in the table: bounds memory at about 1 KiB an entry.
pub const ENTRIES_MAX: usize = 1 << 21;
/// Jobs, tombstones included.
pub const JOBS_MAX: usize = 65_536;
/// Slots of one job.
pub const COUNT_MAX: u32 = 100_000;
/// Bytes of a job's name: a DNS label.
pub const JOB_NAME_BYTES_MAX: usize = 63;
/// Bytes of a job file, with files inlined.
pub const JOB_FILE_BYTES_MAX: usize = 128 << 10;
const _: () = assert!(JOB_FILE_BYTES_MAX < ENTRY_BYTES_MAX);
/// Items in any list of a job file.
pub const JOB_LIST_MAX: usize = 256;
/// Logical CPUs of one node.
pub const CPUS_MAX: usize = 4096;
/// Labels of one node.
pub const LABELS_MAX: usize = 64;

/// Messages waiting for the agent to send them; the oldest is dropped, ticks derive it again.
pub const OUTPUTS_MAX: usize = 65_536;
/// Proposals one coordinator has under way: one slow node cannot stall the others.
pub const PROPOSALS_MAX: usize = 4096;
/// Allocations of one node.
pub const ALLOCS_PER_NODE_MAX: usize = 4096;

/// Shortest time between two ticks: packets that arrive together are decided together.
pub const TICK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two ticks: everything lost is derived again within this.
pub const TICK_MAX: Duration = Duration::from_secs(1);
