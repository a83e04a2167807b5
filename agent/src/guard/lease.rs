//! The folder that agent and guard share, and the files in it.

use fabric::id::AllocId;
use fabric::limits;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reach::Reach;
use crate::clock::BootTime;

/// Goes into every file. An agent and a guard of two versions understand each other or say so.
const FORMAT: u32 = 1;
/// Bytes of one file: paths and names, nothing that grows.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// A lease that runs longer than this from now was not granted by anybody: leases take seconds.
const LEASE_FAR_MAX: Duration = Duration::from_secs(3600);
/// A unit is given no longer than this to stop: voters wait it out.
const STOP_MAX: Duration = Duration::from_secs(600);

const LEASE: &str = ".lease";
const ANSWER: &str = ".answer";
const FIRED: &str = ".fired";
const GUARD: &str = "guard";

/// What the guard has to know of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseFile {
    format: u32,
    /// The boot of the machine that its times belong to.
    pub boot: String,
    /// The unit's name: [`AllocId::unit`].
    pub unit: String,
    /// Which run of it.
    pub run: u32,
    /// The unit is asked to stop at this moment.
    pub until: BootTime,
    /// It is killed this long afterwards.
    pub stop_timeout: Duration,
    /// What asks it to stop.
    pub stop_signal: String,
    /// Its processes.
    pub reach: Reach,
}

/// What the guard says to a lease file of a run that it did not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of which run; `None`: it could not be read that far.
    pub run: Option<u32>,
    /// Armed; or why not.
    pub armed: Result<(), String>,
}

/// What the guard did to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Of which run.
    pub run: u32,
    /// When it asked the unit to stop.
    pub asked: BootTime,
    /// When it killed what was left; `None`: nothing was, or its time is not up.
    pub killed: Option<BootTime>,
}

/// The guard that guards a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its start time, which makes the number its own.
    pub started: u64,
    /// Its version.
    pub version: String,
}

/// Why a lease file is not believed. What was known before stays.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The disk says no.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Not what the agent writes.
    #[error("it is not a lease: {0}")]
    Malformed(String),
    /// From before the machine came up: nothing of it can be running.
    #[error("it is of another boot of this machine")]
    OtherBoot,
}

impl LeaseFile {
    /// A lease of a run of a unit.
    pub fn new(boot: &str, unit: String, run: u32, until: BootTime, reach: Reach) -> Self {
        Self {
            format: FORMAT,
            boot: boot.to_owned(),
            unit,
            run,
            until,
            stop_timeout: Duration::ZERO,
            stop_signal: "SIGTERM".into(),
            reach,
        }
    }

    /// When whatever is left of the unit is killed.
    pub fn kill_at(&self) -> BootTime {
        self.until + self.stop_timeout
    }

    /// The signal that asks it to stop.
    pub fn signal(&self) -> Signal {
        // `check` has let only real ones through.
        self.stop_signal.parse().unwrap_or(Signal::SIGTERM)
    }

    /// Whether it can be believed, as the lease of `unit`.
    pub fn check(&self, unit: &str, boot: &str) -> Result<(), LeaseError> {
        let refuse = |reason: String| Err(LeaseError::Malformed(reason));
        if self.format != FORMAT {
            return refuse(format!("format {}, and this guard knows {FORMAT}", self.format));
        }
        if self.unit != unit || AllocId::from_unit(unit).is_none() {
            return refuse(format!("it is about {:?}", self.unit));
        }
        if self.boot != boot {
            return Err(LeaseError::OtherBoot);
        }
        if self.until.since(BootTime::now()) > LEASE_FAR_MAX {
            return refuse("no lease is that long".into());
        }
        if self.stop_timeout > STOP_MAX {
            return refuse(format!("a stop timeout of {:?}", self.stop_timeout));
        }
        if self.stop_signal.parse::<Signal>().is_err() {
            return refuse(format!("{:?} is no signal", self.stop_signal));
        }
        self.reach.check(unit, self.run).map_err(LeaseError::Malformed)
    }
}

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`; not made yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, if it is not there.
    pub fn make(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// The unit whose lease has this file name.
    pub fn unit_of(name: &str) -> Option<&str> {
        name.strip_suffix(LEASE).filter(|unit| AllocId::from_unit(unit).is_some())
    }

    /// Units that have a lease file, readable or not; at most as many as a node runs.
    pub fn units(&self) -> io::Result<Vec<String>> {
        let mut units = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            if let Some(unit) = name.to_str().and_then(Self::unit_of) {
                units.push(unit.to_owned());
            }
            if units.len() >= limits::ALLOCS_PER_NODE_MAX {
                break;
            }
        }
        Ok(units)
    }

    /// Units that anything in the folder is about.
    pub fn mentioned(&self) -> io::Result<BTreeSet<String>> {
        let names = std::fs::read_dir(&self.0)?.flatten().map(|entry| entry.file_name());
        let unit = |name: OsString| {
            let name = name.to_str()?;
            let unit = [LEASE, ANSWER, FIRED].iter().find_map(|kind| name.strip_suffix(kind))?;
            AllocId::from_unit(unit).map(|_| unit.to_owned())
        };
        Ok(names.filter_map(unit).collect())
    }

    /// Reads the lease of a unit, and refuses what cannot be believed.
    pub fn lease(&self, unit: &str, boot: &str) -> Result<LeaseFile, LeaseError> {
        let lease: LeaseFile = self.read(unit, LEASE)?;
        lease.check(unit, boot)?;
        Ok(lease)
    }

    /// Writes the lease of a unit.
    pub fn write_lease(&self, lease: &LeaseFile) -> io::Result<()> {
        self.write(&lease.unit, LEASE, lease)
    }

    /// Forgets the lease of a unit, and all that was said about it.
    pub fn remove(&self, unit: &str) {
        for kind in [LEASE, ANSWER, FIRED] {
            self.remove_file(unit, kind);
        }
    }

    /// Forgets the lease; what the guard did stays written down.
    pub fn remove_lease(&self, unit: &str) {
        self.remove_file(unit, LEASE);
        self.remove_file(unit, ANSWER);
    }

    /// What the guard said to the lease of a unit.
    pub fn answer(&self, unit: &str) -> Option<Answer> {
        self.read(unit, ANSWER).ok()
    }

    /// Says something to the lease of a unit.
    pub fn write_answer(&self, unit: &str, answer: &Answer) -> io::Result<()> {
        self.write(unit, ANSWER, answer)
    }

    /// What the guard did to this run of a unit.
    pub fn fired(&self, unit: &str, run: u32) -> Option<Fired> {
        self.read::<Fired>(unit, FIRED).ok().filter(|fired| fired.run == run)
    }

    /// Writes down what was done to a unit.
    pub fn write_fired(&self, unit: &str, fired: &Fired) -> io::Result<()> {
        self.write(unit, FIRED, fired)
    }

    /// The guard's process, if it was one.
    pub fn guard(&self) -> Option<Process> {
        self.read(GUARD, "").ok()
    }

    /// Says who the guard is.
    pub fn write_guard(&self, process: &Process) -> io::Result<()> {
        self.write(GUARD, "", process)
    }

    /// There is no guard any more.
    pub fn remove_guard(&self) {
        self.remove_file(GUARD, "");
    }

    fn read<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<T, LeaseError> {
        // A pipe or a device in place of a file must not make anybody wait.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
            .open(self.0.join(format!("{name}{kind}")))?;
        if !file.metadata()?.is_file() {
            return Err(LeaseError::Malformed("it is not a plain file".into()));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(LeaseError::Malformed(format!("more than {FILE_BYTES_MAX} bytes")));
        }
        serde_json::from_slice(&bytes).map_err(|error| LeaseError::Malformed(error.to_string()))
    }

    /// All or nothing, and what is read before is what was there before.
    fn write(&self, name: &str, kind: &str, value: &impl Serialize) -> io::Result<()> {
        let new = self.0.join(format!(".{name}{kind}"));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        std::fs::rename(new, self.0.join(format!("{name}{kind}")))
    }

    fn remove_file(&self, name: &str, kind: &str) {
        let path = self.0.join(format!("{name}{kind}"));
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of the guard stays");
        }
    }
}
