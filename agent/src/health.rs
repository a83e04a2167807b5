//! Asks running allocations whether they work: http, tcp, or a command.
//!
//! Each checked run has a task of the runtime. It asks soon after the start and, until the first
//! success, more often than the interval, so that a deployment does not wait for an interval that
//! it need not; failures are still reported once an interval, since the core counts them. Runs are
//! spread over their interval by their names, and ask when it is their job's turn ([`turns`]).
//!
//! What answers has to be the task: a socket outside of its unit does not count, whatever it says. A command runs as a part
//! of the task ([`command`]).

use bytes::Bytes;
use fabric::id::AllocId;
use fabric::io::Launch;
use fabric::job::{Check, Health};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::listeners::{Holder, Listeners};
use turns::Turns;

mod command;
#[cfg(test)]
mod tests;
mod turns;

/// The first question comes this long after the start at most; spread by name.
const FIRST_MAX: Duration = Duration::from_millis(100);
/// Wait between the first two questions of a run that has not succeeded yet; doubles until it is
/// the interval.
const EAGER_MIN: Duration = Duration::from_millis(100);

/// Where outcomes go.
pub type Outcomes = mpsc::Sender<(AllocId, u32, Result<(), String>)>;

/// Checks allocations, each at its interval, until told to stop. Dropping it stops all.
#[derive(Debug)]
pub struct Checker {
    outcomes: Outcomes,
    listeners: Listeners,
    turns: Turns,
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
    pub fn new(outcomes: Outcomes, listeners: Listeners) -> Self {
        Self { outcomes, listeners, turns: Turns::default(), running: BTreeMap::new() }
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
        let cgroup = self.listeners.cgroup_of(&launch.alloc.unit());
        let asker = Asker {
            launch: launch.clone(),
            holder: Holder { cgroup, pid },
            listeners: self.listeners.clone(),
            known: Arc::default(),
        };
        let task = tokio::spawn(check(asker, health, self.outcomes.clone(), self.turns.clone()));
        self.running.insert(launch.alloc.clone(), Checked { run: launch.run, pid, task });
    }

    /// No longer checks a run. A later run of the same allocation goes on.
    pub fn stop(&mut self, alloc: &AllocId, run: u32) {
        if self.running.get(alloc).is_some_and(|checked| checked.run <= run) {
            self.running.remove(alloc);
        }
    }
}

async fn check(asker: Asker, health: Health, outcomes: Outcomes, turns: Turns) {
    let Launch { alloc, run, .. } = &asker.launch;
    let name = crate::hash::fnv1a(alloc.unit().as_bytes());
    // A fraction of one, the same in every run of this allocation.
    let fraction = (name % 1024) as f64 / 1024.0;
    tokio::time::sleep(FIRST_MAX.mul_f64(fraction)).await;
    let mut pause = EAGER_MIN.min(health.interval);
    let mut succeeded = false;
    let mut reported = tokio::time::Instant::now();
    loop {
        let outcome = {
            let _turn = turns.take(&alloc.slot.job).await;
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
    holder: Holder,
    listeners: Listeners,
    /// The socket that was found to be the task's.
    known: Arc<Mutex<Option<u64>>>,
}

impl Asker {
    async fn ask(&self, health: &Health) -> Result<(), String> {
        let asked = async {
            match &health.check {
                Check::Http { path, port } => self.http(path, port).await,
                Check::Tcp { port } => self.connect(port).await.map(drop),
                Check::Command { command } => {
                    command::run(&self.launch, &self.holder, command).await
                }
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
        let mut failed = None;
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let reason = match TcpStream::connect((address, number)).await {
                Ok(stream) => match self.leads_to_task(&stream).await {
                    Ok(()) => return Ok(stream),
                    Err(by) => format!(
                        "port {number} ({port}) is answered by {by}, which is no part of this task"
                    ),
                },
                // Without the other family, what matters is what this one says.
                Err(_) if failed.is_some() => continue,
                Err(error) => format!("port {number} ({port}): {error}"),
            };
            failed = Some(reason);
        }
        Err(failed.unwrap_or_default())
    }

    /// Whether a connection goes to the task; the error says to whom else.
    async fn leads_to_task(&self, stream: &TcpStream) -> Result<(), String> {
        let (Ok(own), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return Ok(()) };
        let (listeners, holder, known) =
            (self.listeners.clone(), self.holder.clone(), self.known.clone());
        if listeners.leads_straight_to(&holder, own, peer) {
            return Ok(());
        }
        let looking = tokio::task::spawn_blocking(move || {
            // Nothing panics while holding it.
            let mut known = known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            listeners.leads_to(&holder, peer, &mut known)
        });
        looking.await.unwrap_or(Ok(()))
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
}
