//! What the probes themselves cost, as the kernel measures it.

use crate::hooks::Hooks;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One program of a probe, since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The program: a name of its own within the probe.
    pub program: String,
    /// How often it has run.
    pub runs: u64,
    /// How long that took in all, in nanoseconds, with what measuring adds.
    pub total_ns: u64,
    /// How often it could not run because it was running on the same CPU.
    pub missed: u64,
}

impl Cost {
    /// Nanoseconds an event, `None` before the first.
    pub fn ns_per_event(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.total_ns as f64 / self.runs as f64)
    }
}

/// While this lives, the kernel measures how long programs run. That adds two readings of the clock to every
/// event.
pub(crate) struct Meter {
    _statistics: Option<OwnedFd>,
}

impl Meter {
    /// Why not, otherwise: only CAP_SYS_ADMIN may switch it on, unless the administrator has.
    pub(crate) fn new() -> Result<Self, String> {
        const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
        if std::fs::read_to_string(SWITCH).is_ok_and(|switch| switch.trim() == "1") {
            return Ok(Self { _statistics: None });
        }
        // SAFETY: takes no pointer, and gives a new descriptor or a negative error.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            let error = std::io::Error::from_raw_os_error(-fd);
            return Err(format!(
                "{error}: needs CAP_SYS_ADMIN, or sysctl kernel.bpf_stats_enabled=1"
            ));
        }
        // SAFETY: `fd` is open, and nobody else has it.
        Ok(Self { _statistics: Some(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Of every program of these hooks.
    pub(crate) fn read(&self, hooks: &Hooks) -> Vec<Cost> {
        hooks
            .programs()
            .filter_map(|program| {
                // SAFETY: plain numbers and addresses: all zero is what the kernel wants where nothing is asked.
                let mut info: libbpf_sys::bpf_prog_info = unsafe { mem::zeroed() };
                let mut length = mem::size_of_val(&info) as u32;
                // SAFETY: `info` is writable for `length` bytes, and has no addresses that the kernel would write to.
                let failed = unsafe {
                    libbpf_sys::bpf_prog_get_info_by_fd(
                        program.as_fd().as_raw_fd(),
                        &mut info,
                        &mut length,
                    )
                };
                (failed == 0).then(|| Cost {
                    program: program.name().to_string_lossy().into_owned(),
                    runs: info.run_cnt,
                    total_ns: info.run_time_ns,
                    missed: info.recursion_misses,
                })
            })
            .collect()
    }
}
