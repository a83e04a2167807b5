//! Every bound of this crate, with its unit and its reason.

use std::time::Duration;

/// Cgroups that have rows of their own in each table; further ones are counted as `other`. A node of 200
/// allocations has some 300 cgroups. A row costs some 90 bytes and 8 to 40 a CPU from the beginning; a histogram beside it
/// 4 KiB a CPU, and only once used.
pub const CGROUPS_MAX: u32 = 1024;

/// Requests that block devices may have at once for all of them to be counted, for each CPU: a device has up to a queue for
/// each, of some thousand. Each costs 96 bytes, from the beginning.
pub const REQUESTS_PER_CPU: u32 = 1024;

/// The least and the most of them: many small disks may be full on a machine with few CPUs, and hardly all queues of one
/// with many.
pub const REQUESTS: (u32, u32) = (4096, 16_384);

/// Pairs of a cgroup and a peer that retransmissions are counted for; further ones are counted as `other`.
pub const PEERS_MAX: u32 = 1024;

/// Connections that one reading looks at, in the order of the kernel's hash table: 64 bytes each while it
/// reads. More than that are not averaged any better.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Folders that a search for a cgroup's name walks through. Far above what the tables hold.
pub const CGROUP_FOLDERS_MAX: usize = 16_384;

/// Threads that are looked at where the scheduler has to be read from procfs: three files each, some 10 us.
pub const THREADS_MAX: usize = 32_768;

/// How long a trace may take. Whoever wants more starts it again.
pub const TRACE_TIME_MAX: Duration = Duration::from_secs(300);

/// Cgroups that one trace looks at: the size of a table in `trace.bpf.h`. A job with more allocations on one node is
/// looked at with everything.
pub const TRACE_CGROUPS_MAX: usize = 64;

/// Kernel memory of all traces at once, in bytes: one by stacks and one by events, but not two by stacks.
pub const TRACES_BYTES_MAX: usize = 6 << 20;

/// Descriptors of files of cgroups that stay open for the next reading: three each of 128 units.
pub const PRESSURE_DESCRIPTORS_MAX: usize = 384;

/// Bytes of a file about pressure: two lines of some 80.
pub const PRESSURE_BYTES_MAX: usize = 1024;

/// Samples a second and CPU of a profile. Not a round number, so as not to run in step with what it looks at.
pub const SAMPLES_PER_SECOND: u64 = 99;

/// Bytes of a file whose functions are looked up; larger ones lend only their names. Browsers have 200 MB.
pub const SYMBOL_FILE_BYTES_MAX: u64 = 256 << 20;

/// Functions of one file.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// Descriptors of the processor's counters: one for each event, CPU and unit. Each keeps some 1.5 KiB of the kernel's
/// memory. Four events of 4 CPUs are enough for 256 units, of 64 CPUs for 16.
pub const COUNTER_DESCRIPTORS_MAX: usize = 4096;

/// Events that are counted together. Processors have four to eight counters for them.
pub const COUNTER_EVENTS_MAX: usize = 8;

/// Bytes of what libbpf says about a failed load that are kept: the verifier's log can be megabytes, its last
/// lines say why.
pub const SAID_MAX: usize = 2048;

/// What this process may open.
pub(crate) fn descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable, and of the type that the call wants.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if failed == 0 { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 0 }
}

const _: () = assert!(CGROUP_FOLDERS_MAX > CGROUPS_MAX as usize);
