//! The kernel's events (perf_event_open(2)), and its software events on every CPU.

use crate::hooks::Hooks;
use crate::status::Status;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

/// How often an event is sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Every {
    /// Each time that it has happened so often.
    Times(u64),
    /// So many times a second.
    PerSecond(u64),
}

/// Whose events count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// Everybody's.
    All,
    /// Those of the threads in a cgroup, whose folder this is, and in all below it.
    Cgroup(BorrowedFd<'a>),
}

/// An event of this kind and number that nothing else is asked of.
pub(crate) fn attributes(kind: u32, number: u64) -> libbpf_sys::perf_event_attr {
    // SAFETY: plain numbers: all zero asks for nothing.
    let mut attributes: libbpf_sys::perf_event_attr = unsafe { mem::zeroed() };
    attributes.type_ = kind;
    attributes.size = mem::size_of_val(&attributes) as u32;
    attributes.config = number;
    attributes
}

/// Opens an event on a CPU, in the group of `leader` if there is one.
pub(crate) fn open(
    attributes: &libbpf_sys::perf_event_attr,
    whose: Whose<'_>,
    cpu: u32,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let (target, flag) = match whose {
        Whose::All => (-1, 0),
        Whose::Cgroup(folder) => (folder.as_raw_fd(), libbpf_sys::PERF_FLAG_PID_CGROUP),
    };
    let leader = leader.map_or(-1, |leader| leader.as_raw_fd());
    let flags = flag | libbpf_sys::PERF_FLAG_FD_CLOEXEC;
    // SAFETY: the attributes live through the call, and the kernel only reads them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes,
            libc::c_long::from(target),
            cpu as libc::c_long,
            libc::c_long::from(leader),
            flags as libc::c_long,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens a software event (`PERF_COUNT_SW_*`) on every CPU that is online.
pub(crate) fn on_every_cpu(event: u64, every: Every) -> Result<Vec<OwnedFd>, Status> {
    let mut attributes = attributes(libbpf_sys::PERF_TYPE_SOFTWARE, event);
    match every {
        Every::Times(times) => attributes.__bindgen_anon_1.sample_period = times,
        Every::PerSecond(times) => {
            attributes.set_freq(1);
            attributes.__bindgen_anon_1.sample_freq = times;
        }
    }
    let mut events = Vec::new();
    for cpu in 0..crate::kernel::possible_cpus() as u32 {
        match open(&attributes, Whose::All, cpu, None) {
            Ok(event) => events.push(event),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {} // not online
            Err(error) => return Err(Status::Unsupported(format!("perf_event_open: {error}"))),
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

/// Has the program run at each sample.
pub(crate) fn attach(hooks: &mut Hooks, program: &str, event: OwnedFd) -> Result<(), Status> {
    hooks.attach_as(program, |program| program.attach_perf_event(event.as_raw_fd()))?;
    // The link closes it. Closed here too, its number would be somebody else's by then.
    let _number = event.into_raw_fd();
    Ok(())
}
