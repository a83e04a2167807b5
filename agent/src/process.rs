//! What the kernel says of a process and what can be done to it: affinity, memory policy, pidfds,
//! signals, `/proc`. Every system call of the executors that the standard library lacks is here or
//! in `executor::spawn`.

use fabric::cpuset::CpuSet;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Linux's memory policies, as `linux/mempolicy.h` numbers them.
const MPOL_DEFAULT: libc::c_int = 0;
/// Allocations come from the given nodes, or fail.
pub const MPOL_BIND: libc::c_int = 2;

/// A set of CPUs or memory nodes as the kernel takes it: an array of machine words.
#[derive(Clone, Debug)]
pub struct Mask(Vec<libc::c_ulong>);

impl Mask {
    /// The same set in the kernel's form.
    pub fn of(set: &CpuSet) -> Self {
        let bits = libc::c_ulong::BITS as usize;
        let words = set.iter().last().map_or(1, |last| usize::from(last) / bits + 1);
        let mut mask = vec![0; words];
        for number in set.iter() {
            mask[usize::from(number) / bits] |= 1 << (usize::from(number) % bits);
        }
        Self(mask)
    }

    /// Sets the affinity of thread `tid` (0: the caller). Async-signal-safe.
    pub fn apply_affinity(&self, tid: libc::pid_t) -> Result<(), Errno> {
        // SAFETY: the kernel reads exactly the given number of bytes of our array.
        let done = unsafe {
            libc::sched_setaffinity(tid, size_of_val(self.0.as_slice()), self.0.as_ptr().cast())
        };
        Errno::result(done).map(drop)
    }

    /// Whether the calling thread has exactly this affinity. Async-signal-safe.
    pub fn is_own_affinity(&self) -> bool {
        let mut has = [0 as libc::c_ulong; fabric::limits::CPUS_MAX / libc::c_ulong::BITS as usize];
        // SAFETY: the kernel writes at most the given number of bytes into our array.
        let done =
            unsafe { libc::sched_getaffinity(0, size_of_val(&has), has.as_mut_ptr().cast()) };
        let rest = has.iter().skip(self.0.len());
        done == 0 && has.starts_with(&self.0) && rest.into_iter().all(|&word| word == 0)
    }

    /// Binds the memory of the calling thread, and of what it executes, to these nodes.
    /// Async-signal-safe.
    pub fn bind_memory(&self) -> Result<(), Errno> {
        // The kernel reads one bit less than it is told (a quirk as old as the call).
        let bits = self.0.len() * libc::c_ulong::BITS as usize + 1;
        // SAFETY: the kernel reads at most `bits - 1` bits, all of them in our array.
        let done =
            unsafe { libc::syscall(libc::SYS_set_mempolicy, MPOL_BIND, self.0.as_ptr(), bits) };
        Errno::result(done).map(drop)
    }
}

/// Sets the affinity of one thread.
pub fn set_affinity(tid: i32, cpus: &CpuSet) -> io::Result<()> {
    Ok(Mask::of(cpus).apply_affinity(tid)?)
}

/// The affinity of one thread (0: the caller).
pub fn affinity(tid: i32) -> io::Result<CpuSet> {
    let mut words = vec![0u64; fabric::limits::CPUS_MAX / 64];
    // SAFETY: the kernel writes at most the given number of bytes into our array.
    let done = unsafe {
        libc::sched_getaffinity(tid, size_of_val(words.as_slice()), words.as_mut_ptr().cast())
    };
    Errno::result(done)?;
    let bits = libc::c_ulong::BITS as usize;
    // SAFETY: any bit pattern is a c_ulong, and u64 is at least as large and as aligned.
    let (_, longs, _) = unsafe { words.align_to::<libc::c_ulong>() };
    let set = |number: &usize| longs[number / bits] & (1 << (number % bits)) != 0;
    Ok((0..longs.len() * bits).filter(set).map(|number| number as u16).collect())
}

/// Takes all capabilities but these away for good, also from root and from what it executes.
/// Async-signal-safe. Takes CAP_SETPCAP.
pub fn bound_capabilities(kept: u64) -> Result<(), Errno> {
    for capability in 0..64 {
        if kept & (1 << capability) == 0 {
            match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
                Ok(()) => {}
                // Past the last capability that this kernel knows.
                Err(Errno::EINVAL) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The options of prctl(2) that take numbers only. Async-signal-safe.
pub fn prctl(option: i32, first: u64, second: u64) -> Result<(), Errno> {
    let (first, second) = (first as libc::c_ulong, second as libc::c_ulong);
    // SAFETY: callers use options that take numbers only, so no memory is passed.
    let done =
        unsafe { libc::prctl(option, first, second, 0 as libc::c_ulong, 0 as libc::c_ulong) };
    Errno::result(done).map(drop)
}

/// How many kinds of limits the kernel has: `RLIM_NLIMITS`.
const RESOURCES: usize = 16;

/// Where the numbers begin in a line of `/proc/PID/limits`.
const LIMIT_NAME: usize = 26;

/// Limits of one process: getrlimit(2).
#[derive(Clone, Copy, Debug)]
pub struct Limits([Option<libc::rlimit>; RESOURCES]);

impl Limits {
    /// What the kernel holds a process to. Read from `/proc`, because prlimit(2) wants CAP_SYS_RESOURCE even to look.
    pub fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let number = |word: &str| match word {
            "unlimited" => Some(libc::RLIM_INFINITY),
            word => word.parse().ok(),
        };
        let mut limits = [None; RESOURCES];
        // After a line of headings, in the order of their numbers.
        for (limit, line) in limits.iter_mut().zip(text.lines().skip(1)) {
            let mut words = line.get(LIMIT_NAME..).unwrap_or_default().split_ascii_whitespace();
            let mut next = || number(words.next()?);
            *limit =
                next().zip(next()).map(|(rlim_cur, rlim_max)| libc::rlimit { rlim_cur, rlim_max });
        }
        Self(limits)
    }

    /// Holds the caller to the same. What it may not raise stays lower. Async-signal-safe.
    pub fn apply(&self) {
        for (resource, limit) in self.0.iter().enumerate() {
            if let Some(limit) = limit {
                // SAFETY: the kernel reads the structure.
                unsafe { libc::setrlimit(resource as _, limit) };
            }
        }
    }
}

/// Gives the calling process the OOM score of ordinary work: it has inherited that of the agent, which the kernel is to
/// kill last. Async-signal-safe.
pub fn reset_oom_score() -> Result<(), Errno> {
    // SAFETY: the path is a C string; the result is a descriptor of ours or an error.
    let file = Errno::result(unsafe {
        libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC)
    })?;
    // SAFETY: one byte of a constant is written to a descriptor of ours.
    let done = Errno::result(unsafe { libc::write(file, c"0".as_ptr().cast(), 1) });
    // SAFETY: the descriptor is ours, and used no more.
    unsafe { libc::close(file) };
    match done {
        // It is above 0, and may not be lowered: then it is killed early, which protects everything else.
        Err(Errno::EACCES) => Ok(()),
        done => done.map(drop),
    }
}

/// Whether affinity can be set here at all: sets the caller's own to what it is.
pub fn affinity_works() -> bool {
    affinity(0).is_ok_and(|own| set_affinity(0, &own).is_ok())
}

/// Whether memory policies can be set here: asks for the default one, which the agent has.
pub fn memory_policy_works() -> bool {
    // SAFETY: the default policy takes no mask.
    let done = unsafe {
        libc::syscall(libc::SYS_set_mempolicy, MPOL_DEFAULT, std::ptr::null::<libc::c_ulong>(), 0)
    };
    done == 0
}

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Debug)]
pub struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// Opens `pid`, which must not be reaped in between (a child of ours), or must be looked at
    /// again afterwards ([`start_time`]).
    pub fn open(pid: u32) -> io::Result<Self> {
        let fd = open_pidfd(pid)?;
        // SAFETY: the descriptor is owned by what is returned, and closed only with it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?;
        Ok(Self(fd))
    }

    /// Waits until the process has ended. Does not reap it.
    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Kills it.
    pub fn kill(&self) {
        let (signal, nothing) = (Signal::SIGKILL as i32, std::ptr::null::<libc::siginfo_t>());
        // SAFETY: no memory is passed; the descriptor is ours.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, nothing, 0)
        };
    }

    /// Takes the exit status, once [`PidFd::ended`] has returned. `None`: it was not a child of
    /// ours, and this kernel (before 6.15) tells only parents.
    pub fn reap(&self) -> Option<ExitStatus> {
        let fd = self.0.as_raw_fd();
        // SAFETY: all-zero is a valid siginfo_t, and the kernel fills it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` lives through the call.
        let done =
            unsafe { libc::waitid(libc::P_PIDFD, fd as libc::id_t, &mut info, libc::WEXITED) };
        if done != 0 {
            return self.exit_of_stranger();
        }
        // SAFETY: waitid succeeded, so this is about a child and the field is set.
        let status = unsafe { info.si_status() };
        Some(match info.si_code {
            libc::CLD_EXITED => ExitStatus::Code(status),
            _ => ExitStatus::Signal(status),
        })
    }

    /// `PIDFD_GET_INFO` of `linux/pidfd.h`, first version.
    fn exit_of_stranger(&self) -> Option<ExitStatus> {
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            mask: u64,
            cgroup: u64,
            numbers: [u32; 11],
            exit_code: i32,
        }
        const EXIT: u64 = 1 << 3;
        const { assert!(size_of::<Info>() == 64) };
        // _IOWR(0xff, 11, 64 bytes)
        const GET_INFO: libc::Ioctl = (3 << 30 | 64 << 16 | 0xff << 8 | 11) as libc::Ioctl;
        let mut info = Info { mask: EXIT, ..Info::default() };
        // SAFETY: the request's number carries the size of the structure that the kernel fills.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO, &mut info) };
        if done != 0 || info.mask & EXIT == 0 {
            return None;
        }
        Some(if libc::WIFEXITED(info.exit_code) {
            ExitStatus::Code(libc::WEXITSTATUS(info.exit_code))
        } else {
            ExitStatus::Signal(libc::WTERMSIG(info.exit_code))
        })
    }
}

/// A descriptor of the process that has this number now.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is a fresh descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just gave us this descriptor, close-on-exec, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Exit status 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            ExitStatus::Code(code) => write!(f, "exit status {code}"),
            ExitStatus::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "killed by {}", signal.as_str()),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// When a process started, in clock ticks after boot: with the number and the boot, names it for
/// good. `None` when there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    started(pid).ok().flatten()
}

/// The same, told from what the kernel did not say.
pub fn started(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat_field(pid, 22)?.and_then(|field| field.parse().ok()))
}

/// Field `number` (counted from 1, as proc(5) does; 3 or later) of `/proc/PID/stat`; `None`: there is no such process.
fn stat_field(pid: u32, number: usize) -> io::Result<Option<String>> {
    let Some(stat) = if_there(std::fs::read_to_string(format!("/proc/{pid}/stat")))? else {
        return Ok(None);
    };
    // The name, field 2, stands in brackets and may hold anything.
    let rest = stat.rfind(')').map(|end| &stat[end + 1..]);
    let field = rest.and_then(|rest| rest.split_ascii_whitespace().nth(number - 3));
    Ok(field.map(str::to_owned))
}

/// `None`: what was asked for is gone. Any other failure says nothing about it: the agent may be out of descriptors.
fn if_there<T>(asked: io::Result<T>) -> io::Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error() {
            // The last one is the kernel's for a cgroup of threads, whose processes are listed above it.
            Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether `pid` has ended and only waits to be reaped.
pub fn is_zombie(pid: u32) -> bool {
    let state = stat_field(pid, 3).ok().flatten();
    state.is_some_and(|state| state == "Z" || state == "X")
}

/// Names this boot of the machine.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// What a process may use and who it is, from `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `Cpus_allowed_list`.
    pub cpus: CpuSet,
    /// `Mems_allowed_list`: what its cpuset allows; a memory policy does not show here.
    pub mems: CpuSet,
    /// Effective user and group.
    pub user: (u32, u32),
    /// Capabilities that it may ever have, one bit each.
    pub bounding: u64,
}

/// Reads `/proc/PID/status`; `None` when the process is gone.
pub fn status(pid: u32) -> Option<Status> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut status = Status::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let effective = || value.split_ascii_whitespace().nth(1)?.parse().ok();
        match key {
            "Cpus_allowed_list" => status.cpus = value.parse().ok()?,
            "Mems_allowed_list" => status.mems = value.parse().ok()?,
            "Uid" => status.user.0 = effective()?,
            "Gid" => status.user.1 = effective()?,
            "CapBnd" => status.bounding = u64::from_str_radix(value.trim(), 16).ok()?,
            _ => {}
        }
    }
    Some(status)
}

/// Memory nodes that a process really gets memory from: its cpuset's, narrowed by its policy when
/// that binds. `/proc/PID/numa_maps` shows the policy of each mapping; the first one has the
/// process's own.
pub fn memory_nodes(pid: u32, allowed: &CpuSet) -> CpuSet {
    use std::io::BufRead;
    let policy = std::fs::File::open(format!("/proc/{pid}/numa_maps")).ok().and_then(|file| {
        let mut line = String::new();
        io::BufReader::new(file).read_line(&mut line).ok()?;
        let policy = line.split_ascii_whitespace().nth(1)?;
        let (name, nodes) = policy.split_once(':')?;
        name.starts_with("bind").then(|| nodes.parse::<CpuSet>().ok())?
    });
    policy.map_or_else(|| allowed.clone(), |nodes| nodes.intersection(allowed))
}

/// Memory nodes that this machine has online. One, when the kernel knows nothing of NUMA.
pub fn online_nodes() -> CpuSet {
    let text = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    let nodes: CpuSet = text.parse().unwrap_or_default();
    if nodes.is_empty() { CpuSet::from_iter([0]) } else { nodes }
}

/// All processes of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Those in a cgroup and below it: nothing escapes.
    Cgroup(PathBuf),
    /// Those in the session that the main process leads. A process that starts a session of its
    /// own escapes; only a cgroup prevents that.
    Session {
        /// The main process: the session's number.
        leader: u32,
        /// Its [`start_time`].
        started: u64,
    },
}

impl Members {
    /// Their numbers now, zombies left out, as far as the kernel tells them.
    pub fn pids(&self) -> Vec<u32> {
        self.look().unwrap_or_default()
    }

    /// Their numbers now, zombies left out. An error does not mean that there are none.
    pub fn look(&self) -> io::Result<Vec<u32>> {
        match self {
            Members::Cgroup(path) => {
                let mut pids = Vec::new();
                collect_cgroup(path, &mut pids)?;
                pids.retain(|&pid| !is_zombie(pid));
                Ok(pids)
            }
            Members::Session { leader, started: since } => {
                // The number is not given away while anybody is in the session; when its owner is
                // another process by now, the session is over.
                if started(*leader)?.is_some_and(|now| now != *since) {
                    return Ok(Vec::new());
                }
                let session = leader.to_string();
                let mut pids = Vec::new();
                for pid in all_pids()? {
                    let is_in = stat_field(pid, 6)?.is_some_and(|field| field == session);
                    if is_in && !is_zombie(pid) {
                        pids.push(pid);
                    }
                }
                Ok(pids)
            }
        }
    }

    /// Sends a signal to every process. Ones that are gone do not matter.
    pub fn signal(&self, signal: Signal) {
        if signal == Signal::SIGKILL
            && let Members::Cgroup(path) = self
            && std::fs::write(path.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.pids() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
        }
    }

    /// Moves every thread of every process to `cpus`. Threads may start meanwhile, with the
    /// affinity of the thread that starts them: goes round until a round finds nothing to do.
    pub fn confine(&self, cpus: &CpuSet) -> io::Result<()> {
        const ROUNDS_MAX: u32 = 64;
        let mask = Mask::of(cpus);
        let mut moved = std::collections::BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let before = moved.len();
            for pid in self.pids() {
                let threads = numbers_in(Path::new(&format!("/proc/{pid}/task")))?;
                for tid in threads {
                    if affinity(tid as i32).is_ok_and(|has| has != *cpus) {
                        match mask.apply_affinity(tid as i32) {
                            Ok(()) => drop(moved.insert(tid)),
                            Err(Errno::ESRCH) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
            if moved.len() == before {
                return Ok(());
            }
        }
        Err(io::Error::other("it starts threads faster than they can be moved"))
    }
}

fn collect_cgroup(path: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    let text = if_there(std::fs::read_to_string(path.join("cgroup.procs")))?.unwrap_or_default();
    // 0 stands for a process outside our PID namespace.
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|&pid| pid != 0));
    for entry in if_there(std::fs::read_dir(path))?.into_iter().flatten() {
        let Some(entry) = if_there(entry)? else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_cgroup(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Every process of this machine that we can see.
pub fn all_pids() -> io::Result<Vec<u32>> {
    numbers_in(Path::new("/proc"))
}

/// Empty for a folder that is gone.
fn numbers_in(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in if_there(std::fs::read_dir(folder))?.into_iter().flatten() {
        let Some(entry) = if_there(entry)? else { continue };
        numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// The process that was started with `WEFT_UNIT=unit` and `WEFT_RUN=run` and leads its session:
/// how a unit is found whose start the agent did not live to write down.
pub fn find_by_environment(unit: &str, run: u32) -> io::Result<Option<u32>> {
    let marks = [format!("WEFT_UNIT={unit}"), format!("WEFT_RUN={run}")];
    for pid in with_environment(&marks)? {
        if stat_field(pid, 6)?.is_some_and(|session| session == pid.to_string()) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Sends a signal to one process. That it is gone is no error.
pub fn send(pid: u32, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    if let Err(error) = nix::sys::signal::kill(pid, signal)
        && error != Errno::ESRCH
    {
        tracing::warn!(%pid, %error, "a process takes no {signal}");
    }
}

/// Processes of units that this agent's state started, by its mark, and that are none of the `known` units and runs: their
/// numbers and units. Those in another PID namespace are another agent's.
pub fn strays(agent: &str, known: &BTreeSet<(String, u32)>) -> io::Result<Vec<(u32, String)>> {
    let own = std::fs::read_link("/proc/self/ns/pid")?;
    let mut strays = Vec::new();
    for pid in with_environment(&[format!("WEFT_AGENT={agent}")])? {
        let Some(environment) = if_there(std::fs::read(format!("/proc/{pid}/environ")))? else {
            continue;
        };
        let variable = |name: &str| {
            let mut all = environment.split(|&byte| byte == 0);
            let value = all.find_map(|it| it.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
            String::from_utf8(value.to_vec()).ok()
        };
        let (Some(unit), Some(run)) = (variable("WEFT_UNIT"), variable("WEFT_RUN")) else {
            continue;
        };
        let is_known = run.parse().is_ok_and(|run| known.contains(&(unit.clone(), run)));
        let is_here =
            if_there(std::fs::read_link(format!("/proc/{pid}/ns/pid")))? == Some(own.clone());
        if is_here && !is_known && pid != std::process::id() {
            strays.push((pid, unit));
        }
    }
    Ok(strays)
}

/// Processes that were started with all of these variables (`NAME=value`), zombies left out.
pub fn with_environment(variables: &[String]) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for pid in all_pids()? {
        // Empty for a zombie and for the kernel's own; not for us to read for another user's, unless we are root.
        let environment = match std::fs::read(format!("/proc/{pid}/environ")) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            read => if_there(read)?.unwrap_or_default(),
        };
        let has = |wanted: &String| {
            environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        if !variables.is_empty() && variables.iter().all(has) {
            found.push(pid);
        }
    }
    Ok(found)
}
