//! Every bound of the core: its unit last in the name, its reason beside it.

use std::time::Duration;

/// Bytes of one gossip payload before sealing. A sealed datagram (48 bytes more) must fit an
/// Ethernet frame over IPv6 without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1350;
/// What sealing adds to a payload: sender (32), key id (4), nonce (12), tag (16) and version (1).
pub const SEAL_BYTES: usize = 65;
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
/// Bytes of a job file, with files inlined, and of the spec it becomes. A job's entry holds two
/// specs: the one submitted last and the one to go back to.
pub const JOB_FILE_BYTES_MAX: usize = 90 << 10;
const _: () = assert!(2 * JOB_FILE_BYTES_MAX + (8 << 10) <= ENTRY_BYTES_MAX);
/// Items in any list of a job file.
pub const JOB_LIST_MAX: usize = 256;
/// Bytes of memory or swap of one allocation: sums over all of them cannot overflow.
pub const JOB_MEMORY_BYTES_MAX: u64 = 1 << 50;
const _: () = assert!(JOB_MEMORY_BYTES_MAX.checked_mul(ALLOCS_PER_NODE_MAX as u64).is_some());
/// Bytes of memory of one allocation: with less, the dynamic loader of a small program fails.
pub const JOB_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Huge pages of one size of one allocation.
pub const HUGEPAGES_MAX: u32 = 1 << 24;
/// Threads of one allocation: the kernel has no more process ids.
pub const TASKS_MAX: u32 = 1 << 22;
/// Failed checks in a row, and restarts in place, that a job may ask to overlook.
pub const FAILURES_MAX: u32 = 10_000;
/// Seconds of any duration in a job: ten years, so that sums cannot overflow.
pub const JOB_DURATION_SECONDS_MAX: u64 = 10 * 366 * 86_400;
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
