//! The names of the series that are asked for here. `docs/METRICS.md` says what each is.

/// Histogram: how long threads waited for a CPU.
pub const RUNQUEUE: &str = "weft_unit_runqueue_seconds";
/// Histogram: how long requests to block devices took, with the label `operation`.
pub const BLOCK: &str = "weft_unit_block_seconds";
/// Histogram: how long it took until connections were there.
pub const CONNECT: &str = "weft_unit_tcp_connect_seconds";
/// Histogram: smoothed round-trip times of connections, each once every ten seconds.
pub const ROUND_TRIPS: &str = "weft_unit_tcp_round_trip_seconds";
/// The mean round-trip time of connections, by the label `peer`.
pub const ROUND_TRIP: &str = "weft_unit_tcp_round_trip_mean_seconds";
/// Segments sent again, by the label `peer`.
pub const RETRANSMITS: &str = "weft_unit_tcp_retransmits_total";
/// Time that threads had a CPU.
pub const CPU: &str = "weft_unit_cpu_seconds_total";
/// Time that threads waited for a CPU.
pub const CPU_WAIT: &str = "weft_unit_cpu_wait_seconds_total";
/// Time that a unit stood still because its quota was used up.
pub const THROTTLED: &str = "weft_unit_throttled_seconds_total";
/// Memory that a unit has.
pub const MEMORY: &str = "weft_unit_memory_bytes";
/// Time stood still, with the labels `resource` and `kind`.
pub const PRESSURE: &str = "weft_unit_pressure_seconds_total";
/// Bytes read from and written to block devices.
pub const BLOCK_BYTES: &str = "weft_unit_block_bytes_total";
/// Page faults.
pub const FAULTS: &str = "weft_unit_page_faults_total";
/// Page faults that waited for a disk.
pub const MAJOR_FAULTS: &str = "weft_unit_major_page_faults_total";
/// Processes killed for want of memory.
pub const KILLS: &str = "weft_unit_oom_kills_total";
/// What a node's CPUs did, by the label `mode`.
pub const NODE_CPU: &str = "node_cpu_seconds_total";
/// A node's memory.
pub const NODE_MEMORY: &str = "node_memory_MemTotal_bytes";
/// What could be given away of it.
pub const NODE_MEMORY_AVAILABLE: &str = "node_memory_MemAvailable_bytes";
