//! What the helper gives up before it does anything: capabilities that its verb does not need, gaining others by any program
//! that it could become, and all system calls but a list.
//!
//! It is one process for one order, so this is for good. A system call that is not on the list fails with EPERM, and what
//! needed it says so.

use fabric::api::{Problem, ProblemKind};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use rustix::thread::{remove_capability_from_bounding_set, set_no_new_privs};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::order::Rights;

/// Keeps these rights and gives up all others.
///
/// # Errors
/// When the kernel does not take them: then nothing is to be done with those that are left.
pub fn to(rights: Rights) -> Result<(), Problem> {
    let failed = |what: &str, error: String| {
        let detail = format!("{what}: {error}");
        Problem::new(ProblemKind::Unavailable, "weft-helper could not give up its rights", detail)
    };
    let given = capabilities(None).map_err(|error| failed("capabilities", error.to_string()))?;
    if given.effective.contains(CapabilitySet::SETPCAP) {
        for one in CapabilitySet::all().difference(rights.capabilities).iter() {
            // Those that this kernel does not know are no loss.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    // Of those that it was given: an agent without them, in a container say, has none to pass on.
    let kept = rights.capabilities.intersection(given.permitted);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(|error| failed("capabilities", error.to_string()))?;
    set_no_new_privs(true).map_err(|error| failed("no new privileges", error.to_string()))?;
    let filter = filter(rights).map_err(|error| failed("system calls", error))?;
    apply_filter(&filter).map_err(|error| failed("system calls", error.to_string()))
}

/// Of every verb: memory, files for reading, its socket, time, and what the C library does by itself.
const CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setsockopt,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older ones that the C library uses where they are.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Of those that load programs into the kernel.
const KERNEL_PROGRAMS: &[libc::c_long] = &[
    libc::SYS_bpf,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ioctl,
    libc::SYS_memfd_create,
    libc::SYS_perf_event_open,
];

fn filter(rights: Rights) -> Result<BpfProgram, String> {
    let more = if rights.kernel_programs { KERNEL_PROGRAMS } else { &[] };
    let calls = [CALLS, OLDER, more].concat();
    // On 32-bit machines they are shorter.
    #[allow(clippy::useless_conversion, reason = "not everywhere")]
    let rules = calls.into_iter().map(|call| (i64::from(call), Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
