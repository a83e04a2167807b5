//! Asks running allocations whether they work: http, tcp, or a command.
//!
//! Each checked run has a task of the runtime. It asks soon after the start and, until the first
//! success, more often than the interval, so that a deployment does not wait for an interval that
//! it need not; failures are still reported once an interval, since the core counts them. Runs are
//! spread over their interval by their names, and only [`AT_ONCE_MAX`] ask at a time.
//!
//! A command is a child of the agent under either executor. It runs as the task's user, with no more
//! capabilities than the task may have, on its CPUs, with its environment and in its mount namespace (its files, its `/tmp`), but outside its
//! cgroup and without its filter of system calls: a check that hangs or eats memory must not end the
//! task it asks about. Nor must it end the agent: where memory runs out, it goes before that.

use bytes::Bytes;
use fabric::id::AllocId;
use fabric::io::Launch;
use fabric::job::{Check, Health};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use nix::libc;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::executor::{self, process};

#[cfg(test)]
mod tests;

/// Checks that ask at the same time; others wait for their turn.
pub const AT_ONCE_MAX: usize = 32;
/// The first question comes this long after the start at most; spread by name.
const FIRST_MAX: Duration = Duration::from_millis(100);
/// Wait between the first two questions of a run that has not succeeded yet; doubles until it is
/// the interval.
const EAGER_MIN: Duration = Duration::from_millis(100);
/// Bytes of a failed command's output that go into the reason.
const OUTPUT_BYTES_MAX: u64 = 400;

/// Where outcomes go.
pub type Outcomes = mpsc::Sender<(AllocId, u32, Result<(), String>)>;

/// Checks allocations, each at its interval, until told to stop. Dropping it stops all.
#[derive(Debug)]
pub struct Checker {
    outcomes: Outcomes,
    turns: Arc<Semaphore>,
    running: BTreeMap<AllocId, Checked>,
}

#[derive(Debug)]
struct Checked {
    run: u32,
    pid: u32,
    task: JoinHandle<()>,
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    /// A checker that checks nothing yet.
    pub fn new(outcomes: Outcomes) -> Self {
        Self { outcomes, turns: Arc::new(Semaphore::new(AT_ONCE_MAX)), running: BTreeMap::new() }
    }

    /// Checks a run from now on, in place of any other run of the same allocation. `pid` is its main
    /// process: commands become its user and enter its mount namespace. Does nothing when the
    /// launch has no check, or this very run is checked already.
    pub fn start(&mut self, launch: &Launch, pid: u32) {
        let Some(health) = launch.health.clone() else { return };
        let known = self.running.get(&launch.alloc);
        if known.is_some_and(|known| known.run == launch.run && known.pid == pid) {
            return;
        }
        let asker = Asker { launch: launch.clone(), pid };
        let task =
            tokio::spawn(check(asker, health, self.outcomes.clone(), Arc::clone(&self.turns)));
        self.running.insert(launch.alloc.clone(), Checked { run: launch.run, pid, task });
    }

    /// No longer checks a run. A later run of the same allocation goes on.
    pub fn stop(&mut self, alloc: &AllocId, run: u32) {
        if self.running.get(alloc).is_some_and(|checked| checked.run <= run) {
            self.running.remove(alloc);
        }
    }
}

async fn check(asker: Asker, health: Health, outcomes: Outcomes, turns: Arc<Semaphore>) {
    let Launch { alloc, run, .. } = &asker.launch;
    let name = executor::hash(alloc.unit().as_bytes());
    // A fraction of one, the same in every run of this allocation.
    let fraction = (name % 1024) as f64 / 1024.0;
    tokio::time::sleep(FIRST_MAX.mul_f64(fraction)).await;
    let mut pause = EAGER_MIN.min(health.interval);
    let mut succeeded = false;
    let mut reported = tokio::time::Instant::now();
    loop {
        let outcome = {
            // Closed only when the checker is gone.
            let Ok(_turn) = turns.acquire().await else { return };
            asker.ask(&health).await
        };
        let eager = !succeeded && outcome.is_err() && pause < health.interval;
        let due = reported.elapsed() >= health.interval || !eager;
        if succeeded || outcome.is_ok() || due {
            let first_success = !succeeded && outcome.is_ok();
            succeeded |= outcome.is_ok();
            reported = tokio::time::Instant::now();
            if outcomes.send((alloc.clone(), *run, outcome)).await.is_err() {
                return;
            }
            if first_success {
                // From here on spread over the interval.
                tokio::time::sleep(health.interval.mul_f64(0.5 + fraction / 2.0)).await;
                continue;
            }
        }
        let wait = if eager { pause } else { health.interval };
        pause = (pause * 2).min(health.interval);
        tokio::time::sleep(wait).await;
    }
}

/// One run and how to reach it.
struct Asker {
    launch: Launch,
    pid: u32,
}

impl Asker {
    async fn ask(&self, health: &Health) -> Result<(), String> {
        let asked = async {
            match &health.check {
                Check::Http { path, port } => self.http(path, port).await,
                Check::Tcp { port } => self.connect(port).await.map(drop),
                Check::Command { command } => self.command(command).await,
            }
        };
        match tokio::time::timeout(health.timeout, asked).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let limit = fabric::job::duration::display(health.timeout);
                Err(format!("no answer within {limit}"))
            }
        }
    }

    /// Connects to a port of the run on this machine, whichever family it listens on.
    async fn connect(&self, port: &str) -> Result<TcpStream, String> {
        let number = *self
            .launch
            .claim
            .ports
            .get(port)
            .ok_or_else(|| format!("the allocation has no port {port:?}"))?;
        match TcpStream::connect((IpAddr::from(Ipv4Addr::LOCALHOST), number)).await {
            Ok(stream) => Ok(stream),
            Err(error) => TcpStream::connect((IpAddr::from(Ipv6Addr::LOCALHOST), number))
                .await
                .map_err(|_| format!("port {number} ({port}): {error}")),
        }
    }

    async fn http(&self, path: &str, port: &str) -> Result<(), String> {
        let stream = self.connect(port).await?;
        let host = stream.peer_addr().map_err(|error| error.to_string())?.to_string();
        let said = |error: hyper::Error| format!("GET {path} on {host}: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, &host)
            .header(hyper::header::USER_AGENT, "weft-health")
            .header(hyper::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("GET {path}: {error}"))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(said)?;
            let status = response.status();
            // The body is not read: the connection ends here.
            match status.is_success() || status.is_redirection() {
                true => Ok(()),
                false => Err(format!("GET {path} answers {status}")),
            }
        };
        // Driven side by side; whichever way the connection ends, the answer counts.
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(said(error)),
            },
        }
    }

    async fn command(&self, words: &[String]) -> Result<(), String> {
        let (program, arguments) = words.split_first().ok_or("the check's command is empty")?;
        let status = process::status(self.pid).ok_or("the task is not running")?;
        let root = nix::unistd::geteuid().is_root();
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.pid)).ok().filter(|_| root);
        let become_task = BecomeTask {
            namespace: namespace.map(OwnedFd::from),
            identity: root.then_some((status.user.0, status.user.1, status.bounding)),
            affinity: (!status.cpus.is_empty()).then(|| process::Mask::of(&status.cpus)),
        };
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(executor::environment(&self.launch))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: `BecomeTask::run` makes system calls only: no allocation, no lock, no panic.
        unsafe { command.pre_exec(move || become_task.run()) };
        let mut child =
            command.spawn().map_err(|error| format!("{program:?} cannot be executed: {error}"))?;
        // Ends the whole group when the timeout drops this future.
        let group = Group(child.id());
        let mut text = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let mut limited = stderr.take(OUTPUT_BYTES_MAX);
            let _ = limited.read_to_end(&mut text).await;
            // The rest is thrown away, or the command would wait for somebody to read it.
            let mut rest = limited.into_inner();
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        drop(group);
        if status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&text);
        let ended = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
            (Some(code), _) => process::ExitStatus::Code(code),
            (None, signal) => process::ExitStatus::Signal(signal.unwrap_or(0)),
        };
        Err(match text.trim() {
            "" => format!("the check ended with {ended}"),
            text => format!("the check ended with {ended}: {text}"),
        })
    }
}

/// Kills a process group when it is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let group = nix::unistd::Pid::from_raw(group as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// What a check's process does before exec to be like the task.
struct BecomeTask {
    namespace: Option<OwnedFd>,
    /// User, group, and the capabilities that the task may ever have.
    identity: Option<(u32, u32, u64)>,
    affinity: Option<process::Mask>,
}

impl BecomeTask {
    fn run(&self) -> std::io::Result<()> {
        use nix::errno::Errno;
        process::reset_oom_score()?;
        if let Some(namespace) = &self.namespace {
            // SAFETY: no memory is passed; the child of a fork shares its file system with nobody.
            Errno::result(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })?;
        }
        if let Some(affinity) = &self.affinity {
            affinity.apply_affinity(0)?;
        }
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
