//! Checks that are commands.
//!
//! A check is a process of the task that it asks about: it runs as the task's user, with no more capabilities than the
//! task may have, on its CPUs, with its environment, its limits and its mount namespace, and in a cgroup of its own
//! below that of the task's unit. So the unit pays for it, its limits of memory, processes and time hold for both
//! together, and whatever a check starts ends with it. Only the unit's filter of system calls does not hold for it.
//!
//! ```text
//!   weft.slice/weft-web-0-1-….service         the task
//!                 └── weft-check              one check at a time; killed as a whole when it is over
//! ```
//!
//! The cgroup is not delegated by systemd, which would give it to the task's user. It holds no controllers and no
//! processes but the agent's, and goes with the unit's: systemd removes what is below.
//!
//! Without cgroups the check's process group is killed, and everything that was started with its mark in the environment.

use fabric::io::Launch;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;

use crate::cgroup;
use crate::executor;
use crate::executor::output::blocking;
use crate::listeners::Holder;
use crate::process::{self, Members, PidFd};

/// Bytes of a failed command's output that go into the reason.
const OUTPUT_BYTES_MAX: u64 = 400;
/// The cgroup of a check, in that of its unit.
const CGROUP: &str = "weft-check";
/// Marks what a check starts, where there are no cgroups.
const MARK: &str = "WEFT_CHECK";
/// Killed processes are gone within this, unless the kernel itself hangs.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Time between two looks whether they are.
const KILL_PERIOD: Duration = Duration::from_millis(5);
/// What a check that is over has printed is there.
const READ_GRACE: Duration = Duration::from_millis(500);

/// Runs a check of a task. Dropping the future ends it, with all that it started.
pub async fn run(launch: &Launch, task: &Holder, words: &[String]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("the check's command is empty")?;
    let gone = || "the task is not running".to_owned();
    // Opened before anything is read of it: whoever has its number later is not it.
    let main = PidFd::open(task.pid).map_err(|_| gone())?;
    let status = process::status(task.pid).filter(|_| task.is_there()).ok_or_else(gone)?;
    let mut place = Place::prepare(task.cgroup.as_deref()).await?;
    let root = nix::unistd::geteuid().is_root();
    let namespace = File::open(format!("/proc/{}/ns/mnt", task.pid)).ok().filter(|_| root);
    let become_task = BecomeTask {
        cgroup: place.procs.take(),
        namespace: namespace.map(OwnedFd::from),
        identity: root.then_some((status.user.0, status.user.1, status.bounding)),
        affinity: (!status.cpus.is_empty()).then(|| process::Mask::of(&status.cpus)),
        limits: process::Limits::of(task.pid),
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(executor::environment(launch))
        .envs(place.mark.iter().map(|mark| (MARK, mark)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: `BecomeTask::run` makes system calls only: no allocation, no lock, no panic.
    unsafe { command.pre_exec(move || become_task.run()) };
    let mut child =
        command.spawn().map_err(|error| format!("{program:?} cannot be executed: {error}"))?;
    place.group = child.id();
    let mut text = Vec::new();
    let status = {
        let reading = read(child.stderr.take(), &mut text);
        tokio::pin!(reading);
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(|error| error.to_string())?,
                () = &mut reading, if !is_read => is_read = true,
                _ = main.ended() => return Err("the task ended meanwhile".into()),
            }
        };
        // Reaped: the number of its group may be given away.
        place.group = None;
        // What it has left behind may still hold the other end of the pipe.
        place.clear().await?;
        if !is_read {
            let _ = tokio::time::timeout(READ_GRACE, reading).await;
        }
        status
    };
    match status.success() {
        true => Ok(()),
        false => Err(failure(status, &text)),
    }
}

fn failure(status: ExitStatus, text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let ended = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => process::ExitStatus::Code(code),
        (None, signal) => process::ExitStatus::Signal(signal.unwrap_or(0)),
    };
    match text.trim() {
        "" => format!("the check ended with {ended}"),
        text => format!("the check ended with {ended}: {text}"),
    }
}

async fn read(stderr: Option<tokio::process::ChildStderr>, text: &mut Vec<u8>) {
    let Some(stderr) = stderr else { return };
    let mut limited = stderr.take(OUTPUT_BYTES_MAX);
    let _ = limited.read_to_end(text).await;
    // The rest is thrown away, or the command would wait for somebody to read it.
    let mut rest = limited.into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

/// Where a check runs. Dropping it kills what is there.
struct Place {
    cgroup: Option<PathBuf>,
    /// The file through which a process enters the cgroup.
    procs: Option<OwnedFd>,
    /// In the environment of all that it starts, where there is no cgroup.
    mark: Option<String>,
    group: Option<u32>,
    is_clear: bool,
}

impl Place {
    /// Makes the cgroup, empties it of what a check before has left (its agent may have died), and opens it.
    async fn prepare(unit: Option<&Path>) -> Result<Self, String> {
        let Some(unit) = unit else {
            static CHECKS: AtomicU64 = AtomicU64::new(0);
            let number = CHECKS.fetch_add(1, Ordering::Relaxed);
            let mark = Some(format!("{}-{number}", std::process::id()));
            return Ok(Self { cgroup: None, procs: None, mark, group: None, is_clear: false });
        };
        let path = unit.join(CGROUP);
        let mut place = Self {
            cgroup: Some(path.clone()),
            procs: None,
            mark: None,
            group: None,
            is_clear: false,
        };
        let made = path.clone();
        let made = blocking(move || match std::fs::create_dir(made) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
        made.await.map_err(|error| format!("the check has no cgroup: {error}"))?;
        place.clear().await?;
        let procs = cgroup::open_procs(&path)
            .map_err(|error| format!("the check has no cgroup: {error}"))?;
        (place.procs, place.is_clear) = (Some(procs), false);
        Ok(place)
    }

    /// Kills all that is there, and waits until it is gone.
    async fn clear(&mut self) -> Result<(), String> {
        self.is_clear = kill_all(self.cgroup.clone(), self.mark.clone()).await;
        self.is_clear
            .then_some(())
            .ok_or_else(|| "what the check has started cannot be killed".into())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_clear {
            return;
        }
        if let Some(group) = self.group {
            let group = nix::unistd::Pid::from_raw(group.cast_signed());
            let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        }
        let (cgroup, mark) = (self.cgroup.take(), self.mark.take());
        // At once, also when the agent ends.
        let _ = kill(cgroup.as_deref(), mark.as_deref());
        // What is found by its mark may have started more meanwhile. The cgroup is another matter: the next check has the
        // same one, and empties it before it begins.
        if let (Ok(runtime), Some(_)) = (tokio::runtime::Handle::try_current(), &mark) {
            runtime.spawn(kill_all(None, mark));
        }
    }
}

/// Kills what a check has started until nothing is there. False: it does not end.
async fn kill_all(cgroup: Option<PathBuf>, mark: Option<String>) -> bool {
    let gone = async {
        loop {
            let (cgroup, mark) = (cgroup.clone(), mark.clone());
            match blocking(move || kill(cgroup.as_deref(), mark.as_deref())).await {
                Ok(true) => return,
                _ => tokio::time::sleep(KILL_PERIOD).await,
            }
        }
    };
    tokio::time::timeout(KILL_GRACE, gone).await.is_ok()
}

/// Kills what a check has started, as far as it is there now. True: nothing was there.
fn kill(cgroup: Option<&Path>, mark: Option<&str>) -> io::Result<bool> {
    if let Some(cgroup) = cgroup {
        let members = Members::Cgroup(cgroup.to_owned());
        let is_clear = members.look()?.is_empty();
        if !is_clear {
            members.signal(Signal::SIGKILL);
        }
        return Ok(is_clear);
    }
    let Some(mark) = mark else { return Ok(true) };
    let marked = process::with_environment(&[format!("{MARK}={mark}")])?;
    for pid in &marked {
        process::send(*pid, Signal::SIGKILL);
    }
    Ok(marked.is_empty())
}

/// What a check's process does before exec to be like the task.
struct BecomeTask {
    cgroup: Option<OwnedFd>,
    namespace: Option<OwnedFd>,
    /// User, group, and the capabilities that the task may ever have.
    identity: Option<(u32, u32, u64)>,
    affinity: Option<process::Mask>,
    limits: process::Limits,
}

impl BecomeTask {
    fn run(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            // SAFETY: one byte of a constant is written to a descriptor of ours. `0` is the writer.
            let done = unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            Errno::result(done)?;
        }
        // Before its own /proc is gone. The agent's score, far below zero, is not for what it starts.
        process::reset_oom_score()?;
        if let Some(namespace) = &self.namespace {
            // SAFETY: no memory is passed; the child of a fork shares its file system with nobody.
            Errno::result(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })?;
        }
        if let Some(affinity) = &self.affinity {
            affinity.apply_affinity(0)?;
        }
        self.limits.apply();
        if let Some((user, group, bounding)) = self.identity {
            process::bound_capabilities(bounding)?;
            // Raw calls: libc's own wrappers would signal threads that the fork left behind.
            // SAFETY: an empty list of groups needs no memory.
            Errno::result(unsafe {
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())
            })?;
            // SAFETY: no memory is passed.
            Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
            // SAFETY: no memory is passed.
            Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
        }
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        Ok(())
    }
}
