//! What the kernel does for each cgroup: eBPF probes, and procfs and cgroupfs where there is no BPF.
//!
//! A probe is a folder: `program.bpf.c` counts in the kernel, `metrics.rs` says what was counted, and the file
//! beside the folder loads the one and reads the other. Its module doc names the hooks that go in and the
//! metrics that come out.
//!
//! Nothing here has a clock, a thread or an opinion: [`Probes::load`] puts the hooks in place,
//! [`Probes::read`] says what has been counted since, and dropping it takes the hooks out again.
//!
//! ```no_run
//! let mut probes = ebpf::Probes::load(&ebpf::Config::default());
//! for (probe, status) in probes.status() {
//!     println!("{probe}: {status}");
//! }
//! let readings = probes.read();
//! if let Some(scheduler) = readings.scheduler {
//!     for (cgroup, scheduling) in scheduler.rows {
//!         println!("{cgroup}: {:?} ns waited", scheduling.wait_ns);
//!     }
//! }
//! ```
//!
//! CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are enough to load everything, and the first two to trace; only [`Probes::cost`] needs
//! CAP_SYS_ADMIN, or `kernel.bpf_stats_enabled`.

mod batch;
mod cgroup;
mod cost;
mod fallback;
mod histogram;
mod hooks;
mod kept;
mod kernel;
pub mod limits;
mod perf;
mod probes;
mod status;
mod table;

pub mod block;
pub mod counters;
pub mod faults;
pub mod network;
pub mod oom;
pub mod pressure;
pub mod processes;
pub mod scheduler;
pub mod tcp;
pub mod trace;

pub use cgroup::{CgroupId, Cgroups};
pub use cost::Cost;
pub use histogram::{BUCKETS, Histogram, bounds, bucket};
pub use kept::KeptFiles;
pub use probes::{Config, Probe, Probes, Reading, Readings, Source, Unmeasured};
pub use status::Status;

/// Whether probes can be loaded at all here: why not, otherwise. Single probes may still be missing a hook;
/// [`Probes::status`] says so.
pub fn available() -> Result<(), String> {
    loads(&[&[kernel::COUNTS_BYTES], &kernel::LOADS[..]].concat())
}

/// Whether programs can be loaded by a process that has these capabilities.
fn loads(needs: &[kernel::Capability]) -> Result<(), String> {
    let absent = env!("WEFT_EBPF_ABSENT");
    if !absent.is_empty() {
        return Err(format!("this program was built without eBPF probes: {absent}"));
    }
    if !std::path::Path::new(kernel::BTF).exists() {
        return Err(format!(
            "this kernel does not describe its types: there is no {}",
            kernel::BTF
        ));
    }
    let missing = kernel::missing(needs);
    if !missing.is_empty() {
        return Err(format!("loading eBPF programs needs {}", missing.join(", ")));
    }
    Ok(())
}
