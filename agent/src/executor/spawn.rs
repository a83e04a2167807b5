//! Starts one process for the `direct` executor: fork, then a short list of system calls in the
//! child, then exec. Everything is computed before the fork; the child allocates nothing.
//!
//! Order in the child, each step needing the privileges that later ones give up: session, cgroup,
//! OOM score, mounts, limits, affinity and memory policy, capabilities, user, directory, no-new-privileges. Last
//! of all it looks whether its lease, if it has one, still runs.

use fabric::io::Launch;
use nix::errno::Errno;
use nix::libc;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clock::BootTime;
use crate::guard;
use crate::process::{Mask, bound_capabilities, prctl, reset_oom_score};

/// Whom a task runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Name and home directory, where the user has them.
    pub name: Option<(String, PathBuf)>,
}

impl Identity {
    /// Looks up a user by name or number.
    pub fn of(user: &str) -> Result<Self, String> {
        let found = match user.parse::<u32>() {
            Ok(number) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(number)),
            Err(_) => nix::unistd::User::from_name(user),
        };
        let found = found.map_err(|error| format!("user {user:?} cannot be looked up: {error}"))?;
        match (found, user.parse::<u32>()) {
            (Some(found), _) => {
                let name = CString::new(found.name.clone()).map_err(|error| error.to_string())?;
                let groups = nix::unistd::getgrouplist(&name, found.gid).unwrap_or_default();
                Ok(Self {
                    user: found.uid.as_raw(),
                    group: found.gid.as_raw(),
                    groups: groups.into_iter().map(|group| group.as_raw()).collect(),
                    name: Some((found.name, found.dir)),
                })
            }
            (None, Ok(number)) => {
                Ok(Self { user: number, group: number, groups: Vec::new(), name: None })
            }
            (None, Err(_)) => Err(format!("there is no user {user:?} on this node")),
        }
    }
}

/// A process to start.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What to run, and its limits.
    pub launch: &'a Launch,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Whom to become; `None`: stay who the agent is.
    pub identity: Option<Identity>,
    /// The cgroup to enter.
    pub cgroup: Option<PathBuf>,
    /// The end of its lease: it is not executed later than that.
    pub until: Option<BootTime>,
    /// Files to mount read-only: where they are, and a file without links on its way over which each goes.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Where standard output goes.
    pub stdout: File,
    /// Where standard error goes.
    pub stderr: File,
}

/// What the child does before exec; the number goes to the parent when it fails.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Step {
    Session,
    Cgroup,
    OomScore,
    Mounts,
    Limits,
    Affinity,
    Memory,
    Capabilities,
    User,
    Directory,
    Privileges,
    Lease,
}

const STEPS: [(Step, &str); 12] = [
    (Step::Session, "start a session"),
    (Step::Cgroup, "enter its cgroup"),
    (Step::OomScore, "set its OOM score"),
    (Step::Mounts, "mount its files"),
    (Step::Limits, "set its limits"),
    (Step::Affinity, "pin it to its CPUs"),
    (Step::Memory, "bind it to its memory nodes"),
    (Step::Capabilities, "drop capabilities"),
    (Step::User, "become its user"),
    (Step::Directory, "enter its working directory"),
    (Step::Privileges, "give up new privileges"),
    (Step::Lease, "be started before the end of its lease"),
];

/// Starts the process and returns its number. The caller reaps it. Blocks until exec.
pub fn spawn(plan: Plan<'_>) -> Result<u32, String> {
    let task = &plan.launch.task;
    let (program, arguments) = task.command.split_first().ok_or("the command is empty")?;
    let (report_read, report_write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| error.to_string())?;
    let child = Child::prepare(&plan, report_write.as_raw_fd())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&plan.environment)
        .stdin(Stdio::null())
        .stdout(plan.stdout)
        .stderr(plan.stderr);
    // SAFETY: `Child::run` makes system calls only: no allocation, no lock, no panic.
    unsafe { command.pre_exec(move || child.run()) };
    let spawned = command.spawn();
    drop(command);
    drop(report_write);
    match spawned {
        // Dropping the handle neither kills nor reaps.
        Ok(process) => Ok(process.id()),
        Err(error) => {
            let mut report = [0u8; 1];
            let step = File::from(report_read).read(&mut report).unwrap_or(0);
            let failed = STEPS.iter().find(|(at, _)| step == 1 && *at as u8 == report[0]);
            Err(match failed {
                Some((_, what)) => format!("could not {what}: {error}"),
                None => format!("{program:?} could not be executed: {error}"),
            })
        }
    }
}

/// Everything that the child needs, in the kernel's form.
struct Child {
    report: i32,
    cgroup: Option<OwnedFd>,
    /// What to mount, and the parts of the path of what it is mounted over.
    mounts: Vec<(CString, Vec<CString>)>,
    affinity: Option<Mask>,
    memory: Option<(Mask, bool)>,
    /// Bits of capabilities to keep, and whether the others go.
    capabilities: u64,
    confined: bool,
    identity: Option<Identity>,
    directory: CString,
    no_new_privileges: bool,
    until: Option<BootTime>,
}

impl Child {
    fn prepare(plan: &Plan<'_>, report: i32) -> Result<Self, String> {
        let task = &plan.launch.task;
        let root = nix::unistd::geteuid().is_root();
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_bytes())
                .map_err(|_| format!("{} holds a zero byte", path.display()))
        };
        let cgroup = plan.cgroup.as_ref().map(|path| {
            let procs = path.join("cgroup.procs");
            let file = File::options().write(true).open(&procs);
            file.map(OwnedFd::from).map_err(|error| format!("{}: {error}", procs.display()))
        });
        let parts = |path: &Path| {
            let parts = path.components().filter(|part| *part != Component::RootDir);
            parts.map(|part| text(Path::new(part.as_os_str()))).collect::<Result<_, _>>()
        };
        let mounts = plan.files.iter().map(|(from, to)| Ok((text(from)?, parts(to)?)));
        let claim = &plan.launch.claim;
        let online = crate::process::online_nodes();
        let memory = (!claim.mems.is_empty())
            .then(|| (Mask::of(&claim.mems), claim.mems.contains_all(&online)));
        let directory = task.working_dir.as_deref().unwrap_or("/");
        Ok(Self {
            report,
            cgroup: cgroup.transpose()?,
            mounts: mounts.collect::<Result<_, String>>()?,
            affinity: (!plan.launch.cpus.is_empty()).then(|| Mask::of(&plan.launch.cpus)),
            memory,
            capabilities: super::sandbox::capability_bits(&task.sandbox.capabilities)?,
            confined: task.sandbox.enabled && root,
            identity: plan.identity.clone(),
            directory: text(Path::new(directory))?,
            no_new_privileges: task.sandbox.enabled && !task.sandbox.new_privileges,
            until: plan.until,
        })
    }

    fn run(&self) -> io::Result<()> {
        self.step(Step::Session, || {
            // SAFETY: no memory is passed.
            Errno::result(unsafe { libc::setsid() }).map(drop)
        })?;
        if let Some(cgroup) = &self.cgroup {
            self.step(Step::Cgroup, || {
                // SAFETY: one byte of a constant is written to a descriptor of ours. `0` is the writer.
                let done = unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) };
                Errno::result(done).map(drop)
            })?;
        }
        self.step(Step::OomScore, reset_oom_score)?;
        if !self.mounts.is_empty() {
            self.step(Step::Mounts, || self.mount())?;
        }
        self.step(Step::Limits, limits)?;
        if let Some(mask) = &self.affinity {
            self.step(Step::Affinity, || match mask.apply_affinity(0) {
                // The kernel drops CPUs that are offline or outside our cpuset, without a word.
                Ok(()) if !mask.is_own_affinity() => Err(Errno::EINVAL),
                done => done,
            })?;
        }
        if let Some((mask, all)) = &self.memory {
            self.step(Step::Memory, || match mask.bind_memory() {
                // A kernel without NUMA has one memory node: what is bound to it is where it should be.
                Err(Errno::ENOSYS) if *all => Ok(()),
                done => done,
            })?;
        }
        if self.confined {
            self.step(Step::Capabilities, || bound_capabilities(self.capabilities))?;
        }
        if let Some(identity) = &self.identity {
            self.step(Step::User, || self.become_user(identity))?;
        }
        self.step(Step::Directory, || {
            // SAFETY: the path is a C string that lives in `self`.
            Errno::result(unsafe { libc::chdir(self.directory.as_ptr()) }).map(drop)
        })?;
        if self.no_new_privileges {
            self.step(Step::Privileges, || prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0))?;
        }
        if let Some(until) = self.until {
            // Last, and inside the cgroup: from here on the guard sees it.
            self.step(Step::Lease, || {
                if guard::is_before(until) { Ok(()) } else { Err(Errno::ETIME) }
            })?;
        }
        // SAFETY: no memory is passed.
        unsafe { libc::umask(0o022) };
        Ok(())
    }

    fn step(&self, step: Step, act: impl FnOnce() -> Result<(), Errno>) -> io::Result<()> {
        act().map_err(|error| {
            let report = [step as u8];
            // SAFETY: one byte of a live array is written to a pipe of ours.
            unsafe { libc::write(self.report, report.as_ptr().cast(), 1) };
            error.into()
        })
    }

    fn mount(&self) -> Result<(), Errno> {
        // SAFETY: no memory is passed.
        Errno::result(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let null = std::ptr::null();
        // SAFETY: all pointers are null or C strings that live through the call.
        Errno::result(unsafe {
            libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_SLAVE, null.cast())
        })?;
        for (from, to) in &self.mounts {
            // Opened, not named: a folder on the way may belong to a task, which may put a link in its place.
            let point = OpenPlace::open(to)?;
            // SAFETY: as above; the strings live in `self` and on the stack.
            Errno::result(unsafe {
                libc::mount(from.as_ptr(), point.name().as_ptr(), null, libc::MS_BIND, null.cast())
            })?;
            // What it is now: what was just mounted.
            let file = OpenPlace::open(to)?;
            let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            // SAFETY: as above.
            Errno::result(unsafe {
                libc::mount(null, file.name().as_ptr(), null, read_only, null.cast())
            })?;
        }
        Ok(())
    }

    fn become_user(&self, identity: &Identity) -> Result<(), Errno> {
        if self.capabilities != 0 {
            prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
        }
        // Raw calls: libc's own wrappers would signal threads that the fork left behind.
        // SAFETY: the array lives in `identity`, and its length is passed with it.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr())
        };
        Errno::result(done)?;
        let (user, group) = (identity.user, identity.group);
        // SAFETY: no memory is passed.
        Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
        // SAFETY: no memory is passed.
        Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
        if self.capabilities != 0 && user != 0 {
            self.keep_capabilities()?;
        }
        Ok(())
    }

    /// Makes the kept capabilities ambient, so that they outlive exec without root: capabilities(7).
    fn keep_capabilities(&self) -> Result<(), Errno> {
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0];
        let (low, high) = (self.capabilities as u32, (self.capabilities >> 32) as u32);
        // Effective, permitted, inheritable: first of the lower, then of the higher 32.
        let data = [low, low, low, high, high, high];
        // SAFETY: both arrays have the layout that version 3 of the call reads.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
        Errno::result(done)?;
        for capability in 0..64 {
            if self.capabilities & (1 << capability) != 0 {
                prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability)?;
            }
        }
        Ok(())
    }
}

/// What services get everywhere: no core dumps, and the number of files that `select` can take,
/// which a program may raise.
fn limits() -> Result<(), Errno> {
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut files) })?;
    files.rlim_cur = files.rlim_max.min(1024);
    // SAFETY: the kernel reads the structure.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) })?;
    let mut core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &mut core) })?;
    core.rlim_cur = 0;
    // SAFETY: the kernel reads the structure.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &core) }).map(drop)
}

/// A file that was opened between fork and exec, part by part of a path without links. Allocates nothing.
struct OpenPlace {
    file: libc::c_int,
    /// `/proc/self/fd/` and its number, ended by a zero.
    name: [u8; 32],
}

impl OpenPlace {
    fn open(parts: &[CString]) -> Result<Self, Errno> {
        // A link is opened itself: then there is nothing below it.
        let look = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the path is a C string; the result is a descriptor of ours or an error.
        let mut file = Errno::result(unsafe { libc::open(c"/".as_ptr(), look) })?;
        for part in parts {
            // SAFETY: as above.
            let next = Errno::result(unsafe { libc::openat(file, part.as_ptr(), look) });
            // SAFETY: the descriptor is ours, and used no more.
            unsafe { libc::close(file) };
            file = next?;
        }
        let mut name = [0; 32];
        let folder = b"/proc/self/fd/";
        name[..folder.len()].copy_from_slice(folder);
        let digits = file.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut rest = file;
        for at in (folder.len()..folder.len() + digits).rev() {
            name[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Ok(Self { file, name })
    }

    fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.name).unwrap_or_default()
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours, and used no more.
        unsafe { libc::close(self.file) };
    }
}

/// A descriptor for a fresh file or one that grows: writers append, so that cutting it is safe.
pub fn open_append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().append(true).create(true).mode(0o600).open(path)
}
