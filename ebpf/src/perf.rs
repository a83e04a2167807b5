//! The kernel's software events, on every CPU.

use crate::hooks::Hooks;
use crate::status::Status;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How often an event is sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Every {
    /// Each time that it has happened so often.
    Times(u64),
    /// So many times a second.
    PerSecond(u64),
}

/// Opens a software event (`PERF_COUNT_SW_*`, perf_event_open(2)) on every CPU that is online.
pub(crate) fn on_every_cpu(event: u64, every: Every) -> Result<Vec<OwnedFd>, Status> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    // SAFETY: plain numbers: all zero asks for nothing.
    let mut attributes: libbpf_sys::perf_event_attr = unsafe { mem::zeroed() };
    attributes.type_ = PERF_TYPE_SOFTWARE;
    attributes.size = mem::size_of_val(&attributes) as u32;
    attributes.config = event;
    match every {
        Every::Times(times) => attributes.__bindgen_anon_1.sample_period = times,
        Every::PerSecond(times) => {
            attributes.set_freq(1);
            attributes.__bindgen_anon_1.sample_freq = times;
        }
    }
    let mut events = Vec::new();
    for cpu in 0..crate::kernel::possible_cpus() as libc::c_long {
        // SAFETY: the attributes live through the call, and the kernel only reads them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &attributes,
                -1 as libc::c_long,
                cpu,
                -1 as libc::c_long,
                libbpf_sys::PERF_FLAG_FD_CLOEXEC as libc::c_long,
            )
        };
        match (fd, std::io::Error::last_os_error()) {
            // SAFETY: the call has just given us this descriptor.
            (0.., _) => events.push(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            (_, error) if error.raw_os_error() == Some(libc::ENODEV) => {} // not online
            (_, error) => return Err(Status::Unsupported(format!("perf_event_open: {error}"))),
        }
    }
    Ok(events)
}

/// The clock of `bpf_ktime_get_ns`, by which programs in the kernel know when to end.
pub(crate) fn kernel_now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable, and every kernel has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Has the program run at each sample. The program's link keeps the event.
pub(crate) fn attach(hooks: &mut Hooks, program: &str, event: OwnedFd) -> Result<(), Status> {
    hooks.attach_as(program, |program| program.attach_perf_event(event.as_raw_fd()))
}
