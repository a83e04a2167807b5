//! How the guard finds the processes of a unit, and how it signals them without ever hitting another.

use nix::libc;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use crate::cgroup;
use crate::process::{self, Members};

/// Variables that mark the processes of a unit.
const VARIABLES_MAX: usize = 8;

/// The processes of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// All in this cgroup and below it. Nothing escapes.
    Cgroup(PathBuf),
    /// For machines without cgroups: the session, and every process that has all of these in its
    /// environment. One that starts a session of its own and clears its environment escapes.
    Marked {
        /// Main process and its start time, once it was started.
        leader: Option<(u32, u64)>,
        /// `NAME=value`.
        variables: Vec<String>,
    },
}

impl Reach {
    /// Processes that have these variables, which [`environment`](crate::executor::environment) sets.
    pub fn marked(unit: &str, run: u32, agent: &str) -> Self {
        let variables = vec![
            format!("WEFT_UNIT={unit}"),
            format!("WEFT_RUN={run}"),
            format!("WEFT_AGENT={agent}"),
        ];
        Reach::Marked { leader: None, variables }
    }

    /// Refuses what could hold anything but this run of this unit.
    pub fn check(&self, unit: &str, run: u32) -> Result<(), String> {
        match self {
            Reach::Cgroup(path) => {
                let mount = cgroup::mount().ok_or("there are no cgroups here")?;
                let plain = path
                    .components()
                    .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
                let own = path.file_name().is_some_and(|name| name == unit);
                if !plain || !own || !path.starts_with(&mount) {
                    return Err(format!("{} is not the cgroup of {unit}", path.display()));
                }
            }
            Reach::Marked { leader, variables } => {
                let has = |wanted: String| variables.contains(&wanted);
                if variables.len() > VARIABLES_MAX
                    || !has(format!("WEFT_UNIT={unit}"))
                    || !has(format!("WEFT_RUN={run}"))
                {
                    return Err(format!("it does not mark run {run} of {unit}"));
                }
                if leader.is_some_and(|(pid, _)| pid < 2 || i32::try_from(pid).is_err()) {
                    return Err("its main process is none".into());
                }
            }
        }
        Ok(())
    }

    /// Their numbers now, zombies and the guard itself left out, as far as the kernel tells them.
    pub fn pids(&self) -> BTreeSet<u32> {
        self.look().unwrap_or_default()
    }

    /// Whether nobody is there for sure. What cannot be looked at is not gone.
    pub fn is_empty(&self) -> bool {
        self.look().is_ok_and(|pids| pids.is_empty())
    }

    fn look(&self) -> std::io::Result<BTreeSet<u32>> {
        let mut pids: BTreeSet<u32> = match self {
            Reach::Cgroup(path) => Members::Cgroup(path.clone()).look()?.into_iter().collect(),
            Reach::Marked { leader, variables } => {
                let session = leader.map(|(leader, started)| Members::Session { leader, started });
                let mut pids = session.map_or(Ok(Vec::new()), |session| session.look())?;
                pids.extend(process::with_environment(variables)?);
                pids.into_iter().collect()
            }
        };
        pids.remove(&std::process::id());
        Ok(pids)
    }

    /// Sends signals to every process that is there and that `wanted` lets through, once each; gives
    /// back whom it reached.
    pub fn signal(&self, signals: &[Signal], wanted: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        // A number may be given to another process at any moment: it is held by a descriptor first,
        // and then looked at again.
        let held: Vec<(u32, std::os::fd::OwnedFd)> = self
            .pids()
            .into_iter()
            .filter(|&pid| wanted(pid))
            .filter_map(|pid| Some((pid, process::open_pidfd(pid).ok()?)))
            .collect();
        if held.is_empty() {
            return BTreeSet::new();
        }
        let there = self.pids();
        let mut reached = BTreeSet::new();
        for (pid, process) in held.iter().filter(|(pid, _)| there.contains(pid)) {
            for signal in signals {
                // SAFETY: no memory is passed; the descriptor lives through the call.
                unsafe {
                    libc::syscall(
                        libc::SYS_pidfd_send_signal,
                        process.as_raw_fd(),
                        *signal as libc::c_int,
                        std::ptr::null::<libc::siginfo_t>(),
                        0,
                    )
                };
            }
            reached.insert(*pid);
        }
        reached
    }

    /// Kills every process that is there. True: there was none.
    pub fn kill(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        // The kernel's own way catches also those that are being forked just now.
        let all_at_once = |path: &Path| std::fs::write(path.join("cgroup.kill"), "1").is_ok();
        if !matches!(self, Reach::Cgroup(path) if all_at_once(path)) {
            self.signal(&[Signal::SIGKILL], |_| true);
        }
        false
    }
}
